//! `{name}` templates: the result strings and technical info of platform services.

use serde_json::Value;

/// A parsed template. Only `{name}` with a lower-case identifier is a placeholder; every other brace is text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Placeholder(String),
}

/// What filling a template gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled {
    /// The text, with the placeholders that found no value left as they are written.
    pub text: String,
    /// The placeholders that found no value, each once.
    pub missing: Vec<String>,
}

impl Template {
    /// Parses a template; every text is one.
    pub fn parse(text: &str) -> Template {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let after = &rest[open + 1..];
            let name = after
                .find('}')
                .map(|close| &after[..close])
                .filter(|name| is_placeholder(name));
            match name {
                Some(name) => {
                    plain.push_str(&rest[..open]);
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Placeholder(name.to_owned()));
                    rest = &after[name.len() + 1..];
                }
                None => {
                    plain.push_str(&rest[..=open]);
                    rest = after;
                }
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Template { parts }
    }

    /// The names it asks for, in order, with repetitions.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Placeholder(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Fills in what `lookup` finds. Text that comes out of `lookup` is never read as a placeholder.
    pub fn fill(&self, lookup: impl Fn(&str) -> Option<String>) -> Filled {
        let mut text = String::new();
        let mut missing: Vec<String> = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Placeholder(name) => match lookup(name) {
                    Some(value) => text.push_str(&value),
                    None => {
                        text.push('{');
                        text.push_str(name);
                        text.push('}');
                        if !missing.contains(name) {
                            missing.push(name.clone());
                        }
                    }
                },
            }
        }
        Filled { text, missing }
    }
}

/// A value as it stands in a filled template: text as it is, anything else as JSON. Null stands for nothing, so the
/// placeholder stays unfilled.
pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn is_placeholder(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_in_braces_are_placeholders() {
        let template = Template::parse("{a}/{ b }/{{}}/{}/{a-b}/{b}{");
        assert_eq!(template.placeholders().collect::<Vec<_>>(), ["a", "b"]);
        let filled = template.fill(|name| (name == "a").then(|| "{b}".to_owned()));
        assert_eq!(filled.text, "{b}/{ b }/{{}}/{}/{a-b}/{b}{");
        assert_eq!(filled.missing, ["b"]);
    }
}

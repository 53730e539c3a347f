//! When a field counts: what other fields must be for an element to be shown and for `required` to hold.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::Map;
use crate::term::{Mistakes, Path, Term};

/// What another field must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Dependency {
    /// The other field.
    pub field_name: String,
    /// The value it must have.
    pub value: Value,
}

/// Whether every dependency holds in `values`.
pub fn dependencies_hold(dependencies: &[Dependency], values: &Map) -> bool {
    dependencies
        .iter()
        .all(|dependency| values.get(&dependency.field_name) == Some(&dependency.value))
}

/// Reads `depends_on`: `{ field = value }`, a list of such tables, or the wire form with `field_name` and `value`.
pub fn dependencies(term: Term, path: Path, mistakes: &mut Mistakes) -> Vec<Dependency> {
    const EXPECTED: &str = "a table such as { access_granularity = \"table\" }, or a list of them";
    let mut found = Vec::new();
    match term {
        Term::List(items) => {
            for (place, item) in items.into_iter().enumerate() {
                match item {
                    Term::Table(_) => {
                        found.extend(dependencies(item, path.index(place + 1), mistakes))
                    }
                    other => mistakes.add(path.index(place + 1), EXPECTED, other.found()),
                }
            }
        }
        Term::Table(entries) => {
            let wire_form = entries.len() == 2
                && entries
                    .iter()
                    .any(|(key, term)| key == "field_name" && matches!(term, Term::String(_)))
                && entries.iter().any(|(key, _)| key == "value");
            if wire_form {
                let mut name = String::new();
                let mut value = Value::Null;
                for (key, term) in entries {
                    match term {
                        Term::String(text) if key == "field_name" => name = text,
                        other => value = other.into_json(),
                    }
                }
                found.push(Dependency {
                    field_name: name,
                    value,
                });
                return found;
            }
            for (key, term) in entries {
                match term {
                    Term::String(_) | Term::Boolean(_) | Term::Integer(_) | Term::Number(_) => {
                        found.push(Dependency {
                            field_name: key,
                            value: term.into_json(),
                        });
                    }
                    other => mistakes.add(
                        path.key(&key),
                        "a text, a number or a boolean",
                        other.found(),
                    ),
                }
            }
        }
        other => mistakes.add(path, EXPECTED, other.found()),
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(entries: Vec<(&str, Term)>) -> Term {
        Term::Table(
            entries
                .into_iter()
                .map(|(key, term)| (key.to_owned(), term))
                .collect(),
        )
    }

    fn text(value: &str) -> Term {
        Term::String(value.to_owned())
    }

    #[test]
    fn dependencies_are_a_list_on_the_wire_however_they_are_written() {
        let mut mistakes = Mistakes::default();
        let wanted = vec![Dependency {
            field_name: "a".into(),
            value: json!("b"),
        }];
        for term in [
            table(vec![("a", text("b"))]),
            Term::List(vec![table(vec![("a", text("b"))])]),
            table(vec![("field_name", text("a")), ("value", text("b"))]),
        ] {
            assert_eq!(dependencies(term, Path::default(), &mut mistakes), wanted);
        }
        assert!(mistakes.is_empty());
    }
}

//! A plugin's reference page, in Markdown, from its definition.

use std::fmt::Write as _;

use serde_json::Value;

use crate::definition::Definition;
use crate::field::{Field, FieldKind};

/// The reference page of a plugin: what it is, its fields, settings, examples, hooks and migrations.
pub fn reference(definition: &Definition) -> String {
    let platform = &definition.platform;
    let mut page = format!(
        "# {}\n\n`{}` {}",
        escaped(&platform.display_name),
        definition.name,
        escaped(&definition.version)
    );
    if let Some(requires) = &definition.requires {
        let _ = write!(page, ", for Patchbay {requires}");
    }
    page.push_str(".\n\n");
    let _ = writeln!(page, "| | |\n|---|---|");
    let _ = writeln!(page, "| platform | `{}` |", platform.platform_key);
    if let Some(parent) = &platform.parent_platform {
        let _ = writeln!(page, "| stands under | `{parent}` |");
    }
    if !definition.aliases.is_empty() {
        let aliases: Vec<String> = definition
            .aliases
            .iter()
            .map(|alias| format!("`{alias}`"))
            .collect();
        let _ = writeln!(page, "| also answers to | {} |", aliases.join(", "));
    }
    let _ = writeln!(
        page,
        "| one configuration | {} |",
        escaped(&platform.detailed_name)
    );
    let _ = writeln!(
        page,
        "| its access path | {}: {} |",
        escaped(&platform.result_label),
        escaped(&platform.result_tooltip)
    );
    if let Some(table) = &definition.table {
        let _ = writeln!(page, "| table | `{table}` |");
    }
    fields(
        &mut page,
        "Fields",
        "What a configuration consists of.",
        &definition.fields,
    );
    fields(
        &mut page,
        "Settings",
        "What the operator sets.",
        &definition.settings,
    );
    if !definition.examples.is_empty() {
        page.push_str("\n## Examples\n");
        for example in &definition.examples {
            let text = serde_json::to_string_pretty(example).unwrap_or_default();
            let _ = write!(page, "\n```json\n{text}\n```\n");
        }
    }
    let hooks = definition.hooks;
    let own: Vec<&str> = [
        (hooks.ui_metadata, "a form of its own"),
        (
            hooks.normalize,
            "values brought into shape before they are stored",
        ),
        (hooks.validate, "rules of its own"),
        (hooks.render, "an access path that is finished by code"),
        (hooks.url, "a link"),
        (
            hooks.upgrade,
            "configurations of older versions carried over",
        ),
    ]
    .into_iter()
    .filter_map(|(has, what)| has.then_some(what))
    .collect();
    if !own.is_empty() {
        let _ = write!(page, "\n## Behaviour\n\nIt has {}.\n", own.join(", "));
    }
    if !definition.migrations.is_empty() {
        page.push_str("\n## Migrations\n\n");
        for migration in &definition.migrations {
            let place = migration.path.as_deref().unwrap_or("in its file");
            let _ = writeln!(page, "- `{}` ({place})", migration.id);
        }
    }
    page
}

fn fields(page: &mut String, title: &str, what: &str, fields: &[Field]) {
    if fields.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "\n## {title}\n\n{what}\n\n| name | takes | required | default | |\n|---|---|---|---|---|\n"
    );
    for field in fields {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} |",
            field.name,
            takes(&field.kind),
            required(field),
            field.default.as_ref().map(code).unwrap_or_default(),
            escaped(
                field
                    .description
                    .as_deref()
                    .or(field.label.as_deref())
                    .unwrap_or_default()
            ),
        );
    }
}

fn required(field: &Field) -> String {
    if !field.required {
        return "no".to_owned();
    }
    if field.depends_on.is_empty() {
        return "yes".to_owned();
    }
    let conditions: Vec<String> = field
        .depends_on
        .iter()
        .map(|dependency| format!("`{}` is {}", dependency.field_name, code(&dependency.value)))
        .collect();
    format!("when {}", conditions.join(" and "))
}

/// What a field accepts, in words.
fn takes(kind: &FieldKind) -> String {
    fn between<T: std::fmt::Display>(min: &Option<T>, max: &Option<T>, unit: &str) -> String {
        match (min, max) {
            (None, None) => String::new(),
            (Some(min), None) => format!(", at least {min}{unit}"),
            (None, Some(max)) => format!(", at most {max}{unit}"),
            (Some(min), Some(max)) => format!(", {min} to {max}{unit}"),
        }
    }
    match kind {
        FieldKind::String { pattern, min, max } => {
            let pattern = pattern
                .as_ref()
                .map(|pattern| format!(", matching {}", code_text(pattern.as_str())))
                .unwrap_or_default();
            format!("text{}{pattern}", between(min, max, " characters"))
        }
        FieldKind::Integer { min, max } => format!("a whole number{}", between(min, max, "")),
        FieldKind::Number { min, max } => format!("a number{}", between(min, max, "")),
        FieldKind::Boolean => "true or false".to_owned(),
        FieldKind::Enum { values } => {
            let values: Vec<String> = values.iter().map(|value| code_text(value)).collect();
            values.join(", ")
        }
        FieldKind::List { of, min, max } => {
            let of = serde_json::to_value(of).unwrap_or_default();
            let of = of.as_str().unwrap_or("value");
            format!("a list of {of}s{}", between(min, max, " items"))
        }
        FieldKind::Json => "any JSON".to_owned(),
    }
}

fn code(value: &Value) -> String {
    code_text(&value.to_string())
}

/// A text as code in a cell of a table, whatever is in it.
fn code_text(text: &str) -> String {
    let text = text.replace('|', "\\|").replace('\n', " ");
    match text.contains('`') {
        true => format!("`` {text} ``"),
        false => format!("`{text}`"),
    }
}

/// A text that says nothing to Markdown.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\r' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' => {
                out.push('\\');
                out.push(letter);
            }
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::term::Term;

    fn table(entries: Vec<(&str, Term)>) -> Term {
        Term::Table(
            entries
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        )
    }

    #[test]
    fn a_page_says_what_each_field_takes() {
        let text = |text: &str| Term::String(text.to_owned());
        let field = table(vec![
            ("type", text("string")),
            ("name", text("folder")),
            ("required", Term::Boolean(true)),
            ("max", Term::Integer(20)),
            ("pattern", text("^(a|b)")),
            ("description", text("Where the *files* are <b>")),
        ]);
        let kind = table(vec![
            ("type", text("enum")),
            ("name", text("kind")),
            ("values", Term::List(vec![text("x"), text("y")])),
            ("default", text("x")),
        ]);
        let term = table(vec![
            ("name", text("LakeDataOutput")),
            ("fields", Term::List(vec![field, kind])),
        ]);
        let page = reference(&Definition::read(term, Vec::new()).expect("a definition"));
        assert!(
            page.starts_with("# Lake\n\n`LakeDataOutput` 1.0.\n"),
            "{page}"
        );
        for line in [
            "| `folder` | text, at most 20 characters, matching `^(a\\|b)` | yes |  | Where the \\*files\\* are &lt;b> |",
            "| `kind` | `x`, `y` | no | `\"x\"` |  |",
            "| table | `lake_data_output_configurations` |",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }
}

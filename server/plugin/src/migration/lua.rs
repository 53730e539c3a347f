//! Operations as the Lua that records them: what a generated file holds, and how an error names an operation.

use serde_json::Value;

use super::{Column, Operation};

/// The words that Lua keeps for itself, so that they are no bare keys.
const KEYWORDS: &[&str] = &[
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local",
    "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
];

/// The call that records the operation, such as `m:drop_column("lakes", "format")`.
pub fn operation(operation: &Operation) -> String {
    let table = text(operation.table().as_str());
    match operation {
        Operation::CreateTable { columns, .. } => {
            let columns: Vec<String> = columns.iter().map(column).collect();
            format!("m:create_table({table}, {{ {} }})", columns.join(", "))
        }
        Operation::DropTable { .. } => format!("m:drop_table({table})"),
        Operation::AddColumn { column: added, .. } => {
            format!("m:add_column({table}, {})", column(added))
        }
        Operation::RenameColumn { from, to, .. } => {
            format!("m:rename_column({table}, {}, {})", text(from), text(to))
        }
        Operation::DropColumn { column, .. } => {
            format!("m:drop_column({table}, {})", text(column))
        }
        Operation::AlterColumn { column: wanted, .. } => {
            format!("m:alter_column({table}, {})", column(wanted))
        }
        Operation::CreateIndex {
            name,
            columns,
            unique,
            ..
        } => {
            let columns: Vec<String> = columns.iter().map(|column| text(column)).collect();
            let unique = if *unique { ", unique = true" } else { "" };
            format!(
                "m:create_index({table}, {{ {} }}, {{ name = {}{unique} }})",
                columns.join(", "),
                text(name)
            )
        }
        Operation::DropIndex { name, .. } => format!("m:drop_index({table}, {})", text(name)),
        Operation::Update { set, matching, .. } => {
            let matching = match matching.is_empty() {
                true => String::new(),
                false => format!(", where = {}", entries(matching)),
            };
            format!("m:update({table}, {{ set = {}{matching} }})", entries(set))
        }
    }
}

/// The call that makes the column, such as `column.text "format" { nullable = false }`.
pub fn column(column: &Column) -> String {
    if *column == Column::id() {
        return "column.id()".to_owned();
    }
    let mut options = Vec::new();
    if !column.nullable {
        options.push("nullable = false".to_owned());
    }
    if let Some(default) = &column.default {
        options.push(format!("default = {}", value(default)));
    }
    if column.primary_key {
        options.push("primary_key = true".to_owned());
    }
    if let Some(reference) = &column.references {
        let cascade = match reference.cascade {
            true => ", on_delete = \"cascade\"",
            false => "",
        };
        options.push(format!(
            "references = {{ table = {}, column = {}{cascade} }}",
            text(&reference.table),
            text(&reference.column)
        ));
    }
    let options = match options.is_empty() {
        true => String::new(),
        false => format!(" {{ {} }}", options.join(", ")),
    };
    format!(
        "column.{} {}{options}",
        column.kind.word(),
        text(&column.name)
    )
}

/// A value of JSON as Lua.
fn value(value: &Value) -> String {
    match value {
        Value::Null => "patchbay.null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(content) => text(content),
        Value::Array(items) if items.is_empty() => "{}".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(self::value).collect();
            format!("{{ {} }}", items.join(", "))
        }
        Value::Object(found) if found.is_empty() => "{}".to_owned(),
        Value::Object(found) => entries(found),
    }
}

fn entries<'a>(found: impl IntoIterator<Item = (&'a String, &'a Value)>) -> String {
    let entries: Vec<String> = found
        .into_iter()
        .map(|(key, found)| match is_bare(key) {
            true => format!("{key} = {}", value(found)),
            false => format!("[{}] = {}", text(key), value(found)),
        })
        .collect();
    format!("{{ {} }}", entries.join(", "))
}

fn is_bare(key: &str) -> bool {
    let mut characters = key.chars();
    characters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !KEYWORDS.contains(&key)
}

/// A text as a literal of one line.
pub fn text(content: &str) -> String {
    let mut literal = String::with_capacity(content.len() + 2);
    literal.push('"');
    for character in content.chars() {
        match character {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\t' => literal.push_str("\\t"),
            control if control.is_ascii_control() => {
                literal.push_str(&format!("\\{:03}", control as u32));
            }
            other => literal.push(other),
        }
    }
    literal.push('"');
    literal
}

/// Where two lists of operations differ first, in words; none when they do not.
pub fn difference(before: &[Operation], now: &[Operation]) -> Option<String> {
    let longest = before.len().max(now.len());
    (0..longest).find_map(|place| {
        let number = place + 1;
        match (before.get(place), now.get(place)) {
            (Some(before), Some(now)) if before == now => None,
            (Some(before), Some(now)) => Some(format!(
                "operation {number} was {}, is now {}",
                operation(before),
                operation(now)
            )),
            (Some(before), None) => Some(format!(
                "operation {number} was {}, and is gone",
                operation(before)
            )),
            (None, Some(now)) => Some(format!("operation {number} is new: {}", operation(now))),
            (None, None) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::migration::ColumnType;
    use crate::name::TableName;

    #[test]
    fn operations_are_written_as_authors_write_them() {
        let table = TableName::parse("lakes").expect("a name");
        let plain = Column {
            name: "tags".into(),
            kind: ColumnType::Json,
            nullable: false,
            default: Some(json!(["a\"b", null, { "end": 1, "x": "1\n2" }])),
            primary_key: false,
            references: None,
        };
        for (found, expected) in [
            (
                Operation::CreateTable {
                    table: table.clone(),
                    columns: vec![Column::id(), plain.clone()],
                },
                r#"m:create_table("lakes", { column.id(), column.json "tags" { nullable = false, default = { "a\"b", patchbay.null, { ["end"] = 1, x = "1\n2" } } } })"#,
            ),
            (
                Operation::Update {
                    table: table.clone(),
                    set: BTreeMap::from([("tags".to_owned(), json!(null))]),
                    matching: BTreeMap::from([("format".to_owned(), json!("csv"))]),
                },
                r#"m:update("lakes", { set = { tags = patchbay.null }, where = { format = "csv" } })"#,
            ),
            (
                Operation::CreateIndex {
                    table: table.clone(),
                    name: "ix".into(),
                    columns: vec!["a".into(), "b".into()],
                    unique: true,
                },
                r#"m:create_index("lakes", { "a", "b" }, { name = "ix", unique = true })"#,
            ),
        ] {
            assert_eq!(operation(&found), expected);
        }
    }

    #[test]
    fn the_operation_that_differs_is_named() {
        let table = TableName::parse("lakes").expect("a name");
        let drop = |column: &str| Operation::DropColumn {
            table: table.clone(),
            column: column.to_owned(),
        };
        let before = [drop("a"), drop("b")];
        assert_eq!(difference(&before, &before), None);
        assert_eq!(
            difference(&before, &[drop("a"), drop("c")]).as_deref(),
            Some(
                r#"operation 2 was m:drop_column("lakes", "b"), is now m:drop_column("lakes", "c")"#
            )
        );
        assert_eq!(
            difference(&before, &before[..1]).as_deref(),
            Some(r#"operation 2 was m:drop_column("lakes", "b"), and is gone"#)
        );
        assert_eq!(
            difference(&before[..1], &before).as_deref(),
            Some(r#"operation 2 is new: m:drop_column("lakes", "b")"#)
        );
    }
}

//! Operations as a migration's functions recorded them, read and checked.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Column, ColumnType, Operation, Reference};
use crate::name::{MAX_IDENTIFIER, TableName};
use crate::term::{Mistakes, Path, TableReader, Term};

/// Reads the operations that a migration recorded. Notes every mistake.
pub fn read_operations(term: Term, path: Path, mistakes: &mut Mistakes) -> Vec<Operation> {
    let items = match term {
        Term::List(items) => items,
        other => {
            mistakes.add(path, "operations", other.found());
            return Vec::new();
        }
    };
    items
        .into_iter()
        .enumerate()
        .filter_map(|(place, item)| read_operation(item, path.index(place + 1), mistakes))
        .collect()
}

fn read_operation(term: Term, path: Path, mistakes: &mut Mistakes) -> Option<Operation> {
    let mut table = TableReader::open(term, path, "an operation", mistakes)?;
    let word = table.required_string("op", mistakes)?;
    let missing = mistakes.len();
    let name = table.required_string("table", mistakes).and_then(|text| {
        TableName::parse(&text)
            .map_err(|error| {
                mistakes.add(table.path_of("table"), error.expected, format!("{text:?}"))
            })
            .ok()
    });
    let operation = match word.as_str() {
        "create_table" => {
            let items = table
                .list("columns", "a list of columns", mistakes)
                .unwrap_or_default();
            let path = table.path_of("columns");
            let columns = items
                .into_iter()
                .enumerate()
                .filter_map(|(place, item)| read_column(item, path.index(place + 1), mistakes))
                .collect();
            Operation::CreateTable {
                table: name?,
                columns,
            }
        }
        "drop_table" => Operation::DropTable { table: name? },
        "add_column" | "alter_column" => {
            let term = table.take("column").unwrap_or(Term::Nil);
            let column = read_column(term, table.path_of("column"), mistakes)?;
            if word == "add_column" {
                Operation::AddColumn {
                    table: name?,
                    column,
                }
            } else {
                Operation::AlterColumn {
                    table: name?,
                    column,
                }
            }
        }
        "rename_column" => {
            let from = read_identifier(&mut table, "from", mistakes);
            let to = read_identifier(&mut table, "to", mistakes);
            Operation::RenameColumn {
                table: name?,
                from: from?,
                to: to?,
            }
        }
        "drop_column" => {
            let column = read_identifier(&mut table, "column", mistakes);
            Operation::DropColumn {
                table: name?,
                column: column?,
            }
        }
        "create_index" => {
            let columns = table.strings("columns", mistakes).unwrap_or_default();
            if columns.is_empty() {
                mistakes.add(table.path_of("columns"), "at least one column", "none");
            }
            let unique = table.boolean("unique", mistakes).unwrap_or(false);
            let name = name?;
            let index = match table.has("name") {
                true => read_identifier(&mut table, "name", mistakes)?,
                false => {
                    table.take("name");
                    index_name(&name, &columns)
                }
            };
            Operation::CreateIndex {
                table: name,
                name: index,
                columns,
                unique,
            }
        }
        "drop_index" => {
            let index = read_identifier(&mut table, "name", mistakes);
            Operation::DropIndex {
                table: name?,
                name: index?,
            }
        }
        "update" => {
            let set = read_values(&mut table, "set", mistakes);
            if set.is_empty() {
                mistakes.add(
                    table.path_of("set"),
                    "at least one column with its new value",
                    "none",
                );
            }
            let matching = read_values(&mut table, "where", mistakes);
            Operation::Update {
                table: name?,
                set,
                matching,
            }
        }
        other => {
            mistakes.add(table.path_of("op"), "an operation", format!("{other:?}"));
            return None;
        }
    };
    table.finish(mistakes);
    (mistakes.len() == missing).then_some(operation)
}

/// The name of an index that was given none. Long names are cut and made unique by a hash.
fn index_name(table: &TableName, columns: &[String]) -> String {
    let full = format!("ix_{table}_{}", columns.join("_"));
    if full.len() <= MAX_IDENTIFIER {
        return full;
    }
    let hash: String = Sha256::digest(&full)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{}_{hash}", &full[..MAX_IDENTIFIER - 9])
}

fn is_column_name(text: &str) -> bool {
    text == "id" || crate::name::FieldName::parse(text).is_ok()
}

fn read_identifier(
    table: &mut TableReader,
    key: &'static str,
    mistakes: &mut Mistakes,
) -> Option<String> {
    let text = table.required_string(key, mistakes)?;
    if !is_column_name(&text) {
        mistakes.add(
            table.path_of(key),
            format!(
                "a name: a lower-case letter, then lower-case letters, digits and `_`, at most {MAX_IDENTIFIER} bytes"
            ),
            format!("{text:?}"),
        );
        return None;
    }
    Some(text)
}

fn read_values(
    table: &mut TableReader,
    key: &'static str,
    mistakes: &mut Mistakes,
) -> BTreeMap<String, Value> {
    let path = table.path_of(key);
    match table.take(key) {
        None => BTreeMap::new(),
        Some(Term::Table(entries)) => entries
            .into_iter()
            .map(|(column, term)| (column, term.into_json()))
            .collect(),
        Some(Term::List(items)) if items.is_empty() => BTreeMap::new(),
        Some(other) => {
            mistakes.add(path, "a table of columns and values", other.found());
            BTreeMap::new()
        }
    }
}

fn read_column(term: Term, path: Path, mistakes: &mut Mistakes) -> Option<Column> {
    let expected = "a column, such as column.text \"database\" { nullable = false }";
    let mut table = TableReader::open(term, path, expected, mistakes)?;
    let Some(Term::String(word)) = table.take("type") else {
        mistakes.add(
            table.path().clone(),
            expected,
            "a table that no `column` function built",
        );
        return None;
    };
    let Some(kind) = ColumnType::parse(&word) else {
        mistakes.add(
            table.path_of("type"),
            "one of text, integer, number, boolean, json, uuid",
            format!("{word:?}"),
        );
        return None;
    };
    let before = mistakes.len();
    let name = read_identifier(&mut table, "name", mistakes);
    let primary_key = table.boolean("primary_key", mistakes).unwrap_or(false);
    let nullable = table.boolean("nullable", mistakes).unwrap_or(!primary_key);
    let default_path = table.path_of("default");
    let default = table
        .take("default")
        .map(|term| (term.found(), term.into_json()));
    if let Some((found, value)) = &default {
        let fits = match kind {
            ColumnType::Text => value.is_string(),
            ColumnType::Integer => value.is_i64(),
            ColumnType::Number => value.is_number(),
            ColumnType::Boolean => value.is_boolean(),
            ColumnType::Json => true,
            ColumnType::Uuid => false,
        };
        if !fits {
            mistakes.add(
                default_path,
                format!("a default of the type {}", kind.word()),
                found.clone(),
            );
        }
    }
    let references = table.take("references").and_then(|term| {
        let mut reference =
            TableReader::open(term, table.path_of("references"), "a table", mistakes)?;
        let to = reference.required_string("table", mistakes);
        let column = reference
            .string("column", mistakes)
            .unwrap_or_else(|| "id".to_owned());
        let on_delete = reference.string("on_delete", mistakes);
        reference.finish(mistakes);
        Some(Reference {
            table: to?,
            column,
            cascade: on_delete.as_deref() == Some("cascade"),
        })
    });
    table.finish(mistakes);
    let default = default.map(|(_, value)| value);
    (mistakes.len() == before).then_some(Column {
        name: name?,
        kind,
        nullable,
        default,
        primary_key,
        references,
    })
}

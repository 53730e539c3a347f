//! The step that makes a table fit the fields: what `patchbay plugin migration new` writes.

use super::{Column, ColumnType, Operation, Table, Tables, derive_down, lua};
use crate::definition::Definition;
use crate::name::{MigrationId, TableName};

/// How wide a line of generated Lua may be.
const WIDTH: usize = 120;

/// The next step of a plugin, written from the difference between its table and its fields.
#[derive(Debug, Clone, PartialEq)]
pub struct NextStep {
    /// Its id.
    pub id: MigrationId,
    /// The plugin.
    plugin: String,
    /// What it does; nothing for a skeleton.
    pub up: Vec<Operation>,
    /// What undoes it, where that is not derived.
    pub down: Option<Vec<Operation>>,
    /// What to consider, by the place of the operation in `up`.
    notes: Vec<(usize, String)>,
    /// What is to be known of `down`.
    down_note: Option<String>,
}

/// The step from `tables`, which the steps so far have made, to what the fields want. `last` is the highest number of a
/// step so far. None when nothing is different and no `empty` one is wanted.
///
/// # Errors
/// Why there can be none, such as a slug that is no part of an id.
pub fn next_step(
    definition: &Definition,
    tables: &Tables,
    last: u32,
    slug: Option<&str>,
    empty: bool,
) -> Result<Option<NextStep>, String> {
    let mut step = Draft::default();
    match &definition.table {
        Some(name) => match tables.0.get(name) {
            None => step.create(name, definition),
            Some(table) => step.change(name, table, definition),
        },
        None if !empty => {
            return Err(format!(
                "the plugin {} has no fields, so it has no table",
                definition.name
            ));
        }
        None => {}
    }
    if step.up.is_empty() && !empty {
        return Ok(None);
    }
    let slug = slug.map_or_else(|| step.slug(), str::to_owned);
    let text = format!("{:04}_{slug}", last + 1);
    let id = MigrationId::parse(&text)
        .map_err(|error| format!("expected {}, found {text:?}", error.expected))?;
    let (down, down_note) = step.down(tables);
    Ok(Some(NextStep {
        id,
        plugin: definition.name.to_string(),
        up: step.up,
        down,
        notes: step.notes,
        down_note,
    }))
}

#[derive(Default)]
struct Draft {
    up: Vec<Operation>,
    notes: Vec<(usize, String)>,
}

impl Draft {
    fn create(&mut self, table: &TableName, definition: &Definition) {
        let columns = std::iter::once(Column::id())
            .chain(definition.fields.iter().map(Column::of))
            .collect();
        self.up.push(Operation::CreateTable {
            table: table.clone(),
            columns,
        });
    }

    fn change(&mut self, name: &TableName, table: &Table, definition: &Definition) {
        let wanted: Vec<Column> = definition.fields.iter().map(Column::of).collect();
        let added: Vec<Column> = wanted
            .iter()
            .filter(|column| !table.columns.contains_key(&column.name))
            // The rows that are there have no value; a required field's column is nullable for their sake.
            .map(|column| Column {
                nullable: column.nullable || column.default.is_none(),
                ..column.clone()
            })
            .collect();
        let removed: Vec<&Column> = table
            .columns
            .values()
            .filter(|column| column.name != "id")
            .filter(|column| wanted.iter().all(|wanted| wanted.name != column.name))
            .collect();
        for (index, (columns, _)) in &table.indexes {
            if removed.iter().any(|column| columns.contains(&column.name)) {
                self.up.push(Operation::DropIndex {
                    table: name.clone(),
                    name: index.clone(),
                });
            }
        }
        for column in &removed {
            let place = self.up.len();
            for other in added.iter().filter(|other| other.kind == column.kind) {
                self.note(place, &rename_note(name, column, other));
            }
            self.up.push(Operation::DropColumn {
                table: name.clone(),
                column: column.name.clone(),
            });
        }
        for column in added {
            self.up.push(Operation::AddColumn {
                table: name.clone(),
                column,
            });
        }
        for column in wanted {
            let Some(old) = table.columns.get(&column.name) else {
                continue;
            };
            let column = Column {
                // Rows may be without a value, and without a default there is none to give them. The field still asks
                // for one.
                nullable: column.nullable || (old.nullable && column.default.is_none()),
                primary_key: old.primary_key,
                references: old.references.clone(),
                ..column
            };
            if column == *old {
                continue;
            }
            if column.kind != old.kind {
                let note = format!(
                    "Values that are no {} make the step fail, and nothing is changed then. Mend them before, such as with m:update.",
                    column.kind.word()
                );
                self.note(self.up.len(), &note);
            }
            self.up.push(Operation::AlterColumn {
                table: name.clone(),
                column,
            });
        }
    }

    fn note(&mut self, place: usize, text: &str) {
        self.notes.push((place, text.to_owned()));
    }

    fn slug(&self) -> String {
        match &self.up[..] {
            [] => "data".to_owned(),
            [Operation::CreateTable { .. }] => "create_table".to_owned(),
            [Operation::AddColumn { column, .. }] => format!("add_{}", column.name),
            [Operation::DropColumn { column, .. }] => format!("drop_{column}"),
            [Operation::AlterColumn { column, .. }] => format!("alter_{}", column.name),
            _ => "change_fields".to_owned(),
        }
    }

    /// What undoes the step, when it is not derived, and what is to be known of it.
    fn down(&self, tables: &Tables) -> (Option<Vec<Operation>>, Option<String>) {
        if self.up.is_empty() || derive_down(&self.up, tables).is_ok() {
            return (None, None);
        }
        let mut before = tables.clone();
        let mut down = Vec::new();
        for operation in &self.up {
            let undo = match operation {
                Operation::DropColumn { table, column } => {
                    let old = before
                        .0
                        .get(table)
                        .and_then(|table| table.columns.get(column));
                    old.and_then(|old| add_back(table, old))
                }
                other => derive_down(std::slice::from_ref(other), &before).ok(),
            };
            let Some(undo) = undo else {
                let note = "It cannot be taken back: a column that is a key or refers to another cannot be added later.";
                return (None, Some(note.to_owned()));
            };
            down.push(undo);
            if before.apply(operation).is_err() {
                return (None, None);
            }
        }
        down.reverse();
        let note = "The table is as it was; the values that `up` took away do not come back.";
        (Some(down.concat()), Some(note.to_owned()))
    }
}

/// What adds a column that was dropped. One that may not be null is filled with something first.
fn add_back(table: &TableName, old: &Column) -> Option<Vec<Operation>> {
    if old.primary_key || old.references.is_some() {
        return None;
    }
    let add = |column: &Column| Operation::AddColumn {
        table: table.clone(),
        column: column.clone(),
    };
    if old.nullable || old.default.is_some() {
        return Some(vec![add(old)]);
    }
    let filler = match old.kind {
        ColumnType::Text => serde_json::json!(""),
        ColumnType::Integer | ColumnType::Number => serde_json::json!(0),
        ColumnType::Boolean => serde_json::json!(false),
        ColumnType::Json => serde_json::json!([]),
        ColumnType::Uuid => return None,
    };
    let filled = Column {
        default: Some(filler),
        ..old.clone()
    };
    Some(vec![
        add(&filled),
        Operation::AlterColumn {
            table: table.clone(),
            column: old.clone(),
        },
    ])
}

fn rename_note(table: &TableName, old: &Column, new: &Column) -> String {
    let rename = lua::operation(&Operation::RenameColumn {
        table: table.clone(),
        from: old.name.clone(),
        to: new.name.clone(),
    });
    let renamed = Column {
        name: new.name.clone(),
        ..old.clone()
    };
    let alter = match renamed == *new {
        true => String::new(),
        false => {
            let alter = Operation::AlterColumn {
                table: table.clone(),
                column: new.clone(),
            };
            format!("\n    {}", lua::operation(&alter))
        }
    };
    format!(
        "The values of {0} go. If it is only called {1} now, put this in the place of dropping {0} and adding {1}, and \
         take `down` out:\n    {rename}{alter}",
        old.name, new.name
    )
}

impl NextStep {
    /// The text of its file.
    pub fn file(&self) -> String {
        let mut text = String::new();
        let about = format!(
            "Written by `patchbay plugin migration new {}`. Read it before it is applied; afterwards it stays as it is.",
            self.plugin
        );
        comment(&mut text, 0, &about);
        let body = self.body(1);
        if body.contains("column.") {
            text.push_str("local column = patchbay.column\n\n");
        }
        text.push_str("return {\n");
        text.push_str(&body);
        text.push_str("}\n");
        text
    }

    /// The entry of a single-file plugin's `migrations`.
    pub fn entry(&self) -> String {
        let body = self.body(1).replace("column.", "patchbay.column.");
        format!(
            "patchbay.migration {} {{\n{body}}},",
            lua::text(self.id.as_str())
        )
    }

    fn body(&self, depth: usize) -> String {
        let mut text = String::new();
        let line = |text: &mut String, depth: usize, line: &str| {
            text.push_str(&"    ".repeat(depth));
            text.push_str(line);
            text.push('\n');
        };
        line(&mut text, depth, "up = function(m)");
        if self.up.is_empty() {
            // A server that watches the folder would run an empty step at once, and then it could not be written any more.
            line(
                &mut text,
                depth + 1,
                "error \"write what the step does in the place of this line\"",
            );
            line(
                &mut text,
                depth + 1,
                "-- Such as: m:update(\"table\", { set = { format = \"parquet\" }, where = { format = \"orc\" } })",
            );
        }
        for (place, operation) in self.up.iter().enumerate() {
            for (_, note) in self.notes.iter().filter(|(at, _)| *at == place) {
                comment(&mut text, depth + 1, note);
            }
            call(&mut text, depth + 1, operation);
        }
        line(&mut text, depth, "end,");
        if let Some(note) = &self.down_note {
            comment(&mut text, depth, note);
        }
        if let Some(down) = &self.down {
            line(&mut text, depth, "down = function(m)");
            for operation in down {
                call(&mut text, depth + 1, operation);
            }
            line(&mut text, depth, "end,");
        }
        text
    }
}

/// A comment, broken between words. An indented line of it is code, and stays as it is.
fn comment(text: &mut String, depth: usize, note: &str) {
    let indent = "    ".repeat(depth);
    for line in note.lines() {
        if line.starts_with(' ') {
            text.push_str(&format!("{indent}-- {line}\n"));
            continue;
        }
        let mut current = String::new();
        for word in line.split(' ') {
            if !current.is_empty() && indent.len() + 4 + current.len() + word.len() > WIDTH {
                text.push_str(&format!("{indent}-- {current}\n"));
                current.clear();
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
        text.push_str(&format!("{indent}-- {current}\n"));
    }
}

/// A call, with a line for each column where a table is created.
fn call(text: &mut String, depth: usize, operation: &Operation) {
    let indent = "    ".repeat(depth);
    match operation {
        Operation::CreateTable { table, columns } => {
            let table = lua::text(table.as_str());
            text.push_str(&format!("{indent}m:create_table({table}, {{\n"));
            for column in columns {
                text.push_str(&format!("{indent}    {},\n", lua::column(column)));
            }
            text.push_str(&format!("{indent}}})\n"));
        }
        other => text.push_str(&format!("{indent}{}\n", lua::operation(other))),
    }
}

//! The tables of one plugin, as its steps make them: each operation is tried here before it is SQL.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::{BASE_TABLE, Column, Migration, Operation, lua};
use crate::name::TableName;

/// The tables of one plugin, as its steps make them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tables(pub BTreeMap<TableName, Table>);

/// One table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// Its columns, in order.
    pub columns: IndexMap<String, Column>,
    /// Its indexes: columns and whether unique, by name.
    pub indexes: BTreeMap<String, (Vec<String>, bool)>,
}

impl Tables {
    /// The tables that these migrations make, one after the other.
    ///
    /// # Errors
    /// Why an operation cannot be applied, in words.
    pub fn after<'a>(
        migrations: impl IntoIterator<Item = &'a Migration>,
    ) -> Result<Tables, String> {
        let mut tables = Tables::default();
        for migration in migrations {
            tables.apply_all(&migration.up)?;
        }
        Ok(tables)
    }

    /// Applies operations, one after the other.
    ///
    /// # Errors
    /// Why one of them cannot be applied, in words; those before it are.
    pub fn apply_all(&mut self, operations: &[Operation]) -> Result<(), String> {
        operations
            .iter()
            .try_for_each(|operation| self.apply(operation))
    }

    /// Applies one operation, or says why it cannot be.
    ///
    /// # Errors
    /// Why it cannot be applied, in words, such as a table or column that is not there.
    pub fn apply(&mut self, operation: &Operation) -> Result<(), String> {
        let name = operation.table().clone();
        if let Operation::CreateTable { columns, .. } = operation {
            if self.0.contains_key(&name) {
                return Err(format!("the table {name} is there already"));
            }
            let mut table = Table::default();
            for column in columns {
                if table
                    .columns
                    .insert(column.name.clone(), column.clone())
                    .is_some()
                {
                    return Err(format!("the column {} is there twice", column.name));
                }
            }
            check_id(&table)?;
            self.0.insert(name, table);
            return Ok(());
        }
        let Some(table) = self.0.get_mut(&name) else {
            return Err(format!("there is no table {name} at this step"));
        };
        let lacks = |table: &Table, column: &str| match table.columns.contains_key(column) {
            true => Ok(()),
            false => Err(format!(
                "the table {name} has no column {column} at this step"
            )),
        };
        match operation {
            Operation::CreateTable { .. } => {}
            Operation::DropTable { .. } => {
                self.0.remove(&name);
            }
            Operation::AddColumn { column, .. } => {
                if table.columns.contains_key(&column.name) {
                    return Err(format!(
                        "the table {name} has a column {} already",
                        column.name
                    ));
                }
                if column.primary_key || column.references.is_some() {
                    return Err(
                        "a column that is added later can be neither key nor reference".to_owned(),
                    );
                }
                if !column.nullable && column.default.is_none() {
                    return Err(format!(
                        "the column {} is not nullable, so the rows that are there need a default",
                        column.name
                    ));
                }
                table.columns.insert(column.name.clone(), column.clone());
            }
            Operation::RenameColumn { from, to, .. } => {
                lacks(table, from)?;
                not_id(from)?;
                if table.columns.contains_key(to) {
                    return Err(format!("the table {name} has a column {to} already"));
                }
                table.columns = std::mem::take(&mut table.columns)
                    .into_iter()
                    .map(|(key, mut column)| {
                        if key == *from {
                            column.name.clone_from(to);
                            (to.clone(), column)
                        } else {
                            (key, column)
                        }
                    })
                    .collect();
                for (columns, _) in table.indexes.values_mut() {
                    for column in columns.iter_mut().filter(|column| *column == from) {
                        column.clone_from(to);
                    }
                }
            }
            Operation::DropColumn { column, .. } => {
                lacks(table, column)?;
                not_id(column)?;
                if let Some((index, _)) = table
                    .indexes
                    .iter()
                    .find(|(_, (columns, _))| columns.contains(column))
                {
                    return Err(format!(
                        "the index {index} uses the column {column}; drop the index first"
                    ));
                }
                table.columns.shift_remove(column);
            }
            Operation::AlterColumn { column, .. } => {
                lacks(table, &column.name)?;
                not_id(&column.name)?;
                if column.primary_key || column.references.is_some() {
                    return Err("a column cannot become key or reference later".to_owned());
                }
                table.columns.insert(column.name.clone(), column.clone());
            }
            Operation::CreateIndex {
                name: index,
                columns,
                unique,
                ..
            } => {
                for column in columns {
                    lacks(table, column)?;
                }
                if table
                    .indexes
                    .insert(index.clone(), (columns.clone(), *unique))
                    .is_some()
                {
                    return Err(format!("the index {index} is there already"));
                }
            }
            Operation::DropIndex { name: index, .. } => {
                if table.indexes.remove(index).is_none() {
                    return Err(format!("there is no index {index} at this step"));
                }
            }
            Operation::Update { set, matching, .. } => {
                for column in set.keys().chain(matching.keys()) {
                    lacks(table, column)?;
                }
                if let Some(column) = set.keys().find(|column| not_id(column).is_err()) {
                    return Err(format!("the column {column} is never written by a step"));
                }
            }
        }
        Ok(())
    }
}

fn not_id(column: &str) -> Result<(), String> {
    if column == "id" {
        Err("the column id is what ties the table to its rows".to_owned())
    } else {
        Ok(())
    }
}

/// A plugin table's `id` is what makes deletion and joins right, so anything else is refused.
fn check_id(table: &Table) -> Result<(), String> {
    let remedy = format!(
        "the table's `id` must be its only primary key and a foreign key to {BASE_TABLE} on delete cascade; \
         write column.id() as its first column"
    );
    let other_key = table
        .columns
        .values()
        .any(|column| column.primary_key && column.name != "id");
    match table.columns.get("id") {
        Some(id) if *id == Column::id() && !other_key => Ok(()),
        _ => Err(remedy),
    }
}

/// What undoes `up`, where that can be derived, or why it cannot: `before` is what the tables are when it runs.
///
/// It is a candidate: whether a change of a column is undone by the change back depends on the values, which is for a
/// proof to show.
///
/// # Errors
/// Which operation cannot be undone and why, in words.
pub fn derive_down(up: &[Operation], before: &Tables) -> Result<Vec<Operation>, String> {
    let mut tables = before.clone();
    let mut down = Vec::new();
    for operation in up {
        let none = || {
            Err(format!(
                "it has no `down`, and none can be derived, because nothing brings back what {} takes away; write a \
                 `down` in a new version of the plugin, before it is applied",
                lua::operation(operation)
            ))
        };
        let undo = match operation {
            Operation::CreateTable { table, .. } => Operation::DropTable {
                table: table.clone(),
            },
            Operation::AddColumn { table, column } => Operation::DropColumn {
                table: table.clone(),
                column: column.name.clone(),
            },
            Operation::RenameColumn { table, from, to } => Operation::RenameColumn {
                table: table.clone(),
                from: to.clone(),
                to: from.clone(),
            },
            Operation::CreateIndex { table, name, .. } => Operation::DropIndex {
                table: table.clone(),
                name: name.clone(),
            },
            Operation::DropIndex { table, name } => {
                let index = tables
                    .0
                    .get(table)
                    .and_then(|table| table.indexes.get(name));
                let Some((columns, unique)) = index.cloned() else {
                    return none();
                };
                Operation::CreateIndex {
                    table: table.clone(),
                    name: name.clone(),
                    columns,
                    unique,
                }
            }
            Operation::AlterColumn { table, column } => {
                let old = tables
                    .0
                    .get(table)
                    .and_then(|table| table.columns.get(&column.name));
                let Some(old) = old.cloned() else {
                    return none();
                };
                Operation::AlterColumn {
                    table: table.clone(),
                    column: old,
                }
            }
            Operation::DropTable { .. }
            | Operation::DropColumn { .. }
            | Operation::Update { .. } => return none(),
        };
        down.push(undo);
        tables.apply(operation)?;
    }
    down.reverse();
    Ok(down)
}

impl Tables {
    /// What is different in `found`, in words; none when nothing is. The order of columns does not count.
    pub fn difference(&self, found: &Tables) -> Option<String> {
        let mut differences = Vec::new();
        for name in self.0.keys().filter(|name| !found.0.contains_key(*name)) {
            differences.push(format!("the table {name} is missing"));
        }
        for (name, table) in &found.0 {
            match self.0.get(name) {
                None => differences.push(format!("the table {name} is there and should not be")),
                Some(expected) => expected.differences(name, table, &mut differences),
            }
        }
        (!differences.is_empty()).then(|| differences.join("; "))
    }
}

impl Table {
    fn differences(&self, name: &TableName, found: &Table, differences: &mut Vec<String>) {
        for (key, column) in &self.columns {
            match found.columns.get(key) {
                None => differences.push(format!("{name} lacks the column {key}")),
                Some(other) if other != column => differences.push(format!(
                    "expected {} in {name}, found {}",
                    lua::column(column),
                    lua::column(other)
                )),
                Some(_) => {}
            }
        }
        for key in found
            .columns
            .keys()
            .filter(|key| !self.columns.contains_key(*key))
        {
            differences.push(format!("{name} has a column {key} and should not"));
        }
        for key in self.indexes.keys() {
            if found.indexes.get(key) != self.indexes.get(key) {
                differences.push(format!(
                    "{name} lacks the index {key}, or has another one of that name"
                ));
            }
        }
        for key in found
            .indexes
            .keys()
            .filter(|key| !self.indexes.contains_key(*key))
        {
            differences.push(format!("{name} has an index {key} and should not"));
        }
    }
}

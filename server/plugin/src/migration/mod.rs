//! Migrations: numbered steps of a plugin's own tables, kept as operations before they are SQL.
//!
//! Because a step is data it can be checked before it runs, shown, rendered for either database, hashed, and run in
//! reverse. There is no raw SQL, so a plugin's steps can touch its own tables only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::field::{Field, FieldKind};
use crate::name::{MigrationId, TableName};

mod carry;
mod fit;
pub mod lua;
mod part;
mod plan;
mod read;
mod tables;
#[cfg(test)]
mod tests;
mod way;

pub use fit::{NextStep, next_step};
pub use part::{as_of, fields_of};
pub use plan::{
    AppliedMigration, Origin, PendingMigration, Plan, PlanError, plan, ran, written_tables,
};
pub use read::read_operations;
pub use tables::{Table, Tables, derive_down};
pub use way::{StepBack, WayBack, WayError, down_of, find_step, way_back};

/// The table that every plugin table refers to.
pub const BASE_TABLE: &str = "data_output_configurations";

/// One numbered step.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// Its id: the stem of its file.
    pub id: MigrationId,
    /// Its file, relative to the package; none when it is written inline or derived.
    pub path: Option<String>,
    /// What it does.
    pub up: Vec<Operation>,
    /// What undoes it, where the author wrote it.
    pub down: Option<Vec<Operation>>,
}

/// What a step does to a table. Types are portable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Creates a table.
    CreateTable {
        /// Its name.
        table: TableName,
        /// Its columns, `id` among them.
        columns: Vec<Column>,
    },
    /// Drops a table with its rows.
    DropTable {
        /// Its name.
        table: TableName,
    },
    /// Appends a column.
    AddColumn {
        /// The table.
        table: TableName,
        /// The column. When it is not nullable it needs a default.
        column: Column,
    },
    /// Renames a column.
    RenameColumn {
        /// The table.
        table: TableName,
        /// The name it has.
        from: String,
        /// The name it gets.
        to: String,
    },
    /// Drops a column with its values.
    DropColumn {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// Changes a column's type, nullability or default.
    AlterColumn {
        /// The table.
        table: TableName,
        /// The column as it shall be.
        column: Column,
    },
    /// Creates an index.
    CreateIndex {
        /// The table.
        table: TableName,
        /// The index's name.
        name: String,
        /// The columns, in order.
        columns: Vec<String>,
        /// Whether no two rows may agree in them.
        unique: bool,
    },
    /// Drops an index.
    DropIndex {
        /// The table.
        table: TableName,
        /// The index's name.
        name: String,
    },
    /// Sets columns of the rows that match.
    Update {
        /// The table.
        table: TableName,
        /// The new values, by column.
        set: BTreeMap<String, Value>,
        /// What rows must have, by column; all rows when empty.
        #[serde(rename = "where")]
        matching: BTreeMap<String, Value>,
    },
}

/// A column of a plugin's table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
    /// What it is when a row is written without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Whether it is the primary key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub primary_key: bool,
    /// The column it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<Reference>,
}

/// A foreign key of one column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// Whether deleting the row referred to deletes this one.
    pub cascade: bool,
}

/// Portable types, with what they are on SQLite and Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// `text` and `text`.
    Text,
    /// `integer` and `bigint`.
    Integer,
    /// `real` and `double precision`.
    Number,
    /// `boolean` and `boolean`.
    Boolean,
    /// `text` and `jsonb`.
    Json,
    /// `text` and `uuid`.
    Uuid,
}

impl ColumnType {
    /// The word of `column.<type>`.
    pub fn word(self) -> &'static str {
        match self {
            ColumnType::Text => "text",
            ColumnType::Integer => "integer",
            ColumnType::Number => "number",
            ColumnType::Boolean => "boolean",
            ColumnType::Json => "json",
            ColumnType::Uuid => "uuid",
        }
    }

    /// The type of a word.
    pub fn parse(word: &str) -> Option<ColumnType> {
        use ColumnType::{Boolean, Integer, Json, Number, Text, Uuid};
        [Text, Integer, Number, Boolean, Json, Uuid]
            .into_iter()
            .find(|kind| kind.word() == word)
    }

    /// The column type of a field.
    pub fn of(kind: &FieldKind) -> ColumnType {
        match kind {
            FieldKind::String { .. } | FieldKind::Enum { .. } => ColumnType::Text,
            FieldKind::Integer { .. } => ColumnType::Integer,
            FieldKind::Number { .. } => ColumnType::Number,
            FieldKind::Boolean => ColumnType::Boolean,
            FieldKind::List { .. } | FieldKind::Json => ColumnType::Json,
        }
    }
}

impl Column {
    /// The `id` column that every plugin table has: primary key, and foreign key to the base table with cascade.
    pub fn id() -> Column {
        Column {
            name: "id".to_owned(),
            kind: ColumnType::Uuid,
            nullable: false,
            default: None,
            primary_key: true,
            references: Some(Reference {
                table: BASE_TABLE.to_owned(),
                column: "id".to_owned(),
                cascade: true,
            }),
        }
    }

    /// The column of a field.
    pub fn of(field: &Field) -> Column {
        Column {
            name: field.name.as_str().to_owned(),
            kind: ColumnType::of(&field.kind),
            nullable: field.is_nullable(),
            default: field.default.clone().filter(|default| !default.is_null()),
            primary_key: false,
            references: None,
        }
    }
}

impl Operation {
    /// The table it touches.
    pub fn table(&self) -> &TableName {
        match self {
            Operation::CreateTable { table, .. }
            | Operation::DropTable { table }
            | Operation::AddColumn { table, .. }
            | Operation::RenameColumn { table, .. }
            | Operation::DropColumn { table, .. }
            | Operation::AlterColumn { table, .. }
            | Operation::CreateIndex { table, .. }
            | Operation::DropIndex { table, .. }
            | Operation::Update { table, .. } => table,
        }
    }

    /// Whether it only adds, so that a server of the version before can go on beside it. `before` is what the tables
    /// are when it runs.
    pub fn expands(&self, before: &Tables) -> bool {
        match self {
            Operation::CreateTable { .. } | Operation::AddColumn { .. } => true,
            Operation::CreateIndex { unique, .. } => !unique,
            Operation::AlterColumn { table, column } => before
                .0
                .get(table)
                .and_then(|table| table.columns.get(&column.name))
                .is_some_and(|old| old.kind == column.kind && (column.nullable || !old.nullable)),
            Operation::DropTable { .. }
            | Operation::RenameColumn { .. }
            | Operation::DropColumn { .. }
            | Operation::DropIndex { .. }
            | Operation::Update { .. } => false,
        }
    }
}

/// The SHA-256 of the operations, in hexadecimal. The text of a file does not count, only what it does.
pub fn checksum(up: &[Operation], down: Option<&[Operation]>) -> String {
    let text = serde_json::to_string(&(up, down))
        .unwrap_or_else(|_| unreachable!("operations are plain data"));
    Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl Migration {
    /// The hash of what it does.
    pub fn checksum(&self) -> String {
        checksum(&self.up, self.down.as_deref())
    }
}

//! Migrations: numbered steps of a plugin's own tables, kept as operations before they are SQL.
//!
//! Because a step is data it can be checked before it runs, shown, rendered for either database, hashed, and run in
//! reverse. There is no raw SQL, so a plugin's steps can touch its own tables only.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::definition::Definition;
use crate::field::{Field, FieldKind};
use crate::name::{MAX_IDENTIFIER, MigrationId, TableName};
use crate::term::{Mistakes, Path, TableReader, Term};

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
    /// Applies one operation, or says why it cannot be.
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

/// What undoes `up`, where that can be derived: `before` is what the tables are when it runs.
pub fn derive_down(up: &[Operation], before: &Tables) -> Option<Vec<Operation>> {
    let mut tables = before.clone();
    let mut down = Vec::new();
    for operation in up {
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
                let (columns, unique) = tables.0.get(table)?.indexes.get(name)?.clone();
                Operation::CreateIndex {
                    table: table.clone(),
                    name: name.clone(),
                    columns,
                    unique,
                }
            }
            Operation::DropTable { .. }
            | Operation::DropColumn { .. }
            | Operation::AlterColumn { .. }
            | Operation::Update { .. } => return None,
        };
        down.push(undo);
        tables.apply(operation).ok()?;
    }
    down.reverse();
    Some(down)
}

/// How a step came to be in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// An author wrote it.
    Written,
    /// The server derived it from the fields.
    Derived,
    /// An author wrote it for tables older than this one, which was made from newer fields; it did not run.
    Baseline,
}

impl Origin {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Written => "written",
            Origin::Derived => "derived",
            Origin::Baseline => "baseline",
        }
    }

    /// The origin of a word.
    pub fn parse(word: &str) -> Option<Origin> {
        [Origin::Written, Origin::Derived, Origin::Baseline]
            .into_iter()
            .find(|origin| origin.as_str() == word)
    }
}

/// A step of the history.
#[derive(Debug, Clone, PartialEq)]
pub struct AppliedMigration {
    /// What ran.
    pub migration: Migration,
    /// How it came about.
    pub origin: Origin,
    /// The hash of what ran.
    pub checksum: String,
    /// When.
    pub applied_at: OffsetDateTime,
    /// Who had it run.
    pub applied_by: String,
}

/// A step that has not run yet.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingMigration {
    /// What shall run.
    pub migration: Migration,
    /// How it came about.
    pub origin: Origin,
    /// Whether it only adds, so that it may run by itself.
    pub expands: bool,
}

/// What leads from the history to what a definition wants.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// The steps to run, in order.
    pub pending: Vec<PendingMigration>,
    /// The tables after them.
    pub tables: Tables,
    /// The last step after them: the head that every write checks.
    pub head: Option<MigrationId>,
}

/// Why a definition does not follow from its history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// An applied step was edited.
    #[error(
        "the migration {id} was changed after it was applied; restore it and write a new migration for the change"
    )]
    Edited {
        /// The step.
        id: MigrationId,
    },
    /// An applied step is gone.
    #[error("the migration {id} was applied but is no longer there; restore its file")]
    Gone {
        /// The step.
        id: MigrationId,
    },
    /// A new step sorts before one that has run.
    #[error(
        "the migration {id} sorts before {head}, which was applied already; give it a higher number"
    )]
    OutOfOrder {
        /// The new step.
        id: MigrationId,
        /// The last applied one.
        head: MigrationId,
    },
    /// A step cannot run on the tables as they are.
    #[error("the migration {id} cannot run: {reason}")]
    Impossible {
        /// The step.
        id: MigrationId,
        /// Why.
        reason: String,
    },
    /// The fields want what the table does not have, and no step can be derived for it.
    #[error("the table {table} does not fit the fields: {reason}")]
    Unfit {
        /// The plugin's table.
        table: TableName,
        /// Why, and what to write.
        reason: String,
    },
}

/// Plans the steps from `applied`, in the order they ran, to what `definition` wants.
///
/// Written steps that have not run come first; then what can be derived from the fields: the table itself, a column for
/// a new field, a column that may now be null. A removal or narrowing needs a written step.
pub fn plan(definition: &Definition, applied: &[AppliedMigration]) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    for step in applied {
        let written = definition
            .migrations
            .iter()
            .find(|migration| migration.id == step.migration.id);
        match written {
            Some(migration) if migration.checksum() != step.checksum => {
                return Err(PlanError::Edited {
                    id: step.migration.id.clone(),
                });
            }
            None if step.origin != Origin::Derived => {
                return Err(PlanError::Gone {
                    id: step.migration.id.clone(),
                });
            }
            _ => {}
        }
        if step.origin != Origin::Baseline {
            apply_all(&mut plan.tables, &step.migration.id, &step.migration.up)?;
        }
        plan.head = Some(step.migration.id.clone());
    }
    let last_written = applied
        .iter()
        .filter(|step| step.origin != Origin::Derived)
        .map(|step| &step.migration.id)
        .max();
    let new: Vec<&Migration> = definition
        .migrations
        .iter()
        .filter(|migration| !applied.iter().any(|step| step.migration.id == migration.id))
        .collect();
    if let (Some(head), Some(first)) = (last_written, new.first())
        && first.id < *head
    {
        return Err(PlanError::OutOfOrder {
            id: first.id.clone(),
            head: head.clone(),
        });
    }
    let creates = |table: &TableName| {
        new.iter()
            .flat_map(|migration| &migration.up)
            .any(|operation| matches!(operation, Operation::CreateTable { table: created, .. } if created == table))
    };
    let from_fields = definition
        .table
        .as_ref()
        .filter(|table| !plan.tables.0.contains_key(*table) && !creates(table));
    if let Some(table) = from_fields.cloned() {
        let columns = std::iter::once(Column::id())
            .chain(definition.fields.iter().map(Column::of))
            .collect();
        derive(
            &mut plan,
            definition,
            "create_table",
            Operation::CreateTable { table, columns },
        )?;
    }
    for migration in new {
        let main_only = migration
            .up
            .iter()
            .all(|operation| Some(operation.table()) == definition.table.as_ref());
        if from_fields.is_some() && main_only {
            plan.head = Some(migration.id.clone());
            plan.pending.push(PendingMigration {
                migration: migration.clone(),
                origin: Origin::Baseline,
                expands: true,
            });
            continue;
        }
        let expands = apply_all(&mut plan.tables, &migration.id, &migration.up)?;
        plan.head = Some(migration.id.clone());
        plan.pending.push(PendingMigration {
            migration: migration.clone(),
            origin: Origin::Written,
            expands,
        });
    }
    if let Some(table) = &definition.table {
        derive_columns(&mut plan, definition, table)?;
    }
    Ok(plan)
}

/// Applies operations, and says whether all of them only add.
fn apply_all(
    tables: &mut Tables,
    id: &MigrationId,
    operations: &[Operation],
) -> Result<bool, PlanError> {
    let mut expands = true;
    for operation in operations {
        expands &= operation.expands(tables);
        tables
            .apply(operation)
            .map_err(|reason| PlanError::Impossible {
                id: id.clone(),
                reason,
            })?;
    }
    Ok(expands)
}

/// Appends a derived step.
fn derive(
    plan: &mut Plan,
    definition: &Definition,
    what: &str,
    operation: Operation,
) -> Result<(), PlanError> {
    let written = definition.migrations.iter().map(|migration| &migration.id);
    let number_of = |id: &MigrationId| id.as_str()[..4].parse::<u32>().unwrap_or(0);
    // A derived table comes before the written steps that build on it; a derived column comes after everything.
    let number = match (&operation, &plan.head) {
        (Operation::CreateTable { .. }, None) => {
            let first = written.map(number_of).min().unwrap_or(1);
            first
                .min(1)
                .saturating_sub(u32::from(first <= 1 && !definition.migrations.is_empty()))
        }
        (_, head) => written.chain(head).map(number_of).max().unwrap_or(0) + 1,
    };
    let text = format!("{number:04}_{what}");
    let id = MigrationId::parse(&text).map_err(|error| PlanError::Unfit {
        table: operation.table().clone(),
        reason: format!("no id for a derived step: {error}"),
    })?;
    apply_all(&mut plan.tables, &id, std::slice::from_ref(&operation))?;
    plan.head = Some(id.clone());
    plan.pending.push(PendingMigration {
        migration: Migration {
            id,
            path: None,
            up: vec![operation],
            down: None,
        },
        origin: Origin::Derived,
        expands: true,
    });
    Ok(())
}

fn derive_columns(
    plan: &mut Plan,
    definition: &Definition,
    name: &TableName,
) -> Result<(), PlanError> {
    let unfit = |reason: String| PlanError::Unfit {
        table: name.clone(),
        reason,
    };
    let Some(table) = plan.tables.0.get(name).cloned() else {
        return Err(unfit(
            "no migration creates it, or a later one drops it".to_owned(),
        ));
    };
    for column in table.columns.values().filter(|column| column.name != "id") {
        if !definition
            .fields
            .iter()
            .any(|field| field.name.as_str() == column.name)
        {
            return Err(unfit(format!(
                "the column {0} belongs to no field; bring the field {0} back, or write a migration with \
                 m:drop_column(\"{name}\", \"{0}\") or m:rename_column(\"{name}\", \"{0}\", …)",
                column.name
            )));
        }
    }
    for field in &definition.fields {
        let wanted = Column::of(field);
        match table.columns.get(field.name.as_str()) {
            None => {
                // The rows that are there have no value; a required field's column is nullable for their sake.
                let column = Column {
                    nullable: wanted.nullable || wanted.default.is_none(),
                    ..wanted
                };
                let what = format!("add_{}", field.name);
                derive(
                    plan,
                    definition,
                    &what,
                    Operation::AddColumn {
                        table: name.clone(),
                        column,
                    },
                )?;
            }
            Some(column) if column.kind != wanted.kind => {
                return Err(unfit(format!(
                    "the column {} is {} and the field wants {}; write a migration with m:alter_column(…)",
                    column.name,
                    column.kind.word(),
                    wanted.kind.word(),
                )));
            }
            Some(column) if wanted.nullable && !column.nullable => {
                let column = Column {
                    nullable: true,
                    ..column.clone()
                };
                let what = format!("widen_{}", field.name);
                derive(
                    plan,
                    definition,
                    &what,
                    Operation::AlterColumn {
                        table: name.clone(),
                        column,
                    },
                )?;
            }
            Some(_) => {}
        }
    }
    Ok(())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(fields: &[(&str, bool)], migrations: Vec<Migration>) -> Definition {
        let fields = fields
            .iter()
            .map(|(name, required)| {
                Term::Table(vec![
                    ("type".into(), Term::String("string".into())),
                    ("name".into(), Term::String((*name).into())),
                    ("required".into(), Term::Boolean(*required)),
                ])
            })
            .collect();
        Definition::read(
            Term::Table(vec![
                ("name".into(), Term::String("Example".into())),
                ("table".into(), Term::String("example_rows".into())),
                ("fields".into(), Term::List(fields)),
            ]),
            migrations,
        )
        .expect("a definition")
    }

    fn applied(plan: &Plan) -> Vec<AppliedMigration> {
        plan.pending
            .iter()
            .map(|step| AppliedMigration {
                checksum: step.migration.checksum(),
                migration: step.migration.clone(),
                origin: step.origin,
                applied_at: OffsetDateTime::UNIX_EPOCH,
                applied_by: "test".into(),
            })
            .collect()
    }

    fn ids(plan: &Plan) -> Vec<&str> {
        plan.pending
            .iter()
            .map(|step| step.migration.id.as_str())
            .collect()
    }

    fn drop_note() -> Migration {
        let table = TableName::parse("example_rows").expect("a name");
        Migration {
            id: MigrationId::parse("0002_drop_note").expect("an id"),
            path: None,
            up: vec![Operation::DropColumn {
                table,
                column: "note".into(),
            }],
            down: None,
        }
    }

    #[test]
    fn a_table_and_later_a_column_are_derived_from_the_fields() {
        let first = plan(&definition(&[("a", true)], vec![]), &[]).expect("a plan");
        assert_eq!(ids(&first), ["0001_create_table"]);
        let history = applied(&first);
        let second =
            plan(&definition(&[("a", true), ("b", true)], vec![]), &history).expect("a plan");
        assert_eq!(ids(&second), ["0002_add_b"]);
        assert!(second.pending[0].expands);
        let nothing = plan(&definition(&[("a", true)], vec![]), &history).expect("a plan");
        assert!(nothing.pending.is_empty());
        assert_eq!(nothing.head.expect("a head").as_str(), "0001_create_table");
    }

    #[test]
    fn a_removal_needs_a_written_step_which_does_not_run_by_itself() {
        let history = applied(
            &plan(&definition(&[("a", true), ("note", false)], vec![]), &[]).expect("a plan"),
        );
        let error = plan(&definition(&[("a", true)], vec![]), &history).expect_err("a removal");
        assert!(
            error
                .to_string()
                .contains("m:drop_column(\"example_rows\", \"note\")"),
            "{error}"
        );
        let written =
            plan(&definition(&[("a", true)], vec![drop_note()]), &history).expect("a plan");
        assert_eq!(ids(&written), ["0002_drop_note"]);
        assert!(!written.pending[0].expands);
    }

    #[test]
    fn on_a_new_database_older_steps_are_the_baseline() {
        let fresh = plan(&definition(&[("a", true)], vec![drop_note()]), &[]).expect("a plan");
        assert_eq!(ids(&fresh), ["0001_create_table", "0002_drop_note"]);
        assert_eq!(fresh.pending[1].origin, Origin::Baseline);
        assert!(
            plan(
                &definition(&[("a", true)], vec![drop_note()]),
                &applied(&fresh)
            )
            .expect("a plan")
            .pending
            .is_empty()
        );
    }

    #[test]
    fn an_edited_or_lost_step_is_reported() {
        let history =
            applied(&plan(&definition(&[("a", true)], vec![drop_note()]), &[]).expect("a plan"));
        let mut edited = drop_note();
        edited.up.clear();
        assert!(matches!(
            plan(&definition(&[("a", true)], vec![edited]), &history),
            Err(PlanError::Edited { .. })
        ));
        assert!(matches!(
            plan(&definition(&[("a", true)], vec![]), &history),
            Err(PlanError::Gone { .. })
        ));
    }

    #[test]
    fn an_optional_field_widens_its_column() {
        let history = applied(&plan(&definition(&[("a", true)], vec![]), &[]).expect("a plan"));
        let wider = plan(&definition(&[("a", false)], vec![]), &history).expect("a plan");
        assert_eq!(ids(&wider), ["0002_widen_a"]);
        assert!(wider.pending[0].expands);
    }

    #[test]
    fn a_table_without_the_right_id_is_refused_with_the_remedy() {
        let table = TableName::parse("example_rows").expect("a name");
        for columns in [
            vec![],
            vec![Column {
                references: None,
                ..Column::id()
            }],
            vec![Column {
                primary_key: false,
                ..Column::id()
            }],
        ] {
            let error = Tables::default()
                .apply(&Operation::CreateTable {
                    table: table.clone(),
                    columns,
                })
                .expect_err("no id");
            assert!(error.contains("column.id()"), "{error}");
        }
    }

    #[test]
    fn down_is_derived_where_nothing_is_lost() {
        let table = TableName::parse("example_rows").expect("a name");
        let create = Operation::CreateTable {
            table: table.clone(),
            columns: vec![Column::id()],
        };
        let down = derive_down(std::slice::from_ref(&create), &Tables::default()).expect("a down");
        let mut tables = Tables::default();
        tables.apply(&create).expect("up");
        for operation in &down {
            tables.apply(operation).expect("down");
        }
        assert_eq!(tables, Tables::default());
        assert_eq!(derive_down(&drop_note().up, &Tables::default()), None);
    }
}

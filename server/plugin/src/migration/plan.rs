//! The way from what is applied to what a definition wants.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Column, Migration, Operation, Tables};
use crate::definition::Definition;
use crate::name::{MigrationId, TableName};

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
    /// Whether the steps of this origin run; the others are only recorded.
    pub fn runs(self) -> bool {
        self != Origin::Baseline
    }

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

/// The steps of a history that ran, in order.
pub fn ran(history: &[AppliedMigration]) -> impl Iterator<Item = &Migration> {
    history
        .iter()
        .filter(|step| step.origin.runs())
        .map(|step| &step.migration)
}

/// A step that has not run yet.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingMigration {
    /// What shall run.
    pub migration: Migration,
    /// How it came about.
    pub origin: Origin,
    /// Whether it only adds, or changes only what is made with it, so that it may run by itself.
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
        "the migration {id} was changed after it was applied: {difference}; restore it and write a new migration for the \
         change"
    )]
    Edited {
        /// The step.
        id: MigrationId,
        /// The first operation that is another one now.
        difference: String,
    },
    /// An applied step is gone.
    #[error(
        "the migration {id} was applied but is no longer there; restore its file, or take the step back with \
         `patchbay plugin migrate NAME --to …`"
    )]
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
///
/// # Errors
/// [`PlanError`]: the first reason why the definition does not follow from its history.
pub fn plan(definition: &Definition, applied: &[AppliedMigration]) -> Result<Plan, PlanError> {
    let mut plan = follow(definition, applied)?;
    let new = new_steps(definition, applied)?;
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
    let made = plan.tables.clone();
    for migration in new {
        let main_only = migration
            .up
            .iter()
            .all(|operation| Some(operation.table()) == definition.table.as_ref());
        if (from_fields.is_some() && main_only) || adopts(migration, applied, &made) {
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
            // Where nothing was applied before, there is nothing to lose, and no server that reads the table.
            expands: expands || applied.is_empty(),
        });
    }
    if let Some(table) = &definition.table {
        derive_columns(&mut plan, definition, table)?;
    }
    Ok(plan)
}

/// The tables that the history and the written steps after it make, before anything is derived from the fields.
///
/// # Errors
/// [`PlanError`] as for [`plan`], but for what only the fields want.
pub fn written_tables(
    definition: &Definition,
    applied: &[AppliedMigration],
) -> Result<Tables, PlanError> {
    let mut tables = follow(definition, applied)?.tables;
    let made = tables.clone();
    for migration in new_steps(definition, applied)? {
        if !adopts(migration, applied, &made) {
            apply_all(&mut tables, &migration.id, &migration.up)?;
        }
    }
    Ok(tables)
}

/// Follows the history, and checks that the definition still has what was applied.
fn follow(definition: &Definition, applied: &[AppliedMigration]) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let mut taken_over = Vec::new();
    for step in applied {
        let written = definition
            .migrations
            .iter()
            .find(|migration| migration.id == step.migration.id);
        match written {
            Some(migration) if migration.checksum() == step.checksum => {}
            Some(migration) if step.origin == Origin::Derived => taken_over.push((step, migration)),
            Some(migration) => return Err(edited(step, migration)),
            None if step.origin != Origin::Derived => {
                return Err(PlanError::Gone {
                    id: step.migration.id.clone(),
                });
            }
            None => {}
        }
        if step.origin.runs() {
            apply_all(&mut plan.tables, &step.migration.id, &step.migration.up)?;
        }
        plan.head = Some(step.migration.id.clone());
    }
    // A file may stand for steps that were derived before it was written.
    for (step, migration) in taken_over {
        if !adopts(migration, applied, &plan.tables) {
            return Err(edited(step, migration));
        }
    }
    Ok(plan)
}

fn edited(step: &AppliedMigration, now: &Migration) -> PlanError {
    let before = &step.migration;
    let none: &[Operation] = &[];
    let (old_down, new_down) = (before.down.as_deref(), now.down.as_deref());
    let difference = super::lua::difference(&before.up, &now.up)
        .map(|difference| format!("in `up`, {difference}"))
        .or_else(|| {
            super::lua::difference(old_down.unwrap_or(none), new_down.unwrap_or(none))
                .map(|difference| format!("in `down`, {difference}"))
        })
        .unwrap_or_else(|| match old_down {
            None => "it has a `down` now".to_owned(),
            Some(_) => "it has no `down` any more".to_owned(),
        });
    PlanError::Edited {
        id: before.id.clone(),
        difference,
    }
}

/// The written steps that are not in the history.
fn new_steps<'a>(
    definition: &'a Definition,
    applied: &[AppliedMigration],
) -> Result<Vec<&'a Migration>, PlanError> {
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
    match (last_written, new.first()) {
        (Some(head), Some(first)) if first.id < *head => Err(PlanError::OutOfOrder {
            id: first.id.clone(),
            head: head.clone(),
        }),
        _ => Ok(new),
    }
}

/// Whether a written step only makes what derived steps have made already: the file of a table that was derived from the
/// fields before anybody wrote a file. It counts as applied where that is so, and runs where it is not. Columns have to
/// agree in name and type: a column that was derived for rows that were there may be null where the file says otherwise.
fn adopts(migration: &Migration, applied: &[AppliedMigration], made: &Tables) -> bool {
    let is_derived = |table: &TableName| {
        applied
            .iter()
            .filter(|step| step.origin == Origin::Derived)
            .flat_map(|step| &step.migration.up)
            .any(|operation| matches!(operation, Operation::CreateTable { table: created, .. } if created == table))
    };
    let mut wanted = Tables::default();
    let creates_only = migration.up.iter().all(|operation| {
        matches!(operation, Operation::CreateTable { .. })
            && is_derived(operation.table())
            && wanted.apply(operation).is_ok()
    });
    creates_only
        && !migration.up.is_empty()
        && wanted.0.iter().all(|(name, table)| {
            made.0.get(name).is_some_and(|made| {
                made.columns.len() == table.columns.len()
                    && table.columns.iter().all(|(name, column)| {
                        made.columns
                            .get(name)
                            .is_some_and(|made| made.kind == column.kind)
                    })
            })
        })
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

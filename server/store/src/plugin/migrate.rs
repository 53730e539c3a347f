//! Running migrations, and recording definitions.
//!
//! Pending steps run in one transaction with their entries in the history, the register of tables and the definition.
//! So either all of them have run and everybody can see it, or nothing has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::{
    AppliedMigration, BASE_TABLE, Operation, Plan, Tables, plan as plan_from, ran,
};
use patchbay_plugin::name::{MigrationId, TableName};
use patchbay_plugin::outline::Outline;
use sea_query::Value;
use serde_json::Value as Json;
use uuid::Uuid;

use super::{Statements, history};
use crate::Store;
use crate::configuration::Carried;
use crate::engine::Frame;
use crate::error::{Fault, StoreError};
use crate::render::{needs_rebuild, render};
use crate::session::{Lock, Session, json, text};
use crate::shared::Touched;
use crate::statements::select;
use crate::time_text::now;

/// What is recorded of a plugin, compared with a definition.
struct Recorded {
    /// The revision of what is there.
    revision: Option<i64>,
    /// Whether it is this definition.
    same: bool,
    /// The hash of the code that is recorded with it.
    code: Option<String>,
    /// What the next version is compared with.
    outline: Option<Json>,
    /// Why its number promises too little.
    broken_promise: Option<String>,
}

/// What is applied together with a definition.
#[derive(Debug, Clone, Default)]
pub struct Applying {
    /// Who has it applied.
    pub by: String,
    /// The hash of the plugin's code, when its rows were checked for it or are accepted as they are. None forgets what is
    /// recorded, so that they are checked again.
    pub code: Option<String>,
    /// The rows that are carried over with it.
    pub carried: Option<Arc<Carried>>,
    /// Why the version number promises less than the change makes.
    pub broken_promise: Option<String>,
    /// Whether these steps are only some of those to the version. Then the next one, which may be the same, is still compared
    /// with what there was before.
    pub partly: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// All of it is done.
    Done,
    /// Nothing is: these rows are not the ones that were carried over.
    Moved(Vec<Uuid>),
}

fn fields_json(definition: &Definition) -> Json {
    serde_json::to_value(&definition.fields)
        .unwrap_or_else(|_| unreachable!("fields are plain data"))
}

/// What the next version is compared with. Postgres cannot hold a NUL, and such a definition is compared with nothing.
fn outline_json(definition: &Definition) -> Option<Json> {
    let outline = serde_json::to_value(Outline::of(definition))
        .unwrap_or_else(|_| unreachable!("an outline is plain data"));
    (!outline.to_string().contains("\\u0000")).then_some(outline)
}

async fn recorded(
    session: &mut Session,
    statements: &Statements,
    definition: &Definition,
) -> Result<Recorded, Fault> {
    let plugin = vec![text(definition.name.as_str())];
    let Some(row) = session.query_one(&statements.definition, plugin).await? else {
        return Ok(Recorded {
            revision: None,
            same: false,
            code: None,
            outline: None,
            broken_promise: None,
        });
    };
    let same = row.text(2)? == definition.version
        && row.optional_text(3)? == definition.table.as_ref().map(TableName::as_str)
        && row.json(4)? == fields_json(definition);
    let outline = row.optional_json(9)?;
    Ok(Recorded {
        revision: Some(row.integer(1)?),
        same: same && outline == outline_json(definition),
        code: row.optional_text(8)?.map(str::to_owned),
        outline,
        broken_promise: row.optional_text(10)?.map(str::to_owned),
    })
}

/// Keeps other servers from migrating the plugin, and from writing rows of it, until the transaction ends.
async fn hold(
    session: &mut Session,
    statements: &Statements,
    definition: &Definition,
) -> Result<(), StoreError> {
    let plugin = definition.name.as_str();
    session.lock(Lock::Plugin(plugin)).await?;
    session
        .query(&statements.hold_head, vec![text(plugin)])
        .await?;
    Ok(())
}

/// Writes the applied definition and the head over what is recorded.
async fn apply_definition(
    session: &mut Session,
    statements: &Statements,
    definition: &Definition,
    head: Option<&MigrationId>,
    applying: &Applying,
    recorded: Recorded,
) -> Result<(), Fault> {
    let (outline, broken_promise) = match applying.partly {
        true => (recorded.outline, recorded.broken_promise),
        false => (outline_json(definition), applying.broken_promise.clone()),
    };
    let revision = recorded.revision;
    let optional = |value: Option<&str>| Value::String(value.map(str::to_owned));
    let mut values = vec![
        text(definition.name.as_str()),
        (revision.unwrap_or(0) + 1).into(),
        text(&definition.version),
        optional(definition.table.as_ref().map(TableName::as_str)),
        json(fields_json(definition)),
        optional(head.map(MigrationId::as_str)),
        now().into(),
        text(&applying.by),
        Value::String(applying.code.clone()),
        Value::Json(outline.map(Box::new)),
        Value::String(broken_promise),
    ];
    let statement = match revision {
        None => &statements.add_definition,
        Some(_) => {
            // The key comes last in the update.
            values.rotate_left(1);
            &statements.change_definition
        }
    };
    session.execute(statement, values).await?;
    Ok(())
}

/// Brings the register of tables to what the plugin now owns.
pub(super) async fn register_tables(
    session: &mut Session,
    statements: &Statements,
    plugin: &str,
    before: &BTreeSet<TableName>,
    after: &Tables,
) -> Result<(), StoreError> {
    for table in after.0.keys().filter(|table| !before.contains(*table)) {
        let values = vec![text(table.as_str()), text(plugin)];
        match session.execute(&statements.add_table, values).await {
            Ok(_) => {}
            Err(Fault::Unique(_)) => return Err(taken(session, statements, table).await?),
            Err(fault) => return Err(fault.into()),
        }
    }
    for table in before.iter().filter(|table| !after.0.contains_key(*table)) {
        let values = vec![text(table.as_str()), text(plugin)];
        session.execute(&statements.remove_table, values).await?;
    }
    Ok(())
}

async fn taken(
    session: &mut Session,
    statements: &Statements,
    table: &TableName,
) -> Result<StoreError, StoreError> {
    let row = session
        .query_one(&statements.owner, vec![text(table.as_str())])
        .await?;
    let plugin = row.map_or(Ok(String::new()), |row| row.string(0))?;
    Ok(StoreError::TableTaken {
        table: table.as_str().to_owned(),
        plugin,
    })
}

/// Runs the operations of one step on `tables`, which follow them.
pub(super) async fn run_operations(
    session: &mut Session,
    id: &MigrationId,
    operations: &[Operation],
    tables: &mut Tables,
) -> Result<(), StoreError> {
    let failed = |reason: String| StoreError::Migration {
        id: id.clone(),
        reason,
    };
    for operation in operations {
        let foreign = foreign_reference(operation, tables);
        if let Some(table) = foreign {
            return Err(failed(format!(
                "a column refers to {table}, which is neither the plugin's own nor {BASE_TABLE}"
            )));
        }
        for sql in render(operation, tables, session.dialect()) {
            session.define(&sql).await.map_err(|fault| match fault {
                Fault::Store(error) => error,
                Fault::Unique(columns) => {
                    failed(format!("rows agree in {columns}, which shall be unique"))
                }
                Fault::Reference => failed("rows refer to what is not there".to_owned()),
                Fault::Check(words) | Fault::Statement(words) => failed(words),
            })?;
        }
        tables.apply(operation).map_err(failed)?;
        if needs_rebuild(operation, session.dialect())
            && !session.references_hold(operation.table().as_str()).await?
        {
            return Err(failed("rows refer to what is not there".to_owned()));
        }
    }
    Ok(())
}

/// The table that a column refers to and must not, because it could keep another plugin's rows from being deleted.
fn foreign_reference<'a>(operation: &'a Operation, tables: &Tables) -> Option<&'a str> {
    let Operation::CreateTable { table, columns } = operation else {
        return None;
    };
    columns
        .iter()
        .filter_map(|column| column.references.as_ref())
        .map(|reference| reference.table.as_str())
        .find(|name| {
            *name != BASE_TABLE
                && *name != table.as_str()
                && !tables.0.keys().any(|own| own.as_str() == *name)
        })
}

impl Store {
    /// Runs the pending steps of a plan, and records them, the tables and the definition: all of it or nothing.
    ///
    /// # Errors
    /// [`StoreError::HeadMoved`] when the plan no longer follows from the history; [`StoreError::TableTaken`] when a
    /// table is another plugin's; [`StoreError::Migration`] when a step fails; [`StoreError::LockedBy`] when another
    /// server migrates the plugin for longer than we wait; those of an unavailable database.
    pub async fn migrate(
        &self,
        definition: &Definition,
        plan: &Plan,
        by: &str,
    ) -> Result<(), StoreError> {
        let applying = Applying {
            by: by.to_owned(),
            ..Applying::default()
        };
        self.migrate_with(definition, plan, applying)
            .await
            .map(|_| ())
    }

    /// As [`migrate`](Store::migrate), and writes the rows that are carried over, each with a revision, in the same
    /// transaction. When rows are not what they were when they were carried over, nothing is done, and their ids are
    /// given: from then on nobody writes one, so that what is missing can be made up.
    ///
    /// # Errors
    /// As [`migrate`](Store::migrate); [`StoreError::Conflict`] when a unique index of the plugin forbids a row.
    pub async fn migrate_with(
        &self,
        definition: &Definition,
        plan: &Plan,
        applying: Applying,
    ) -> Result<Applied, StoreError> {
        let all = self.statements();
        let (definition, plan) = (definition.clone(), plan.clone());
        let statements = Arc::clone(&all);
        let rebuilds = plan
            .pending
            .iter()
            .filter(|step| step.origin.runs())
            .flat_map(|step| &step.migration.up)
            .any(|operation| needs_rebuild(operation, statements.dialect));
        let frame = match rebuilds {
            true => Frame::Rebuild,
            false => Frame::Group,
        };
        let plugin = definition.name.as_str().to_owned();
        let touched = move |applied: &Applied| match applied {
            Applied::Done => Touched::Definition(plugin.clone()),
            Applied::Moved(_) => Touched::Nothing,
        };
        self.write(frame, touched, move |session| {
            Box::pin(async move {
                let statements = &all.plugins;
                let plugin = definition.name.as_str();
                session.unhurried().await?;
                hold(session, statements, &definition).await?;
                let applied = history(session, statements, plugin).await?;
                // What was planned on an older history may be wrong on this one.
                if plan_from(&definition, &applied).as_ref() != Ok(&plan) {
                    return Err(StoreError::HeadMoved);
                }
                if let Some(carried) = &applying.carried {
                    let moved = carried.moved(session, &all, &definition).await?;
                    if !moved.is_empty() {
                        return Ok(Applied::Moved(moved));
                    }
                }
                let mut tables = tables_of(&applied);
                super::drift::check(session, &tables, &applied).await?;
                let before: BTreeSet<TableName> = tables.0.keys().cloned().collect();
                register_tables(session, statements, plugin, &before, &plan.tables).await?;
                let at = now();
                for (place, step) in plan.pending.iter().enumerate() {
                    if step.origin.runs() {
                        let migration = &step.migration;
                        run_operations(session, &migration.id, &migration.up, &mut tables).await?;
                    }
                    let migration = &step.migration;
                    let values = vec![
                        text(plugin),
                        ((applied.len() + place) as i64).into(),
                        text(migration.id.as_str()),
                        text(step.origin.as_str()),
                        Value::String(migration.path.clone()),
                        operations_json(&migration.up),
                        match &migration.down {
                            Some(down) => operations_json(down),
                            None => Value::Json(None),
                        },
                        text(migration.checksum()),
                        at.into(),
                        text(&applying.by),
                    ];
                    session.execute(&statements.add_step, values).await?;
                }
                let head = plan.head.as_ref();
                let recorded = recorded(session, statements, &definition).await?;
                apply_definition(session, statements, &definition, head, &applying, recorded)
                    .await?;
                if let Some(carried) = &applying.carried {
                    carried
                        .write(session, &all, &definition, &applying.by)
                        .await?;
                }
                Ok(Applied::Done)
            })
        })
        .await
    }

    /// Records the definition of a plugin for which nothing is pending, when it is not the recorded one.
    ///
    /// # Errors
    /// [`StoreError::HeadMoved`] when something is pending after all; those of an unavailable database.
    pub async fn record_definition(
        &self,
        definition: &Definition,
        applying: Applying,
    ) -> Result<(), StoreError> {
        let (statements, definition) = (self.statements(), definition.clone());
        let plugin = definition.name.as_str().to_owned();
        let touched = move |wrote: &bool| match wrote {
            true => Touched::Definition(plugin.clone()),
            false => Touched::Nothing,
        };
        let work = self.write(Frame::Group, touched, move |session| {
            Box::pin(async move {
                let statements = &statements.plugins;
                let is_there = |recorded: &Recorded| {
                    recorded.same
                        && recorded.broken_promise == applying.broken_promise
                        && (applying.code.is_none() || recorded.code == applying.code)
                };
                if is_there(&recorded(session, statements, &definition).await?) {
                    return Ok(false);
                }
                hold(session, statements, &definition).await?;
                let recorded = recorded(session, statements, &definition).await?;
                if is_there(&recorded) {
                    return Ok(false);
                }
                let applied = history(session, statements, definition.name.as_str()).await?;
                match plan_from(&definition, &applied) {
                    Ok(plan) if plan.pending.is_empty() => {
                        let head = plan.head.as_ref();
                        apply_definition(
                            session,
                            statements,
                            &definition,
                            head,
                            &applying,
                            recorded,
                        )
                        .await?;
                        Ok(true)
                    }
                    _ => Err(StoreError::HeadMoved),
                }
            })
        });
        work.await.map(|_| ())
    }
}

fn operations_json(operations: &[Operation]) -> Value {
    let value = serde_json::to_value(operations)
        .unwrap_or_else(|_| unreachable!("operations are plain data"));
    json(value)
}

/// The tables of all plugins, as their histories have made them.
///
/// # Errors
/// When the register of tables names others: then something else has made or dropped one.
pub(crate) async fn recorded_tables(session: &mut Session) -> Result<Tables, StoreError> {
    let statements = Statements::new(session.dialect());
    let rows = session.query(&statements.histories, Vec::new()).await?;
    let mut histories: BTreeMap<String, Vec<AppliedMigration>> = BTreeMap::new();
    for row in &rows {
        let step = super::read_step(row)?;
        histories.entry(row.string(0)?).or_default().push(step);
    }
    let mut tables = Tables::default();
    for history in histories.values() {
        tables.0.extend(tables_of(history).0);
    }
    let registered = select(session.dialect(), "plugin_tables", &["table_name"], &[]);
    let mut registered: BTreeSet<String> = session
        .query(&registered, Vec::new())
        .await?
        .iter()
        .map(|row| row.string(0))
        .collect::<Result<_, _>>()?;
    for table in tables.0.keys() {
        if !registered.remove(table.as_str()) {
            registered.insert(table.to_string());
            break;
        }
    }
    match registered.first() {
        None => Ok(tables),
        Some(table) => Err(StoreError::Conflict(format!(
            "the history of the plugins and the register of their tables do not agree on the table {table}"
        ))),
    }
}

/// The tables that a history has made. It was applied once, so it applies.
pub(super) fn tables_of(applied: &[AppliedMigration]) -> Tables {
    let mut tables = Tables::default();
    for operation in ran(applied).flat_map(|migration| &migration.up) {
        if let Err(reason) = tables.apply(operation) {
            tracing::error!(reason, "an applied migration does not apply");
        }
    }
    tables
}

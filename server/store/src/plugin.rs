//! What is applied of each plugin: its definition, its tables, and the history that made them.
//!
//! Migrations run in one transaction with their entries in the history, the register of tables and the definition. So
//! either all pending steps have run and everybody can see it, or nothing has happened.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use patchbay_plugin::definition::Definition;
use patchbay_plugin::field::Field;
use patchbay_plugin::migration::{
    AppliedMigration, BASE_TABLE, Migration, Operation, Origin, PendingMigration, Plan, Tables,
    plan as plan_from,
};
use patchbay_plugin::name::{MigrationId, PluginName, TableName};
use patchbay_plugin::term::{Mistakes, Path, Term};
use sea_query::{Expr, ExprTrait, LockType, Order, Query, Value};
use serde_json::Value as Json;
use time::OffsetDateTime;

use crate::Store;
use crate::engine::Frame;
use crate::error::{Fault, StoreError};
use crate::render::{needs_rebuild, render};
use crate::session::{Dialect, Row, Session, Statement, json, place, text};
use crate::shape::Shape;
use crate::shared::Touched;
use crate::statements::{delete, insert, select, update};
use crate::time_text::now;

const HISTORY: &[&str] = &[
    "plugin",
    "position",
    "id",
    "origin",
    "path",
    "up",
    "down",
    "checksum",
    "applied_at",
    "applied_by",
];
const DEFINITION: &[&str] = &[
    "plugin",
    "revision",
    "version",
    "table_name",
    "fields",
    "head",
    "applied_at",
    "applied_by",
];

pub(crate) struct Statements {
    history: Statement,
    histories: Statement,
    add_step: Statement,
    definition: Statement,
    definitions: Statement,
    add_definition: Statement,
    change_definition: Statement,
    /// The head, locked against change until the transaction ends.
    pub(crate) head: Statement,
    owner: Statement,
    add_table: Statement,
    remove_table: Statement,
}

impl Statements {
    pub(crate) fn new(dialect: Dialect) -> Statements {
        let history = |one: bool| {
            let mut query = Query::select();
            query
                .columns(HISTORY.iter().copied())
                .from("plugin_migrations")
                .order_by("plugin", Order::Asc)
                .order_by("position", Order::Asc);
            if one {
                query.and_where(Expr::col("plugin").eq(place()));
            }
            Statement::new(dialect, &query)
        };
        let mut head = Query::select();
        head.column("head")
            .from("applied_definitions")
            .and_where(Expr::col("plugin").eq(place()))
            .lock(LockType::Share);
        Statements {
            history: history(true),
            histories: history(false),
            add_step: insert(dialect, "plugin_migrations", HISTORY),
            definition: select(dialect, "applied_definitions", DEFINITION, &["plugin"]),
            definitions: select(dialect, "applied_definitions", DEFINITION, &[]),
            add_definition: insert(dialect, "applied_definitions", DEFINITION),
            change_definition: update(
                dialect,
                "applied_definitions",
                &DEFINITION[1..],
                &["plugin"],
            ),
            head: Statement::new(dialect, &head),
            owner: select(dialect, "plugin_tables", &["plugin"], &["table_name"]),
            add_table: insert(dialect, "plugin_tables", &["table_name", "plugin"]),
            remove_table: delete(dialect, "plugin_tables", &["table_name", "plugin"]),
        }
    }
}

/// The last applied definition of a plugin, by which its rows are read when it is gone.
#[derive(Debug, Clone, PartialEq)]
pub struct AppliedDefinition {
    /// The plugin.
    pub plugin: String,
    /// Counts how often it was applied.
    pub revision: i64,
    /// The plugin's version.
    pub version: String,
    /// Its table; none without fields.
    pub table: Option<TableName>,
    /// Its fields.
    pub fields: Vec<Field>,
    /// The last step of its history.
    pub head: Option<MigrationId>,
    /// When it was applied.
    pub applied_at: OffsetDateTime,
    /// Who had it applied.
    pub applied_by: String,
}

/// A handle for writing and reading one plugin's rows: the statements over its table, and the step for which they are
/// right. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PluginTable(Arc<PluginTableInner>);

#[derive(Debug)]
struct PluginTableInner {
    plugin: PluginName,
    version: String,
    head: Option<MigrationId>,
    shape: Option<Arc<Shape>>,
}

impl PluginTable {
    /// The plugin.
    pub fn plugin(&self) -> &PluginName {
        &self.0.plugin
    }

    /// The plugin's version.
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// The step at which the table must be for a write.
    pub fn head(&self) -> Option<&MigrationId> {
        self.0.head.as_ref()
    }

    /// The shape, or that the plugin stores nothing.
    pub(crate) fn shape(&self) -> Result<&Arc<Shape>, StoreError> {
        self.0.shape.as_ref().ok_or_else(|| {
            StoreError::Conflict(format!(
                "the plugin {} has no fields, so it stores nothing",
                self.0.plugin
            ))
        })
    }
}

/// The shapes of applied definitions that were read, by plugin. Each is kept with the revision it was read at.
#[derive(Default)]
pub(crate) struct Shapes(Mutex<HashMap<String, KeptShape>>);

/// None for a plugin without a table.
type KeptShape = (i64, Option<Arc<Shape>>);

impl Shapes {
    /// The shape of a plugin's table at a revision of its applied definition, none when it has no table.
    pub(crate) async fn of(
        &self,
        session: &mut Session,
        statements: &Statements,
        plugin: &str,
        revision: i64,
    ) -> Result<Option<Arc<Shape>>, Fault> {
        let kept = {
            let shapes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            shapes.get(plugin).cloned()
        };
        if let Some((at, shape)) = kept
            && at == revision
        {
            return Ok(shape);
        }
        let row = session
            .query_one(&statements.definition, vec![text(plugin)])
            .await?;
        let Some(row) = row else { return Ok(None) };
        let definition = read_definition(&row)?;
        let shape = definition
            .table
            .as_ref()
            .map(|table| Arc::new(Shape::new(session.dialect(), table, &definition.fields)));
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(plugin.to_owned(), (definition.revision, shape.clone()));
        Ok(shape)
    }
}

fn broken(what: &str) -> Fault {
    StoreError::Internal(format!("{what} cannot be read back")).into()
}

fn read_step(row: &Row) -> Result<AppliedMigration, Fault> {
    let operations = |value: Json| -> Result<Vec<Operation>, Fault> {
        serde_json::from_value(value).map_err(|_| broken("the operations of a migration"))
    };
    Ok(AppliedMigration {
        migration: Migration {
            id: MigrationId::parse(row.text(2)?).map_err(|_| broken("the id of a migration"))?,
            path: row.optional_text(4)?.map(str::to_owned),
            up: operations(row.json(5)?)?,
            down: row.optional_json(6)?.map(operations).transpose()?,
        },
        origin: Origin::parse(row.text(3)?).ok_or_else(|| broken("the origin of a migration"))?,
        checksum: row.string(7)?,
        applied_at: row.time(8)?,
        applied_by: row.string(9)?,
    })
}

fn read_fields(value: Json) -> Result<Vec<Field>, Fault> {
    let Json::Array(items) = value else {
        return Err(broken("the fields of a definition"));
    };
    items
        .into_iter()
        .map(|item| {
            let mut mistakes = Mistakes::default();
            let field = Field::read(Term::from_json(item), Path::default(), &mut mistakes);
            mistakes
                .into_result(field)
                .map_err(|_| broken("a field of a definition"))
        })
        .collect()
}

fn read_definition(row: &Row) -> Result<AppliedDefinition, Fault> {
    let table = row.optional_text(3)?.map(TableName::parse).transpose();
    let head = row.optional_text(5)?.map(MigrationId::parse).transpose();
    Ok(AppliedDefinition {
        plugin: row.string(0)?,
        revision: row.integer(1)?,
        version: row.string(2)?,
        table: table.map_err(|_| broken("the table of a definition"))?,
        fields: read_fields(row.json(4)?)?,
        head: head.map_err(|_| broken("the head of a definition"))?,
        applied_at: row.time(6)?,
        applied_by: row.string(7)?,
    })
}

async fn history(
    session: &mut Session,
    statements: &Statements,
    plugin: &str,
) -> Result<Vec<AppliedMigration>, Fault> {
    session
        .query(&statements.history, vec![text(plugin)])
        .await?
        .iter()
        .map(read_step)
        .collect()
}

/// Checks that the plugin's table is at the step for which `table` was built, and keeps it there until the transaction
/// ends.
pub(crate) async fn check_head(
    session: &mut Session,
    statements: &Statements,
    table: &PluginTable,
) -> Result<(), StoreError> {
    let row = session
        .query_one(&statements.head, vec![text(table.plugin().as_str())])
        .await?;
    let found = match &row {
        Some(row) => row.optional_text(0)?,
        None => return Err(StoreError::HeadMoved),
    };
    match found == table.head().map(MigrationId::as_str) {
        true => Ok(()),
        false => Err(StoreError::HeadMoved),
    }
}

/// What is recorded of a plugin, compared with a definition.
struct Recorded {
    /// The revision of what is there.
    revision: Option<i64>,
    /// Whether it is this definition.
    same: bool,
}

fn fields_json(definition: &Definition) -> Json {
    serde_json::to_value(&definition.fields)
        .unwrap_or_else(|_| unreachable!("fields are plain data"))
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
        });
    };
    let same = row.text(2)? == definition.version
        && row.optional_text(3)? == definition.table.as_ref().map(TableName::as_str)
        && row.json(4)? == fields_json(definition);
    Ok(Recorded {
        revision: Some(row.integer(1)?),
        same,
    })
}

/// Writes the applied definition and the head over what is recorded.
async fn apply_definition(
    session: &mut Session,
    statements: &Statements,
    definition: &Definition,
    head: Option<&MigrationId>,
    by: &str,
    revision: Option<i64>,
) -> Result<(), Fault> {
    let optional = |value: Option<&str>| Value::String(value.map(str::to_owned));
    let mut values = vec![
        text(definition.name.as_str()),
        (revision.unwrap_or(0) + 1).into(),
        text(&definition.version),
        optional(definition.table.as_ref().map(TableName::as_str)),
        json(fields_json(definition)),
        optional(head.map(MigrationId::as_str)),
        now().into(),
        text(by),
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
async fn register_tables(
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
async fn run_step(
    session: &mut Session,
    step: &PendingMigration,
    tables: &mut Tables,
) -> Result<(), StoreError> {
    let id = &step.migration.id;
    let failed = |reason: String| StoreError::Migration {
        id: id.clone(),
        reason,
    };
    for operation in &step.migration.up {
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
    /// The steps that have run for a plugin, in order.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn history(&self, plugin: &PluginName) -> Result<Vec<AppliedMigration>, StoreError> {
        let (statements, plugin) = (self.statements(), plugin.clone());
        self.read(move |session| {
            Box::pin(
                async move { Ok(history(session, &statements.plugins, plugin.as_str()).await?) },
            )
        })
        .await
    }

    /// The histories of all plugins that have one, by name, in one read.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn histories(&self) -> Result<BTreeMap<String, Vec<AppliedMigration>>, StoreError> {
        let statements = self.statements();
        self.read(move |session| {
            Box::pin(async move {
                let rows = session
                    .query(&statements.plugins.histories, Vec::new())
                    .await?;
                let mut histories: BTreeMap<String, Vec<AppliedMigration>> = BTreeMap::new();
                for row in &rows {
                    histories
                        .entry(row.string(0)?)
                        .or_default()
                        .push(read_step(row)?);
                }
                Ok(histories)
            })
        })
        .await
    }

    /// The applied definitions of all plugins, by name, of those that are gone too.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn applied_definitions(
        &self,
    ) -> Result<BTreeMap<String, AppliedDefinition>, StoreError> {
        let statements = self.statements();
        self.read(move |session| {
            Box::pin(async move {
                let rows = session
                    .query(&statements.plugins.definitions, Vec::new())
                    .await?;
                let mut definitions = BTreeMap::new();
                for row in &rows {
                    // One that cannot be read back is as good as none, and hurts nobody else.
                    match read_definition(row) {
                        Ok(definition) => {
                            definitions.insert(definition.plugin.clone(), definition);
                        }
                        Err(fault) => tracing::warn!(?fault, "an applied definition is unreadable"),
                    }
                }
                Ok(definitions)
            })
        })
        .await
    }

    /// Runs the pending steps of a plan, and records them, the tables and the definition: all of it or nothing.
    ///
    /// # Errors
    /// [`StoreError::HeadMoved`] when the plan no longer follows from the history; [`StoreError::TableTaken`] when a
    /// table is another plugin's; [`StoreError::Migration`] when a step fails; those of an unavailable database.
    pub async fn migrate(
        &self,
        definition: &Definition,
        plan: &Plan,
        by: &str,
    ) -> Result<(), StoreError> {
        let statements = self.statements();
        let (definition, plan, by) = (definition.clone(), plan.clone(), by.to_owned());
        let rebuilds = plan
            .pending
            .iter()
            .filter(|step| step.origin != Origin::Baseline)
            .flat_map(|step| &step.migration.up)
            .any(|operation| needs_rebuild(operation, statements.dialect));
        let frame = match rebuilds {
            true => Frame::Rebuild,
            false => Frame::Group,
        };
        let plugin = definition.name.as_str().to_owned();
        let touched = move |(): &()| Touched::Rows(plugin.clone());
        self.write(frame, touched, move |session| {
            Box::pin(async move {
                let statements = &statements.plugins;
                let plugin = definition.name.as_str();
                let applied = history(session, statements, plugin).await?;
                // What was planned on an older history may be wrong on this one.
                if plan_from(&definition, &applied).as_ref() != Ok(&plan) {
                    return Err(StoreError::HeadMoved);
                }
                let mut tables = tables_of(&applied);
                let before: BTreeSet<TableName> = tables.0.keys().cloned().collect();
                register_tables(session, statements, plugin, &before, &plan.tables).await?;
                let at = now();
                for (place, step) in plan.pending.iter().enumerate() {
                    if step.origin != Origin::Baseline {
                        run_step(session, step, &mut tables).await?;
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
                        text(&by),
                    ];
                    session.execute(&statements.add_step, values).await?;
                }
                let head = plan.head.as_ref();
                let revision = recorded(session, statements, &definition).await?.revision;
                apply_definition(session, statements, &definition, head, &by, revision).await?;
                Ok(())
            })
        })
        .await
    }

    /// Records the definition of a plugin for which nothing is pending, when it is not the recorded one.
    ///
    /// # Errors
    /// [`StoreError::HeadMoved`] when something is pending after all; those of an unavailable database.
    pub async fn record_definition(&self, definition: &Definition) -> Result<(), StoreError> {
        let (statements, definition) = (self.statements(), definition.clone());
        let plugin = definition.name.as_str().to_owned();
        let touched = move |wrote: &bool| match wrote {
            true => Touched::Rows(plugin.clone()),
            false => Touched::Nothing,
        };
        let work = self.write(Frame::Group, touched, move |session| {
            Box::pin(async move {
                let statements = &statements.plugins;
                let recorded = recorded(session, statements, &definition).await?;
                if recorded.same {
                    return Ok(false);
                }
                let applied = history(session, statements, definition.name.as_str()).await?;
                match plan_from(&definition, &applied) {
                    Ok(plan) if plan.pending.is_empty() => {
                        let head = plan.head.as_ref();
                        let revision = recorded.revision;
                        apply_definition(
                            session,
                            statements,
                            &definition,
                            head,
                            "server",
                            revision,
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

    /// A handle for the rows of a plugin at the end of a plan.
    pub fn table(&self, definition: &Definition, plan: &Plan) -> PluginTable {
        let dialect = self.statements().dialect;
        PluginTable(Arc::new(PluginTableInner {
            plugin: definition.name.clone(),
            version: definition.version.clone(),
            head: plan.head.clone(),
            shape: definition
                .table
                .as_ref()
                .map(|table| Arc::new(Shape::new(dialect, table, &definition.fields))),
        }))
    }
}

fn operations_json(operations: &[Operation]) -> Value {
    let value = serde_json::to_value(operations)
        .unwrap_or_else(|_| unreachable!("operations are plain data"));
    json(value)
}

/// The tables that a history has made. It was applied once, so it applies.
fn tables_of(applied: &[AppliedMigration]) -> Tables {
    let mut tables = Tables::default();
    for step in applied
        .iter()
        .filter(|step| step.origin != Origin::Baseline)
    {
        for operation in &step.migration.up {
            if let Err(reason) = tables.apply(operation) {
                tracing::error!(reason, "an applied migration does not apply");
            }
        }
    }
    tables
}

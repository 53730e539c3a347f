//! What is applied of each plugin: its definition, its tables, and the history that made them.

mod back;
mod drift;
mod drop;
mod migrate;

pub use back::Held;
pub(crate) use drift::describe;
pub(crate) use migrate::recorded_tables;
pub use migrate::{Applied, Applying};

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use patchbay_plugin::definition::Definition;
use patchbay_plugin::field::Field;
use patchbay_plugin::migration::{AppliedMigration, Migration, Operation, Origin, Plan};
use patchbay_plugin::name::{MigrationId, PluginName, TableName};
use patchbay_plugin::outline::Outline;
use patchbay_plugin::term::{Mistakes, Path, Term};
use sea_query::{Expr, ExprTrait, LockType, Order, Query};
use serde_json::Value as Json;
use time::OffsetDateTime;

use crate::Store;
use crate::engine::View;
use crate::error::{Fault, StoreError};
use crate::session::{Dialect, Row, Session, Statement, place, text};
use crate::shape::Shape;
use crate::statements::{count, delete, insert, select, update};

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
    "code",
    "outline",
    "broken_promise",
];

pub(crate) struct Statements {
    history: Statement,
    histories: Statement,
    add_step: Statement,
    definition: Statement,
    definitions: Statement,
    marks: Statement,
    outlines: Statement,
    add_definition: Statement,
    change_definition: Statement,
    /// The head, locked against change until the transaction ends.
    pub(crate) head: Statement,
    /// The head, which nobody may check until the transaction ends.
    hold_head: Statement,
    owner: Statement,
    add_table: Statement,
    remove_table: Statement,
    rows: Statement,
    tables: Statement,
    forget_tables: Statement,
    forget_steps: Statement,
    targets: back::TargetStatements,
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
        let head = |lock: LockType| {
            let mut query = Query::select();
            query
                .column("head")
                .from("applied_definitions")
                .and_where(Expr::col("plugin").eq(place()))
                .lock(lock);
            Statement::new(dialect, &query)
        };
        Statements {
            history: history(true),
            histories: history(false),
            add_step: insert(dialect, "plugin_migrations", HISTORY),
            definition: select(dialect, "applied_definitions", DEFINITION, &["plugin"]),
            definitions: select(dialect, "applied_definitions", DEFINITION, &[]),
            marks: select(
                dialect,
                "applied_definitions",
                &["plugin", "version", "head", "code", "broken_promise"],
                &[],
            ),
            outlines: select(dialect, "applied_definitions", &["plugin", "outline"], &[]),
            add_definition: insert(dialect, "applied_definitions", DEFINITION),
            change_definition: update(
                dialect,
                "applied_definitions",
                &DEFINITION[1..],
                &["plugin"],
            ),
            head: head(LockType::Share),
            hold_head: head(LockType::Update),
            owner: select(dialect, "plugin_tables", &["plugin"], &["table_name"]),
            add_table: insert(dialect, "plugin_tables", &["table_name", "plugin"]),
            remove_table: delete(dialect, "plugin_tables", &["table_name", "plugin"]),
            rows: count(
                dialect,
                "data_output_configurations",
                &["configuration_type"],
            ),
            tables: select(dialect, "plugin_tables", &["table_name"], &["plugin"]),
            forget_tables: delete(dialect, "plugin_tables", &["plugin"]),
            forget_steps: delete(dialect, "plugin_migrations", &["plugin"]),
            targets: back::TargetStatements::new(dialect),
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

/// What is applied of a plugin, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedMark {
    /// The plugin's version.
    pub version: String,
    /// The last step of its history.
    pub head: Option<MigrationId>,
    /// The hash of the code for which its rows were checked last, or accepted as they are.
    pub code: Option<String>,
    /// Why the version number promises less than the change to it made.
    pub broken_promise: Option<String>,
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
    /// Whether it is another version's.
    read_only: bool,
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
    match found == table.head().map(MigrationId::as_str) && !table.0.read_only {
        true => Ok(()),
        false => Err(StoreError::HeadMoved),
    }
}

impl Store {
    /// The steps that have run for a plugin, in order.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn history(&self, plugin: &PluginName) -> Result<Vec<AppliedMigration>, StoreError> {
        let (statements, plugin) = (self.statements(), plugin.clone());
        self.read(View::Statement, move |session| {
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
        self.read(View::Statement, move |session| {
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
        self.read(View::Statement, move |session| {
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

    /// What is applied of each plugin, in short, by name.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn applied_marks(&self) -> Result<BTreeMap<String, AppliedMark>, StoreError> {
        let statements = self.statements();
        self.read(View::Statement, move |session| {
            Box::pin(async move {
                let rows = session.query(&statements.plugins.marks, Vec::new()).await?;
                let mut marks = BTreeMap::new();
                for row in &rows {
                    let head = row.optional_text(2)?.map(MigrationId::parse).transpose();
                    let mark = AppliedMark {
                        version: row.string(1)?,
                        head: head.map_err(|_| broken("the head of a definition"))?,
                        code: row.optional_text(3)?.map(str::to_owned),
                        broken_promise: row.optional_text(4)?.map(str::to_owned),
                    };
                    marks.insert(row.string(0)?, mark);
                }
                Ok(marks)
            })
        })
        .await
    }

    /// What the next version of each plugin is compared with when its code is gone, by name.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn applied_outlines(&self) -> Result<BTreeMap<String, Outline>, StoreError> {
        let statements = self.statements();
        self.read(View::Statement, move |session| {
            Box::pin(async move {
                let rows = session
                    .query(&statements.plugins.outlines, Vec::new())
                    .await?;
                let mut outlines = BTreeMap::new();
                for row in &rows {
                    let plugin = row.string(0)?;
                    let Some(outline) = row.optional_json(1)? else {
                        continue;
                    };
                    // One that cannot be read back is as good as none, and hurts nobody else.
                    match serde_json::from_value(outline) {
                        Ok(outline) => {
                            outlines.insert(plugin, outline);
                        }
                        Err(error) => {
                            tracing::warn!(%plugin, %error, "what was applied of a plugin cannot be compared with");
                        }
                    }
                }
                Ok(outlines)
            })
        })
        .await
    }

    /// A handle for the rows of a plugin as its applied definition has them, with the fields of that. It is for reading:
    /// a write with it is one that has to wait for another version.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn applied_table(
        &self,
        plugin: &PluginName,
    ) -> Result<Option<(PluginTable, Vec<Field>)>, StoreError> {
        let (statements, plugin) = (self.statements(), plugin.clone());
        self.read(View::Statement, move |session| {
            Box::pin(async move {
                let found = session
                    .query_one(&statements.plugins.definition, vec![text(plugin.as_str())])
                    .await?;
                let Some(row) = found else { return Ok(None) };
                let applied = read_definition(&row)?;
                let shape = applied
                    .table
                    .as_ref()
                    .map(|table| Arc::new(Shape::new(statements.dialect, table, &applied.fields)));
                let table = PluginTable(Arc::new(PluginTableInner {
                    plugin,
                    version: applied.version,
                    head: applied.head,
                    shape,
                    read_only: true,
                }));
                Ok(Some((table, applied.fields)))
            })
        })
        .await
    }

    /// A handle for the rows of a plugin at the end of a plan.
    pub fn table(&self, definition: &Definition, plan: &Plan) -> PluginTable {
        let dialect = self.statements().dialect;
        PluginTable(Arc::new(PluginTableInner {
            plugin: definition.name.clone(),
            version: definition.version.clone(),
            head: plan.head.clone(),
            read_only: false,
            shape: definition
                .table
                .as_ref()
                .map(|table| Arc::new(Shape::new(dialect, table, &definition.fields))),
        }))
    }
}

//! Taking steps back, and holding a plugin at one.
//!
//! Steps are taken back in one transaction, the last one first, with their entries in the history, the register of tables
//! and the applied definition. The plugin is held there: no server runs its steps again until it is told to.

use std::collections::{BTreeMap, BTreeSet};

use patchbay_plugin::migration::{Tables, WayBack, fields_of, way_back};
use patchbay_plugin::name::{MigrationId, PluginName, TableName};
use sea_query::{Expr, ExprTrait, Query, Value};
use serde_json::Value as Json;
use time::OffsetDateTime;

use super::migrate::{register_tables, run_operations};
use super::{broken, history, read_definition};
use crate::Store;
use crate::engine::{Frame, View};
use crate::error::{Fault, StoreError};
use crate::render::{lost, needs_rebuild};
use crate::session::{Dialect, Lock, Session, Statement, json, place, text};
use crate::shared::Touched;
use crate::statements::{delete, insert, select};
use crate::time_text::now;

/// At which step a plugin is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The last step that shall be applied; none when none shall be.
    pub step: Option<MigrationId>,
    /// Since when.
    pub at: OffsetDateTime,
    /// Who holds it.
    pub by: String,
}

pub(super) struct TargetStatements {
    targets: Statement,
    add: Statement,
    pub(super) forget: Statement,
    forget_steps_from: Statement,
}

impl TargetStatements {
    pub(super) fn new(dialect: Dialect) -> TargetStatements {
        const TARGET: &[&str] = &["plugin", "step", "set_at", "set_by"];
        let mut from = Query::delete();
        from.from_table("plugin_migrations")
            .and_where(Expr::col("plugin").eq(place()))
            .and_where(Expr::col("position").gte(place()));
        TargetStatements {
            targets: select(dialect, "plugin_targets", TARGET, &[]),
            add: insert(dialect, "plugin_targets", TARGET),
            forget: delete(dialect, "plugin_targets", &["plugin"]),
            forget_steps_from: Statement::new(dialect, &from),
        }
    }

    /// Holds a plugin at a step, whatever it was held at before.
    async fn hold(
        &self,
        session: &mut Session,
        plugin: &PluginName,
        step: Option<&MigrationId>,
        by: &str,
    ) -> Result<(), Fault> {
        let name = || text(plugin.as_str());
        session.execute(&self.forget, vec![name()]).await?;
        let step = Value::String(step.map(|id| id.as_str().to_owned()));
        let values = vec![name(), step, now().into(), text(by)];
        session.execute(&self.add, values).await?;
        Ok(())
    }
}

/// What versions are compared with, when the steps of a way are taken back.
fn without(mut outline: Json, way: &WayBack) -> Json {
    let ids = way.steps.iter().map(|step| step.migration.id.as_str());
    let before = outline["taken_back"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if let Some(entries) = outline.as_object_mut() {
        let all = before.into_iter().chain(ids.map(Json::from));
        entries.insert("taken_back".to_owned(), all.collect());
    }
    outline
}

impl Store {
    /// At which step each plugin is held, by name.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn held(&self) -> Result<BTreeMap<String, Held>, StoreError> {
        let statements = self.statements();
        self.read(View::Statement, move |session| {
            Box::pin(async move {
                let own = &statements.plugins.targets;
                let mut held = BTreeMap::new();
                for row in session.query(&own.targets, Vec::new()).await? {
                    let step = row.optional_text(1)?.map(MigrationId::parse).transpose();
                    let found = Held {
                        step: step.map_err(|_| broken("the step at which a plugin is held"))?,
                        at: row.time(2)?,
                        by: row.string(3)?,
                    };
                    held.insert(row.string(0)?, found);
                }
                Ok(held)
            })
        })
        .await
    }

    /// Holds a plugin at a step, so that no server runs one of its steps by itself; none for before the first one.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn hold(
        &self,
        plugin: &PluginName,
        step: Option<&MigrationId>,
        by: &str,
    ) -> Result<(), StoreError> {
        let statements = self.statements();
        let (plugin, step, by) = (plugin.clone(), step.cloned(), by.to_owned());
        let name = plugin.as_str().to_owned();
        let touched = move |(): &()| Touched::Definition(name.clone());
        self.write(Frame::Group, touched, move |session| {
            Box::pin(async move {
                let own = &statements.plugins.targets;
                Ok(own.hold(session, &plugin, step.as_ref(), &by).await?)
            })
        })
        .await
    }

    /// Holds a plugin no longer. Whether it was held.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn release(&self, plugin: &PluginName) -> Result<bool, StoreError> {
        let (statements, plugin) = (self.statements(), plugin.clone());
        let name = plugin.as_str().to_owned();
        let touched = move |was: &bool| match was {
            true => Touched::Definition(name.clone()),
            false => Touched::Nothing,
        };
        self.write(Frame::Group, touched, move |session| {
            Box::pin(async move {
                let own = &statements.plugins.targets;
                let values = vec![text(plugin.as_str())];
                Ok(session.execute(&own.forget, values).await? > 0)
            })
        })
        .await
    }

    /// Takes back the steps of a way, the last one first, and holds the plugin there: all of it or nothing. Unless
    /// `lose`, values that would be lost stop it.
    ///
    /// # Errors
    /// [`StoreError::HeadMoved`] when the way no longer follows from the history; [`StoreError::Loses`] when values would
    /// be lost; [`StoreError::Drift`] when the tables are not what the history made; [`StoreError::Migration`] when a
    /// step cannot be taken back; those of an unavailable database.
    pub async fn migrate_back(
        &self,
        plugin: &PluginName,
        way: &WayBack,
        lose: bool,
        by: &str,
    ) -> Result<(), StoreError> {
        let statements = self.statements();
        let (plugin, way, by) = (plugin.clone(), way.clone(), by.to_owned());
        let rebuilds = way
            .steps
            .iter()
            .flat_map(|step| &step.operations)
            .any(|operation| needs_rebuild(operation, statements.dialect));
        let frame = match rebuilds {
            true => Frame::Rebuild,
            false => Frame::Group,
        };
        let name = plugin.as_str().to_owned();
        let touched = move |(): &()| Touched::Definition(name.clone());
        self.write(frame, touched, move |session| {
            Box::pin(async move {
                let own = &statements.plugins;
                let name = || text(plugin.as_str());
                session.unhurried().await?;
                session.lock(Lock::Plugin(plugin.as_str())).await?;
                session.query(&own.hold_head, vec![name()]).await?;
                let applied = history(session, own, plugin.as_str()).await?;
                if way_back(&applied, way.head.as_ref()).as_ref() != Ok(&way) {
                    return Err(StoreError::HeadMoved);
                }
                let before: Tables = way
                    .steps
                    .first()
                    .map_or_else(|| way.tables.clone(), |step| step.tables.clone());
                super::drift::check(session, &before, &applied).await?;
                let names: BTreeSet<TableName> = before.0.keys().cloned().collect();
                register_tables(session, own, plugin.as_str(), &names, &way.tables).await?;
                let mut losses = Vec::new();
                for step in &way.steps {
                    let mut tables = step.tables.clone();
                    for operation in &step.operations {
                        if !lose
                            && let Some((count, what)) = lost(operation, &tables, session.dialect())
                        {
                            let row = session.query_one(&count, Vec::new()).await?;
                            let rows = row.map_or(Ok(0), |row| row.integer(0))?;
                            if rows > 0 {
                                losses.push(format!("{}: {what} ({rows} rows)", step.migration.id));
                            }
                        }
                        let operations = std::slice::from_ref(operation);
                        run_operations(session, &step.migration.id, operations, &mut tables)
                            .await?;
                    }
                }
                if !losses.is_empty() {
                    return Err(StoreError::Loses(losses));
                }
                let values = vec![name(), (way.kept as i64).into()];
                session
                    .execute(&own.targets.forget_steps_from, values)
                    .await?;
                own.targets
                    .hold(session, &plugin, way.head.as_ref(), &by)
                    .await?;
                if let Some(row) = session.query_one(&own.definition, vec![name()]).await? {
                    let recorded = read_definition(&row)?;
                    let table = recorded
                        .table
                        .filter(|table| way.tables.0.contains_key(table));
                    let fields = table
                        .as_ref()
                        .map(|table| fields_of(table, &way.tables, &recorded.fields))
                        .unwrap_or_default();
                    let fields = serde_json::to_value(&fields)
                        .map_err(|_| broken("the fields of a definition"))?;
                    // A version that comes now is still one after the version that was there.
                    let outline = row.optional_json(9)?.map(|outline| without(outline, &way));
                    let optional = |value: Option<&str>| Value::String(value.map(str::to_owned));
                    let values = vec![
                        (recorded.revision + 1).into(),
                        text(recorded.version),
                        optional(table.as_ref().map(TableName::as_str)),
                        json(fields),
                        optional(way.head.as_ref().map(MigrationId::as_str)),
                        now().into(),
                        text(&by),
                        // Whatever serves the table next is tried on its rows.
                        Value::String(None),
                        Value::Json(outline.map(Box::new)),
                        optional(row.optional_text(10)?),
                        name(),
                    ];
                    session.execute(&own.change_definition, values).await?;
                }
                Ok(())
            })
        })
        .await
    }
}

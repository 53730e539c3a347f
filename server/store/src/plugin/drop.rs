//! Dropping what is left of a plugin that is gone.

use patchbay_plugin::migration::{Operation, Tables};
use patchbay_plugin::name::{PluginName, TableName};
use sea_query::Value;
use serde_json::json;

use super::history;
use super::migrate::tables_of;
use crate::Store;
use crate::engine::Frame;
use crate::error::StoreError;
use crate::render::render;
use crate::session::{Lock, json as as_json, text};
use crate::shared::Touched;
use crate::time_text::now;

impl Store {
    /// Drops the tables of a plugin that has no configurations any more, and forgets the history of their migrations: all of
    /// it or nothing. Gives the names of the tables. What the configurations were stays in their own history.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it has configurations; those of an unavailable database.
    pub async fn drop_plugin_tables(
        &self,
        plugin: &PluginName,
        by: &str,
    ) -> Result<Vec<TableName>, StoreError> {
        let (statements, plugin, by) = (self.statements(), plugin.clone(), by.to_owned());
        let name = plugin.as_str().to_owned();
        let touched = move |_: &Vec<TableName>| Touched::Definition(name.clone());
        self.write(Frame::Group, touched, move |session| {
            Box::pin(async move {
                let own = &statements.plugins;
                let name = || text(plugin.as_str());
                session.unhurried().await?;
                session.lock(Lock::Plugin(plugin.as_str())).await?;
                // From here to the end nobody writes a row of it, because each such write checks the head.
                session.query(&own.hold_head, vec![name()]).await?;
                let rows = session.query_one(&own.rows, vec![name()]).await?;
                let rows = rows.map_or(Ok(0), |row| row.integer(0))?;
                if rows > 0 {
                    return Err(StoreError::Conflict(format!(
                        "{plugin} has {rows} configurations, which its tables hold"
                    )));
                }
                let applied = history(session, own, plugin.as_str()).await?;
                let tables = tables_of(&applied);
                let mut dropped = Vec::new();
                for row in session.query(&own.tables, vec![name()]).await? {
                    let table = TableName::parse(row.text(0)?)
                        .map_err(|error| StoreError::Internal(error.to_string()))?;
                    dropped.push(table);
                }
                sort_by_references(&mut dropped, &tables);
                for table in &dropped {
                    let operation = Operation::DropTable {
                        table: table.clone(),
                    };
                    for sql in render(&operation, &tables, session.dialect()) {
                        session.define(&sql).await?;
                    }
                }
                session.execute(&own.forget_tables, vec![name()]).await?;
                session.execute(&own.forget_steps, vec![name()]).await?;
                session.execute(&own.targets.forget, vec![name()]).await?;
                // The revision goes on, because other servers know the fields by it.
                if let Some(row) = session.query_one(&own.definition, vec![name()]).await? {
                    let values = vec![
                        (row.integer(1)? + 1).into(),
                        row.text(2).map(text)?,
                        Value::String(None),
                        as_json(json!([])),
                        Value::String(None),
                        now().into(),
                        text(&by),
                        Value::String(None),
                        // A plugin that comes later is the first of its name.
                        Value::Json(None),
                        Value::String(None),
                        name(),
                    ];
                    session.execute(&own.change_definition, values).await?;
                }
                Ok(dropped)
            })
        })
        .await
    }
}

/// Puts tables that refer to others before those.
fn sort_by_references(names: &mut Vec<TableName>, tables: &Tables) {
    let refers = |from: &TableName, to: &TableName| {
        from != to
            && tables.0.get(from).is_some_and(|table| {
                table
                    .columns
                    .values()
                    .filter_map(|column| column.references.as_ref())
                    .any(|reference| reference.table.as_str() == to.as_str())
            })
    };
    let mut sorted = Vec::with_capacity(names.len());
    while !names.is_empty() {
        let free = names
            .iter()
            .position(|name| !names.iter().any(|other| refers(other, name)))
            .unwrap_or(0);
        sorted.push(names.remove(free));
    }
    *names = sorted;
}

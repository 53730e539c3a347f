//! Reading configurations: base rows first, then one statement for each plugin on the page, since a join over all
//! plugins' tables is more than SQLite can do, and one broken table would break every list.

use std::sync::Arc;

use futures_util::stream::{self, Stream};
use patchbay_plugin::Map;
use patchbay_plugin::configuration::{Action, Configuration, MAX_HOOK_ROWS, Revision};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{BASE, Filters, base, containing};
use crate::Store;
use crate::engine::View;
use crate::error::{Fault, StoreError};
use crate::page::{MAX_PAGE, Page, TimeCursor, limit_of};
use crate::plugin::{PluginTable, Shapes};
use crate::session::{Row, Session, text};
use crate::statements::Statements;

/// Which configurations a page holds. Newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigurationQuery {
    /// Those of this plugin, by name.
    pub plugin: Option<String>,
    /// Those of this data product.
    pub data_product_id: Option<Uuid>,
    /// Those whose name contains this text, in whatever case.
    pub q: Option<String>,
    /// How many at most, up to [`MAX_PAGE`](crate::MAX_PAGE).
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// Reads the values of these base rows. What the table of one plugin cannot give is left empty.
async fn with_values(
    session: &mut Session,
    statements: &Statements,
    shapes: &Shapes,
    rows: &[Row],
) -> Result<Vec<Configuration>, Fault> {
    let mut found: Vec<Configuration> = rows.iter().map(base).collect::<Result<_, _>>()?;
    let mut plugins: Vec<(String, Option<i64>)> = Vec::new();
    for (configuration, row) in found.iter().zip(rows) {
        if !plugins
            .iter()
            .any(|(known, _)| *known == configuration.plugin)
        {
            let revision = row.optional_integer(BASE.len())?;
            plugins.push((configuration.plugin.clone(), revision));
        }
    }
    for (plugin, revision) in plugins {
        let Some(revision) = revision else { continue };
        let ids: Vec<Uuid> = found
            .iter()
            .filter(|configuration| configuration.plugin == plugin)
            .map(|configuration| configuration.id)
            .collect();
        let read = values_of(session, statements, shapes, &plugin, revision, &ids).await?;
        let mut read: std::collections::HashMap<Uuid, Map> = read.into_iter().collect();
        for configuration in &mut found {
            if configuration.plugin == plugin
                && let Some(values) = read.remove(&configuration.id)
            {
                configuration.values = values;
            }
        }
    }
    Ok(found)
}

/// The values of rows of one plugin, by its applied definition. A table that is missing gives none, and one that is not
/// what the definition says those that it has; only a database that is away is an error.
pub(super) async fn values_of(
    session: &mut Session,
    statements: &Statements,
    shapes: &Shapes,
    plugin: &str,
    revision: i64,
    ids: &[Uuid],
) -> Result<Vec<(Uuid, Map)>, Fault> {
    let shape = shapes
        .of(session, &statements.plugins, plugin, revision)
        .await;
    let read = match shape {
        Ok(None) => return Ok(Vec::new()),
        Ok(Some(shape)) => match shape.read(session, ids).await {
            Err(fault) if !is_away(&fault) => match shape.as_it_is(session).await {
                Ok(Some(rest)) => rest.read(session, ids).await,
                Ok(None) => Err(fault),
                Err(other) => Err(other),
            },
            read => read,
        },
        Err(fault) => Err(fault),
    };
    match read {
        Err(fault) if is_away(&fault) => Err(fault),
        Err(fault) => {
            tracing::warn!(plugin, ?fault, "the rows of a plugin cannot be read");
            Ok(Vec::new())
        }
        Ok(read) => Ok(read),
    }
}

fn is_away(fault: &Fault) -> bool {
    matches!(fault, Fault::Store(error) if error.is_unavailable())
}

/// One configuration with its values.
async fn one(
    session: &mut Session,
    statements: &Statements,
    shapes: &Shapes,
    id: Uuid,
) -> Result<Option<Configuration>, StoreError> {
    let by_id = &statements.configurations.by_id;
    let rows = session.query(by_id, vec![id.into()]).await?;
    Ok(with_values(session, statements, shapes, &rows).await?.pop())
}

/// One configuration with its values, which nobody else changes until the transaction ends.
pub(super) async fn one_for_change(
    session: &mut Session,
    statements: &Statements,
    shapes: &Shapes,
    id: Uuid,
) -> Result<Option<Configuration>, StoreError> {
    let by_id = &statements.configurations.by_id_for_change;
    let rows = session.query(by_id, vec![id.into()]).await?;
    Ok(with_values(session, statements, shapes, &rows).await?.pop())
}

async fn page(
    session: &mut Session,
    statements: &Statements,
    shapes: &Shapes,
    query: &ConfigurationQuery,
    cursor: Option<TimeCursor>,
) -> Result<Page<Configuration>, StoreError> {
    let limit = limit_of(query.limit);
    let filters = Filters {
        data_product: query.data_product_id.is_some(),
        plugin: query.plugin.is_some(),
        q: query.q.is_some(),
        cursor: cursor.is_some(),
    };
    let mut values = Vec::new();
    values.extend(query.data_product_id.map(Into::into));
    values.extend(query.plugin.as_deref().map(text));
    values.extend(query.q.as_deref().map(|q| text(containing(q))));
    if let Some(cursor) = cursor {
        values.extend([cursor.time.into(), cursor.id.into()]);
    }
    // One more than asked for, to learn whether there is more.
    values.push((limit as i64 + 1).into());
    let statement = &statements.configurations.pages[filters.place()];
    let rows = session.query(statement, values).await?;
    let more = rows.len() > limit;
    let items = with_values(session, statements, shapes, &rows[..rows.len().min(limit)]).await?;
    let next_cursor = match items.last() {
        Some(last) if more => Some(
            TimeCursor {
                time: last.created_at,
                id: last.id,
            }
            .write(),
        ),
        _ => None,
    };
    Ok(Page { items, next_cursor })
}

fn read_revision(row: &Row) -> Result<Revision, Fault> {
    let action = Action::parse(row.text(1)?)
        .ok_or_else(|| StoreError::Internal("an action of no known kind".to_owned()))?;
    Ok(Revision {
        revision: row.integer(0)?,
        action,
        changed_by: row.string(2)?,
        changed_at: row.time(3)?,
        changes: row.object(4)?,
    })
}

impl Store {
    /// A configuration, none when there is none of that id.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn configuration(&self, id: Uuid) -> Result<Option<Configuration>, StoreError> {
        let (statements, shapes) = (self.statements(), self.shapes());
        self.read(View::State, move |session| {
            Box::pin(async move { one(session, &statements, &shapes, id).await })
        })
        .await
    }

    /// A page of configurations, newest first. The rows of a plugin whose table is missing or broken have no values.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a cursor that is none of ours; those of an unavailable database.
    pub async fn configurations(
        &self,
        query: ConfigurationQuery,
    ) -> Result<Page<Configuration>, StoreError> {
        let cursor = query.cursor.as_deref().map(TimeCursor::read).transpose()?;
        let (statements, shapes) = (self.statements(), self.shapes());
        self.read(View::State, move |session| {
            Box::pin(async move { page(session, &statements, &shapes, &query, cursor).await })
        })
        .await
    }

    /// The history of a configuration, oldest first; empty when there never was one of that id.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn revisions(&self, id: Uuid) -> Result<Vec<Revision>, StoreError> {
        let statements = self.statements();
        self.read(View::Statement, move |session| {
            Box::pin(async move {
                let statement = &statements.configurations.revisions;
                let rows = session.query(statement, vec![id.into()]).await?;
                Ok(rows.iter().map(read_revision).collect::<Result<_, _>>()?)
            })
        })
        .await
    }

    /// All configurations, newest first, read a page at a time as the stream is polled. What is created meanwhile is
    /// not in it. It ends after an error.
    pub fn export(&self) -> impl Stream<Item = Result<Configuration, StoreError>> + Send + 'static {
        struct Export {
            store: Store,
            page: std::vec::IntoIter<Configuration>,
            /// Where the next page begins; none after the last.
            next: Option<Option<String>>,
        }
        let start = Export {
            store: self.clone(),
            page: Vec::new().into_iter(),
            next: Some(None),
        };
        stream::unfold(start, |mut export| async move {
            loop {
                if let Some(configuration) = export.page.next() {
                    return Some((Ok(configuration), export));
                }
                let cursor = export.next.take()?;
                let query = ConfigurationQuery {
                    limit: MAX_PAGE,
                    cursor,
                    ..ConfigurationQuery::default()
                };
                match export.store.configurations(query).await {
                    Ok(page) => {
                        export.page = page.items.into_iter();
                        export.next = page.next_cursor.map(Some);
                    }
                    Err(error) => return Some((Err(error), export)),
                }
            }
        })
    }

    /// Rows of one plugin for its hooks, newest first: `id`, `name`, `data_product_id` and `technical_mapping`, and the
    /// fields, which win where one has such a name. `values` are what fields must equal; null stands for no value.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a key that is no field, a field of lists or JSON, or a value of another type;
    /// [`StoreError::Conflict`] for a plugin without fields; those of an unavailable database.
    pub async fn plugin_rows(
        &self,
        table: &PluginTable,
        data_product_id: Option<Uuid>,
        values: Map,
        limit: usize,
    ) -> Result<Vec<Map>, StoreError> {
        const COLUMNS: &[&str] = &["id", "name", "data_product_id", "technical_mapping"];
        let shape = Arc::clone(table.shape()?);
        let limit = limit.clamp(1, MAX_HOOK_ROWS);
        let (statement, bound) = shape.search(COLUMNS, data_product_id, &values, limit)?;
        self.read(View::Statement, move |session| {
            Box::pin(async move {
                let rows = session.query(&statement, bound).await?;
                let mut found = Vec::with_capacity(rows.len());
                for row in &rows {
                    let mut map = Map::new();
                    for (place, column) in COLUMNS.iter().enumerate() {
                        let value = match *column {
                            "id" | "data_product_id" => row.uuid(place)?.to_string(),
                            _ => row.string(place)?,
                        };
                        map.insert((*column).to_owned(), Json::String(value));
                    }
                    map.extend(shape.values(row, COLUMNS.len())?);
                    found.push(map);
                }
                Ok(found)
            })
        })
        .await
    }
}

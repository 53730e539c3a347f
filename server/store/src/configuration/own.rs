//! The rows that a plugin owns, read in chunks for the check of its next version, and written when that carries them over.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use patchbay_plugin::Map;
use patchbay_plugin::configuration::{Action, DataProduct, TechnicalMapping, changes};
use patchbay_plugin::definition::Definition;
use patchbay_plugin::field::Field;
use patchbay_plugin::name::PluginName;
use serde_json::Value as Json;
use uuid::Uuid;

use crate::Store;
use crate::engine::View;
use crate::error::{Fault, StoreError};
use crate::plugin::PluginTable;
use crate::session::{Row, Session, json, text};
use crate::shape::Shape;
use crate::statements::Statements;
use crate::time_text::now;

/// What is read before the fields: of the base, then of the data product.
pub(crate) const OWN_BASE: &[&str] = &[
    "id",
    "revision",
    "plugin_version",
    "technical_mapping",
    "data_product_id",
];
pub(crate) const OWN_PRODUCT: &[&str] = &["name", "namespace", "domain"];

/// The rows of a plugin as its applied definition has them.
#[derive(Debug, Clone)]
pub struct OwnRows {
    table: PluginTable,
    shape: Arc<Shape>,
    fields: Arc<[Field]>,
    /// How many there are.
    pub total: u64,
}

/// One row, with what a hook is told of it.
#[derive(Debug, Clone)]
pub struct OwnRow {
    /// Its id.
    pub id: Uuid,
    /// Its revision.
    pub revision: i64,
    /// The version that wrote it.
    pub plugin_version: Arc<str>,
    /// How its names come about.
    pub technical_mapping: TechnicalMapping,
    /// The data product that it belongs to.
    pub data_product: Arc<DataProduct>,
    /// The values of the fields, by the applied definition.
    pub values: Map,
}

/// Rows as a newer version has carried them over.
#[derive(Debug, Clone, Default)]
pub struct Carried {
    rows: BTreeMap<Uuid, CarriedRow>,
    /// Of all rows that another version has written, those that stay as they are too, their revisions.
    known: HashMap<Uuid, i64>,
}

#[derive(Debug, Clone)]
struct CarriedRow {
    values: Map,
    /// What the history says of it.
    changes: Map,
}

impl OwnRows {
    /// The version that is applied.
    pub fn version(&self) -> &str {
        self.table.version()
    }

    /// The fields by which they were stored.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// A handle for the rows by which hooks read them.
    pub fn table(&self) -> &PluginTable {
        &self.table
    }
}

impl Carried {
    /// Notes a row that stays as it is.
    pub fn keep(&mut self, row: &OwnRow) {
        self.known.insert(row.id, row.revision);
    }

    /// Notes what became of a row. `values` are checked.
    pub fn carry(&mut self, row: &OwnRow, values: Map, version: &str) {
        self.known.insert(row.id, row.revision);
        let described = |values: &Map, version: &str| -> Map {
            let fields = values
                .iter()
                .map(|(field, value)| (format!("configuration.{field}"), value.clone()));
            let version = Json::String(version.to_owned());
            std::iter::once(("plugin_version".to_owned(), version))
                .chain(fields)
                .collect()
        };
        let before = described(&row.values, &row.plugin_version);
        let changes = changes(Some(&before), Some(&described(&values, version)));
        self.rows.insert(row.id, CarriedRow { values, changes });
    }

    /// Forgets a row, because it is not what it was.
    pub fn forget(&mut self, id: Uuid) {
        self.known.remove(&id);
        self.rows.remove(&id);
    }

    /// How many rows are carried over.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no row is.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether there is a row of another version, carried over or not.
    pub fn knows_any(&self) -> bool {
        !self.known.is_empty()
    }

    /// The rows that are not what they were when they were carried over. Nobody may write them any more.
    pub(crate) async fn moved(
        &self,
        session: &mut Session,
        statements: &Statements,
        definition: &Definition,
    ) -> Result<Vec<Uuid>, Fault> {
        let values = vec![text(definition.name.as_str()), text(&definition.version)];
        let found = session
            .query(&statements.configurations.of_other_versions, values)
            .await?;
        let mut moved = Vec::new();
        let mut same = 0;
        for row in &found {
            let (id, revision) = (row.uuid(0)?, row.integer(1)?);
            match self.known.get(&id) {
                Some(known) if *known == revision => same += 1,
                _ => moved.push(id),
            }
        }
        if same < self.known.len() {
            // Some were deleted, or another server has carried them over.
            let found: std::collections::HashSet<Uuid> =
                found.iter().filter_map(|row| row.uuid(0).ok()).collect();
            moved.extend(self.known.keys().filter(|id| !found.contains(id)));
        }
        Ok(moved)
    }

    /// Writes the rows, each with a revision. The table is the one that the definition wants.
    pub(crate) async fn write(
        &self,
        session: &mut Session,
        statements: &Statements,
        definition: &Definition,
        by: &str,
    ) -> Result<(), StoreError> {
        let Some(table) = &definition.table else {
            return Ok(());
        };
        let shape = Shape::new(session.dialect(), table, &definition.fields);
        let own = &statements.configurations;
        let at = now();
        for (id, row) in &self.rows {
            let before = self.known.get(id).copied().unwrap_or_default();
            let base = vec![
                text(&definition.version),
                (before + 1).into(),
                at.into(),
                (*id).into(),
                before.into(),
            ];
            // It was there a moment ago, and only a deletion does not wait for us.
            if session.execute(&own.carry, base).await? == 0 {
                continue;
            }
            let mut cells: Vec<_> = shape.cells(&row.values).collect::<Result<_, _>>()?;
            cells.push((*id).into());
            session
                .execute(shape.update(), cells)
                .await
                .map_err(|fault| match fault {
                    Fault::Unique(columns) => StoreError::Conflict(format!(
                        "the row {id}, carried over, has the same {columns} as another one"
                    )),
                    other => other.into(),
                })?;
            let revision = vec![
                (*id).into(),
                (before + 1).into(),
                text(Action::Upgrade.as_str()),
                text(definition.name.as_str()),
                text(&definition.version),
                text(by),
                at.into(),
                json(Json::Object(row.changes.clone())),
            ];
            session.execute(&own.add_revision, revision).await?;
        }
        Ok(())
    }
}

/// Reads rows, with one handle for all that share a data product or a version.
#[derive(Default)]
struct Reading {
    products: HashMap<Uuid, Arc<DataProduct>>,
    versions: Vec<Arc<str>>,
}

impl Reading {
    fn row(&mut self, shape: &Shape, row: &Row) -> Result<OwnRow, Fault> {
        let version = row.text(2)?;
        let known = self.versions.iter().find(|known| ***known == *version);
        let plugin_version = match known {
            Some(known) => known.clone(),
            None => {
                let version: Arc<str> = version.into();
                self.versions.push(version.clone());
                version
            }
        };
        let technical_mapping = TechnicalMapping::parse(row.text(3)?).ok_or_else(|| {
            StoreError::Internal("a technical mapping of no known kind".to_owned())
        })?;
        let product = row.uuid(4)?;
        let data_product = match self.products.get(&product) {
            Some(known) => known.clone(),
            None => {
                let first = OWN_BASE.len();
                let read = Arc::new(DataProduct {
                    id: product,
                    name: row.string(first)?,
                    namespace: row.string(first + 1)?,
                    domain: row.string(first + 2)?,
                });
                self.products.insert(product, read.clone());
                read
            }
        };
        Ok(OwnRow {
            id: row.uuid(0)?,
            revision: row.integer(1)?,
            plugin_version,
            technical_mapping,
            data_product,
            values: shape.values(row, OWN_BASE.len() + OWN_PRODUCT.len())?,
        })
    }
}

impl Store {
    /// The rows of a plugin, to be read by chunks; none when it has no table yet.
    ///
    /// # Errors
    /// Those of an unavailable database, or of a table that is not what the applied definition says.
    pub async fn own_rows(&self, plugin: &PluginName) -> Result<Option<OwnRows>, StoreError> {
        let Some((table, fields)) = self.applied_table(plugin).await? else {
            return Ok(None);
        };
        let Ok(shape) = table.shape().cloned() else {
            return Ok(None);
        };
        let counted = Arc::clone(&shape);
        let total = self.read(View::Statement, move |session| {
            Box::pin(async move {
                let row = session.attempt(counted.count(), Vec::new()).await?;
                let count = row.first().map_or(Ok(0), |row| row.integer(0))?;
                Ok(count.unsigned_abs())
            })
        });
        Ok(Some(OwnRows {
            total: total.await?,
            table,
            shape,
            fields: fields.into(),
        }))
    }

    /// Whether another version than this one has written rows of the plugin.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn has_rows_of_other_versions(
        &self,
        definition: &Definition,
    ) -> Result<bool, StoreError> {
        let statements = self.statements();
        let values = vec![
            text(definition.name.as_str()),
            text(&definition.version),
            1_i64.into(),
        ];
        self.read(View::Statement, move |session| {
            Box::pin(async move {
                let statement = &statements.configurations.one_of_other_versions;
                Ok(session.query_one(statement, values).await?.is_some())
            })
        })
        .await
    }

    /// Ids that part the rows into so many runs of about the same length: the last of each run but the last one.
    ///
    /// # Errors
    /// As [`own_rows`](Store::own_rows).
    pub async fn own_row_marks(&self, rows: &OwnRows, parts: u64) -> Result<Vec<Uuid>, StoreError> {
        // A mark is the last row of its run, so that one fewer lies between.
        let between = (rows.total / parts.max(1)).max(1) as i64 - 1;
        let shape = Arc::clone(&rows.shape);
        self.read(View::Statement, move |session| {
            Box::pin(async move {
                let mut marks: Vec<Uuid> = Vec::new();
                for _ in 1..parts {
                    let after = marks.last().copied().unwrap_or(Uuid::nil());
                    let values = vec![after.into(), 1_i64.into(), between.into()];
                    match session.attempt(shape.mark(), values).await?.first() {
                        Some(row) => marks.push(row.uuid(0)?),
                        None => break,
                    }
                }
                Ok(marks)
            })
        })
        .await
    }

    /// The rows after one id up to another, that one included, by id, at most so many.
    ///
    /// # Errors
    /// As [`own_rows`](Store::own_rows).
    pub async fn own_row_chunk(
        &self,
        rows: &OwnRows,
        after: Uuid,
        until: Uuid,
        limit: usize,
    ) -> Result<Vec<OwnRow>, StoreError> {
        let shape = Arc::clone(&rows.shape);
        self.read(View::Statement, move |session| {
            Box::pin(async move {
                let values = vec![after.into(), until.into(), (limit as i64).into()];
                let found = session.attempt(shape.chunk(), values).await?;
                let mut reading = Reading::default();
                Ok(found
                    .iter()
                    .map(|row| reading.row(&shape, row))
                    .collect::<Result<_, _>>()?)
            })
        })
        .await
    }

    /// These rows, as far as they are there.
    ///
    /// # Errors
    /// As [`own_rows`](Store::own_rows).
    pub async fn own_rows_of(
        &self,
        rows: &OwnRows,
        ids: Vec<Uuid>,
    ) -> Result<Vec<OwnRow>, StoreError> {
        let shape = Arc::clone(&rows.shape);
        self.read(View::Statement, move |session| {
            Box::pin(async move {
                let mut reading = Reading::default();
                let mut read = Vec::with_capacity(ids.len());
                for id in ids {
                    let before = Uuid::from_u128(id.as_u128().saturating_sub(1));
                    let values = vec![before.into(), id.into(), 1_i64.into()];
                    for row in session.attempt(shape.chunk(), values).await? {
                        read.push(reading.row(&shape, &row)?);
                    }
                }
                Ok(read)
            })
        })
        .await
    }
}

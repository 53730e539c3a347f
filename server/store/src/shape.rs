//! The shape of a plugin's table: its columns, the statements over it, and how values become cells and back.

use std::sync::OnceLock;

use patchbay_plugin::Map;
use patchbay_plugin::field::Field;
use patchbay_plugin::migration::ColumnType;
use patchbay_plugin::name::TableName;
use sea_query::{Asterisk, Expr, ExprTrait, Func, Order, Query, Value};
use serde_json::{Number, Value as Json};
use uuid::Uuid;

use crate::configuration::{OWN_BASE, OWN_PRODUCT};
use crate::error::{Fault, StoreError};
use crate::plugin::describe;
use crate::render::type_word;
use crate::session::{Dialect, Row, Session, Statement, Values, place};

/// How many rows are asked for at once. A statement names a fixed number of them, so that it is prepared once; the ids
/// are filled up by repetition.
const BATCHES: [usize; 4] = [1, 8, 64, 512];

/// The largest float that still is an integer with all its neighbours.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A plugin's table as its fields see it.
#[derive(Debug)]
pub(crate) struct Shape {
    dialect: Dialect,
    table: String,
    columns: Vec<FieldColumn>,
    insert: OnceLock<Statement>,
    update: OnceLock<Statement>,
    by_ids: [OnceLock<Statement>; 4],
    count: OnceLock<Statement>,
    mark: OnceLock<Statement>,
    chunk: OnceLock<Statement>,
}

#[derive(Debug, Clone)]
struct FieldColumn {
    name: String,
    kind: ColumnType,
    nullable: bool,
}

impl Shape {
    pub(crate) fn new(dialect: Dialect, table: &TableName, fields: &[Field]) -> Shape {
        let columns = fields
            .iter()
            .map(|field| FieldColumn {
                name: field.name.as_str().to_owned(),
                kind: ColumnType::of(&field.kind),
                nullable: field.is_nullable(),
            })
            .collect();
        Shape::with(dialect, table.as_str(), columns)
    }

    fn with(dialect: Dialect, table: &str, columns: Vec<FieldColumn>) -> Shape {
        Shape {
            dialect,
            table: table.to_owned(),
            columns,
            insert: OnceLock::new(),
            update: OnceLock::new(),
            by_ids: Default::default(),
            count: OnceLock::new(),
            mark: OnceLock::new(),
            chunk: OnceLock::new(),
        }
    }

    /// The columns that are there as the shape has them, where somebody else has changed the table; none when nothing can
    /// be read at all.
    pub(crate) async fn as_it_is(&self, session: &mut Session) -> Result<Option<Shape>, Fault> {
        let mut found = describe(session, std::iter::once(self.table.as_str())).await?;
        let Some(found) = found.remove(&self.table) else {
            return Ok(None);
        };
        if !found.iter().any(|column| column.name == "id") {
            return Ok(None);
        }
        let columns = self.columns.iter().filter(|column| {
            found.iter().any(|found| {
                found.name == column.name && found.kind == type_word(column.kind, self.dialect)
            })
        });
        Ok(Some(Shape::with(
            self.dialect,
            &self.table,
            columns.cloned().collect(),
        )))
    }

    /// Takes the id, then the values in the order of the fields.
    pub(crate) fn insert(&self) -> &Statement {
        self.insert.get_or_init(|| {
            let names = self.columns.iter().map(|column| column.name.clone());
            let mut query = Query::insert();
            query
                .into_table(self.table.clone())
                .columns(std::iter::once("id".to_owned()).chain(names));
            query.values_panic((0..=self.columns.len()).map(|_| place()));
            Statement::new(self.dialect, &query)
        })
    }

    /// Takes the values in the order of the fields, then the id.
    pub(crate) fn update(&self) -> &Statement {
        self.update.get_or_init(|| {
            let mut query = Query::update();
            query
                .table(self.table.clone())
                .values(
                    self.columns
                        .iter()
                        .map(|column| (column.name.clone(), place())),
                )
                .and_where(Expr::col("id").eq(place()));
            Statement::new(self.dialect, &query)
        })
    }

    fn by_ids(&self, batch: usize) -> &Statement {
        self.by_ids[batch].get_or_init(|| {
            let mut query = Query::select();
            query
                .column("id")
                .columns(self.columns.iter().map(|column| column.name.clone()))
                .from(self.table.clone())
                .and_where(Expr::col("id").is_in((0..BATCHES[batch]).map(|_| place())));
            Statement::new(self.dialect, &query)
        })
    }

    /// How many rows there are.
    pub(crate) fn count(&self) -> &Statement {
        self.count.get_or_init(|| {
            let mut query = Query::select();
            query
                .expr(Func::count(Expr::col(Asterisk)))
                .from(self.table.clone());
            Statement::new(self.dialect, &query)
        })
    }

    /// The id so many rows after another. Takes the id, 1, and how many rows.
    pub(crate) fn mark(&self) -> &Statement {
        self.mark.get_or_init(|| {
            let mut query = Query::select();
            query
                .column("id")
                .from(self.table.clone())
                .and_where(Expr::col("id").gt(place()))
                .order_by("id", Order::Asc)
                .limit(1)
                .offset(1);
            Statement::new(self.dialect, &query)
        })
    }

    /// Rows by id, each with its base and its data product, the columns of [`OWN_BASE`] and [`OWN_PRODUCT`] first. Takes
    /// the id after which and the one up to which they come, and how many at most.
    pub(crate) fn chunk(&self) -> &Statement {
        self.chunk.get_or_init(|| {
            const BASE: &str = "data_output_configurations";
            const PRODUCTS: &str = "data_products";
            let own = |column: &str| Expr::col((self.table.clone(), column.to_owned()));
            let mut query = Query::select();
            query
                .columns(OWN_BASE.iter().map(|column| (BASE, *column)))
                .columns(OWN_PRODUCT.iter().map(|column| (PRODUCTS, *column)))
                .columns(
                    self.columns
                        .iter()
                        .map(|column| (self.table.clone(), column.name.clone())),
                )
                .from(self.table.clone())
                .inner_join(
                    BASE,
                    Expr::col((BASE, "id")).equals((self.table.clone(), "id")),
                )
                .inner_join(
                    PRODUCTS,
                    Expr::col((PRODUCTS, "id")).equals((BASE, "data_product_id")),
                )
                .and_where(own("id").gt(place()))
                .and_where(own("id").lte(place()))
                .order_by((self.table.clone(), "id".to_owned()), Order::Asc)
                .limit(1);
            Statement::new(self.dialect, &query)
        })
    }

    /// The values as they are read back: every field, in order, and a number of a `number` field as the float it is
    /// stored as.
    pub(crate) fn canonical(&self, values: &Map) -> Map {
        self.columns
            .iter()
            .map(|column| {
                let value = values.get(&column.name).cloned().unwrap_or(Json::Null);
                let value = match (column.kind, &value) {
                    (ColumnType::Number, Json::Number(number)) => {
                        number.as_f64().map_or(Json::Null, number_json)
                    }
                    _ => value,
                };
                (column.name.clone(), value)
            })
            .collect()
    }

    /// The cells of the values, in the order of the fields.
    pub(crate) fn cells<'a>(
        &'a self,
        values: &'a Map,
    ) -> impl Iterator<Item = Result<Value, StoreError>> + 'a {
        self.columns.iter().map(|column| {
            let value = values.get(&column.name).unwrap_or(&Json::Null);
            column.cell(value)
        })
    }

    /// Reads the values of these rows. A row that is not there is left out. A table that is not what the shape says
    /// harms nothing but this reading.
    pub(crate) async fn read(
        &self,
        session: &mut Session,
        ids: &[Uuid],
    ) -> Result<Vec<(Uuid, Map)>, Fault> {
        let mut read = Vec::with_capacity(ids.len());
        for ids in ids.chunks(BATCHES[BATCHES.len() - 1]) {
            let Some(last) = ids.last() else { continue };
            let batch = BATCHES
                .iter()
                .position(|size| *size >= ids.len())
                .unwrap_or(BATCHES.len() - 1);
            let padding = std::iter::repeat_n(last, BATCHES[batch] - ids.len());
            let values: Values = ids.iter().chain(padding).map(|id| (*id).into()).collect();
            for row in session.attempt(self.by_ids(batch), values).await? {
                read.push((row.uuid(0)?, self.values(&row, 1)?));
            }
        }
        Ok(read)
    }

    /// The values in the cells from `first` on.
    pub(crate) fn values(&self, row: &Row, first: usize) -> Result<Map, Fault> {
        self.columns
            .iter()
            .enumerate()
            .map(|(place, column)| Ok((column.name.clone(), column.value(row, first + place)?)))
            .collect()
    }

    /// A statement that reads the plugin's rows, newest first, with its values. The base columns come first. What the
    /// filter asks for changes with each call, so its statement is built for it.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a key that is no field, or a field that cannot be compared.
    pub(crate) fn search(
        &self,
        base: &[&'static str],
        data_product_id: Option<Uuid>,
        filter: &Map,
        limit: usize,
    ) -> Result<(Statement, Values), StoreError> {
        const BASE: &str = "data_output_configurations";
        let mut query = Query::select();
        let mut values = Vec::new();
        query
            .columns(base.iter().map(|column| (BASE, *column)))
            .columns(
                self.columns
                    .iter()
                    .map(|column| (self.table.clone(), column.name.clone())),
            )
            .from(self.table.clone())
            .inner_join(
                BASE,
                Expr::col((BASE, "id")).equals((self.table.clone(), "id")),
            );
        if let Some(id) = data_product_id {
            query.and_where(Expr::col((BASE, "data_product_id")).eq(place()));
            values.push(id.into());
        }
        for (key, wanted) in filter {
            let column = self
                .columns
                .iter()
                .find(|column| column.name == *key)
                .ok_or_else(|| StoreError::Invalid(format!("there is no field {key}")))?;
            if column.kind == ColumnType::Json {
                return Err(StoreError::Invalid(format!(
                    "the field {key} is no single value, so rows cannot be searched by it"
                )));
            }
            let cell = Expr::col((self.table.clone(), key.clone()));
            if wanted.is_null() {
                query.and_where(cell.is_null());
            } else {
                query.and_where(cell.eq(place()));
                values.push(column.cell(wanted)?);
            }
        }
        query
            .order_by((BASE, "created_at"), Order::Desc)
            .order_by((BASE, "id"), Order::Desc)
            .limit(1);
        values.push((limit as i64).into());
        Ok((Statement::new(self.dialect, &query), values))
    }
}

impl FieldColumn {
    fn cell(&self, value: &Json) -> Result<Value, StoreError> {
        let cell = match (self.kind, value) {
            (ColumnType::Json, Json::Null) if self.nullable => Some(Value::Json(None)),
            (ColumnType::Json, value) => Some(Value::Json(Some(Box::new(value.clone())))),
            (ColumnType::Text | ColumnType::Uuid, Json::Null) => Some(Value::String(None)),
            (ColumnType::Text | ColumnType::Uuid, Json::String(text)) => {
                Some(Value::String(Some(text.clone())))
            }
            (ColumnType::Integer, Json::Null) => Some(Value::BigInt(None)),
            (ColumnType::Integer, Json::Number(number)) => {
                number.as_i64().map(|number| Value::BigInt(Some(number)))
            }
            (ColumnType::Number, Json::Null) => Some(Value::Double(None)),
            (ColumnType::Number, Json::Number(number)) => number
                .as_f64()
                .filter(|number| number.is_finite())
                .map(|number| Value::Double(Some(number))),
            (ColumnType::Boolean, Json::Null) => Some(Value::Bool(None)),
            (ColumnType::Boolean, Json::Bool(value)) => Some(Value::Bool(Some(*value))),
            _ => None,
        };
        cell.ok_or_else(|| {
            StoreError::Invalid(format!(
                "the field {} takes a value of the type {}",
                self.name,
                self.kind.word()
            ))
        })
    }

    fn value(&self, row: &Row, place: usize) -> Result<Json, Fault> {
        let value = match self.kind {
            ColumnType::Text | ColumnType::Uuid => row
                .optional_text(place)?
                .map(|text| Json::String(text.to_owned())),
            ColumnType::Integer => row.optional_integer(place)?.map(Json::from),
            ColumnType::Number => row.optional_number(place)?.map(number_json),
            ColumnType::Boolean => row.optional_boolean(place)?.map(Json::Bool),
            ColumnType::Json => row.optional_json(place)?,
        };
        Ok(value.unwrap_or(Json::Null))
    }
}

/// A float as JSON: without a fraction where it has none, so that it reads as it was most likely written.
fn number_json(number: f64) -> Json {
    if number.fract() == 0.0 && number.abs() < EXACT {
        return Json::from(number as i64);
    }
    Number::from_f64(number).map_or(Json::Null, Json::Number)
}

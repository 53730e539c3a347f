//! The seam to the database: one type that runs a statement and gives rows, whichever database is behind it.
//!
//! Every repository function is one `async fn` over `&mut Session`, and every statement is built once by sea-query, so
//! a second database needs a second variant here and nothing in the repository. On SQLite nothing ever awaits: its
//! futures are ready at the first poll, on the thread that owns the connection.

use patchbay_plugin::Map;
use sea_query::{PostgresQueryBuilder, QueryStatementWriter, SqliteQueryBuilder, Value};
use serde_json::Value as Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::{Fault, StoreError};
use crate::sqlite::SqliteSession;
use crate::time_text;

/// The databases for which SQL is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// Postgres.
    Postgres,
}

/// The text of one statement, in the dialect of the store. Its values come with each call, in the order in which the
/// statement names them.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) sql: Box<str>,
}

impl Statement {
    /// Builds the text. What stands in the query as a value is a place for one.
    pub(crate) fn new(dialect: Dialect, query: &impl QueryStatementWriter) -> Statement {
        let (sql, _) = match dialect {
            Dialect::Sqlite => query.build(SqliteQueryBuilder),
            Dialect::Postgres => query.build(PostgresQueryBuilder),
        };
        Statement { sql: sql.into() }
    }
}

/// The place of a value in a statement that is built once.
pub(crate) fn place() -> sea_query::Expr {
    sea_query::Expr::val(0)
}

/// The values of one call.
pub(crate) type Values = Vec<Value>;

/// A text as a value.
pub(crate) fn text(value: impl Into<String>) -> Value {
    Value::String(Some(value.into()))
}

/// JSON as a value.
pub(crate) fn json(value: Json) -> Value {
    Value::Json(Some(Box::new(value)))
}

/// One row of an answer. Cells are read by their place, as the type the column has in the schema.
pub(crate) enum Row {
    Sqlite(Vec<rusqlite::types::Value>),
}

impl Row {
    fn wrong(place: usize, wanted: &str) -> Fault {
        StoreError::Internal(format!("the cell {place} of a row is no {wanted}")).into()
    }

    /// A text, none for null.
    pub(crate) fn optional_text(&self, place: usize) -> Result<Option<&str>, Fault> {
        use rusqlite::types::Value as Cell;
        let Row::Sqlite(cells) = self;
        match cells.get(place) {
            Some(Cell::Text(text)) => Ok(Some(text)),
            Some(Cell::Null) => Ok(None),
            _ => Err(Row::wrong(place, "text")),
        }
    }

    pub(crate) fn text(&self, place: usize) -> Result<&str, Fault> {
        self.optional_text(place)?
            .ok_or_else(|| Row::wrong(place, "text"))
    }

    pub(crate) fn string(&self, place: usize) -> Result<String, Fault> {
        self.text(place).map(str::to_owned)
    }

    pub(crate) fn optional_integer(&self, place: usize) -> Result<Option<i64>, Fault> {
        use rusqlite::types::Value as Cell;
        let Row::Sqlite(cells) = self;
        match cells.get(place) {
            Some(Cell::Integer(number)) => Ok(Some(*number)),
            Some(Cell::Null) => Ok(None),
            _ => Err(Row::wrong(place, "integer")),
        }
    }

    pub(crate) fn integer(&self, place: usize) -> Result<i64, Fault> {
        self.optional_integer(place)?
            .ok_or_else(|| Row::wrong(place, "integer"))
    }

    pub(crate) fn optional_number(&self, place: usize) -> Result<Option<f64>, Fault> {
        use rusqlite::types::Value as Cell;
        let Row::Sqlite(cells) = self;
        match cells.get(place) {
            Some(Cell::Real(number)) => Ok(Some(*number)),
            Some(Cell::Integer(number)) => Ok(Some(*number as f64)),
            Some(Cell::Null) => Ok(None),
            _ => Err(Row::wrong(place, "number")),
        }
    }

    pub(crate) fn optional_boolean(&self, place: usize) -> Result<Option<bool>, Fault> {
        Ok(self.optional_integer(place)?.map(|number| number != 0))
    }

    pub(crate) fn boolean(&self, place: usize) -> Result<bool, Fault> {
        self.optional_boolean(place)?
            .ok_or_else(|| Row::wrong(place, "boolean"))
    }

    pub(crate) fn optional_uuid(&self, place: usize) -> Result<Option<Uuid>, Fault> {
        self.optional_text(place)?
            .map(|text| Uuid::parse_str(text).map_err(|_| Row::wrong(place, "id")))
            .transpose()
    }

    pub(crate) fn uuid(&self, place: usize) -> Result<Uuid, Fault> {
        self.optional_uuid(place)?
            .ok_or_else(|| Row::wrong(place, "id"))
    }

    pub(crate) fn time(&self, place: usize) -> Result<OffsetDateTime, Fault> {
        time_text::parse(self.text(place)?).ok_or_else(|| Row::wrong(place, "time"))
    }

    pub(crate) fn optional_json(&self, place: usize) -> Result<Option<Json>, Fault> {
        self.optional_text(place)?
            .map(|text| serde_json::from_str(text).map_err(|_| Row::wrong(place, "JSON")))
            .transpose()
    }

    pub(crate) fn json(&self, place: usize) -> Result<Json, Fault> {
        self.optional_json(place)?
            .ok_or_else(|| Row::wrong(place, "JSON"))
    }

    pub(crate) fn object(&self, place: usize) -> Result<Map, Fault> {
        match self.json(place)? {
            Json::Object(entries) => Ok(entries),
            _ => Err(Row::wrong(place, "JSON object")),
        }
    }
}

/// A connection, owned by whoever holds it.
pub(crate) enum Session {
    Sqlite(SqliteSession),
}

impl Session {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Session::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// Runs a statement that answers with rows.
    pub(crate) async fn query(
        &mut self,
        statement: &Statement,
        values: Values,
    ) -> Result<Vec<Row>, Fault> {
        match self {
            Session::Sqlite(sqlite) => sqlite.query(statement, &values),
        }
    }

    /// Runs a statement that answers with one row at most.
    pub(crate) async fn query_one(
        &mut self,
        statement: &Statement,
        values: Values,
    ) -> Result<Option<Row>, Fault> {
        Ok(self.query(statement, values).await?.into_iter().next())
    }

    /// Runs a statement, and says how many rows it changed.
    pub(crate) async fn execute(
        &mut self,
        statement: &Statement,
        values: Values,
    ) -> Result<u64, Fault> {
        match self {
            Session::Sqlite(sqlite) => sqlite.execute(statement, &values),
        }
    }

    /// Runs one statement that changes tables. Its text is used once, so nothing of it is kept.
    pub(crate) async fn define(&mut self, sql: &str) -> Result<(), Fault> {
        match self {
            Session::Sqlite(sqlite) => sqlite.define(sql),
        }
    }

    /// Whether no row of the table refers to one that is not there. Needed where foreign keys were off.
    pub(crate) async fn references_hold(&mut self, table: &str) -> Result<bool, Fault> {
        match self {
            Session::Sqlite(sqlite) => sqlite.references_hold(table),
        }
    }
}

//! The seam to the database: one type that runs a statement and gives rows, whichever database is behind it.
//!
//! Every repository function is one `async fn` over `&mut Session`, and every statement is built once by sea-query, so
//! what differs between the databases is here and nowhere in the repository. On SQLite nothing ever awaits: its futures
//! are ready at the first poll, on the thread that owns the connection.

use patchbay_plugin::Map;
use sea_query::{PostgresQueryBuilder, QueryStatementWriter, SqliteQueryBuilder, Value};
use serde_json::Value as Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::{Fault, StoreError};
use crate::postgres::{self, PostgresSession};
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
#[derive(Debug, Clone)]
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

const NUL: &str = "a text cannot contain the NUL character";

/// Refuses a text with a NUL, which Postgres cannot hold, in whatever place.
pub(crate) fn refuse_nul(values: &[Value]) -> Result<(), Fault> {
    let holds = values.iter().any(|value| match value {
        Value::String(Some(text)) => text.contains('\0'),
        Value::Json(Some(json)) => holds_nul(json),
        _ => false,
    });
    match holds {
        false => Ok(()),
        true => Err(StoreError::Invalid(NUL.to_owned()).into()),
    }
}

fn holds_nul(value: &Json) -> bool {
    match value {
        Json::String(text) => text.contains('\0'),
        Json::Array(items) => items.iter().any(holds_nul),
        Json::Object(entries) => entries
            .iter()
            .any(|(key, value)| key.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

/// One row of an answer. Cells are read by their place, as the type the column has in the schema.
pub(crate) enum Row {
    Sqlite(Vec<rusqlite::types::Value>),
    Postgres(tokio_postgres::Row),
}

impl Row {
    fn wrong(place: usize, wanted: &str) -> Fault {
        StoreError::Internal(format!("the cell {place} of a row is no {wanted}")).into()
    }

    /// A text, none for null.
    pub(crate) fn optional_text(&self, place: usize) -> Result<Option<&str>, Fault> {
        use rusqlite::types::Value as Cell;
        match self {
            Row::Sqlite(cells) => match cells.get(place) {
                Some(Cell::Text(text)) => Ok(Some(text)),
                Some(Cell::Null) => Ok(None),
                _ => Err(Row::wrong(place, "text")),
            },
            Row::Postgres(row) => {
                postgres::text(row, place).map_err(|()| Row::wrong(place, "text"))
            }
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
        match self {
            Row::Sqlite(cells) => match cells.get(place) {
                Some(Cell::Integer(number)) => Ok(Some(*number)),
                Some(Cell::Null) => Ok(None),
                _ => Err(Row::wrong(place, "integer")),
            },
            Row::Postgres(row) => row.try_get(place).map_err(|_| Row::wrong(place, "integer")),
        }
    }

    pub(crate) fn integer(&self, place: usize) -> Result<i64, Fault> {
        self.optional_integer(place)?
            .ok_or_else(|| Row::wrong(place, "integer"))
    }

    pub(crate) fn optional_number(&self, place: usize) -> Result<Option<f64>, Fault> {
        use rusqlite::types::Value as Cell;
        match self {
            Row::Sqlite(cells) => match cells.get(place) {
                Some(Cell::Real(number)) => Ok(Some(*number)),
                Some(Cell::Integer(number)) => Ok(Some(*number as f64)),
                Some(Cell::Null) => Ok(None),
                _ => Err(Row::wrong(place, "number")),
            },
            Row::Postgres(row) => row.try_get(place).map_err(|_| Row::wrong(place, "number")),
        }
    }

    pub(crate) fn optional_boolean(&self, place: usize) -> Result<Option<bool>, Fault> {
        match self {
            Row::Sqlite(_) => Ok(self.optional_integer(place)?.map(|number| number != 0)),
            Row::Postgres(row) => row.try_get(place).map_err(|_| Row::wrong(place, "boolean")),
        }
    }

    pub(crate) fn boolean(&self, place: usize) -> Result<bool, Fault> {
        self.optional_boolean(place)?
            .ok_or_else(|| Row::wrong(place, "boolean"))
    }

    pub(crate) fn optional_uuid(&self, place: usize) -> Result<Option<Uuid>, Fault> {
        match self {
            Row::Sqlite(_) => self
                .optional_text(place)?
                .map(|text| Uuid::parse_str(text).map_err(|_| Row::wrong(place, "id")))
                .transpose(),
            Row::Postgres(row) => row.try_get(place).map_err(|_| Row::wrong(place, "id")),
        }
    }

    pub(crate) fn uuid(&self, place: usize) -> Result<Uuid, Fault> {
        self.optional_uuid(place)?
            .ok_or_else(|| Row::wrong(place, "id"))
    }

    pub(crate) fn time(&self, place: usize) -> Result<OffsetDateTime, Fault> {
        match self {
            Row::Sqlite(_) => time_text::parse(self.text(place)?),
            Row::Postgres(row) => row.try_get(place).ok(),
        }
        .ok_or_else(|| Row::wrong(place, "time"))
    }

    /// A time, none for null.
    pub(crate) fn optional_time(&self, place: usize) -> Result<Option<OffsetDateTime>, Fault> {
        match self {
            Row::Sqlite(_) => match self.optional_text(place)? {
                Some(text) => time_text::parse(text).map(Some),
                None => Some(None),
            },
            Row::Postgres(row) => row.try_get(place).ok(),
        }
        .ok_or_else(|| Row::wrong(place, "time"))
    }

    /// The text of JSON as it was written, none for null.
    pub(crate) fn optional_json_text(&self, place: usize) -> Result<Option<&str>, Fault> {
        match self {
            Row::Sqlite(_) => self.optional_text(place),
            Row::Postgres(row) => {
                postgres::json(row, place).map_err(|()| Row::wrong(place, "JSON"))
            }
        }
    }

    pub(crate) fn optional_json(&self, place: usize) -> Result<Option<Json>, Fault> {
        let text = self.optional_json_text(place)?;
        text.map(|text| serde_json::from_str(text).map_err(|_| Row::wrong(place, "JSON")))
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

/// What only one server at a time does. On SQLite one thread writes, so nothing has to be held.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lock<'a> {
    /// Writing the catalogue: a file is compared with it first, and secrets that are sent blank are kept.
    Catalogue,
    /// Migrating a plugin, or recording its definition.
    Plugin(&'a str),
    /// Numbering the sets of plugins that servers serve.
    Cluster,
}

/// A connection, owned by whoever holds it.
pub(crate) enum Session {
    Sqlite(SqliteSession),
    Postgres(PostgresSession),
}

impl Session {
    /// The connection of a thread, which has no other.
    pub(crate) fn sqlite(&mut self) -> &mut SqliteSession {
        match self {
            Session::Sqlite(sqlite) => sqlite,
            Session::Postgres(_) => unreachable!("only SQLite has threads"),
        }
    }

    /// The connection of a pool, which has no other.
    pub(crate) fn postgres(&mut self) -> &mut PostgresSession {
        match self {
            Session::Postgres(postgres) => postgres,
            Session::Sqlite(_) => unreachable!("only Postgres has a pool"),
        }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Session::Sqlite(_) => Dialect::Sqlite,
            Session::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Runs a statement that answers with rows.
    ///
    /// After a statement that failed, what follows in the same work can only find out why: nothing of it is committed.
    pub(crate) async fn query(
        &mut self,
        statement: &Statement,
        values: Values,
    ) -> Result<Vec<Row>, Fault> {
        match self {
            Session::Sqlite(sqlite) => sqlite.query(statement, &values),
            Session::Postgres(postgres) => postgres.query(&statement.sql, &values).await,
        }
    }

    /// As [`query`](Session::query), but when it fails the work goes on as if it had not been run.
    pub(crate) async fn attempt(
        &mut self,
        statement: &Statement,
        values: Values,
    ) -> Result<Vec<Row>, Fault> {
        match self {
            Session::Sqlite(sqlite) => sqlite.query(statement, &values),
            Session::Postgres(postgres) => postgres.attempt(&statement.sql, &values).await,
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
            Session::Postgres(postgres) => postgres.execute(&statement.sql, &values).await,
        }
    }

    /// Runs one statement that changes tables. Its text is used once, so nothing of it is kept.
    pub(crate) async fn define(&mut self, sql: &str) -> Result<(), Fault> {
        if sql.contains('\0') {
            return Err(StoreError::Invalid(NUL.to_owned()).into());
        }
        match self {
            Session::Sqlite(sqlite) => sqlite.define(sql),
            Session::Postgres(postgres) => postgres.define(sql).await,
        }
    }

    /// Whether no row of the table refers to one that is not there. Needed where foreign keys were off, which they
    /// never are on Postgres.
    pub(crate) async fn references_hold(&mut self, table: &str) -> Result<bool, Fault> {
        match self {
            Session::Sqlite(sqlite) => sqlite.references_hold(table),
            Session::Postgres(_) => Ok(true),
        }
    }

    /// Keeps other servers from doing the same until the transaction ends.
    pub(crate) async fn lock(&mut self, lock: Lock<'_>) -> Result<(), StoreError> {
        match self {
            Session::Sqlite(_) => Ok(()),
            Session::Postgres(postgres) => postgres.lock(lock).await,
        }
    }

    /// Lets the statements of this transaction take as long as they need: a migration reads whole tables.
    pub(crate) async fn unhurried(&mut self) -> Result<(), Fault> {
        match self {
            Session::Sqlite(_) => Ok(()),
            Session::Postgres(postgres) => postgres.unhurried().await,
        }
    }

    /// Whether the transaction could write. On SQLite it could not have begun otherwise.
    pub(crate) async fn check_writable(&mut self) -> Result<(), Fault> {
        match self {
            Session::Sqlite(_) => Ok(()),
            Session::Postgres(postgres) => postgres.check_writable().await,
        }
    }
}

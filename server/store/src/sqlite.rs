//! SQLite: a connection as a [`Session`](crate::session::Session), how one is opened, and what its errors mean.
//!
//! Ids, times and JSON are bound as text (a general binder would make ids blobs, and times texts of varying width that
//! do not order).

use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};
use sea_query::Value;

use crate::error::{Fault, StoreError};
use crate::session::{Row, Statement, refuse_nul};
use crate::settings::{StoreSettings, Synchronous};
use crate::time_text;

/// How many statements a connection keeps prepared.
const KEPT_STATEMENTS: usize = 256;

/// A connection and the file it was opened on.
pub(crate) struct SqliteSession {
    connection: Connection,
    path: PathBuf,
    file: Option<FileIdentity>,
}

/// What tells a file from another of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileIdentity(u64, u64);

impl FileIdentity {
    /// Of the file at a path; none where the system has no such thing.
    #[cfg(unix)]
    fn of(path: &Path) -> std::io::Result<Option<FileIdentity>> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path)?;
        Ok(Some(FileIdentity(metadata.dev(), metadata.ino())))
    }

    #[cfg(not(unix))]
    fn of(path: &Path) -> std::io::Result<Option<FileIdentity>> {
        std::fs::metadata(path).map(|_| None)
    }
}

/// Whether a connection writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It does; the file is created when there is none.
    Write,
    /// It only reads, and SQLite refuses anything else on it.
    Read,
}

impl SqliteSession {
    /// Opens a connection with everything set that every connection has.
    pub(crate) fn open(
        path: &Path,
        settings: &StoreSettings,
        access: Access,
    ) -> Result<SqliteSession, StoreError> {
        let fails = |error: rusqlite::Error| open_error(path, &error);
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if access == Access::Write {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let connection = Connection::open_with_flags(path, flags).map_err(fails)?;
        connection
            .busy_timeout(settings.busy_timeout)
            .map_err(fails)?;
        // A missing "column" would otherwise read as its own name.
        for config in [
            DbConfig::SQLITE_DBCONFIG_DQS_DML,
            DbConfig::SQLITE_DBCONFIG_DQS_DDL,
        ] {
            connection.set_db_config(config, false).map_err(fails)?;
        }
        connection.set_prepared_statement_cache_capacity(KEPT_STATEMENTS);
        if access == Access::Write && connection.is_readonly("main").map_err(fails)? {
            return Err(StoreError::CannotOpen(format!(
                "the database {path:?} cannot be written; give this user the right to write the file and its folder"
            )));
        }
        let mode: String = connection
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
            .map_err(fails)?;
        if mode != "wal" {
            return Err(StoreError::CannotOpen(format!(
                "the database {path:?} cannot keep a write-ahead log (its journal mode is {mode}); put it on a local disk"
            )));
        }
        let synchronous = match settings.synchronous {
            Synchronous::Normal => "NORMAL",
            Synchronous::Full => "FULL",
        };
        connection
            .execute_batch(&format!(
                "PRAGMA synchronous = {synchronous}; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; \
                 PRAGMA journal_size_limit = 67108864;"
            ))
            .map_err(fails)?;
        if access == Access::Read {
            connection
                .execute_batch("PRAGMA query_only = ON")
                .map_err(fails)?;
        } else if let Some(pages) = settings.page_limit {
            connection
                .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
                .map_err(fails)?;
        }
        let file = FileIdentity::of(path).map_err(|error| {
            StoreError::CannotOpen(format!("the database {path:?} cannot be read: {error}"))
        })?;
        Ok(SqliteSession {
            connection,
            path: path.to_owned(),
            file,
        })
    }

    /// The connection, for the schema runner.
    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Checks that the file is still the one that was opened. Without it, a process would go on writing, and
    /// acknowledging, into a file that nobody finds any more.
    pub(crate) fn check_file(&self) -> Result<(), StoreError> {
        match FileIdentity::of(&self.path) {
            Ok(found) if found == self.file => Ok(()),
            Ok(_) => Err(StoreError::Missing),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(StoreError::Missing),
            Err(error) => Err(StoreError::Away(format!("the database file: {error}"))),
        }
    }

    /// A number that changes when another connection has written.
    pub(crate) fn data_version(&self) -> Result<i64, StoreError> {
        self.connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(|error| fault(&error).into())
    }

    /// Runs one of the statements that frame transactions.
    pub(crate) fn frame(&self, sql: &'static str) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.raw_execute())
            .map(|_| ())
            .map_err(|error| fault(&error).into())
    }

    /// Whether a transaction is open; SQLite ends one by itself after some faults.
    pub(crate) fn in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// Switches the enforcement of foreign keys; has no effect inside a transaction.
    pub(crate) fn enforce_references(&self, on: bool) -> Result<(), StoreError> {
        self.connection
            .pragma_update(None, "foreign_keys", on)
            .map_err(|error| fault(&error).into())
    }

    /// Moves what is in the write-ahead log into the file and empties the log, as far as others let us.
    pub(crate) fn checkpoint(&self) -> Result<(), StoreError> {
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|error| fault(&error).into())
    }

    pub(crate) fn query(
        &mut self,
        statement: &Statement,
        values: &[Value],
    ) -> Result<Vec<Row>, Fault> {
        let mut prepared = self
            .connection
            .prepare_cached(&statement.sql)
            .map_err(|error| fault(&error))?;
        bind(&mut prepared, values)?;
        let columns = prepared.column_count();
        let mut rows = prepared.raw_query();
        let mut read = Vec::new();
        while let Some(row) = rows.next().map_err(|error| fault(&error))? {
            let cells: Result<Vec<rusqlite::types::Value>, rusqlite::Error> =
                (0..columns).map(|place| row.get(place)).collect();
            read.push(Row::Sqlite(cells.map_err(|error| fault(&error))?));
        }
        Ok(read)
    }

    pub(crate) fn execute(
        &mut self,
        statement: &Statement,
        values: &[Value],
    ) -> Result<u64, Fault> {
        let mut prepared = self
            .connection
            .prepare_cached(&statement.sql)
            .map_err(|error| fault(&error))?;
        bind(&mut prepared, values)?;
        let changed = prepared.raw_execute().map_err(|error| fault(&error))?;
        Ok(changed as u64)
    }

    pub(crate) fn define(&mut self, sql: &str) -> Result<(), Fault> {
        self.connection
            .execute_batch(sql)
            .map_err(|error| fault(&error))
    }

    pub(crate) fn references_hold(&mut self, table: &str) -> Result<bool, Fault> {
        self.connection
            .prepare("SELECT 1 FROM pragma_foreign_key_check(?)")
            .and_then(|mut statement| statement.exists([table]))
            .map(|broken| !broken)
            .map_err(|error| fault(&error))
    }
}

fn bind(statement: &mut rusqlite::Statement<'_>, values: &[Value]) -> Result<(), Fault> {
    if statement.parameter_count() != values.len() {
        return Err(StoreError::Internal(format!(
            "a statement with {} places got {} values",
            statement.parameter_count(),
            values.len()
        ))
        .into());
    }
    refuse_nul(values)?;
    for (place, value) in values.iter().enumerate() {
        let place = place + 1;
        let bound = match value {
            Value::Bool(value) => statement.raw_bind_parameter(place, value),
            Value::Int(value) => statement.raw_bind_parameter(place, value),
            Value::BigInt(value) => statement.raw_bind_parameter(place, value),
            Value::Double(value) => statement.raw_bind_parameter(place, value),
            Value::String(None)
            | Value::Json(None)
            | Value::Uuid(None)
            | Value::TimeDateTimeWithTimeZone(None) => {
                statement.raw_bind_parameter(place, rusqlite::types::Null)
            }
            Value::String(Some(text)) => statement.raw_bind_parameter(place, text.as_str()),
            Value::Json(Some(json)) => statement.raw_bind_parameter(place, json.to_string()),
            Value::Uuid(Some(id)) => {
                let mut buffer = uuid::Uuid::encode_buffer();
                let text: &str = id.hyphenated().encode_lower(&mut buffer);
                statement.raw_bind_parameter(place, text)
            }
            Value::TimeDateTimeWithTimeZone(Some(time)) => {
                statement.raw_bind_parameter(place, time_text::format(*time))
            }
            other => {
                return Err(
                    StoreError::Internal(format!("a value of no kind we bind: {other:?}")).into(),
                );
            }
        };
        bound.map_err(|error| fault(&error))?;
    }
    Ok(())
}

/// What an error of SQLite means.
pub(crate) fn fault(error: &rusqlite::Error) -> Fault {
    let (failure, words) = match error {
        rusqlite::Error::SqliteFailure(failure, words) => (
            failure,
            words.clone().unwrap_or_else(|| failure.to_string()),
        ),
        // Its text would show the statement.
        rusqlite::Error::SqlInputError { error, msg, .. } => (error, msg.clone()),
        other => return StoreError::Internal(other.to_string()).into(),
    };
    use rusqlite::ErrorCode as Code;
    match failure.code {
        Code::ConstraintViolation => match failure.extended_code {
            ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY => {
                Fault::Unique(columns_of(&words))
            }
            ffi::SQLITE_CONSTRAINT_FOREIGNKEY => Fault::Reference,
            _ => Fault::Check(words),
        },
        Code::DatabaseBusy | Code::DatabaseLocked => StoreError::Locked.into(),
        Code::ReadOnly if failure.extended_code == ffi::SQLITE_READONLY_DBMOVED => {
            StoreError::Missing.into()
        }
        Code::ReadOnly | Code::PermissionDenied => StoreError::ReadOnly.into(),
        Code::DiskFull => StoreError::Full.into(),
        Code::DatabaseCorrupt | Code::NotADatabase => {
            // Said once, where it is logged: with the request that met it.
            let remedy = "stop the server and restore it from a backup";
            StoreError::Away(format!("the database file is damaged: {words}; {remedy}")).into()
        }
        Code::CannotOpen | Code::SystemIoFailure => StoreError::Away(words).into(),
        Code::Unknown => Fault::Statement(words),
        _ => StoreError::Internal(format!("{words} ({})", failure.extended_code)).into(),
    }
}

/// The columns in "UNIQUE constraint failed: t.a, t.b".
fn columns_of(words: &str) -> String {
    let list = words.split_once(": ").map_or(words, |(_, list)| list);
    list.split(", ")
        .map(|column| column.rsplit('.').next().unwrap_or(column))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Why a file could not be opened, for the operator.
pub(crate) fn open_error(path: &Path, error: &rusqlite::Error) -> StoreError {
    let reason = match fault(error) {
        Fault::Store(StoreError::Locked) => {
            return StoreError::CannotOpen(format!(
                "the database {path:?} is locked by another process"
            ));
        }
        _ if path.is_dir() => "it is a folder; name a file in it".to_owned(),
        _ => match error {
            rusqlite::Error::SqliteFailure(failure, words) => match failure.code {
                rusqlite::ErrorCode::NotADatabase => {
                    "it is a file of another kind; name another file".to_owned()
                }
                rusqlite::ErrorCode::ReadOnly => {
                    "it, or its folder, cannot be written; give this user the right to".to_owned()
                }
                rusqlite::ErrorCode::CannotOpen => {
                    "this user cannot open or create the file there".to_owned()
                }
                _ => words.clone().unwrap_or_else(|| failure.to_string()),
            },
            other => other.to_string(),
        },
    };
    StoreError::CannotOpen(format!("cannot open the database {path:?}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::DatabaseUrl;

    #[test]
    fn durability_reaches_every_connection() {
        for (synchronous, wanted) in [(Synchronous::Normal, 1), (Synchronous::Full, 2)] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("patchbay.db");
            let settings = StoreSettings {
                synchronous,
                ..StoreSettings::new(DatabaseUrl::Sqlite(path.clone()))
            };
            for access in [Access::Write, Access::Read] {
                let session = SqliteSession::open(&path, &settings, access).expect("it opens");
                let found: i64 = session
                    .connection
                    .query_row("PRAGMA synchronous", [], |row| row.get(0))
                    .expect("a number");
                assert_eq!(found, wanted, "{synchronous:?}");
            }
        }
    }
}

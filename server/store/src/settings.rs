//! What the store is told.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::StoreError;

/// Where the database is.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// `sqlite://PATH`: a file. A relative path starts from the working folder.
    Sqlite(PathBuf),
    /// `postgres://…`, as written.
    Postgres(String),
}

impl DatabaseUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// [`StoreError::CannotOpen`] when it is none of the two kinds.
    pub fn parse(text: &str) -> Result<DatabaseUrl, StoreError> {
        if let Some(path) = text.strip_prefix("sqlite://") {
            if path.is_empty() || path == ":memory:" {
                return Err(StoreError::CannotOpen(
                    "the database URL sqlite:// names no file; write sqlite://data/patchbay.db"
                        .to_owned(),
                ));
            }
            return Ok(DatabaseUrl::Sqlite(PathBuf::from(path)));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(DatabaseUrl::Postgres(text.to_owned()));
        }
        // Only the scheme is shown: what follows may hold a password.
        let shown = text.split_once("://").map_or("", |(scheme, _)| scheme);
        Err(StoreError::CannotOpen(format!(
            "the database URL {shown}://… is of no known kind; write sqlite://PATH or postgres://…"
        )))
    }

    /// The file, for SQLite.
    pub fn path(&self) -> Option<&Path> {
        match self {
            DatabaseUrl::Sqlite(path) => Some(path),
            DatabaseUrl::Postgres(_) => None,
        }
    }
}

/// Without what a Postgres URL may hold of a password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseUrl::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            DatabaseUrl::Postgres(url) => {
                let rest = url.split_once("://").map_or("", |(_, rest)| rest);
                let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
                // An `@` behind the first `?` means that one of them is part of a password, and nobody knows which.
                if parameters.contains('@') {
                    return f.write_str("postgres://…");
                }
                let host = place.rsplit_once('@').map_or(place, |(_, host)| host);
                write!(f, "postgres://{host}")
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How much an acknowledged write survives, on SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// The kill of any process at any instant.
    #[default]
    Normal,
    /// The loss of power too.
    Full,
}

/// What the store is told when it is opened.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Where the database is.
    pub url: DatabaseUrl,
    /// What an acknowledged write survives.
    pub synchronous: Synchronous,
    /// How many connections read, each on a thread of its own; at least one.
    pub readers: usize,
    /// Whether to take the lock that keeps a second server away. Servers take it, command-line verbs do not.
    pub server_lock: bool,
    /// How long a statement waits for another process that holds the database, and on Postgres a call for a connection.
    pub busy_timeout: Duration,
    /// The most pages of 4 KiB to which the file may grow; none for no limit.
    pub page_limit: Option<u32>,
    /// The most connections of this server to Postgres, besides two by which it hears of others; at least two.
    pub pool: usize,
    /// How long one try to connect to Postgres may take.
    pub connect_timeout: Duration,
    /// How long a statement may take on Postgres. Migrations may take as long as they need.
    pub statement_timeout: Duration,
    /// How long a Postgres that is away, or is brought up to date by another server, is waited for at the start.
    pub start_timeout: Duration,
    /// What this server is called in `pg_stat_activity`; its process by default.
    pub server_name: Option<String>,
}

impl StoreSettings {
    /// The settings of a server, but for the URL: normal durability, four readers, the lock, five seconds, no limit; on
    /// Postgres 16 connections, five seconds to connect, 15 for a statement, and 30 at the start.
    pub fn new(url: DatabaseUrl) -> StoreSettings {
        StoreSettings {
            url,
            synchronous: Synchronous::Normal,
            readers: 4,
            server_lock: true,
            busy_timeout: Duration::from_secs(5),
            page_limit: None,
            pool: 16,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(15),
            start_timeout: Duration::from_secs(30),
            server_name: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_parsed_and_shown_without_its_password() {
        let parsed = DatabaseUrl::parse("sqlite://data/patchbay.db").expect("a URL");
        assert_eq!(parsed.path(), Some(Path::new("data/patchbay.db")));
        assert_eq!(
            DatabaseUrl::parse("sqlite:///var/x.db")
                .expect("a URL")
                .path(),
            Some(Path::new("/var/x.db"))
        );
        let postgres =
            DatabaseUrl::parse("postgres://me:secret@host/db?sslmode=require").expect("a URL");
        assert_eq!(
            format!("{postgres} {postgres:?}"),
            "postgres://host/db postgres://host/db"
        );
        for odd in [
            "postgres://me:hu?sh@host/db",
            "postgres://host/db?password=hu@sh",
        ] {
            let shown = DatabaseUrl::parse(odd).expect("a URL").to_string();
            assert_eq!(shown, "postgres://…", "{odd}");
        }
        for bad in ["sqlite://", "mysql://x:y@z", "data/patchbay.db"] {
            let error = DatabaseUrl::parse(bad).expect_err(bad).to_string();
            assert!(!error.contains("x:y"), "{error}");
        }
    }
}

//! The core schema: which version the file has, and how it gets the one that we know.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use crate::error::StoreError;
use crate::sqlite::open_error;

mod embedded {
    refinery::embed_migrations!("../../migrations/sqlite");
}

/// How often a race with another process that does the same is run again.
const ATTEMPTS: usize = 5;

/// Runs the core migrations that the file lacks, in one transaction. A file of a newer Patchbay is refused.
pub(crate) fn bring_up_to_date(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let runner = embedded::migrations::runner().set_grouped(true);
    let mut attempt = 1;
    loop {
        let (found, known) = versions(connection, path)?;
        if found == known {
            return Ok(());
        }
        match runner.run(connection) {
            Ok(_) => return Ok(()),
            // Another process may have done the same at the same moment; then it is done.
            Err(error) if attempt < ATTEMPTS => {
                tracing::debug!(%error, attempt, "the core schema was not brought up to date");
                attempt += 1;
            }
            Err(error) => {
                return Err(StoreError::CannotOpen(format!(
                    "cannot bring the core schema of the database {path:?} up to date: {error}"
                )));
            }
        }
    }
}

/// The newest version that we know.
pub(crate) fn known() -> i64 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(|migration| i64::from(migration.version()))
        .max()
        .unwrap_or(0)
}

/// The versions that the file has, and that we know. A newer one is refused.
pub(crate) fn versions(connection: &Connection, path: &Path) -> Result<(i64, i64), StoreError> {
    let known = known();
    let found = version(connection).map_err(|error| open_error(path, &error))?;
    match found > known {
        true => Err(StoreError::NewerSchema {
            path: path.to_owned(),
            found,
            known,
        }),
        false => Ok((found, known)),
    }
}

/// The version of the core schema in the file; 0 for a new one.
fn version(connection: &Connection) -> Result<i64, rusqlite::Error> {
    let there: Option<i64> = connection
        .query_row(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'refinery_schema_history'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    if there.is_none() {
        return Ok(0);
    }
    connection.query_row(
        "SELECT coalesce(max(version), 0) FROM refinery_schema_history",
        [],
        |row| row.get(0),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;

    fn files(folder: &str) -> BTreeSet<String> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../migrations")
            .join(folder);
        std::fs::read_dir(path)
            .expect("the migrations")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("a name")
            })
            .collect()
    }

    /// The tables and columns that a file of the core schema creates.
    fn columns(folder: &str, file: &str) -> BTreeSet<String> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../migrations")
            .join(folder)
            .join(file);
        let text = std::fs::read_to_string(path).expect("a migration");
        let mut table = String::new();
        let mut found = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("CREATE TABLE ") {
                table = rest.trim_end_matches(" (").to_owned();
            } else if let Some((name, column)) = line
                .strip_prefix("ALTER TABLE ")
                .and_then(|rest| rest.split_once(" ADD COLUMN "))
            {
                let word = column.split_whitespace().next().unwrap_or_default();
                found.insert(format!("{name}.{word}"));
            } else if let Some(column) = line.strip_prefix("    ") {
                let word = column.split_whitespace().next().unwrap_or_default();
                if word.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                    found.insert(format!("{table}.{word}"));
                }
            }
        }
        found
    }

    #[test]
    fn both_databases_have_the_same_core_migrations() {
        let sqlite = files("sqlite");
        assert!(!sqlite.is_empty());
        assert_eq!(sqlite, files("postgres"));
        // Of all files together, because a check that is changed in place on Postgres is a new table on SQLite.
        let all = |folder: &str| -> BTreeSet<String> {
            let files = sqlite.iter().map(|file| columns(folder, file));
            files
                .inspect(|found| assert!(folder == "postgres" || !found.is_empty()))
                .flatten()
                .collect()
        };
        assert_eq!(all("sqlite"), all("postgres"));
        assert!(all("sqlite").len() > 70);
    }

    #[test]
    fn a_newer_core_schema_is_refused() {
        let mut connection = Connection::open_in_memory().expect("a database");
        let path = Path::new("x.db");
        bring_up_to_date(&mut connection, path).expect("a new schema");
        bring_up_to_date(&mut connection, path).expect("nothing to do");
        connection
            .execute(
                "INSERT INTO refinery_schema_history VALUES (9999, 'later', '2026-01-01T00:00:00Z', '1')",
                [],
            )
            .expect("a later version");
        assert!(matches!(
            bring_up_to_date(&mut connection, path),
            Err(StoreError::NewerSchema { found: 9999, .. })
        ));
    }
}

//! A database, looked at without changing anything of it: for whoever asks what is wrong with an installation.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::error::StoreError;
use crate::settings::{DatabaseUrl, StoreSettings};
use crate::{postgres, schema};

/// How long is waited for a writer, or for a Postgres, that is only looked at.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is known of a database that was not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Whether it is there; a server makes a file that is not.
    pub exists: bool,
    /// The version of the core schema that it has; 0 for none.
    pub schema: i64,
    /// The newest version that this program knows.
    pub known: i64,
    /// Why it cannot be written, if it cannot.
    pub unwritable: Option<String>,
    /// The process that serves the file, as far as it says; none when nobody does, or on Postgres.
    pub served_by: Option<String>,
}

impl DatabaseUrl {
    /// Looks at the database. Nothing is created, and nothing is brought up to date.
    ///
    /// # Errors
    /// Why it cannot be reached or read: [`StoreError::CannotOpen`], [`StoreError::NewerSchema`], [`StoreError::Away`].
    pub async fn inspect(&self, settings: &StoreSettings) -> Result<Inspection, StoreError> {
        match self {
            DatabaseUrl::Sqlite(path) => {
                let path = path.clone();
                let looked = tokio::task::spawn_blocking(move || inspect_file(&path)).await;
                looked.unwrap_or_else(|error| Err(StoreError::CannotOpen(error.to_string())))
            }
            DatabaseUrl::Postgres(url) => {
                let settings = StoreSettings {
                    start_timeout: PATIENCE,
                    connect_timeout: settings.connect_timeout.min(PATIENCE),
                    ..settings.clone()
                };
                let (schema, known) = postgres::versions(url, &settings).await?;
                let mut session = postgres::open_alone(url, &settings).await?;
                let unwritable = session.check_writable().await.err();
                Ok(Inspection {
                    exists: true,
                    schema,
                    known,
                    unwritable: unwritable.map(|fault| StoreError::from(fault).to_string()),
                    served_by: None,
                })
            }
        }
    }
}

fn inspect_file(path: &Path) -> Result<Inspection, StoreError> {
    if !path.exists() {
        return Ok(Inspection {
            exists: false,
            schema: 0,
            known: schema::known(),
            unwritable: unwritable_folder(path),
            served_by: None,
        });
    }
    let fails = |error: rusqlite::Error| crate::sqlite::open_error(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(fails)?;
    connection.busy_timeout(PATIENCE).map_err(fails)?;
    let (schema, known) = schema::versions(&connection, path)?;
    let begun = connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK");
    Ok(Inspection {
        exists: true,
        schema,
        known,
        unwritable: begun.err().map(|error| error.to_string()),
        served_by: holder(path),
    })
}

/// Why no file can be made there: the nearest folder that is there takes none.
fn unwritable_folder(path: &Path) -> Option<String> {
    let absolute = std::path::absolute(path).ok()?;
    let folder = absolute.ancestors().skip(1).find(|above| above.exists())?;
    match tempfile::tempfile_in(folder) {
        Ok(_) => None,
        Err(error) => Some(format!("{}: {error}", folder.display())),
    }
}

/// Who holds the lock of a file that is served.
fn holder(path: &Path) -> Option<String> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let lock = PathBuf::from(lock);
    let file: File = OpenOptions::new().read(true).open(&lock).ok()?;
    // A shared lock is taken for an instant only, and by nobody who serves.
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(std::fs::read_to_string(&lock).unwrap_or_default())
            .map(|text| text.trim().to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[tokio::test]
    async fn a_file_is_looked_at_and_stays_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data/x.db");
        let settings = StoreSettings::new(DatabaseUrl::Sqlite(path.clone()));
        let look = async || settings.url.inspect(&settings).await.expect("looked at");
        let before = look().await;
        assert!(!before.exists && before.unwritable.is_none() && before.schema == 0);
        assert!(!folder.path().join("data").exists(), "nothing is made");
        let store = Store::open(settings.clone()).await.expect("a store");
        let served = look().await;
        assert_eq!(served.served_by, Some(std::process::id().to_string()));
        assert_eq!((served.schema, served.unwritable), (served.known, None));
        store.close().await;
        assert_eq!(look().await.served_by, None);
        std::fs::write(&path, "no database").expect("written");
        assert!(settings.url.inspect(&settings).await.is_err());
    }
}

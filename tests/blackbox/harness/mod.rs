//! Processes, requests, and waiting for facts.

mod folder;
mod http;
mod process;

use std::path::Path;

pub(crate) use folder::Folder;
pub(crate) use http::{Answer, Http, eventually};
pub(crate) use process::{Options, Server, run, run_with};

/// Where a server stores things. A test that touches the database runs on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    /// The file that is the default.
    Sqlite,
}

/// Runs a test on every database that the program speaks.
pub(crate) async fn for_each_database(test: impl AsyncFn(Database)) {
    for database in [Database::Sqlite] {
        test(database).await;
    }
}

/// Opens the database file of a working folder as another process would.
pub(crate) fn open_database(folder: &Folder) -> rusqlite::Connection {
    open_file(&folder.path("data/patchbay.db"))
}

fn open_file(path: &Path) -> rusqlite::Connection {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
    rusqlite::Connection::open_with_flags(path, flags)
        .unwrap_or_else(|error| panic!("{} does not open: {error}", path.display()))
}

//! Databases, and the look at them that somebody else has.

use patchbay_test_cluster::{Cluster, connect};

use super::Folder;

/// Where a server stores things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    /// The file that is the default, in the working folder.
    Sqlite,
    /// The Postgres of this URL.
    Postgres(&'static str),
}

/// Runs a test on every database that the program speaks, each time on an empty one. Without Postgres it fails.
///
/// What touches the database runs through this. On SQLite alone run, because what they are about never reaches the
/// database, or is over before:
/// - `doors`, `openapi`: who gets in, and what the document says, are decided before a request reaches the store;
/// - `enabling`, `reload_files`: which files are plugins, and which of them count, is decided before their tables are made;
/// - `hostile`, where a plugin does nothing but burn time or memory, which takes long, or fails before its table is made;
/// - `command_line`, where a verb or a start reads settings and files, and prints;
/// - `packages`, four of fourteen, and `package_archives`: the bytes of archives, what is left of an install that was
///   killed, and who may write the lock file; none of it opens a database;
/// - `doctor`, where it looks at settings, files and the door, and a database that cannot be used is a file;
/// - `plugin_check`, `specs`, `plugin_dev`: they have a catalogue that is made up, and a database that is thrown away, which
///   is always SQLite;
/// - `migrations`, where SQL is shown for a database that is named, and steps are written;
/// - `readme`, `readme_words`: it is what a reader types, who has no Postgres;
/// - `leftovers`, where a server does not say what it serves, as those on Postgres do;
/// - `repository`: it reads files;
/// - `faults`, for what only a file can do: to be locked, replaced, damaged, or served twice.
///
/// On Postgres alone run `away`, `servers` and `cluster`, but for what a single server tells of itself: several servers, and
/// a database that goes away, are what SQLite does not have. `db_copy` names both databases itself.
pub(crate) async fn for_each_database(test: impl AsyncFn(Database)) {
    run(&test, Database::Sqlite).await;
    let postgres = Database::postgres(Cluster::shared()).await;
    run(&test, postgres).await;
    postgres.remove().await;
}

/// Runs a test on Postgres alone: what only several servers can do.
pub(crate) async fn on_postgres(test: impl AsyncFn(Database)) {
    let postgres = Database::postgres(Cluster::shared()).await;
    run(&test, postgres).await;
    postgres.remove().await;
}

async fn run(test: &impl AsyncFn(Database), database: Database) {
    let _told = Told(database);
    test(database).await;
}

/// Says on which database a test failed.
struct Told(Database);

impl Drop for Told {
    #[expect(clippy::print_stderr, reason = "a failed test shows where it was run")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("── on {:?} ──", self.0);
        }
    }
}

impl Database {
    /// A fresh database of a cluster. There are few, so their URLs are kept to the end of the process.
    pub(crate) async fn postgres(cluster: &Cluster) -> Database {
        Database::Postgres(cluster.database().await.leak())
    }

    /// Removes a database of the shared cluster, and ends who is connected to it.
    async fn remove(self) {
        if let Database::Postgres(url) = self {
            let name = url.rsplit('/').next().unwrap_or_default();
            let client = Cluster::shared().connect("postgres").await;
            client
                .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
                .await
                .expect("the database is removed");
        }
    }

    /// Has somebody else run statements, with foreign keys kept.
    pub(crate) async fn execute(self, folder: &Folder, sql: &str) {
        match self {
            Database::Sqlite => {
                let sql = format!("PRAGMA foreign_keys = ON; {sql}");
                open_database(folder).execute_batch(&sql).expect(&sql);
            }
            Database::Postgres(url) => connect(url).await.batch_execute(sql).await.expect(sql),
        }
    }

    /// The number that a statement answers with, a `bigint`.
    pub(crate) async fn number(self, folder: &Folder, sql: &str) -> i64 {
        match self {
            Database::Sqlite => open_database(folder)
                .query_row(sql, [], |row| row.get(0))
                .expect(sql),
            Database::Postgres(url) => {
                let row = connect(url).await.query_one(sql, &[]).await;
                row.expect(sql).get(0)
            }
        }
    }

    /// The texts that a statement answers with, a row each.
    pub(crate) async fn texts(self, folder: &Folder, sql: &str) -> Vec<String> {
        match self {
            Database::Sqlite => {
                let connection = open_database(folder);
                let mut statement = connection.prepare(sql).expect(sql);
                let rows = statement.query_map([], |row| row.get(0)).expect(sql);
                rows.map(|row| row.expect(sql)).collect()
            }
            Database::Postgres(url) => {
                let rows = connect(url).await.query(sql, &[]).await.expect(sql);
                rows.iter().map(|row| row.get(0)).collect()
            }
        }
    }

    /// The columns of a table, in their order.
    pub(crate) async fn columns(self, folder: &Folder, table: &str) -> Vec<String> {
        let sql = match self {
            Database::Sqlite => format!("SELECT name FROM pragma_table_info('{table}')"),
            Database::Postgres(_) => format!(
                "SELECT column_name::text FROM information_schema.columns \
                 WHERE table_name = '{table}' ORDER BY ordinal_position"
            ),
        };
        self.texts(folder, &sql).await
    }
}

/// Opens the database file of a working folder as another process would.
pub(crate) fn open_database(folder: &Folder) -> rusqlite::Connection {
    let path = folder.path("data/patchbay.db");
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
    rusqlite::Connection::open_with_flags(&path, flags)
        .unwrap_or_else(|error| panic!("{} does not open: {error}", path.display()))
}

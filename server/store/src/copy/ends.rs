//! The two ends of a copy: a session that reads one state of the source, and one that writes the target alone.

use std::path::Path;

use sea_query::Value;
use serde_json::Value as Json;

use super::CopyError;
use super::table::{CopyTable, Tally, core_tables};
use crate::error::{Fault, StoreError};
use crate::lock::ServerLock;
use crate::session::{Dialect, Session, Statement, json, text};
use crate::settings::{DatabaseUrl, StoreSettings};
use crate::sqlite::{Access, SqliteSession};
use crate::statements::{delete, insert, select, update};
use crate::{cluster, postgres, schema, time_text};

fn refused(why: String) -> CopyError {
    CopyError::Refused(why)
}

/// Opens the source, which is not changed. What it holds later is not seen: everything is read in one transaction.
pub(super) async fn open_source(settings: &StoreSettings) -> Result<Session, CopyError> {
    let shown = settings.url.to_string();
    let older = |found: i64, known: i64| {
        refused(format!(
            "the source {shown} has the core schema {found}, and this version of Patchbay knows {known}; serve it with \
             this version once, and copy it then"
        ))
    };
    let mut session = match &settings.url {
        DatabaseUrl::Sqlite(path) => {
            if !path.is_file() {
                return Err(refused(format!("the source {shown} is not there")));
            }
            let mut sqlite = SqliteSession::open(path, settings, Access::Read)?;
            let (found, known) = schema::versions(sqlite.connection(), path)?;
            if found < known {
                return Err(older(found, known));
            }
            sqlite.frame("BEGIN")?;
            Session::Sqlite(sqlite)
        }
        DatabaseUrl::Postgres(url) => {
            let (found, known) = postgres::versions(url, settings).await?;
            if found < known {
                return Err(older(found, known));
            }
            let mut session = postgres::open_alone(url, settings).await?;
            refuse_unfinished(&mut session, &shown).await?;
            let tables = registered(&mut session).await?;
            let core = core_tables().into_iter().map(|table| table.name);
            let held: Vec<String> = core
                .chain(tables.iter().cloned())
                .map(|name| format!("\"{name}\""))
                .collect();
            // Postgres shows an older transaction a table that was changed since as if it were empty, so that none is
            // changed meanwhile.
            session.postgres().begin_read();
            session.unhurried().await?;
            let hold = format!("LOCK TABLE {} IN ACCESS SHARE MODE", held.join(", "));
            session.define(&hold).await?;
            if registered(&mut session).await? != tables {
                return Err(refused(format!(
                    "the tables of the source {shown} are being changed; start again"
                )));
            }
            session
        }
    };
    // What was read first fixes what is seen.
    refuse_unfinished(&mut session, &shown).await?;
    Ok(session)
}

async fn refuse_unfinished(session: &mut Session, shown: &str) -> Result<(), CopyError> {
    match Marker::read(session).await? {
        None => Ok(()),
        Some(_) => Err(refused(format!(
            "the source {shown} is the target of a copy that is not finished"
        ))),
    }
}

/// The plugins' tables, by name.
async fn registered(session: &mut Session) -> Result<Vec<String>, Fault> {
    let statement = select(session.dialect(), "plugin_tables", &["table_name"], &[]);
    let rows = session.query(&statement, Vec::new()).await?;
    let mut names: Vec<String> = rows
        .iter()
        .map(|row| row.string(0))
        .collect::<Result<_, _>>()?;
    names.sort();
    Ok(names)
}

/// Whether somebody serves the source.
pub(super) async fn is_served(
    settings: &StoreSettings,
    session: &mut Session,
) -> Result<bool, CopyError> {
    match &settings.url {
        DatabaseUrl::Sqlite(path) => Ok(match lock_file(path).is_file() {
            true => matches!(
                ServerLock::take(path),
                Err(StoreError::LockedByServer { .. })
            ),
            false => false,
        }),
        DatabaseUrl::Postgres(_) => Ok(!cluster::running(session).await?.is_empty()),
    }
}

fn lock_file(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// The target, which nobody else writes while this lives.
pub(super) struct Target {
    pub(super) session: Session,
    shown: String,
    _lock: Option<ServerLock>,
}

impl Target {
    /// Opens the target, makes it when it is a file that is not there, and brings its core schema up to date.
    pub(super) async fn open(settings: &StoreSettings) -> Result<Target, CopyError> {
        let shown = settings.url.to_string();
        match &settings.url {
            DatabaseUrl::Sqlite(path) => {
                if let Some(folder) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
                    std::fs::create_dir_all(folder).map_err(|error| {
                        refused(format!(
                            "the folder of the target {shown} cannot be made: {error}"
                        ))
                    })?;
                }
                let lock = ServerLock::take(path)?;
                let mut sqlite = SqliteSession::open(path, settings, Access::Write)?;
                schema::bring_up_to_date(sqlite.connection(), path)?;
                // Rows may come before those that they refer to in the same table; all are checked at the end.
                sqlite.enforce_references(false)?;
                Ok(Target {
                    session: Session::Sqlite(sqlite),
                    shown,
                    _lock: Some(lock),
                })
            }
            DatabaseUrl::Postgres(url) => {
                postgres::bring_up_to_date(url, settings).await?;
                let mut session = postgres::open_alone(url, settings).await?;
                if !session.postgres().lock_copy().await? {
                    return Err(refused(format!(
                        "another copy into the target {shown} is under way"
                    )));
                }
                let serving = cluster::running(&mut session).await?;
                if let Some(name) = serving.first() {
                    return Err(refused(format!(
                        "the target {shown} is served by {name}; stop its servers, or name another database"
                    )));
                }
                Ok(Target {
                    session,
                    shown,
                    _lock: None,
                })
            }
        }
    }

    /// What an earlier try has left, or that the target is empty.
    pub(super) async fn marker(&mut self) -> Result<Option<Marker>, CopyError> {
        if let Some(marker) = Marker::read(&mut self.session).await? {
            return Ok(Some(marker));
        }
        for table in core_tables() {
            if !table.rows(&mut self.session, None, 1).await?.is_empty() {
                return Err(refused(format!(
                    "the target {} is not empty: there are rows in {}; name a database that is",
                    self.shown, table.name
                )));
            }
        }
        Ok(None)
    }

    /// Runs work in a transaction.
    pub(super) async fn transact(
        &mut self,
        work: impl AsyncFnOnce(&mut Session) -> Result<(), Fault>,
    ) -> Result<(), CopyError> {
        match &mut self.session {
            Session::Sqlite(sqlite) => sqlite.frame("BEGIN IMMEDIATE")?,
            Session::Postgres(postgres) => postgres.begin_write(),
        }
        if let Session::Postgres(_) = &self.session {
            self.session.unhurried().await?;
        }
        // What fails is not gone on with: the transaction ends with the connection.
        work(&mut self.session).await?;
        match &mut self.session {
            Session::Sqlite(sqlite) => sqlite.frame("COMMIT")?,
            Session::Postgres(postgres) => postgres.commit(None).await.map_err(StoreError::from)?,
        }
        Ok(())
    }

    /// Leaves the target as a server likes to find it.
    pub(super) async fn settle(&mut self) -> Result<(), CopyError> {
        match &mut self.session {
            Session::Sqlite(sqlite) => sqlite.checkpoint()?,
            // Without it the first pages would be read as if the tables were empty.
            Session::Postgres(_) => self.session.define("ANALYZE").await?,
        }
        Ok(())
    }
}

/// How far a copy is, kept in the target with what it has written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Marker {
    source: String,
    /// What the plugins' tables were made from.
    pub(super) shapes: String,
    tables: serde_json::Map<String, Json>,
}

/// How far one table is.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Place {
    pub(super) tally: Tally,
    /// The key of the last row.
    pub(super) after: Option<Vec<Json>>,
}

const TABLE: &str = "copies_under_way";

impl Marker {
    pub(super) fn new(source: String, shapes: String) -> Marker {
        Marker {
            source,
            shapes,
            tables: serde_json::Map::new(),
        }
    }

    async fn read(session: &mut Session) -> Result<Option<Marker>, CopyError> {
        let statement = select(session.dialect(), TABLE, &["source", "progress"], &[]);
        let Some(row) = session.query_one(&statement, Vec::new()).await? else {
            return Ok(None);
        };
        let mut progress = row.object(1)?;
        let shapes = progress.remove("shapes");
        let shapes = shapes.as_ref().and_then(Json::as_str).unwrap_or_default();
        Ok(Some(Marker {
            source: row.string(0)?,
            shapes: shapes.to_owned(),
            tables: match progress.remove("tables") {
                Some(Json::Object(tables)) => tables,
                _ => serde_json::Map::new(),
            },
        }))
    }

    /// How far a table is; none when nothing was done for it, not even making it.
    pub(super) fn place(&self, table: &CopyTable) -> Option<Place> {
        let found = self.tables.get(&table.name)?;
        let rows = found.get("rows").and_then(Json::as_u64)?;
        let hash = found.get("hash").and_then(Json::as_str)?;
        Some(Place {
            tally: Tally::read(rows, hash)?,
            after: found.get("after").and_then(Json::as_array).cloned(),
        })
    }

    pub(super) fn set(&mut self, table: &CopyTable, place: &Place) {
        let place = serde_json::json!({
            "rows": place.tally.rows,
            "hash": place.tally.hash(),
            "after": place.after,
        });
        self.tables.insert(table.name.clone(), place);
    }

    fn progress(&self) -> Value {
        json(serde_json::json!({ "shapes": self.shapes, "tables": self.tables }))
    }

    pub(super) async fn begin(&self, session: &mut Session) -> Result<(), Fault> {
        let columns = &["source", "started_at", "progress"];
        let values = vec![text(&self.source), time_text::now().into(), self.progress()];
        let statement = insert(session.dialect(), TABLE, columns);
        session.execute(&statement, values).await?;
        Ok(())
    }

    pub(super) async fn write(&self, session: &mut Session) -> Result<(), Fault> {
        let statement = update(session.dialect(), TABLE, &["progress"], &["source"]);
        let values = vec![self.progress(), text(&self.source)];
        session.execute(&statement, values).await?;
        Ok(())
    }

    pub(super) async fn remove(&self, session: &mut Session) -> Result<(), Fault> {
        let statement = delete(session.dialect(), TABLE, &["source"]);
        session
            .execute(&statement, vec![text(&self.source)])
            .await?;
        Ok(())
    }
}

/// The statement by which a store finds that a copy into its database is not finished.
pub(crate) fn unfinished(dialect: Dialect) -> Statement {
    select(dialect, TABLE, &["source"], &[])
}

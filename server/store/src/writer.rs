//! The thread that writes.
//!
//! It takes the jobs that wait, up to 64, and runs them as one group: one `BEGIN IMMEDIATE`, each job in a savepoint of
//! its own, one `COMMIT`; then it answers them all. So what was acknowledged is committed, a job that fails undoes only
//! itself, and a commit's price is shared by those who wait for it.
//!
//! It also notices what other processes write, by SQLite's `data_version`: before each group, and every quarter of a
//! second while nothing is to do.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use crate::catalogue;
use crate::engine::Frame;
use crate::error::StoreError;
use crate::lock::ServerLock;
use crate::queue::{Queue, Taken};
use crate::schema;
use crate::session::Session;
use crate::settings::StoreSettings;
use crate::shared::{Shared, Touched};
use crate::sqlite::{Access, SqliteSession};
use crate::statements::Statements;
use crate::threads::{WriteJob, read_in_transaction};

/// The most jobs that share a commit.
const GROUP: usize = 64;
/// How long the writer sleeps before it looks for foreign writes.
const POLL: Duration = Duration::from_millis(250);

/// The writing thread's own.
pub(crate) struct Writer {
    session: Session,
    statements: Arc<Statements>,
    pub(crate) shared: Arc<Shared>,
    data_version: i64,
    /// The snapshot is older than the database, because it could not be read.
    snapshot_due: bool,
    /// Released last, when the connection is closed.
    _lock: Option<ServerLock>,
}

impl Writer {
    pub(crate) fn open(
        path: &Path,
        settings: &StoreSettings,
        statements: Arc<Statements>,
    ) -> Result<Writer, StoreError> {
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            std::fs::create_dir_all(folder).map_err(|error| {
                StoreError::CannotOpen(format!(
                    "cannot create the folder {folder:?} of the database {path:?}: {error}"
                ))
            })?;
        }
        if path.is_dir() {
            return Err(StoreError::CannotOpen(format!(
                "cannot open the database {path:?}: it is a folder; name a file in it"
            )));
        }
        let lock = match settings.server_lock {
            true => Some(ServerLock::take(path)?),
            false => None,
        };
        let mut sqlite = SqliteSession::open(path, settings, Access::Write)?;
        schema::bring_up_to_date(sqlite.connection(), path)?;
        let data_version = sqlite.data_version()?;
        let mut session = Session::Sqlite(sqlite);
        let reading = Arc::clone(&statements);
        let catalogue = read_in_transaction(&mut session, move |session: &mut Session| {
            async move { catalogue::load_snapshot(session, &reading, 1).await }.boxed()
        })?;
        Ok(Writer {
            session,
            statements,
            shared: Arc::new(Shared::new(catalogue)),
            data_version,
            snapshot_due: false,
            _lock: lock,
        })
    }

    fn sqlite(&mut self) -> &mut SqliteSession {
        self.session.sqlite()
    }

    pub(crate) fn serve(mut self, jobs: &Queue<WriteJob>) {
        let mut group = Vec::with_capacity(GROUP);
        loop {
            match jobs.take(Some(POLL)) {
                Taken::Item(first) => {
                    let frame = first.frame;
                    group.push(first);
                    if frame == Frame::Group {
                        jobs.take_while(GROUP, |job| job.frame == Frame::Group, &mut group);
                    }
                    self.run_group(frame, &mut group);
                }
                Taken::Nothing => self.poll(),
                Taken::Closed => break,
            }
        }
        // The log is emptied for tidiness; what is in it is safe.
        if let Err(error) = self.sqlite().checkpoint() {
            tracing::debug!(
                error = error.detail(),
                "the write-ahead log was left as it is"
            );
        }
    }

    /// Looks for foreign writes while nothing is to do.
    fn poll(&mut self) {
        match self.notice_foreign_writes() {
            Ok(()) if self.snapshot_due => self.take_snapshot(),
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(error = error.detail(), "cannot look for foreign writes");
            }
        }
    }

    /// Moves everything when another process has written since we last looked.
    fn notice_foreign_writes(&mut self) -> Result<(), StoreError> {
        let version = self.sqlite().data_version()?;
        if version != self.data_version {
            self.data_version = version;
            self.take_snapshot();
            self.shared.all_moved();
        }
        Ok(())
    }

    fn run_group(&mut self, frame: Frame, group: &mut Vec<WriteJob>) {
        let mut touched = Vec::with_capacity(group.len());
        let undone = self.transact(frame, group, &mut touched).err();
        if let Some(error) = &undone {
            tracing::debug!(
                error = error.detail(),
                jobs = group.len(),
                "a group of writes was undone"
            );
        } else {
            self.publish(touched);
        }
        for job in group.drain(..) {
            job.job.answer(undone.as_ref());
        }
    }

    /// Moves what the committed jobs have touched.
    fn publish(&mut self, touched: Vec<Touched>) {
        let mut catalogue = false;
        let mut products = false;
        for touched in touched {
            match touched {
                Touched::Nothing => {}
                Touched::Rows(plugin) | Touched::Definition(plugin) => {
                    self.shared.rows_moved(&plugin);
                }
                Touched::Products => products = true,
                Touched::Catalogue => catalogue = true,
            }
        }
        if products {
            self.shared.products_moved();
        }
        if catalogue {
            self.take_snapshot();
        }
    }

    fn transact(
        &mut self,
        frame: Frame,
        group: &mut [WriteJob],
        touched: &mut Vec<Touched>,
    ) -> Result<(), StoreError> {
        self.sqlite().check_file()?;
        self.notice_foreign_writes()?;
        if frame == Frame::Rebuild {
            self.sqlite().enforce_references(false)?;
        }
        let result = self.transact_jobs(group, touched);
        if self.sqlite().in_transaction()
            && let Err(error) = self.sqlite().frame("ROLLBACK")
        {
            tracing::error!(
                error = error.detail(),
                "a failed transaction could not be rolled back"
            );
        }
        if frame == Frame::Rebuild {
            self.sqlite().enforce_references(true)?;
        }
        result
    }

    fn transact_jobs(
        &mut self,
        group: &mut [WriteJob],
        touched: &mut Vec<Touched>,
    ) -> Result<(), StoreError> {
        self.sqlite().frame("BEGIN IMMEDIATE")?;
        if let [only] = group {
            // A transaction of one needs no savepoint: when the job fails nothing is committed, and its own error
            // is the answer.
            let Ok(what) = only.job.run(&mut self.session) else {
                return Ok(());
            };
            touched.push(what);
            return self.sqlite().frame("COMMIT");
        }
        for job in group {
            self.sqlite().frame("SAVEPOINT job")?;
            match job.job.run(&mut self.session) {
                Ok(what) => touched.push(what),
                Err(_) if self.sqlite().in_transaction() => {
                    self.sqlite().frame("ROLLBACK TO job")?;
                }
                // The fault was so grave that SQLite ended the transaction, and with it the jobs before this one.
                Err(error) => return Err(error),
            }
            self.sqlite().frame("RELEASE job")?;
        }
        self.sqlite().frame("COMMIT")
    }

    /// Reads the catalogue into a new snapshot. When that fails the old one stays, and it is tried again.
    fn take_snapshot(&mut self) {
        let version = self.shared.catalogue.load().version + 1;
        let statements = Arc::clone(&self.statements);
        let read = read_in_transaction(&mut self.session, move |session: &mut Session| {
            async move { catalogue::load_snapshot(session, &statements, version).await }.boxed()
        });
        match read {
            Ok(catalogue) => {
                self.shared.catalogue.store(Arc::new(catalogue));
                self.snapshot_due = false;
            }
            Err(error) => {
                tracing::error!(error = error.detail(), "the catalogue could not be read");
                self.snapshot_due = true;
            }
        }
    }
}

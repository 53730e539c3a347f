//! The threads that own the connections, and how work reaches them.
//!
//! One thread writes. It takes the jobs that wait, up to 64, and runs them as one group: one `BEGIN IMMEDIATE`, each job
//! in a savepoint of its own, one `COMMIT`; then it answers them all. So what was acknowledged is committed, a job that
//! fails undoes only itself, and a commit's price is shared by those who wait for it. Readers have a connection and a
//! thread each, and run every job in a transaction, so that all its statements see one state.
//!
//! The writing thread also notices what other processes write, by SQLite's `data_version`: before each group, and every
//! quarter of a second while nothing is to do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};

use crate::catalogue;
use crate::error::StoreError;
use crate::lock::ServerLock;
use crate::queue::{Queue, Taken};
use crate::schema;
use crate::session::{Dialect, Session};
use crate::settings::StoreSettings;
use crate::shared::{Shared, Touched};
use crate::sqlite::{Access, SqliteSession};
use crate::statements::Statements;

/// The most jobs that share a commit.
const GROUP: usize = 64;
/// The most calls that wait for the writer, and for the readers; more are told that the store is busy.
const WAITING: usize = 1024;
/// How long the writer sleeps before it looks for foreign writes.
const POLL: Duration = Duration::from_millis(250);

/// A call's work on a session, as a future that the thread of the session runs to its end.
pub(crate) trait Work<T>:
    for<'a> FnOnce(&'a mut Session) -> BoxFuture<'a, Result<T, StoreError>> + Send + 'static
{
}

impl<T, F> Work<T> for F where
    F: for<'a> FnOnce(&'a mut Session) -> BoxFuture<'a, Result<T, StoreError>> + Send + 'static
{
}

/// How a job is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    /// With others in one transaction.
    Group,
    /// In a transaction of its own, with foreign keys off: a table that is rebuilt must not take along the rows that
    /// refer to it. The job itself checks that every reference holds at the end.
    Rebuild,
}

pub(crate) struct Engine {
    writes: Arc<Queue<WriteJob>>,
    reads: Arc<ReadQueue>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) statements: Arc<Statements>,
    /// How many threads still run.
    running: watch::Receiver<usize>,
}

/// Reads answer for themselves, so they need no more than to be run.
type ReadQueue = Queue<Box<dyn FnOnce(&mut Session) + Send>>;

struct WriteJob {
    frame: Frame,
    job: Box<dyn Job>,
}

/// A write with its type hidden: it is run, and later answered.
trait Job: Send {
    /// Runs the work and keeps its result. Gives what it touched, or why it failed.
    fn run(&mut self, session: &mut Session) -> Result<Touched, StoreError>;
    /// Answers the caller: what the work gave, or why what it did was undone.
    fn answer(self: Box<Self>, undone: Option<&StoreError>);
}

struct Pending<T, W, F> {
    work: Option<W>,
    touched: F,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, W, F> Job for Pending<T, W, F>
where
    T: Send,
    W: Work<T>,
    F: Fn(&T) -> Touched + Send,
{
    fn run(&mut self, session: &mut Session) -> Result<Touched, StoreError> {
        let Some(work) = self.work.take() else {
            return Err(StoreError::Internal("a job was run twice".to_owned()));
        };
        let result = run_to_end(work, session);
        let touched = result.as_ref().map(&self.touched).map_err(Clone::clone);
        self.result = Some(result);
        touched
    }

    fn answer(self: Box<Self>, undone: Option<&StoreError>) {
        let result = match (self.result, undone) {
            (Some(Ok(_)) | None, Some(error)) => Err(error.clone()),
            (Some(result), _) => result,
            (None, None) => Err(StoreError::Internal("a job was never run".to_owned())),
        };
        // Who no longer waits needs no answer.
        let _gone = self.reply.send(result);
    }
}

/// Runs work whose future never waits; a panic in it is an error of that call alone.
fn run_to_end<T>(work: impl Work<T>, session: &mut Session) -> Result<T, StoreError> {
    let outcome = catch_unwind(AssertUnwindSafe(|| work(session).now_or_never()));
    match outcome {
        Ok(Some(result)) => result,
        Ok(None) => Err(StoreError::Internal("a job on SQLite waited".to_owned())),
        Err(_) => Err(StoreError::Internal("a job panicked".to_owned())),
    }
}

impl Engine {
    /// Opens the file, brings its core schema up to date, and starts the threads.
    pub(crate) async fn open(path: PathBuf, settings: StoreSettings) -> Result<Engine, StoreError> {
        let writes = Arc::new(Queue::new(WAITING));
        let reads = Arc::new(Queue::new(WAITING));
        let (running, still_running) = watch::channel(0);
        let statements = Arc::new(Statements::new(Dialect::Sqlite));
        let (opened, answer) = oneshot::channel();
        let thread = {
            let (writes, reads, statements) = (
                Arc::clone(&writes),
                Arc::clone(&reads),
                Arc::clone(&statements),
            );
            let running = Running::new(&running);
            move || {
                let _running = running;
                match Writer::open(&path, &settings, statements) {
                    Ok(writer) => {
                        let started = start_readers(&path, &settings, &reads, &_running.0);
                        let result = started.map(|()| Arc::clone(&writer.shared));
                        if opened.send(result).is_ok() {
                            writer.serve(&writes);
                        }
                    }
                    Err(error) => {
                        let _gone = opened.send(Err(error));
                    }
                }
            }
        };
        spawn("patchbay-writer", thread)?;
        let opened = answer
            .await
            .map_err(|_| StoreError::Internal("the writing thread ended".to_owned()));
        match opened.flatten() {
            Ok(shared) => Ok(Engine {
                writes,
                reads,
                shared,
                statements,
                running: still_running,
            }),
            Err(error) => {
                writes.close();
                reads.close();
                Err(error)
            }
        }
    }

    /// Runs work in a transaction, and answers once it is committed.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        frame: Frame,
        touched: impl Fn(&T) -> Touched + Send + 'static,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Pending {
            work: Some(work),
            touched,
            result: None,
            reply,
        });
        self.writes.put(WriteJob { frame, job })?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs work that only reads, on one state of the database.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = move |session: &mut Session| {
            let _gone = reply.send(read_in_transaction(session, work));
        };
        self.reads.put(Box::new(job))?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Lets nothing more in, and waits until everything that was in is done and the file is closed.
    pub(crate) async fn close(&self) {
        self.reads.close();
        self.writes.close();
        let mut running = self.running.clone();
        // An error means that every thread, and with it the sender, is gone.
        let _ended = running.wait_for(|count| *count == 0).await;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.reads.close();
        self.writes.close();
    }
}

/// Counts a thread for as long as it lives.
struct Running(watch::Sender<usize>);

impl Running {
    fn new(count: &watch::Sender<usize>) -> Running {
        count.send_modify(|count| *count += 1);
        Running(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(|_| ())
        .map_err(|error| StoreError::CannotOpen(format!("cannot start a thread: {error}")))
}

fn start_readers(
    path: &Path,
    settings: &StoreSettings,
    reads: &Arc<ReadQueue>,
    running: &watch::Sender<usize>,
) -> Result<(), StoreError> {
    for _ in 0..settings.readers.max(1) {
        let mut session = Session::Sqlite(SqliteSession::open(path, settings, Access::Read)?);
        let (reads, running) = (Arc::clone(reads), Running::new(running));
        spawn("patchbay-reader", move || {
            let _running = running;
            while let Taken::Item(job) = reads.take(None) {
                job(&mut session);
            }
        })?;
    }
    Ok(())
}

fn read_in_transaction<T>(session: &mut Session, work: impl Work<T>) -> Result<T, StoreError> {
    let Session::Sqlite(sqlite) = session;
    sqlite.check_file()?;
    sqlite.frame("BEGIN")?;
    let result = run_to_end(work, session);
    let Session::Sqlite(sqlite) = session;
    if sqlite.in_transaction() {
        sqlite.frame("ROLLBACK")?;
    }
    result
}

/// The writing thread's own.
struct Writer {
    session: Session,
    statements: Arc<Statements>,
    shared: Arc<Shared>,
    data_version: i64,
    /// The snapshot is older than the database, because it could not be read.
    snapshot_due: bool,
    /// Released last, when the connection is closed.
    _lock: Option<ServerLock>,
}

impl Writer {
    fn open(
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

    fn sqlite(&self) -> &SqliteSession {
        let Session::Sqlite(sqlite) = &self.session;
        sqlite
    }

    fn serve(mut self, jobs: &Queue<WriteJob>) {
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
                Touched::Rows(plugin) => self.shared.rows_moved(&plugin),
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

//! The threads that own the connections to a file, and how work reaches them.
//!
//! One thread writes, in groups of jobs ([`Writer`]). Readers have a connection and a thread each, and run every job in
//! a transaction, so that all its statements see one state.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{oneshot, watch};

use crate::engine::{Frame, WAITING, Work};
use crate::error::StoreError;
use crate::queue::{Queue, Taken};
use crate::session::Session;
use crate::settings::StoreSettings;
use crate::shared::{Shared, Touched};
use crate::sqlite::{Access, SqliteSession};
use crate::statements::Statements;
use crate::writer::Writer;

pub(crate) struct Threads {
    writes: Arc<Queue<WriteJob>>,
    reads: Arc<ReadQueue>,
    /// How many threads still run.
    running: watch::Receiver<usize>,
}

/// Reads answer for themselves, so they need no more than to be run.
type ReadQueue = Queue<Box<dyn FnOnce(&mut Session) + Send>>;

/// A write in the queue.
pub(crate) struct WriteJob {
    pub(crate) frame: Frame,
    pub(crate) job: Box<dyn Job>,
}

/// A write with its type hidden: it is run, and later answered.
pub(crate) trait Job: Send {
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

impl Threads {
    /// Opens the file, brings its core schema up to date, and starts the threads. Gives what they share with everybody.
    pub(crate) async fn open(
        path: PathBuf,
        settings: StoreSettings,
        statements: Arc<Statements>,
    ) -> Result<(Threads, Arc<Shared>), StoreError> {
        let writes = Arc::new(Queue::new(WAITING));
        let reads = Arc::new(Queue::new(WAITING));
        let (running, still_running) = watch::channel(0);
        let (opened, answer) = oneshot::channel();
        let thread = {
            let (writes, reads) = (Arc::clone(&writes), Arc::clone(&reads));
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
            Ok(shared) => {
                let threads = Threads {
                    writes,
                    reads,
                    running: still_running,
                };
                Ok((threads, shared))
            }
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

impl Drop for Threads {
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
        let session = Session::Sqlite(SqliteSession::open(path, settings, Access::Read)?);
        let (reads, running) = (Arc::clone(reads), Running::new(running));
        spawn("patchbay-reader", move || {
            let _running = running;
            // Closed before it counts as ended.
            let mut session = session;
            while let Taken::Item(job) = reads.take(None) {
                job(&mut session);
            }
        })?;
    }
    Ok(())
}

/// Runs work that only reads in a transaction of its own.
pub(crate) fn read_in_transaction<T>(
    session: &mut Session,
    work: impl Work<T>,
) -> Result<T, StoreError> {
    session.sqlite().check_file()?;
    session.sqlite().frame("BEGIN")?;
    let result = run_to_end(work, session);
    let sqlite = session.sqlite();
    if sqlite.in_transaction() {
        sqlite.frame("ROLLBACK")?;
    }
    result
}

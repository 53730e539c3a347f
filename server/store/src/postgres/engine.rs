//! The pool, and how work runs on it.
//!
//! Work runs in a task of its own, so that a caller who no longer waits leaves nothing half-done. A write is a
//! transaction; what fails before its commit can be run again, because nothing of it has happened.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
    TimeoutType,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;
use uuid::Uuid;

use super::gate::Gate;
use super::listen;
use super::session::{NotCommitted, PostgresSession};
use super::target::{Target, away};
use super::tries::Tries;
use super::{fault, schema};
use crate::catalogue;
use crate::engine::{View, Work};
use crate::error::StoreError;
use crate::session::Session;
use crate::settings::StoreSettings;
use crate::shared::{Shared, Touched};
use crate::statements::Statements;

/// Connections that writes leave to reads, so that a table that somebody locks does not keep everything away.
const FOR_READS: usize = 2;
/// How many may ask at once whether all is heard; more wait.
const QUESTIONS: usize = 16;
/// How long a client waits for an answer that the server should have cut off.
const GRACE: Duration = Duration::from_secs(2);

/// An open database. Its listener ends when it is dropped.
pub(crate) struct PostgresEngine {
    core: Arc<Core>,
    /// The runtime on which the database was opened.
    home: Handle,
    listener: JoinHandle<()>,
    questions: mpsc::Sender<listen::Question>,
}

/// What tasks share.
pub(super) struct Core {
    pub(super) target: Target,
    settings: StoreSettings,
    pool: Pool,
    /// The connection on which the listener reads what it has heard of, however busy the others are.
    aside: Pool,
    writers: Semaphore,
    pub(super) shared: Arc<Shared>,
    statements: Arc<Statements>,
    /// Tells this server's notices from others'.
    pub(super) server: Uuid,
    notices: AtomicU64,
    /// Notices of ours that need no heed when they come back, because what they tell moves here without them.
    expected: Mutex<HashSet<u64>>,
    /// Snapshots are taken one after the other, so that a later one is never older.
    snapshots: tokio::sync::Mutex<()>,
    /// Asks the listener for a snapshot that could not be taken.
    pub(super) snapshot_due: Notify,
    /// Why others' writes are not noticed; none when they are.
    pub(super) deaf: watch::Sender<Option<String>>,
    /// That the core schema is newer than ours, once it is.
    newer: Mutex<Option<StoreError>>,
    gate: Gate,
}

impl PostgresEngine {
    pub(crate) async fn open(
        url: &str,
        settings: StoreSettings,
        statements: Arc<Statements>,
    ) -> Result<PostgresEngine, StoreError> {
        let target = Target::parse(url, &settings)?;
        schema::bring_up_to_date(&target, &settings).await?;
        let cannot = |why: String| {
            StoreError::CannotOpen(format!("cannot open the database {}: {why}", target.shown))
        };
        let size = settings.pool.max(2);
        let aside = pool(&target, &settings, 1).map_err(cannot)?;
        let pool = pool(&target, &settings, size).map_err(cannot)?;
        // From here on nothing is missed: it listens before it reads.
        let ear = listen::Ear::open(&target)
            .await
            .map_err(|error| cannot(error.words()))?;
        let core = Arc::new(Core {
            target: target.clone(),
            pool,
            aside,
            writers: Semaphore::new(size.saturating_sub(FOR_READS).max(1)),
            shared: Arc::new(Shared::new(Default::default())),
            statements,
            server: Uuid::new_v4(),
            notices: AtomicU64::new(0),
            expected: Mutex::default(),
            snapshots: tokio::sync::Mutex::new(()),
            snapshot_due: Notify::new(),
            deaf: watch::Sender::new(None),
            newer: Mutex::new(None),
            gate: Gate::new(),
            settings,
        });
        core.take_snapshot()
            .await
            .map_err(|error| cannot(error.detail()))?;
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let listener = tokio::spawn(listen::listen(Arc::clone(&core), ear, asked));
        Ok(PostgresEngine {
            core,
            home: Handle::current(),
            listener,
            questions,
        })
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.core.shared)
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        touched: impl Fn(&T) -> Touched + Send + 'static,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        let (entered, core) = (self.core.gate.enter()?, Arc::clone(&self.core));
        self.to_its_end(async move {
            let _entered = entered;
            core.write(touched, work).await
        })
        .await
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        view: View,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        let (entered, core) = (self.core.gate.enter()?, Arc::clone(&self.core));
        self.to_its_end(async move {
            let _entered = entered;
            core.read(view, work).await
        })
        .await
    }

    /// Checks that whatever was answered anywhere before this call has moved here.
    pub(crate) async fn check_listening(&self) -> Result<(), StoreError> {
        let deaf = || {
            let why = self.core.deaf.borrow().clone();
            why.map(|why| {
                StoreError::Away(format!("what other servers write is not noticed: {why}"))
            })
        };
        if self.core.gate.is_closed() {
            return Err(StoreError::Closed);
        }
        if let Some(error) = deaf() {
            return Err(error);
        }
        let (question, answer) = oneshot::channel();
        let asked = async {
            self.questions.send(question).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(listen::PATIENCE, asked).await {
            Ok(Some(())) => Ok(()),
            _ => Err(deaf().unwrap_or_else(|| {
                StoreError::Away("what other servers write is not noticed in time".to_owned())
            })),
        }
    }

    /// Runs work though nobody waits for it any more; a panic in it is an error of that call alone.
    ///
    /// It runs where the database was opened, whoever polls: a hook that reads rows does so from a Lua thread, whose
    /// runtime has no sockets.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.home.spawn(work).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => {
                Err(StoreError::Internal("a job panicked".to_owned()))
            }
            Err(_) => Err(StoreError::Closed),
        }
    }

    pub(crate) async fn close(&self) {
        self.core.gate.close().await;
        self.listener.abort();
        self.core.pool.close();
        self.core.aside.close();
    }
}

impl Drop for PostgresEngine {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

pub(super) fn pool(target: &Target, settings: &StoreSettings, size: usize) -> Result<Pool, String> {
    let how = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let config = target.config.clone();
    let manager = match target.tls.clone() {
        None => Manager::from_config(config, NoTls, how),
        Some(tls) => Manager::from_config(config, tls, how),
    };
    // What a server that has vanished holds must be let go, so an idle transaction ends by itself.
    let set_up: Arc<str> = format!(
        "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = 60000; \
         SET TimeZone = 'UTC'",
        settings.statement_timeout.as_millis(),
        settings.busy_timeout.as_millis().max(1)
    )
    .into();
    Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(settings.busy_timeout))
        .create_timeout(Some(target.patience()))
        .recycle_timeout(Some(settings.connect_timeout))
        .runtime(Runtime::Tokio1)
        .post_create(Hook::async_fn(move |client, _| {
            let set_up = Arc::clone(&set_up);
            Box::pin(async move {
                let done = client.batch_execute(&set_up).await;
                done.map_err(HookError::Backend)
            })
        }))
        .build()
        .map_err(|error| error.to_string())
}

/// A notice of a write that is about to be committed.
struct Notice {
    number: u64,
    text: String,
}

impl Core {
    async fn write<T: Send + 'static>(
        &self,
        touched: impl Fn(&T) -> Touched + Send + 'static,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        if let Some(error) = &*self.newer() {
            return Err(error.clone());
        }
        let permit = tokio::time::timeout(self.settings.busy_timeout, self.writers.acquire());
        let Ok(Ok(_permit)) = permit.await else {
            return Err(StoreError::Busy);
        };
        let mut tries = Tries::default();
        loop {
            let mut session = self.session(tries.anew).await?;
            session.postgres().begin_write();
            let error = match work.clone()(&mut session).await {
                Err(error) => error,
                Ok(value) => {
                    let touched = touched(&value);
                    let notice = self.notice(&touched);
                    let text = notice.as_ref().map(|notice| notice.text.as_str());
                    match session.postgres().commit(text).await {
                        Ok(()) => {
                            self.publish(touched, &mut session).await;
                            return Ok(value);
                        }
                        Err(NotCommitted::Undone(error)) => {
                            self.came_back(notice.as_ref());
                            error
                        }
                        Err(NotCommitted::InDoubt(error)) => {
                            // Either the notice has been here and was not heeded, or it will be when it comes.
                            if notice.is_some() && !self.came_back(notice.as_ref()) {
                                self.move_by(&touched);
                            }
                            return Err(error);
                        }
                    }
                }
            };
            let session = session.postgres();
            session.rollback().await;
            if !tries.another(session.again()).await {
                return Err(error);
            }
            tracing::debug!(error = error.detail(), "a write is run again");
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        view: View,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        let mut tries = Tries::default();
        loop {
            let mut session = self.session(tries.anew).await?;
            if view == View::State {
                session.postgres().begin_read();
            }
            let result = work.clone()(&mut session).await;
            let session = session.postgres();
            let error = match result {
                Ok(value) => {
                    session.end_read();
                    return Ok(value);
                }
                Err(error) => error,
            };
            session.rollback().await;
            if !tries.another(session.again()).await {
                return Err(error);
            }
        }
    }

    /// A connection for one try. One that makes prepared statements anew forgets those that it has.
    async fn session(&self, anew: bool) -> Result<Session, StoreError> {
        let client = self.connection(&self.pool).await?;
        if anew {
            client.statement_cache.clear();
        }
        Ok(self.session_on(client, anew))
    }

    fn session_on(&self, client: Object, anew: bool) -> Session {
        let limit = self.settings.statement_timeout + GRACE;
        Session::Postgres(PostgresSession::new(client, limit, anew))
    }

    async fn connection(&self, pool: &Pool) -> Result<Object, StoreError> {
        pool.get().await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => StoreError::Busy,
            PoolError::Timeout(_) => StoreError::Away(format!(
                "no connection within {} s",
                self.target.patience().as_secs_f32()
            )),
            PoolError::Closed => StoreError::Closed,
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
                away(&error)
            }
            other => StoreError::Away(other.to_string()),
        })
    }

    /// What the others are told of a write.
    fn notice(&self, touched: &Touched) -> Option<Notice> {
        let what = match touched {
            Touched::Nothing => return None,
            Touched::Rows(plugin) => format!("rows {plugin}"),
            Touched::Definition(plugin) => format!("definition {plugin}"),
            Touched::Products => "products".to_owned(),
            Touched::Catalogue => "catalogue".to_owned(),
        };
        let number = self.notices.fetch_add(1, Ordering::Relaxed);
        // A server that does not listen would collect what never comes back.
        if self.deaf.borrow().is_none() {
            self.expected().insert(number);
        }
        Some(Notice {
            number,
            text: format!("{} {number} {what}", self.server),
        })
    }

    fn expected(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn newer(&self) -> MutexGuard<'_, Option<StoreError>> {
        self.newer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a notice of ours needs no heed. It is not expected any more.
    pub(super) fn is_expected(&self, number: u64) -> bool {
        self.expected().remove(&number)
    }

    /// Expects a notice no more; whether it was still expected.
    fn came_back(&self, notice: Option<&Notice>) -> bool {
        notice.is_some_and(|notice| self.is_expected(notice.number))
    }

    /// Moves what a committed write of this server has touched.
    async fn publish(&self, touched: Touched, session: &mut Session) {
        if touched == Touched::Catalogue {
            if let Err(error) = self.take_snapshot_on(session).await {
                tracing::error!(error = error.detail(), "the catalogue could not be read");
                self.snapshot_due.notify_one();
            }
        } else {
            self.move_by(&touched);
        }
    }

    /// Moves what was touched, the catalogue as soon as the listener has read it.
    fn move_by(&self, touched: &Touched) {
        match touched {
            Touched::Nothing => {}
            Touched::Rows(plugin) | Touched::Definition(plugin) => self.shared.rows_moved(plugin),
            Touched::Products => self.shared.products_moved(),
            Touched::Catalogue => self.snapshot_due.notify_one(),
        }
    }

    /// Reads the catalogue into a new snapshot.
    pub(super) async fn take_snapshot(&self) -> Result<(), StoreError> {
        let client = self.connection(&self.aside).await?;
        self.take_snapshot_on(&mut self.session_on(client, false))
            .await
    }

    async fn take_snapshot_on(&self, session: &mut Session) -> Result<(), StoreError> {
        let _one = self.snapshots.lock().await;
        let version = self.shared.catalogue.load().version + 1;
        session.postgres().begin_read();
        let read = catalogue::load_snapshot(session, &self.statements, version).await;
        match read {
            Ok(catalogue) => {
                session.postgres().end_read();
                self.shared.catalogue.store(Arc::new(catalogue));
                Ok(())
            }
            Err(error) => {
                session.postgres().rollback().await;
                Err(error)
            }
        }
    }

    /// Brings everything up to date after others' writes may have been missed.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        self.expected().clear();
        self.check_schema().await?;
        self.take_snapshot().await?;
        self.shared.all_moved();
        Ok(())
    }

    /// Looks whether the core schema has become newer than ours.
    pub(super) async fn check_schema(&self) -> Result<(), StoreError> {
        let client = self.connection(&self.aside).await?;
        let limit = self.settings.statement_timeout + GRACE;
        let version = tokio::time::timeout(limit, schema::version(&client)).await;
        let found = match version {
            Ok(found) => found.map_err(|error| StoreError::Away(fault::words(&error)))?,
            Err(_) => return Err(StoreError::Away("no answer in time".to_owned())),
        };
        let newer = schema::newer(&self.target, found);
        if let Some(error) = &newer {
            tracing::error!(error = error.detail(), "this server writes no more");
        }
        *self.newer() = newer;
        Ok(())
    }
}

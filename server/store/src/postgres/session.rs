//! One connection at work, and the frame of its transaction.
//!
//! A transaction begins with its first statement, in the same round trip. After a statement that failed it is gone;
//! what follows runs outside it, can only read, and serves to say what the failure means.

use std::pin::pin;
use std::time::Duration;

use deadpool_postgres::Object;
use futures_util::future::{join, join3};
use futures_util::{FutureExt, TryStreamExt};
use sea_query::Value;
use tokio_postgres::Error;

use super::cells::Cell;
use super::fault::{Again, again, fault};
use crate::error::{Fault, StoreError};
use crate::session::{Lock, Row, refuse_nul};

/// How a transaction that writes begins.
const WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
/// How one begins whose statements shall see one state.
const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Waits until everything that was committed before is as safe as the server's `synchronous_commit` wants it.
///
/// Commits with a notice wait for each other, to keep the notices in order, and would wait for the disk one by one. So
/// such a transaction commits without waiting for it, and this comes right after: many of these share a flush.
const FLUSH: &str = "SELECT pg_logical_emit_message(true, 'patchbay', '')";

/// How many statements a connection keeps prepared; beyond it all are forgotten.
const KEPT_STATEMENTS: usize = 256;

/// The first number of all our advisory locks, which tells them from those of other programs.
pub(super) const LOCKS: i32 = 0x5061_7463;

/// The second numbers of the locks that are not a plugin's.
pub(super) const SCHEMA_LOCK: i32 = 1;
const CATALOGUE_LOCK: i32 = 2;
const CLUSTER_LOCK: i32 = 3;
const COPY_LOCK: i32 = 4;

/// Who holds an advisory lock.
pub(super) const HOLDER: &str = "SELECT a.application_name, a.pid, coalesce(host(a.client_addr), 'a socket') \
     FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
     WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
     AND l.classid = $1::bigint::oid AND l.objid = $2::bigint::oid";

/// What a statement gave.
struct Ran {
    rows: Vec<tokio_postgres::Row>,
    changed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Each statement is by itself.
    Alone,
    /// A transaction begins with the next statement.
    Due(&'static str),
    /// In a transaction.
    Open,
    /// The transaction has failed, and still has to be rolled back.
    Failed,
    /// The transaction has failed and is rolled back: what comes now only reads.
    Over,
    /// Nobody knows what the connection does.
    Broken,
}

/// A connection of the pool, for one piece of work.
pub(crate) struct PostgresSession {
    /// Taken only when the session is dropped.
    client: Option<Object>,
    state: State,
    /// Why the work could be run again.
    again: Option<Again>,
    /// Whether all prepared statements are new, so that none can be out of date.
    anew: bool,
    /// How long an answer is waited for; none for however long it takes.
    limit: Option<Duration>,
}

/// How a commit went wrong.
pub(crate) enum NotCommitted {
    /// It did not happen.
    Undone(StoreError),
    /// It may have happened.
    InDoubt(StoreError),
}

impl From<NotCommitted> for StoreError {
    fn from(error: NotCommitted) -> StoreError {
        match error {
            NotCommitted::Undone(error) | NotCommitted::InDoubt(error) => error,
        }
    }
}

impl PostgresSession {
    pub(super) fn new(client: Object, limit: Duration, anew: bool) -> PostgresSession {
        PostgresSession {
            client: Some(client),
            state: State::Alone,
            again: None,
            anew,
            limit: Some(limit),
        }
    }

    /// The next statement opens a transaction that writes.
    pub(crate) fn begin_write(&mut self) {
        self.state = State::Due(WRITE);
    }

    /// The next statement opens a transaction that sees one state.
    pub(crate) fn begin_read(&mut self) {
        self.state = State::Due(READ);
    }

    /// Why the work that failed may be run again.
    pub(super) fn again(&self) -> Option<Again> {
        self.again
    }

    fn client(&self) -> Result<&Object, StoreError> {
        self.client
            .as_ref()
            .ok_or_else(|| StoreError::Internal("a session without a connection".to_owned()))
    }

    pub(crate) async fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, Fault> {
        let ran = self.run(sql, values).await?;
        Ok(ran.rows.into_iter().map(Row::Postgres).collect())
    }

    pub(crate) async fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, Fault> {
        if matches!(self.state, State::Failed | State::Over) {
            return Err(after_failure());
        }
        Ok(self.run(sql, values).await?.changed)
    }

    /// Runs a statement in a savepoint, so that its failure is not that of the transaction.
    pub(crate) async fn attempt(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, Fault> {
        if !matches!(self.state, State::Open | State::Due(_)) {
            return self.query(sql, values).await;
        }
        refuse_nul(values)?;
        let begin = self.begin();
        let client = self.client()?;
        let work = join3(
            maybe(client, begin),
            client.batch_execute("SAVEPOINT attempt"),
            prepared(client, sql, values),
        );
        let answer = match within(self.limit, work).await {
            Some((begun, saved, ran)) => begun.and(saved).and(ran),
            None => return Err(self.no_answer()),
        };
        match answer {
            Ok(ran) => Ok(ran.rows.into_iter().map(Row::Postgres).collect()),
            Err(error) => {
                let failure = self.failed(&error);
                if self.state == State::Failed {
                    self.command("ROLLBACK TO SAVEPOINT attempt").await?;
                    self.state = State::Open;
                }
                Err(failure)
            }
        }
    }

    pub(crate) async fn define(&mut self, sql: &str) -> Result<(), Fault> {
        if matches!(self.state, State::Failed | State::Over) {
            return Err(after_failure());
        }
        let begin = self.begin();
        let client = self.client()?;
        let work = join(maybe(client, begin), client.batch_execute(sql));
        match within(self.limit, work).await {
            Some((begun, done)) => begun.and(done).map_err(|error| self.failed(&error)),
            None => Err(self.no_answer()),
        }
    }

    /// Takes an advisory lock until the transaction ends.
    pub(crate) async fn lock(&mut self, lock: Lock<'_>) -> Result<(), StoreError> {
        let (number, what) = match lock {
            Lock::Catalogue => (CATALOGUE_LOCK, "the catalogue is being written".to_owned()),
            Lock::Plugin(plugin) => (
                lock_number(plugin),
                format!("the plugin {plugin} is being migrated"),
            ),
            Lock::Cluster => (CLUSTER_LOCK, "a server reports its plugins".to_owned()),
        };
        let values = [LOCKS.into(), number.into()];
        let taken = self
            .run("SELECT pg_advisory_xact_lock($1, $2)", &values)
            .await;
        match taken {
            Ok(_) => Ok(()),
            Err(Fault::Store(StoreError::Locked)) if self.again.is_none() => {
                let holder = self.holder(number).await?;
                Err(StoreError::LockedBy { what, holder })
            }
            Err(fault) => Err(fault.into()),
        }
    }

    /// Who holds an advisory lock of ours, in words.
    async fn holder(&mut self, number: i32) -> Result<String, Fault> {
        let values = [
            i64::from(LOCKS).into(),
            i64::from(number.cast_unsigned()).into(),
        ];
        let ran = self.run(HOLDER, &values).await?;
        Ok(named(&ran.rows))
    }

    /// Keeps other copies away until the connection ends. Whether it could.
    pub(crate) async fn lock_copy(&mut self) -> Result<bool, Fault> {
        let values = [LOCKS.into(), COPY_LOCK.into()];
        let ran = self
            .run("SELECT pg_try_advisory_lock($1, $2)", &values)
            .await?;
        Ok(ran.rows.first().is_some_and(|row| row.get(0)))
    }

    pub(crate) async fn unhurried(&mut self) -> Result<(), Fault> {
        self.limit = None;
        self.define("SET LOCAL statement_timeout = 0").await
    }

    pub(crate) async fn check_writable(&mut self) -> Result<(), Fault> {
        const SQL: &str =
            "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean";
        let ran = self.run(SQL, &[]).await?;
        match ran.rows.first().map(|row| row.try_get(0)) {
            // Something is written to the log, and with the commit to the disk.
            Some(Ok(false)) => self.define(FLUSH).await,
            _ => Err(StoreError::ReadOnly.into()),
        }
    }

    /// Ends the transaction well. `notice` is sent with it to all who listen.
    pub(crate) async fn commit(&mut self, notice: Option<&str>) -> Result<(), NotCommitted> {
        match self.state {
            // Nothing was done, so there is nothing that could be lost.
            State::Due(_) if notice.is_none() => {
                self.state = State::Alone;
                return Ok(());
            }
            State::Due(_) | State::Open => {}
            _ => {
                let error = StoreError::Internal("a work that failed was to be kept".to_owned());
                return Err(NotCommitted::Undone(error));
            }
        }
        let begin = self.begin();
        let client = self.client().map_err(NotCommitted::Undone)?;
        let commit = match notice {
            None => "COMMIT".to_owned(),
            Some(notice) => format!(
                "SET LOCAL synchronous_commit = off; SELECT pg_notify('{}', '{}'); COMMIT",
                super::listen::CHANNEL,
                notice.replace('\'', "''")
            ),
        };
        let work = join3(
            maybe(client, begin),
            client.batch_execute(&commit),
            maybe(client, notice.map(|_| FLUSH)),
        );
        match within(self.limit, work).await {
            None => {
                self.state = State::Broken;
                Err(NotCommitted::InDoubt(in_doubt("no answer in time")))
            }
            Some((begun, committed, flushed)) => match begun.and(committed).and(flushed) {
                Ok(()) => {
                    self.state = State::Alone;
                    Ok(())
                }
                Err(error) => {
                    let fault = self.failed(&error);
                    match self.again {
                        Some(Again::Lost) => Err(NotCommitted::InDoubt(in_doubt(
                            &super::fault::words(&error),
                        ))),
                        _ => Err(NotCommitted::Undone(fault.into())),
                    }
                }
            },
        }
    }

    /// Ends a transaction that only read. The answer is not waited for: nothing depends on it, and whatever the
    /// connection does next comes after it.
    pub(super) fn end_read(&mut self) {
        if self.state == State::Open
            && let Some(client) = &self.client
        {
            match client.batch_execute("COMMIT").now_or_never() {
                Some(Err(_)) => self.state = State::Broken,
                _ => self.state = State::Alone,
            }
        } else if matches!(self.state, State::Due(_)) {
            self.state = State::Alone;
        }
    }

    /// Undoes what is open. A connection on which that fails is not used again.
    pub(super) async fn rollback(&mut self) {
        match self.state {
            State::Open | State::Failed => {
                // An error leaves the session broken.
                if self.command("ROLLBACK").await.is_ok() {
                    self.state = State::Alone;
                }
            }
            State::Due(_) | State::Over => self.state = State::Alone,
            State::Alone | State::Broken => {}
        }
    }

    /// Runs one of the statements that frame transactions.
    async fn command(&mut self, sql: &'static str) -> Result<(), Fault> {
        let work = self.client()?.batch_execute(sql);
        match within(self.limit, work).await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => {
                self.state = State::Broken;
                Err(fault(&error))
            }
            None => Err(self.no_answer()),
        }
    }

    /// What opens the transaction, when that is due.
    fn begin(&mut self) -> Option<&'static str> {
        match self.state {
            State::Due(begin) => {
                self.state = State::Open;
                Some(begin)
            }
            _ => None,
        }
    }

    async fn run(&mut self, sql: &str, values: &[Value]) -> Result<Ran, Fault> {
        refuse_nul(values)?;
        if self.state == State::Failed {
            self.command("ROLLBACK").await?;
            self.state = State::Over;
        }
        let begin = self.begin();
        let client = self.client()?;
        let answer = match begin {
            None => within(self.limit, prepared(client, sql, values)).await,
            Some(begin) => {
                let work = join(client.batch_execute(begin), prepared(client, sql, values));
                let answer = within(self.limit, work).await;
                answer.map(|(begun, ran)| begun.and(ran))
            }
        };
        match answer {
            Some(Ok(ran)) => Ok(ran),
            Some(Err(error)) => Err(self.failed(&error)),
            None => Err(self.no_answer()),
        }
    }

    /// Notes what an error does to the session, and says what it means.
    fn failed(&mut self, error: &Error) -> Fault {
        let why = again(error);
        match why {
            Some(Again::Lost) => self.state = State::Broken,
            _ if self.state == State::Open => self.state = State::Failed,
            _ => {}
        }
        match why {
            Some(Again::Outdated) if !self.anew => {
                self.again = why;
                StoreError::Locked.into()
            }
            Some(Again::Outdated) => fault(error),
            _ => {
                self.again = self.again.or(why);
                fault(error)
            }
        }
    }

    fn no_answer(&mut self) -> Fault {
        self.state = State::Broken;
        let limit = self.limit.unwrap_or_default().as_secs_f32();
        StoreError::Away(format!("the database has not answered within {limit} s")).into()
    }
}

/// A connection that is not back at rest would carry its transaction into the next work, so it is closed.
impl Drop for PostgresSession {
    fn drop(&mut self) {
        if self.state != State::Alone
            && let Some(client) = self.client.take()
        {
            drop(Object::take(client));
        }
    }
}

fn after_failure() -> Fault {
    StoreError::Internal("a statement after one that failed".to_owned()).into()
}

fn in_doubt(why: &str) -> StoreError {
    StoreError::Away(format!(
        "the connection was lost while it committed, so the write may or may not have happened: {why}"
    ))
}

/// The second number of a plugin's lock: FNV-1a of its name, apart from the fixed ones. Two plugins that share a number
/// merely wait for each other.
fn lock_number(plugin: &str) -> i32 {
    let hash = plugin.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (hash | 0x100).cast_signed()
}

/// The names in rows of [`HOLDER`].
pub(super) fn named(rows: &[tokio_postgres::Row]) -> String {
    let holders: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let name: Option<&str> = row.try_get(0).ok()?;
            let process: i32 = row.try_get(1).ok()?;
            let host: &str = row.try_get(2).ok()?;
            let name = name.filter(|name| !name.is_empty()).unwrap_or("somebody");
            Some(format!("{name} (from {host}, backend {process})"))
        })
        .collect();
    match holders.is_empty() {
        true => "somebody who has just let go".to_owned(),
        false => holders.join(", "),
    }
}

async fn maybe(client: &Object, sql: Option<&str>) -> Result<(), Error> {
    match sql {
        Some(sql) => client.batch_execute(sql).await,
        None => Ok(()),
    }
}

/// Waits for an answer; none when it does not come in time.
async fn within<F: Future>(limit: Option<Duration>, work: F) -> Option<F::Output> {
    match limit {
        None => Some(work.await),
        Some(limit) => tokio::time::timeout(limit, work).await.ok(),
    }
}

/// Runs a statement that is prepared once on this connection.
async fn prepared(client: &Object, sql: &str, values: &[Value]) -> Result<Ran, Error> {
    if client.statement_cache.size() > KEPT_STATEMENTS {
        client.statement_cache.clear();
    }
    let statement = client.prepare_cached(sql).await?;
    let stream = client
        .query_raw(&statement, values.iter().map(Cell))
        .await?;
    let mut stream = pin!(stream);
    let mut rows = Vec::new();
    while let Some(row) = stream.try_next().await? {
        rows.push(row);
    }
    let changed = stream.rows_affected().unwrap_or(0);
    Ok(Ran { rows, changed })
}

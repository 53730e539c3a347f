//! How work reaches the database: on SQLite by queues to threads that own connections, on Postgres by a pool of them.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::error::StoreError;
use crate::postgres::PostgresEngine;
use crate::session::{Dialect, Session};
use crate::settings::{DatabaseUrl, StoreSettings};
use crate::shared::{Shared, Touched};
use crate::statements::Statements;
use crate::threads::Threads;

/// The most calls that wait for the writer, and for the readers; more are told that the store is busy.
pub(crate) const WAITING: usize = 1024;

/// A call's work on a session. On SQLite the thread of the session runs its future to the end; on Postgres it may be run
/// again from the start, on a copy of what it was given.
pub(crate) trait Work<T>:
    for<'a> FnOnce(&'a mut Session) -> BoxFuture<'a, Result<T, StoreError>> + Clone + Send + 'static
{
}

impl<T, F> Work<T> for F where
    F: for<'a> FnOnce(&'a mut Session) -> BoxFuture<'a, Result<T, StoreError>>
        + Clone
        + Send
        + 'static
{
}

/// How a job is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    /// With others in one transaction on SQLite, in its own on Postgres.
    Group,
    /// In a transaction of its own, with foreign keys off: a table that is rebuilt must not take along the rows that
    /// refer to it. The job itself checks that every reference holds at the end. Only SQLite needs it.
    Rebuild,
}

/// What the statements of a work that only reads have to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// There is but one that matters.
    Statement,
    /// All of them one state.
    State,
}

pub(crate) struct Engine {
    kind: Kind,
    pub(crate) shared: Arc<Shared>,
    pub(crate) statements: Arc<Statements>,
}

enum Kind {
    Sqlite(Threads),
    Postgres(PostgresEngine),
}

impl Engine {
    /// Opens the database and brings its core schema up to date.
    pub(crate) async fn open(settings: StoreSettings) -> Result<Engine, StoreError> {
        match settings.url.clone() {
            DatabaseUrl::Sqlite(path) => Engine::on_file(path, settings).await,
            DatabaseUrl::Postgres(url) => {
                let statements = Arc::new(Statements::new(Dialect::Postgres));
                let engine = PostgresEngine::open(&url, settings, Arc::clone(&statements)).await?;
                Ok(Engine {
                    shared: engine.shared(),
                    kind: Kind::Postgres(engine),
                    statements,
                })
            }
        }
    }

    async fn on_file(path: PathBuf, settings: StoreSettings) -> Result<Engine, StoreError> {
        let statements = Arc::new(Statements::new(Dialect::Sqlite));
        let (threads, shared) = Threads::open(path, settings, Arc::clone(&statements)).await?;
        Ok(Engine {
            kind: Kind::Sqlite(threads),
            shared,
            statements,
        })
    }

    /// Runs work in a transaction, and answers once it is committed.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        frame: Frame,
        touched: impl Fn(&T) -> Touched + Send + 'static,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        match &self.kind {
            Kind::Sqlite(threads) => threads.write(frame, touched, work).await,
            Kind::Postgres(engine) => engine.write(touched, work).await,
        }
    }

    /// Runs work that only reads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        view: View,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        match &self.kind {
            Kind::Sqlite(threads) => threads.read(work).await,
            Kind::Postgres(engine) => engine.read(view, work).await,
        }
    }

    /// Whether this server knows what others have written. On SQLite the writer looks for itself.
    pub(crate) async fn check_listening(&self) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Sqlite(_) => Ok(()),
            Kind::Postgres(engine) => engine.check_listening().await,
        }
    }

    /// Lets nothing more in, and waits until everything that was in is done and the connections are closed.
    pub(crate) async fn close(&self) {
        match &self.kind {
            Kind::Sqlite(threads) => threads.close().await,
            Kind::Postgres(engine) => engine.close().await,
        }
    }
}

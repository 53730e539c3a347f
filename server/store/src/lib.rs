//! The database of Patchbay: the core schema, the plugins' own tables, configurations, the catalogue and the history.
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | what the store is told when it is opened |
//! | [`error`] | what can go wrong, in words of the domain |
//! | [`render`] | operations of a migration as SQL, without a connection |
//! | `catalogue` | platforms, services and environments: rows, snapshot, writes, and the file that is applied to them |
//! | `data_product` | the owners of configurations |
//! | `plugin` | applied definitions, histories, the run of migrations up and down, the register of tables, drift |
//! | [`proof`] | whether a step is undone by its `down`: tried on a scratch database |
//! | `configuration` | stored configurations, their pages, their revisions; the rows that a plugin owns, read and carried over |
//! | `cluster` | the servers on one database, and the numbers of the plugin sets that they serve |
//! | `copy` | a database copied into another |
//! | `inspect` | a database looked at without changing anything of it |
//! | `shape` | a plugin's table as its fields see it, and the statements over it |
//! | `page` | pages and cursors |
//! | `statements`, `session` | every statement, built once for both databases, and the seam through which it runs |
//! | `engine`, `shared` | how work reaches the database, what is kept in memory beside it |
//! | `sqlite`, `schema`, `lock` | one connection to a file, the core schema's version, the lock against a second server |
//! | `threads`, `writer`, `queue` | the threads that own such connections |
//! | `postgres` | connections to Postgres, the pool of them, and how servers hear of each other's writes |
//!
//! # The life of a write
//! A method of [`Store`] makes ids, times and values, and hands its work, a future over a session, to the engine.
//!
//! On SQLite it waits in the writer's queue → the writing thread takes it with all that wait (up to 64), opens one
//! transaction, runs each in a savepoint, and commits once. On Postgres a task takes a connection from the pool → runs
//! it in a transaction of its own, again when Postgres gives it up for another's sake → commits, with a notice to the
//! other servers in the same transaction.
//!
//! Then what the work touched moves (the snapshot of the catalogue, the counters of rows), and the caller is answered.
//!
//! # Invariants
//! - What was answered is committed, and whole: a row, its revision and the check of the plugin's head are one
//!   transaction, and so are all pending steps of a migration. A job that fails undoes only itself.
//! - A counter or version that stands still means that nothing was written: they move after the commit and before the
//!   answer, and when another process has written, which is noticed within a quarter of a second on SQLite, and on
//!   Postgres as soon as its notice arrives. A server that may have missed one is not healthy until all has moved.
//! - A snapshot holds no secret, and no error that a client sees holds SQL or a path.
//! - No thread of the async runtime blocks: connections to a file live on threads of their own, and whatever waits is
//!   bounded.
//! - A statement is written once, for both databases; only the core schema has a file for each.
//! - A row whose plugin is gone is still read, by the definition that was applied last. One whose table is broken has
//!   no values, and breaks no list.
//!
//! The store knows no Lua, no HTTP and no plugin's rules: values have been checked when they come here. It holds
//! nothing static, so that two stores can be open in one process.

mod catalogue;
mod cluster;
mod configuration;
mod copy;
mod data_product;
mod engine;
pub mod error;
mod inspect;
mod lock;
mod page;
mod plugin;
mod postgres;
pub mod proof;
mod queue;
pub mod render;
mod schema;
mod session;
pub mod settings;
mod shape;
mod shared;
mod sqlite;
mod statements;
mod threads;
mod time_text;
mod writer;

use std::sync::Arc;

use patchbay_plugin::catalogue::Catalogue;
use tokio::sync::watch;

pub use catalogue::{
    CatalogueChange, EnvironmentConfigurationDraft, EnvironmentDraft, ServiceDraft,
};
pub use cluster::{ClusterState, GONE_AFTER, PluginSet, RunningServer, ServerReport};
pub use configuration::{Carried, ConfigurationQuery, OwnRow, OwnRows};
pub use copy::{Copied, CopyError, CopyEvent, copy};
pub use data_product::DataProductDraft;
pub use error::{StoreError, What};
pub use inspect::Inspection;
pub use page::{MAX_PAGE, Page};
pub use plugin::{Applied, AppliedDefinition, AppliedMark, Applying, Held, PluginTable};
pub use session::Dialect;
pub use settings::{DatabaseUrl, StoreSettings, Synchronous};

use engine::{Engine, Frame, View, Work};
use plugin::Shapes;
use shared::{Shared, Touched};
use statements::Statements;

/// An open database. Cheap to clone; its threads end, and its lock is released, when the last clone is dropped or
/// [`close`](Store::close) is called.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    engine: Engine,
    shapes: Arc<Shapes>,
}

impl Store {
    /// Opens the database and brings the core schema up to date. On SQLite it creates the folder and the file when they
    /// are not there, and takes the lock; on Postgres the database must be there, and any number of servers may open it.
    ///
    /// # Errors
    /// [`StoreError::CannotOpen`], [`StoreError::LockedByServer`] or [`StoreError::NewerSchema`], for the operator.
    pub async fn open(settings: StoreSettings) -> Result<Store, StoreError> {
        let shown = settings.url.to_string();
        let store = Store(Arc::new(Inner {
            engine: Engine::open(settings).await?,
            shapes: Arc::default(),
        }));
        if let Err(error) = store.refuse_unfinished(&shown).await {
            store.close().await;
            return Err(error);
        }
        Ok(store)
    }

    /// A database into which a copy was begun holds a part of what it should.
    async fn refuse_unfinished(&self, shown: &str) -> Result<(), StoreError> {
        let unfinished = copy::unfinished(self.statements().dialect);
        let found = self.read(View::Statement, move |session| {
            Box::pin(async move {
                let row = session.query_one(&unfinished, Vec::new()).await?;
                Ok(row.map(|row| row.string(0)).transpose()?)
            })
        });
        match found.await? {
            None => Ok(()),
            Some(source) => Err(StoreError::CannotOpen(format!(
                "the copy of {source} into the database {shown} is not finished; run `patchbay db copy` again, which goes \
                 on with it, or take an empty database"
            ))),
        }
    }

    /// Lets nothing more in, finishes what waits, empties the write-ahead log into the file, and releases the lock.
    pub async fn close(&self) {
        self.0.engine.close().await;
    }

    /// Whether the database can be read and written now. It goes through a reader and through the writer; on Postgres
    /// also that whatever other servers were answered before has been noticed here.
    ///
    /// # Errors
    /// Why it cannot: [`StoreError::Missing`], [`StoreError::ReadOnly`], [`StoreError::Locked`] …
    pub async fn health(&self) -> Result<(), StoreError> {
        let statements = self.statements();
        self.0.engine.check_listening().await?;
        self.read(View::Statement, move |session| {
            Box::pin(async move {
                let nobody = vec![uuid::Uuid::nil().into()];
                session.query(&statements.products.by_id, nobody).await?;
                Ok(())
            })
        })
        .await?;
        self.write(
            Frame::Group,
            |()| Touched::Nothing,
            |session| Box::pin(async { Ok(session.check_writable().await?) }),
        )
        .await
    }

    /// The snapshot of the catalogue, without secrets. Its version grows with every write to it, by whatever server, and
    /// on SQLite with every write of another process. Each server counts for itself.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.shared().catalogue.load_full()
    }

    /// The version of the [`catalogue`](Store::catalogue).
    pub fn catalogue_version(&self) -> u64 {
        self.shared().catalogue.load().version
    }

    /// A number that grows with every committed write of a plugin's rows or table, by whatever server; on SQLite with
    /// every write of another process.
    pub fn row_counter(&self, plugin: &str) -> u64 {
        self.shared().row_counter(plugin)
    }

    /// Moves when another process has written what plugins are built on: the catalogue, a plugin's table or definition.
    /// On SQLite, and after a lost connection, nobody knows what was written, so it moves with everything.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared().changes()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.engine.shared
    }

    fn statements(&self) -> Arc<Statements> {
        Arc::clone(&self.0.engine.statements)
    }

    fn shapes(&self) -> Arc<Shapes> {
        Arc::clone(&self.0.shapes)
    }

    async fn write<T: Send + 'static>(
        &self,
        frame: Frame,
        touched: impl Fn(&T) -> Touched + Send + 'static,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        self.0.engine.write(frame, touched, work).await
    }

    async fn read<T: Send + 'static>(
        &self,
        view: View,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        self.0.engine.read(view, work).await
    }
}

//! Which plugins are active, and what one does with them.
//!
//! | module | holds |
//! |---|---|
//! | [`settings`], [`enabling`] | what the operator says: paths, which plugins are on, how changes are noticed |
//! | `discovery` | where plugins lie, and their files read into memory at one moment |
//! | [`packages`] | how plugins ship, are installed, pinned, and taken out |
//! | `generation` | an immutable, numbered set of active plugins |
//! | `reload` | building the next generation: read, load aside, choose, check, migrate, swap |
//! | `watch` | noticing that files changed, and when a burst of changes is over |
//! | [`check`] | what a load checks of plugins, without a server and a database |
//! | [`diagnosis`] | what is told of an installation to whoever asks what is wrong with it |
//! | `pause` | how long to wait before something that failed in passing is tried again |
//! | `form` | forms, computed once and kept until what they were computed from changes |
//! | `plugins` | answers about plugins: list, form, tiles, links, details, status |
//! | `proofs` | which migrations are proved to be undone by their `down` |
//! | `configurations` | reading configurations, their history and their export |
//! | `writing` | creating, changing and deleting them |
//! | `admission` | what a client sent, brought into the form in which it is stored, or only tried |
//! | `render` | access paths and technical info |
//! | `cluster` | what this server tells the others on its database, and where all of them stand |
//! | [`wire`] | answers as they go over the wire |
//! | [`error`] | why a request cannot be answered |
//!
//! # The life of a request
//! A method of [`Registry`] takes the current generation once and keeps it → the plugin in it answers from what was
//! computed before, or a hook is called in the sandbox → what it returns is checked and becomes plain data → the store
//! writes it in one transaction that checks the plugin's migration head → the answer is a type of [`wire`].
//!
//! # Invariants
//! - A request sees one generation from its first step to its last: only `writing` ever takes a second one, and
//!   then it starts over.
//! - A failing plugin keeps its last good version, and nothing that it does reaches another plugin.
//! - A generation holds a plugin only if its migrations are applied.
//! - There is one builder of generations, behind a lock; readers never wait for it.
//! - No HTTP here, no SQL and no Lua values.

pub mod check;
pub mod enabling;
pub mod error;
pub mod packages;
pub mod settings;
pub mod wire;

mod admission;
mod cluster;
mod configurations;
pub mod diagnosis;
mod discovery;
mod form;
mod generation;
mod pause;
mod plugins;
mod proofs;
mod reload;
mod render;
mod watch;
mod writing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use patchbay_lua::Sandbox;
use patchbay_plugin::platform::PluginState;
use patchbay_store::Store;
use tokio::sync::{Mutex, watch as channel};

use crate::cluster::Identity;
use crate::generation::{Finding, Generation};
use crate::pause::Pause;
use crate::proofs::Proofs;
use crate::reload::{Builder, Built, Missing, Touched, log_generation};
use crate::settings::{RegistrySettings, Shipped};
use crate::wire::ReloadSummary;

pub use crate::cluster::{Membership, servers_that_serve};
pub use crate::discovery::{
    Overlooked, SpecFolder, find_specs, overlooked, read_bounded, read_spec,
};
pub use crate::error::RequestError;
pub use crate::proofs::{NOT_PROVED_YET, wrong_downs};
pub use crate::reload::{Migrated, MigrationOrder, StepPreview, WrittenMigration};
pub use patchbay_store::ConfigurationQuery;

/// What kept answers depend on. An answer that was computed after a stamp was taken is right while the stamp is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    generation: u64,
    catalogue: u64,
    rows: u64,
    retries: u64,
}

/// Figures for operators.
#[derive(Debug, Clone, Default)]
pub struct RegistryMetrics {
    /// The generation that serves.
    pub generation: u64,
    /// How many plugins stand how.
    pub plugins_by_state: Vec<(&'static str, u64)>,
    /// Generations built since the start, the first included.
    pub reloads_total: u64,
    /// Reloads after which some plugin's newest version does not serve.
    pub reload_failures_total: u64,
    /// Calls of hooks for requests.
    pub hook_calls_total: u64,
    /// Those that failed.
    pub hook_failures_total: u64,
}

/// The active plugins and what one does with them. A cheap handle; tasks of it end when the last handle is dropped.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    sandbox: Sandbox,
    current: ArcSwap<Generation>,
    /// Moves with each swap, for writes that wait for the generation after theirs.
    swapped: channel::Sender<u64>,
    /// Moves with each swap, and when what was read again does not come through again.
    told: channel::Sender<u64>,
    builder: Mutex<Builder>,
    /// Moves when a form that failed in passing is to be tried again.
    retries: AtomicU64,
    /// When a build that failed in passing is made again.
    rebuild_pause: Pause,
    /// The plugins whose forms are computed from their rows.
    row_readers: ArcSwap<Vec<String>>,
    counters: Counters,
    /// How this server is called in the cluster.
    identity: Identity,
    /// Which migrations were tried up and down, and what came of it.
    proofs: Proofs,
}

#[derive(Default)]
struct Counters {
    reloads: AtomicU64,
    reload_failures: AtomicU64,
    hook_failures: AtomicU64,
}

impl Registry {
    /// Loads every plugin and begins to watch their files. A plugin that fails does not stop the start; it shows in the
    /// log and in [`Registry::statuses`].
    pub async fn start(
        settings: RegistrySettings,
        store: Store,
        sandbox: Sandbox,
        shipped: Shipped,
    ) -> Registry {
        let watching = watch::Watching::begin(&settings);
        let registry = Registry::load(settings, store, sandbox, shipped).await;
        watching.spawn(&registry);
        registry
    }

    /// Loads every plugin once, as [`Registry::start`] does, without watching their files.
    pub async fn load(
        settings: RegistrySettings,
        store: Store,
        sandbox: Sandbox,
        shipped: Shipped,
    ) -> Registry {
        let identity = Identity::default();
        let who = identity.who(settings.server_name.as_deref());
        let mut builder = Builder::new(settings, shipped, store.clone(), sandbox.clone());
        builder.by = who;
        let registry = Registry {
            inner: Arc::new(Inner {
                store,
                sandbox,
                current: ArcSwap::default(),
                swapped: channel::Sender::new(0),
                told: channel::Sender::new(0),
                builder: Mutex::new(builder),
                retries: AtomicU64::new(0),
                rebuild_pause: Pause::default(),
                row_readers: ArcSwap::default(),
                counters: Counters::default(),
                identity,
                proofs: Proofs::default(),
            }),
        };
        registry.rebuild(&Touched::Everything).await;
        registry
    }

    /// Reads the plugin paths again, whatever the watcher noticed.
    pub async fn reload(&self) -> ReloadSummary {
        self.rebuild(&Touched::Everything).await
    }

    /// As [`reload`](Registry::reload), and has the newest version of one plugin serve whatever it says of the rows.
    ///
    /// # Errors
    /// `NotFound` when no plugin of that name or alias was found; the paths were read all the same.
    pub async fn reload_forced(&self, plugin: &str) -> Result<ReloadSummary, RequestError> {
        let mut builder = self.inner.builder.lock().await;
        let before = self.current();
        let (built, found) = builder.build_forced(&before, plugin).await;
        let (summary, _) = self.swap(&before, built, &Touched::Everything);
        found.map(|()| summary)
    }

    /// Brings the migrations of one plugin's newest version to the step that is asked for: up, those that destroy
    /// included, or back. Beside a running server, which notices; no other plugin is touched.
    ///
    /// # Errors
    /// `NotFound` when no enabled plugin that loads has that name; `Conflict` when the steps cannot run or be taken back,
    /// with what to do.
    pub async fn migrate(
        settings: RegistrySettings,
        store: Store,
        sandbox: Sandbox,
        shipped: Shipped,
        order: &MigrationOrder,
    ) -> Result<Migrated, RequestError> {
        Builder::new(settings, shipped, store, sandbox)
            .migrate(order)
            .await
    }

    /// The steps that [`Registry::migrate`] would run or take back, with their SQL for both databases. Changes nothing.
    ///
    /// # Errors
    /// Those of [`Registry::migrate`] that show without running anything.
    pub async fn preview_migration(
        settings: RegistrySettings,
        store: Store,
        sandbox: Sandbox,
        shipped: Shipped,
        order: &MigrationOrder,
    ) -> Result<Vec<StepPreview>, RequestError> {
        Builder::new(settings, shipped, store, sandbox)
            .preview(order)
            .await
    }

    /// The migration that makes a plugin's table fit its fields, to be written into its folder; none when nothing is
    /// different and no `empty` one is wanted.
    ///
    /// # Errors
    /// `NotFound` when no enabled plugin that loads has that name; `Conflict` when there can be none, with the reason.
    pub async fn next_migration(
        settings: RegistrySettings,
        store: Store,
        sandbox: Sandbox,
        shipped: Shipped,
        plugin: &str,
        slug: Option<&str>,
        empty: bool,
    ) -> Result<Option<WrittenMigration>, RequestError> {
        Builder::new(settings, shipped, store, sandbox)
            .next_migration(plugin, slug, empty)
            .await
    }

    /// Which written `down`s of the plugins found do not do what they are for, by the place of the plugin.
    ///
    /// # Errors
    /// `Internal` when the trial itself breaks.
    pub async fn wrong_downs(&self) -> Result<BTreeMap<String, Vec<String>>, RequestError> {
        let generation = self.current();
        let work = move || {
            let loaded = generation.findings.iter().filter_map(|finding| {
                let definition = finding.definition.as_ref()?;
                let wrong = wrong_downs(definition);
                (!wrong.is_empty()).then(|| (finding.place.label(), wrong))
            });
            loaded.collect()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| RequestError::Internal(error.to_string()))
    }

    /// Moves when there is something to tell about plugins: a swap, or files that were read again and still do not come
    /// through.
    pub fn news(&self) -> channel::Receiver<u64> {
        self.inner.told.subscribe()
    }

    /// What kept answers depend on, at this moment. A few atomic loads.
    pub fn stamp(&self) -> Stamp {
        let readers = self.inner.row_readers.load();
        Stamp {
            generation: self.inner.current.load().number,
            catalogue: self.inner.store.catalogue_version(),
            rows: readers
                .iter()
                .map(|plugin| self.inner.store.row_counter(plugin))
                .sum(),
            retries: self.inner.retries.load(Ordering::Acquire),
        }
    }

    /// Figures for operators.
    pub fn metrics(&self) -> RegistryMetrics {
        let generation = self.current();
        let states: Vec<PluginState> = generation.findings.iter().map(Finding::state).collect();
        let count =
            |state: PluginState| states.iter().filter(|found| **found == state).count() as u64;
        let counters = &self.inner.counters;
        RegistryMetrics {
            generation: generation.number,
            plugins_by_state: PluginState::ALL
                .into_iter()
                .map(|state| (state.as_str(), count(state)))
                .collect(),
            reloads_total: counters.reloads.load(Ordering::Relaxed),
            reload_failures_total: counters.reload_failures.load(Ordering::Relaxed),
            hook_calls_total: self.inner.sandbox.hook_calls(),
            hook_failures_total: counters.hook_failures.load(Ordering::Relaxed),
        }
    }

    fn current(&self) -> Arc<Generation> {
        self.inner.current.load_full()
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }

    async fn rebuild(&self, touched: &Touched) -> ReloadSummary {
        self.rebuild_with(touched, Missing::Forget).await.0
    }

    /// Builds and swaps. Says too whether a place that serves is missing and was given time.
    async fn rebuild_with(&self, touched: &Touched, missing: Missing) -> (ReloadSummary, bool) {
        let mut builder = self.inner.builder.lock().await;
        let before = self.current();
        let built = builder.build(&before, touched, missing).await;
        self.swap(&before, built, touched)
    }

    /// Swaps what was built in. The builder is still held, so that generations come in their order.
    fn swap(&self, before: &Generation, built: Built, touched: &Touched) -> (ReloadSummary, bool) {
        let Built {
            next,
            summary,
            failing_in_passing,
            missing,
        } = built;
        let failed_again = !matches!(touched, Touched::Nothing) && !summary.failed.is_empty();
        let news = next.is_some() || failed_again;
        let counters = &self.inner.counters;
        counters.reloads.fetch_add(1, Ordering::Relaxed);
        if !summary.failed.is_empty() {
            counters.reload_failures.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(next) = next {
            let next = Arc::new(next);
            self.note_row_readers(&next);
            self.inner.current.store(next.clone());
            self.inner.swapped.send_replace(next.number);
            log_generation(before, &next);
            for entry in &next.entries {
                self.retry_form(&entry.active);
            }
        }
        if news {
            self.inner.told.send_modify(|count| *count += 1);
        }
        self.inner.rebuild_pause.note(failing_in_passing);
        if failing_in_passing {
            self.rebuild_later();
        }
        (summary, missing)
    }

    /// Builds again after a pause, because something failed that may pass by itself, such as a locked database.
    fn rebuild_later(&self) {
        let Some(pause) = self.inner.rebuild_pause.begin() else {
            return;
        };
        let registry = Arc::downgrade(&self.inner);
        let work: BoxFuture<'static, ()> = Box::pin(async move {
            tokio::time::sleep(pause).await;
            let Some(inner) = registry.upgrade() else {
                return;
            };
            inner.rebuild_pause.end();
            let registry = Registry { inner };
            registry
                .rebuild_with(&Touched::Nothing, Missing::Wait)
                .await;
        });
        tokio::spawn(work);
    }

    /// Keeps the list of plugins whose forms are computed from their rows.
    fn note_row_readers(&self, generation: &Generation) {
        let readers: Vec<String> = generation
            .entries
            .iter()
            .filter(|entry| entry.active.form.peek().is_some_and(|form| form.reads_rows))
            .map(|entry| entry.active.name().to_owned())
            .collect();
        if **self.inner.row_readers.load() != readers {
            self.inner.row_readers.store(Arc::new(readers));
        }
    }
}

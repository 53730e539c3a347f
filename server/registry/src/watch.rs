//! Noticing that plugin files changed.
//!
//! Events of the file system come in bursts: an editor writes a new file and renames it, a copy touches many files. A
//! burst is over after a little quiet, or cut off after a while; then what it touched is built at once.
//!
//! The parents of plugin paths are watched too, because a path may be a link that is swapped, or appear only later. What
//! an event does not clearly place inside a path means that anything may have changed: so does the `..data` link by
//! which Kubernetes updates a mounted folder.
//!
//! In the packages' folder, what is hidden is still being put together. The folders of linked packages are watched like
//! plugin paths, from when `plugins.lock` lists them until it does not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Config, Event, EventKind, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use crate::packages::Packages;
use crate::reload::{Missing, Touched};
use crate::settings::{RegistrySettings, WatchSettings};
use crate::{Inner, Registry};

/// How often to look when the file system's events cannot be had.
const FALLBACK_POLL: Duration = Duration::from_secs(1);

/// How long a plugin that serves may be gone from its folder before it counts as removed.
const COME_BACK: Duration = Duration::from_millis(100);

type Events = mpsc::UnboundedReceiver<notify::Result<Event>>;

/// Watches that stand before the first load, so that no change falls between the two.
pub(crate) struct Watching {
    watcher: FileWatcher,
    events: Events,
    settings: WatchSettings,
}

impl Watching {
    /// Begins to collect what happens in the plugin paths.
    pub(crate) fn begin(settings: &RegistrySettings) -> Watching {
        let (send, events) = mpsc::unbounded_channel();
        if let Err(error) = std::fs::create_dir_all(&settings.packages) {
            let packages = settings.packages.display();
            tracing::warn!("Plugin registry: packages in {packages} are not noticed: {error}");
        }
        let libraries = settings.libraries.iter().map(|path| path.join("lib"));
        let paths = settings.plugin_paths.iter().cloned().chain(libraries);
        let mut roots: Vec<Root> = paths
            .map(|path| Root::new(path, Kind::PluginPath))
            .collect();
        roots.push(Root::new(settings.packages.clone(), Kind::Packages));
        let packages = Packages::at(settings.packages.clone());
        Watching {
            watcher: FileWatcher::new(roots, packages, settings.watch, send),
            events,
            settings: settings.watch,
        }
    }

    /// Starts the tasks that rebuild when files change and when another process wrote to the database.
    pub(crate) fn spawn(self, registry: &Registry) {
        let registry_ref = Arc::downgrade(&registry.inner);
        tokio::spawn(follow_files(
            registry_ref.clone(),
            self.watcher,
            self.events,
            self.settings,
        ));
        if let Some(interval) = self.settings.poll {
            tokio::spawn(follow_places(registry_ref.clone(), interval));
        }
        tokio::spawn(follow_store(registry_ref, registry.inner.store.changes()));
    }
}

async fn follow_files(
    registry: Weak<Inner>,
    mut watcher: FileWatcher,
    mut events: Events,
    settings: WatchSettings,
) {
    while let Some(first) = events.recv().await {
        let mut touched = watcher.touched(first);
        let cut_off = Instant::now() + settings.settle_max;
        loop {
            let quiet = (Instant::now() + settings.settle).min(cut_off);
            match timeout_at(quiet, events.recv()).await {
                Ok(Some(event)) => touched = merge(touched, watcher.touched(event)),
                Ok(None) => return,
                Err(_) => break,
            }
        }
        if matches!(touched, Touched::Nothing) {
            continue;
        }
        let Some(inner) = registry.upgrade() else {
            return;
        };
        watcher.watch_again();
        let registry = Registry { inner };
        let (_, missing) = registry.rebuild_with(&touched, Missing::Wait).await;
        if missing {
            // What is replaced by removing and writing anew comes back within this time; what does not is gone.
            tokio::time::sleep(COME_BACK).await;
            registry.rebuild(&Touched::Nothing).await;
        }
    }
}

/// The poller knows a file only once it has looked at it. A plugin that was loaded before, because something else asked
/// for a reload, and goes before the poller's next look, is gone without an event.
async fn follow_places(registry: Weak<Inner>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(inner) = registry.upgrade() else {
            return;
        };
        let differ = inner.builder.lock().await.places_differ().await;
        if differ {
            Registry { inner }.rebuild(&Touched::Nothing).await;
        }
    }
}

/// A write of another process may have run the migration that a plugin waits for.
async fn follow_store(registry: Weak<Inner>, mut changes: tokio::sync::watch::Receiver<u64>) {
    while changes.changed().await.is_ok() {
        let Some(inner) = registry.upgrade() else {
            return;
        };
        let registry = Registry { inner };
        registry
            .rebuild_with(&Touched::Nothing, Missing::Wait)
            .await;
    }
}

fn merge(a: Touched, b: Touched) -> Touched {
    match (a, b) {
        (Touched::Everything, _) | (_, Touched::Everything) => Touched::Everything,
        (Touched::Nothing, other) | (other, Touched::Nothing) => other,
        (Touched::Paths(mut a), Touched::Paths(b)) => {
            a.extend(b);
            Touched::Paths(a)
        }
    }
}

/// The watches on the plugin paths and their parents.
struct FileWatcher {
    watcher: Option<Box<dyn Watcher + Send>>,
    roots: Vec<Root>,
    packages: Packages,
}

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    PluginPath,
    /// Its parent is not watched: the database lies there and writes all the time.
    Packages,
    /// The folder of a linked package.
    Link,
}

struct Root {
    /// As configured; what scans find lies below it.
    path: PathBuf,
    /// Where it is, links resolved; what events name lies below it.
    real: Option<PathBuf>,
    /// The nearest parent that is there, watched so that the path's appearance or swap is noticed.
    parent: Option<PathBuf>,
    kind: Kind,
    /// Whether it lies in another root, whose watch sees it too.
    covered: bool,
}

impl Root {
    fn new(path: PathBuf, kind: Kind) -> Root {
        Root {
            path,
            real: None,
            parent: None,
            kind,
            covered: false,
        }
    }
}

impl FileWatcher {
    fn new(
        roots: Vec<Root>,
        packages: Packages,
        settings: WatchSettings,
        send: mpsc::UnboundedSender<notify::Result<Event>>,
    ) -> Self {
        let handler = move |event| {
            // The receiver is gone only when the server stops.
            let _ = send.send(event);
        };
        let mut this = FileWatcher {
            watcher: make_watcher(settings, handler),
            roots,
            packages,
        };
        this.watch_again();
        this
    }

    /// Watches what is there now; a path may have appeared, gone, or come to lie elsewhere.
    fn watch_again(&mut self) {
        self.follow_links();
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let reals: Vec<PathBuf> = self
            .roots
            .iter()
            .filter_map(|root| root.path.canonicalize().ok())
            .collect();
        for root in &mut self.roots {
            let real = root.path.canonicalize().ok();
            if real != root.real {
                if let Some(old) = root.real.take().filter(|_| !root.covered) {
                    // It may be gone already, and its watch with it.
                    let _ = watcher.unwatch(&old);
                }
                // A watch of its own would end that of the other root for this folder, once it ends.
                root.covered = root.kind == Kind::Link
                    && real.as_ref().is_some_and(|real| {
                        let others = reals.iter().filter(|other| *other != real);
                        others.into_iter().any(|other| real.starts_with(other))
                            || reals.iter().filter(|other| *other == real).count() > 1
                    });
                if root.covered {
                    root.real = real;
                } else if let Some(new) = &real {
                    match watcher.watch(new, RecursiveMode::Recursive) {
                        Ok(()) => root.real = real,
                        Err(error) => tracing::error!(
                            "Plugin registry: changes in {} are not noticed: {error} (set poll_ms, or raise the system's limit on watches)",
                            root.path.display()
                        ),
                    }
                }
            }
            // A parent that lies in a watched path is watched already, and a second watch would take the first one's place.
            let parent = nearest_parent(&root.path)
                .filter(|_| root.kind != Kind::Packages)
                .filter(|parent| !reals.iter().any(|real| parent.starts_with(real)));
            if parent != root.parent
                && let Some(new) = &parent
                && watcher.watch(new, RecursiveMode::NonRecursive).is_ok()
            {
                root.parent = parent;
            }
        }
    }

    /// Watches the folders of linked packages, and no longer those of packages that are gone.
    fn follow_links(&mut self) {
        // With a lock that cannot be read, what is linked stays as it was.
        let Ok(lock) = self.packages.lock() else {
            return;
        };
        let links: BTreeSet<PathBuf> = lock
            .iter()
            .flat_map(|lock| &lock.packages)
            .filter_map(|locked| locked.link().cloned())
            .collect();
        let watcher = &mut self.watcher;
        self.roots.retain(|root| {
            let stays = root.kind != Kind::Link || links.contains(&root.path);
            if !stays
                && !root.covered
                && let (Some(watcher), Some(real)) = (watcher.as_mut(), &root.real)
            {
                // It may be gone already, and its watch with it.
                let _ = watcher.unwatch(real);
            }
            stays
        });
        for link in links {
            if !self
                .roots
                .iter()
                .any(|root| root.path == link && root.kind == Kind::Link)
            {
                self.roots.push(Root::new(link, Kind::Link));
            }
        }
    }

    /// What an event touches, in terms of the configured paths.
    fn touched(&self, event: notify::Result<Event>) -> Touched {
        let Ok(event) = event else {
            return Touched::Everything;
        };
        if event.need_rescan() {
            return Touched::Everything;
        }
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let reads_only = matches!(event.kind, EventKind::Access(_)) && event.kind != written;
        if reads_only {
            return Touched::Nothing;
        }
        event
            .paths
            .iter()
            .map(|path| self.touched_path(path))
            .fold(Touched::Nothing, merge)
    }

    fn touched_path(&self, path: &Path) -> Touched {
        let mut touched = Touched::Nothing;
        for root in &self.roots {
            if let Some(inside) = root
                .real
                .as_ref()
                .and_then(|real| path.strip_prefix(real).ok())
            {
                let hidden_link = inside
                    .components()
                    .any(|part| part.as_os_str().to_string_lossy().starts_with(".."));
                if hidden_link || inside.as_os_str().is_empty() {
                    return Touched::Everything;
                }
                let hidden = |inside: &Path| {
                    let first = inside.components().next();
                    first.is_some_and(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
                };
                if root.kind == Kind::Packages && hidden(inside) {
                    continue;
                }
                let temporary = inside.file_name().is_some_and(|name| {
                    let name = name.to_string_lossy();
                    name.ends_with('~')
                        || name.ends_with(".swp")
                        || name.ends_with(".swx")
                        || name.starts_with(".#")
                });
                if !temporary {
                    touched = merge(
                        touched,
                        Touched::Paths(BTreeSet::from([root.path.join(inside)])),
                    );
                }
            } else if root
                .parent
                .as_deref()
                .is_some_and(|parent| leads_to(parent, path, &root.path))
            {
                return Touched::Everything;
            }
        }
        touched
    }
}

/// Whether `path`, seen in the watched `parent`, is on the way to `root`.
fn leads_to(parent: &Path, path: &Path, root: &Path) -> bool {
    let absolute = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let on_the_way = |candidate: &Path| absolute.starts_with(candidate);
    on_the_way(path)
        || path.strip_prefix(parent).is_ok_and(|name| {
            std::path::absolute(parent).is_ok_and(|parent| on_the_way(&parent.join(name)))
        })
}

fn nearest_parent(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    let canonical = |parent: &Path| parent.canonicalize().unwrap_or_else(|_| parent.to_owned());
    absolute
        .ancestors()
        .skip(1)
        .find(|ancestor| ancestor.is_dir())
        .map(canonical)
}

fn make_watcher(
    settings: WatchSettings,
    handler: impl Fn(notify::Result<Event>) + Send + Clone + 'static,
) -> Option<Box<dyn Watcher + Send>> {
    let polling = |interval| {
        let config = Config::default()
            .with_poll_interval(interval)
            .with_compare_contents(true);
        match PollWatcher::new(handler.clone(), config) {
            Ok(watcher) => Some(Box::new(watcher) as Box<dyn Watcher + Send>),
            Err(error) => {
                tracing::error!(
                    "Plugin registry: changes of plugin files are not noticed: {error}"
                );
                None
            }
        }
    };
    if let Some(interval) = settings.poll {
        return polling(interval);
    }
    match RecommendedWatcher::new(handler.clone(), Config::default()) {
        Ok(watcher) => Some(Box::new(watcher)),
        Err(error) => {
            tracing::warn!(
                "Plugin registry: the file system has no events ({error}); looking every second instead"
            );
            polling(FALLBACK_POLL)
        }
    }
}

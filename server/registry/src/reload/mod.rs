//! Building the next generation: read, load aside, choose, check, migrate, swap.
//!
//! The order is what keeps the invariants. Everything that can fail happens before the swap, on a plugin of its own, and
//! a failure leaves the version that serves. Migrations come last: every plugin of a burst is checked and its form
//! computed before the first one migrates, because from then until the swap the older version cannot write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;
use patchbay_lua::{LoadError, Sandbox, SettingsLookup};
use patchbay_plugin::platform::PluginState;
use patchbay_store::{Held, Store};

use crate::RequestError;
use crate::discovery::{Bundle, Origin, PinnedFiles, Place, ReadError, Scan, scan_beside};
use crate::enabling::Selectable;
use crate::error::plugin_not_found;
use crate::form::{compute, last_error};
use crate::generation::{Entry, Finding, Generation};
use crate::packages::Packages;
use crate::settings::{RegistrySettings, Shipped};
use crate::wire::{LastError, ReloadSummary};

mod activation;
mod choice;
mod judge;
mod migrating;
mod plugin_settings;
mod promise;
mod report;
mod rows;
mod slot;

use judge::rows_warning;
use slot::{Loaded, Slot, differs, fingerprint};

pub(crate) use activation::Claims;
use activation::held_warning;
pub use migrating::{Migrated, MigrationOrder, StepPreview, WrittenMigration};
pub(crate) use plugin_settings::settings_of;
pub(crate) use promise::compared;
pub(crate) use report::log_generation;
pub(crate) use slot::Touched;

/// How many plugins are loaded at once. More only wait for the sandbox's threads, and each holds a VM meanwhile: the memory
/// of all of them would stay with the process.
const LOADS_AT_ONCE: usize = 4;

/// How a slot is known: its plugin path, whether it is an example, and its identity. Slots are in the order of places.
type Key = (usize, bool, String);

/// What the next generation is built from. There is one, behind a lock, so that builds never overlap.
pub(crate) struct Builder {
    settings: RegistrySettings,
    packages: Packages,
    shipped: Shipped,
    store: Store,
    sandbox: Sandbox,
    lookup: SettingsLookup,
    slots: BTreeMap<Key, Slot>,
    missing: Missing,
    /// The plugin whose newest version is to serve whatever it says of the rows, during one build.
    force: Option<String>,
    /// What is wrong with the packages.
    package_problems: Vec<String>,
    /// At which step plugins are held, as the last build found it.
    held: BTreeMap<String, Held>,
    /// Which plugins' tables are not what their migrations made, as the last build found it.
    drifts: BTreeMap<String, Vec<String>>,
}

/// What to do with a place that serves and is not found any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Keep it for now, because it may be about to come back.
    Wait,
    /// Drop it.
    Forget,
}

/// What a build gives.
pub(crate) struct Built {
    /// The next generation; none when nothing is different.
    pub(crate) next: Option<Generation>,
    /// What changed.
    pub(crate) summary: ReloadSummary,
    /// Whether something failed that is worth another try by itself.
    pub(crate) failing_in_passing: bool,
    /// Whether a place that serves was not found, and is kept until it has been missed twice.
    pub(crate) missing: bool,
}

/// Runs over the definitions of slots as the selection wants them.
fn with_selectables<T>(slots: &BTreeMap<Key, Slot>, run: impl FnOnce(&[Selectable<'_>]) -> T) -> T {
    let known: Vec<_> = slots.values().filter_map(Slot::selectable).collect();
    let found: Vec<Selectable<'_>> = known
        .iter()
        .map(|(definition, location, example)| Selectable {
            definition,
            location,
            example: *example,
        })
        .collect();
    run(&found)
}

impl Builder {
    pub(crate) fn new(
        settings: RegistrySettings,
        shipped: Shipped,
        store: Store,
        sandbox: Sandbox,
    ) -> Builder {
        let packages = Packages::at(settings.packages.clone());
        let values = settings.plugin_settings.clone();
        let lookup: SettingsLookup =
            Arc::new(move |name, fields| settings_of(&values, name, fields));
        Builder {
            settings,
            packages,
            shipped,
            store,
            sandbox,
            lookup,
            slots: BTreeMap::new(),
            missing: Missing::Forget,
            force: None,
            package_problems: Vec::new(),
            held: BTreeMap::new(),
            drifts: BTreeMap::new(),
        }
    }

    /// Scans the plugin paths and the packages, away from the threads that serve.
    async fn scan(&self, with_examples: bool) -> Option<Scan> {
        let (shipped, packages) = (self.shipped, self.packages.clone());
        let paths = self.settings.plugin_paths.clone();
        let libraries = self.settings.libraries.clone();
        let work = move || scan_beside(shipped, &libraries, &paths, Some(&packages), with_examples);
        tokio::task::spawn_blocking(work).await.ok()
    }

    /// Builds the generation that follows `current`.
    pub(crate) async fn build(
        &mut self,
        current: &Generation,
        touched: &Touched,
        missing: Missing,
    ) -> Built {
        let number = current.number + 1;
        self.missing = missing;
        self.look(touched, number).await;
        let mut problems =
            with_selectables(&self.slots, |found| self.settings.selection.problems(found));
        problems.extend(self.package_problems.iter().cloned());
        let prepared = self.prepare(current, touched).await;
        self.settle(prepared, number).await;
        self.slots
            .retain(|_, slot| !slot.place.example || slot.enabled);
        let failing_in_passing = self.slots.values().any(|slot| {
            slot.enabled && slot.failure.as_ref().is_some_and(|failure| failure.passing)
        });
        let next = self.generation(number, problems);
        let (mut summary, differs) = compare(current, &next);
        if !differs {
            summary.generation = current.number;
        }
        Built {
            next: differs.then_some(next),
            summary,
            failing_in_passing,
            missing: self.slots.values().any(|slot| slot.missed),
        }
    }

    /// As [`build`](Builder::build) of everything, with the newest version of one plugin taken whatever it says of the rows.
    ///
    /// # Errors
    /// `NotFound` when no plugin of that name was found.
    pub(crate) async fn build_forced(
        &mut self,
        current: &Generation,
        force: &str,
    ) -> (Built, Result<(), RequestError>) {
        self.force = Some(force.to_owned());
        let built = self
            .build(current, &Touched::Everything, Missing::Forget)
            .await;
        self.force = None;
        let found = self.slots.values().any(|slot| {
            slot.definition()
                .is_some_and(|definition| definition.answers_to(force))
        });
        (
            built,
            found.then_some(()).ok_or_else(|| plugin_not_found(force)),
        )
    }

    /// Whether the plugin paths hold other places than are known. Where the file system tells nothing, what came and went
    /// between two looks at the files shows only here.
    pub(crate) async fn places_differ(&self) -> bool {
        let Some(scan) = self.scan(false).await else {
            return false;
        };
        let found: BTreeSet<&Place> = scan.places.iter().collect();
        let known: BTreeSet<&Place> = self
            .slots
            .values()
            .map(|slot| &slot.place)
            .filter(|place| !place.example && scan.missing_for(place).is_none())
            .collect();
        found != known || self.package_problems != scan.problems
    }

    /// Scans the plugin paths, reads what may have changed, and loads what has.
    async fn look(&mut self, touched: &Touched, number: u64) {
        self.look_once(touched, false, number).await;
        let seeks_more = with_selectables(&self.slots, |found| {
            let scanned: Vec<_> = found
                .iter()
                .filter(|plugin| !plugin.example)
                .copied()
                .collect();
            self.settings.selection.seeks_more(&scanned)
        });
        if seeks_more {
            self.look_once(touched, true, number).await;
        }
    }

    async fn look_once(&mut self, touched: &Touched, with_examples: bool, number: u64) {
        let Some(scan) = self.scan(with_examples).await else {
            return;
        };
        self.package_problems = scan.problems.clone();
        let scan = Arc::new(scan);
        self.forget_missing(&scan, with_examples);
        let mut to_read: Vec<Place> = Vec::new();
        for place in &scan.places {
            let key = (place.root, place.example, place.identity());
            let is_new = self.slots.get(&key).is_none_or(|slot| slot.place != *place);
            let slot = self
                .slots
                .entry(key)
                .or_insert_with(|| Slot::new(place.clone()));
            slot.place = place.clone();
            let is_new = is_new || std::mem::take(&mut slot.lost);
            if is_new || touched.concerns(place, &scan, slot) {
                to_read.push(place.clone());
            }
        }
        let (shipped, libs) = (self.shipped, scan.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut pinned = PinnedFiles::default();
            to_read
                .into_iter()
                .map(|place| {
                    let modules = libs.libs.get(&place.root).cloned().unwrap_or_default();
                    let bundle = place.read(shipped, modules, &mut pinned);
                    (place, bundle)
                })
                .collect::<Vec<_>>()
        });
        let mut to_load = Vec::new();
        for (place, bundle) in read.await.unwrap_or_default() {
            let key = (place.root, place.example, place.identity());
            let Some(slot) = self.slots.get_mut(&key) else {
                continue;
            };
            match bundle {
                Err(ReadError::Vanished) => {
                    // It was there a moment ago. What serves goes on until a scan no longer finds the place.
                    if slot.active.is_none() && slot.loaded.is_none() {
                        self.slots.remove(&key);
                    }
                }
                Err(ReadError::Failed(reason)) => {
                    slot.bundle = None;
                    let error =
                        LastError::plain("read", format!("{}: {reason}", place.label()), None);
                    slot.fail_load(LastError {
                        file: Some(slot.entry_file()),
                        ..error
                    });
                    slot.since = number;
                }
                Err(ReadError::Changed { file, reason }) => {
                    slot.bundle = None;
                    slot.fail_load(LastError {
                        file: Some(file),
                        ..LastError::plain("package", reason, None)
                    });
                    slot.since = number;
                }
                Ok(bundle)
                    if slot
                        .bundle
                        .as_ref()
                        .is_some_and(|before| !differs(before, &bundle, slot)) =>
                {
                    slot.refresh_icon();
                }
                Ok(bundle) => to_load.push((key, bundle)),
            }
        }
        for slot in to_load.iter().filter_map(|(key, _)| self.slots.get(key)) {
            tracing::debug!("Plugin registry: loading {}", slot.place.label());
        }
        let this = &*self;
        let results: Vec<_> = futures_util::stream::iter(to_load)
            .map(|(key, bundle)| async move {
                let result = this.load(&key, &bundle).await;
                (key, bundle, result)
            })
            .buffer_unordered(LOADS_AT_ONCE)
            .collect()
            .await;
        for (key, bundle, result) in results {
            let Some(slot) = self.slots.get_mut(&key) else {
                continue;
            };
            slot.since = number;
            match result {
                Ok(loaded) => {
                    slot.load_failure = None;
                    slot.loaded = Some(loaded);
                    slot.bundle = Some(bundle);
                    slot.refresh_icon();
                }
                Err(error) => {
                    slot.bundle = Some(bundle);
                    let state = match error.is_incompatible() {
                        true => PluginState::Incompatible,
                        false => PluginState::Failed,
                    };
                    let error = last_error(
                        &error.reports,
                        "load",
                        "it cannot be loaded",
                        error.version.as_deref(),
                    );
                    slot.fail_load_as(state, error);
                }
            }
        }
    }

    /// Loads what was read. Where nothing serves from that place yet, the form is computed right away: that needs the VM
    /// which the load has built, and when many plugins are loaded it would be gone by the time they are all checked.
    async fn load(&self, key: &Key, bundle: &Bundle) -> Result<Loaded, LoadError> {
        let source = bundle.source.clone();
        let plugin = self.sandbox.load(source, self.lookup.clone()).await?;
        let slot = self.slots.get(key).filter(|slot| {
            let plugin = Selectable {
                definition: plugin.definition(),
                location: &slot.place.location(),
                example: slot.place.example,
            };
            slot.active.is_none() && !slot.place.is_off() && self.settings.selection.enables(plugin)
        });
        let form = match slot {
            Some(_) => Some(Arc::new(compute(&plugin, &self.store, None, None).await)),
            None => {
                plugin.rest();
                None
            }
        };
        let code = fingerprint(bundle, &plugin);
        Ok(Loaded {
            fingerprint: code,
            code,
            plugin,
            icon: None,
            form,
        })
    }

    /// Drops the places that a scan no longer finds; while a burst of changes may still be under way, one that serves is
    /// kept until it has been missed for a while, because a file that is replaced is gone for a moment. When a whole plugin path is gone, what it held keeps serving: an
    /// unmounted folder is no wish to remove every plugin in it.
    fn forget_missing(&mut self, scan: &Scan, with_examples: bool) {
        let found: BTreeSet<Key> = scan
            .places
            .iter()
            .map(|place| (place.root, place.example, place.identity()))
            .collect();
        let missing = self.missing;
        self.slots.retain(|key, slot| {
            slot.missed = false;
            if found.contains(key) || (key.1 && !with_examples) {
                return true;
            }
            // What the lock lists no more was taken out on purpose.
            let pinned = matches!(slot.place.origin, Origin::Installed(_));
            if missing == Missing::Wait && slot.active.is_some() && !pinned {
                slot.missed = true;
                return true;
            }
            let reason = scan.missing_for(&slot.place);
            match reason.filter(|_| slot.active.is_some()) {
                Some(reason) => {
                    let path = self.settings.plugin_paths.get(key.0.wrapping_sub(1));
                    let message = match path {
                        Some(path) => format!("the plugin path {}: {reason}", path.display()),
                        None => reason.clone(),
                    };
                    slot.fail_load(LastError::plain("read", message, None));
                    slot.lost = true;
                    true
                }
                None => false,
            }
        });
    }

    fn generation(&self, number: u64, problems: Vec<String>) -> Generation {
        let mut entries = Vec::new();
        let mut findings = Vec::new();
        for slot in self.slots.values() {
            let failure = slot.load_failure.clone().or_else(|| slot.failure.clone());
            let formless_state = match (&slot.active, &failure) {
                (Some(_), None) => PluginState::Active,
                (Some(_), Some(failure)) => failure.beside_serving(),
                (None, Some(failure)) => failure.state,
                (None, None) => PluginState::Disabled,
            };
            // Embedded plugins that a path's plugin stands in for are the ordinary case and only noise.
            if slot.place.root == 0 && !slot.warnings.is_empty() && slot.active.is_none() {
                continue;
            }
            if let Some(active) = &slot.active {
                entries.push(Entry {
                    active: active.clone(),
                    failure: failure.clone(),
                    drift: slot.drift.clone(),
                    finding: findings.len(),
                });
            }
            findings.push(Finding {
                place: slot.place.clone(),
                definition: slot.definition().cloned(),
                formless_state,
                serving: slot.active.clone(),
                failure,
                warnings: {
                    let broken = slot
                        .active
                        .as_ref()
                        .and_then(|active| active.broken_promise.clone());
                    let refused = slot.active.as_ref().and_then(|active| {
                        let check = active.refused.as_ref()?;
                        Some(rows_warning(active.definition(), check))
                    });
                    let held = slot.active.as_ref().and_then(|active| {
                        let held = self.held.get(active.name())?;
                        Some(held_warning(held, active.name()))
                    });
                    let own = slot.warnings.iter().cloned();
                    own.chain(broken)
                        .chain(held)
                        .chain(refused.into_iter().flatten())
                        .collect()
                },
                since: slot.since,
            });
        }
        Generation::new(number, entries, findings, problems)
    }
}

/// What differs between two generations, and whether anything does.
fn compare(before: &Generation, now: &Generation) -> (ReloadSummary, bool) {
    let mut summary = ReloadSummary {
        generation: now.number,
        ..ReloadSummary::default()
    };
    for entry in &now.entries {
        let name = entry.active.name().to_owned();
        match before.entries.iter().find(|old| old.active.name() == name) {
            None => summary.added.push(name),
            Some(old) if !Arc::ptr_eq(&old.active, &entry.active) => summary.changed.push(name),
            Some(_) => {}
        }
    }
    for old in &before.entries {
        if !now
            .entries
            .iter()
            .any(|entry| entry.active.name() == old.active.name())
        {
            summary.removed.push(old.active.name().to_owned());
        }
    }
    for finding in &now.findings {
        if finding.trouble().is_some() {
            summary.failed.push(match &finding.definition {
                Some(definition) => definition.name.to_string(),
                None => finding.place.label(),
            });
        }
    }
    let same_findings = before.findings.len() == now.findings.len()
        && before
            .findings
            .iter()
            .zip(&now.findings)
            .all(|(old, new)| old.agrees_with(new));
    let differs = before.number == 0
        || !summary.added.is_empty()
        || !summary.changed.is_empty()
        || !summary.removed.is_empty()
        || !same_findings
        || before.problems != now.problems;
    (summary, differs)
}

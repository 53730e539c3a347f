//! What there is to build from: the plugin paths and packages are scanned, what may have changed is read, and what has is
//! loaded aside. Nothing that serves is touched here.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use patchbay_lua::LoadError;
use patchbay_plugin::platform::PluginState;

use super::slot::{Loaded, Slot, differs, fingerprint};
use super::{Builder, Key, LOADS_AT_ONCE, Missing, Touched, with_selectables};
use crate::discovery::{Bundle, Origin, PinnedFiles, Place, ReadError, Scan, scan_beside};
use crate::enabling::Selectable;
use crate::form::{compute, last_error};
use crate::wire::LastError;

impl Builder {
    /// Scans the plugin paths and the packages, away from the threads that serve.
    async fn scan(&self, with_examples: bool) -> Option<Scan> {
        let (shipped, packages) = (self.shipped, self.packages.clone());
        let paths = self.settings.plugin_paths.clone();
        let libraries = self.settings.libraries.clone();
        let work = move || scan_beside(shipped, &libraries, &paths, Some(&packages), with_examples);
        tokio::task::spawn_blocking(work).await.ok()
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
    pub(super) async fn look(&mut self, touched: &Touched, number: u64) {
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
}

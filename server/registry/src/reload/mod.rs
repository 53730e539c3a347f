//! Building the next generation: read, load aside, choose, check, migrate, swap.
//!
//! The order is what keeps the invariants. Everything that can fail happens before the swap, on a plugin of its own, and
//! a failure leaves the version that serves. Migrations come last: every plugin of a burst is checked and its form
//! computed before the first one migrates, because from then until the swap the older version cannot write.

use std::collections::BTreeMap;
use std::sync::Arc;

use patchbay_lua::{Sandbox, SettingsLookup};
use patchbay_plugin::platform::PluginState;
use patchbay_store::{Held, Store};

use crate::RequestError;
use crate::enabling::Selectable;
use crate::error::plugin_not_found;
use crate::generation::{Entry, Finding, Generation};
use crate::packages::Packages;
use crate::settings::{RegistrySettings, Shipped};
use crate::wire::ReloadSummary;

mod activation;
mod choice;
mod judge;
mod look;
mod migrating;
mod plugin_settings;
mod promise;
mod report;
mod rows;
mod slot;

use judge::rows_warning;
use slot::Slot;

use activation::held_warning;
pub(crate) use activation::{Claims, held_at};
pub use migrating::{Migrated, MigrationOrder, StepPreview, WrittenMigration};
pub(crate) use plugin_settings::settings_of;
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
    /// Who it is that applies versions.
    pub(crate) by: String,
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
            by: String::new(),
        }
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

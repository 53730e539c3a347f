//! Who serves a name: what of several plugins wins, and what stays when the newest version does not come through.
//!
//! Each enabled place contends for the name that its newest version has. The later plugin path comes first, within one
//! path the first file name. The first contender that can serve does; what serves already is dropped only when another
//! one has taken its name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::StreamExt;
use patchbay_plugin::migration::AppliedMigration;
use patchbay_plugin::outline::Outline;
use patchbay_store::AppliedMark;

use super::activation::{Activation, Claims, Known, Ready, drifted};
use super::judge::hex;
use super::slot::{Loaded, Slot};
use super::{Builder, Key, LOADS_AT_ONCE, Touched};
use crate::enabling::Selectable;
use crate::generation::{ActivePlugin, Failure, Generation};

/// A version that is to be checked: where it is, whether its table has changed under it, and what held it back before.
type Contender = (Key, Loaded, bool, Option<Arc<Failure>>);

/// The slots in the order in which they are preferred for one name.
pub(super) fn by_preference(slots: &BTreeMap<Key, Slot>) -> impl Iterator<Item = (&Key, &Slot)> {
    let mut ordered: Vec<(&Key, &Slot)> = slots.iter().collect();
    ordered.sort_by(|(a, _), (b, _)| b.0.cmp(&a.0).then_with(|| a.cmp(b)));
    ordered.into_iter()
}

impl Builder {
    /// Marks which places are enabled.
    pub(super) fn enable(&mut self) {
        for slot in self.slots.values_mut() {
            slot.warnings.clear();
            // What shows rows only does so until something changes.
            slot.failure = slot
                .active
                .as_ref()
                .and_then(|active| Some(active.read_only.as_ref()?.failure.clone()));
            slot.enabled = !slot.place.is_off()
                && slot
                    .selectable()
                    .is_some_and(|(definition, location, example)| {
                        self.settings.selection.enables(Selectable {
                            definition: &definition,
                            location: &location,
                            example,
                        })
                    });
        }
    }

    pub(super) fn activation(&self) -> Activation<'_> {
        Activation {
            store: &self.store,
            auto_migrate: self.settings.auto_migrate,
            strict_versions: self.settings.strict_versions,
            held: &self.held,
            drifts: &self.drifts,
            row_check: self.settings.row_check,
            by: &self.by,
        }
    }

    /// Of the places that contend for each name, the one that is preferred.
    fn first_contenders(&self) -> BTreeSet<Key> {
        let mut names = BTreeSet::new();
        by_preference(&self.slots)
            .filter(|(_, slot)| slot.enabled)
            .filter(|(_, slot)| {
                slot.definition()
                    .is_some_and(|definition| names.insert(definition.name.to_string()))
            })
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// The version that serves although it would refuse rows, or is shown although its number promises too little, when that
    /// shall be accepted.
    fn to_accept<'a>(&self, slot: &'a Slot) -> Option<&'a Loaded> {
        let active = slot.active.as_ref()?;
        let force = self.force.as_ref()?;
        let told = (active.refused.is_some() || active.is_refused())
            && active.definition().answers_to(force);
        slot.loaded
            .as_ref()
            .filter(|loaded| told && loaded.fingerprint == active.fingerprint)
    }

    /// Checks every newest version that does not serve yet, and computes their forms, side by side.
    pub(super) async fn prepare(
        &mut self,
        current: &Generation,
        touched: &Touched,
    ) -> HashMap<Key, Result<Ready, Failure>> {
        self.enable();
        let marks = self.store.applied_marks().await;
        let none = BTreeMap::new();
        let known = marks.as_ref().unwrap_or(&none);
        // Steps that a version counts on may have been taken back.
        let moved: Vec<Key> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.enabled && slot.has_moved(known))
            .map(|(key, _)| key.clone())
            .collect();
        let looks_again =
            |slot: &Slot| slot.drift.is_some() || matches!(touched, Touched::Everything);
        let examined = self.slots.values().any(|slot| {
            slot.enabled
                && (slot.newest().is_some()
                    || slot.refused_before(known).is_some()
                    || (slot.active.is_some() && looks_again(slot)))
        });
        // Also when nothing else is to be looked at: a plugin is let go after its last step has run.
        match self.store.held().await {
            Ok(held) => self.held = held,
            Err(error) => tracing::error!(
                "Plugin registry: what is held cannot be read: {}",
                error.detail()
            ),
        }
        if !examined && moved.is_empty() {
            return HashMap::new();
        }
        // What is applied is one with the steps: where one of them cannot be read, nothing is known.
        let histories = match &marks {
            Ok(_) => self.store.histories().await,
            Err(error) => Err(error.clone()),
        };
        if let Err(error) = &histories {
            tracing::error!(
                "Plugin registry: the migration histories cannot be read: {}",
                error.detail()
            );
        }
        if let Ok(histories) = &histories {
            for key in moved {
                let Some(slot) = self.slots.get_mut(&key) else {
                    continue;
                };
                slot.leave_what_was_taken_back(histories);
            }
        }
        let newest: Vec<Contender> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.enabled)
            .filter_map(|(key, slot)| {
                let unserved = slot.newest().or_else(|| self.to_accept(slot));
                let (loaded, stale) = match unserved.or_else(|| slot.refused_before(known)) {
                    Some(loaded) => (loaded, false),
                    None => (slot.stale(known)?, true),
                };
                Some((key.clone(), loaded.clone(), stale, slot.held_back.clone()))
            })
            .collect();
        let names = newest
            .iter()
            .map(|(_, loaded, ..)| loaded.plugin.definition().name.to_string())
            .collect();
        self.look_at_tables(names, histories.as_ref().ok(), touched)
            .await;
        let outlines = &self.outlines(current, &newest, known).await;
        let first = &self.first_contenders();
        let stays = |active: &Arc<ActivePlugin>| {
            let mut own = self.slots.values().filter(|slot| slot.enabled);
            own.any(|slot| {
                slot.active
                    .as_ref()
                    .is_some_and(|own| Arc::ptr_eq(own, active))
            })
        };
        let (activation, histories) = (self.activation(), &histories);
        let force = self.force.as_deref();
        futures_util::stream::iter(newest)
            .map(|(key, loaded, stale, held_back)| async move {
                let name = loaded.plugin.definition().name.as_str().to_owned();
                let serving = current
                    .entry(&name)
                    .filter(|entry| entry.active.name() == name);
                let history = histories
                    .as_ref()
                    .map(|histories| histories.get(&name).map(Vec::as_slice).unwrap_or_default());
                let definition = loaded.plugin.definition();
                let asked = Known {
                    serving: serving.map(|entry| &entry.active),
                    history,
                    mark: known.get(&name),
                    outline: outlines.get(&name),
                    stale,
                    goes: !serving.is_some_and(|entry| stays(&entry.active)),
                    first: first.contains(&key),
                    forced: force.is_some_and(|force| definition.answers_to(force)),
                    held_back: held_back.as_ref(),
                };
                (key, activation.prepare(loaded, asked).await)
            })
            .buffer_unordered(LOADS_AT_ONCE)
            .collect()
            .await
    }

    /// What is applied of the plugins, to compare versions with. It is only read where it counts: where nothing serves that
    /// could be compared with, or a version may be refused. Code that is applied already needs no comparison.
    async fn outlines(
        &self,
        current: &Generation,
        newest: &[Contender],
        marks: &BTreeMap<String, AppliedMark>,
    ) -> BTreeMap<String, Outline> {
        let counts = newest.iter().any(|(_, loaded, ..)| {
            let name = loaded.plugin.definition().name.as_str();
            let serves = current
                .entry(name)
                .is_some_and(|entry| entry.active.read_only.is_none());
            let applied = |mark: &AppliedMark| mark.code.as_ref() == Some(&hex(&loaded.code));
            (!serves || self.settings.strict_versions)
                && marks.get(name).is_some_and(|mark| !applied(mark))
        });
        if !counts {
            return BTreeMap::new();
        }
        self.store.applied_outlines().await.unwrap_or_else(|error| {
            tracing::error!(
                "Plugin registry: what is applied of the plugins cannot be read: {}",
                error.detail()
            );
            BTreeMap::new()
        })
    }

    /// Reads whether the tables of those that are to serve are what their migrations
    /// made. One that serves is looked at when everything is, and goes on with its last good version.
    async fn look_at_tables(
        &mut self,
        newest: BTreeSet<String>,
        histories: Option<&BTreeMap<String, Vec<AppliedMigration>>>,
        touched: &Touched,
    ) {
        let Some(histories) = histories else { return };
        let serving = self.slots.values().filter_map(|slot| {
            let looks = slot.drift.is_some() || matches!(touched, Touched::Everything);
            slot.active.as_ref().filter(|_| looks)
        });
        let serving = serving.map(|active| active.name().to_owned());
        let names: BTreeSet<String> = newest.into_iter().chain(serving).collect();
        let examined = names
            .iter()
            .filter_map(|name| Some((name.clone(), histories.get(name)?.clone())))
            .collect();
        match self.store.drifts(examined).await {
            Ok(drifts) => self.drifts = drifts,
            Err(error) => {
                tracing::error!(
                    "Plugin registry: the tables cannot be looked at: {}",
                    error.detail()
                );
                return;
            }
        }
        for slot in self.slots.values_mut() {
            let Some(active) = &slot.active else { continue };
            if !names.contains(active.name()) {
                continue;
            }
            let differences = self.drifts.get(active.name());
            slot.drift = differences.map(|differences| {
                let failure = drifted(differences, active.definition());
                Arc::new(failure)
            });
            if slot.drift.is_some() {
                slot.failure = slot.drift.clone();
            }
        }
    }

    /// Lets the contenders for each name serve in the order of preference, and migrates those that come through.
    pub(super) async fn settle(
        &mut self,
        mut prepared: HashMap<Key, Result<Ready, Failure>>,
        number: u64,
    ) {
        let mut contenders: BTreeMap<String, Vec<Key>> = BTreeMap::new();
        for (key, slot) in by_preference(&self.slots).filter(|(_, slot)| slot.enabled) {
            if let Some(definition) = slot.definition() {
                contenders
                    .entry(definition.name.as_str().to_owned())
                    .or_default()
                    .push(key.clone());
            }
        }
        let mut names: Vec<(String, Vec<Key>)> = contenders.into_iter().collect();
        // What serves already claims its aliases and its table before what is new; else the first found does.
        names.sort_by_key(|(name, keys)| {
            let serves = keys.iter().any(|key| self.serves(key, name));
            (!serves, keys.iter().min().cloned())
        });
        let mut claims = Claims::default();
        let mut winners: Vec<Key> = Vec::new();
        for (name, keys) in &names {
            if let Some(winner) = self
                .settle_name(name, keys, &mut prepared, &mut claims, number)
                .await
            {
                self.tell_losers(name, keys, &winner);
                winners.push(winner);
            }
        }
        self.keep_or_drop(&winners, &mut claims);
    }

    /// Whether the version that serves from a place has this name.
    fn serves(&self, key: &Key, name: &str) -> bool {
        self.slots
            .get(key)
            .and_then(|slot| slot.active.as_ref())
            .is_some_and(|active| active.name() == name)
    }

    async fn settle_name(
        &mut self,
        name: &str,
        keys: &[Key],
        prepared: &mut HashMap<Key, Result<Ready, Failure>>,
        claims: &mut Claims,
        number: u64,
    ) -> Option<Key> {
        for key in keys {
            let finished = match prepared.remove(key) {
                Some(Ok(ready)) => match (claims.check(ready.definition()), ready) {
                    (Ok(()), Ready::Whole(prepared)) => {
                        Some(self.activation().finish(*prepared).await)
                    }
                    (Ok(()), Ready::ReadOnly(active)) => Some(Ok(*active)),
                    // What serves goes before what only shows.
                    (Ok(()), Ready::Refused(_, failure))
                        if self.another_serves(name, keys, key, prepared) =>
                    {
                        Some(Err(failure))
                    }
                    (Ok(()), Ready::Refused(active, _)) => Some(Ok(*active)),
                    (Err(failure), _) => Some(Err(failure)),
                },
                Some(Err(failure)) => Some(Err(failure)),
                None => None,
            };
            let slot = self.slots.get_mut(key)?;
            match finished {
                Some(Ok(active)) => {
                    let read_only = active.read_only.as_ref();
                    slot.failure = read_only.map(|read_only| read_only.failure.clone());
                    slot.held_back = None;
                    slot.active = Some(Arc::new(active));
                    slot.since = number;
                }
                Some(Err(failure)) => {
                    let failure = Arc::new(failure);
                    slot.held_back = failure.stamp.is_some().then(|| failure.clone());
                    slot.failure = Some(failure);
                }
                None => {}
            }
            let serving = slot.active.as_ref().filter(|active| active.name() == name);
            if let Some(active) = serving
                && claims.check(active.definition()).is_ok()
            {
                claims.take(active.definition(), &slot.place.label());
                return Some(key.clone());
            }
        }
        None
    }

    /// Whether a contender after this one serves, or is about to.
    fn another_serves(
        &self,
        name: &str,
        keys: &[Key],
        key: &Key,
        prepared: &HashMap<Key, Result<Ready, Failure>>,
    ) -> bool {
        let later = keys.iter().skip_while(|other| *other != key).skip(1);
        later.into_iter().any(|other| match prepared.get(other) {
            Some(Ok(ready)) => matches!(ready, Ready::Whole(_)),
            Some(Err(_)) => false,
            None => self.slots.get(other).is_some_and(|slot| {
                let active = slot.active.as_ref();
                active.is_some_and(|active| active.name() == name && active.read_only.is_none())
            }),
        })
    }

    /// Says on both sides why of several plugins of one name only one serves.
    fn tell_losers(&mut self, name: &str, keys: &[Key], winner: &Key) {
        let label = |slots: &BTreeMap<Key, Slot>, key: &Key| {
            slots
                .get(key)
                .map(|slot| slot.place.label())
                .unwrap_or_default()
        };
        let winner_label = label(&self.slots, winner);
        for key in keys.iter().skip_while(|key| *key != winner).skip(1) {
            let loser_label = label(&self.slots, key);
            let Some(loser) = self.slots.get_mut(key) else {
                continue;
            };
            if key.0 == winner.0 {
                loser.collide(format!(
                    "expected a name that no other plugin of this path has, found \"{name}\", which {winner_label} has \
                     (the first by file name serves; rename this one)"
                ));
                continue;
            }
            let warning = format!(
                "{winner_label} takes the place of this plugin, because its path comes later"
            );
            loser.warnings.push(warning);
            if key.0 != 0
                && let Some(winner) = self.slots.get_mut(winner)
            {
                winner.warnings.push(format!(
                    "takes the place of {loser_label}, whose path comes earlier"
                ));
            }
        }
    }

    /// A place whose newest version failed keeps its last good one, under the name that one has, unless that is taken.
    /// Everything else that did not win serves no longer.
    fn keep_or_drop(&mut self, winners: &[Key], claims: &mut Claims) {
        for (key, slot) in &mut self.slots {
            if winners.contains(key) {
                continue;
            }
            let failed = slot.failure.is_some() || slot.load_failure.is_some();
            let kept = slot.active.take().filter(|active| {
                slot.enabled && failed && claims.check(active.definition()).is_ok()
            });
            if let Some(active) = &kept {
                claims.take(active.definition(), &slot.place.label());
            }
            slot.active = kept;
        }
    }
}

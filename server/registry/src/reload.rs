//! Building the next generation: read, load aside, choose, check, migrate, swap.
//!
//! The order is what keeps the invariants. Everything that can fail happens before the swap, on a plugin of its own, and
//! a failure leaves the version that serves. Migrations come last of all checks, because once they are applied the older
//! version can no longer write.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt;
use patchbay_lua::{self as lua, Sandbox, SettingsLookup};
use patchbay_plugin::Map;
use patchbay_plugin::definition::Definition;
use patchbay_plugin::field::{Field, parse_values};
use patchbay_plugin::migration::{AppliedMigration, Origin as StepOrigin, PendingMigration, plan};
use patchbay_plugin::name::{PluginName, nearest};
use patchbay_plugin::platform::PluginState;
use patchbay_store::{Store, StoreError};
use semver::Version;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::RequestError;
use crate::discovery::{Bundle, Origin, Place, ReadError, Scan, scan};
use crate::enabling::Selectable;
use crate::form::{FormKeeper, compute, last_error};
use crate::generation::{ActivePlugin, Entry, Failure, Finding, Generation, Icon};
use crate::plugins::plugin_not_found;
use crate::settings::{RegistrySettings, Shipped};
use crate::wire::{LastError, MigrationView, ReloadSummary};

/// How many plugins are loaded at once; more only wait for the sandbox's threads.
const LOADS_AT_ONCE: usize = 16;

/// Which files may have changed.
#[derive(Debug, Clone, Default)]
pub(crate) enum Touched {
    /// Nothing; only what failed before is tried again.
    #[default]
    Nothing,
    /// These paths, or what lies below them.
    Paths(BTreeSet<PathBuf>),
    /// Anything.
    Everything,
}

/// How a slot is known: its plugin path, whether it is an example, and its label. Slots are in the order of places.
type Key = (usize, bool, String);

/// What the next generation is built from. There is one, behind a lock, so that builds never overlap.
pub(crate) struct Builder {
    settings: RegistrySettings,
    roots: Vec<PathBuf>,
    shipped: Shipped,
    store: Store,
    sandbox: Sandbox,
    lookup: SettingsLookup,
    slots: BTreeMap<Key, Slot>,
}

/// What is known of one place.
struct Slot {
    place: Place,
    /// What was read last.
    bundle: Option<Bundle>,
    /// The newest version that loads.
    loaded: Option<Loaded>,
    /// Why what was read last does not load.
    load_failure: Option<Arc<Failure>>,
    /// What serves.
    active: Option<Arc<ActivePlugin>>,
    /// Why the newest version that loads does not serve.
    failure: Option<Arc<Failure>>,
    warnings: Vec<String>,
    enabled: bool,
    since: u64,
}

#[derive(Clone)]
struct Loaded {
    plugin: lua::Plugin,
    fingerprint: [u8; 32],
    icon: Option<Icon>,
}

impl Slot {
    fn new(place: Place) -> Slot {
        Slot {
            place,
            bundle: None,
            loaded: None,
            load_failure: None,
            active: None,
            failure: None,
            warnings: Vec::new(),
            enabled: false,
            since: 0,
        }
    }

    /// The definition by which the place is known: of the newest version that loads, else of what serves.
    fn definition(&self) -> Option<&Arc<Definition>> {
        match (&self.load_failure, &self.loaded, &self.active) {
            (None, Some(loaded), _) => Some(loaded.plugin.definition()),
            (_, _, Some(active)) => Some(active.definition()),
            (_, Some(loaded), None) => Some(loaded.plugin.definition()),
            _ => None,
        }
    }

    fn selectable(&self) -> Option<(Arc<Definition>, String, bool)> {
        Some((
            self.definition()?.clone(),
            self.place.location(),
            self.place.example,
        ))
    }

    fn fail_load(&mut self, error: LastError) {
        self.load_failure = Some(Arc::new(Failure {
            state: PluginState::Failed,
            error,
        }));
    }
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
        let roots = settings.roots();
        let values = settings.plugin_settings.clone();
        let lookup: SettingsLookup =
            Arc::new(move |name, fields| settings_of(&values, name, fields));
        Builder {
            settings,
            roots,
            shipped,
            store,
            sandbox,
            lookup,
            slots: BTreeMap::new(),
        }
    }

    /// Builds the generation that follows `current`. Gives none when nothing is different.
    pub(crate) async fn build(
        &mut self,
        current: &Generation,
        touched: &Touched,
    ) -> (Option<Generation>, ReloadSummary) {
        let number = current.number + 1;
        self.look(touched, number).await;
        let problems =
            with_selectables(&self.slots, |found| self.settings.selection.problems(found));
        let replaced = self.choose();
        self.activate(replaced, number).await;
        self.slots
            .retain(|_, slot| !slot.place.example || slot.enabled);
        let next = self.generation(number, problems);
        let (summary, differs) = compare(current, &next);
        if differs {
            (Some(next), summary)
        } else {
            (
                None,
                ReloadSummary {
                    generation: current.number,
                    ..summary
                },
            )
        }
    }

    /// Runs every pending migration of the newest version of a plugin.
    pub(crate) async fn migrate(&self, name: &str, by: &str) -> Result<Vec<String>, RequestError> {
        let loaded = self
            .slots
            .values()
            .filter(|slot| slot.enabled && slot.load_failure.is_none())
            .filter_map(|slot| slot.loaded.as_ref())
            .find(|loaded| loaded.plugin.definition().answers_to(name))
            .ok_or_else(|| plugin_not_found(name))?;
        let definition = loaded.plugin.definition();
        let history = self.store.history(&definition.name).await?;
        let plan = plan(definition, &history)
            .map_err(|error| RequestError::Conflict(error.to_string()))?;
        self.store.migrate(definition, &plan, by).await?;
        Ok(plan
            .pending
            .iter()
            .map(|step| step.migration.id.to_string())
            .collect())
    }

    /// Scans the plugin paths, reads what may have changed, and loads what has.
    async fn look(&mut self, touched: &Touched, number: u64) {
        self.look_once(touched, false, number).await;
        if with_selectables(&self.slots, |found| {
            self.settings.selection.seeks_more(found)
        }) {
            self.look_once(touched, true, number).await;
        }
    }

    async fn look_once(&mut self, touched: &Touched, with_examples: bool, number: u64) {
        let (shipped, roots) = (self.shipped, self.roots.clone());
        let Ok(scan) =
            tokio::task::spawn_blocking(move || scan(shipped, &roots, with_examples)).await
        else {
            return;
        };
        let scan = Arc::new(scan);
        self.forget_missing(&scan, with_examples);
        let mut to_read: Vec<Place> = Vec::new();
        for place in &scan.places {
            let key = (place.root, place.example, place.label());
            let is_new = !self.slots.contains_key(&key);
            let slot = self
                .slots
                .entry(key)
                .or_insert_with(|| Slot::new(place.clone()));
            slot.place = place.clone();
            if is_new || touched.concerns(place, &scan, slot) {
                to_read.push(place.clone());
            }
        }
        let (shipped, libs) = (self.shipped, scan.clone());
        let read = tokio::task::spawn_blocking(move || {
            to_read
                .into_iter()
                .map(|place| {
                    let modules = libs.libs.get(&place.root).cloned().unwrap_or_default();
                    let bundle = place.read(shipped, modules);
                    (place, bundle)
                })
                .collect::<Vec<_>>()
        });
        let mut to_load = Vec::new();
        for (place, bundle) in read.await.unwrap_or_default() {
            let key = (place.root, place.example, place.label());
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
                    slot.fail_load(plain_error(
                        "read",
                        format!("{}: {reason}", place.label()),
                        None,
                    ));
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
        let (sandbox, lookup) = (&self.sandbox, &self.lookup);
        let results: Vec<_> = futures_util::stream::iter(to_load)
            .map(|(key, bundle)| async move {
                let result = sandbox.load(bundle.source.clone(), lookup.clone()).await;
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
                Ok(plugin) => {
                    let fingerprint = fingerprint(&bundle, &plugin);
                    slot.load_failure = None;
                    slot.loaded = Some(Loaded {
                        plugin,
                        fingerprint,
                        icon: None,
                    });
                    slot.bundle = Some(bundle);
                    slot.refresh_icon();
                }
                Err(error) => {
                    slot.bundle = Some(bundle);
                    slot.fail_load(last_error(
                        &error.reports,
                        "load",
                        "it cannot be loaded",
                        None,
                    ));
                }
            }
        }
    }

    /// Drops the places that a scan no longer finds. When a whole plugin path is gone, what it held keeps serving: an
    /// unmounted folder is no wish to remove every plugin in it.
    fn forget_missing(&mut self, scan: &Scan, with_examples: bool) {
        let found: BTreeSet<Key> = scan
            .places
            .iter()
            .map(|place| (place.root, place.example, place.label()))
            .collect();
        self.slots.retain(|key, slot| {
            if found.contains(key) || (key.1 && !with_examples) {
                return true;
            }
            match scan.missing.get(&key.0).filter(|_| slot.active.is_some()) {
                Some(reason) => {
                    let path = self
                        .roots
                        .get(key.0 - 1)
                        .map(|path| path.display().to_string())
                        .unwrap_or_default();
                    slot.fail_load(plain_error(
                        "read",
                        format!("the plugin path {path}: {reason}"),
                        None,
                    ));
                    true
                }
                None => false,
            }
        });
    }

    /// Decides which places are enabled, and which of several of one name serves. Gives the places of which a later
    /// path's plugin takes the place, each with that plugin's.
    fn choose(&mut self) -> Vec<(Key, Key)> {
        let mut by_name: HashMap<String, Key> = HashMap::new();
        let mut replaced = Vec::new();
        let keys: Vec<_> = self.slots.keys().cloned().collect();
        for slot in self.slots.values_mut() {
            slot.warnings.clear();
            slot.enabled = slot
                .selectable()
                .is_some_and(|(definition, location, example)| {
                    self.settings.selection.enables(Selectable {
                        definition: &definition,
                        location: &location,
                        example,
                    })
                });
            // A version that does not load leaves the verdict on the last one that did.
            if slot.load_failure.is_none() {
                slot.failure = None;
            }
        }
        for key in keys {
            let Some(slot) = self.slots.get(&key).filter(|slot| slot.enabled) else {
                continue;
            };
            let Some(name) = slot
                .definition()
                .map(|definition| definition.name.as_str().to_owned())
            else {
                continue;
            };
            let Some(earlier_key) = by_name.get(&name).cloned() else {
                by_name.insert(name, key);
                continue;
            };
            let label = slot.place.label();
            let earlier_label = self
                .slots
                .get(&earlier_key)
                .map(|slot| slot.place.label())
                .unwrap_or_default();
            if earlier_key.0 == key.0 {
                let reason = format!(
                    "expected a name that no other plugin of this path has, found \"{name}\", which {earlier_label} has \
                     (the first by file name serves; rename this one)"
                );
                if let Some(slot) = self.slots.get_mut(&key) {
                    slot.enabled = false;
                    slot.reject(PluginState::Failed, "collision", reason);
                }
                continue;
            }
            if let Some(earlier) = self.slots.get_mut(&earlier_key) {
                earlier.enabled = false;
                earlier.warnings.push(format!(
                    "{label} takes the place of this plugin, because its path comes later"
                ));
            }
            if earlier_key.0 != 0
                && let Some(slot) = self.slots.get_mut(&key)
            {
                slot.warnings.push(format!(
                    "takes the place of {earlier_label}, whose path comes earlier"
                ));
            }
            replaced.push((earlier_key, key.clone()));
            by_name.insert(name, key);
        }
        replaced
    }

    /// Activates what is enabled. What serves already comes first, so that its aliases and tables stay its own. Where a
    /// later path's plugin cannot serve, the one whose place it takes does.
    async fn activate(&mut self, replaced: Vec<(Key, Key)>, number: u64) {
        let histories = match self.store.histories().await {
            Ok(histories) => histories,
            Err(error) => {
                tracing::error!(
                    "Plugin registry: the migration histories cannot be read: {}",
                    error.detail()
                );
                for slot in self
                    .slots
                    .values_mut()
                    .filter(|slot| slot.enabled && slot.active.is_none())
                {
                    slot.reject(PluginState::Failed, "store", error.to_string());
                }
                return;
            }
        };
        let mut order: Vec<Key> = self.slots.keys().cloned().collect();
        order.sort_by_key(|key| self.slots.get(key).is_none_or(|slot| slot.active.is_none()));
        let mut claims = Claims::default();
        for key in order {
            self.activate_slot(&key, &histories, &mut claims, number)
                .await;
        }
        for (earlier, later) in replaced.into_iter().rev() {
            if self
                .slots
                .get(&later)
                .is_none_or(|slot| slot.active.is_none())
                && let Some(slot) = self.slots.get_mut(&earlier)
            {
                slot.enabled = true;
                self.activate_slot(&earlier, &histories, &mut claims, number)
                    .await;
            }
        }
    }

    async fn activate_slot(
        &mut self,
        key: &Key,
        histories: &BTreeMap<String, Vec<AppliedMigration>>,
        claims: &mut Claims,
        number: u64,
    ) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        if !slot.enabled {
            slot.active = None;
            return;
        }
        let newest = slot.loaded.as_ref().filter(|loaded| {
            slot.load_failure.is_none()
                && slot
                    .active
                    .as_ref()
                    .is_none_or(|active| active.fingerprint != loaded.fingerprint)
        });
        if let Some(loaded) = newest.cloned() {
            let name = loaded.plugin.definition().name.as_str();
            let history = histories.get(name).map(Vec::as_slice).unwrap_or_default();
            let context = Activation {
                store: &self.store,
                auto_migrate: self.settings.auto_migrate,
            };
            match context
                .activate(&loaded, slot.active.as_ref(), history, claims)
                .await
            {
                Ok(active) => {
                    slot.active = Some(Arc::new(active));
                    slot.since = number;
                }
                Err(failure) => slot.failure = Some(Arc::new(failure)),
            }
        }
        if let Some(active) = &slot.active {
            claims.take(active.definition(), &slot.place.label());
        }
    }

    fn generation(&self, number: u64, problems: Vec<String>) -> Generation {
        let mut entries = Vec::new();
        let mut findings = Vec::new();
        for slot in self.slots.values() {
            let failure = slot.load_failure.clone().or_else(|| slot.failure.clone());
            let state = match (&slot.active, &failure) {
                (Some(_), None) => PluginState::Active,
                (Some(_), Some(_)) => PluginState::Degraded,
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
                    finding: findings.len(),
                });
            }
            findings.push(Finding {
                place: slot.place.clone(),
                definition: slot.definition().cloned(),
                state,
                serving: slot.active.clone(),
                failure,
                warnings: slot.warnings.clone(),
                since: slot.since,
            });
        }
        Generation::new(number, entries, findings, problems)
    }
}

impl Slot {
    fn reject(&mut self, state: PluginState, stage: &str, message: String) {
        let version = self
            .definition()
            .map(|definition| definition.version.clone());
        let mut error = plain_error(stage, message, version);
        error.file = Some(self.entry_file());
        self.failure = Some(Arc::new(Failure { state, error }));
    }

    fn entry_file(&self) -> String {
        match &self.place.origin {
            Origin::File(_) => self.place.label(),
            Origin::Embedded(_) | Origin::Folder(_) => format!("{}/plugin.lua", self.place.label()),
        }
    }

    /// Reads the icon again, which lies beside the code and may change without it.
    fn refresh_icon(&mut self) {
        let (Some(bundle), Some(loaded)) = (&self.bundle, &mut self.loaded) else {
            return;
        };
        let name = &loaded.plugin.definition().platform.icon_name;
        let svg = self.place.icon(name, bundle);
        if loaded.icon.as_ref().map(|icon| &icon.svg) != svg.as_ref() || loaded.icon.is_none() {
            loaded.icon = svg.map(Icon::new);
            loaded.fingerprint =
                with_icon(fingerprint(bundle, &loaded.plugin), loaded.icon.as_ref());
        }
    }
}

impl Touched {
    /// Whether the plugin at `place` has to be read again.
    fn concerns(&self, place: &Place, scan: &Scan, slot: &Slot) -> bool {
        let libs_differ = || {
            let (Some(bundle), Some(libs)) = (&slot.bundle, scan.libs.get(&place.root)) else {
                return true;
            };
            !Arc::ptr_eq(&bundle.source.libs, libs) && bundle.source.libs != *libs
        };
        match self {
            Touched::Nothing => false,
            Touched::Everything => true,
            Touched::Paths(paths) => {
                let own = match &place.origin {
                    Origin::Embedded(_) => false,
                    Origin::Folder(folder) => paths.iter().any(|path| path.starts_with(folder)),
                    Origin::File(file) => paths
                        .iter()
                        .any(|path| path == file || is_icon_beside(path, file)),
                };
                own || libs_differ()
            }
        }
    }
}

fn is_icon_beside(path: &Path, file: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "svg") && path.parent() == file.parent()
}

/// Whether a plugin that was read again is another one: its files differ, or a module that it requires does.
fn differs(before: &Bundle, now: &Bundle, slot: &Slot) -> bool {
    if before.fingerprint != now.fingerprint {
        return true;
    }
    match (&slot.load_failure, &slot.loaded) {
        (None, Some(loaded)) => loaded
            .plugin
            .required_libs()
            .iter()
            .any(|name| before.source.libs.get(name) != now.source.libs.get(name)),
        // It is not known what a plugin that does not load would require.
        _ => true,
    }
}

/// The hash of the code that a loaded plugin was made from.
fn fingerprint(bundle: &Bundle, plugin: &lua::Plugin) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(bundle.fingerprint);
    for name in plugin.required_libs() {
        hash.update(name.as_bytes());
        hash.update(
            bundle
                .source
                .libs
                .get(name)
                .map(|text| text.as_bytes())
                .unwrap_or_default(),
        );
    }
    hash.finalize().into()
}

fn with_icon(fingerprint: [u8; 32], icon: Option<&Icon>) -> [u8; 32] {
    match icon {
        None => fingerprint,
        Some(icon) => Sha256::new()
            .chain_update(fingerprint)
            .chain_update(&icon.svg)
            .finalize()
            .into(),
    }
}

/// The names, aliases and tables that are taken, and by whom.
#[derive(Default)]
struct Claims {
    names: HashMap<String, String>,
    tables: HashMap<String, String>,
}

impl Claims {
    fn take(&mut self, definition: &Definition, label: &str) {
        for name in std::iter::once(&definition.name).chain(&definition.aliases) {
            self.names
                .insert(name.as_str().to_owned(), label.to_owned());
        }
        if let Some(table) = &definition.table {
            self.tables
                .insert(table.as_str().to_owned(), label.to_owned());
        }
    }

    fn check(&self, definition: &Definition) -> Result<(), String> {
        for name in std::iter::once(&definition.name).chain(&definition.aliases) {
            if let Some(owner) = self.names.get(name.as_str()) {
                return Err(format!(
                    "expected a name and aliases that no other plugin has, found \"{name}\", which {owner} has (rename one of the two)"
                ));
            }
        }
        if let Some(table) = &definition.table
            && let Some(owner) = self.tables.get(table.as_str())
        {
            return Err(format!(
                "expected a table of the plugin's own, found \"{table}\", which {owner} has (set another `table`)"
            ));
        }
        Ok(())
    }
}

/// What it takes to make a loaded plugin serve.
struct Activation<'a> {
    store: &'a Store,
    auto_migrate: bool,
}

impl Activation<'_> {
    async fn activate(
        &self,
        loaded: &Loaded,
        serving: Option<&Arc<ActivePlugin>>,
        history: &[AppliedMigration],
        claims: &Claims,
    ) -> Result<ActivePlugin, Failure> {
        let definition = loaded.plugin.definition();
        let fail = |state, stage: &str, message: String| Failure {
            state,
            error: plain_error(stage, message, Some(definition.version.clone())),
        };
        let failed = |stage: &str, message: String| fail(PluginState::Failed, stage, message);
        self.check_requires(definition)
            .map_err(|reason| fail(PluginState::Incompatible, "requires", reason))?;
        claims
            .check(definition)
            .map_err(|reason| failed("collision", reason))?;
        let plan = plan(definition, history).map_err(|error| failed("plan", error.to_string()))?;
        let served_table = serving.and_then(|active| active.table.as_ref());
        let before = serving.and_then(|active| active.form.peek());
        let form = compute(&loaded.plugin, self.store, served_table, None).await;
        if let (Some(error), Some(before)) = (&form.failure, &before)
            && before.good.is_some()
        {
            return Err(Failure {
                state: PluginState::Failed,
                error: error.as_ref().clone(),
            });
        }
        if let Some(step) = plan.pending.iter().find(|step| !self.may_run(step)) {
            let what = if step.expands {
                "auto_migrate is off"
            } else {
                "it does more than add"
            };
            return Err(fail(
                PluginState::PendingMigration,
                "migration",
                format!(
                    "the migration {} waits to be told, because {what}; run `patchbay plugin migrate {}`",
                    step.migration.id, definition.name
                ),
            ));
        }
        let applied = if plan.pending.is_empty() {
            self.store.record_definition(definition).await
        } else {
            self.store.migrate(definition, &plan, "server").await
        };
        applied.map_err(|error| match error {
            StoreError::TableTaken { .. } => failed("collision", error.to_string()),
            StoreError::Migration { .. } => failed("migration", error.to_string()),
            other => failed("store", other.to_string()),
        })?;
        Ok(ActivePlugin {
            plugin: loaded.plugin.clone(),
            fingerprint: loaded.fingerprint,
            icon: loaded.icon.clone(),
            table: definition
                .table
                .is_some()
                .then(|| self.store.table(definition, &plan)),
            form: FormKeeper::holding(Arc::new(form)),
            hook_error: Default::default(),
        })
    }

    fn check_requires(&self, definition: &Definition) -> Result<(), String> {
        let (Some(requires), Ok(own)) = (
            &definition.requires,
            Version::parse(env!("CARGO_PKG_VERSION")),
        ) else {
            return Ok(());
        };
        if requires.matches(&own) {
            return Ok(());
        }
        Err(format!(
            "the plugin requires Patchbay {requires}, and this is {own}; install a version of it that fits"
        ))
    }

    fn may_run(&self, step: &PendingMigration) -> bool {
        step.origin == StepOrigin::Baseline || (step.expands && self.auto_migrate)
    }
}

/// The history and what is pending, as answers show them.
pub(crate) fn migration_views(
    history: &[AppliedMigration],
    pending: &[PendingMigration],
) -> Vec<MigrationView> {
    let applied = history.iter().map(|step| MigrationView {
        id: step.migration.id.to_string(),
        path: step.migration.path.clone(),
        state: if step.origin == StepOrigin::Baseline {
            "baseline"
        } else {
            "applied"
        }
        .to_owned(),
        checksum: step.checksum.clone(),
        applied_at: Some(step.applied_at),
        applied_by: Some(step.applied_by.clone()),
    });
    let pending = pending.iter().map(|step| MigrationView {
        id: step.migration.id.to_string(),
        path: step.migration.path.clone(),
        state: "pending".to_owned(),
        checksum: step.migration.checksum(),
        applied_at: None,
        applied_by: None,
    });
    applied.chain(pending).collect()
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
        if finding.failure.is_some() {
            summary.failed.push(match &finding.definition {
                Some(definition) => definition.name.to_string(),
                None => finding.place.label(),
            });
        }
    }
    let same_findings = before.findings.len() == now.findings.len()
        && before.findings.iter().zip(&now.findings).all(|(a, b)| {
            a.place == b.place
                && a.state == b.state
                && same_failure(a.failure.as_deref(), b.failure.as_deref())
                && a.warnings == b.warnings
        });
    let differs = before.number == 0
        || !summary.added.is_empty()
        || !summary.changed.is_empty()
        || !summary.removed.is_empty()
        || !same_findings
        || before.problems != now.problems;
    (summary, differs)
}

/// Whether two failures say the same; when they were noticed does not count.
fn same_failure(a: Option<&Failure>, b: Option<&Failure>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            a.state == b.state
                && a.error.message == b.error.message
                && a.error.version == b.error.version
        }
        _ => false,
    }
}

fn plain_error(stage: &str, message: String, version: Option<String>) -> LastError {
    LastError {
        stage: stage.to_owned(),
        hook: None,
        mistakes: vec![message.clone()],
        message,
        file: None,
        line: None,
        at: OffsetDateTime::now_utc(),
        version,
    }
}

/// The operator's values for the settings that a plugin declares, checked and with defaults. From the environment every
/// value comes as text, so a text is read as what the field wants.
fn settings_of(
    values: &BTreeMap<String, Map>,
    name: &PluginName,
    fields: &[Field],
) -> Result<Map, Vec<String>> {
    let given = values
        .get(&name.as_str().to_lowercase())
        .cloned()
        .unwrap_or_default();
    let mut mistakes = Vec::new();
    let mut input = Map::new();
    for (key, value) in given {
        let Some(field) = fields.iter().find(|field| field.name.as_str() == key) else {
            let near = nearest(&key, fields.iter().map(|field| field.name.as_str()));
            mistakes.push(match near {
                Some(near) => format!("[plugins.{name}] has `{key}`, which is no setting of it (did you mean `{near}`?)"),
                None => format!("[plugins.{name}] has `{key}`, which is no setting of it"),
            });
            continue;
        };
        let wants_text = ["string", "enum"].contains(&field.kind.word());
        let value = match value {
            serde_json::Value::String(text) if !wants_text => {
                serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))
            }
            other => other,
        };
        input.insert(key, value);
    }
    // A setting that is required and not given stops only the hook that needs it, not the plugin: its form still works.
    let optional: Vec<Field> = fields
        .iter()
        .cloned()
        .map(|field| Field {
            required: false,
            ..field
        })
        .collect();
    match parse_values(&optional, &input, &Vec::new()) {
        Ok(values) if mistakes.is_empty() => Ok(values),
        Ok(_) => Err(mistakes),
        Err(errors) => {
            mistakes.extend(errors.iter().map(|error| {
                let place: Vec<String> = error
                    .loc
                    .iter()
                    .map(|step| match step {
                        patchbay_plugin::validation::LocStep::Key(key) => key.clone(),
                        patchbay_plugin::validation::LocStep::Index(index) => index.to_string(),
                    })
                    .collect();
                format!("[plugins.{name}] {}: {}", place.join("."), error.msg)
            }));
            Err(mistakes)
        }
    }
}

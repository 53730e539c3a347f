//! What is known of one place: what was read, what loads, what serves, and what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use patchbay_lua as lua;
use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::AppliedMigration;
use patchbay_plugin::platform::PluginState;
use patchbay_store::AppliedMark;
use sha2::{Digest, Sha256};

use crate::discovery::{Bundle, Origin, Place, Scan};
use crate::form::KeptForm;
use crate::generation::{ActivePlugin, Failure, Icon};
use crate::wire::LastError;

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

/// What is known of one place.
pub(super) struct Slot {
    pub(super) place: Place,
    /// What was read last.
    pub(super) bundle: Option<Bundle>,
    /// The newest version that loads.
    pub(super) loaded: Option<Loaded>,
    /// Why what was read last does not load.
    pub(super) load_failure: Option<Arc<Failure>>,
    /// What serves.
    pub(super) active: Option<Arc<ActivePlugin>>,
    /// Why the newest version that loads does not serve.
    pub(super) failure: Option<Arc<Failure>>,
    pub(super) warnings: Vec<String>,
    pub(super) enabled: bool,
    /// Whether the last scan did not find it although it serves.
    pub(super) missed: bool,
    /// Whether it serves although what it lies in was not there, so that it is read again once it is.
    pub(super) lost: bool,
    /// That the table of what serves was not what its migrations made, when it was looked at last.
    pub(super) drift: Option<Arc<Failure>>,
    pub(super) since: u64,
    /// What was last found out about its rows and held a version back.
    pub(super) held_back: Option<Arc<Failure>>,
}

#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) plugin: lua::Plugin,
    pub(super) fingerprint: [u8; 32],
    /// The same without the icon: what rows are judged by.
    pub(super) code: [u8; 32],
    pub(super) icon: Option<Icon>,
    /// Its form, where it was computed right after the load, while its VM was there.
    pub(super) form: Option<Arc<KeptForm>>,
}

impl Slot {
    pub(super) fn new(place: Place) -> Slot {
        Slot {
            place,
            bundle: None,
            loaded: None,
            load_failure: None,
            active: None,
            failure: None,
            warnings: Vec::new(),
            enabled: false,
            missed: false,
            lost: false,
            drift: None,
            since: 0,
            held_back: None,
        }
    }

    /// The definition by which the place is known: of the newest version that loads, else of what serves.
    pub(super) fn definition(&self) -> Option<&Arc<Definition>> {
        match (&self.load_failure, &self.loaded, &self.active) {
            (None, Some(loaded), _) => Some(loaded.plugin.definition()),
            (_, _, Some(active)) => Some(active.definition()),
            (_, Some(loaded), None) => Some(loaded.plugin.definition()),
            _ => None,
        }
    }

    pub(super) fn selectable(&self) -> Option<(Arc<Definition>, String, bool)> {
        Some((
            self.definition()?.clone(),
            self.place.location(),
            self.place.example,
        ))
    }

    /// The newest version that loads, when it serves, but its table is no longer the one for which it does.
    pub(super) fn stale(&self, marks: &BTreeMap<String, AppliedMark>) -> Option<&Loaded> {
        let active = self.active.as_ref()?;
        self.loaded.as_ref().filter(|loaded| {
            self.load_failure.is_none()
                && active.fingerprint == loaded.fingerprint
                && self.has_moved(marks)
        })
    }

    /// The newest version that loads, when it is another one than what serves.
    pub(super) fn newest(&self) -> Option<&Loaded> {
        self.loaded.as_ref().filter(|loaded| {
            self.load_failure.is_none()
                && self
                    .active
                    .as_ref()
                    .is_none_or(|active| active.fingerprint != loaded.fingerprint)
        })
    }

    /// The newest version that loads, when it was refused for its number and something else is applied since, which may be
    /// the version itself.
    pub(super) fn refused_before(&self, marks: &BTreeMap<String, AppliedMark>) -> Option<&Loaded> {
        let active = self.active.as_ref()?;
        let refused_at = active.read_only.as_ref()?.refused_at.as_ref()?;
        self.loaded.as_ref().filter(|loaded| {
            self.load_failure.is_none()
                && active.fingerprint == loaded.fingerprint
                && marks.get(active.name()) != Some(refused_at)
        })
    }

    /// Whether the table of what serves is at another step than the one it was built for.
    pub(super) fn has_moved(&self, marks: &BTreeMap<String, AppliedMark>) -> bool {
        self.active.as_ref().is_some_and(|active| {
            let Some(table) = &active.table else {
                return false;
            };
            marks
                .get(active.name())
                .is_some_and(|mark| mark.head.as_ref() != table.head())
        })
    }

    /// What serves goes when the step it was built for was taken back: its table is not there any more. A table that has
    /// gone on is another matter.
    pub(super) fn leave_what_was_taken_back(
        &mut self,
        histories: &BTreeMap<String, Vec<AppliedMigration>>,
    ) {
        let taken_back = self.active.as_ref().is_some_and(|active| {
            let head = active.table.as_ref().and_then(|table| table.head());
            let history = histories.get(active.name());
            head.is_some_and(|head| {
                !history.is_some_and(|steps| steps.iter().any(|step| step.migration.id == *head))
            })
        });
        if taken_back {
            self.active = None;
        }
    }

    pub(super) fn fail_load(&mut self, error: LastError) {
        self.fail_load_as(PluginState::Failed, error);
    }

    pub(super) fn fail_load_as(&mut self, state: PluginState, error: LastError) {
        self.load_failure = Some(Arc::new(Failure {
            state,
            error: Box::new(error),
            passing: false,
            stamp: None,
        }));
    }

    /// Notes that another plugin has the name.
    pub(super) fn collide(&mut self, message: String) {
        let version = self
            .definition()
            .map(|definition| definition.version.clone());
        let mut failure = Failure::plain(PluginState::Failed, "collision", message, version);
        failure.error.file = Some(self.entry_file());
        self.failure = Some(Arc::new(failure));
    }

    pub(super) fn entry_file(&self) -> String {
        self.place.entry_file()
    }

    /// Reads the icon again, which lies beside the code and may change without it.
    pub(super) fn refresh_icon(&mut self) {
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
    pub(super) fn concerns(&self, place: &Place, scan: &Scan, slot: &Slot) -> bool {
        let libs_differ = || {
            let (Some(bundle), Some(libs)) = (&slot.bundle, scan.libs.get(&place.root)) else {
                return true;
            };
            !Arc::ptr_eq(&bundle.shared_libs, libs) && bundle.shared_libs != *libs
        };
        match self {
            Touched::Nothing => false,
            Touched::Everything => true,
            Touched::Paths(paths) => {
                let own = match &place.origin {
                    Origin::Embedded(_) => false,
                    Origin::Installed(plugin) => {
                        paths.iter().any(|path| path.starts_with(&plugin.folder))
                    }
                    Origin::Folder(folder) => paths.iter().any(|path| path.starts_with(folder)),
                    Origin::File(file) => paths
                        .iter()
                        .any(|path| path == file || is_icon_beside(path, file)),
                };
                // Its own modules lie in the linked folder, beside the plugin's.
                let link = place.package.as_ref().and_then(|owner| owner.link.as_ref());
                let linked =
                    link.is_some_and(|link| paths.iter().any(|path| path.starts_with(link)));
                own || linked || libs_differ()
            }
        }
    }
}

fn is_icon_beside(path: &Path, file: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "svg") && path.parent() == file.parent()
}

/// Whether a plugin that was read again is another one: its files differ, or a module that it requires does.
pub(super) fn differs(before: &Bundle, now: &Bundle, slot: &Slot) -> bool {
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
pub(super) fn fingerprint(bundle: &Bundle, plugin: &lua::Plugin) -> [u8; 32] {
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

//! A generation: an immutable, numbered set of all active plugins.
//!
//! A request takes one and keeps it, so it sees one generation from its first byte to its last. What can change while
//! a generation lives is only what is computed from it: kept forms, and the last error of a hook.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use base64::Engine;
use patchbay_lua as lua;
use patchbay_plugin::change::Change;
use patchbay_plugin::definition::Definition;
use patchbay_plugin::platform::PluginState;
use patchbay_store::{AppliedMark, PluginTable};

use crate::discovery::Place;
use crate::form::{FormKeeper, KeptForm};
use crate::wire::{LastError, RowCheck};

/// One version of a plugin that serves.
pub(crate) struct ActivePlugin {
    /// The loaded code.
    pub(crate) plugin: lua::Plugin,
    /// The code and icon it was made from.
    pub(crate) fingerprint: [u8; 32],
    /// The icon.
    pub(crate) icon: Option<Icon>,
    /// How its rows are read and written; none without fields.
    pub(crate) table: Option<PluginTable>,
    /// Its form, computed when the catalogue changes.
    pub(crate) form: FormKeeper,
    /// What is different from the version whose place it took, the gravest first.
    pub(crate) changes: Vec<Change>,
    /// That its version number promises less than that.
    pub(crate) broken_promise: Option<String>,
    /// The rows that it would refuse, when it serves all the same because nothing served before it.
    pub(crate) refused: Option<RowCheck>,
    /// Why it takes no writes, when it does not: its table is of a newer version, or its number promises too little.
    pub(crate) read_only: Option<ReadOnly>,
    /// Whether its writes wait, because the next version carries its rows over and is about to take its place.
    pub(crate) paused: AtomicBool,
    /// What last went wrong in a hook other than `ui_metadata`.
    pub(crate) hook_error: ArcSwapOption<LastError>,
}

impl ActivePlugin {
    /// What the plugin is.
    pub(crate) fn definition(&self) -> &Arc<Definition> {
        self.plugin.definition()
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.definition().name.as_str()
    }

    /// Whether its number promises too little, so that it only shows what another version has stored.
    pub(crate) fn is_refused(&self) -> bool {
        self.read_only
            .as_ref()
            .is_some_and(|read_only| read_only.refused_at.is_some())
    }
}

/// That a plugin only shows what is stored.
#[derive(Debug, Clone)]
pub(crate) struct ReadOnly {
    /// The reason.
    pub(crate) failure: Arc<Failure>,
    /// Since when. The newer version may be on its way here.
    pub(crate) since: Instant,
    /// What was applied when it turned out to promise too little; none when it is older than its table. When something else
    /// is applied, it is judged again.
    pub(crate) refused_at: Option<AppliedMark>,
}

/// An icon.
#[derive(Debug, Clone)]
pub(crate) struct Icon {
    /// The SVG.
    pub(crate) svg: Arc<[u8]>,
    /// The SVG as a `data:` URI.
    pub(crate) data_uri: Arc<str>,
}

impl Icon {
    pub(crate) fn new(svg: Arc<[u8]>) -> Icon {
        let encoded = base64::engine::general_purpose::STANDARD.encode(&svg);
        Icon {
            svg,
            data_uri: format!("data:image/svg+xml;base64,{encoded}").into(),
        }
    }
}

/// Why the newest version of a plugin does not serve.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    /// The state it has when no older version serves.
    pub(crate) state: PluginState,
    /// The reason.
    pub(crate) error: Box<LastError>,
    /// Whether it may pass by itself, as when the database is locked, so that it is worth another try.
    pub(crate) passing: bool,
    /// What it depends on, when it is for the sake of rows: while that is the same, it need not be found out again.
    pub(crate) stamp: Option<RowStamp>,
}

/// What the judgement of a plugin's rows depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowStamp {
    /// The code that judged.
    pub(crate) code: [u8; 32],
    /// The version that it was compared with.
    pub(crate) serving: [u8; 32],
    /// The counter of the rows.
    pub(crate) rows: u64,
    /// The version of the catalogue.
    pub(crate) catalogue: u64,
}

impl Failure {
    /// A failure that one sentence tells.
    pub(crate) fn plain(
        state: PluginState,
        stage: &str,
        message: String,
        version: Option<String>,
    ) -> Failure {
        Failure {
            state,
            error: Box::new(LastError::plain(stage, message, version)),
            passing: false,
            stamp: None,
        }
    }

    /// How a plugin stands of which an older version serves.
    pub(crate) fn beside_serving(&self) -> PluginState {
        match self.state {
            // What waits or does not fit is told as such; what is broken leaves the plugin with less than it should have.
            waiting @ (PluginState::PendingMigration | PluginState::Incompatible) => waiting,
            _ => PluginState::Degraded,
        }
    }
}

/// An active plugin in a generation.
#[derive(Clone)]
pub(crate) struct Entry {
    /// The plugin.
    pub(crate) active: Arc<ActivePlugin>,
    /// Why a newer version does not serve instead.
    pub(crate) failure: Option<Arc<Failure>>,
    /// That something else has changed its tables, whatever else is the matter with a newer version.
    pub(crate) drift: Option<Arc<Failure>>,
    /// Its place among the findings.
    pub(crate) finding: usize,
}

/// One place where a plugin was found, and how it stands.
#[derive(Clone)]
pub(crate) struct Finding {
    /// Where.
    pub(crate) place: Place,
    /// The definition of the newest version that loads.
    pub(crate) definition: Option<Arc<Definition>>,
    /// How it stands, forms aside: [`Finding::state`] is what everybody is told.
    pub(crate) formless_state: PluginState,
    /// The version that serves.
    pub(crate) serving: Option<Arc<ActivePlugin>>,
    /// Why the newest version does not serve.
    pub(crate) failure: Option<Arc<Failure>>,
    /// What is odd but stops nothing.
    pub(crate) warnings: Vec<String>,
    /// The generation in which it last changed.
    pub(crate) since: u64,
}

impl Finding {
    /// Whether it tells the same as another one, so that neither is news beside the other. When a failure was noticed does
    /// not count.
    pub(crate) fn agrees_with(&self, other: &Finding) -> bool {
        let failures_agree = match (&self.failure, &other.failure) {
            (None, None) => true,
            (Some(own), Some(other)) => {
                own.state == other.state
                    && own.error.message == other.error.message
                    && own.error.version == other.error.version
            }
            _ => false,
        };
        self.place == other.place
            && self.formless_state == other.formless_state
            && self.warnings == other.warnings
            && failures_agree
    }

    /// How it stands.
    pub(crate) fn state(&self) -> PluginState {
        let form = self.serving.as_ref().and_then(|active| active.form.peek());
        standing(self.formless_state, form.as_deref())
    }

    /// Why its newest version does not serve, or else why its form does not work.
    pub(crate) fn trouble(&self) -> Option<LastError> {
        if let Some(failure) = &self.failure {
            return Some(failure.error.as_ref().clone());
        }
        let form = self.serving.as_ref()?.form.peek()?;
        form.failure.as_deref().cloned()
    }
}

/// How a plugin stands whose files stand like `formless`, with the form that is kept of it. The one rule, for whoever asks.
pub(crate) fn standing(formless: PluginState, form: Option<&KeptForm>) -> PluginState {
    match form {
        Some(form) if form.good.is_none() => PluginState::Failed,
        Some(form) if form.failure.is_some() => PluginState::Degraded,
        _ => formless,
    }
}

/// An immutable, numbered set of all active plugins.
#[derive(Default)]
pub(crate) struct Generation {
    /// Its number; grows with each swap.
    pub(crate) number: u64,
    /// The active plugins, ordered by platform key, then name.
    pub(crate) entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    /// Every place where a plugin was found.
    pub(crate) findings: Vec<Finding>,
    /// What is wrong with the settings.
    pub(crate) problems: Vec<String>,
}

impl Generation {
    pub(crate) fn new(
        number: u64,
        mut entries: Vec<Entry>,
        findings: Vec<Finding>,
        problems: Vec<String>,
    ) -> Generation {
        entries.sort_by(|a, b| {
            let key = |entry: &Entry| {
                let definition = entry.active.definition();
                (
                    definition.platform.platform_key.clone(),
                    definition.name.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        let mut by_name = HashMap::new();
        for (place, entry) in entries.iter().enumerate() {
            let definition = entry.active.definition();
            for name in std::iter::once(&definition.name).chain(&definition.aliases) {
                by_name.insert(name.as_str().to_owned(), place);
            }
        }
        Generation {
            number,
            entries,
            by_name,
            findings,
            problems,
        }
    }

    /// The active plugin of this name or alias.
    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name).map(|place| &self.entries[*place])
    }

    /// The finding of this name or alias that says most: the active one, else a disabled or failed one.
    pub(crate) fn finding(&self, name: &str) -> Option<&Finding> {
        if let Some(entry) = self.entry(name) {
            return self.findings.get(entry.finding);
        }
        self.findings.iter().find(|finding| {
            finding
                .definition
                .as_ref()
                .is_some_and(|definition| definition.answers_to(name))
        })
    }

    /// The plugin that a link's key means: by platform key, else the first whose parent it is, else by name.
    pub(crate) fn linked(&self, key: &str) -> Option<&Entry> {
        let platform = |entry: &Entry| entry.active.definition().platform.clone();
        self.entries
            .iter()
            .find(|entry| platform(entry).platform_key.as_str() == key)
            .or_else(|| {
                self.entries.iter().find(|entry| {
                    platform(entry)
                        .parent_platform
                        .is_some_and(|parent| parent.as_str() == key)
                })
            })
            .or_else(|| self.entry(key))
    }
}

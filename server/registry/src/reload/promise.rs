//! What a version number promises, held against what changes: who is refused for it, and who is warned about.
//!
//! - A version is compared with the one whose place it takes; where none serves, as at a start, with what the database holds
//!   as applied. So a restart, or another server on the same database, changes nothing about what is said of it.
//! - A version that is applied is taken as it is, with the warning: its table is there, and it was accepted, by force or by a
//!   server that is not strict.
//! - Otherwise a strict server refuses it. What serves goes on; where nothing does, it shows what is stored and takes no
//!   writes.
//! - Force accepts it, as it accepts rows that would be refused.

use std::sync::Arc;

use patchbay_plugin::change::{Change, changes_of_plan, compared};
use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::Plan;
use patchbay_plugin::outline::Outline;
use patchbay_plugin::platform::PluginState;

use super::Builder;
use super::activation::{Activation, Known, Ready};
use super::judge::hex;
use super::migrating::MigrationOrder;
use super::slot::Loaded;
use crate::RequestError;
use crate::generation::Failure;

/// What there is to say of a version's number.
#[derive(Default)]
pub(super) struct Promise {
    /// What is different from the version before, the gravest first.
    pub(super) changes: Vec<Change>,
    /// That the number promises less than that.
    pub(super) broken: Option<String>,
    /// The same, when the version is not to be taken for it.
    pub(super) refused: Option<String>,
}

/// The reason of a refusal, with what can be done.
fn refusal(reason: &str, definition: &Definition) -> String {
    format!(
        "{reason}, or accept it with `patchbay plugin migrate {name} --force` or POST /api/v2/plugins/reload?force={name}",
        name = definition.name
    )
}

impl Activation<'_> {
    /// Holds the number of a version against what it changes.
    pub(super) fn promise(&self, loaded: &Loaded, plan: &Plan, known: Known<'_>) -> Promise {
        let definition = loaded.plugin.definition();
        let serving = known.serving.filter(|active| active.read_only.is_none());
        let before = match serving {
            Some(serving) => Some(Outline::of(serving.definition())),
            None => known.outline.cloned(),
        };
        let code = hex(&loaded.code);
        let is_applied = |mark: &&patchbay_store::AppliedMark| mark.code.as_ref() == Some(&code);
        if let Some(mark) = known.mark.filter(is_applied) {
            let changes = before.map_or_else(
                || changes_of_plan(plan),
                |before| compared(&before, definition, plan).0,
            );
            return Promise {
                changes,
                broken: mark.broken_promise.clone(),
                refused: None,
            };
        }
        let Some(before) = before else {
            return Promise {
                changes: changes_of_plan(plan),
                ..Promise::default()
            };
        };
        let (changes, broken) = compared(&before, definition, plan);
        // The same version again is told of what was told of it before.
        let same =
            |version: &str, changes: &[Change]| version == definition.version && changes.is_empty();
        let broken = broken.or_else(|| {
            let told = match serving {
                Some(serving) => serving.broken_promise.clone(),
                None => known.mark.and_then(|mark| mark.broken_promise.clone()),
            };
            told.filter(|_| same(&before.version, &changes))
        });
        let accepted = known.forced
            || !self.strict_versions
            || same(&before.version, &changes)
            || known.outline.is_some_and(|applied| {
                same(&applied.version, &compared(applied, definition, plan).0)
            });
        let refused = broken.as_ref().filter(|_| !accepted);
        Promise {
            refused: refused.map(|reason| refusal(reason, definition)),
            changes,
            broken,
        }
    }

    /// Refuses a version for its number. Where nothing else serves it shows what is stored.
    pub(super) async fn refuse(
        &self,
        loaded: Loaded,
        known: Known<'_>,
        reason: String,
    ) -> Result<Ready, Failure> {
        let version = Some(loaded.plugin.definition().version.clone());
        let failed = |message: String| {
            Failure::plain(PluginState::Failed, "version", message, version.clone())
        };
        let failure = failed(reason.clone());
        let serves = known
            .serving
            .is_some_and(|active| active.read_only.is_none());
        let Some(mark) = known.mark.filter(|_| !serves || known.goes) else {
            return Err(failure);
        };
        let message = format!(
            "{reason}. Until then what is stored is shown, and nothing is written, because {} is not here any more",
            mark.version
        );
        let shown = self.shown(loaded, Arc::new(failed(message)), Some(mark.clone()));
        Ok(Ready::Refused(Box::new(shown.await?), failure))
    }
}

impl Builder {
    /// Holds the number of a version that is to be applied beside servers that run against what it changes. Gives the
    /// reason when it promises too little and is taken all the same.
    pub(super) async fn promise(
        &self,
        order: &MigrationOrder,
        plan: &Plan,
    ) -> Result<Option<String>, RequestError> {
        let Some(loaded) = self.slot_of(&order.plugin)?.loaded.as_ref() else {
            return Ok(None);
        };
        let name = loaded.plugin.definition().name.as_str();
        let marks = self.store.applied_marks().await?;
        let outlines = self.store.applied_outlines().await?;
        let known = Known {
            serving: None,
            history: Ok(&[]),
            mark: marks.get(name),
            outline: outlines.get(name),
            stale: false,
            goes: true,
            first: true,
            forced: order.force,
            held_back: None,
        };
        let promise = self.activation().promise(loaded, plan, known);
        match promise.refused {
            Some(reason) => Err(RequestError::Conflict(reason)),
            None => Ok(promise.broken),
        }
    }
}

//! What becomes of a version for the sake of its rows: it takes its place, is held back, or only shows them.
//!
//! - Rows that the version which serves accepts, and the next one would refuse, hold that back. Rows that were refused before
//!   do not.
//! - Where nothing serves, as at a start, or what serves goes in any case, there is nothing to hold back: no version is better for the rows than the one
//!   that is there. It serves, and says which rows it would refuse.
//! - The code whose rows were found right, or are accepted by force, is recorded with the applied definition: every
//!   server on the database takes it as it is, also after a restart.
//! - A version that is older than its table, by its number and by its steps, shows the rows and takes no writes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use patchbay_lua::Plugin;
use patchbay_plugin::change::is_older;
use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::{Plan, PlanError};
use patchbay_plugin::platform::PluginState;
use patchbay_store::{Applied, AppliedMark, Applying, Carried, StoreError};
use uuid::Uuid;

use super::Builder;
use super::activation::{Activation, CARRIES, Known, MOVED, Ready, moved, store_failure};
use super::migrating::{MigrationOrder, told};
use super::rows::{Before, CheckError, Checked, RowChecker};
use super::slot::Loaded;
use crate::RequestError;
use crate::error::plugin_not_found;
use crate::form::{FormKeeper, compute};
use crate::generation::{ActivePlugin, Failure, ReadOnly, RowStamp};
use crate::wire::{RowCheck, grouped};

/// What was found out about the rows of a version that may take its place.
#[derive(Default)]
pub(super) struct Judged {
    /// The code to be recorded.
    pub(super) code: Option<String>,
    /// The rows that are carried over.
    pub(super) carried: Option<Carried>,
    /// The rows that it would refuse, where that holds nothing back.
    pub(super) refused: Option<RowCheck>,
}

/// The hash of a version's code as it is recorded.
pub(super) fn hex(code: &[u8; 32]) -> String {
    code.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Says that rows would be refused, and what to do.
pub(super) fn refusal(definition: &Definition, before: Option<&str>, check: &RowCheck) -> String {
    let accepted = match before {
        Some(version) => format!("that version {version} accepts"),
        None => "that were accepted when they were stored".to_owned(),
    };
    format!(
        "{} of the stored configurations {accepted} would be refused by {} ({}); mend the plugin, or accept that with \
         `patchbay plugin migrate {} --force` or POST /api/v2/plugins/reload?force={3}",
        grouped(check.refused),
        definition.version,
        check.extent(),
        definition.name,
    )
}

impl Activation<'_> {
    /// Tries the version on its rows, where nobody has done so before.
    pub(super) async fn judge(
        &self,
        loaded: &Loaded,
        plan: &Plan,
        known: Known<'_>,
    ) -> Result<Judged, Failure> {
        let definition = loaded.plugin.definition();
        let code = hex(&loaded.code);
        let Some(mark) = known.mark.filter(|_| !known.stale) else {
            return Ok(Judged {
                code: Some(code),
                ..Judged::default()
            });
        };
        // Where what serves goes in any case, holding the next one back would leave nothing.
        let serving = known.serving.filter(|_| !known.goes);
        let accepted = mark.code.as_ref() == Some(&code);
        if accepted && !self.has_older_rows(definition).await? {
            return Ok(Judged {
                code: Some(code),
                ..Judged::default()
            });
        }
        let stamp = serving.map(|serving| RowStamp {
            code: loaded.code,
            serving: serving.fingerprint,
            rows: self.store.row_counter(definition.name.as_str()),
            catalogue: self.store.catalogue_version(),
        });
        let take = accepted || known.forced;
        if let Some(failure) = known.held_back
            && !take
            && stamp.is_some()
            && failure.stamp == stamp
        {
            return Err(failure.as_ref().clone());
        }
        let checker = RowChecker {
            store: self.store,
            plugin: &loaded.plugin,
            plan,
            before: match serving {
                Some(serving) => Before::Serving(&serving.plugin),
                None => Before::Nothing,
            },
            time: self.row_check,
        };
        let began = Instant::now();
        let looked = !self.row_check.is_zero() || definition.hooks.upgrade;
        let checked = match checker.check().await {
            Ok(checked) => checked,
            Err(CheckError::TooMuch(reason)) if take || serving.is_none() => {
                let name = &definition.name;
                tracing::warn!("Plugin registry: {name}: its rows stay as they are: {reason}");
                Checked::default()
            }
            Err(error) => {
                // What takes long is not tried again before something is different.
                let stamp = stamp.filter(|_| matches!(error, CheckError::TooMuch(_)));
                let failure = check_failure(error, definition);
                return Err(Failure { stamp, ..failure });
            }
        };
        let Checked {
            extent,
            refused,
            carried,
        } = checked;
        if let Some(extent) = extent {
            tracing::info!(
                "Plugin registry: {} {}: {extent} stored configurations in {} ms",
                definition.name,
                definition.version,
                began.elapsed().as_millis()
            );
        }
        let carried = carried.filter(|carried| !carried.is_empty());
        match refused {
            None => Ok(Judged {
                code: (looked || take).then_some(code),
                carried,
                refused: None,
            }),
            Some(check) if take => {
                tracing::warn!(
                    "Plugin registry: {} {} is accepted with {} stored configurations that it would refuse",
                    definition.name,
                    definition.version,
                    grouped(check.refused)
                );
                Ok(Judged {
                    code: Some(code),
                    carried,
                    refused: None,
                })
            }
            Some(check) => match serving {
                // Not recorded, so that it is told again at the next start.
                None => Ok(Judged {
                    code: None,
                    carried,
                    refused: Some(check),
                }),
                Some(serving) => {
                    let before = Some(serving.definition().version.as_str());
                    Err(held_back(definition, before, check, stamp))
                }
            },
        }
    }

    /// Whether there are rows that `upgrade` would carry over.
    async fn has_older_rows(&self, definition: &Definition) -> Result<bool, Failure> {
        if !definition.hooks.upgrade {
            return Ok(false);
        }
        let found = self.store.has_rows_of_other_versions(definition).await;
        found.map_err(|error| store_failure(&error, definition))
    }

    /// Carries those rows over again that were written in the meantime.
    pub(super) async fn carry_again(
        &self,
        plugin: &Plugin,
        plan: &Plan,
        applying: &mut Applying,
        ids: Vec<Uuid>,
        forced: bool,
    ) -> Result<(), Failure> {
        let definition = plugin.definition();
        let Some(carried) = &mut applying.carried else {
            return Ok(());
        };
        let checker = RowChecker {
            store: self.store,
            plugin,
            plan,
            before: Before::Nothing,
            time: self.row_check,
        };
        let refused = checker.check_again(ids, Arc::make_mut(carried)).await;
        match refused.map_err(|error| check_failure(error, definition))? {
            // The next build looks at all of them.
            Some(_) if !forced => Err(moved(definition)),
            _ => Ok(()),
        }
    }

    /// Makes a version that does not fit its table show the rows, when that is because it is older; else it fails.
    pub(super) async fn read_only(
        &self,
        loaded: Loaded,
        known: Known<'_>,
        error: PlanError,
    ) -> Result<Ready, Failure> {
        let definition = loaded.plugin.definition().clone();
        let version = Some(definition.version.clone());
        let unknown = match &error {
            PlanError::Gone { id } => Some(format!("it does not know the migration {id}")),
            PlanError::Unfit { .. } => Some("the table has what it has no field for".to_owned()),
            _ => None,
        };
        let newer = known
            .mark
            .filter(|mark| is_older(&definition.version, &mark.version));
        let (Some(mark), Some(unknown)) = (newer, unknown) else {
            let message = error.to_string();
            return Err(Failure::plain(
                PluginState::Failed,
                "plan",
                message,
                version,
            ));
        };
        let fits = |active: &&Arc<ActivePlugin>| {
            active.read_only.is_none()
                && active
                    .table
                    .as_ref()
                    .is_some_and(|table| table.head() == mark.head.as_ref())
        };
        let name = &definition.name;
        let (own, applied) = (&definition.version, &mark.version);
        if known.serving.filter(fits).is_some() {
            return Err(Failure::plain(
                PluginState::Failed,
                "older",
                format!(
                    "the version {own} of {name} is older than its table, which is the one of {applied}: {unknown}; put \
                     {applied} or a later version back, or take the table back with `patchbay plugin migrate {name} --to …`"
                ),
                version,
            ));
        }
        let failure = Arc::new(Failure::plain(
            PluginState::Failed,
            "older",
            format!(
                "the version {own} of {name} is older than its table, which is the one of {applied}: {unknown}. What is stored \
                 is shown, and nothing is written, until {applied} or a later version is here, or the table was taken back \
                 with `patchbay plugin migrate {name} --to …`"
            ),
            version,
        ));
        let shown = self.shown(loaded, failure, None).await?;
        Ok(Ready::ReadOnly(Box::new(shown)))
    }

    /// A version that only shows what is stored, as another one has stored it.
    pub(super) async fn shown(
        &self,
        loaded: Loaded,
        failure: Arc<Failure>,
        refused_at: Option<AppliedMark>,
    ) -> Result<ActivePlugin, Failure> {
        let definition = loaded.plugin.definition().clone();
        let unavailable = |error: StoreError| store_failure(&error, &definition);
        let table = self
            .store
            .applied_table(&definition.name)
            .await
            .map_err(unavailable)?;
        let table = table.map(|(table, _)| table);
        let form = compute(&loaded.plugin, self.store, table.as_ref(), None).await;
        Ok(ActivePlugin {
            fingerprint: loaded.fingerprint,
            table,
            form: FormKeeper::holding(Arc::new(form)),
            changes: Vec::new(),
            broken_promise: None,
            refused: None,
            read_only: Some(ReadOnly {
                failure,
                since: Instant::now(),
                refused_at,
            }),
            paused: AtomicBool::new(false),
            hook_error: Default::default(),
            icon: loaded.icon,
            plugin: loaded.plugin,
        })
    }
}

impl Builder {
    /// Applies a version beside servers that run: tries it on the rows, carries them over, and runs the steps.
    pub(super) async fn apply(
        &self,
        order: &MigrationOrder,
        plan: &Plan,
        broken_promise: Option<String>,
    ) -> Result<(), RequestError> {
        let slot = self.slot_of(&order.plugin)?;
        let loaded = slot
            .loaded
            .as_ref()
            .ok_or_else(|| plugin_not_found(&order.plugin))?;
        let force = order.force;
        let definition = loaded.plugin.definition();
        let code = hex(&loaded.code);
        let marks = self.store.applied_marks().await?;
        let mark = marks.get(definition.name.as_str());
        let accepted = mark.is_none_or(|mark| mark.code.as_ref() == Some(&code));
        let activation = self.activation();
        let checker = RowChecker {
            store: &self.store,
            plugin: &loaded.plugin,
            plan,
            // What serves is in another process, so that nothing is known of its hooks.
            before: Before::Applied,
            time: self.settings.row_check,
        };
        let mut checked = Checked::default();
        if !accepted || definition.hooks.upgrade {
            checked = match checker.check().await {
                Err(CheckError::TooMuch(_)) if force => Checked::default(),
                other => other.map_err(|error| refused_request(error, definition))?,
            };
        }
        if let Some(check) = checked.refused.filter(|_| !force && !accepted) {
            let mut lines = vec![refusal(definition, None, &check)];
            lines.extend(check.lines());
            return Err(RequestError::Conflict(lines.join("\n")));
        }
        let carried = checked.carried.filter(|carried| !carried.is_empty());
        let mut applying = Applying {
            by: order.by.clone(),
            code: Some(code),
            broken_promise,
            ..Applying::default()
        };
        if plan.pending.is_empty() && carried.is_none() {
            if force {
                let recorded = self.store.record_definition(definition, applying);
                recorded.await.map_err(told)?;
            }
            return Ok(());
        }
        applying.carried = carried.map(Arc::new);
        let moved_again =
            || RequestError::Conflict(format!("{MOVED}; nothing was changed, so run it again"));
        for _ in 0..CARRIES {
            let applied = self
                .store
                .migrate_with(definition, plan, applying.clone())
                .await
                .map_err(told)?;
            match applied {
                Applied::Done => return Ok(()),
                Applied::Moved(ids) => activation
                    .carry_again(&loaded.plugin, plan, &mut applying, ids, force)
                    .await
                    .map_err(|failure| match failure.passing {
                        true => moved_again(),
                        false => RequestError::Conflict(failure.error.message),
                    })?,
            }
        }
        Err(moved_again())
    }
}

fn refused_request(error: CheckError, definition: &Definition) -> RequestError {
    match error {
        CheckError::Store(error) => error.into(),
        other => RequestError::Conflict(check_failure(other, definition).error.message),
    }
}

/// What is odd about a version that serves although it would refuse rows.
pub(super) fn rows_warning(definition: &Definition, check: &RowCheck) -> Vec<String> {
    let mut lines = vec![format!(
        "{} of the stored configurations would be refused by {} ({}); they are shown as they are, and have to be right when \
         they are next written",
        grouped(check.refused),
        definition.version,
        check.extent(),
    )];
    lines.extend(check.lines());
    lines
}

/// That a version is held back for the sake of these rows.
fn held_back(
    definition: &Definition,
    before: Option<&str>,
    check: RowCheck,
    stamp: Option<RowStamp>,
) -> Failure {
    let message = refusal(definition, before, &check);
    let version = Some(definition.version.clone());
    let mut failure = Failure::plain(PluginState::Failed, "rows", message, version);
    failure.error.mistakes.extend(check.lines());
    failure.error.rows = Some(check);
    failure.stamp = stamp;
    failure
}

fn check_failure(error: CheckError, definition: &Definition) -> Failure {
    let version = Some(definition.version.clone());
    let (message, passing) = match error {
        CheckError::Store(error) if error.is_unavailable() => {
            return store_failure(&error, definition);
        }
        CheckError::Store(error) => (
            format!("the stored configurations cannot be read: {error}"),
            false,
        ),
        CheckError::Passing(reason) => (
            format!("the stored configurations could not be checked: {reason}"),
            true,
        ),
        CheckError::TooMuch(reason) => (reason, false),
    };
    Failure {
        passing,
        ..Failure::plain(PluginState::Failed, "rows", message, version)
    }
}

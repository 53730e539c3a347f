//! Making a loaded plugin serve: every check that a definition needs besides its own, and its migrations last.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use patchbay_plugin::change::Change;
use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::{AppliedMigration, PendingMigration, Plan, plan};
use patchbay_plugin::outline::Outline;
use patchbay_plugin::platform::PluginState;
use patchbay_store::{Applied, AppliedMark, Applying, Held, Store, StoreError};

use super::judge::Judged;
use super::promise::Promise;
use super::slot::Loaded;
use crate::form::{FormKeeper, KeptForm, compute, last_error};
use crate::generation::{ActivePlugin, Failure};
use crate::wire::grouped;

/// The names, aliases and tables that are taken, and by whom.
#[derive(Default)]
pub(crate) struct Claims {
    names: HashMap<String, String>,
    tables: HashMap<String, String>,
}

impl Claims {
    pub(crate) fn take(&mut self, definition: &Definition, label: &str) {
        for name in std::iter::once(&definition.name).chain(&definition.aliases) {
            self.names
                .insert(name.as_str().to_owned(), label.to_owned());
        }
        if let Some(table) = &definition.table {
            self.tables
                .insert(table.as_str().to_owned(), label.to_owned());
        }
    }

    pub(crate) fn check(&self, definition: &Definition) -> Result<(), Failure> {
        let failed = |message: String| {
            let version = Some(definition.version.clone());
            Err(Failure::plain(
                PluginState::Failed,
                "collision",
                message,
                version,
            ))
        };
        for name in std::iter::once(&definition.name).chain(&definition.aliases) {
            if let Some(owner) = self.names.get(name.as_str()) {
                return failed(format!(
                    "expected a name and aliases that no other plugin has, found \"{name}\", which {owner} has (rename \
                     one of the two)"
                ));
            }
        }
        if let Some(table) = &definition.table
            && let Some(owner) = self.tables.get(table.as_str())
        {
            return failed(format!(
                "expected a table of the plugin's own, found \"{table}\", which {owner} has (set another `table`)"
            ));
        }
        Ok(())
    }
}

/// How often steps are planned at most, when other servers take them in the meantime.
const PLANS: u32 = 5;

/// How often rows that were written in the meantime are carried over again. Each time only those are, so that who writes
/// them would have to be very quick.
pub(super) const CARRIES: u32 = 50;

/// What it takes to make a loaded plugin serve.
#[derive(Clone, Copy)]
pub(super) struct Activation<'a> {
    pub(super) store: &'a Store,
    pub(super) auto_migrate: bool,
    pub(super) strict_versions: bool,
    /// At which step plugins are held.
    pub(super) held: &'a BTreeMap<String, Held>,
    /// Which plugins' tables are not what their migrations made.
    pub(super) drifts: &'a BTreeMap<String, Vec<String>>,
    pub(super) row_check: Duration,
    /// Who applies versions.
    pub(super) by: &'a str,
}

/// What is known of a plugin's name when a version of it is checked.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// The version of that name that serves now.
    pub(super) serving: Option<&'a Arc<ActivePlugin>>,
    /// The steps that have run.
    pub(super) history: Result<&'a [AppliedMigration], &'a StoreError>,
    /// What is applied.
    pub(super) mark: Option<&'a AppliedMark>,
    /// The same in full, where it was read.
    pub(super) outline: Option<&'a Outline>,
    /// Whether it is the version that serves, whose table has changed under it.
    pub(super) stale: bool,
    /// Whether the version that serves goes in any case, because its place is gone or its table was taken back.
    pub(super) goes: bool,
    /// Whether it is the first that may serve its name. The rows are only looked at for one that will.
    pub(super) first: bool,
    /// Whether it shall serve whatever it says of the rows.
    pub(super) forced: bool,
    /// What was found out about the rows before, if it held a version back.
    pub(super) held_back: Option<&'a Arc<Failure>>,
}

/// What a check that writes nothing came to.
pub(super) enum Ready {
    /// The version may take its place.
    Whole(Box<Prepared>),
    /// It is older than its table, and may only show it.
    ReadOnly(Box<ActivePlugin>),
    /// Its number promises too little: it may show what is stored where no other version serves, else it fails so.
    Refused(Box<ActivePlugin>, Failure),
}

impl Ready {
    pub(super) fn definition(&self) -> &Arc<Definition> {
        match self {
            Ready::Whole(prepared) => prepared.loaded.plugin.definition(),
            Ready::ReadOnly(active) | Ready::Refused(active, _) => active.definition(),
        }
    }
}

/// A version that passed every check that writes nothing.
pub(super) struct Prepared {
    loaded: Loaded,
    plan: Plan,
    form: Arc<KeptForm>,
    changes: Vec<Change>,
    broken_promise: Option<String>,
    /// What was found out about the rows; none when they are to be looked at once it is its turn.
    rows: Option<Judged>,
    mark: Option<AppliedMark>,
    /// The version whose place it takes.
    serving: Option<Arc<ActivePlugin>>,
    stale: bool,
    goes: bool,
    forced: bool,
}

impl Activation<'_> {
    /// Checks a loaded plugin, computes its form, and tries its rules on the rows that it would own.
    pub(super) async fn prepare(&self, loaded: Loaded, known: Known<'_>) -> Result<Ready, Failure> {
        // One that was refused has taken nobody's place.
        let known = Known {
            serving: known.serving.filter(|active| !active.is_refused()),
            ..known
        };
        let serving = known.serving;
        let definition = loaded.plugin.definition().clone();
        let fail = |state, stage: &str, message: String| {
            Failure::plain(state, stage, message, Some(definition.version.clone()))
        };
        if let Some(misfit) = definition.incompatibility() {
            let report = loaded.plugin.misfit(&misfit).await;
            let version = Some(definition.version.as_str());
            return Err(Failure {
                state: PluginState::Incompatible,
                error: Box::new(last_error(&[report], misfit.key, &misfit.message, version)),
                passing: false,
                stamp: None,
            });
        }
        let history = known
            .history
            .map_err(|error| store_failure(error, &definition))?;
        if let Some(differences) = self.drifts.get(definition.name.as_str()) {
            return Err(drifted(differences, &definition));
        }
        let plan = match plan(&definition, history) {
            Ok(plan) => plan,
            Err(error) => return self.read_only(loaded, known, error).await,
        };
        if let Some(step) = plan.pending.first().filter(|_| known.stale) {
            // Somebody has taken the table back on purpose.
            return Err(fail(
                PluginState::PendingMigration,
                "migration",
                format!(
                    "its table was taken back to before the migration {}, so it takes no writes; put the version back \
                     that the table is for, or run `patchbay plugin migrate {}`",
                    step.migration.id, definition.name
                ),
            ));
        }
        let Promise {
            changes,
            broken: broken_promise,
            refused,
        } = self.promise(&loaded, &plan, known);
        if let Some(reason) = refused {
            return self.refuse(loaded, known, reason).await;
        }
        // Rows are read in the shape that this version wants; where steps are pending, there are none in it yet.
        let table = serving
            .and_then(|active| active.table.as_ref())
            .filter(|_| plan.pending.is_empty());
        let form = match loaded.form.as_ref().filter(|form| {
            let rows = self.store.row_counter(definition.name.as_str());
            table.is_none() && form.is_current(self.store.catalogue_version(), rows)
        }) {
            Some(form) => form.clone(),
            None => Arc::new(compute(&loaded.plugin, self.store, table, None).await),
        };
        let good_before = serving
            .and_then(|active| active.form.peek())
            .is_some_and(|form| form.good.is_some());
        if let (Some(error), true) = (&form.failure, good_before) {
            return Err(Failure {
                state: PluginState::Failed,
                error: Box::new(error.as_ref().clone()),
                passing: form.is_passing(),
                stamp: None,
            });
        }
        let held = self.held.get(definition.name.as_str());
        self.check_may_run(&plan, &definition, held)?;
        let rows = match known.first {
            true => Some(self.judge(&loaded, &plan, known).await?),
            false => None,
        };
        Ok(Ready::Whole(Box::new(Prepared {
            loaded,
            plan,
            form,
            changes,
            broken_promise,
            rows,
            mark: known.mark.cloned(),
            serving: serving.cloned(),
            stale: known.stale,
            goes: known.goes,
            forced: known.forced,
        })))
    }

    /// Runs the pending migrations, or records the definition. From here on the older version cannot write any more.
    pub(super) async fn finish(&self, prepared: Prepared) -> Result<ActivePlugin, Failure> {
        let serving = prepared.serving.clone();
        let finished = self.finish_while_paused(prepared).await;
        if finished.is_err()
            && let Some(serving) = serving
        {
            serving.paused.store(false, Ordering::Release);
        }
        finished
    }

    async fn finish_while_paused(&self, prepared: Prepared) -> Result<ActivePlugin, Failure> {
        let Prepared {
            loaded,
            mut plan,
            form,
            changes,
            broken_promise,
            rows,
            mark,
            serving,
            stale,
            goes,
            forced,
        } = prepared;
        let rows = match rows {
            Some(rows) => rows,
            None => {
                let known = Known {
                    serving: serving.as_ref(),
                    history: Ok(&[]),
                    mark: mark.as_ref(),
                    outline: None,
                    stale,
                    goes,
                    first: true,
                    forced,
                    held_back: None,
                };
                self.judge(&loaded, &plan, known).await?
            }
        };
        let definition = loaded.plugin.definition();
        let is_current = plan.pending.is_empty();
        if !is_current {
            tracing::debug!(
                "Plugin registry: {} {} has {} migrations to run",
                definition.name,
                definition.version,
                plan.pending.len()
            );
        }
        let mut applying = Applying {
            by: self.by.to_owned(),
            code: rows.code,
            carried: rows.carried.map(Arc::new),
            broken_promise: broken_promise.clone(),
            partly: false,
        };
        for tries in 1.. {
            let carries = applying.carried.is_some();
            let done = match plan.pending.is_empty() && !carries {
                // What is applied is another server's, which has the same steps.
                true if stale => Ok(Applied::Done),
                true => {
                    let recorded = self.store.record_definition(definition, applying.clone());
                    recorded.await.map(|()| Applied::Done)
                }
                false => {
                    self.store
                        .migrate_with(definition, &plan, applying.clone())
                        .await
                }
            };
            match done {
                Ok(Applied::Done) => break,
                Ok(Applied::Moved(ids)) if tries < CARRIES => {
                    // Who writes all the while waits for the version that comes; it is a matter of moments.
                    if let Some(serving) = &serving {
                        serving.paused.store(true, Ordering::Release);
                    }
                    self.carry_again(&loaded.plugin, &plan, &mut applying, ids, forced)
                        .await?;
                }
                Ok(Applied::Moved(_)) => return Err(moved(definition)),
                // Rows were carried over from tables that are others now.
                Err(StoreError::HeadMoved) if carries => return Err(moved(definition)),
                // Another server has just taken these steps, or some of them.
                Err(StoreError::HeadMoved) if tries < PLANS => {
                    plan = self.plan_again(definition).await?;
                }
                Err(error) => return Err(store_failure(&error, definition)),
            }
        }
        if let Some(carried) = &applying.carried {
            let (name, version) = (&definition.name, &definition.version);
            let rows = grouped(carried.len() as u64);
            tracing::info!("Plugin registry: {name}: {rows} rows are carried over to {version}");
        }
        let form = match is_current {
            true => form,
            false => Arc::new(form.on_another_table()),
        };
        Ok(ActivePlugin {
            fingerprint: loaded.fingerprint,
            table: definition
                .table
                .is_some()
                .then(|| self.store.table(definition, &plan)),
            form: FormKeeper::holding(form),
            changes,
            broken_promise,
            refused: rows.refused,
            read_only: None,
            paused: AtomicBool::new(false),
            hook_error: Default::default(),
            icon: loaded.icon,
            plugin: loaded.plugin,
        })
    }

    async fn plan_again(&self, definition: &Definition) -> Result<Plan, Failure> {
        let history = self.store.history(&definition.name).await;
        let history = history.map_err(|error| store_failure(&error, definition))?;
        let plan = plan(definition, &history).map_err(|error| {
            let version = Some(definition.version.clone());
            Failure::plain(PluginState::Failed, "plan", error.to_string(), version)
        })?;
        let held = self.store.held().await;
        let held = held.map_err(|error| store_failure(&error, definition))?;
        self.check_may_run(&plan, definition, held.get(definition.name.as_str()))?;
        Ok(plan)
    }

    /// Fails when a pending step waits until it is told to run.
    fn check_may_run(
        &self,
        plan: &Plan,
        definition: &Definition,
        held: Option<&Held>,
    ) -> Result<(), Failure> {
        if let (Some(held), Some(step)) = (held, plan.pending.first()) {
            return Err(Failure::plain(
                PluginState::PendingMigration,
                "migration",
                held_message(held, step, definition),
                Some(definition.version.clone()),
            ));
        }
        let Some(step) = plan.pending.iter().find(|step| !self.may_run(step)) else {
            return Ok(());
        };
        let what = if step.expands {
            "auto_migrate is off"
        } else {
            "it does more than add"
        };
        Err(Failure::plain(
            PluginState::PendingMigration,
            "migration",
            format!(
                "the migration {} waits to be told, because {what}; run `patchbay plugin migrate {}`",
                step.migration.id, definition.name
            ),
            Some(definition.version.clone()),
        ))
    }

    fn may_run(&self, step: &PendingMigration) -> bool {
        !step.origin.runs() || (step.expands && self.auto_migrate)
    }
}

/// Where an operator holds a plugin, since when, and who did.
pub(crate) fn held_at(held: &Held) -> String {
    let at = match &held.step {
        Some(id) => format!("held at the migration {id}"),
        None => "held with no migration applied".to_owned(),
    };
    let since = held
        .at
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default();
    format!("the plugin is {at} since {since} by {}", held.by)
}

/// Why a plugin that an operator holds does not serve in a version that wants more steps.
fn held_message(held: &Held, step: &PendingMigration, definition: &Definition) -> String {
    format!(
        "{}, and this version needs {}; put back the version that the table is for, or run `patchbay plugin migrate {}`, \
         which goes on",
        held_at(held),
        step.migration.id,
        definition.name
    )
}

/// What to say of a plugin that serves while an operator holds it.
pub(super) fn held_warning(held: &Held, name: &str) -> String {
    format!(
        "{}; a version that needs a later one waits until `patchbay plugin migrate {name}` goes on",
        held_at(held)
    )
}

/// That something else has changed a plugin's tables.
pub(super) fn drifted(differences: &[String], definition: &Definition) -> Failure {
    Failure::plain(
        PluginState::Failed,
        "drift",
        format!(
            "the tables of {} are not what its migrations made: {}; something else has changed them, so change them back, \
             then reload",
            definition.name,
            differences.join("; ")
        ),
        Some(definition.version.clone()),
    )
}

/// What is said when it is given up.
pub(super) const MOVED: &str =
    "its rows or its table changed again and again while rows were carried over";

/// Rows were written, or tables changed, again and again while rows were carried over.
pub(super) fn moved(definition: &Definition) -> Failure {
    let message = format!("{MOVED}; it is tried again by itself");
    let version = Some(definition.version.clone());
    Failure {
        passing: true,
        ..Failure::plain(PluginState::Failed, "rows", message, version)
    }
}

pub(super) fn store_failure(error: &StoreError, definition: &Definition) -> Failure {
    let stage = match error {
        StoreError::TableTaken { .. } => "collision",
        StoreError::Migration { .. } => "migration",
        _ => "store",
    };
    if let StoreError::Drift(differences) = error {
        return drifted(differences, definition);
    }
    let version = Some(definition.version.clone());
    Failure {
        passing: error.is_unavailable(),
        ..Failure::plain(PluginState::Failed, stage, error.to_string(), version)
    }
}

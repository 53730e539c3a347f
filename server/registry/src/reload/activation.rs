//! Making a loaded plugin serve: every check that a definition needs besides its own, and its migrations last.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use patchbay_plugin::change::{self, Change, broken_promise, changes_of_plan};
use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::{
    AppliedMigration, Origin as StepOrigin, PendingMigration, Plan, plan,
};
use patchbay_plugin::platform::PluginState;
use patchbay_store::{Held, Store, StoreError};

use super::slot::Loaded;
use crate::form::{FormKeeper, KeptForm, compute, last_error};
use crate::generation::{ActivePlugin, Failure};

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
}

/// A version that passed every check that writes nothing.
pub(super) struct Prepared {
    loaded: Loaded,
    plan: Plan,
    form: Arc<KeptForm>,
    changes: Vec<Change>,
    broken_promise: Option<String>,
}

impl Prepared {
    pub(super) fn definition(&self) -> &Arc<Definition> {
        self.loaded.plugin.definition()
    }
}

impl Activation<'_> {
    /// Checks a loaded plugin and computes its form. `serving` is the version of that name that serves now.
    pub(super) async fn prepare(
        &self,
        loaded: Loaded,
        serving: Option<&ActivePlugin>,
        history: Result<&[AppliedMigration], &StoreError>,
    ) -> Result<Prepared, Failure> {
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
            });
        }
        let history = history.map_err(|error| store_failure(error, &definition))?;
        if let Some(differences) = self.drifts.get(definition.name.as_str()) {
            return Err(drifted(differences, &definition));
        }
        let plan = plan(&definition, history)
            .map_err(|error| fail(PluginState::Failed, "plan", error.to_string()))?;
        let mut changes = changes_of_plan(&plan);
        let mut broken = None;
        if let Some(serving) = serving {
            changes.extend(change::changes(serving.definition(), &definition));
            broken = broken_promise(serving.definition(), &definition, &changes);
        }
        if let Some(reason) = broken.as_ref().filter(|_| self.strict_versions) {
            return Err(fail(PluginState::Failed, "version", reason.clone()));
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
            });
        }
        let held = self.held.get(definition.name.as_str());
        self.check_may_run(&plan, &definition, held)?;
        Ok(Prepared {
            loaded,
            plan,
            form,
            changes,
            broken_promise: broken,
        })
    }

    /// Runs the pending migrations, or records the definition. From here on the older version cannot write any more.
    pub(super) async fn finish(&self, prepared: Prepared) -> Result<ActivePlugin, Failure> {
        let Prepared {
            loaded,
            mut plan,
            form,
            changes,
            broken_promise,
        } = prepared;
        let definition = loaded.plugin.definition();
        let is_current = plan.pending.is_empty();
        for tries in 1.. {
            let done = match plan.pending.is_empty() {
                true => self.store.record_definition(definition).await,
                false => self.store.migrate(definition, &plan, "server").await,
            };
            match done {
                Ok(()) => break,
                // Another server has just taken these steps, or some of them.
                Err(StoreError::HeadMoved) if tries < PLANS => {
                    plan = self.plan_again(definition).await?;
                }
                Err(error) => return Err(store_failure(&error, definition)),
            }
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
        step.origin == StepOrigin::Baseline || (step.expands && self.auto_migrate)
    }
}

/// Why a plugin that an operator holds does not serve in a version that wants more steps.
fn held_message(held: &Held, step: &PendingMigration, definition: &Definition) -> String {
    let at = match &held.step {
        Some(id) => format!("held at the migration {id}"),
        None => "held with no migration applied".to_owned(),
    };
    let since = held
        .at
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default();
    format!(
        "the plugin is {at} since {since} by {}, and this version needs {}; put back the version that the table is for, or \
         run `patchbay plugin migrate {}`, which goes on",
        held.by, step.migration.id, definition.name
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

fn store_failure(error: &StoreError, definition: &Definition) -> Failure {
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

//! Making a loaded plugin serve: every check that a definition needs besides its own, and its migrations last.

use std::collections::HashMap;
use std::sync::Arc;

use patchbay_plugin::change::{self, Change, broken_promise, changes_of_plan};
use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::{
    AppliedMigration, Origin as StepOrigin, PendingMigration, Plan, plan,
};
use patchbay_plugin::platform::PluginState;
use patchbay_store::{Store, StoreError};
use semver::Version;

use super::slot::Loaded;
use crate::form::{FormKeeper, KeptForm, compute};
use crate::generation::{ActivePlugin, Failure};

/// The names, aliases and tables that are taken, and by whom.
#[derive(Default)]
pub(super) struct Claims {
    names: HashMap<String, String>,
    tables: HashMap<String, String>,
}

impl Claims {
    pub(super) fn take(&mut self, definition: &Definition, label: &str) {
        for name in std::iter::once(&definition.name).chain(&definition.aliases) {
            self.names
                .insert(name.as_str().to_owned(), label.to_owned());
        }
        if let Some(table) = &definition.table {
            self.tables
                .insert(table.as_str().to_owned(), label.to_owned());
        }
    }

    pub(super) fn check(&self, definition: &Definition) -> Result<(), Failure> {
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
        check_requires(&definition)
            .map_err(|reason| fail(PluginState::Incompatible, "requires", reason))?;
        let history = history.map_err(|error| store_failure(error, &definition))?;
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
        self.check_may_run(&plan, &definition)?;
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
        self.check_may_run(&plan, definition)?;
        Ok(plan)
    }

    /// Fails when a pending step waits until it is told to run.
    fn check_may_run(&self, plan: &Plan, definition: &Definition) -> Result<(), Failure> {
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

fn store_failure(error: &StoreError, definition: &Definition) -> Failure {
    let stage = match error {
        StoreError::TableTaken { .. } => "collision",
        StoreError::Migration { .. } => "migration",
        _ => "store",
    };
    let version = Some(definition.version.clone());
    Failure {
        passing: error.is_unavailable(),
        ..Failure::plain(PluginState::Failed, stage, error.to_string(), version)
    }
}

fn check_requires(definition: &Definition) -> Result<(), String> {
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

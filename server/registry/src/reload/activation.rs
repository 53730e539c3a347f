//! Making a loaded plugin serve: every check that a definition needs besides its own, and its migrations last.

use std::collections::HashMap;
use std::sync::Arc;

use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::{AppliedMigration, Origin as StepOrigin, PendingMigration, plan};
use patchbay_plugin::platform::PluginState;
use patchbay_store::{Store, StoreError};
use semver::Version;

use super::slot::Loaded;
use crate::form::{FormKeeper, compute};
use crate::generation::{ActivePlugin, Failure};
use crate::wire::{LastError, MigrationView};

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
pub(super) struct Activation<'a> {
    pub(super) store: &'a Store,
    pub(super) auto_migrate: bool,
}

impl Activation<'_> {
    pub(super) async fn activate(
        &self,
        loaded: &Loaded,
        serving: Option<&Arc<ActivePlugin>>,
        history: &[AppliedMigration],
        claims: &Claims,
    ) -> Result<ActivePlugin, Failure> {
        let definition = loaded.plugin.definition();
        let fail = |state, stage: &str, message: String| Failure {
            state,
            error: LastError::plain(stage, message, Some(definition.version.clone())),
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

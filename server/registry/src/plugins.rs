//! Answers about plugins: the list, forms, tiles, links, details and status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures_util::future::BoxFuture;
use patchbay_lua::{HookCall, HookContext, UrlError};
use patchbay_plugin::configuration::DataProduct;
use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::{AppliedMigration, PendingMigration, plan};
use patchbay_plugin::platform::{PluginMeta, PluginState, TileSource, tiles};
use patchbay_plugin::reference::reference;
use patchbay_plugin::schema::configuration_schema;
use patchbay_plugin::validation::ValidationError;
use serde_json::Value;
use uuid::Uuid;

use crate::error::plugin_not_found;
use crate::form::{KeptForm, Reader, hook_failure};
use crate::generation::{ActivePlugin, Entry, Finding, Generation, standing};
use crate::proofs::PATIENCE;
use crate::wire::{
    LastError, MigrationView, PlatformTiles, PluginDetails, PluginList, PluginMigrations,
    PluginStatus, PluginStatuses, PluginUrl, migration_views,
};
use crate::{Registry, RequestError};

/// The steps of a plugin: its newest definition, what has run, and what is pending.
type Steps = (
    Option<Arc<Definition>>,
    Vec<AppliedMigration>,
    Vec<PendingMigration>,
);

impl Registry {
    /// Every enabled plugin, unconfigured and failed forms included, ordered by platform key.
    pub async fn list(&self) -> PluginList {
        let generation = self.current();
        let forms = generation.entries.iter().map(|entry| self.form_of(entry));
        let forms = futures_util::future::join_all(forms).await;
        let plugins = generation
            .entries
            .iter()
            .zip(forms)
            .map(|(entry, form)| meta(&generation, entry, &form))
            .collect();
        PluginList { plugins }
    }

    /// The form of one plugin.
    ///
    /// # Errors
    /// `NotFound` when no enabled plugin has that name or alias; `Internal` when its form has never worked.
    pub async fn form(&self, plugin: &str) -> Result<PluginMeta, RequestError> {
        let generation = self.current();
        let entry = generation
            .entry(plugin)
            .ok_or_else(|| plugin_not_found(plugin))?;
        let form = self.form_of(entry).await;
        if form.good.is_none() {
            let reason = form
                .failure
                .as_ref()
                .map(|failure| failure.message.clone())
                .unwrap_or_default();
            return Err(RequestError::Internal(format!(
                "the form of {} has never worked: {reason}",
                entry.active.name()
            )));
        }
        Ok(meta(&generation, entry, &form))
    }

    /// The tiles of the enabled plugins.
    pub async fn platform_tiles(&self) -> PlatformTiles {
        let generation = self.current();
        let sources = generation.entries.iter().map(|entry| TileSource {
            platform: &entry.active.definition().platform,
            icon_data_uri: entry.active.icon.as_ref().map(|icon| &*icon.data_uri),
        });
        PlatformTiles {
            platform_tiles: tiles(sources),
        }
    }

    /// The link of a platform for a data product, in an environment.
    ///
    /// # Errors
    /// `Invalid` for a bad or missing id, `NotFound` for an unknown key, data product or environment and for missing
    /// catalogue data, `NotImplemented` without a `url` hook, `BadRequest` where an environment is needed.
    pub async fn url(
        &self,
        platform_key: &str,
        id: Option<&str>,
        environment: Option<&str>,
    ) -> Result<PluginUrl, RequestError> {
        let id = parse_id(id)?;
        let generation = self.current();
        let entry = generation
            .linked(platform_key)
            .ok_or_else(|| plugin_not_found(platform_key))?;
        let without_url = || {
            RequestError::NotImplemented(format!(
                "Plugin '{platform_key}' does not implement URL retrieval"
            ))
        };
        // Told before anything is looked up, so that the answer does not depend on what is asked about.
        if !entry.active.definition().hooks.url {
            return Err(without_url());
        }
        let data_product = self.data_product(id).await?;
        let reader = Reader::new(self.store(), entry.active.table.as_ref());
        let catalogue = patchbay_lua::CatalogueReader::catalogue(&reader);
        let environment = match environment.filter(|name| !name.is_empty()) {
            None => None,
            Some(name) => Some(catalogue.environment(name).cloned().ok_or_else(|| {
                RequestError::NotFound(format!("Environment '{name}' not found"))
            })?),
        };
        let context = HookContext {
            data_product: Some(data_product),
            environment,
            ..HookContext::default()
        };
        let call = HookCall {
            values: Default::default(),
            context,
            reader: Arc::new(reader),
        };
        match entry.active.plugin.url(call).await {
            Ok(url) => Ok(PluginUrl { url }),
            Err(UrlError::NotFound(message)) => Err(RequestError::NotFound(message)),
            Err(UrlError::BadRequest(message)) => Err(RequestError::BadRequest(message)),
            Err(UrlError::Missing) => Err(without_url()),
            Err(UrlError::Hook(error)) => Err(self.hook_failed(&entry.active, error)),
        }
    }

    /// All about one plugin, the disabled and failed ones too.
    ///
    /// # Errors
    /// `NotFound` when no plugin of that name or alias was found, or none of its versions ever loaded.
    pub async fn details(&self, plugin: &str) -> Result<PluginDetails, RequestError> {
        let generation = self.current();
        let finding = generation
            .finding(plugin)
            .ok_or_else(|| plugin_not_found(plugin))?;
        let definition = finding
            .definition
            .clone()
            .ok_or_else(|| plugin_not_found(plugin))?;
        let (meta, definition, mut error) = match generation.entry(plugin) {
            Some(entry) => {
                let form = self.form_of(entry).await;
                let error = form.failure.as_deref().cloned();
                (
                    meta(&generation, entry, &form),
                    entry.active.definition().clone(),
                    error,
                )
            }
            None => (
                formless_meta(&generation, &definition, finding.state()),
                definition,
                None,
            ),
        };
        if let Some(failure) = &finding.failure {
            error = Some(failure.error.as_ref().clone());
        }
        if let (None, Some(active)) = (&error, &finding.serving) {
            error = active.hook_error.load_full().as_deref().cloned();
        }
        let history = self.store().history(&definition.name).await?;
        // What waits belongs to the newest version, which need not be the one that serves.
        let newest = finding.definition.as_ref().unwrap_or(&definition);
        let pending = plan(newest, &history)
            .map(|plan| plan.pending)
            .unwrap_or_default();
        let steps = (Some(newest.clone()), history, pending);
        let migrations = self
            .migration_steps(vec![steps])
            .await?
            .pop()
            .unwrap_or_default();
        Ok(PluginDetails {
            meta,
            aliases: definition.aliases.iter().map(ToString::to_string).collect(),
            requires: definition.requires.as_ref().map(ToString::to_string),
            source: finding.place.label(),
            fields: definition
                .fields
                .iter()
                .map(|field| {
                    serde_json::to_value(field)
                        .unwrap_or_else(|_| unreachable!("a field is plain data"))
                })
                .collect(),
            table: definition.table.as_ref().map(ToString::to_string),
            migrations,
            last_error: error,
            warnings: finding.warnings.clone(),
        })
    }

    /// Every plugin found, in short.
    pub async fn statuses(&self) -> PluginStatuses {
        let generation = self.current();
        PluginStatuses {
            generation: generation.number,
            plugins: generation.findings.iter().map(status).collect(),
            problems: generation.problems.clone(),
        }
    }

    /// The name of the plugin that answers to a name or alias, the disabled and failed ones too.
    pub fn name_of(&self, plugin: &str) -> Option<String> {
        let generation = self.current();
        let finding = generation.finding(plugin)?;
        let definition = finding.definition.as_ref()?;
        Some(definition.name.to_string())
    }

    /// What is different in the version of a plugin that serves from the one whose place it took; none when nothing is, or
    /// there was none.
    pub fn what_changed(&self, plugin: &str) -> Option<String> {
        let generation = self.current();
        patchbay_plugin::change::summary(&generation.entry(plugin)?.active.changes)
    }

    /// The migrations of every active plugin, and the history of every plugin that ever had one.
    ///
    /// # Errors
    /// `Unavailable` or `Internal` for the database's.
    pub async fn migrations(&self) -> Result<PluginMigrations, RequestError> {
        self.migrations_in(self.store()).await
    }

    /// As [`migrations`](Registry::migrations), of what is applied in another database than the registry's own. Nothing is
    /// written.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn migrations_in(
        &self,
        store: &patchbay_store::Store,
    ) -> Result<PluginMigrations, RequestError> {
        let generation = self.current();
        let histories = store.histories().await?;
        let mut steps: BTreeMap<String, Steps> = histories
            .iter()
            .map(|(plugin, history)| (plugin.clone(), (None, history.clone(), Vec::new())))
            .collect();
        // Of several places of one name the one that serves speaks for it, else the one that would.
        let mut findings: Vec<&Finding> = generation.findings.iter().collect();
        findings.sort_by_key(|finding| finding.serving.is_some());
        for finding in findings {
            let Some(definition) = &finding.definition else {
                continue;
            };
            let name = definition.name.as_str();
            if finding.formless_state == PluginState::Disabled && !histories.contains_key(name) {
                continue;
            }
            let history = histories.get(name).map(Vec::as_slice).unwrap_or_default();
            if let Ok(plan) = plan(definition, history) {
                let known = (Some(definition.clone()), history.to_vec(), plan.pending);
                steps.insert(name.to_owned(), known);
            }
        }
        let (names, steps): (Vec<String>, Vec<Steps>) = steps.into_iter().unzip();
        let views = self.migration_steps(steps).await?;
        Ok(PluginMigrations {
            migrations: names.into_iter().zip(views).collect(),
        })
    }

    /// Migrations as answers show them, with what is proved of each. What is not yet is tried for a while, away from the
    /// threads that serve.
    async fn migration_steps(
        &self,
        plugins: Vec<Steps>,
    ) -> Result<Vec<Vec<MigrationView>>, RequestError> {
        let proofs = self.inner.proofs.clone();
        let work = move || {
            let deadline = Instant::now() + PATIENCE;
            plugins
                .into_iter()
                .map(|(definition, history, pending)| {
                    let claims = proofs.claims(definition.as_deref(), &history, &pending, deadline);
                    migration_views(&history, &pending, claims)
                })
                .collect()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| RequestError::Internal(error.to_string()))
    }

    /// The JSON Schema of a plugin's configuration.
    ///
    /// # Errors
    /// `NotFound` when no plugin of that name or alias serves.
    pub fn schema(&self, plugin: &str) -> Result<Value, RequestError> {
        let generation = self.current();
        let entry = generation
            .entry(plugin)
            .ok_or_else(|| plugin_not_found(plugin))?;
        Ok(configuration_schema(entry.active.definition()))
    }

    /// The reference page of a plugin, in Markdown.
    ///
    /// # Errors
    /// `NotFound` when no plugin of that name or alias serves.
    pub fn reference(&self, plugin: &str) -> Result<String, RequestError> {
        let generation = self.current();
        let entry = generation
            .entry(plugin)
            .ok_or_else(|| plugin_not_found(plugin))?;
        Ok(reference(entry.active.definition()))
    }

    /// The icon of a plugin.
    ///
    /// # Errors
    /// `NotFound` when no plugin of that name or alias serves, or it has no icon.
    pub fn icon(&self, plugin: &str) -> Result<Arc<[u8]>, RequestError> {
        let generation = self.current();
        let entry = generation
            .entry(plugin)
            .ok_or_else(|| plugin_not_found(plugin))?;
        match &entry.active.icon {
            Some(icon) => Ok(icon.svg.clone()),
            None => Err(RequestError::NotFound(format!(
                "Icon of plugin '{plugin}' not found"
            ))),
        }
    }

    /// The form of an active plugin, computed when what it depends on has changed. A form that ran out of time or memory
    /// before is served as it was and computed aside, so that a plugin in trouble holds up nobody's list.
    async fn form_of(&self, entry: &Entry) -> Arc<KeptForm> {
        let active = &entry.active;
        if let Some(form) = active.form.current(active.name(), self.store()) {
            return form;
        }
        match active.form.peek().filter(|form| form.is_passing()) {
            Some(failed) => {
                self.compute_aside(active, false);
                failed
            }
            None => self.compute_form(active, false).await,
        }
    }

    async fn compute_form(&self, active: &Arc<ActivePlugin>, again: bool) -> Arc<KeptForm> {
        let table = active.table.as_ref();
        let (form, computed) = active
            .form
            .compute(&active.plugin, self.store(), table, again)
            .await;
        if computed {
            if form.reads_rows {
                self.note_row_readers(&self.current());
            }
            if let Some(failure) = &form.failure {
                self.inner
                    .counters
                    .hook_failures
                    .fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    plugin = active.name(),
                    "the form failed: {}",
                    failure.message
                );
            }
            self.retry_form(active);
        }
        form
    }

    /// Computes a form that failed again, when the reason may pass by itself.
    pub(crate) fn retry_form(&self, active: &Arc<ActivePlugin>) {
        if active.form.peek().is_some_and(|form| form.is_passing()) {
            self.compute_aside(active, true);
        }
    }

    /// Computes a form while others go on; `after_pause` waits first, longer each time. Kept answers are made again when
    /// something came of it.
    fn compute_aside(&self, active: &Arc<ActivePlugin>, after_pause: bool) {
        let Some(pause) = active.form.pause.begin() else {
            return;
        };
        let (registry, active) = (Arc::downgrade(&self.inner), Arc::downgrade(active));
        let work: BoxFuture<'static, ()> = Box::pin(async move {
            if after_pause {
                tokio::time::sleep(pause).await;
            }
            let (Some(inner), Some(active)) = (registry.upgrade(), active.upgrade()) else {
                return;
            };
            active.form.pause.end();
            let registry = Registry { inner };
            if registry.compute_form(&active, true).await.failure.is_none() {
                registry.inner.retries.fetch_add(1, Ordering::AcqRel);
            }
        });
        tokio::spawn(work);
    }

    /// Notes that a hook failed while it served a request.
    pub(crate) fn hook_failed(
        &self,
        active: &ActivePlugin,
        error: patchbay_lua::HookError,
    ) -> RequestError {
        self.inner
            .counters
            .hook_failures
            .fetch_add(1, Ordering::Relaxed);
        let failure: LastError = hook_failure(&error, Some(&active.definition().version));
        active.hook_error.store(Some(Arc::new(failure)));
        error.into()
    }

    pub(crate) async fn data_product(&self, id: Uuid) -> Result<DataProduct, RequestError> {
        self.store()
            .data_product(id)
            .await?
            .ok_or_else(|| RequestError::NotFound("Data product not found".to_owned()))
    }
}

fn parse_id(id: Option<&str>) -> Result<Uuid, RequestError> {
    let loc = vec!["query".into(), "id".into()];
    let Some(text) = id else {
        return Err(RequestError::Invalid(vec![ValidationError::missing(
            loc,
            Value::Null,
        )]));
    };
    Uuid::parse_str(text)
        .map_err(|_| RequestError::Invalid(vec![ValidationError::no_uuid(loc, text)]))
}

/// A plugin's entry in the list.
fn meta(generation: &Generation, entry: &Entry, form: &KeptForm) -> PluginMeta {
    let formless = entry
        .failure
        .as_ref()
        .map_or(PluginState::Active, |failure| failure.beside_serving());
    let state = standing(formless, Some(form));
    PluginMeta {
        not_configured: form.good.as_ref().is_none_or(|form| form.not_configured),
        ui_metadata: form
            .good
            .as_ref()
            .map(|form| form.elements.clone())
            .unwrap_or_default(),
        icon_data_uri: entry
            .active
            .icon
            .as_ref()
            .map(|icon| icon.data_uri.to_string()),
        ..formless_meta(generation, entry.active.definition(), state)
    }
}

/// The entry of a plugin as far as its definition tells it.
fn formless_meta(
    generation: &Generation,
    definition: &Definition,
    state: PluginState,
) -> PluginMeta {
    let platform = &definition.platform;
    PluginMeta {
        not_configured: true,
        ui_metadata: Vec::new(),
        plugin: definition.name.to_string(),
        has_environments: platform.has_environments,
        result_label: platform.result_label.clone(),
        result_tooltip: platform.result_tooltip.clone(),
        platform: platform.platform_key.to_string(),
        display_name: platform.display_name.clone(),
        icon_name: platform.icon_name.clone(),
        icon_data_uri: None,
        parent_platform: platform.parent_platform.as_ref().map(ToString::to_string),
        platform_tile: None,
        show_in_form: platform.show_in_form,
        shareable: platform.shareable,
        detailed_name: platform.detailed_name.clone(),
        version: definition.version.clone(),
        migration_file_path: definition.latest_migration_path().map(str::to_owned),
        state,
        generation: generation.number,
    }
}

pub(crate) fn status(finding: &Finding) -> PluginStatus {
    PluginStatus {
        plugin: finding
            .definition
            .as_ref()
            .map(|definition| definition.name.to_string()),
        state: finding.state(),
        version: finding
            .serving
            .as_ref()
            .map(|active| active.definition().version.clone()),
        source: finding.place.label(),
        package: finding
            .place
            .package
            .as_ref()
            .map(|owner| owner.package.clone()),
        migration_file_path: finding
            .definition
            .as_ref()
            .and_then(|definition| definition.latest_migration_path())
            .map(str::to_owned),
        generation: finding.since,
        last_error: finding.trouble().or_else(|| {
            let active = finding.serving.as_ref()?;
            active.hook_error.load_full().as_deref().cloned()
        }),
        warnings: finding.warnings.clone(),
    }
}

//! Creating, reading and changing stored configurations.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use patchbay_lua::HookContext;
use patchbay_plugin::Map;
use patchbay_plugin::configuration::{Configuration, ConfigurationDraft, DataProduct};
use patchbay_plugin::platform::PluginState;
use patchbay_store::{ConfigurationQuery, StoreError};
use serde_json::Value;
use uuid::Uuid;

use crate::admission::{check_tag, configuration_loc, read_write_body, resolve_service};
use crate::error::plugin_not_found;
use crate::generation::{Entry, Generation};
use crate::wire::{ConfigurationPage, ConfigurationView, DryRun, History};
use crate::{Registry, RequestError};

/// How often a write is made again when its plugin's migration head moved under it.
const ATTEMPTS: u32 = 4;
/// How long a write waits for the generation that follows a migration.
const NEXT_GENERATION: Duration = Duration::from_secs(2);
/// How many exported configurations are rendered at once.
const EXPORT_CHUNK: usize = 100;

/// Why one attempt at a write did not succeed.
enum Attempt {
    /// The plugin's table moved on; the current generation is the right one to try again with.
    Again,
    /// Somebody else wrote in between; the same generation will do.
    Raced,
    /// It cannot succeed.
    Failed(RequestError),
}

impl From<RequestError> for Attempt {
    fn from(error: RequestError) -> Self {
        Attempt::Failed(error)
    }
}

impl From<StoreError> for Attempt {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::HeadMoved => Attempt::Again,
            error => Attempt::Failed(error.into()),
        }
    }
}

impl Registry {
    /// Stores a new configuration of a plugin.
    ///
    /// # Errors
    /// `NotFound` for an unknown plugin, data product, platform or service; `Conflict` when the plugin takes none, does
    /// not fit the service or the name is taken; `Invalid` for the content.
    pub async fn create(
        &self,
        plugin: &str,
        body: Value,
        by: &str,
    ) -> Result<ConfigurationView, RequestError> {
        let mut attempts = self.attempts();
        loop {
            let generation = attempts.next().await?;
            match self.create_on(&generation, plugin, &body, by).await {
                Ok(view) => return Ok(view),
                Err(Attempt::Failed(error)) => return Err(error),
                Err(Attempt::Again) => {}
                Err(Attempt::Raced) => attempts.tried = None,
            }
        }
    }

    /// One configuration, whatever became of its plugin.
    pub async fn configuration(&self, id: Uuid) -> Result<ConfigurationView, RequestError> {
        let generation = self.current();
        let stored = self.stored(id).await?;
        self.one_view(&generation, stored, None).await
    }

    /// A page of configurations, newest first.
    ///
    /// # Errors
    /// `NotFound` when it is asked for one plugin that neither is nor was; `BadRequest` for a cursor of another kind.
    pub async fn configurations(
        &self,
        mut query: ConfigurationQuery,
    ) -> Result<ConfigurationPage, RequestError> {
        let generation = self.current();
        if let Some(plugin) = &query.plugin
            && let Some(finding) = generation.finding(plugin)
            && let Some(definition) = &finding.definition
        {
            query.plugin = Some(definition.name.to_string());
        }
        let page = self.store().configurations(query).await?;
        Ok(ConfigurationPage {
            configurations: self.views(&generation, page.items, None).await,
            next_cursor: page.next_cursor,
        })
    }

    /// A page of one plugin's configurations, by its name or an alias.
    ///
    /// # Errors
    /// `NotFound` when no plugin of that name was found and none ever stored a row.
    pub async fn plugin_configurations(
        &self,
        plugin: &str,
        mut query: ConfigurationQuery,
    ) -> Result<ConfigurationPage, RequestError> {
        query.plugin = Some(plugin.to_owned());
        let known = self.current().finding(plugin).is_some();
        let page = self.configurations(query).await?;
        if !known && page.configurations.is_empty() {
            return Err(plugin_not_found(plugin));
        }
        Ok(page)
    }

    /// Replaces a configuration. `if_match` is the revision that the client saw.
    pub async fn replace(
        &self,
        id: Uuid,
        body: Value,
        if_match: Option<i64>,
        by: &str,
    ) -> Result<ConfigurationView, RequestError> {
        let mut attempts = self.attempts();
        loop {
            let generation = attempts.next().await?;
            match self.replace_on(&generation, id, &body, if_match, by).await {
                Ok(view) => return Ok(view),
                Err(Attempt::Failed(error)) => return Err(error),
                Err(Attempt::Again) => {}
                Err(Attempt::Raced) => attempts.tried = None,
            }
        }
    }

    /// Changes what the body names and leaves the rest. Without `if_match` a concurrent change is merged over.
    pub async fn patch(
        &self,
        id: Uuid,
        body: Value,
        if_match: Option<i64>,
        by: &str,
    ) -> Result<ConfigurationView, RequestError> {
        let mut attempts = self.attempts();
        loop {
            let generation = attempts.next().await?;
            match self.patch_on(&generation, id, &body, if_match, by).await {
                Ok(view) => return Ok(view),
                Err(Attempt::Failed(error)) => return Err(error),
                Err(Attempt::Again) => {}
                Err(Attempt::Raced) => attempts.tried = None,
            }
        }
    }

    /// Deletes a configuration; its history stays.
    pub async fn delete(
        &self,
        id: Uuid,
        if_match: Option<i64>,
        by: &str,
    ) -> Result<(), RequestError> {
        Ok(self.store().delete_configuration(id, if_match, by).await?)
    }

    /// The revisions of a configuration, newest first, also after its deletion.
    pub async fn history(&self, id: Uuid) -> Result<History, RequestError> {
        let mut history = self.store().revisions(id).await?;
        if history.is_empty() {
            return Err(configuration_not_found());
        }
        history.reverse();
        Ok(History { history })
    }

    /// All configurations, newest first.
    pub fn export(
        &self,
    ) -> impl Stream<Item = Result<ConfigurationView, RequestError>> + Send + 'static {
        let registry = self.clone();
        let generation = self.current();
        self.store()
            .export()
            .ready_chunks(EXPORT_CHUNK)
            .then(move |chunk| {
                let (registry, generation) = (registry.clone(), generation.clone());
                async move {
                    let mut results = Vec::with_capacity(chunk.len());
                    let mut stored = Vec::with_capacity(chunk.len());
                    let mut failed = None;
                    for item in chunk {
                        match item {
                            Ok(configuration) => stored.push(configuration),
                            Err(error) => failed = Some(Err(error.into())),
                        }
                    }
                    results.extend(
                        registry
                            .views(&generation, stored, None)
                            .await
                            .into_iter()
                            .map(Ok),
                    );
                    results.extend(failed);
                    futures_util::stream::iter(results)
                }
            })
            .flatten()
    }

    /// A dry run: what would be stored, or what is wrong.
    ///
    /// # Errors
    /// `NotFound` and `Conflict` as for storing; what is wrong with the content is in the answer.
    pub async fn validate(&self, plugin: &str, body: Value) -> Result<DryRun, RequestError> {
        let generation = self.current();
        let entry = taking(&generation, plugin)?;
        match self.dry_run(entry, &body).await {
            Ok(run) => Ok(run),
            Err(RequestError::Invalid(errors)) => Ok(DryRun {
                valid: false,
                errors,
                configuration: None,
                access_path: None,
            }),
            Err(other) => Err(other),
        }
    }

    async fn dry_run(&self, entry: &Entry, body: &Value) -> Result<DryRun, RequestError> {
        let definition = entry.active.definition();
        let write = read_write_body(body, true)?;
        check_tag(definition, &write.configuration)?;
        let catalogue = self.store().catalogue();
        let (_, service_id) =
            resolve_service(&catalogue, definition, write.platform_id, write.service_id)?;
        let data_product = match write.data_product_id {
            Some(id) => Some(self.data_product(id).await?),
            None => None,
        };
        let context = HookContext {
            data_product,
            technical_mapping: write.technical_mapping,
            ..HookContext::default()
        };
        let loc = configuration_loc(&tag_of(entry, &write.configuration));
        let values = self
            .admit(&entry.active, &write.configuration, context.clone(), &loc)
            .await?;
        let access_path = self
            .access_path_of(&entry.active, service_id, &values, context)
            .await;
        let mut configuration = Map::new();
        configuration.insert(
            "configuration_type".to_owned(),
            Value::String(definition.name.to_string()),
        );
        configuration.extend(values);
        Ok(DryRun {
            valid: true,
            errors: Vec::new(),
            configuration: Some(configuration),
            access_path,
        })
    }

    /// The generations on which a write is tried: the current one, and again the next one when its table moved on.
    fn attempts(&self) -> Attempts<'_> {
        Attempts {
            registry: self,
            swapped: self.inner.swapped.subscribe(),
            tried: None,
            left: ATTEMPTS,
        }
    }

    async fn create_on(
        &self,
        generation: &Arc<Generation>,
        plugin: &str,
        body: &Value,
        by: &str,
    ) -> Result<ConfigurationView, Attempt> {
        let entry = taking(generation, plugin)?;
        let (draft, product) = self.draft(entry, body).await?;
        let Some(table) = &entry.active.table else {
            return Err(takes_none(plugin).into());
        };
        let stored = self.store().create_configuration(table, draft, by).await?;
        Ok(self.one_view(generation, stored, Some(product)).await?)
    }

    async fn replace_on(
        &self,
        generation: &Arc<Generation>,
        id: Uuid,
        body: &Value,
        if_match: Option<i64>,
        by: &str,
    ) -> Result<ConfigurationView, Attempt> {
        let stored = self.stored(id).await?;
        self.write_over(generation, stored, body, if_match, by)
            .await
    }

    async fn patch_on(
        &self,
        generation: &Arc<Generation>,
        id: Uuid,
        body: &Value,
        if_match: Option<i64>,
        by: &str,
    ) -> Result<ConfigurationView, Attempt> {
        let stored = self.stored(id).await?;
        if if_match.is_some_and(|revision| revision != stored.revision) {
            let stale = StoreError::Stale {
                current: stored.revision,
            };
            return Err(stale.into());
        }
        let merged = merged_body(&stored, body);
        let seen = stored.revision;
        match self
            .write_over(generation, stored, &merged, Some(seen), by)
            .await
        {
            // Somebody wrote in between; without a condition of the client's the change applies to what is there now.
            Err(Attempt::Failed(RequestError::Stale(_))) if if_match.is_none() => {
                Err(Attempt::Raced)
            }
            other => other,
        }
    }

    /// Reads, checks and normalises a body for storing.
    async fn draft(
        &self,
        entry: &Entry,
        body: &Value,
    ) -> Result<(ConfigurationDraft, DataProduct), RequestError> {
        let definition = entry.active.definition();
        let write = read_write_body(body, false)?;
        check_tag(definition, &write.configuration)?;
        let catalogue = self.store().catalogue();
        let (platform_id, service_id) =
            resolve_service(&catalogue, definition, write.platform_id, write.service_id)?;
        let product = self
            .data_product(write.data_product_id.unwrap_or_default())
            .await?;
        let context = HookContext {
            data_product: Some(product.clone()),
            technical_mapping: write.technical_mapping,
            ..HookContext::default()
        };
        let loc = configuration_loc(&tag_of(entry, &write.configuration));
        let values = self
            .admit(&entry.active, &write.configuration, context, &loc)
            .await?;
        let draft = ConfigurationDraft {
            name: write.name.unwrap_or_default(),
            description: write.description,
            data_product_id: product.id,
            technical_mapping: write.technical_mapping,
            platform_id,
            service_id,
            values,
        };
        Ok((draft, product))
    }

    async fn write_over(
        &self,
        generation: &Arc<Generation>,
        stored: Configuration,
        body: &Value,
        if_match: Option<i64>,
        by: &str,
    ) -> Result<ConfigurationView, Attempt> {
        let entry = generation.entry(&stored.plugin).ok_or_else(|| {
            RequestError::Conflict(format!(
                "Plugin '{}' is not active, so its configurations cannot be changed",
                stored.plugin
            ))
        })?;
        let (draft, product) = self.draft(entry, body).await?;
        let Some(table) = &entry.active.table else {
            return Err(takes_none(&stored.plugin).into());
        };
        let written = self
            .store()
            .update_configuration(table, stored.id, if_match, draft, by)
            .await?;
        Ok(self.one_view(generation, written, Some(product)).await?)
    }

    async fn stored(&self, id: Uuid) -> Result<Configuration, RequestError> {
        self.store()
            .configuration(id)
            .await?
            .ok_or_else(configuration_not_found)
    }

    async fn one_view(
        &self,
        generation: &Generation,
        stored: Configuration,
        product: Option<DataProduct>,
    ) -> Result<ConfigurationView, RequestError> {
        let mut views = self.views(generation, vec![stored], product).await;
        views
            .pop()
            .ok_or_else(|| RequestError::Internal("a configuration has no view".to_owned()))
    }
}

/// The generations on which a write is tried.
struct Attempts<'a> {
    registry: &'a Registry,
    swapped: tokio::sync::watch::Receiver<u64>,
    tried: Option<u64>,
    left: u32,
}

impl Attempts<'_> {
    /// The generation for the next attempt. After the first it waits for a newer one; when none comes, or the attempts
    /// are used up, the write has to be made again later.
    async fn next(&mut self) -> Result<Arc<Generation>, RequestError> {
        if self.left == 0 {
            return Err(RequestError::Unavailable(
                "the plugin's table is not the one that the version which serves wants".to_owned(),
            ));
        }
        self.left -= 1;
        if let Some(tried) = self.tried {
            let newer = self.swapped.wait_for(|current| *current != tried);
            // When no swap comes, the attempt itself tells.
            let _ = tokio::time::timeout(NEXT_GENERATION / ATTEMPTS, newer).await;
        }
        let generation = self.registry.current();
        self.tried = Some(generation.number);
        Ok(generation)
    }
}

/// The plugin that new configurations are for.
fn taking<'a>(generation: &'a Generation, plugin: &str) -> Result<&'a Entry, RequestError> {
    let Some(entry) = generation.entry(plugin) else {
        return Err(match generation.finding(plugin) {
            Some(finding) if finding.state == PluginState::Disabled => RequestError::Conflict(
                format!("Plugin '{plugin}' is disabled and takes no new configurations"),
            ),
            Some(_) => RequestError::Conflict(format!(
                "Plugin '{plugin}' is not active and takes no new configurations"
            )),
            None => plugin_not_found(plugin),
        });
    };
    if entry.active.definition().fields.is_empty() {
        return Err(takes_none(plugin));
    }
    Ok(entry)
}

fn takes_none(plugin: &str) -> RequestError {
    RequestError::Conflict(format!(
        "Plugin '{plugin}' has no fields and takes no configurations"
    ))
}

fn configuration_not_found() -> RequestError {
    RequestError::NotFound("Configuration not found".to_owned())
}

/// The name under which a body speaks of the plugin, for the paths of errors.
fn tag_of(entry: &Entry, configuration: &Map) -> String {
    match configuration
        .get("configuration_type")
        .and_then(Value::as_str)
    {
        Some(tag) => tag.to_owned(),
        None => entry.active.name().to_owned(),
    }
}

/// The body that a PUT would need to do what a PATCH says. What is no object is left for the reader to refuse.
fn merged_body(stored: &Configuration, patch: &Value) -> Value {
    let Value::Object(patch) = patch else {
        return patch.clone();
    };
    let mut body = Map::new();
    let id = |id: Option<Uuid>| id.map_or(Value::Null, |id| Value::String(id.to_string()));
    body.insert(
        "data_product_id".to_owned(),
        Value::String(stored.data_product_id.to_string()),
    );
    body.insert("name".to_owned(), Value::String(stored.name.clone()));
    body.insert(
        "description".to_owned(),
        stored
            .description
            .clone()
            .map_or(Value::Null, Value::String),
    );
    body.insert(
        "technical_mapping".to_owned(),
        stored.technical_mapping.as_str().into(),
    );
    body.insert("platform_id".to_owned(), id(stored.platform_id));
    body.insert("service_id".to_owned(), id(stored.service_id));
    body.insert(
        "configuration".to_owned(),
        Value::Object(stored.values.clone()),
    );
    for (key, value) in patch {
        match (body.get_mut(key), value) {
            (Some(Value::Object(configuration)), Value::Object(changes))
                if key == "configuration" =>
            {
                configuration.extend(
                    changes
                        .iter()
                        .map(|(key, value)| (key.clone(), value.clone())),
                );
            }
            _ => {
                body.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(body)
}

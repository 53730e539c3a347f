//! Reading stored configurations, their history and their export.

use futures_util::{Stream, StreamExt};
use patchbay_plugin::configuration::{Configuration, DataProduct};
use patchbay_store::{ConfigurationQuery, StoreError, What};
use uuid::Uuid;

use crate::error::plugin_not_found;
use crate::generation::Generation;
use crate::wire::{ConfigurationPage, ConfigurationView, History};
use crate::{Registry, RequestError};

/// How many exported configurations are rendered at once.
const EXPORT_CHUNK: usize = 100;

impl Registry {
    /// One configuration, whatever became of its plugin.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` or `Internal` for the database's.
    pub async fn configuration(&self, id: Uuid) -> Result<ConfigurationView, RequestError> {
        let generation = self.current();
        let stored = self.stored(id).await?;
        self.one_view(&generation, stored, None).await
    }

    /// A page of configurations, newest first.
    ///
    /// # Errors
    /// `BadRequest` for a cursor of another kind.
    pub async fn configurations(
        &self,
        query: ConfigurationQuery,
    ) -> Result<ConfigurationPage, RequestError> {
        self.page_on(&self.current(), query).await
    }

    async fn page_on(
        &self,
        generation: &Generation,
        mut query: ConfigurationQuery,
    ) -> Result<ConfigurationPage, RequestError> {
        if let Some(plugin) = &query.plugin
            && let Some(finding) = generation.finding(plugin)
            && let Some(definition) = &finding.definition
        {
            query.plugin = Some(definition.name.to_string());
        }
        let page = self.store().configurations(query).await?;
        Ok(ConfigurationPage {
            configurations: self.views(generation, page.items, None).await,
            next_cursor: page.next_cursor,
        })
    }

    /// A page of one plugin's configurations, by its name or an alias.
    ///
    /// # Errors
    /// `NotFound` when no plugin of that name was found, and none ever had a table here.
    pub async fn plugin_configurations(
        &self,
        plugin: &str,
        mut query: ConfigurationQuery,
    ) -> Result<ConfigurationPage, RequestError> {
        query.plugin = Some(plugin.to_owned());
        let generation = self.current();
        let page = self.page_on(&generation, query).await?;
        if page.configurations.is_empty() && generation.finding(plugin).is_none() {
            let applied = self.store().applied_definitions().await?;
            if !applied.contains_key(plugin) {
                return Err(plugin_not_found(plugin));
            }
        }
        Ok(page)
    }

    /// The revisions of a configuration, newest first, also after its deletion.
    ///
    /// # Errors
    /// `NotFound` when there never was one of that id; `Unavailable` or `Internal` for the database's.
    pub async fn history(&self, id: Uuid) -> Result<History, RequestError> {
        let mut history = self.store().revisions(id).await?;
        if history.is_empty() {
            return Err(StoreError::NotFound(What::Configuration).into());
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

    pub(crate) async fn stored(&self, id: Uuid) -> Result<Configuration, RequestError> {
        let stored = self.store().configuration(id).await?;
        Ok(stored.ok_or(StoreError::NotFound(What::Configuration))?)
    }

    pub(crate) async fn one_view(
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

//! Access paths and technical info: templates of platform services, filled with values and finished by `render`.

use std::collections::HashMap;
use std::sync::Arc;

use patchbay_lua::{CatalogueReader, Filling, HookContext, HookError, Unrendered};
use patchbay_plugin::Map;
use patchbay_plugin::body::{BodyReader, checked};
use patchbay_plugin::catalogue::{Catalogue, PlatformService};
use patchbay_plugin::configuration::{Configuration, DataProduct, TechnicalMapping};
use patchbay_plugin::definition::Definition;
use patchbay_plugin::validation::{ValidationError, at};
use patchbay_store::StoreError;
use serde_json::Value;
use uuid::Uuid;

use crate::admission::configuration_loc;
use crate::form::Reader;
use crate::generation::{ActivePlugin, Generation};
use crate::wire::{AccessPath, ConfigurationView, TechnicalInfo};
use crate::{Registry, RequestError};

/// Where a text goes.
enum Target {
    /// The access path of a view.
    AccessPath(usize),
    /// A view's technical info, at a place in its list.
    Info(usize, usize),
}

impl Registry {
    /// Renders the access path of a configuration that need not be stored.
    ///
    /// # Errors
    /// `NotFound` without a template, `Invalid` for a wrong configuration or a template that asks for more than it has.
    pub async fn render_access_path(&self, body: Value) -> Result<AccessPath, RequestError> {
        let mut body = BodyReader::open(&body)?;
        let platform_id = body.optional_uuid("platform_id");
        let service_id = body.optional_uuid("service_id");
        let configuration = body.optional_object("configuration");
        for key in ["platform_id", "service_id", "configuration"] {
            body.require(key);
        }
        body.finish()?;
        let (platform_id, service_id) = (checked(platform_id), checked(service_id));
        let configuration = checked(configuration);
        let generation = self.current();
        let (active, tag) = tagged(&generation, &configuration)?;
        let loc = configuration_loc(&tag);
        let catalogue = self.store().catalogue();
        let service = catalogue.service(platform_id, service_id).ok_or_else(|| {
            RequestError::NotFound(
                "Template not found for the given platform and service".to_owned(),
            )
        })?;
        // There is no data product here, so its rules do not apply; only the values' own form is settled.
        let context = HookContext {
            technical_mapping: TechnicalMapping::Custom,
            ..HookContext::default()
        };
        let values = self.admit(&active, &configuration, &context, &loc).await?;
        match self.access_path(&active, service, &values, context).await {
            Ok(text) => Ok(AccessPath {
                technical_asset_access_path: text,
            }),
            Err(Unrendered::Hook(error)) => Err(self.hook_failed(&active, error)),
            Err(Unrendered::Unfilled(name)) => {
                let message = format!(
                    "The template '{}' needs '{name}', which {} does not have",
                    service.result_string_template,
                    active.name()
                );
                let loc = at(&loc, name.as_str());
                Err(RequestError::Invalid(vec![ValidationError::value(
                    loc,
                    message,
                    Value::Object(values),
                )]))
            }
        }
    }

    /// Stored configurations as they go over the wire. One that cannot be rendered has nulls; none breaks the others.
    pub(crate) async fn views(
        &self,
        generation: &Generation,
        configurations: Vec<Configuration>,
        known: Option<DataProduct>,
    ) -> Vec<ConfigurationView> {
        let catalogue = self.store().catalogue();
        let mut views: Vec<ConfigurationView> = Vec::with_capacity(configurations.len());
        let mut by_plugin: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, configuration) in configurations.iter().enumerate() {
            let state = match generation.finding(&configuration.plugin) {
                Some(finding) => finding.state().as_str().to_owned(),
                None => "gone".to_owned(),
            };
            if generation.entry(&configuration.plugin).is_some() {
                by_plugin
                    .entry(configuration.plugin.clone())
                    .or_default()
                    .push(place);
            }
            views.push(view(configuration, state));
        }
        for (plugin, places) in by_plugin {
            let Some(entry) = generation.entry(&plugin) else {
                continue;
            };
            self.render_views(
                &entry.active,
                &catalogue,
                &configurations,
                &places,
                &mut views,
                known.as_ref(),
            )
            .await;
        }
        views
    }

    /// Fills in what is rendered, with one call of the plugin for all its configurations.
    async fn render_views(
        &self,
        active: &ActivePlugin,
        catalogue: &Catalogue,
        configurations: &[Configuration],
        places: &[usize],
        views: &mut [ConfigurationView],
        known: Option<&DataProduct>,
    ) {
        let definition = active.definition();
        let products = match definition.hooks.render {
            true => match self.products_of(configurations, places, known).await {
                Ok(products) => products,
                Err(error) => {
                    // Without them `render` would be asked something else, and be to blame.
                    tracing::error!(
                        plugin = active.name(),
                        "nothing is rendered: the data products cannot be read: {}",
                        error.detail()
                    );
                    return;
                }
            },
            false => HashMap::new(),
        };
        let (mut targets, mut fillings) = (Vec::new(), Vec::new());
        for place in places {
            let configuration = &configurations[*place];
            let Some(service) = service_of(catalogue, definition, configuration) else {
                views[*place].technical_info = Some(Vec::new());
                continue;
            };
            let context = HookContext {
                data_product: products.get(&configuration.data_product_id).cloned(),
                technical_mapping: configuration.technical_mapping,
                ..HookContext::default()
            };
            let values = &configuration.values;
            let mut add = |target, filling: Result<Filling, Unrendered>| {
                if let Ok(filling) = filling {
                    targets.push(target);
                    fillings.push(filling);
                }
            };
            let template = &service.result_string_template;
            add(
                Target::AccessPath(*place),
                Filling::new(definition, template, values, context.clone()),
            );
            let mut infos = Vec::new();
            for environment in &catalogue.environments {
                let Some(config) = catalogue.environment_configuration(
                    environment.id,
                    service.platform_id,
                    Some(service.id),
                ) else {
                    continue;
                };
                let entry = definition.environment_entry.find(Some(config), values);
                let wants_entry = definition.environment_entry
                    != patchbay_plugin::definition::EnvironmentEntry::None;
                if entry.is_some() || !wants_entry {
                    let template = &service.technical_info_template;
                    let context = HookContext {
                        environment: Some(environment.clone()),
                        entry: entry.cloned(),
                        ..context.clone()
                    };
                    let filling = Filling::new(definition, template, values, context);
                    add(Target::Info(*place, infos.len()), filling);
                }
                infos.push(TechnicalInfo {
                    environment_id: environment.id,
                    environment: environment.name.clone(),
                    info: None,
                });
            }
            views[*place].technical_info = Some(infos);
        }
        let texts = active.plugin.finish(fillings).await;
        let failed = texts.iter().filter_map(|text| match text {
            Err(Unrendered::Hook(error)) => Some(self.hook_failed(active, error.clone())),
            _ => None,
        });
        if let Some(error) = failed.collect::<Vec<_>>().first() {
            // The answer only has a null in its place, so this is where it is said.
            tracing::error!(plugin = active.name(), "render failed: {error}");
        }
        for (target, text) in targets.into_iter().zip(texts) {
            match target {
                Target::AccessPath(view) => views[view].access_path = text.ok(),
                Target::Info(view, place) => {
                    if let Some(infos) = &mut views[view].technical_info {
                        infos[place].info = text.ok();
                    }
                }
            }
        }
    }

    async fn products_of(
        &self,
        configurations: &[Configuration],
        places: &[usize],
        known: Option<&DataProduct>,
    ) -> Result<HashMap<Uuid, DataProduct>, StoreError> {
        let mut products: HashMap<Uuid, DataProduct> = HashMap::new();
        products.extend(known.map(|product| (product.id, product.clone())));
        for place in places {
            let id = configurations[*place].data_product_id;
            if !products.contains_key(&id)
                && let Some(product) = self.store().data_product(id).await?
            {
                products.insert(id, product);
            }
        }
        Ok(products)
    }

    /// The access path that values would have, or null where it cannot be rendered.
    pub(crate) async fn access_path_of(
        &self,
        active: &ActivePlugin,
        service_id: Option<Uuid>,
        values: &Map,
        context: HookContext,
    ) -> Option<String> {
        let catalogue = Reader::new(self.store(), None).catalogue();
        let service = catalogue
            .services
            .iter()
            .find(|service| Some(service.id) == service_id)?;
        match self.access_path(active, service, values, context).await {
            Ok(text) => Some(text),
            Err(Unrendered::Unfilled(_)) => None,
            Err(Unrendered::Hook(error)) => {
                self.hook_failed(active, error);
                None
            }
        }
    }

    async fn access_path(
        &self,
        active: &ActivePlugin,
        service: &PlatformService,
        values: &Map,
        context: HookContext,
    ) -> Result<String, Unrendered> {
        let template = &service.result_string_template;
        let filling = Filling::new(active.definition(), template, values, context)?;
        let mut texts = active.plugin.finish(vec![filling]).await;
        texts
            .pop()
            .unwrap_or(Err(Unrendered::Hook(HookError::Closed)))
    }
}

/// The service whose templates apply: the configuration's own, else the one that belongs to the plugin.
fn service_of<'a>(
    catalogue: &'a Catalogue,
    definition: &Definition,
    configuration: &Configuration,
) -> Option<&'a PlatformService> {
    match configuration.service_id {
        Some(id) => catalogue.services.iter().find(|service| service.id == id),
        None => catalogue.service_of(&definition.platform.platform_key),
    }
}

/// The enabled plugin that a configuration without a path names, and the name that it used.
fn tagged(
    generation: &Generation,
    configuration: &Map,
) -> Result<(Arc<ActivePlugin>, String), RequestError> {
    let loc = vec!["body".into(), "configuration".into()];
    let input = || Value::Object(configuration.clone());
    let tag = configuration
        .get("configuration_type")
        .filter(|tag| !tag.is_null())
        .or_else(|| configuration.get("name").filter(|tag| !tag.is_null()));
    let Some(tag) = tag else {
        return Err(RequestError::Invalid(vec![ValidationError::tag_not_found(
            loc,
            input(),
        )]));
    };
    let shown = tag.as_str().map_or_else(|| tag.to_string(), str::to_owned);
    match generation.entry(&shown).filter(|_| tag.is_string()) {
        Some(entry) => Ok((entry.active.clone(), shown)),
        None => {
            let expected: Vec<String> = generation
                .entries
                .iter()
                .map(|entry| entry.active.name().to_owned())
                .collect();
            Err(RequestError::Invalid(vec![ValidationError::tag_invalid(
                loc,
                &shown,
                &expected,
                input(),
            )]))
        }
    }
}

fn view(configuration: &Configuration, plugin_state: String) -> ConfigurationView {
    let mut values = Map::new();
    values.insert(
        "configuration_type".to_owned(),
        Value::String(configuration.plugin.clone()),
    );
    values.extend(
        configuration
            .values
            .iter()
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    ConfigurationView {
        id: configuration.id,
        plugin: configuration.plugin.clone(),
        plugin_version: configuration.plugin_version.clone(),
        plugin_state,
        name: configuration.name.clone(),
        description: configuration.description.clone(),
        data_product_id: configuration.data_product_id,
        technical_mapping: configuration.technical_mapping,
        platform_id: configuration.platform_id,
        service_id: configuration.service_id,
        revision: configuration.revision,
        configuration: values,
        access_path: None,
        technical_info: None,
        created_at: configuration.created_at,
        updated_at: configuration.updated_at,
    }
}

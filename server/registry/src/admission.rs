//! The body of a write, up to what is stored: its own fields here, the configuration in it by the plugin, as
//! [`patchbay_lua::Plugin::admit`] has it. A dry run goes the same way and stores nothing.

use std::sync::Arc;

use patchbay_lua::{CatalogueReader, FieldError, HookContext, Incoming, Unadmitted};
use patchbay_plugin::Map;
use patchbay_plugin::body::{BodyReader, checked};
use patchbay_plugin::catalogue::Catalogue;
use patchbay_plugin::configuration::{ConfigurationDraft, DataProduct, TechnicalMapping};
use patchbay_plugin::definition::Definition;
use patchbay_plugin::field::MAX_INPUTS;
use patchbay_plugin::platform::PluginState;
use patchbay_plugin::validation::{Loc, LocStep, ValidationError, at, told};
use serde_json::Value;
use uuid::Uuid;

use crate::error::plugin_not_found;
use crate::form::Reader;
use crate::generation::{ActivePlugin, Entry, Generation};
use crate::wire::DryRun;
use crate::{Registry, RequestError};

/// The longest name of a configuration, in characters.
const MAX_NAME: usize = 255;
/// The longest description, in characters.
const MAX_DESCRIPTION: usize = 10_000;

/// The body of a write, its types checked.
#[derive(Debug)]
struct WriteBody {
    data_product_id: Option<Uuid>,
    name: Option<String>,
    description: Option<String>,
    technical_mapping: TechnicalMapping,
    platform_id: Option<Uuid>,
    service_id: Option<Uuid>,
    configuration: Map,
}

/// Reads the body of a write. A dry run may leave out what only storing needs.
fn read_write_body(body: &Value, dry_run: bool) -> Result<WriteBody, RequestError> {
    let mut body = BodyReader::open(body)?;
    let data_product_id = body.optional_uuid("data_product_id");
    if !dry_run {
        body.require("data_product_id");
    }
    let name = body.optional_string("name", MAX_NAME);
    if !dry_run {
        body.require("name");
    }
    if name.as_ref().is_some_and(|name| name.trim().is_empty()) {
        body.report(ValidationError::value(
            BodyReader::loc("name"),
            "Should not be empty",
            "".into(),
        ));
    }
    let description = body.optional_string("description", MAX_DESCRIPTION);
    let technical_mapping = body.word_or(
        "technical_mapping",
        &["default", "custom"],
        TechnicalMapping::Default,
        TechnicalMapping::parse,
    );
    let platform_id = body.optional_uuid("platform_id");
    let service_id = body.optional_uuid("service_id");
    let configuration = body.optional_object("configuration");
    body.require("configuration");
    body.finish()?;
    Ok(WriteBody {
        data_product_id,
        name,
        description,
        technical_mapping: checked(technical_mapping),
        platform_id,
        service_id,
        configuration: checked(configuration),
    })
}

/// The `loc` of a configuration in a body: with the tag, as the origin's unions have it.
pub(crate) fn configuration_loc(tag: &str) -> Loc {
    vec!["body".into(), "configuration".into(), tag.into()]
}

/// Checks that a configuration for a plugin that the path names does not say that it is for another.
fn check_tag(definition: &Definition, configuration: &Map) -> Result<(), RequestError> {
    let loc: Loc = vec!["body".into(), "configuration".into()];
    match configuration.get("configuration_type") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(tag)) if definition.answers_to(tag) => Ok(()),
        Some(Value::String(tag)) => {
            let expected: Vec<String> = std::iter::once(&definition.name)
                .chain(&definition.aliases)
                .map(ToString::to_string)
                .collect();
            let input = Value::Object(configuration.clone());
            Err(RequestError::Invalid(vec![ValidationError::tag_invalid(
                loc, tag, &expected, input,
            )]))
        }
        Some(other) => Err(RequestError::Invalid(vec![ValidationError::wrong_type(
            "string",
            at(&loc, "configuration_type"),
            other.clone(),
        )])),
    }
}

/// The platform and service that a configuration is for. Where the client names none, they are the ones that belong to
/// the plugin, so that its access path can be rendered.
fn resolve_service(
    catalogue: &Catalogue,
    definition: &Definition,
    platform_id: Option<Uuid>,
    service_id: Option<Uuid>,
) -> Result<(Option<Uuid>, Option<Uuid>), RequestError> {
    let key = &definition.platform.platform_key;
    let own = catalogue.service_of(key);
    let unfit = |what: &str| {
        RequestError::Conflict(format!(
            "Plugin '{}' does not fit the platform service '{what}'",
            definition.name
        ))
    };
    match (platform_id, service_id) {
        (platform, Some(service)) => {
            let found = catalogue
                .services
                .iter()
                .find(|candidate| {
                    candidate.id == service && platform.is_none_or(|id| id == candidate.platform_id)
                })
                .ok_or_else(|| RequestError::NotFound("Platform service not found".to_owned()))?;
            if !Catalogue::fits(found, key) {
                return Err(unfit(&found.name));
            }
            Ok((Some(found.platform_id), Some(found.id)))
        }
        (Some(platform), None) => {
            let found = catalogue
                .platforms
                .iter()
                .find(|candidate| candidate.id == platform)
                .ok_or_else(|| RequestError::NotFound("Platform not found".to_owned()))?;
            match catalogue
                .services
                .iter()
                .find(|service| service.platform_id == platform && Catalogue::fits(service, key))
            {
                Some(service) => Ok((Some(platform), Some(service.id))),
                None if own.is_some() => Err(unfit(&found.name)),
                None => Ok((Some(platform), None)),
            }
        }
        (None, None) => Ok((
            own.map(|service| service.platform_id),
            own.map(|service| service.id),
        )),
    }
}

/// The plugin that new configurations are for.
pub(crate) fn taking<'a>(
    generation: &'a Generation,
    plugin: &str,
) -> Result<&'a Entry, RequestError> {
    let Some(entry) = generation.entry(plugin) else {
        return Err(match generation.finding(plugin) {
            Some(finding) if finding.formless_state == PluginState::Disabled => {
                RequestError::Conflict(format!(
                    "Plugin '{plugin}' is disabled and takes no new configurations"
                ))
            }
            Some(_) => RequestError::Conflict(format!(
                "Plugin '{plugin}' is not active and takes no new configurations; GET /api/v2/plugins/status says why"
            )),
            None => plugin_not_found(plugin),
        });
    };
    if entry.active.definition().fields.is_empty() {
        return Err(takes_none(plugin));
    }
    Ok(entry)
}

pub(crate) fn takes_none(plugin: &str) -> RequestError {
    RequestError::Conflict(format!(
        "Plugin '{plugin}' has no fields and takes no configurations"
    ))
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

/// A body that could be stored.
struct Admitted {
    write: WriteBody,
    data_product: Option<DataProduct>,
    platform_id: Option<Uuid>,
    service_id: Option<Uuid>,
    context: HookContext,
    /// The values as they are stored.
    values: Map,
}

impl Registry {
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
                errors: told(errors),
                configuration: None,
                access_path: None,
            }),
            Err(other) => Err(other),
        }
    }

    async fn dry_run(&self, entry: &Entry, body: &Value) -> Result<DryRun, RequestError> {
        let admitted = self.admit_body(entry, body, true).await?;
        let access_path = self
            .access_path_of(
                &entry.active,
                admitted.service_id,
                &admitted.values,
                admitted.context,
            )
            .await;
        let mut configuration = Map::new();
        configuration.insert(
            "configuration_type".to_owned(),
            Value::String(entry.active.name().to_owned()),
        );
        configuration.extend(admitted.values);
        Ok(DryRun {
            valid: true,
            errors: Vec::new(),
            configuration: Some(configuration),
            access_path,
        })
    }

    /// What a body wants to be stored, and for which data product.
    ///
    /// # Errors
    /// `NotFound` for an unknown data product, platform or service; `Conflict` when the plugin does not fit the service;
    /// `Invalid` for the content.
    pub(crate) async fn draft(
        &self,
        entry: &Entry,
        body: &Value,
    ) -> Result<(ConfigurationDraft, DataProduct), RequestError> {
        let admitted = self.admit_body(entry, body, false).await?;
        let data_product = checked(admitted.data_product);
        let draft = ConfigurationDraft {
            name: checked(admitted.write.name),
            description: admitted.write.description,
            data_product_id: data_product.id,
            technical_mapping: admitted.write.technical_mapping,
            platform_id: admitted.platform_id,
            service_id: admitted.service_id,
            values: admitted.values,
        };
        Ok((draft, data_product))
    }

    /// Reads, checks and normalises a body. A dry run may leave out what only storing needs.
    async fn admit_body(
        &self,
        entry: &Entry,
        body: &Value,
        dry_run: bool,
    ) -> Result<Admitted, RequestError> {
        let definition = entry.active.definition();
        let write = read_write_body(body, dry_run)?;
        check_tag(definition, &write.configuration)?;
        let catalogue = self.store().catalogue();
        let (platform_id, service_id) =
            resolve_service(&catalogue, definition, write.platform_id, write.service_id)?;
        let data_product = match write.data_product_id {
            Some(id) => Some(self.data_product(id).await?),
            None => None,
        };
        let context = HookContext {
            data_product: data_product.clone(),
            technical_mapping: write.technical_mapping,
            ..HookContext::default()
        };
        let loc = configuration_loc(&tag_of(entry, &write.configuration));
        let values = self
            .admit(&entry.active, &write.configuration, &context, &loc)
            .await?;
        Ok(Admitted {
            write,
            data_product,
            platform_id,
            service_id,
            context,
            values,
        })
    }

    /// Checks and normalises the values of a configuration.
    ///
    /// # Errors
    /// `Invalid` with every mistake of the step that found some; `Busy`, `Deadline` or `Internal` when a hook fails.
    pub(crate) async fn admit(
        &self,
        active: &ActivePlugin,
        configuration: &Map,
        context: &HookContext,
        loc: &Loc,
    ) -> Result<Map, RequestError> {
        let reader: Arc<dyn CatalogueReader> =
            Arc::new(Reader::new(self.store(), active.table.as_ref()));
        let incoming = Incoming {
            configuration,
            context,
            reader: &reader,
            loc,
        };
        active
            .plugin
            .admit(incoming)
            .await
            .map_err(|unadmitted| self.unadmitted(active, unadmitted, loc))
    }

    fn unadmitted(&self, active: &ActivePlugin, unadmitted: Unadmitted, loc: &Loc) -> RequestError {
        match unadmitted {
            Unadmitted::Invalid(errors) => RequestError::Invalid(errors),
            Unadmitted::Rejected { errors, values } => rejected(errors, &values, loc),
            Unadmitted::Hook(error) => self.hook_failed(active, error),
            Unadmitted::Slip(errors) => {
                let messages: Vec<String> = errors
                    .iter()
                    .map(|error| match error.loc.last() {
                        Some(LocStep::Key(field)) => format!("{field}: {}", error.msg),
                        Some(LocStep::Index(place)) => format!("item {place}: {}", error.msg),
                        None => error.msg.clone(),
                    })
                    .collect();
                RequestError::Internal(format!(
                    "normalize of {} returned values that its fields refuse: {}",
                    active.name(),
                    messages.join("; ")
                ))
            }
        }
    }
}

fn rejected(errors: Vec<FieldError>, values: &Map, loc: &Loc) -> RequestError {
    let errors = errors.into_iter().enumerate().map(|(place, error)| {
        // Past a few, what was sent is not repeated with each error, or the answer would be many times the request.
        let repeats = place < MAX_INPUTS;
        match error.field {
            Some(field) => {
                let input = values
                    .get(&field)
                    .filter(|_| repeats)
                    .cloned()
                    .unwrap_or(Value::Null);
                ValidationError::value(at(loc, field.as_str()), error.message, input)
            }
            None => {
                let input = if repeats {
                    Value::Object(values.clone())
                } else {
                    Value::Null
                };
                ValidationError::value(loc.clone(), error.message, input)
            }
        }
    });
    RequestError::Invalid(errors.collect())
}

//! What a client sent, brought into the form in which it is stored.
//!
//! Types first, in plain Rust; then `normalize`, whose result is checked again; then `validate`, for the mapping
//! `default` only. All mistakes of one step come at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use patchbay_lua::{FieldError, HookCall, HookContext, NormalizeError};
use patchbay_plugin::Map;
use patchbay_plugin::body::{BodyReader, checked};
use patchbay_plugin::catalogue::Catalogue;
use patchbay_plugin::configuration::TechnicalMapping;
use patchbay_plugin::definition::Definition;
use patchbay_plugin::field::{MAX_INPUTS, parse_values};
use patchbay_plugin::validation::{Loc, ValidationError, at};
use serde_json::Value;
use uuid::Uuid;

use crate::form::Reader;
use crate::generation::ActivePlugin;
use crate::{Registry, RequestError};

/// The longest name of a configuration, in characters.
const MAX_NAME: usize = 255;
/// The longest description, in characters.
const MAX_DESCRIPTION: usize = 10_000;

/// The body of a write, its types checked.
#[derive(Debug)]
pub(crate) struct WriteBody {
    pub(crate) data_product_id: Option<Uuid>,
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) technical_mapping: TechnicalMapping,
    pub(crate) platform_id: Option<Uuid>,
    pub(crate) service_id: Option<Uuid>,
    pub(crate) configuration: Map,
}

/// Reads the body of a write. A dry run may leave out what only storing needs.
pub(crate) fn read_write_body(body: &Value, dry_run: bool) -> Result<WriteBody, RequestError> {
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
pub(crate) fn check_tag(definition: &Definition, configuration: &Map) -> Result<(), RequestError> {
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
pub(crate) fn resolve_service(
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

impl Registry {
    /// Checks and normalises the values of a configuration.
    ///
    /// # Errors
    /// `Invalid` with every mistake of the step that found some; `Busy`, `Deadline` or `Internal` when a hook fails.
    pub(crate) async fn admit(
        &self,
        active: &ActivePlugin,
        configuration: &Map,
        context: HookContext,
        loc: &Loc,
    ) -> Result<Map, RequestError> {
        let definition = active.definition();
        let mut values =
            parse_values(&definition.fields, configuration, loc).map_err(RequestError::Invalid)?;
        let hooks = definition.hooks;
        if !hooks.normalize && !hooks.validate {
            return Ok(values);
        }
        let reader = Arc::new(Reader::new(self.store(), active.table.as_ref()));
        if hooks.normalize {
            self.inner
                .counters
                .hook_calls
                .fetch_add(1, Ordering::Relaxed);
            let call = HookCall {
                values: values.clone(),
                context: context.clone(),
                reader: reader.clone(),
            };
            let normalised = match active.plugin.normalize(call).await {
                Ok(normalised) => normalised,
                Err(NormalizeError::Rejected(errors)) => {
                    return Err(rejected(errors, &values, loc));
                }
                Err(NormalizeError::Hook(error)) => return Err(self.hook_failed(active, error)),
            };
            // What a hook returns is checked like what a client sends: a plugin's slip is no reason to store nonsense.
            values = parse_values(&definition.fields, &normalised, loc).map_err(|errors| {
                let messages: Vec<String> = errors
                    .iter()
                    .map(|error| format!("{:?}: {}", error.loc.last(), error.msg))
                    .collect();
                RequestError::Internal(format!(
                    "normalize of {} returned values that its fields refuse: {}",
                    definition.name,
                    messages.join("; ")
                ))
            })?;
        }
        if hooks.validate && context.technical_mapping == TechnicalMapping::Default {
            self.inner
                .counters
                .hook_calls
                .fetch_add(1, Ordering::Relaxed);
            let call = HookCall {
                values: values.clone(),
                context,
                reader,
            };
            match active.plugin.validate(call).await {
                Ok(errors) if errors.is_empty() => {}
                Ok(errors) => return Err(rejected(errors, &values, loc)),
                Err(error) => return Err(self.hook_failed(active, error)),
            }
        }
        Ok(values)
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

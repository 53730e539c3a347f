//! What a client sent, brought into the form in which it is stored.
//!
//! Types first, in plain Rust; then `normalize`, whose result is checked again; then `validate`, for the mapping
//! `default` only. All mistakes of one step come at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use patchbay_lua::{FieldError, HookCall, HookContext, NormalizeError};
use patchbay_plugin::Map;
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

/// Reads keys of an object, in the words of the origin's errors.
pub(crate) struct BodyReader<'a> {
    body: &'a Map,
    loc: Loc,
    /// What is wrong so far.
    pub(crate) errors: Vec<ValidationError>,
}

impl<'a> BodyReader<'a> {
    /// Opens a body, which must be an object.
    pub(crate) fn open(body: &'a Value) -> Result<Self, RequestError> {
        let loc: Loc = vec!["body".into()];
        match body {
            Value::Object(body) => Ok(Self {
                body,
                loc,
                errors: Vec::new(),
            }),
            other => Err(RequestError::Invalid(vec![ValidationError::wrong_type(
                "dictionary",
                loc,
                other.clone(),
            )])),
        }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.body.get(key).filter(|value| !value.is_null())
    }

    /// Notes that a key that must be there is not.
    pub(crate) fn missing(&mut self, key: &str) {
        self.errors.push(ValidationError::missing(
            at(&self.loc, key),
            Value::Object(self.body.clone()),
        ));
    }

    /// A uuid, when it is there.
    pub(crate) fn uuid(&mut self, key: &str) -> Option<Uuid> {
        let value = self.get(key)?;
        match value.as_str().map(Uuid::parse_str) {
            Some(Ok(id)) => return Some(id),
            Some(Err(_)) => self.errors.push(ValidationError::value(
                at(&self.loc, key),
                "Input should be a valid UUID",
                value.clone(),
            )),
            None => self.errors.push(ValidationError::wrong_type(
                "string",
                at(&self.loc, key),
                value.clone(),
            )),
        }
        None
    }

    /// A text of at most `max` characters, when it is there.
    pub(crate) fn text(&mut self, key: &str, max: usize) -> Option<String> {
        let value = self.get(key)?;
        let loc = at(&self.loc, key);
        let Some(text) = value.as_str() else {
            self.errors
                .push(ValidationError::wrong_type("string", loc, value.clone()));
            return None;
        };
        if text.contains('\0') {
            self.errors.push(ValidationError::value(
                loc,
                "A text cannot contain the NUL character",
                value.clone(),
            ));
            return None;
        }
        if text.chars().count() > max {
            let msg = format!("Should have at most {max} characters");
            self.errors
                .push(ValidationError::value(loc, msg, value.clone()));
            return None;
        }
        Some(text.to_owned())
    }

    /// An object, when it is there.
    pub(crate) fn object(&mut self, key: &str) -> Option<Map> {
        match self.get(key)? {
            Value::Object(object) => Some(object.clone()),
            other => {
                self.errors.push(ValidationError::wrong_type(
                    "dictionary",
                    at(&self.loc, key),
                    other.clone(),
                ));
                None
            }
        }
    }

    fn technical_mapping(&mut self) -> TechnicalMapping {
        let Some(value) = self.get("technical_mapping") else {
            return TechnicalMapping::Default;
        };
        value
            .as_str()
            .and_then(TechnicalMapping::parse)
            .unwrap_or_else(|| {
                self.errors.push(ValidationError::not_in_enum(
                    &["default".to_owned(), "custom".to_owned()],
                    at(&self.loc, "technical_mapping"),
                    value.clone(),
                ));
                TechnicalMapping::Default
            })
    }
}

/// Reads the body of a write. A dry run may leave out what only storing needs.
pub(crate) fn read_write_body(body: &Value, dry_run: bool) -> Result<WriteBody, RequestError> {
    let mut reader = BodyReader::open(body)?;
    let missing = |reader: &mut BodyReader<'_>, key: &str, wanted: bool| {
        if wanted && reader.get(key).is_none() {
            reader.missing(key);
        }
    };
    let data_product_id = reader.uuid("data_product_id");
    missing(&mut reader, "data_product_id", !dry_run);
    let name = reader.text("name", MAX_NAME);
    missing(&mut reader, "name", !dry_run);
    if name.as_ref().is_some_and(|name| name.trim().is_empty()) {
        let loc = at(&reader.loc, "name");
        reader.errors.push(ValidationError::value(
            loc,
            "Should not be empty",
            "".into(),
        ));
    }
    let description = reader.text("description", MAX_DESCRIPTION);
    let technical_mapping = reader.technical_mapping();
    let platform_id = reader.uuid("platform_id");
    let service_id = reader.uuid("service_id");
    let configuration = reader.object("configuration");
    missing(&mut reader, "configuration", true);
    if !reader.errors.is_empty() {
        return Err(RequestError::Invalid(reader.errors));
    }
    Ok(WriteBody {
        data_product_id,
        name,
        description,
        technical_mapping,
        platform_id,
        service_id,
        configuration: configuration.unwrap_or_default(),
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

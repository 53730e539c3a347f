//! What a client sent, brought into the form in which it is stored; and a template, filled and finished.
//!
//! Types first, in plain Rust; then `normalize`, whose result is checked again; then `validate`, for the mapping
//! `default` only. All mistakes of one step come at once.

use std::sync::Arc;

use patchbay_plugin::Map;
use patchbay_plugin::catalogue::Environment;
use patchbay_plugin::configuration::TechnicalMapping;
use patchbay_plugin::definition::Definition;
use patchbay_plugin::field::parse_values;
use patchbay_plugin::template::{Template, text_of};
use patchbay_plugin::validation::{Loc, ValidationError};
use serde_json::Value;

use crate::call::{CatalogueReader, HookCall, HookContext, RenderCall};
use crate::error::{FieldError, HookError, NormalizeError};
use crate::plugin::Plugin;

/// Why a configuration is not admitted.
#[derive(Debug)]
pub enum Unadmitted {
    /// Its values are not what the fields accept.
    Invalid(Vec<ValidationError>),
    /// The plugin's own rules are against it.
    Rejected(Vec<FieldError>),
    /// `normalize` returned values that the plugin's own fields refuse: a slip of the plugin, not of the client.
    Slip(Vec<ValidationError>),
    /// A hook failed.
    Hook(HookError),
}

impl Plugin {
    /// Checks and normalises the values of a configuration, as they are before they are stored.
    pub(crate) async fn settle(
        &self,
        configuration: &Map,
        context: &HookContext,
        reader: &Arc<dyn CatalogueReader>,
    ) -> Result<Map, Unadmitted> {
        let fields = &self.definition().fields;
        let values =
            parse_values(fields, configuration, &Loc::new()).map_err(Unadmitted::Invalid)?;
        if !self.definition().hooks.normalize {
            return Ok(values);
        }
        let call = HookCall {
            values,
            context: context.clone(),
            reader: reader.clone(),
        };
        let normalised = match self.normalize(call).await {
            Ok(normalised) => normalised,
            Err(NormalizeError::Rejected(errors)) => return Err(Unadmitted::Rejected(errors)),
            Err(NormalizeError::Hook(error)) => return Err(Unadmitted::Hook(error)),
        };
        parse_values(fields, &normalised, &Loc::new()).map_err(Unadmitted::Slip)
    }

    /// Admits a configuration: settles its values, and lets the plugin's own rules judge them.
    pub(crate) async fn admit(
        &self,
        configuration: &Map,
        context: &HookContext,
        reader: &Arc<dyn CatalogueReader>,
    ) -> Result<Map, Unadmitted> {
        let values = self.settle(configuration, context, reader).await?;
        if context.technical_mapping != TechnicalMapping::Default {
            return Ok(values);
        }
        let call = HookCall {
            values: values.clone(),
            context: context.clone(),
            reader: reader.clone(),
        };
        match self.validate(call).await {
            Ok(errors) if errors.is_empty() => Ok(values),
            Ok(errors) => Err(Unadmitted::Rejected(errors)),
            Err(error) => Err(Unadmitted::Hook(error)),
        }
    }

    /// Fills a template with values, the entry of an environment and its acronym, and lets `render` finish it.
    pub(crate) async fn access_path(
        &self,
        template: &str,
        values: &Map,
        context: HookContext,
    ) -> Result<String, Unrendered> {
        let definition = self.definition();
        let filled = Template::parse(template).fill(|name| {
            value_of(
                name,
                values,
                context.entry.as_ref(),
                context.environment.as_ref(),
            )
        });
        let is_for_render = |name: &&String| is_for_render(definition, name);
        if let Some(name) = filled.missing.iter().find(|name| !is_for_render(name)) {
            return Err(Unrendered::Unfilled(name.clone()));
        }
        let call = RenderCall {
            values: values.clone(),
            filled: filled.text,
            context: HookContext {
                template: Some(template.to_owned()),
                ..context
            },
        };
        let text = match self.render(vec![call]).await.pop() {
            Some(Ok(text)) => text,
            Some(Err(error)) => return Err(Unrendered::Hook(error)),
            None => return Err(Unrendered::Hook(HookError::Closed)),
        };
        let is_left = |name: &&String| text.contains(&format!("{{{name}}}"));
        match filled.missing.iter().find(is_left) {
            Some(name) => Err(Unrendered::Unfilled(name.clone())),
            None => Ok(text),
        }
    }
}

/// Why a template gives no text.
#[derive(Debug)]
pub(crate) enum Unrendered {
    /// Nothing fills this placeholder.
    Unfilled(String),
    /// `render` failed.
    Hook(HookError),
}

/// What fills a placeholder: a value, else what the environment's entry says, else the environment itself.
fn value_of(
    name: &str,
    values: &Map,
    entry: Option<&Value>,
    environment: Option<&Environment>,
) -> Option<String> {
    let of_entry = || {
        entry
            .and_then(|entry| entry.get(name))
            .filter(|value| !value.is_object())
            .and_then(text_of)
    };
    let of_environment = || {
        environment
            .filter(|_| name == "environment")
            .map(|environment| environment.acronym.clone())
    };
    values
        .get(name)
        .and_then(text_of)
        .or_else(of_entry)
        .or_else(of_environment)
}

/// Whether `render` fills the placeholder itself.
fn is_for_render(definition: &Definition, name: &str) -> bool {
    definition.hooks.render && definition.placeholders.iter().any(|known| known == name)
}

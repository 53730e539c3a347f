//! What a client sent, brought into the form in which it is stored; and a template, filled and finished.
//!
//! Types first, in plain Rust; then `normalize`, whose result is checked again; then `validate`, for the mapping
//! `default` only. All mistakes of one step come at once.

use std::sync::Arc;

use patchbay_plugin::Map;
use patchbay_plugin::configuration::TechnicalMapping;
use patchbay_plugin::definition::Definition;
use patchbay_plugin::field::parse_values;
use patchbay_plugin::template::{Template, text_of};
use patchbay_plugin::validation::{Loc, ValidationError};

use crate::call::{CatalogueReader, HookCall, HookContext, RenderCall};
use crate::error::{FieldError, HookError, NormalizeError};
use crate::plugin::Plugin;

/// A configuration as a client sent it.
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
    /// Its values, not checked yet.
    pub configuration: &'a Map,
    /// What is known around it.
    pub context: &'a HookContext,
    /// Through which `db` reads.
    pub reader: &'a Arc<dyn CatalogueReader>,
    /// Its path in what the client sent, with which errors name their fields.
    pub loc: &'a Loc,
}

impl Incoming<'_> {
    fn call(&self, values: &Map) -> HookCall {
        HookCall {
            values: values.clone(),
            context: self.context.clone(),
            reader: self.reader.clone(),
        }
    }
}

/// Why a configuration is not admitted.
#[derive(Debug)]
pub enum Unadmitted {
    /// Its values are not what the fields accept.
    Invalid(Vec<ValidationError>),
    /// The plugin's own rules are against it.
    Rejected {
        /// What they say.
        errors: Vec<FieldError>,
        /// The values that they were asked about.
        values: Map,
    },
    /// A hook returned values that the plugin's own fields refuse: a slip of the plugin, not of the client.
    Slip(Vec<ValidationError>),
    /// A hook failed.
    Hook(HookError),
}

/// Whether the plugin's own rules are asked about a configuration. They are for the mapping `default` only; and a dry run
/// may name no data product, so that what they say about one cannot be told.
pub(crate) fn has_rules(definition: &Definition, context: &HookContext) -> bool {
    definition.hooks.validate
        && context.technical_mapping == TechnicalMapping::Default
        && context.data_product.is_some()
}

impl Plugin {
    /// Checks and normalises the values of a configuration, as they are before they are stored.
    ///
    /// # Errors
    /// Every mistake of the step that found some.
    pub async fn settle(&self, incoming: Incoming<'_>) -> Result<Map, Unadmitted> {
        let fields = &self.definition().fields;
        let values = parse_values(fields, incoming.configuration, incoming.loc)
            .map_err(Unadmitted::Invalid)?;
        if !self.definition().hooks.normalize {
            return Ok(values);
        }
        let normalised = match self.normalize(incoming.call(&values)).await {
            Ok(normalised) => normalised,
            Err(NormalizeError::Rejected(errors)) => {
                return Err(Unadmitted::Rejected { errors, values });
            }
            Err(NormalizeError::Hook(error)) => return Err(Unadmitted::Hook(error)),
        };
        // What a hook returns is checked like what a client sends: a plugin's slip is no reason to store nonsense.
        parse_values(fields, &normalised, incoming.loc).map_err(Unadmitted::Slip)
    }

    /// Admits a configuration: settles its values, and lets the plugin's own rules judge them.
    ///
    /// # Errors
    /// Every mistake of the step that found some.
    pub async fn admit(&self, incoming: Incoming<'_>) -> Result<Map, Unadmitted> {
        let values = self.settle(incoming).await?;
        if !has_rules(self.definition(), incoming.context) {
            return Ok(values);
        }
        match self.validate(incoming.call(&values)).await {
            Ok(errors) if errors.is_empty() => Ok(values),
            Ok(errors) => Err(Unadmitted::Rejected { errors, values }),
            Err(error) => Err(Unadmitted::Hook(error)),
        }
    }

    /// Lets `render` finish filled templates, all in one hop. There is an answer for each.
    pub async fn finish(&self, fillings: Vec<Filling>) -> Vec<Result<String, Unrendered>> {
        let (calls, left): (Vec<RenderCall>, Vec<Vec<String>>) = fillings
            .into_iter()
            .map(|filling| (filling.call, filling.left))
            .unzip();
        let rendered = self.render(calls).await.into_iter().zip(left);
        let finished = rendered.map(|(text, left)| {
            let text = text.map_err(Unrendered::Hook)?;
            let is_left = |name: &&String| text.contains(&format!("{{{name}}}"));
            match left.iter().find(is_left) {
                Some(name) => Err(Unrendered::Unfilled(name.clone())),
                None => Ok(text),
            }
        });
        finished.collect()
    }
}

/// A template that was filled, on its way through the plugin's `render`.
pub struct Filling {
    call: RenderCall,
    /// The placeholders that only `render` can fill.
    left: Vec<String>,
}

/// Why a template gives no text.
#[derive(Debug)]
pub enum Unrendered {
    /// Nothing fills this placeholder.
    Unfilled(String),
    /// The plugin's `render` failed.
    Hook(HookError),
}

impl Filling {
    /// Fills a template: with the values, else with what the environment's entry says, else with the environment's
    /// acronym.
    ///
    /// # Errors
    /// [`Unrendered::Unfilled`] for a placeholder that neither these nor `render` fill.
    pub fn new(
        definition: &Definition,
        template: &str,
        values: &Map,
        context: HookContext,
    ) -> Result<Filling, Unrendered> {
        let of_entry = |name: &str| {
            let value = context.entry.as_ref()?.get(name)?;
            text_of(value).filter(|_| !value.is_object())
        };
        let of_environment = |name: &str| {
            let environment = context.environment.as_ref()?;
            (name == "environment").then(|| environment.acronym.clone())
        };
        let filled = Template::parse(template).fill(|name| {
            values
                .get(name)
                .and_then(text_of)
                .or_else(|| of_entry(name))
                .or_else(|| of_environment(name))
        });
        let is_for_render =
            |name: &&String| definition.hooks.render && definition.placeholders.contains(name);
        if let Some(name) = filled.missing.iter().find(|name| !is_for_render(name)) {
            return Err(Unrendered::Unfilled(name.clone()));
        }
        Ok(Filling {
            call: RenderCall {
                values: values.clone(),
                filled: filled.text,
                context: HookContext {
                    template: Some(template.to_owned()),
                    ..context
                },
            },
            left: filled.missing,
        })
    }
}

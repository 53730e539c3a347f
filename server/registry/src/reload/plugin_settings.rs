//! The operator's values for the settings that plugins declare.

use std::collections::BTreeMap;

use patchbay_plugin::Map;
use patchbay_plugin::field::{Field, parse_values};
use patchbay_plugin::name::{PluginName, nearest};
use patchbay_plugin::validation::LocStep;

/// The operator's values for the settings that a plugin declares, checked and with defaults. From the environment every
/// value comes as text, so a text is read as what the field wants.
pub(crate) fn settings_of(
    values: &BTreeMap<String, Map>,
    name: &PluginName,
    fields: &[Field],
) -> Result<Map, Vec<String>> {
    let given = values
        .get(&name.as_str().to_lowercase())
        .cloned()
        .unwrap_or_default();
    let mut mistakes = Vec::new();
    let mut input = Map::new();
    for (key, value) in given {
        let Some(field) = fields.iter().find(|field| field.name.as_str() == key) else {
            let near = nearest(&key, fields.iter().map(|field| field.name.as_str()));
            mistakes.push(match near {
                Some(near) => format!("[plugins.{name}] has `{key}`, which is no setting of it (did you mean `{near}`?)"),
                None => format!("[plugins.{name}] has `{key}`, which is no setting of it"),
            });
            continue;
        };
        let wants_text = ["string", "enum"].contains(&field.kind.word());
        let value = match value {
            serde_json::Value::String(text) if !wants_text => {
                serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))
            }
            other => other,
        };
        input.insert(key, value);
    }
    // A setting that is required and not given stops only the hook that needs it, not the plugin: its form still works.
    let optional: Vec<Field> = fields
        .iter()
        .cloned()
        .map(|field| Field {
            required: false,
            ..field
        })
        .collect();
    match parse_values(&optional, &input, &Vec::new()) {
        Ok(values) if mistakes.is_empty() => Ok(values),
        Ok(_) => Err(mistakes),
        Err(errors) => {
            mistakes.extend(errors.iter().map(|error| {
                let place: Vec<String> = error
                    .loc
                    .iter()
                    .map(|step| match step {
                        LocStep::Key(key) => key.clone(),
                        LocStep::Index(index) => index.to_string(),
                    })
                    .collect();
                format!("[plugins.{name}] {}: {}", place.join("."), error.msg)
            }));
            Err(mistakes)
        }
    }
}

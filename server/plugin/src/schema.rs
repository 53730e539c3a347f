//! The JSON Schema (2020-12) of a plugin's configuration.

use serde_json::{Value, json};

use crate::Map;
use crate::definition::Definition;
use crate::field::json_schema;

/// The schema of what a client sends as `configuration` for this plugin.
pub fn configuration_schema(definition: &Definition) -> Value {
    let mut names = vec![definition.name.as_str()];
    names.extend(definition.aliases.iter().map(|alias| alias.as_str()));
    let mut properties = Map::new();
    properties.insert("configuration_type".to_owned(), json!({ "enum": names }));
    let mut required = Vec::new();
    let mut conditions = Vec::new();
    for field in &definition.fields {
        properties.insert(field.name.as_str().to_owned(), json_schema(field));
        if !field.required {
            continue;
        }
        if field.depends_on.is_empty() {
            required.push(field.name.as_str());
        } else {
            let met: Map = field
                .depends_on
                .iter()
                .map(|dependency| {
                    (
                        dependency.field_name.clone(),
                        json!({ "const": dependency.value }),
                    )
                })
                .collect();
            let keys: Vec<&str> = field
                .depends_on
                .iter()
                .map(|dependency| dependency.field_name.as_str())
                .collect();
            conditions.push(json!({
                "if": { "properties": met, "required": keys },
                "then": { "required": [field.name.as_str()] },
            }));
        }
    }
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": definition.name.as_str(),
        "description": format!("{} ({})", definition.platform.display_name, definition.platform.detailed_name),
        "type": "object",
        "properties": properties,
        "required": required,
    });
    if let Value::Object(entries) = &mut schema {
        if !conditions.is_empty() {
            entries.insert("allOf".to_owned(), Value::Array(conditions));
        }
        if !definition.examples.is_empty() {
            entries.insert("examples".to_owned(), json!(definition.examples));
        }
    }
    schema
}

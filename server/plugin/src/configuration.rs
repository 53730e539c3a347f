//! Stored configurations, the data products they belong to, and their revisions.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Map;

/// How many of its rows a plugin's hook reads with one `db:configurations` at most.
pub const MAX_HOOK_ROWS: usize = 1000;

/// The owner of configurations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DataProduct {
    /// Its id.
    pub id: Uuid,
    /// What users call it.
    pub name: String,
    /// Unique, and part of the names of what it owns: `^[a-z0-9+=,.@_-]{1,64}$`.
    pub namespace: String,
    /// The business domain it is part of.
    pub domain: String,
}

/// Whether a text is a namespace: `^[a-z0-9+=,.@_-]{1,64}$`.
pub fn is_namespace(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+=,.@_-".contains(c))
}

/// How the names in a configuration come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TechnicalMapping {
    /// From the data product's namespace; the plugin's `validate` applies.
    #[default]
    Default,
    /// Freely chosen.
    Custom,
}

impl TechnicalMapping {
    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            TechnicalMapping::Default => "default",
            TechnicalMapping::Custom => "custom",
        }
    }

    /// The mapping of a word.
    pub fn parse(word: &str) -> Option<TechnicalMapping> {
        match word {
            "default" => Some(TechnicalMapping::Default),
            "custom" => Some(TechnicalMapping::Custom),
            _ => None,
        }
    }
}

/// One stored row that a plugin owns.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// Its id.
    pub id: Uuid,
    /// The plugin that owns it, by name.
    pub plugin: String,
    /// The version of the plugin that wrote it last.
    pub plugin_version: String,
    /// Unique in the data product.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Who owns it.
    pub data_product_id: Uuid,
    /// How its names come about.
    pub technical_mapping: TechnicalMapping,
    /// The platform it is for.
    pub platform_id: Option<Uuid>,
    /// The platform service it is for.
    pub service_id: Option<Uuid>,
    /// Counts its writes, from 1.
    pub revision: i64,
    /// The values of the plugin's fields.
    pub values: Map,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When it was last written.
    pub updated_at: OffsetDateTime,
}

/// What is to be written when a configuration is created or replaced.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigurationDraft {
    /// Unique in the data product.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Who owns it.
    pub data_product_id: Uuid,
    /// How its names come about.
    pub technical_mapping: TechnicalMapping,
    /// The platform it is for.
    pub platform_id: Option<Uuid>,
    /// The platform service it is for.
    pub service_id: Option<Uuid>,
    /// The values of the plugin's fields, checked.
    pub values: Map,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The first revision.
    Create,
    /// A later one.
    Update,
    /// One by which a newer version of the plugin carried it over.
    Upgrade,
    /// The last one.
    Delete,
}

impl Action {
    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Update => "update",
            Action::Upgrade => "upgrade",
            Action::Delete => "delete",
        }
    }

    /// The action of a word.
    pub fn parse(word: &str) -> Option<Action> {
        [
            Action::Create,
            Action::Update,
            Action::Upgrade,
            Action::Delete,
        ]
        .into_iter()
        .find(|action| action.as_str() == word)
    }
}

/// One entry of a configuration's history.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Revision {
    /// Its number, from 1.
    pub revision: i64,
    /// What was done.
    pub action: Action,
    /// Who did it: the token's name, or `local`.
    pub changed_by: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_at: OffsetDateTime,
    /// What changed: for each key `{"from": …, "to": …}`.
    #[schema(value_type = Object)]
    pub changes: Map,
}

/// What differs between two states of a configuration, key by key, as `{"from": …, "to": …}`.
pub fn changes(before: Option<&Map>, after: Option<&Map>) -> Map {
    let empty = Map::new();
    let (before, after) = (before.unwrap_or(&empty), after.unwrap_or(&empty));
    let mut changes = Map::new();
    for key in before
        .keys()
        .chain(after.keys().filter(|key| !before.contains_key(*key)))
    {
        let (from, to) = (before.get(key), after.get(key));
        if from != to {
            let side = |value: Option<&Value>| value.cloned().unwrap_or(Value::Null);
            let mut change = Map::new();
            change.insert("from".to_owned(), side(from));
            change.insert("to".to_owned(), side(to));
            changes.insert(key.clone(), Value::Object(change));
        }
    }
    changes
}

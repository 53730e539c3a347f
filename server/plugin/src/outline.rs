//! What is kept of a definition so that its next version can be compared with it, also when its code is gone.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::Map;
use crate::definition::{Definition, EnvironmentEntry, Hooks};
use crate::field::Field;
use crate::name::{MigrationId, PluginName, TableName};
use crate::platform::PlatformMetadata;
use crate::term::{Mistakes, Path, Term};

/// All of a definition that [`changes`](crate::change::changes) look at. It can be written down and read back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outline {
    /// The version, as written.
    pub version: String,
    /// The table; none without fields.
    pub table: Option<TableName>,
    /// What configurations consist of.
    #[serde(deserialize_with = "fields")]
    pub fields: Vec<Field>,
    /// The rest; none when it is not known, because a Patchbay wrote it that kept no more than fields and table.
    #[serde(default)]
    pub face: Option<Face>,
    /// The steps of this version that were taken back: that it runs them again is no change of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken_back: Vec<MigrationId>,
}

/// What users see of a definition beside its fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Face {
    /// Other names it answers to.
    pub aliases: Vec<PluginName>,
    /// The Patchbay versions it works with.
    pub requires: Option<String>,
    /// How it presents itself.
    pub platform: PlatformMetadata,
    /// What the operator sets for it.
    #[serde(deserialize_with = "fields")]
    pub settings: Vec<Field>,
    /// Which hooks it has.
    pub hooks: Hooks,
    /// How the entry of an environment that belongs to a configuration is found.
    pub environment_entry: EnvironmentEntry,
    /// Configurations that are right.
    pub examples: Vec<Map>,
    /// Template placeholders that are no fields.
    pub placeholders: Vec<String>,
}

impl Outline {
    /// The outline of a definition.
    pub fn of(definition: &Definition) -> Outline {
        Outline {
            version: definition.version.clone(),
            table: definition.table.clone(),
            fields: definition.fields.clone(),
            face: Some(Face {
                aliases: definition.aliases.clone(),
                requires: definition.requires.as_ref().map(ToString::to_string),
                platform: definition.platform.clone(),
                settings: definition.settings.clone(),
                hooks: definition.hooks,
                environment_entry: definition.environment_entry.clone(),
                examples: definition.examples.clone(),
                placeholders: definition.placeholders.clone(),
            }),
            taken_back: Vec::new(),
        }
    }
}

/// Fields are read as those of a plugin's file are, so that there is one way to read them.
fn fields<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Field>, D::Error> {
    let items = Vec::<Value>::deserialize(from)?;
    let read = |item: Value| {
        let mut mistakes = Mistakes::default();
        let field = Field::read(Term::from_json(item), Path::default(), &mut mistakes);
        mistakes
            .into_result(field)
            .map_err(|_| serde::de::Error::custom("a field that can be read"))
    };
    items.into_iter().map(read).collect()
}

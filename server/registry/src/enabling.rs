//! Which plugins are enabled.
//!
//! Shipped plugins are a fixed list of names, and `ENABLED_PLUGINS` chooses among these only; every other plugin is on
//! by itself. `DISABLED_PLUGINS` wins over both.

use std::path::Path;

use patchbay_plugin::definition::Definition;
use patchbay_plugin::name::nearest;

/// The shipped plugins that are on when nothing is said.
pub const ENABLED_BY_DEFAULT: &[&str] = &[
    "SnowflakeDataOutput",
    "DatabricksDataOutput",
    "GlueDataOutput",
    "RedshiftDataOutput",
];

/// The shipped plugins, which are off unless they are chosen. Examples are not among them: where they are found by
/// being a plugin path they are on, like every plugin that an admin brings.
pub const SHIPPED: &[&str] = &[
    "SnowflakeDataOutput",
    "DatabricksDataOutput",
    "GlueDataOutput",
    "RedshiftDataOutput",
    "PostgreSQLDataOutput",
    "AzureBlobDataOutput",
    "OSISemanticModelDataOutput",
    "ParameterStoreDataOutput",
    "ConveyorPlugin",
    "AgnoPlugin",
    "GitHubPlugin",
    "GoogleBigQueryDataOutput",
    "KafkaTopicDataOutput",
    "IcebergTableDataOutput",
];

/// What `ENABLED_PLUGINS` and `DISABLED_PLUGINS` say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// The entries of `ENABLED_PLUGINS`; none when it is unset or empty.
    pub enabled: Option<Vec<String>>,
    /// The entries of `DISABLED_PLUGINS`.
    pub disabled: Vec<String>,
}

/// Reads a list as the settings have it: separated by commas, or a JSON list. None when it is empty; `[]` is a list
/// of nothing.
///
/// # Errors
/// What is wrong with the JSON list, in words.
pub fn parse_names(text: &str) -> Result<Option<Vec<String>>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if text.starts_with('[') {
        return serde_json::from_str(text)
            .map(Some)
            .map_err(|error| format!("not a JSON list of names: {error}"));
    }
    let names: Vec<String> = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    Ok((!names.is_empty()).then_some(names))
}

/// A plugin as the selection sees it.
#[derive(Debug, Clone, Copy)]
pub struct Selectable<'a> {
    /// Its definition.
    pub definition: &'a Definition,
    /// Where it lies: the path of its file or folder.
    pub location: &'a str,
    /// Whether it was found in a folder of examples, where only its name turns it on.
    pub example: bool,
}

impl Selection {
    /// Whether the plugin is enabled.
    pub fn enables(&self, plugin: Selectable<'_>) -> bool {
        if self.disabled.iter().any(|entry| names(entry, plugin)) {
            return false;
        }
        let chosen = || match &self.enabled {
            Some(entries) => entries.iter().any(|entry| names(entry, plugin)),
            None => ENABLED_BY_DEFAULT.contains(&plugin.definition.name.as_str()),
        };
        let shipped = SHIPPED.contains(&plugin.definition.name.as_str());
        if shipped || plugin.example {
            chosen()
        } else {
            true
        }
    }

    /// Whether the plugin is off only because it ships so, which is nobody's slip.
    pub fn is_off_as_it_ships(&self, plugin: Selectable<'_>) -> bool {
        let named = self.disabled.iter().any(|entry| names(entry, plugin));
        let ships = plugin.example || SHIPPED.contains(&plugin.definition.name.as_str());
        ships && !named && self.enabled.is_none() && !self.enables(plugin)
    }

    /// Why the plugin is off, and what turns it on; none when it is enabled.
    pub fn why_off(&self, plugin: Selectable<'_>) -> Option<String> {
        if self.enables(plugin) {
            return None;
        }
        let name = &plugin.definition.name;
        if let Some(entry) = self.disabled.iter().find(|entry| names(entry, plugin)) {
            return Some(format!(
                "DISABLED_PLUGINS names \"{entry}\"; take it out there"
            ));
        }
        Some(match (&self.enabled, plugin.example) {
            (_, true) => format!("it is an example; name {name} in ENABLED_PLUGINS"),
            (Some(_), _) => format!(
                "it ships with Patchbay, and ENABLED_PLUGINS does not name it; add {name} there"
            ),
            (None, _) => format!(
                "it ships with Patchbay and is off by default; name it in ENABLED_PLUGINS, which then has to name all \
                 that are wanted: {},{name}",
                ENABLED_BY_DEFAULT.join(",")
            ),
        })
    }

    /// What is wrong with the entries, given every plugin that was found.
    pub fn problems<'a>(&self, found: &[Selectable<'a>]) -> Vec<String> {
        let known: Vec<&str> = found
            .iter()
            .flat_map(|plugin| {
                std::iter::once(plugin.definition.name.as_str())
                    .chain(plugin.definition.aliases.iter().map(|alias| alias.as_str()))
            })
            .collect();
        let enabled = self
            .enabled
            .iter()
            .flatten()
            .map(|entry| ("ENABLED_PLUGINS", entry));
        let disabled = self
            .disabled
            .iter()
            .map(|entry| ("DISABLED_PLUGINS", entry));
        enabled
            .chain(disabled)
            .filter(|(_, entry)| !found.iter().any(|plugin| names(entry, *plugin)))
            .map(|(setting, entry)| match nearest(last_part(entry), known.iter().copied()) {
                Some(near) => format!("{setting} names \"{entry}\", which is found nowhere (did you mean \"{near}\"?)"),
                None => format!("{setting} names \"{entry}\", which is found nowhere"),
            })
            .collect()
    }

    /// Whether some enabled entry names none of `found`, so that the examples are worth a look.
    pub fn seeks_more(&self, found: &[Selectable<'_>]) -> bool {
        self.enabled
            .iter()
            .flatten()
            .any(|entry| !found.iter().any(|plugin| names(entry, *plugin)))
    }
}

/// Whether an entry means this plugin: by name, alias, path, or the last part of a dotted path.
fn names(entry: &str, plugin: Selectable<'_>) -> bool {
    plugin.definition.answers_to(entry)
        || plugin.definition.answers_to(last_part(entry))
        || same_place(entry, plugin.location)
}

fn last_part(entry: &str) -> &str {
    if entry.contains('/') {
        entry
    } else {
        entry.rsplit('.').next().unwrap_or(entry)
    }
}

/// Whether a path of the settings means the file or folder of a plugin. `plugin.lua` means its folder.
fn same_place(entry: &str, location: &str) -> bool {
    let clean = |text: &str| {
        let text = text.trim_end_matches('/');
        text.strip_suffix("/plugin.lua")
            .unwrap_or(text)
            .trim_start_matches("./")
            .to_owned()
    };
    let (wanted, location) = (clean(entry), clean(location));
    if wanted == location {
        return true;
    }
    // A plain name is no path, and asking the file system about each would cost more than it tells.
    if !entry.contains('/') && !entry.ends_with(".lua") {
        return false;
    }
    match (
        Path::new(&wanted).canonicalize(),
        Path::new(&location).canonicalize(),
    ) {
        (Ok(wanted), Ok(location)) => wanted == location,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use patchbay_plugin::term::Term;

    use super::*;

    fn definition(name: &str, alias: &str) -> Definition {
        Definition::read(
            Term::Table(vec![
                ("name".into(), Term::String(name.into())),
                (
                    "aliases".into(),
                    Term::List(vec![Term::String(alias.into())]),
                ),
            ]),
            Vec::new(),
        )
        .expect("a definition")
    }

    fn selection(enabled: &str, disabled: &str) -> Selection {
        Selection {
            enabled: parse_names(enabled).expect("names"),
            disabled: parse_names(disabled).expect("names").unwrap_or_default(),
        }
    }

    #[test]
    fn enabled_plugins_chooses_among_the_shipped_only() {
        let snowflake = definition(
            "SnowflakeDataOutput",
            "SnowflakeTechnicalAssetConfiguration",
        );
        let osi = definition(
            "OSISemanticModelDataOutput",
            "OSITechnicalAssetConfiguration",
        );
        let own = definition("OwnOutput", "Own");
        let at = |definition, location| Selectable {
            definition,
            location,
            example: false,
        };
        for (enabled, disabled, on) in [
            ("", "", [true, false, true]),
            ("[]", "", [false, false, true]),
            ("OSISemanticModelDataOutput", "", [false, true, true]),
            (
                "OSITechnicalAssetConfiguration, SnowflakeDataOutput",
                "",
                [true, true, true],
            ),
            ("app.x.schema.SnowflakeDataOutput", "", [true, false, true]),
            (
                "[\"./lua-plugins/osi/plugin.lua\"]",
                "",
                [false, true, true],
            ),
            ("lua-plugins/osi/", "OwnOutput,Nope", [false, true, false]),
        ] {
            let selection = selection(enabled, disabled);
            let found = [
                selection.enables(at(&snowflake, "lua-plugins/snowflake")),
                selection.enables(at(&osi, "lua-plugins/osi")),
                selection.enables(at(&own, "lua-plugins/own.lua")),
            ];
            assert_eq!(found, on, "{enabled:?} {disabled:?}");
        }
    }

    #[test]
    fn an_example_is_on_only_by_its_name() {
        let s3 = definition("S3DataOutput", "S3TechnicalAssetConfiguration");
        let example = Selectable {
            definition: &s3,
            location: "lua-plugins/examples/s3",
            example: true,
        };
        assert!(!Selection::default().enables(example));
        assert!(selection("S3DataOutput", "").enables(example));
        assert!(Selection::default().enables(Selectable {
            example: false,
            ..example
        }));
    }

    #[test]
    fn a_name_that_is_found_nowhere_is_a_problem() {
        let snowflake = definition(
            "SnowflakeDataOutput",
            "SnowflakeTechnicalAssetConfiguration",
        );
        let found = [Selectable {
            definition: &snowflake,
            location: "x",
            example: false,
        }];
        let problems = selection("SnowflakeDataOutptu", "Zzz").problems(&found);
        assert_eq!(
            problems,
            [
                "ENABLED_PLUGINS names \"SnowflakeDataOutptu\", which is found nowhere (did you mean \"SnowflakeDataOutput\"?)",
                "DISABLED_PLUGINS names \"Zzz\", which is found nowhere",
            ]
        );
    }
}

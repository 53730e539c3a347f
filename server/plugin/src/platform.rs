//! Platform metadata: its defaults from a plugin's name, a plugin's entry in the list, and the tiles.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::form::UiElement;
use crate::name::{PlatformKey, PluginName};
use crate::term::{Mistakes, Path, TableReader, Term};

/// How a plugin presents itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlatformMetadata {
    /// The key that its platform service carries as its name, lower case.
    pub platform_key: PlatformKey,
    /// What users call it.
    pub display_name: String,
    /// What one configuration is called.
    pub detailed_name: String,
    /// The file name of its SVG, which lies beside the plugin.
    pub icon_name: String,
    /// The tile it stands under, when not a tile of its own.
    pub parent_platform: Option<PlatformKey>,
    /// What the rendered access path is called.
    pub result_label: String,
    /// What the rendered access path is.
    pub result_tooltip: String,
    /// Whether links depend on an environment.
    pub has_environments: bool,
    /// Whether the form offers it.
    pub show_in_form: bool,
    /// Whether its configurations may be shared.
    pub shareable: bool,
}

impl PlatformMetadata {
    /// The defaults that a plugin's name gives: `SnowflakeDataOutput` is "Snowflake", `snowflake`,
    /// `snowflake-logo.svg`.
    pub fn from_name(name: &PluginName) -> PlatformMetadata {
        const SUFFIXES: &[&str] = &["DataOutput", "TechnicalAssetConfiguration", "Plugin"];
        let full = name.as_str();
        let display = SUFFIXES
            .iter()
            .find_map(|suffix| full.strip_suffix(suffix))
            .filter(|short| !short.is_empty())
            .unwrap_or(full);
        let key = display.to_lowercase();
        PlatformMetadata {
            platform_key: PlatformKey::parse(&key)
                .unwrap_or_else(|_| unreachable!("a plugin name is a platform key")),
            display_name: display.to_owned(),
            detailed_name: display.to_owned(),
            icon_name: format!("{key}-logo.svg"),
            parent_platform: None,
            result_label: "Resulting output".to_owned(),
            result_tooltip: "The output you can access through this technical asset".to_owned(),
            has_environments: true,
            show_in_form: true,
            shareable: true,
        }
    }

    /// Reads `platform = {…}` over the defaults of `name`.
    pub fn read(
        term: Option<Term>,
        name: &PluginName,
        mistakes: &mut Mistakes,
    ) -> PlatformMetadata {
        let mut platform = PlatformMetadata::from_name(name);
        let path = Path::default().key("platform");
        let Some(term) = term else { return platform };
        let Some(mut table) =
            TableReader::open(term, path, "a table with the platform's metadata", mistakes)
        else {
            return platform;
        };
        if let Some(key) = table.name("platform_key", PlatformKey::parse, mistakes) {
            platform.icon_name = format!("{key}-logo.svg");
            platform.platform_key = key;
        }
        if let Some(text) = table.string("display_name", mistakes) {
            platform.detailed_name.clone_from(&text);
            platform.display_name = text;
        }
        if let Some(text) = table.string("detailed_name", mistakes) {
            platform.detailed_name = text;
        }
        if let Some(text) = table.string("icon_name", mistakes) {
            let plain = text.ends_with(".svg")
                && text.len() <= 100
                && !text.starts_with('.')
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            if !plain {
                mistakes.add(
                    table.path_of("icon_name"),
                    "a plain file name that ends in .svg, such as \"snowflake-logo.svg\"",
                    format!("{text:?}"),
                );
            }
            platform.icon_name = text;
        }
        platform.parent_platform = table.name("parent_platform", PlatformKey::parse, mistakes);
        if let Some(text) = table.string("result_label", mistakes) {
            platform.result_label = text;
        }
        if let Some(text) = table.string("result_tooltip", mistakes) {
            platform.result_tooltip = text;
        }
        if let Some(value) = table.boolean("has_environments", mistakes) {
            platform.has_environments = value;
        }
        if let Some(value) = table.boolean("show_in_form", mistakes) {
            platform.show_in_form = value;
        }
        if let Some(value) = table.boolean("shareable", mistakes) {
            platform.shareable = value;
        }
        table.finish(mistakes);
        platform
    }
}

/// How a plugin stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PluginState {
    /// It serves, and what is on disk is what serves.
    Active,
    /// It serves from its last good version or answer, because the newest one failed.
    Degraded,
    /// It does not serve.
    Failed,
    /// It waits for a migration that does not run by itself.
    PendingMigration,
    /// It wants another version of Patchbay.
    Incompatible,
    /// It is not enabled.
    Disabled,
}

impl PluginState {
    /// All of them.
    pub const ALL: [PluginState; 6] = [
        PluginState::Active,
        PluginState::Degraded,
        PluginState::Failed,
        PluginState::PendingMigration,
        PluginState::Incompatible,
        PluginState::Disabled,
    ];

    /// The word on the wire, in figures and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            PluginState::Active => "active",
            PluginState::Degraded => "degraded",
            PluginState::Failed => "failed",
            PluginState::PendingMigration => "pending_migration",
            PluginState::Incompatible => "incompatible",
            PluginState::Disabled => "disabled",
        }
    }
}

/// A plugin in the list and its form. The keys stand in the order of the wire format.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PluginMeta {
    /// Whether the form needs options from a platform service that the catalogue lacks.
    pub not_configured: bool,
    /// The form.
    pub ui_metadata: Vec<UiElement>,
    /// The plugin's name.
    pub plugin: String,
    /// Whether links depend on an environment.
    pub has_environments: bool,
    /// What the rendered access path is called.
    pub result_label: String,
    /// What the rendered access path is.
    pub result_tooltip: String,
    /// The platform key.
    pub platform: String,
    /// What users call it.
    pub display_name: String,
    /// The file name of its icon.
    pub icon_name: String,
    /// The icon itself, as `data:image/svg+xml;base64,…`.
    pub icon_data_uri: Option<String>,
    /// The platform key of the tile it stands under.
    pub parent_platform: Option<String>,
    /// Always null; kept for clients.
    #[schema(value_type = Option<Object>)]
    pub platform_tile: Option<()>,
    /// Whether the form offers it.
    pub show_in_form: bool,
    /// Whether its configurations may be shared.
    pub shareable: bool,
    /// What one configuration is called.
    pub detailed_name: String,
    /// The plugin's version, as written.
    pub version: String,
    /// The latest migration's file, relative to the package.
    pub migration_file_path: Option<String>,
    /// How it stands.
    pub state: PluginState,
    /// The generation that answers.
    pub generation: u64,
}

/// One platform tile; tiles are two deep.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(no_recursion)]
pub struct Tile {
    /// What users read.
    pub label: String,
    /// The platform key.
    pub value: String,
    /// The file name of the icon.
    pub icon_name: String,
    /// The icon itself.
    pub icon_data_uri: Option<String>,
    /// Whether links depend on an environment.
    pub has_environments: bool,
    /// Always true; kept for clients.
    pub has_config: bool,
    /// The tiles under it.
    pub children: Vec<Tile>,
    /// Whether the form offers it.
    pub show_in_form: bool,
}

/// What a tile needs to know of a plugin.
#[derive(Debug, Clone, Copy)]
pub struct TileSource<'a> {
    /// How the plugin presents itself.
    pub platform: &'a PlatformMetadata,
    /// Its icon.
    pub icon_data_uri: Option<&'a str>,
}

/// The tiles of plugins, given in the order of the list.
///
/// A plugin without a parent is a tile (the first of a key wins); one with a parent is a child of the parent's tile,
/// which is created at that place when no tile has its key yet.
pub fn tiles<'a>(plugins: impl IntoIterator<Item = TileSource<'a>>) -> Vec<Tile> {
    let mut tiles: Vec<Tile> = Vec::new();
    for source in plugins {
        let platform = source.platform;
        let tile = Tile {
            label: platform.display_name.clone(),
            value: platform.platform_key.as_str().to_owned(),
            icon_name: platform.icon_name.clone(),
            icon_data_uri: source.icon_data_uri.map(str::to_owned),
            has_environments: platform.has_environments,
            has_config: true,
            children: Vec::new(),
            show_in_form: platform.show_in_form,
        };
        let siblings = match &platform.parent_platform {
            None => &mut tiles,
            Some(parent) => {
                let parent = parent.as_str();
                let place = tiles
                    .iter()
                    .position(|tile| tile.value == parent)
                    .unwrap_or_else(|| {
                        tiles.push(Tile {
                            label: parent.to_uppercase(),
                            value: parent.to_owned(),
                            icon_name: format!("{parent}-logo.svg"),
                            icon_data_uri: None,
                            has_environments: true,
                            has_config: true,
                            children: Vec::new(),
                            show_in_form: platform.show_in_form,
                        });
                        tiles.len() - 1
                    });
                &mut tiles[place].children
            }
        };
        if !siblings.iter().any(|sibling| sibling.value == tile.value) {
            siblings.push(tile);
        }
    }
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(name: &str, parent: Option<&str>) -> PlatformMetadata {
        PlatformMetadata {
            parent_platform: parent.map(|key| PlatformKey::parse(key).expect("a key")),
            ..PlatformMetadata::from_name(&PluginName::parse(name).expect("a name"))
        }
    }

    #[test]
    fn defaults_come_from_the_name() {
        let snowflake = platform("SnowflakeDataOutput", None);
        assert_eq!(snowflake.display_name, "Snowflake");
        assert_eq!(snowflake.platform_key.as_str(), "snowflake");
        assert_eq!(snowflake.icon_name, "snowflake-logo.svg");
        assert_eq!(platform("Plugin", None).display_name, "Plugin");
    }

    #[test]
    fn a_parent_is_created_where_its_first_child_stands() {
        let plugins = [
            platform("DatabricksDataOutput", None),
            platform("GlueDataOutput", Some("aws")),
            platform("RedshiftDataOutput", Some("aws")),
            platform("SnowflakeDataOutput", None),
        ];
        let tiles = tiles(plugins.iter().map(|platform| TileSource {
            platform,
            icon_data_uri: None,
        }));
        let labels: Vec<&str> = tiles.iter().map(|tile| tile.label.as_str()).collect();
        assert_eq!(labels, ["Databricks", "AWS", "Snowflake"]);
        assert_eq!(tiles[1].icon_name, "aws-logo.svg");
        assert_eq!(tiles[1].children.len(), 2);
    }
}

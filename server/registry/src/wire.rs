//! Answers as they go over the wire. The keys stand in the order of the wire format.

use std::collections::BTreeMap;

use patchbay_plugin::Map;
use patchbay_plugin::configuration::{Revision, TechnicalMapping};
use patchbay_plugin::migration::{AppliedMigration, PendingMigration};
use patchbay_plugin::platform::{PluginMeta, PluginState, Tile};
use patchbay_plugin::validation::ValidationError;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::proofs::Claim;

pub use crate::cluster::wire::{
    ClusterGeneration, ClusterServer, ClusterView, Lag, PluginDifference, ServerPlugin,
    ServerState, ServerTrouble,
};

/// Every enabled plugin, ordered by platform key.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PluginList {
    /// The plugins.
    pub plugins: Vec<PluginMeta>,
}

/// The tiles of the enabled plugins.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PlatformTiles {
    /// The tiles, in the order of the list.
    pub platform_tiles: Vec<Tile>,
}

/// A link.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PluginUrl {
    /// Where it leads.
    pub url: String,
}

/// A rendered access path.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AccessPath {
    /// The path.
    pub technical_asset_access_path: String,
}

/// What went wrong last with a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LastError {
    /// Where on the way from file to answer: `read`, `package`, `parse`, `api`, `requires`, `load`, `definition`, `settings`,
    /// `migration`, `collision`, `drift`, `plan`, `version`, `rows`, `older`, `store`, `hook`.
    pub stage: String,
    /// The hook, when it was one.
    pub hook: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
    /// The file, relative to the working folder or the package.
    pub file: Option<String>,
    /// The line in it, from 1.
    pub line: Option<u32>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The version that failed, where it is known.
    pub version: Option<String>,
    /// Every mistake, when there are several.
    pub mistakes: Vec<String>,
    /// The same with their places, for the command line; empty where it is one sentence without a place.
    #[serde(skip)]
    pub reports: Vec<patchbay_lua::Report>,
    /// The stored configurations that the version would refuse, when that is what is wrong.
    pub rows: Option<RowCheck>,
}

/// What was found when a version was tried on the configurations that are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RowCheck {
    /// How many would be refused that were accepted until now.
    pub refused: u64,
    /// How many were looked at. When there was no time for all, they are spread over all.
    pub checked: u64,
    /// How many there are.
    pub total: u64,
    /// The first of those that would be refused.
    pub rows: Vec<RefusedRow>,
}

/// A stored configuration that a version would refuse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefusedRow {
    /// Its id.
    pub id: Uuid,
    /// The field, where it is one.
    pub field: Option<String>,
    /// Why.
    pub message: String,
}

impl RowCheck {
    /// How many of how many were looked at, in words.
    pub(crate) fn extent(&self) -> String {
        match self.checked == self.total {
            true => format!("checked all {}", grouped(self.total)),
            false => format!(
                "checked {} of {}, spread over all",
                grouped(self.checked),
                grouped(self.total)
            ),
        }
    }

    /// The rows, a line each, and how many are left out.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .rows
            .iter()
            .map(|row| match &row.field {
                Some(field) => format!("{}: {field}: {}", row.id, row.message),
                None => format!("{}: {}", row.id, row.message),
            })
            .collect();
        let left_out = self.refused - (self.rows.len() as u64).min(self.refused);
        if left_out > 0 {
            lines.push(format!("and {} more", grouped(left_out)));
        }
        lines
    }
}

/// A number as people read it: `1,000,000`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl LastError {
    /// An error that is one sentence, noticed now.
    pub(crate) fn plain(stage: &str, message: String, version: Option<String>) -> LastError {
        LastError {
            stage: stage.to_owned(),
            hook: None,
            mistakes: vec![message.clone()],
            reports: Vec::new(),
            message,
            file: None,
            line: None,
            at: OffsetDateTime::now_utc(),
            version,
            rows: None,
        }
    }
}

/// A plugin in short.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PluginStatus {
    /// Its name; null when its file does not even load.
    pub plugin: Option<String>,
    /// How it stands.
    pub state: PluginState,
    /// The version that serves; null when none does.
    pub version: Option<String>,
    /// Where it comes from.
    pub source: String,
    /// The installed package that it belongs to; null when it lies in a plugin path.
    pub package: Option<String>,
    /// The file of its latest migration, relative to the package.
    pub migration_file_path: Option<String>,
    /// The generation in which it last changed.
    pub generation: u64,
    /// What went wrong last.
    pub last_error: Option<LastError>,
    /// What is odd but stops nothing, such as standing in for a plugin of the same name in another path.
    pub warnings: Vec<String>,
}

/// Every plugin found, the failed and disabled ones too.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PluginStatuses {
    /// The generation that answers.
    pub generation: u64,
    /// The plugins, by source.
    pub plugins: Vec<PluginStatus>,
    /// What is wrong with the settings, such as an enabled name that is found nowhere.
    pub problems: Vec<String>,
}

/// One migration of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct MigrationView {
    /// Its id.
    pub id: String,
    /// Its file, relative to the package; null when it is inline or derived.
    pub path: Option<String>,
    /// `applied`, `pending` or `baseline`.
    pub state: String,
    /// The hash of its operations.
    pub checksum: String,
    /// When it ran.
    #[serde(with = "time::serde::rfc3339::option")]
    pub applied_at: Option<OffsetDateTime>,
    /// Who had it run.
    pub applied_by: Option<String>,
    /// Whether it was proved, on a scratch database, that going down from it and up again changes nothing.
    pub reversible: bool,
    /// Why it is not, or that it is not proved yet.
    pub reversible_reason: Option<String>,
}

/// The history and what is pending, as answers show them. `claims` says of each whether it is reversible.
pub(crate) fn migration_views(
    history: &[AppliedMigration],
    pending: &[PendingMigration],
    claims: Vec<Claim>,
) -> Vec<MigrationView> {
    let applied = history.iter().map(|step| MigrationView {
        id: step.migration.id.to_string(),
        path: step.migration.path.clone(),
        state: if !step.origin.runs() {
            "baseline"
        } else {
            "applied"
        }
        .to_owned(),
        checksum: step.checksum.clone(),
        applied_at: Some(step.applied_at),
        applied_by: Some(step.applied_by.clone()),
        reversible: false,
        reversible_reason: None,
    });
    let pending = pending.iter().map(|step| MigrationView {
        id: step.migration.id.to_string(),
        path: step.migration.path.clone(),
        state: "pending".to_owned(),
        checksum: step.migration.checksum(),
        applied_at: None,
        applied_by: None,
        reversible: false,
        reversible_reason: None,
    });
    applied
        .chain(pending)
        .zip(claims)
        .map(|(view, claim)| MigrationView {
            reversible: claim.reversible,
            reversible_reason: claim.reason,
            ..view
        })
        .collect()
}

/// The migrations of every plugin.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PluginMigrations {
    /// By plugin, in the order in which they run.
    pub migrations: BTreeMap<String, Vec<MigrationView>>,
}

/// All about one plugin: its list entry and more.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PluginDetails {
    /// Its entry in the list.
    #[serde(flatten)]
    pub meta: PluginMeta,
    /// Other names it answers to.
    pub aliases: Vec<String>,
    /// The Patchbay versions it works with.
    pub requires: Option<String>,
    /// Where it comes from.
    pub source: String,
    /// Its fields.
    #[schema(value_type = Vec<Object>)]
    pub fields: Vec<Value>,
    /// Its table.
    pub table: Option<String>,
    /// Its applied and pending migrations.
    pub migrations: Vec<MigrationView>,
    /// What went wrong last, with the version that failed; `version` is the one that serves.
    pub last_error: Option<LastError>,
    /// What is odd but stops nothing.
    pub warnings: Vec<String>,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct ReloadSummary {
    /// The generation that serves now.
    pub generation: u64,
    /// Plugins that were not there before.
    pub added: Vec<String>,
    /// Plugins of which another version serves now.
    pub changed: Vec<String>,
    /// Plugins that are gone.
    pub removed: Vec<String>,
    /// Plugins, or sources, of which the newest version does not serve.
    pub failed: Vec<String>,
}

/// What a dry run found.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DryRun {
    /// Whether it could be stored as far as its content goes.
    pub valid: bool,
    /// What is wrong.
    pub errors: Vec<ValidationError>,
    /// The configuration as it would be stored; null when it is not valid.
    #[schema(value_type = Option<Object>)]
    pub configuration: Option<Map>,
    /// The access path it would have; null when there is none.
    pub access_path: Option<String>,
}

/// What a configuration is in one environment.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TechnicalInfo {
    /// The environment's id.
    pub environment_id: Uuid,
    /// The environment's name.
    pub environment: String,
    /// The rendered template; null where no entry matches or the template needs what it lacks.
    pub info: Option<String>,
}

/// A stored configuration.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ConfigurationView {
    /// Its id.
    pub id: Uuid,
    /// The plugin that owns it.
    pub plugin: String,
    /// The version of the plugin that wrote it last.
    pub plugin_version: String,
    /// How the plugin stands: a [`PluginState`], or `gone`.
    pub plugin_state: String,
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
    /// Counts its writes, from 1; its ETag begins with it.
    pub revision: i64,
    /// `configuration_type` and the values of the plugin's fields.
    #[schema(value_type = Object)]
    pub configuration: Map,
    /// The service's template, filled and finished by the plugin; null when that cannot be.
    pub access_path: Option<String>,
    /// What it is in each environment; null when the plugin does not serve.
    pub technical_info: Option<Vec<TechnicalInfo>>,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last written.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// A page of configurations, newest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ConfigurationPage {
    /// The configurations.
    pub configurations: Vec<ConfigurationView>,
    /// What to send as `cursor` for the next page; null on the last one.
    pub next_cursor: Option<String>,
}

/// The revisions of a configuration, newest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct History {
    /// The revisions.
    pub history: Vec<Revision>,
}

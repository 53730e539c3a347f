//! The cluster as it goes over the wire, and what servers write of themselves for each other.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// The servers on one database, and which plugins they serve.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ClusterView {
    /// The newest generation of the cluster: grows with every set of plugins that a server comes to.
    pub generation: u64,
    /// Whether other servers may be on the database. On SQLite there is the one that answers, and `generation` is its own.
    pub shared: bool,
    /// The servers, oldest first.
    pub servers: Vec<ClusterServer>,
    /// The latest generations of the cluster, newest first, those that some server serves among them.
    pub generations: Vec<ClusterGeneration>,
}

/// One server.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ClusterServer {
    /// Made anew at each start.
    pub id: Uuid,
    /// What operators call it.
    pub name: String,
    /// Where it listens.
    pub address: Option<String>,
    /// The Patchbay that it runs.
    pub version: String,
    /// How it stands.
    pub state: ServerState,
    /// Whether it is the one that answers.
    pub answering: bool,
    /// When it started, by its own clock.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it was last heard of, by the database's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub heartbeat_at: OffsetDateTime,
    /// The generation that it serves, as it counts them itself; that of its `/plugins/status`.
    pub generation: u64,
    /// The same as a generation of the cluster; null when it serves one that is no longer remembered.
    pub cluster_generation: Option<u64>,
    /// How far it is behind the newest generation; null when nobody knows.
    pub lag: Option<Lag>,
    /// The digest of what it serves: names, versions and files.
    pub plugin_set: String,
    /// What differs from the newest generation, and why.
    pub differences: Vec<PluginDifference>,
    /// The plugins of which the newest version does not serve here, with the reason.
    pub failures: Vec<ServerPlugin>,
    /// When it last could not reach the database, and why; null when it always could.
    pub last_error: Option<ServerTrouble>,
}

/// What a server met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerTrouble {
    /// What it was.
    pub message: String,
    /// When it began, by the server's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// How a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerState {
    /// It serves the newest generation.
    Current,
    /// It serves another one.
    Behind,
    /// It has not been heard of for ten seconds. After a minute it is taken off the list.
    Stale,
}

/// How far a server is behind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Lag {
    /// In generations of the cluster.
    pub generations: u64,
    /// For how long there has been a newer one, in seconds.
    pub seconds: f64,
}

/// One generation of the cluster.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ClusterGeneration {
    /// Its number.
    pub number: u64,
    /// The digest of its plugins.
    pub plugin_set: String,
    /// When a server served it first, by the database's clock; null on SQLite.
    #[serde(with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
    /// The servers that serve it, by id.
    pub servers: Vec<Uuid>,
}

/// A plugin on one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerPlugin {
    /// Its name; where its file does not even load, where that lies.
    pub plugin: String,
    /// The version that serves; null when none does.
    pub version: Option<String>,
    /// A digest of the files of that version.
    pub fingerprint: Option<String>,
    /// How it stands, in the words of `/plugins/status`.
    pub state: String,
    /// Why its newest version does not serve: the stage and the reason.
    pub error: Option<String>,
}

/// A plugin that a server serves otherwise than the newest generation does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PluginDifference {
    /// Its name.
    pub plugin: String,
    /// `missing` or `extra`, `version`, `files` when the version is the same, or `failed` when the server has tried.
    pub reason: String,
    /// The same as a sentence.
    pub message: String,
    /// The plugin on this server.
    pub here: Option<ServerPlugin>,
    /// The plugin in the newest generation.
    pub newest: Option<ServerPlugin>,
}

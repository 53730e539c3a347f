//! What the registry is told: where plugins lie, which are enabled, and how changes are noticed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use patchbay_plugin::Map;

use crate::enabling::Selection;

/// What the registry is told.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// Folders of plugins, or plugins' folders; of two plugins of one name the later path's serves.
    pub plugin_paths: Vec<PathBuf>,
    /// Plugin paths whose shared modules count although their plugins do not: those around a plugin that is served alone.
    pub libraries: Vec<PathBuf>,
    /// Where installed packages lie.
    pub packages: PathBuf,
    /// Which plugins are enabled.
    pub selection: Selection,
    /// Whether migrations that only add run by themselves.
    pub auto_migrate: bool,
    /// Whether a version number that promises less than the change makes is refused, rather than warned about.
    pub strict_versions: bool,
    /// How long the rows of a plugin are looked at before another version takes its place; zero not to look.
    pub row_check: Duration,
    /// How changes are noticed.
    pub watch: WatchSettings,
    /// What this server is called where it is told who ran a step; none where nobody calls it.
    pub server_name: Option<String>,
    /// The operator's values for the settings that plugins declare, by plugin name in lower case.
    pub plugin_settings: BTreeMap<String, Map>,
}

/// How changes of files are noticed.
#[derive(Debug, Clone, Copy)]
pub struct WatchSettings {
    /// A burst of changes is over after this much quiet.
    pub settle: Duration,
    /// A burst is cut off after this long.
    pub settle_max: Duration,
    /// How often to look, where the file system has no events; none to rely on events.
    pub poll: Option<Duration>,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            settle: Duration::from_millis(15),
            settle_max: Duration::from_millis(50),
            poll: None,
        }
    }
}

/// The files of the shipped plugins, embedded in the program, by path below `lua-plugins/`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shipped {
    /// Path and content.
    pub files: &'static [(&'static str, &'static [u8])],
}

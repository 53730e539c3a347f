//! What a plugin is loaded from: texts in memory. The sandbox never reads a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use patchbay_plugin::Map;
use patchbay_plugin::field::Field;
use patchbay_plugin::name::PluginName;

/// Text files by their path inside the plugin's folder, with `/` between the parts: `plugin.lua`, `rules.lua`,
/// `migrations/0001_create_table.lua`.
pub type Files = BTreeMap<String, Arc<str>>;

/// The files of one version of a plugin, captured once. A VM that was dropped is built again from the same texts.
#[derive(Clone)]
pub struct Source {
    /// What stands before a file's path in messages, such as `lua-plugins/snowflake`; may be empty.
    pub label: String,
    /// The file that returns the plugin: `plugin.lua`, or the only file.
    pub entry: String,
    /// The plugin's own files.
    pub files: Arc<Files>,
    /// Files of the plugin that may not be read, and why: a link that leaves the folder, one that is too large, …
    pub refused: Arc<BTreeMap<String, String>>,
    /// Whether the plugin is one file. Then it has no folder of its own, and `require "./x"` says so.
    pub single_file: bool,
    /// The shared modules behind `@lib/`, by file name: `table_family.lua`.
    pub libs: Arc<Files>,
}

/// Finds the values that the operator set for a plugin's settings, checked against them. What is wrong with them is
/// reported as a mistake of the stage `settings`.
pub type SettingsLookup =
    Arc<dyn Fn(&PluginName, &[Field]) -> Result<Map, Vec<String>> + Send + Sync>;

/// The largest file that is compiled, in bytes. The compiler cannot be interrupted, so its input is bounded.
pub const MAX_FILE: usize = 512 * 1024;

impl Source {
    /// How a file of the plugin is named in messages.
    pub(crate) fn shown(&self, file: &str) -> String {
        if self.label.is_empty() {
            file.to_owned()
        } else {
            format!("{}/{file}", self.label)
        }
    }

    /// Whether a chunk of the VM is one of the plugin's files or a shared module.
    pub(crate) fn has_chunk(&self, chunk: &str) -> bool {
        let own = if self.label.is_empty() {
            Some(chunk)
        } else {
            chunk
                .strip_prefix(self.label.as_str())
                .and_then(|rest| rest.strip_prefix('/'))
        };
        own.is_some_and(|file| self.files.contains_key(file))
            || chunk
                .strip_prefix("@lib/")
                .is_some_and(|file| self.libs.contains_key(file))
    }
}

/// How a shared module is named in messages.
pub(crate) fn shown_lib(file: &str) -> String {
    format!("@lib/{file}")
}

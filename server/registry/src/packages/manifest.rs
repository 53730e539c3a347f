//! `patchbay-package.toml`: what a package is.
//!
//! An author writes at most a name, a version and a description. `pack` and `install` derive the rest from the
//! definitions and the files, and a manifest that has that rest is held to it.

use std::collections::BTreeMap;

use patchbay_plugin::definition::{Definition, PLUGIN_API};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::content::{Content, MANIFEST, hex};
use super::name::{PackageName, PackageVersion};

/// The format of manifests that this program writes.
const FORMAT: u32 = 1;

/// What an author may write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    format: Option<u32>,
    pub(super) name: Option<PackageName>,
    pub(super) version: Option<PackageVersion>,
    pub(super) description: Option<String>,
    api: Option<i64>,
    #[serde(default)]
    plugins: Vec<PackagedPlugin>,
    files: Option<BTreeMap<String, String>>,
}

/// A complete manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    format: u32,
    /// The package's name.
    pub name: PackageName,
    /// Its version.
    pub version: PackageVersion,
    /// What it is for, in the author's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The version of the plugin API that its plugins are written for.
    pub api: i64,
    /// Its plugins, by where they lie.
    pub plugins: Vec<PackagedPlugin>,
    /// The SHA-256 of every file but this one.
    pub files: BTreeMap<String, String>,
}

/// One plugin of a package, as its definition says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackagedPlugin {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its folder or file in the package; empty when the package is the plugin.
    pub path: String,
    /// Other names it answers to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The Patchbay versions it works with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<String>,
    /// Its table; none without fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Its platform.
    pub platform_key: String,
}

impl PackagedPlugin {
    /// What a definition says.
    pub(super) fn of(definition: &Definition, path: String) -> PackagedPlugin {
        PackagedPlugin {
            name: definition.name.to_string(),
            version: definition.version.clone(),
            path,
            aliases: definition.aliases.iter().map(ToString::to_string).collect(),
            requires: definition.requires.as_ref().map(ToString::to_string),
            table: definition.table.as_ref().map(ToString::to_string),
            platform_key: definition.platform.platform_key.to_string(),
        }
    }

    /// Whether a name is the plugin's or one of its aliases.
    pub fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }
}

impl Written {
    /// Reads the manifest of a package, when it has one.
    ///
    /// # Errors
    /// What was expected and found, with the line.
    pub(super) fn of(content: &Content) -> Result<Written, String> {
        let Some(bytes) = content.get(MANIFEST) else {
            return Ok(Written::default());
        };
        let text = std::str::from_utf8(bytes)
            .map_err(|_| format!("{MANIFEST}: expected text in UTF-8, found something else"))?;
        check_format(text)?;
        toml::from_str(text).map_err(|error| format!("{MANIFEST}: {}", explained(text, &error)))
    }

    /// The complete manifest, from what the author wrote, the definitions and the files. `fallback` names a package of
    /// several plugins whose author gave no name.
    ///
    /// # Errors
    /// What is missing, and where the manifest does not fit the files.
    pub(super) fn complete(
        self,
        plugins: Vec<PackagedPlugin>,
        content: &Content,
        fallback: Option<PackageName>,
    ) -> Result<Manifest, String> {
        let name = match (self.name.clone(), &plugins[..]) {
            (Some(name), _) => name,
            (None, [only]) => PackageName::parse(&only.platform_key)?,
            (None, _) => fallback.ok_or_else(|| {
                format!("expected a name, found none (a package of several plugins says `name = \"…\"` in {MANIFEST})")
            })?,
        };
        let version = match (self.version.clone(), plugins.split_first()) {
            (Some(version), _) => version,
            (None, Some((first, rest)))
                if rest.iter().all(|plugin| plugin.version == first.version) =>
            {
                PackageVersion::parse(&first.version)
                    .map_err(|error| format!("the version of {}: {error}", first.name))?
            }
            (None, _) => {
                return Err(format!(
                    "expected a version, found plugins of different ones (say `version = \"…\"` in {MANIFEST})"
                ));
            }
        };
        let manifest = Manifest {
            format: FORMAT,
            name,
            version,
            description: self.description.clone(),
            api: PLUGIN_API,
            plugins,
            files: content.hashes(),
        };
        self.check(&manifest)?;
        Ok(manifest)
    }

    /// Checks that a manifest which somebody derived before still says what is so.
    fn check(&self, manifest: &Manifest) -> Result<(), String> {
        let remedy = format!(
            "get the package again, or, if the change is yours, keep only name and version in {MANIFEST}"
        );
        let Some(files) = &self.files else {
            return Ok(());
        };
        if let Some(difference) = difference(files, &manifest.files) {
            return Err(format!("{difference} ({remedy})"));
        }
        let differs = |a: &PackagedPlugin| !manifest.plugins.contains(a);
        if let Some(plugin) = self.plugins.iter().find(|plugin| differs(plugin)) {
            let at = manifest.plugins.iter().find(|at| at.path == plugin.path);
            return Err(match at.and_then(|at| unlike(plugin, at)) {
                Some((key, found, expected)) => format!(
                    "{MANIFEST}: expected {key} = {expected} for {}, as its definition has it, found {found} ({remedy})",
                    plugin.name
                ),
                None => format!(
                    "{MANIFEST}: expected each plugin as its definition has it, found {} {} at {:?} ({remedy})",
                    plugin.name, plugin.version, plugin.path
                ),
            });
        }
        if self.plugins.len() != manifest.plugins.len() {
            return Err(format!(
                "{MANIFEST}: expected {} plugins, found {} ({remedy})",
                manifest.plugins.len(),
                self.plugins.len()
            ));
        }
        Ok(())
    }
}

/// The first key in which what a manifest says of a plugin is not what its definition says: the key, what is found there and
/// what is expected.
fn unlike(found: &PackagedPlugin, expected: &PackagedPlugin) -> Option<(String, Value, Value)> {
    let entries = |plugin| match serde_json::to_value(plugin) {
        Ok(Value::Object(entries)) => entries,
        _ => serde_json::Map::new(),
    };
    let (found, expected) = (entries(found), entries(expected));
    let of = |entries: &serde_json::Map<String, Value>, key: &str| {
        entries.get(key).cloned().unwrap_or(Value::Null)
    };
    let key = expected
        .keys()
        .chain(found.keys())
        .find(|key| of(&found, key) != of(&expected, key))?;
    Some((key.clone(), of(&found, key), of(&expected, key)))
}

impl Manifest {
    /// The manifest as it is written to an archive and into an installed package.
    pub(super) fn text(&self) -> String {
        let body = toml::to_string_pretty(self)
            .unwrap_or_else(|_| unreachable!("a manifest is plain data"));
        format!(
            "# Written by `patchbay plugin pack` and `install` from the definitions and the files.\n\n{body}"
        )
    }

    /// The hash that pins the package: of its name, its version and each file's path and hash.
    pub(super) fn sha256(&self) -> String {
        pin(&self.name, &self.version, &self.files)
    }

    /// Reads the manifest of an installed package, which must be the one that the lock pins.
    ///
    /// # Errors
    /// What was expected and found.
    pub(super) fn pinned(text: &str, sha256: &str) -> Result<BTreeMap<String, String>, String> {
        let written: Written = toml::from_str(text).map_err(|error| explained(text, &error))?;
        match (written.name, written.version, written.files) {
            (Some(name), Some(version), Some(files)) if pin(&name, &version, &files) == sha256 => {
                Ok(files)
            }
            _ => Err("it is not the one that plugins.lock pins".to_owned()),
        }
    }
}

fn pin(name: &PackageName, version: &PackageVersion, files: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("patchbay package {FORMAT}\n{name}\n{version}\n"));
    for (path, sha256) in files {
        hash.update(format!("{sha256}  {path}\n"));
    }
    hex(&hash.finalize())
}

/// Says of files that were expected and found which one differs first.
pub(super) fn difference(
    expected: &BTreeMap<String, String>,
    found: &BTreeMap<String, String>,
) -> Option<Difference> {
    for (path, sha256) in expected {
        match found.get(path) {
            None => return Some(Difference::Missing(path.clone())),
            Some(other) if other != sha256 => {
                return Some(Difference::Changed {
                    path: path.clone(),
                    expected: sha256.clone(),
                    found: other.clone(),
                });
            }
            Some(_) => {}
        }
    }
    let extra = found.keys().find(|path| !expected.contains_key(*path))?;
    Some(Difference::Extra(extra.clone()))
}

/// How the files of a package differ from what pins them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Difference {
    Missing(String),
    Changed {
        path: String,
        expected: String,
        found: String,
    },
    Extra(String),
}

impl Difference {
    /// The file.
    pub(crate) fn path(&self) -> &str {
        match self {
            Difference::Missing(path)
            | Difference::Extra(path)
            | Difference::Changed { path, .. } => path,
        }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |sha256: &str| sha256.chars().take(12).collect::<String>();
        match self {
            Difference::Missing(path) => write!(f, "expected the file {path}, found none"),
            Difference::Extra(path) => {
                write!(
                    f,
                    "expected only the files of the package, found {path} besides"
                )
            }
            Difference::Changed {
                path,
                expected,
                found,
            } => write!(
                f,
                "expected {path} with the hash {}…, found it changed, with {}…",
                short(expected),
                short(found)
            ),
        }
    }
}

fn check_format(text: &str) -> Result<(), String> {
    match newer_format(text, FORMAT) {
        Some(format) => Err(format!(
            "{MANIFEST}: expected format {FORMAT}, found {format}, which a newer Patchbay wrote (install that, or ask for a \
             package of the older format)"
        )),
        None => Ok(()),
    }
}

/// The format that a TOML text says it has, when it is newer than what this program knows. It is asked first, because a
/// newer format may have keys that are unknown here.
pub(super) fn newer_format(text: &str, known: u32) -> Option<u32> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let read: Format = toml::from_str(text).ok()?;
    (read.format > known).then_some(read.format)
}

/// An error of the TOML reader in one line.
pub(super) fn explained(text: &str, error: &toml::de::Error) -> String {
    let line = error
        .span()
        .map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    match line {
        Some(line) => format!("line {line}: {message}"),
        None => message,
    }
}

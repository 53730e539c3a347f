//! What is in a package: its definitions, loaded in the sandbox, and a trial of it beside all other plugins.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use patchbay_lua::{Files, Sandbox};
use patchbay_plugin::definition::Definition;
use patchbay_plugin::platform::PluginState;
use patchbay_store::Store;

use super::PackageError;
use super::archive::unpack;
use super::content::Content;
use super::manifest::{Manifest, PackagedPlugin, Written};
use super::name::PackageName;
use crate::Registry;
use crate::discovery::{packaged_bundle, scan};
use crate::enabling::ENABLED_BY_DEFAULT;
use crate::settings::{RegistrySettings, Shipped};

/// What it takes to check a package as a server would.
pub struct Workshop {
    /// The settings of the server that is to serve it.
    pub settings: RegistrySettings,
    /// The plugins that the program carries.
    pub shipped: Shipped,
    /// A sandbox with that server's limits.
    pub sandbox: Sandbox,
    /// A store of its own with that server's catalogue, so that nothing is written to the server's.
    pub scratch: Store,
}

/// A package that was read, and what it says it is.
pub(super) struct Candidate {
    pub(super) content: Content,
    pub(super) manifest: Manifest,
}

impl Workshop {
    /// Reads a folder or an archive, and derives its manifest from its definitions.
    ///
    /// # Errors
    /// [`PackageError::Content`] and [`PackageError::Plugins`].
    pub(super) async fn read(&self, source: &Path) -> Result<Candidate, PackageError> {
        let wrong = |reason: String| PackageError::Content {
            source_path: source.to_owned(),
            reason,
        };
        let from = source.to_owned();
        let read = tokio::task::spawn_blocking(move || read_source(&from)).await;
        let content = read
            .map_err(|error| wrong(error.to_string()))?
            .map_err(&wrong)?;
        let written = Written::of(&content).map_err(&wrong)?;
        let plugins = self.definitions(source, &content).await?;
        let fallback = folder_name_of(source);
        let manifest = written
            .complete(plugins, &content, fallback)
            .map_err(&wrong)?;
        let content = content.with_manifest(manifest.text());
        Ok(Candidate { content, manifest })
    }

    /// Loads every plugin of a package, each by itself.
    async fn definitions(
        &self,
        source: &Path,
        content: &Content,
    ) -> Result<Vec<PackagedPlugin>, PackageError> {
        let places = content.plugin_places();
        if places.is_empty() {
            return Err(PackageError::Content {
                source_path: source.to_owned(),
                reason: "expected a plugin: `plugin.lua`, folders with one, or `.lua` files that return one, found none"
                    .to_owned(),
            });
        }
        let shared = self.shared_libs();
        let mut plugins = Vec::new();
        let mut mistakes = Vec::new();
        let label = source.display().to_string();
        for place in places {
            let bundle = packaged_bundle(&label, content, &place, shared.clone());
            // The settings of plugins are the server's matter: a trial looks at them.
            let no_settings: patchbay_lua::SettingsLookup =
                Arc::new(|_, _| Ok(patchbay_plugin::Map::new()));
            match self.sandbox.load(bundle.source, no_settings).await {
                Ok(plugin) => plugins.push(PackagedPlugin::of(plugin.definition(), place)),
                Err(error) => mistakes.extend(error.reports.iter().map(ToString::to_string)),
            }
        }
        match mistakes.is_empty() {
            true => Ok(plugins),
            false => Err(PackageError::Plugins {
                source_path: source.to_owned(),
                mistakes,
            }),
        }
    }

    /// The modules that plugins of any path may require.
    fn shared_libs(&self) -> Arc<Files> {
        let scan = scan(self.shipped, &self.settings.plugin_paths, None, false);
        scan.libs_for_packages()
    }

    /// Serves the package from a folder of packages that holds nothing else, beside the shipped plugins and those of the
    /// plugin paths, and says what is odd but stops nothing.
    ///
    /// # Errors
    /// [`PackageError::Plugins`] when one of its plugins does not serve.
    pub(super) async fn try_out(
        &self,
        source: &Path,
        packages: &Path,
        plugins: &[PackagedPlugin],
    ) -> Result<Vec<String>, PackageError> {
        let mut settings = self.settings.clone();
        settings.packages = packages.to_owned();
        settings.auto_migrate = true;
        let names = || plugins.iter().map(|plugin| plugin.name.clone());
        let selection = &mut settings.selection;
        // Whether it is enabled is another question than whether it works.
        selection
            .disabled
            .retain(|entry| !plugins.iter().any(|plugin| plugin.answers_to(entry)));
        let by_default = || {
            ENABLED_BY_DEFAULT
                .iter()
                .map(|name| (*name).to_owned())
                .collect()
        };
        selection
            .enabled
            .get_or_insert_with(by_default)
            .extend(names());
        // In a box, because what loads everything is large, and everything that waits for it would be as large.
        let load: BoxFuture<'_, Registry> = Box::pin(Registry::load(
            settings,
            self.scratch.clone(),
            self.sandbox.clone(),
            self.shipped,
        ));
        let registry = load.await;
        let generation = registry.current();
        let statuses = registry.statuses().await;
        let mut mistakes = Vec::new();
        let mut warnings = Vec::new();
        let theirs: Vec<_> = statuses
            .plugins
            .iter()
            .filter(|status| status.package.is_some())
            .collect();
        for status in &theirs {
            if let Some(error) = &status.last_error {
                mistakes.extend(error.mistakes.iter().cloned());
            } else if status.state != PluginState::Active {
                mistakes.push(format!("{} is not active", status.source));
            }
            warnings.extend(status.warnings.iter().cloned());
        }
        if theirs.is_empty() {
            mistakes.extend(statuses.problems.iter().cloned());
        }
        for plugin in plugins {
            let other = generation.entries.iter().find(|entry| {
                let definition = entry.active.definition();
                definition.platform.platform_key.to_string() == plugin.platform_key
                    && definition.name.as_str() != plugin.name
            });
            if let Some(other) = other {
                warnings.push(format!(
                    "{} and {} have the platform key {:?}; the first by name has the tile and the link",
                    plugin.name,
                    other.active.name(),
                    plugin.platform_key
                ));
            }
        }
        match mistakes.is_empty() {
            true => Ok(warnings),
            false => Err(PackageError::Plugins {
                source_path: source.to_owned(),
                mistakes,
            }),
        }
    }
}

/// Checks what a package's folder says it is against its definitions, each with its folder or file in it.
///
/// # Errors
/// What was expected and found.
pub(crate) fn check_manifest(
    folder: &Path,
    definitions: &[(Arc<Definition>, String)],
) -> Result<(), String> {
    let content = Content::of_folder(folder)?;
    let written = Written::of(&content)?;
    let plugins = definitions
        .iter()
        .map(|(definition, place)| PackagedPlugin::of(definition, place.clone()))
        .collect();
    written
        .complete(plugins, &content, folder_name_of(folder))
        .map(|_| ())
}

fn read_source(source: &Path) -> Result<Content, String> {
    let data = std::fs::metadata(source).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            "expected a folder or a .tar.gz archive, found nothing there".to_owned()
        }
        _ => error.to_string(),
    })?;
    if data.is_dir() {
        Content::of_folder(source)
    } else if data.is_file() {
        unpack(source)
    } else {
        Err("expected a folder or a .tar.gz archive, found a device or pipe".to_owned())
    }
}

/// The name of a folder, when a package may have it.
pub(super) fn folder_name_of(source: &Path) -> Option<PackageName> {
    let folder = source.canonicalize().ok().filter(|path| path.is_dir())?;
    PackageName::parse(folder.file_name()?.to_str()?).ok()
}

//! What a load checks of plugins, without a server and without a database: for authors, editors and pipelines.
//!
//! A plugin is read, loaded in the sandbox, held against this Patchbay and against its own migrations, and its form is made
//! from a catalogue in memory. What needs stored rows, a history or the other plugins is not looked at.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use patchbay_lua::{CatalogueReader, ConfigurationFilter, Report, Sandbox, SettingsLookup, Stage};
use patchbay_plugin::Map;
use patchbay_plugin::catalogue::{Catalogue, CatalogueFile};
use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::{PlanError, plan};
use patchbay_plugin::name::PluginName;
use patchbay_plugin::template::Template;
use patchbay_plugin::term::{self, Mistake};

use crate::Registry;
use crate::discovery::{ENTRY, Origin, PinnedFiles, Place, ReadError, read_bounded, scan};
use crate::form::{hook_failure, last_error};
use crate::packages::{MANIFEST, check_manifest};
use crate::proofs::wrong_downs;
use crate::reload::{Claims, settings_of};
use crate::settings::{RegistrySettings, Shipped};
use crate::wire::LastError;

/// The file beside a plugin with what it needs of the catalogue.
const CATALOGUE: &str = "catalogue.toml";
/// The largest catalogue beside a plugin, in bytes.
const MAX_CATALOGUE: u64 = 16 * 1024 * 1024;
/// How many folders above a file are searched for the plugin that it is part of.
const MAX_ABOVE: usize = 4;

/// What it takes to check plugins.
pub struct Checker {
    /// The settings of the server that is to serve them: shared modules come from its plugin paths.
    pub settings: RegistrySettings,
    /// The plugins that the program carries, for their shared modules.
    pub shipped: Shipped,
    /// A sandbox with that server's limits.
    pub sandbox: Sandbox,
    /// The catalogue from which forms are made.
    pub catalogue: CatalogueFile,
}

/// What came of a plugin.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Where it lies.
    pub source: String,
    /// What it is, when it loads.
    pub definition: Option<Arc<Definition>>,
    /// What is wrong with it, all mistakes at once.
    pub error: Option<LastError>,
    /// What is odd but stops nothing.
    pub warnings: Vec<Report>,
    /// Whether the catalogue lacks what its form needs, so that the form was not looked at.
    pub not_configured: bool,
}

impl Checked {
    fn failed(source: String, error: LastError) -> Checked {
        Checked {
            source,
            definition: None,
            error: Some(error),
            warnings: Vec::new(),
            not_configured: false,
        }
    }
}

/// The plugin that a path means: a file of a plugin's folder means the folder, a spec the plugin that it tests.
pub fn plugin_of(path: &Path) -> PathBuf {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return path.to_owned();
    };
    if !path.is_file() {
        return path.to_owned();
    }
    let above = path.ancestors().skip(1).take(MAX_ABOVE);
    let parent = |folder: &Path| match folder.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => folder.to_owned(),
    };
    if let Some(folder) = above
        .map(parent)
        .find(|folder| folder.join(ENTRY).is_file())
    {
        return folder;
    }
    match name.strip_suffix("_spec.lua") {
        Some(stem) => path.with_file_name(format!("{stem}.lua")),
        None => path.to_owned(),
    }
}

impl Checker {
    /// Checks the plugins at a path: a plugin's file, its folder, a file of that, a package's folder, or a folder of
    /// plugins.
    ///
    /// # Errors
    /// A path that is not there or holds no plugin.
    pub async fn check(&self, path: &Path) -> Result<Vec<Checked>, String> {
        let path = plugin_of(path);
        let refused = |reason: &str| format!("{}: {reason}", path.display());
        if !path.exists() {
            return Err(refused(
                "expected a plugin's file or folder, found nothing there",
            ));
        }
        let mut roots = self.settings.plugin_paths.clone();
        roots.push(path.clone());
        let root = roots.len();
        let shipped = self.shipped;
        let scan = tokio::task::spawn_blocking(move || scan(shipped, &roots, None, true))
            .await
            .map_err(|error| refused(&error.to_string()))?;
        if let Some(reason) = scan.missing.get(&root) {
            return Err(refused(reason));
        }
        let mut found = Vec::new();
        let mut claims = Claims::default();
        for place in scan.places.iter().filter(|place| place.root == root) {
            let libs = scan.libs.get(&root).cloned().unwrap_or_default();
            let mut pinned = PinnedFiles::default();
            let checked = match place.read(shipped, libs, &mut pinned) {
                Err(ReadError::Vanished) => continue,
                Err(ReadError::Failed(reason) | ReadError::Changed { reason, .. }) => {
                    let message = format!("{}: {reason}", place.label());
                    Checked::failed(place.label(), LastError::plain("read", message, None))
                }
                Ok(bundle) => self.check_one(place, &path, bundle.source).await,
            };
            found.push(claimed(checked, &mut claims));
        }
        if found.is_empty() {
            return Err(refused(
                "expected a plugin, `plugin.lua` or a `.lua` file that returns one, found none",
            ));
        }
        found.extend(self.check_package(&path, &scan.places, &found));
        Ok(found)
    }

    async fn check_one(&self, place: &Place, root: &Path, source: patchbay_lua::Source) -> Checked {
        let values = self.settings.plugin_settings.clone();
        let lookup: SettingsLookup =
            Arc::new(move |name, fields| settings_of(&values, name, fields));
        let label = place.label();
        let plugin = match self.sandbox.load(source, lookup).await {
            Ok(plugin) => plugin,
            Err(error) => {
                let version = error.version.as_deref();
                let error = last_error(&error.reports, "load", "it cannot be loaded", version);
                return Checked::failed(label, error);
            }
        };
        let definition = plugin.definition().clone();
        let mut checked = Checked {
            source: label,
            definition: Some(definition.clone()),
            error: None,
            warnings: Vec::new(),
            not_configured: false,
        };
        let version = Some(definition.version.as_str());
        if let Some(misfit) = definition.incompatibility() {
            let report = plugin.misfit(&misfit).await;
            checked.error = Some(last_error(&[report], misfit.key, &misfit.message, version));
            return checked;
        }
        if let Err(reason) = plan(&definition, &[]) {
            let error = LastError::plain("plan", reason.to_string(), version.map(str::to_owned));
            checked.error = Some(LastError {
                file: Some(blamed(&reason, place)),
                ..error
            });
            return checked;
        }
        let tried = definition.clone();
        let wrong = tokio::task::spawn_blocking(move || wrong_downs(&tried)).await;
        let wrong = wrong.unwrap_or_default();
        if let Some(first) = wrong.first() {
            let error = LastError::plain("migration", first.clone(), version.map(str::to_owned));
            checked.error = Some(LastError {
                file: Some(place.entry_file()),
                mistakes: wrong,
                ..error
            });
            return checked;
        }
        let catalogue = match self.catalogue_for(place, root) {
            Ok(catalogue) => Arc::new(catalogue),
            Err(error) => {
                checked.error = Some(*error);
                return checked;
            }
        };
        let reader = Fixed(catalogue.clone());
        match plugin.ui_metadata(Arc::new(reader)).await {
            Ok(form) => checked.not_configured = form.not_configured,
            Err(error) => {
                checked.error = Some(hook_failure(&error, version));
                return checked;
            }
        }
        checked.warnings = oddities(&plugin, &catalogue).await;
        checked
    }

    /// The catalogue, with what lies beside the plugin or its package in `catalogue.toml`.
    fn catalogue_for(&self, place: &Place, root: &Path) -> Result<Catalogue, Box<LastError>> {
        let mut files = vec![self.catalogue.clone()];
        let own = match &place.origin {
            Origin::Folder(folder) => Some(folder.join(CATALOGUE)),
            _ => None,
        };
        let shared = Some(root.join(CATALOGUE)).filter(|path| own.as_ref() != Some(path));
        for path in shared.iter().chain(&own).filter(|path| path.is_file()) {
            let file = read_bounded(path, MAX_CATALOGUE)
                .map_err(|error| error.to_string())
                .and_then(|text| toml::from_str(&text).map_err(|error| error.to_string()));
            files.push(file.map_err(|reason| {
                let message = format!("expected a catalogue that can be applied, found {reason}");
                Box::new(LastError {
                    file: Some(path.display().to_string()),
                    ..LastError::plain("catalogue", message, None)
                })
            })?);
        }
        Ok(CatalogueFile::catalogue(&files))
    }

    /// What is wrong with a package's folder besides its plugins.
    fn check_package(&self, path: &Path, places: &[Place], found: &[Checked]) -> Option<Checked> {
        let manifest = path.join(MANIFEST);
        if !manifest.is_file() {
            return None;
        }
        let mut definitions = Vec::new();
        for checked in found {
            let place = places
                .iter()
                .find(|place| place.label() == checked.source)?;
            // Examples in a package are none of its plugins.
            if place.example {
                continue;
            }
            let inside = Path::new(&checked.source).strip_prefix(path).ok()?;
            let definition = checked.definition.clone()?;
            definitions.push((definition, inside.to_str()?.to_owned()));
        }
        let reason = check_manifest(path, &definitions).err()?;
        let error = LastError {
            file: Some(manifest.display().to_string()),
            ..LastError::plain("package", reason, None)
        };
        Some(Checked::failed(path.display().to_string(), error))
    }
}

/// The file that a plan which cannot be made is about: that of the migration, where it has one.
fn blamed(reason: &PlanError, place: &Place) -> String {
    let (PlanError::Impossible { id, .. }, Origin::Folder(folder)) = (reason, &place.origin) else {
        return place.entry_file();
    };
    let file = folder.join(format!("migrations/{id}.lua"));
    match file.is_file() {
        true => file.display().to_string(),
        false => place.entry_file(),
    }
}

/// Refuses a plugin that claims what one before it has.
fn claimed(mut checked: Checked, claims: &mut Claims) -> Checked {
    if let (Some(definition), None) = (&checked.definition, &checked.error) {
        match claims.check(definition) {
            Ok(()) => claims.take(definition, &checked.source),
            Err(failure) => {
                checked.error = Some(LastError {
                    file: Some(checked.source.clone()),
                    ..*failure.error
                });
            }
        }
    }
    checked
}

/// What is odd about a plugin that works: a form that does not say what it wants, and templates that do not fit.
async fn oddities(plugin: &patchbay_lua::Plugin, catalogue: &Arc<Catalogue>) -> Vec<Report> {
    let mut found = plugin.unexplained(Arc::new(Fixed(catalogue.clone()))).await;
    for mistake in template_mistakes(plugin.definition(), catalogue) {
        found.push(plugin.report(Stage::Definition, mistake).await);
    }
    found
}

/// Where the templates of a plugin's service and the plugin do not fit. What an environment fills in is not known here, so
/// only the access path's template is held to the fields.
fn template_mistakes(definition: &Definition, catalogue: &Catalogue) -> Vec<Mistake> {
    let Some(service) = catalogue.service_of(&definition.platform.platform_key) else {
        return Vec::new();
    };
    let path = Template::parse(&service.result_string_template);
    let info = Template::parse(&service.technical_info_template);
    let is_field = |name: &str| {
        definition
            .fields
            .iter()
            .any(|field| field.name.as_str() == name)
    };
    let is_left = |name: &str| definition.placeholders.iter().any(|left| left == name);
    let mistake = |key: &str, expected: String, found: String, help: &str| Mistake {
        path: term::Path::default().key(key),
        expected,
        found,
        help: Some(help.to_owned()),
        at_key: true,
    };
    let unknown = path
        .placeholders()
        .filter(|name| !(is_field(name) || definition.hooks.render && is_left(name)))
        .map(|name| {
            mistake(
                "fields",
                format!(
                    "a field for each name in \"{}\", the template of the service {}",
                    service.result_string_template, service.name
                ),
                format!("none for {{{name}}}"),
                "add the field, let `render` fill it and name it in `placeholders`, or mend the catalogue",
            )
        });
    let unused = definition
        .placeholders
        .iter()
        .filter(|left| {
            !path
                .placeholders()
                .chain(info.placeholders())
                .any(|name| name == left.as_str())
        })
        .map(|left| {
            mistake(
                "placeholders",
                format!(
                    "names that the templates of the service {} have",
                    service.name
                ),
                format!("\"{left}\", which neither has"),
                "take it out of `placeholders`, or mend the catalogue",
            )
        });
    unknown.chain(unused).collect()
}

/// A catalogue that stays as it is, and no rows.
pub(crate) struct Fixed(pub(crate) Arc<Catalogue>);

impl CatalogueReader for Fixed {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.0.clone()
    }

    fn configurations(
        &self,
        _plugin: PluginName,
        _filter: ConfigurationFilter,
    ) -> BoxFuture<'static, Result<Vec<Map>, String>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

impl Registry {
    /// What is odd about the plugins that serve, by where they lie. It calls their forms.
    pub async fn oddities(&self) -> Vec<(String, Vec<Report>)> {
        let generation = self.current();
        let catalogue = self.store().catalogue();
        let mut found = Vec::new();
        for entry in &generation.entries {
            let Some(finding) = generation.findings.get(entry.finding) else {
                continue;
            };
            let reports = oddities(&entry.active.plugin, &catalogue).await;
            found.push((finding.place.label(), reports));
        }
        found
    }
}

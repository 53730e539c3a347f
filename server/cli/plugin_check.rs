//! `patchbay plugin check`: whether plugins are right.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use annotate_snippets::Renderer;
use anyhow::anyhow;
use clap::Args;
use patchbay_lua::Sandbox;
use patchbay_plugin::platform::PluginState;
use patchbay_registry::check::{Checked, Checker};
use patchbay_registry::wire::{PluginStatus, PluginStatuses};
use serde::Serialize;

use super::diagnostics::{Diagnostic, Severity, renderer};
use super::plugin::load_aside;
use super::{print, say, say_json};
use crate::embedded;
use crate::settings::Settings;

/// The version of the document that `--json` prints. Keys are added to it; one that goes, or means something else, makes a
/// new version.
const FORMAT: u32 = 1;

/// Say whether plugins are right, and what is wrong, with the line and what to do
///
/// With paths, each plugin there is checked by itself, without a server and without a database. Without any, the configured
/// set is loaded as a server would load it.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// A plugin's file or folder, a file of that, the folder of a package, or the name of a configured plugin
    #[arg(value_name = "PATH|NAME")]
    what: Vec<String>,
    /// Print one JSON document, for editors and pipelines
    #[arg(long)]
    json: bool,
    /// Fail on warnings too
    #[arg(long)]
    deny_warnings: bool,
}

/// A plugin that was looked at.
#[derive(Debug, Serialize)]
struct Looked {
    plugin: Option<String>,
    version: Option<String>,
    source: String,
    good: bool,
    #[serde(skip)]
    migration: Option<String>,
    diagnostics: Vec<Diagnostic>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document<'a> {
    format: u32,
    good: bool,
    errors: usize,
    warnings: usize,
    plugins: Vec<Shown<'a>>,
    diagnostics: Vec<&'a Diagnostic>,
}

/// A plugin in that document.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    plugin: Option<&'a str>,
    version: Option<&'a str>,
    source: &'a str,
    good: bool,
}

impl Check {
    pub(super) async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let mut looked = Vec::new();
        let mut problems = Vec::new();
        let (paths, names): (Vec<&String>, Vec<&String>) =
            self.what.iter().partition(|what| is_path(what));
        for path in &paths {
            looked.extend(checked(settings, Path::new(path)).await?);
        }
        if !names.is_empty() || paths.is_empty() {
            let (registry, _folder) = load_aside(settings).await?;
            let statuses = registry.statuses().await;
            let oddities = registry.oddities().await;
            let wrong_downs = registry.wrong_downs().await?;
            let configured = |status: &PluginStatus| {
                let of_it = oddities.iter().filter(|(place, _)| *place == status.source);
                let warnings = of_it
                    .flat_map(|(_, reports)| reports)
                    .map(|report| Diagnostic::of_report(Severity::Warning, report));
                let wrong = wrong_downs.get(&status.source).into_iter().flatten();
                let wrong = wrong.map(|text| Diagnostic::plain(Severity::Error, "migration", text));
                of_status(status, wrong.chain(warnings).collect())
            };
            if names.is_empty() {
                let shown = statuses.plugins.iter().filter(|status| {
                    status.state != PluginState::Disabled
                        || status.last_error.is_some()
                        || wrong_downs.contains_key(&status.source)
                });
                looked.extend(shown.map(configured));
                let problem = |text: &String| Diagnostic::plain(Severity::Error, "settings", text);
                problems.extend(statuses.problems.iter().map(problem));
            }
            for name in names {
                let named = named(&statuses, &registry, name)?;
                looked.extend(named.into_iter().map(configured));
            }
        }
        let count = |severity| {
            let all = looked.iter().flat_map(|looked| &looked.diagnostics);
            all.chain(&problems)
                .filter(|diagnostic| diagnostic.severity == severity)
                .count()
        };
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        let good = errors == 0 && !(self.deny_warnings && warnings > 0);
        if self.json {
            let document = Document {
                format: FORMAT,
                good,
                errors,
                warnings,
                plugins: looked.iter().map(Looked::shown).collect(),
                diagnostics: looked
                    .iter()
                    .flat_map(|looked| &looked.diagnostics)
                    .chain(&problems)
                    .collect(),
            };
            say_json(&document)?;
        } else {
            let renderer = renderer();
            for looked in &looked {
                looked.print(&renderer);
            }
            for problem in &problems {
                say(format_args!("FAILED  {}", problem.message));
                print(&format!("{}\n", problem.rendered(&renderer)));
            }
            let failed = looked.iter().filter(|looked| !looked.good).count() + problems.len();
            let registered = looked
                .iter()
                .filter(|looked| looked.version.is_some())
                .count();
            let word = match paths.is_empty() {
                true => "registered",
                false => "checked",
            };
            let warned = match warnings {
                0 => String::new(),
                1 => ", 1 warning".to_owned(),
                many => format!(", {many} warnings"),
            };
            let counted = match paths.is_empty() {
                true => registered,
                false => looked.len(),
            };
            let plugins = match (counted, paths.is_empty()) {
                (1, false) => "plugin",
                _ => "plugins",
            };
            say(format_args!(
                "{counted} {plugins} {word}, {failed} failed{warned}"
            ));
        }
        Ok(match good {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

/// Whether a word of the command line is a path rather than a plugin's name.
fn is_path(what: &str) -> bool {
    what.contains(['/', '\\', '.']) || Path::new(what).exists()
}

/// The plugins at a path, each by itself.
async fn checked(settings: &Settings, path: &Path) -> anyhow::Result<Vec<Looked>> {
    let checker = checker(settings)?;
    let found = checker
        .check(path)
        .await
        .map_err(|reason| anyhow!("{reason}"))?;
    let libraries: Vec<PathBuf> = settings.plugin_paths.clone();
    let mut looked: Vec<Looked> = found.iter().map(of_checked).collect();
    for diagnostic in looked.iter_mut().flat_map(|looked| &mut looked.diagnostics) {
        place_module(diagnostic, path, &libraries);
    }
    Ok(looked)
}

/// What checks plugins by themselves, as a server with these settings would.
pub(super) fn checker(settings: &Settings) -> anyhow::Result<Checker> {
    Ok(Checker {
        settings: settings.registry(),
        shipped: embedded::plugins(),
        sandbox: Sandbox::new(settings.limits()),
        catalogue: embedded::catalogue(settings.catalogue.as_deref())?,
    })
}

/// Names the file of a shared module by where it lies, for editors, where that can be told.
fn place_module(diagnostic: &mut Diagnostic, path: &Path, libraries: &[PathBuf]) {
    let module = diagnostic
        .file
        .as_ref()
        .and_then(|file| file.strip_prefix("@lib/"));
    let Some(module) = module else { return };
    let found = std::iter::once(path)
        .chain(libraries.iter().rev().map(PathBuf::as_path))
        .map(|root| root.join("lib").join(module))
        .find(|file| file.is_file());
    if let Some(file) = found {
        diagnostic.file = Some(file.display().to_string());
    }
}

/// What a check found, as diagnostics.
pub(super) fn diagnostics_of(checked: &Checked) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = checked
        .error
        .iter()
        .flat_map(Diagnostic::of_error)
        .collect();
    let warnings = checked.warnings.iter();
    found.extend(warnings.map(|report| Diagnostic::of_report(Severity::Warning, report)));
    if let (Some(definition), true) = (&checked.definition, checked.not_configured) {
        let key = &definition.platform.platform_key;
        found.push(Diagnostic::plain(
            Severity::Note,
            "hook",
            &format!(
                "the form was not looked at, because the catalogue has no service \"{key}\" with options (put them into \
                 `catalogue.toml` beside the plugin)"
            ),
        ));
    }
    let plugin = checked
        .definition
        .as_ref()
        .map(|definition| definition.name.as_str());
    let about = |diagnostic: Diagnostic| diagnostic.about(plugin, &checked.source);
    found.into_iter().map(about).collect()
}

fn of_checked(checked: &Checked) -> Looked {
    let definition = checked.definition.as_ref();
    Looked {
        plugin: definition.map(|definition| definition.name.to_string()),
        version: definition.map(|definition| definition.version.clone()),
        source: checked.source.clone(),
        good: checked.error.is_none(),
        migration: definition
            .and_then(|definition| definition.latest_migration_path())
            .map(str::to_owned),
        diagnostics: diagnostics_of(checked),
    }
}

/// A configured plugin, with what was found about it besides.
fn of_status(status: &PluginStatus, besides: Vec<Diagnostic>) -> Looked {
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    diagnostics.extend(status.last_error.iter().flat_map(Diagnostic::of_error));
    let warning = |text: &String| Diagnostic::plain(Severity::Warning, "registry", text);
    diagnostics.extend(status.warnings.iter().map(warning));
    diagnostics.extend(besides);
    let name = status.plugin.as_deref();
    Looked {
        plugin: status.plugin.clone(),
        version: status.version.clone(),
        source: status.source.clone(),
        good: diagnostics
            .iter()
            .all(|one| one.severity != Severity::Error),
        migration: status.migration_file_path.clone(),
        diagnostics: diagnostics
            .into_iter()
            .map(|diagnostic| diagnostic.about(name, &status.source))
            .collect(),
    }
}

/// The places of a configured plugin.
fn named<'a>(
    statuses: &'a PluginStatuses,
    registry: &patchbay_registry::Registry,
    name: &str,
) -> anyhow::Result<Vec<&'a PluginStatus>> {
    let known: Vec<&str> = statuses
        .plugins
        .iter()
        .filter_map(|it| it.plugin.as_deref())
        .collect();
    let meant = registry.name_of(name).unwrap_or_else(|| name.to_owned());
    let found = statuses
        .plugins
        .iter()
        .filter(|it| it.plugin.as_deref() == Some(&meant));
    let found: Vec<&PluginStatus> = found.collect();
    if found.is_empty() {
        let hint = patchbay_plugin::name::nearest(name, known.iter().copied())
            .map(|near| format!(" (did you mean {near:?}?)"))
            .unwrap_or_default();
        return Err(anyhow!(
            "expected a path, or the name of a plugin in the plugin paths, found {name:?}{hint}"
        ));
    }
    Ok(found)
}

impl Looked {
    fn shown(&self) -> Shown<'_> {
        Shown {
            plugin: self.plugin.as_deref(),
            version: self.version.as_deref(),
            source: &self.source,
            good: self.good,
        }
    }

    fn print(&self, renderer: &Renderer) {
        say(format_args!(
            "{:<7} {}  version {}  from {}  latest migration {}",
            if self.good { "found" } else { "FAILED" },
            self.plugin.as_deref().unwrap_or("(unknown)"),
            self.version.as_deref().unwrap_or("-"),
            self.source,
            self.migration.as_deref().unwrap_or("-")
        ));
        for diagnostic in &self.diagnostics {
            print(&format!("{}\n", diagnostic.rendered(renderer)));
        }
    }
}

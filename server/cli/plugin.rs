//! `patchbay plugin …`

use std::process::ExitCode;

use clap::Subcommand;
use patchbay_lua::Sandbox;
use patchbay_plugin::platform::PluginState;
use patchbay_registry::Registry;
use patchbay_store::{DatabaseUrl, Store, StoreSettings};

use super::leftovers::Leftovers;
use super::package::Package;
use super::{Common, block_on, plugin_migrate, plugin_new, plugin_test, plugin_types, say};
use crate::embedded;
use crate::settings::Settings;

/// Work with plugins and the packages that they ship in
#[derive(Debug, Subcommand)]
pub(super) enum Plugin {
    /// Load the configured plugins as a server would, and say how each stands
    Check,
    /// Run the specs (`*_spec.lua`) beside plugins
    Test(plugin_test::Test),
    /// Print types for editors: what plugins and their specs can reach, as a definition file of luau-lsp
    Types(plugin_types::Types),
    /// Write a plugin to start from: its definition, its tests and its icon
    New(plugin_new::New),
    /// Print a plugin's reference page, in Markdown
    Docs {
        /// The plugin's name or an alias
        name: String,
    },
    /// Migrations
    #[command(flatten)]
    Steps(plugin_migrate::Steps),
    /// Packages
    #[command(flatten)]
    Package(Package),
    /// What plugins stored
    #[command(flatten)]
    Leftovers(Leftovers),
}

impl Plugin {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        // Types are the program's own, whatever is configured.
        if let Plugin::Types(types) = self {
            return types.run();
        }
        let settings = common.settings(None, false)?;
        block_on(async {
            match self {
                Plugin::Types(types) => types.run(),
                Plugin::Check => check(&settings).await,
                Plugin::Test(test) => test.run(&settings).await,
                Plugin::New(new) => new.run(&settings),
                Plugin::Docs { name } => docs(&settings, &name).await,
                Plugin::Steps(verb) => verb.run(&settings).await,
                Plugin::Package(verb) => verb.run(&settings).await,
                Plugin::Leftovers(verb) => verb.run(&settings).await,
            }
        })
    }
}

/// Loads the plugins over a database of its own, so that nothing is written to the server's.
pub(super) async fn load_aside(
    settings: &Settings,
) -> anyhow::Result<(Registry, tempfile::TempDir)> {
    let (store, folder) = scratch(settings).await?;
    let sandbox = Sandbox::new(settings.limits());
    let registry = Registry::load(settings.registry(), store, sandbox, embedded::plugins()).await;
    Ok((registry, folder))
}

/// A database of its own, with the catalogue that a server would begin with.
pub(super) async fn scratch(settings: &Settings) -> anyhow::Result<(Store, tempfile::TempDir)> {
    let folder = tempfile::tempdir()?;
    let url = DatabaseUrl::Sqlite(folder.path().join("check.db"));
    let store = Store::open(StoreSettings::new(url)).await?;
    store
        .apply_catalogue(&embedded::catalogue(settings.catalogue.as_deref())?)
        .await?;
    Ok((store, folder))
}

async fn check(settings: &Settings) -> anyhow::Result<ExitCode> {
    let (registry, _folder) = load_aside(settings).await?;
    let statuses = registry.statuses().await;
    let wrong_downs = registry.wrong_downs().await?;
    let mut failed = statuses.problems.len();
    let mut registered = 0;
    for status in &statuses.plugins {
        let name = status.plugin.as_deref().unwrap_or("(unknown)");
        let wrong = wrong_downs.get(&status.source);
        let bad = status.last_error.is_some() || wrong.is_some();
        failed += usize::from(bad);
        if status.state == PluginState::Disabled && !bad {
            continue;
        }
        let mark = if bad { "FAILED" } else { "found" };
        let version = status.version.as_deref().unwrap_or("-");
        registered += usize::from(status.version.is_some());
        say(format_args!(
            "{mark:<7} {name}  version {version}  from {}  latest migration {}",
            status.source,
            status.migration_file_path.as_deref().unwrap_or("-")
        ));
        for mistake in status.last_error.iter().flat_map(|error| &error.mistakes) {
            say(format_args!("        {mistake}"));
        }
        for mistake in wrong.into_iter().flatten() {
            say(format_args!("        {mistake}"));
        }
        for warning in &status.warnings {
            say(format_args!("        warning: {warning}"));
        }
    }
    for problem in &statuses.problems {
        say(format_args!("FAILED  {problem}"));
    }
    say(format_args!(
        "{registered} plugins registered, {failed} failed"
    ));
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn docs(settings: &Settings, name: &str) -> anyhow::Result<ExitCode> {
    let (registry, _folder) = load_aside(settings).await?;
    let page = registry
        .reference(name)
        .map_err(|error| anyhow::anyhow!("{error}; `patchbay plugin check` lists the plugins"))?;
    say(format_args!("{}", page.trim_end()));
    Ok(ExitCode::SUCCESS)
}

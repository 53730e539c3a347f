//! `patchbay plugin …`

use std::process::ExitCode;

use clap::Subcommand;
use patchbay_lua::Sandbox;
use patchbay_registry::Registry;
use patchbay_store::{DatabaseUrl, Store, StoreSettings};

use super::leftovers::Leftovers;
use super::package::Package;
use super::{
    Common, block_on, plugin_check, plugin_dev, plugin_migrate, plugin_new, plugin_test,
    plugin_types, say_text,
};
use crate::embedded;
use crate::settings::Settings;

/// Work with plugins and the packages that they ship in
#[derive(Debug, Subcommand)]
pub(super) enum Plugin {
    /// Check plugins
    Check(plugin_check::Check),
    /// Serve one plugin while you write it: live, with everything that is wrong shown
    Dev(plugin_dev::Dev),
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
        if let Plugin::Dev(dev) = self {
            let settings = dev.settings(common)?;
            return block_on(dev.run(settings));
        }
        let settings = common.settings(None, false)?;
        block_on(async {
            match self {
                Plugin::Dev(dev) => dev.run(settings).await,
                Plugin::Types(types) => types.run(),
                Plugin::Check(check) => check.run(&settings).await,
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

async fn docs(settings: &Settings, name: &str) -> anyhow::Result<ExitCode> {
    let (registry, _folder) = load_aside(settings).await?;
    let page = registry
        .reference(name)
        .map_err(|error| anyhow::anyhow!("{error}; `patchbay plugin check` lists the plugins"))?;
    say_text(page.trim_end());
    Ok(ExitCode::SUCCESS)
}

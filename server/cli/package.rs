//! `patchbay plugin install …` and its like: packages come and go.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use patchbay_lua::Sandbox;
use patchbay_registry::diagnosis::PluginOff;
use patchbay_registry::packages::{
    Change, InstalledPackage, Options, PackagedPlugin, Packages, Workshop,
};
use patchbay_registry::wire::PluginStatus;
use serde_json::json;

use super::plugin::{load_aside, scratch};
use super::{say, say_json};
use crate::embedded;
use crate::settings::Settings;

/// The verbs that are about packages.
#[derive(Debug, Subcommand)]
pub(super) enum Package {
    /// Install a package from a folder or a .tar.gz archive, once it has passed every check
    Install(Install),
    /// Take a package out; its tables and their rows stay
    Remove {
        /// The package, or the plugin that is all of it
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// List the installed packages
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Show all about an installed package, and why a plugin of it is not active
    Info {
        /// The package, or a plugin of it
        name: String,
        /// Show its files with their hashes
        #[arg(long)]
        files: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Write the archive of a package's folder, the same bytes whenever the files are the same
    Pack {
        /// The folder
        folder: PathBuf,
        /// The archive; by default NAME-VERSION.tar.gz in the working folder
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Say it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare installed packages with what was installed
    Verify {
        /// The package, or a plugin of it; all when left out
        name: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Turn an installed package on, or one plugin of it
    Enable {
        /// The package, or a plugin of it
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Turn an installed package off, or one plugin of it; nothing is removed
    Disable {
        /// The package, or a plugin of it
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Go back to the version of a package that was installed before
    ///
    /// Before, it is tried beside all other plugins on a database of its own. A running server then tries it on the rows that
    /// are stored, as it does any version: where it would refuse some that the newer one accepts, the newer one goes on, and
    /// the server says why.
    Rollback {
        /// The package, or the plugin that is all of it
        name: String,
        #[command(flatten)]
        output: Output,
    },
}

/// How it is said.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Output {
    /// Say it as JSON
    #[arg(long)]
    json: bool,
}

/// What is installed, and how.
#[derive(Debug, Args)]
pub(super) struct Install {
    /// The package: a folder, or an archive that `patchbay plugin pack` wrote
    source: PathBuf,
    /// Load the folder from where it lies, for development: changes count at once, and nothing pins it
    #[arg(long)]
    link: bool,
    /// Also over a newer version, or over other content of the same version
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    output: Output,
}

impl Package {
    pub(super) async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let packages = Packages::at(settings.packages.clone());
        match self {
            Package::Install(install) => run_install(install, &packages, settings).await?,
            Package::Remove { name, output } => {
                show_removal(&packages.remove(&name).await?, output)?;
            }
            Package::List { output } => list(&packages, output)?,
            Package::Info {
                name,
                files,
                output,
            } => info(&name, files, output, &packages, settings).await?,
            Package::Pack {
                folder,
                output,
                json,
            } => pack(folder, output, json, settings).await?,
            Package::Verify { name, output } => {
                return verify(name.as_deref(), output, &packages);
            }
            Package::Enable { name, output } => {
                show_switch(&packages.enable(&name, true).await?, true, output)?;
            }
            Package::Disable { name, output } => {
                show_switch(&packages.enable(&name, false).await?, false, output)?;
            }
            Package::Rollback { name, output } => {
                let (workshop, _folder) = workshop(settings).await?;
                show_rollback(&packages.rollback(&name, &workshop).await?, output)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What it takes to check a package as a server with these settings would, over a database of its own.
async fn workshop(settings: &Settings) -> anyhow::Result<(Workshop, tempfile::TempDir)> {
    let (store, folder) = scratch(settings).await?;
    let workshop = Workshop {
        settings: settings.registry(),
        shipped: embedded::plugins(),
        sandbox: Sandbox::new(settings.limits()),
        scratch: store,
    };
    Ok((workshop, folder))
}

async fn run_install(
    install: Install,
    packages: &Packages,
    settings: &Settings,
) -> anyhow::Result<()> {
    let (workshop, _folder) = workshop(settings).await?;
    let options = Options {
        link: install.link,
        force: install.force,
    };
    let installed = packages
        .install(&install.source, options, &workshop, say_waiting)
        .await?;
    if install.output.json {
        return say_json(&json!({
            "name": installed.name,
            "version": installed.version,
            "before": installed.before,
            "location": installed.location,
            "editable": install.link,
            "unchanged": installed.unchanged,
            "plugins": installed.plugins,
            "warnings": installed.warnings,
        }));
    }
    for warning in &installed.warnings {
        say(format_args!("warning: {warning}"));
    }
    let (name, version) = (&installed.name, &installed.version);
    let plugins = names(&installed.plugins);
    let what = match (&installed.before, installed.unchanged, install.link) {
        (_, true, _) => "was installed already".to_owned(),
        (_, _, true) => format!("linked: {plugins}"),
        (Some(before), ..) if before != version => {
            format!("installed in place of {before}: {plugins}")
        }
        _ => format!("installed: {plugins}"),
    };
    say(format_args!("{name} {version} {what}"));
    say(format_args!("it lies in {}", installed.location.display()));
    Ok(())
}

#[expect(
    clippy::print_stderr,
    reason = "the command line speaks to the terminal"
)]
fn say_waiting() {
    eprintln!("waiting for another `patchbay plugin` that is changing the packages");
}

fn show_removal(change: &Change, output: Output) -> anyhow::Result<()> {
    let tables: Vec<&str> = change
        .plugins
        .iter()
        .filter_map(|plugin| plugin.table.as_deref())
        .collect();
    let commands = |verb: &str, rest: &str| -> Vec<String> {
        let with_table = change
            .plugins
            .iter()
            .filter(|plugin| plugin.table.is_some());
        with_table
            .map(|plugin| format!("patchbay plugin {verb} {}{rest}", plugin.name))
            .collect()
    };
    if output.json {
        return say_json(&json!({
            "name": change.name,
            "version": change.version,
            "plugins": change.plugins,
            "warnings": change.warnings,
            "tables_kept": tables,
            "export": commands("export", " -o FILE"),
            "drop": commands("drop", " --yes"),
        }));
    }
    say(format_args!(
        "{} {} removed: {}",
        change.name,
        change.version,
        names(&change.plugins)
    ));
    for warning in &change.warnings {
        say(format_args!("warning: {warning}"));
    }
    if !tables.is_empty() {
        say(format_args!(
            "kept, with their rows: {} (installing the package again finds them as they are)",
            tables.join(", ")
        ));
        for plugin in change
            .plugins
            .iter()
            .filter(|plugin| plugin.table.is_some())
        {
            say(format_args!(
                "to write them to a file: patchbay plugin export {} -o FILE",
                plugin.name
            ));
            say(format_args!(
                "to delete them for good: patchbay plugin drop {} --yes",
                plugin.name
            ));
        }
    }
    Ok(())
}

fn show_switch(change: &Change, on: bool, output: Output) -> anyhow::Result<()> {
    if output.json {
        return say_json(&json!({
            "name": change.name,
            "version": change.version,
            "plugins": change.plugins,
            "enabled": on,
            "unchanged": change.unchanged,
        }));
    }
    let word = match (on, change.unchanged) {
        (true, false) => "enabled",
        (false, false) => "disabled",
        (true, true) => "was enabled already",
        (false, true) => "was disabled already",
    };
    let names = names(&change.plugins);
    say(format_args!(
        "{} {} {word}: {names}",
        change.name, change.version
    ));
    Ok(())
}

fn show_rollback(change: &Change, output: Output) -> anyhow::Result<()> {
    if output.json {
        return say_json(&json!({
            "name": change.name,
            "before": change.version,
            "version": change.now,
            "plugins": change.plugins,
        }));
    }
    if let Some(now) = &change.now {
        say(format_args!(
            "{} rolled back from {} to {now}: {}",
            change.name,
            change.version,
            names(&change.plugins)
        ));
    }
    Ok(())
}

fn list(packages: &Packages, output: Output) -> anyhow::Result<()> {
    let installed = packages.list()?;
    let strays = packages.strays();
    if output.json {
        return say_json(&json!({ "packages": installed, "not_listed": strays }));
    }
    for package in &installed {
        let mut notes = Vec::new();
        if package.editable {
            notes.push("editable");
        }
        if !package.enabled {
            notes.push("disabled");
        }
        if package.changed.is_some() {
            notes.push("CHANGED");
        }
        let notes = match notes.is_empty() {
            true => String::new(),
            false => format!("  ({})", notes.join(", ")),
        };
        say(format_args!(
            "{} {}  {}{notes}",
            package.name,
            package.version,
            names(&package.plugins)
        ));
    }
    for stray in &strays {
        say(format_args!("warning: {stray}"));
    }
    if installed.is_empty() {
        say(format_args!("no packages are installed"));
    }
    Ok(())
}

async fn info(
    name: &str,
    with_files: bool,
    output: Output,
    packages: &Packages,
    settings: &Settings,
) -> anyhow::Result<()> {
    let package = packages.info(name)?;
    let files = match with_files {
        true => Some(packages.files(name)?),
        false => None,
    };
    let (registry, _folder) = load_aside(settings).await?;
    let statuses = registry.statuses().await;
    let theirs: Vec<&PluginStatus> = statuses
        .plugins
        .iter()
        .filter(|status| status.package.as_deref() == Some(package.name.as_str()))
        .collect();
    if output.json {
        let mut value = serde_json::to_value(&package)?;
        value["status"] = serde_json::to_value(&theirs)?;
        if let Some(files) = &files {
            value["files"] = serde_json::to_value(files)?;
        }
        return say_json(&value);
    }
    show_package(&package);
    let off = registry.plugins_off(&settings.registry().selection);
    for plugin in &package.plugins {
        show_plugin(plugin, &package, &theirs, &off);
    }
    for (path, sha256) in files.iter().flatten() {
        say(format_args!("  {sha256}  {path}"));
    }
    Ok(())
}

fn show_package(package: &InstalledPackage) {
    say(format_args!("name       {}", package.name));
    say(format_args!("version    {}", package.version));
    say(format_args!("location   {}", package.location.display()));
    let word = |is: bool| if is { "yes" } else { "no" };
    say(format_args!("editable   {}", word(package.editable)));
    say(format_args!("enabled    {}", word(package.enabled)));
    say(format_args!("source     {}", package.source.display()));
    if let Some(sha256) = &package.sha256 {
        say(format_args!("sha256     {sha256}"));
    }
    if !package.previous.is_empty() {
        let versions: Vec<&str> = package
            .previous
            .iter()
            .map(|version| version.as_str())
            .collect();
        say(format_args!("before     {}", versions.join(", ")));
    }
    if let Some(changed) = &package.changed {
        say(format_args!("changed    {changed}"));
    }
}

fn show_plugin(
    plugin: &PackagedPlugin,
    package: &InstalledPackage,
    theirs: &[&PluginStatus],
    off_by_settings: &[PluginOff],
) {
    let requires = plugin.requires.as_deref().unwrap_or("any");
    say(format_args!(
        "plugin     {} {}  requires Patchbay {requires}",
        plugin.name, plugin.version
    ));
    let off = !package.enabled || package.disabled.contains(&plugin.name);
    let is_it = |status: &&&PluginStatus| match &status.plugin {
        Some(name) => *name == plugin.name,
        // It does not load at all; then its place says which one it is.
        None => status.source.ends_with(&plugin.path),
    };
    match theirs.iter().find(is_it) {
        _ if off => say(format_args!(
            "           not active: it is disabled (`patchbay plugin enable {}`)",
            plugin.name
        )),
        Some(status) => match &status.last_error {
            Some(error) => {
                for mistake in &error.mistakes {
                    say(format_args!("           not active: {mistake}"));
                }
            }
            None if status.version.is_some() => say(format_args!("           active")),
            None => {
                let why = off_by_settings
                    .iter()
                    .find(|one| one.source == status.source);
                let why = why.map_or("the settings do not enable it", |one| one.reason.as_str());
                say(format_args!("           not active: {why}"));
            }
        },
        None => say(format_args!("           not active: it was not found")),
    }
}

async fn pack(
    folder: PathBuf,
    output: Option<PathBuf>,
    as_json: bool,
    settings: &Settings,
) -> anyhow::Result<()> {
    let (workshop, _folder) = workshop(settings).await?;
    let packed = workshop.pack(&folder, output).await?;
    if as_json {
        return say_json(&json!({
            "path": packed.path,
            "sha256": packed.sha256,
            "manifest": packed.manifest,
        }));
    }
    say(format_args!(
        "{} {} packed into {}: {}, {} files",
        packed.manifest.name,
        packed.manifest.version,
        packed.path.display(),
        names(&packed.manifest.plugins),
        packed.manifest.files.len()
    ));
    Ok(())
}

fn verify(name: Option<&str>, output: Output, packages: &Packages) -> anyhow::Result<ExitCode> {
    let verified = packages.verify(name)?;
    let strays = match name {
        None => packages.strays(),
        Some(_) => Vec::new(),
    };
    let good = strays.is_empty() && verified.iter().all(|package| package.changed.is_none());
    if output.json {
        say_json(&json!({ "packages": verified, "not_listed": strays, "good": good }))?;
    } else {
        for package in &verified {
            let (name, version) = (&package.name, &package.version);
            match &package.changed {
                Some(changed) => say(format_args!("CHANGED {name} {version}: {changed}")),
                None if package.editable => {
                    say(format_args!("linked  {name} {version}: nothing pins it"));
                }
                None => say(format_args!(
                    "good    {name} {version}: {} files",
                    package.files
                )),
            }
        }
        for stray in &strays {
            say(format_args!("STRAY   {stray}"));
        }
        if verified.is_empty() && strays.is_empty() {
            say(format_args!("no packages are installed"));
        }
    }
    Ok(match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn names(plugins: &[PackagedPlugin]) -> String {
    let names: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    names.join(", ")
}

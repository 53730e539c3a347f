//! `patchbay plugin export` and `drop`: what is left in the database of a plugin.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use patchbay_plugin::configuration::Configuration;
use patchbay_plugin::name::PluginName;
use patchbay_plugin::outline::Outline;
use patchbay_registry::{Registry, servers_that_serve};
use patchbay_store::{ConfigurationQuery, MAX_PAGE, Store};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use time::format_description::well_known::Rfc3339;

use super::plugin::load_aside;
use super::say;
use super::who::who;
use crate::settings::Settings;

/// The verbs that are about what plugins stored.
#[derive(Debug, Subcommand)]
pub(super) enum Leftovers {
    /// Write the configurations of a plugin as JSON Lines, also when the plugin is gone
    Export {
        /// The plugin's name or an alias
        name: String,
        /// The file, which is there once all is written; standard output when left out
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Delete the configurations of a plugin that was taken out or turned off, and drop its tables
    ///
    /// One that ships in the program cannot be taken out; it has to be turned off in the settings. Servers on Postgres that
    /// still serve the plugin are in the way of it. A server on SQLite does not say what it serves: one that still serves the
    /// plugin makes its tables again, empty.
    Drop {
        /// The plugin's name or an alias
        name: String,
        /// Do it; without this, only say what would go
        #[arg(long)]
        yes: bool,
    },
}

impl Leftovers {
    pub(super) async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        // A running server notices the writes, so it need not be stopped.
        let store = Store::open(settings.store(false)?).await?;
        let done = match self {
            Leftovers::Export { name, output } => export(&store, &name, output).await,
            Leftovers::Drop { name, yes } => drop_all(&store, &name, yes, settings).await,
        };
        store.close().await;
        done
    }
}

async fn export(store: &Store, name: &str, output: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let plugin = known(store, name).await?;
    let name = plugin.as_str();
    let mut out = Target::open(output.as_deref())?;
    let mut cursor = None;
    let mut count = 0;
    loop {
        let page = store.configurations(of_plugin(name, cursor)).await?;
        for configuration in &page.items {
            serde_json::to_writer(&mut out, &line(configuration)?)?;
            out.write_all(b"\n")?;
            count += 1;
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    out.finish()?;
    if let Some(path) = output {
        say(format_args!(
            "{count} configurations of {name} written to {}",
            path.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Where an export goes.
enum Target {
    /// Standard output, or what is no file, such as a pipe.
    Stream(Box<dyn Write>),
    /// A file beside the one it becomes at the end, so that one of before is not lost to an export that fails.
    Beside(BufWriter<NamedTempFile>, PathBuf),
}

impl Target {
    fn open(path: Option<&Path>) -> anyhow::Result<Target> {
        let Some(path) = path else {
            return Ok(Target::Stream(Box::new(BufWriter::new(std::io::stdout()))));
        };
        let place = || path.display().to_string();
        if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            let file = OpenOptions::new().write(true).open(path);
            return Ok(Target::Stream(Box::new(BufWriter::new(
                file.with_context(place)?,
            ))));
        }
        // A link stays one, and what it leads to is replaced.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        let named = builder.prefix(".patchbay-export-");
        // Whoever may read a new file of this user may read this one, too.
        #[cfg(unix)]
        let named = named.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = named.tempfile_in(folder).with_context(place)?;
        Ok(Target::Beside(BufWriter::new(file), path))
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Target::Stream(mut out) => Ok(out.flush()?),
            Target::Beside(out, path) => {
                let place = || path.display().to_string();
                let file = out.into_inner().map_err(|error| error.into_error());
                let file = file.with_context(place)?;
                file.as_file().sync_all().with_context(place)?;
                file.persist(&path).with_context(place)?;
                Ok(())
            }
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Target::Stream(out) => out.write(bytes),
            Target::Beside(out, _) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Target::Stream(out) => out.flush(),
            Target::Beside(out, _) => out.flush(),
        }
    }
}

async fn drop_all(
    store: &Store,
    name: &str,
    yes: bool,
    settings: &Settings,
) -> anyhow::Result<ExitCode> {
    let plugin = known(store, name).await?;
    let name = plugin.as_str();
    let (registry, _folder) = load_aside(settings).await?;
    refuse_when_here(&registry, name, settings).await?;
    refuse_when_served(store, name).await?;
    let by = who();
    let mut count = 0;
    if yes {
        // Each deletion is recorded in the history of its configuration, as any other. Killed on the way, it is begun again.
        loop {
            let page = store.configurations(of_plugin(name, None)).await?;
            if page.items.is_empty() {
                break;
            }
            for configuration in &page.items {
                store
                    .delete_configuration(configuration.id, None, &by)
                    .await?;
                count += 1;
            }
        }
        let tables = store.drop_plugin_tables(&plugin, &by).await?;
        let tables: Vec<&str> = tables.iter().map(|table| table.as_str()).collect();
        say(format_args!(
            "{count} configurations of {name} deleted; tables dropped: {}",
            if tables.is_empty() {
                "none".to_owned()
            } else {
                tables.join(", ")
            }
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let mut cursor = None;
    loop {
        let page = store.configurations(of_plugin(name, cursor)).await?;
        count += page.items.len();
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    bail!(
        "this would delete {count} configurations of {name} and drop its tables, for good; `patchbay plugin export {name} -o \
         FILE` keeps a copy, and --yes does it"
    );
}

/// A plugin that the database knows, by its name or an alias that it had when it was applied.
async fn known(store: &Store, name: &str) -> anyhow::Result<PluginName> {
    let known = store.applied_definitions().await?;
    if known.contains_key(name) {
        return Ok(PluginName::parse(name)?);
    }
    let outlines = store.applied_outlines().await?;
    let aliases = |outline: &Outline| -> Vec<String> {
        let face = outline.face.iter();
        face.flat_map(|face| face.aliases.iter().map(ToString::to_string))
            .collect()
    };
    let meant: Vec<&String> = outlines
        .iter()
        .filter(|(_, outline)| aliases(outline).iter().any(|alias| alias == name))
        .map(|(plugin, _)| plugin)
        .collect();
    match &meant[..] {
        [plugin] => return Ok(PluginName::parse(plugin)?),
        [] => {}
        _ => {
            let names: Vec<&str> = meant.iter().map(|name| name.as_str()).collect();
            bail!(
                "expected the name of one plugin that stored something, found the alias {name:?}, which {} have",
                names.join(" and ")
            );
        }
    }
    let aliases: Vec<String> = outlines.values().flat_map(aliases).collect();
    let names = known.keys().map(String::as_str);
    let hint =
        patchbay_plugin::name::nearest(name, names.chain(aliases.iter().map(String::as_str)))
            .map(|near| format!(" (did you mean {near:?}?)"))
            .unwrap_or_default();
    bail!("expected the name of a plugin that stored something, found {name:?}{hint}");
}

/// What a plugin that is still here stored is not dropped: a server would make its tables again. One that is part of the
/// program counts as taken out when the settings turn it off.
async fn refuse_when_here(
    registry: &Registry,
    name: &str,
    settings: &Settings,
) -> anyhow::Result<()> {
    let off = registry.plugins_off(&settings.registry().selection);
    let statuses = registry.statuses().await;
    let is_embedded = |source: &str| source.starts_with("embedded:");
    let here = statuses.plugins.iter().find(|status| {
        let is_off = off
            .iter()
            .any(|off| off.plugin == name && off.source == status.source);
        status.plugin.as_deref() == Some(name) && !(is_embedded(&status.source) && is_off)
    });
    match here {
        None => Ok(()),
        Some(status) if is_embedded(&status.source) => bail!(
            "expected a plugin that was taken out or turned off, found {name} turned on in {}; it is part of the program, so first \
             name it in disabled_plugins (DISABLED_PLUGINS={name} in the environment), and start the servers on this database \
             again with that",
            status.source
        ),
        Some(status) => {
            let remedy = match &status.package {
                Some(package) => format!("`patchbay plugin remove {package}`"),
                None => "take its file out of the plugin path".to_owned(),
            };
            bail!(
                "expected a plugin that was taken out, found {name} in {}; first {remedy}",
                status.source
            );
        }
    }
}

/// What a server on the database serves is not dropped under it. A server says at once what it serves no more, but only
/// after it has stopped to.
async fn refuse_when_served(store: &Store, name: &str) -> anyhow::Result<()> {
    const TRIES: u32 = 10;
    const BETWEEN: Duration = Duration::from_millis(100);
    let mut servers = servers_that_serve(store, name).await?;
    for _ in 1..TRIES {
        if servers.is_empty() {
            break;
        }
        tokio::time::sleep(BETWEEN).await;
        servers = servers_that_serve(store, name).await?;
    }
    if !servers.is_empty() {
        bail!(
            "expected a plugin that no server on this database serves, found that {} does; take it out or turn it off there \
             first",
            servers.join(", ")
        );
    }
    Ok(())
}

fn of_plugin(name: &str, cursor: Option<String>) -> ConfigurationQuery {
    ConfigurationQuery {
        plugin: Some(name.to_owned()),
        limit: MAX_PAGE,
        cursor,
        ..ConfigurationQuery::default()
    }
}

fn line(configuration: &Configuration) -> anyhow::Result<Value> {
    let mut values = patchbay_plugin::Map::new();
    values.insert(
        "configuration_type".to_owned(),
        Value::from(configuration.plugin.as_str()),
    );
    values.extend(configuration.values.clone());
    Ok(json!({
        "id": configuration.id.to_string(),
        "plugin": configuration.plugin,
        "plugin_version": configuration.plugin_version,
        "name": configuration.name,
        "description": configuration.description,
        "data_product_id": configuration.data_product_id.to_string(),
        "technical_mapping": configuration.technical_mapping,
        "platform_id": configuration.platform_id.map(|id| id.to_string()),
        "service_id": configuration.service_id.map(|id| id.to_string()),
        "revision": configuration.revision,
        "configuration": values,
        "created_at": configuration.created_at.format(&Rfc3339)?,
        "updated_at": configuration.updated_at.format(&Rfc3339)?,
    }))
}

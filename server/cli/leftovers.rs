//! `patchbay plugin export` and `drop`: what is left in the database of a plugin.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;
use patchbay_plugin::configuration::Configuration;
use patchbay_plugin::name::PluginName;
use patchbay_registry::Registry;
use patchbay_store::{ConfigurationQuery, MAX_PAGE, Store};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::plugin::load_aside;
use super::say;
use crate::settings::Settings;

/// The verbs that are about what plugins stored.
#[derive(Debug, Subcommand)]
pub(super) enum Leftovers {
    /// Write the configurations of a plugin as JSON Lines, also when the plugin is gone
    Export {
        /// The plugin's name
        name: String,
        /// The file; standard output when left out
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Delete the configurations of a plugin that was taken out, and drop its tables
    Drop {
        /// The plugin's name
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
    known(store, name).await?;
    let mut out: Box<dyn Write> = match &output {
        Some(path) => {
            let file = File::create(path).with_context(|| path.display().to_string())?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(BufWriter::new(std::io::stdout())),
    };
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
    out.flush()?;
    if let Some(path) = output {
        say(format_args!(
            "{count} configurations of {name} written to {}",
            path.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn drop_all(
    store: &Store,
    name: &str,
    yes: bool,
    settings: &Settings,
) -> anyhow::Result<ExitCode> {
    let plugin = known(store, name).await?;
    let (registry, _folder) = load_aside(settings).await?;
    refuse_when_here(&registry, name).await?;
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
                    .delete_configuration(configuration.id, None, "local")
                    .await?;
                count += 1;
            }
        }
        let tables = store.drop_plugin_tables(&plugin, "local").await?;
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

/// A plugin that the database knows.
async fn known(store: &Store, name: &str) -> anyhow::Result<PluginName> {
    let known = store.applied_definitions().await?;
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    if !names.contains(&name) {
        let hint = patchbay_plugin::name::nearest(name, names.iter().copied())
            .map(|near| format!(" (did you mean {near:?}?)"))
            .unwrap_or_default();
        bail!("expected the name of a plugin that stored something, found {name:?}{hint}");
    }
    Ok(PluginName::parse(name)?)
}

/// What a plugin that is still here stored is not dropped: a server would make its tables again.
async fn refuse_when_here(registry: &Registry, name: &str) -> anyhow::Result<()> {
    let statuses = registry.statuses().await;
    let here = statuses
        .plugins
        .iter()
        .find(|status| status.plugin.as_deref() == Some(name));
    match here {
        None => Ok(()),
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

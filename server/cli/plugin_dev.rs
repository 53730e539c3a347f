//! `patchbay plugin dev`: one plugin, served while it is written.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use annotate_snippets::Renderer;
use anyhow::{Context, bail};
use clap::Args;
use patchbay_http::App;
use patchbay_lua::Sandbox;
use patchbay_plugin::configuration::DataProduct;
use patchbay_registry::Registry;
use patchbay_registry::check::plugin_of;
use patchbay_registry::enabling::Selection;
use patchbay_registry::settings::{RegistrySettings, Shipped};
use patchbay_registry::wire::PluginStatus;
use patchbay_store::{DataProductDraft, DatabaseUrl, Store, StoreSettings};
use serde_json::json;
use tokio::net::TcpListener;

use super::diagnostics::{Diagnostic, Severity, renderer};
use super::plugin_test::Test;
use super::serve::{http_settings, stop_signal};
use super::{Common, print, say};
use crate::settings::Settings;
use crate::{embedded, telemetry};

/// What is logged beside what is said here: what the plugin logs, and what is odd.
const LOG: &str =
    "warn,patchbay_lua::log=info,patchbay_registry::reload=off,patchbay_registry::plugins=off";

/// Serve one plugin while you write it: live, with everything that is wrong shown, on a database that goes when it ends
#[derive(Debug, Args)]
pub(super) struct Dev {
    /// The plugin's file or folder; the working folder when left out
    path: Option<PathBuf>,
    /// The address and port; a free port of this machine when left out
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Run the plugin's specs each time that it changed
    #[arg(long)]
    test: bool,
}

/// What is told about one plugin, again each time that there is news.
struct Teller {
    registry: Registry,
    path: PathBuf,
    base: String,
    product: DataProduct,
    renderer: Renderer,
    /// Whether the addresses have been said.
    introduced: bool,
    settings: Settings,
    test: bool,
}

impl Dev {
    /// The settings that it runs with: those of a server, but for where it listens and what it logs.
    pub(super) fn settings(&self, common: &Common) -> anyhow::Result<Settings> {
        let listen = self.listen.as_deref().unwrap_or("127.0.0.1:0");
        let mut settings = common.settings(Some(listen.to_owned()), false)?;
        if common.log.is_none() && std::env::var_os("PATCHBAY_LOG").is_none() {
            settings.log = LOG.to_owned();
        }
        Ok(settings)
    }

    pub(super) async fn run(self, settings: Settings) -> anyhow::Result<ExitCode> {
        let path = plugin_of(&self.path.unwrap_or_else(|| PathBuf::from(".")));
        if !path.exists() {
            bail!(
                "{}: expected a plugin's file or folder, found nothing there (`patchbay plugin new` writes one)",
                path.display()
            );
        }
        let http = http_settings(&settings)?;
        patchbay_http::may_listen(&http, settings.listen)?;
        let _log = telemetry::start(&settings)?;
        let stop = stop_signal()?;
        let listener = TcpListener::bind(settings.listen)
            .await
            .with_context(|| format!("cannot listen on {}", settings.listen))?;
        let folder = tempfile::tempdir()?;
        let url = DatabaseUrl::Sqlite(folder.path().join("dev.db"));
        let store = Store::open(StoreSettings::new(url)).await?;
        let product = furnish(&store, &settings, &path).await?;
        let registry = Registry::start(
            alone(&settings, &path, folder.path()),
            store.clone(),
            Sandbox::new(settings.limits()),
            modules_only(),
        )
        .await;
        let news = registry.news();
        let found = registry.statuses().await.plugins;
        if found.len() != 1 {
            let sources: Vec<&str> = found.iter().map(|status| status.source.as_str()).collect();
            store.close().await;
            match sources.is_empty() {
                true => bail!(
                    "{}: expected one plugin, found none (`patchbay plugin new` writes one)",
                    path.display()
                ),
                false => bail!(
                    "{}: expected one plugin, found {}; name one of them",
                    path.display(),
                    sources.join(", ")
                ),
            }
        }
        let base = format!("http://{}", listener.local_addr()?);
        say(format_args!("listening on {base}"));
        let teller = Teller {
            registry: registry.clone(),
            path,
            base,
            product,
            renderer: renderer(),
            introduced: false,
            settings,
            test: self.test,
        };
        let telling = tokio::spawn(teller.tell(news));
        let app = App::new(registry, store.clone(), http);
        let served = patchbay_http::serve(listener, app, stop).await;
        telling.abort();
        store.close().await;
        served?;
        folder.close().context("the temporary database is left")?;
        say(format_args!("stopped; its database is gone"));
        Ok(ExitCode::SUCCESS)
    }
}

/// Puts into an empty database what a plugin is tried with: the catalogue, what the plugin brings to it, a data product.
async fn furnish(store: &Store, settings: &Settings, path: &Path) -> anyhow::Result<DataProduct> {
    let default = embedded::catalogue(settings.catalogue.as_deref())?;
    store.apply_catalogue(&default).await?;
    let own = path.join("catalogue.toml");
    if own.is_file() {
        let own = embedded::catalogue(Some(&own))?;
        store.apply_catalogue(&own).await?;
    }
    let draft = DataProductDraft {
        name: "Sample".to_owned(),
        namespace: "sample".to_owned(),
        domain: "sample".to_owned(),
    };
    Ok(store.create_data_product(None, draft).await?)
}

/// The registry's settings for a plugin that is served alone: on whatever it is called, with the shared modules of the
/// plugin paths, and without their plugins.
fn alone(settings: &Settings, path: &Path, folder: &Path) -> RegistrySettings {
    let around = path.parent().map(Path::to_owned);
    RegistrySettings {
        plugin_paths: vec![path.to_owned()],
        libraries: settings
            .plugin_paths
            .iter()
            .cloned()
            .chain(around)
            .collect(),
        packages: folder.join("packages"),
        selection: Selection {
            enabled: Some(vec![path.display().to_string()]),
            disabled: Vec::new(),
        },
        // A step that takes something away is what is tried here too.
        auto_migrate: true,
        strict_versions: false,
        ..settings.registry()
    }
}

/// Of what the program carries only the shared modules.
fn modules_only() -> Shipped {
    let files = embedded::plugins().files.iter();
    let modules: Vec<_> = files
        .filter(|(path, _)| path.starts_with("lib/"))
        .copied()
        .collect();
    // The list lives as long as the program.
    Shipped {
        files: modules.leak(),
    }
}

impl Teller {
    async fn tell(mut self, mut news: tokio::sync::watch::Receiver<u64>) {
        loop {
            self.tell_once().await;
            // It ends with the registry.
            if news.changed().await.is_err() {
                return;
            }
        }
    }

    async fn tell_once(&mut self) {
        let statuses = self.registry.statuses().await;
        let Some(status) = statuses.plugins.first() else {
            say(format_args!(
                "gone     {} (it comes back when it is there again)",
                self.path.display()
            ));
            return;
        };
        let name = status.plugin.as_deref().unwrap_or("(unknown)");
        for diagnostic in self.diagnostics(status).await {
            print(&format!("{}\n", diagnostic.rendered(&self.renderer)));
        }
        match (&status.last_error, &status.version) {
            (None, Some(version)) => {
                let changes = self.registry.what_changed(name);
                let changes = changes
                    .map(|changes| format!("  {changes}"))
                    .unwrap_or_default();
                say(format_args!("live     {name} {version}{changes}"));
                self.introduce(name).await;
            }
            (Some(_), Some(version)) => {
                say(format_args!(
                    "FAILED   {name}: version {version} keeps serving"
                ));
            }
            (Some(_), None) => say(format_args!("FAILED   {name}: nothing serves yet")),
            (None, None) => say(format_args!("off      {name}")),
        }
        if self.test && status.last_error.is_none() {
            // What fails in it is printed.
            if let Err(error) = Test::of(self.path.clone()).run(&self.settings).await {
                say(format_args!("no tests: {error:#}"));
            }
        }
    }

    async fn diagnostics(&self, status: &PluginStatus) -> Vec<Diagnostic> {
        let errors = status.last_error.iter().flat_map(Diagnostic::of_error);
        let told = status.warnings.iter();
        let told = told.map(|text| Diagnostic::plain(Severity::Warning, "registry", text));
        let mut found: Vec<Diagnostic> = errors.chain(told).collect();
        if status.last_error.is_none() {
            for (_, reports) in self.registry.oddities().await {
                let odd = reports.iter();
                found.extend(odd.map(|report| Diagnostic::of_report(Severity::Warning, report)));
            }
        }
        found
    }

    /// Says where the plugin's answers are, once.
    async fn introduce(&mut self, name: &str) {
        if std::mem::replace(&mut self.introduced, true) {
            return;
        }
        let (base, product) = (&self.base, &self.product);
        let plugin = format!("{base}/api/v2/plugins/{name}");
        let schema = self.registry.schema(name).unwrap_or_default();
        let example = schema["examples"][0].clone();
        let example = if example.is_object() {
            example
        } else {
            json!({})
        };
        say(format_args!("form     {plugin}/form"));
        say(format_args!("schema   {plugin}/schema"));
        say(format_args!("icon     {plugin}/icon"));
        say(format_args!(
            "validate curl -X POST {plugin}/validate -H 'content-type: application/json' -d '{}'",
            json!({ "configuration": example, "data_product_id": product.id })
        ));
        say(format_args!(
            "create   curl -X POST {plugin}/configurations -H 'content-type: application/json' -d '{}'",
            json!({ "configuration": example, "data_product_id": product.id, "name": "First" })
        ));
        say(format_args!("link     {plugin}/url?id={}", product.id));
    }
}

//! `patchbay serve`: settings → telemetry → store → catalogue → registry → serve.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use patchbay_http::{ApiToken, App, HttpSettings};
use patchbay_lua::Sandbox;
use patchbay_registry::Registry;
use patchbay_registry::settings::RegistrySettings;
use patchbay_store::Store;
use tokio::net::TcpListener;

use super::{Common, block_on, say};
use crate::settings::Settings;
use crate::{embedded, telemetry};

/// Serve the REST API
#[derive(Debug, Default, Args)]
pub(super) struct Serve {
    /// The address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Listen anywhere without a token
    #[arg(long)]
    insecure: bool,
}

impl Serve {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let settings = common.settings(self.listen, self.insecure)?;
        let http = http_settings(&settings)?;
        patchbay_http::may_listen(&http, settings.listen)?;
        let _log = telemetry::start(&settings)?;
        block_on(serve(settings, http))?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn serve(settings: Settings, http: HttpSettings) -> anyhow::Result<()> {
    let mut stop = Box::pin(stop_signal()?);
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}", settings.listen))?;
    let catalogue = embedded::catalogue(settings.catalogue.as_deref())?;
    let database = settings.store(true)?;
    tracing::info!("opening the database {}", database.url);
    // A database that is away is waited for, and whoever stops the server meanwhile must not wait too.
    let store = tokio::select! {
        store = Store::open(database.clone()) => store?,
        () = &mut stop => return Ok(()),
    };
    store.apply_catalogue_if_empty(&catalogue).await?;
    let sandbox = Sandbox::new(settings.limits());
    let name = database.server_name.unwrap_or_else(host_name);
    let told = RegistrySettings {
        server_name: Some(name.clone()),
        ..settings.registry()
    };
    let registry = Registry::start(told, store.clone(), sandbox, embedded::plugins()).await;
    let address = listener.local_addr()?;
    let membership = registry.join_cluster(name, Some(address.to_string()));
    let app = App::new(registry, store.clone(), http);
    say(format_args!("listening on http://{address}"));
    tracing::info!("listening on http://{address}");
    patchbay_http::serve(listener, app, stop).await?;
    membership.leave().await;
    store.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// What the machine, or the container, is called.
fn host_name() -> String {
    #[cfg(unix)]
    {
        let system = rustix::system::uname();
        system.nodename().to_string_lossy().into_owned()
    }
    #[cfg(not(unix))]
    {
        std::env::var("COMPUTERNAME").unwrap_or_else(|_| "patchbay".to_owned())
    }
}

pub(crate) fn http_settings(settings: &Settings) -> anyhow::Result<HttpSettings> {
    let cors_origins = settings.cors_origins.iter().map(|origin| {
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if origin != "*" && host.is_none_or(|host| host.is_empty() || host.contains('/')) {
            bail!("`cors_origins`: expected an origin such as \"https://portal.example.com\", found {origin:?}");
        }
        origin.parse().with_context(|| format!("`cors_origins`: {origin:?} is no origin"))
    });
    Ok(HttpSettings {
        token: settings
            .api_token
            .as_ref()
            .map(|token| ApiToken::new(settings.token_name.as_str(), &token.0)),
        insecure: settings.insecure,
        cors_origins: cors_origins.collect::<Result<_, _>>()?,
        body_limit: settings.body_limit,
        request_timeout: Duration::from_millis(settings.request_timeout_ms),
        drain: Duration::from_millis(settings.drain_ms),
    })
}

/// Completes when the process is asked to stop.
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("asked to stop; finishing what is under way");
        })
    }
    #[cfg(not(unix))]
    {
        Ok(async {
            // Without the signal there is only the kill.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

//! The cluster: any number of equal servers on one database.
//!
//! | module | holds |
//! |---|---|
//! | [`wire`] | the cluster as it goes over the wire, and what servers write of themselves |
//! | `compare` | what tells two sets of plugins apart |
//!
//! Each server loads its own folders and says in the database what came of it: at once when that changes, and every two
//! seconds that it still runs. A server that stops takes itself off the list; one that died is stale after ten seconds,
//! and forgotten by the others after a minute. What a generation of the cluster is, and when there is a next one, the
//! store says, in the transaction of the report.
//!
//! On SQLite there is one server, which writes nothing and speaks for itself.

mod compare;
pub(crate) mod wire;

use std::pin::pin;
use std::sync::{OnceLock, Weak};
use std::time::Duration;

use patchbay_plugin::platform::PluginState;
use patchbay_store::{ClusterState, RunningServer, ServerReport, Store, StoreError};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, timeout};
use uuid::Uuid;

use self::compare::{differences, digest, shown};
use self::wire::{
    ClusterGeneration, ClusterServer, ClusterView, Lag, ServerPlugin, ServerState, ServerTrouble,
};
use crate::generation::Finding;
use crate::plugins::status;
use crate::{Inner, Registry, RequestError};

/// How often a server says that it still runs.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long after its last word a server counts as stale.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// How long a server that stops waits for what it is just saying.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a server is called. It has its id from its start, and its name once it has joined.
pub(crate) struct Identity {
    id: Uuid,
    started_at: OffsetDateTime,
    named: OnceLock<Named>,
}

struct Named {
    name: String,
    address: Option<String>,
}

impl Identity {
    /// How histories call it: as the cluster does, by name and id.
    pub(crate) fn who(&self, name: Option<&str>) -> String {
        match name {
            Some(name) => format!("server {name} ({})", self.id),
            None => format!("server {}", self.id),
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Identity {
            id: Uuid::new_v4(),
            started_at: OffsetDateTime::now_utc(),
            named: OnceLock::new(),
        }
    }
}

/// A server's place in the cluster, until it leaves. When this is dropped the server falls silent, as if it had died.
#[derive(Debug)]
pub struct Membership {
    stop: watch::Sender<bool>,
    reporting: Option<JoinHandle<()>>,
}

impl Membership {
    /// Takes the server off the list. The database being away does not keep it: the others forget it in time.
    pub async fn leave(mut self) {
        self.stop.send_replace(true);
        if let Some(reporting) = self.reporting.take() {
            // It has nothing to say but that it has ended.
            let _ended = reporting.await;
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(reporting) = &self.reporting {
            reporting.abort();
        }
    }
}

impl Registry {
    /// Begins to tell the other servers on the database of this one. `name` is what operators call it, `address` where it
    /// listens.
    pub fn join_cluster(&self, name: String, address: Option<String>) -> Membership {
        let named = self.inner.identity.named.set(Named { name, address });
        debug_assert!(named.is_ok(), "a server joins once");
        let (stop, stopped) = watch::channel(false);
        let inner = std::sync::Arc::downgrade(&self.inner);
        let (store, swapped) = (self.store().clone(), self.inner.swapped.subscribe());
        let reporting = store
            .is_shared()
            .then(|| tokio::spawn(report(inner, store.clone(), swapped, stopped)));
        Membership { stop, reporting }
    }

    /// The servers on the database, and which plugins they serve.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn cluster(&self) -> Result<ClusterView, RequestError> {
        let report = self.report(None);
        Ok(match self.store().is_shared() {
            true => view(&self.store().cluster().await?, report.id),
            false => alone(&report),
        })
    }

    fn report(&self, trouble: Option<&ServerTrouble>) -> ServerReport {
        let identity = &self.inner.identity;
        let generation = self.current();
        let plugins: Vec<ServerPlugin> = generation
            .findings
            .iter()
            .filter_map(server_plugin)
            .collect();
        let named = identity.named.get();
        ServerReport {
            id: identity.id,
            name: named.map_or_else(|| identity.id.to_string(), |named| named.name.clone()),
            address: named.and_then(|named| named.address.clone()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: identity.started_at,
            generation: generation.number,
            plugin_set: digest(&plugins),
            last_error: trouble.map(plain),
            plugins: plain(&plugins),
        }
    }
}

fn plain<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_else(|_| unreachable!("a report is plain data"))
}

/// What is told of one place where a plugin was found; nothing of one that is switched off.
fn server_plugin(finding: &Finding) -> Option<ServerPlugin> {
    let status = status(finding);
    if status.state == PluginState::Disabled && finding.serving.is_none() {
        return None;
    }
    let error = status.last_error.as_ref();
    Some(ServerPlugin {
        plugin: status.plugin.clone().unwrap_or(status.source),
        version: status.version,
        fingerprint: finding
            .serving
            .as_ref()
            .map(|active| shown(&active.fingerprint)),
        state: status.state.as_str().to_owned(),
        error: error.map(|error| format!("{}: {}", error.stage, error.message)),
    })
}

/// The servers on a database that serve a plugin, by name, as far as they have said so of late. On SQLite the server says
/// nothing.
///
/// # Errors
/// Those of an unavailable database.
pub async fn servers_that_serve(store: &Store, plugin: &str) -> Result<Vec<String>, StoreError> {
    if !store.is_shared() {
        return Ok(Vec::new());
    }
    let cluster = store.cluster().await?;
    let alive = |server: &&RunningServer| server.heartbeat_at + STALE_AFTER >= cluster.now;
    let serves = |server: &&RunningServer| {
        let plugins = plugins_of(&server.report.plugins);
        plugins
            .iter()
            .any(|own| own.plugin == plugin && own.version.is_some())
    };
    let found = cluster.servers.iter().filter(alive).filter(serves);
    Ok(found.map(|server| server.report.name.clone()).collect())
}

/// Tells the other servers of this one, until it is stopped or its registry is gone.
async fn report(
    registry: Weak<Inner>,
    store: Store,
    mut swapped: watch::Receiver<u64>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: Option<ServerReport> = None;
    let (mut trouble, mut failing) = (None, false);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = swapped.changed() => {}
            _ = told_to_stop(&mut stopped) => break,
        }
        let Some(inner) = registry.upgrade() else {
            break;
        };
        let registry = Registry { inner };
        let result = {
            let mut telling = pin!(tell(&registry, trouble.as_ref(), &mut told));
            tokio::select! {
                result = &mut telling => result,
                _ = told_to_stop(&mut stopped) => match timeout(PATIENCE, telling).await {
                    Ok(result) => result,
                    // A database that does not answer does not hold up the end.
                    Err(_) => return,
                },
            }
        };
        if let Err(error) = &result
            && !failing
        {
            // What follows from the same trouble adds nothing.
            trouble = Some(ServerTrouble {
                message: error.to_string(),
                at: OffsetDateTime::now_utc(),
            });
            let error = error.detail();
            tracing::warn!(error, "the other servers cannot be told of this one");
        }
        failing = result.is_err();
    }
    // The registry may be gone by now. A database that was away is not waited for: the others forget this server.
    if !failing
        && let Some(told) = told
        && let Err(error) = store.remove_server(told.id, &told.plugin_set).await
    {
        let error = error.detail();
        tracing::debug!(error, "this server could not be taken off the list");
    }
}

async fn told_to_stop(stopped: &mut watch::Receiver<bool>) -> bool {
    stopped.wait_for(|stopped| *stopped).await.is_ok()
}

/// Says that this server still runs, and all about it when that is new or the others ask for it.
async fn tell(
    registry: &Registry,
    trouble: Option<&ServerTrouble>,
    told: &mut Option<ServerReport>,
) -> Result<(), StoreError> {
    let report = registry.report(trouble);
    let store = registry.store();
    let settled = match told.as_ref() == Some(&report) {
        true => store.heartbeat(report.id, &report.plugin_set).await?,
        false => false,
    };
    if !settled {
        store.report_server(&report).await?;
        *told = Some(report);
    }
    Ok(())
}

/// The plugins of a report; none of one that a newer server wrote in another way.
fn plugins_of(value: &Value) -> Vec<ServerPlugin> {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

fn view(cluster: &ClusterState, own: Uuid) -> ClusterView {
    let newest = cluster.sets.last();
    let newest_plugins = newest.map(|set| plugins_of(&set.plugins));
    let newest_plugins = newest_plugins.unwrap_or_default();
    // A digest that came back counts as its latest generation.
    let number_of = |digest: &str| {
        let of = cluster.sets.iter().rev().find(|set| set.digest == digest);
        of.map(|set| set.number)
    };
    let lag_of = |number: u64| {
        let newer = cluster.sets.iter().find(|set| set.number > number);
        Lag {
            generations: newest.map_or(0, |newest| newest.number - number),
            seconds: newer.map_or(0.0, |newer| (cluster.now - newer.first_at).as_seconds_f64()),
        }
    };
    let server = |server: &RunningServer| {
        let number = number_of(&server.report.plugin_set);
        let state = match number {
            _ if server.heartbeat_at + STALE_AFTER < cluster.now => ServerState::Stale,
            Some(number) if newest.is_some_and(|newest| newest.number == number) => {
                ServerState::Current
            }
            _ => ServerState::Behind,
        };
        let lag = number.map(lag_of);
        let report = &server.report;
        server_view(report, &newest_plugins, |view| ClusterServer {
            state,
            answering: report.id == own,
            heartbeat_at: server.heartbeat_at,
            cluster_generation: number,
            lag,
            ..view
        })
    };
    let generations = cluster.sets.iter().rev().map(|set| ClusterGeneration {
        number: set.number,
        plugin_set: set.digest.clone(),
        since: Some(set.first_at),
        servers: cluster
            .servers
            .iter()
            .filter(|_| number_of(&set.digest) == Some(set.number))
            .filter(|server| server.report.plugin_set == set.digest)
            .map(|server| server.report.id)
            .collect(),
    });
    ClusterView {
        generation: newest.map_or(0, |newest| newest.number),
        shared: true,
        servers: cluster.servers.iter().map(server).collect(),
        generations: generations.collect(),
    }
}

fn alone(report: &ServerReport) -> ClusterView {
    let own = server_view(report, &plugins_of(&report.plugins), |view| view);
    ClusterView {
        generation: report.generation,
        shared: false,
        servers: vec![own],
        generations: vec![ClusterGeneration {
            number: report.generation,
            plugin_set: report.plugin_set.clone(),
            since: None,
            servers: vec![report.id],
        }],
    }
}

/// What a report says, as of a server that is current and answers; `refine` says what is so instead.
fn server_view(
    report: &ServerReport,
    newest: &[ServerPlugin],
    refine: impl FnOnce(ClusterServer) -> ClusterServer,
) -> ClusterServer {
    let plugins = plugins_of(&report.plugins);
    refine(ClusterServer {
        id: report.id,
        name: report.name.clone(),
        address: report.address.clone(),
        version: report.version.clone(),
        state: ServerState::Current,
        answering: true,
        started_at: report.started_at,
        heartbeat_at: OffsetDateTime::now_utc(),
        generation: report.generation,
        cluster_generation: Some(report.generation),
        lag: Some(Lag {
            generations: 0,
            seconds: 0.0,
        }),
        plugin_set: report.plugin_set.clone(),
        differences: differences(&plugins, newest),
        failures: plugins
            .into_iter()
            .filter(|plugin| plugin.error.is_some())
            .collect(),
        last_error: report
            .last_error
            .as_ref()
            .and_then(|error| serde_json::from_value(error.clone()).ok()),
    })
}

//! REST: the contract that existing frontends speak, and what Patchbay adds to it.
//!
//! | module | holds |
//! |---|---|
//! | `routes` | every route, in one function |
//! | `layers` | every layer, in one function |
//! | `serve` | connections, and their end |
//! | `front` | what stands before all layers: request ids, the door, kept answers, trailing slashes |
//! | `door`, `loopback` | who may come in, and by which names this machine is called |
//! | `kept` | answers kept encoded, by key |
//! | `log` | the one line that is logged about a request, and its span |
//! | `request_id`, `path`, `etag` | what their names say |
//! | `error` | the envelope of every error, and which status an error of the domain is |
//! | `body`, `input`, `unread` | JSON in and out; paths and queries read part by part; what was left unread |
//! | `plugins`, `configurations` | what the registry answers |
//! | `platforms`, `environments`, `catalogue_views`, `data_products` | what the store answers |
//! | `cluster` | the servers on one database |
//! | `operations`, `metrics` | health, figures, the OpenAPI document |
//! | `openapi` | what the document says about every operation alike |
//!
//! # The life of a request
//! `front` gives it an id and asks the door → a kept answer leaves at once → else the layers open its span, bound its
//! time and size → the router finds its handler, which parses it and asks the registry or the store → the answer is
//! encoded, compressed, counted; an error gets its envelope and its line in the log → `front` puts the id on it.
//!
//! # Invariants
//! - Every response has `x-request-id`; every error has the envelope with the same id and is logged once. Only a head
//!   that is no HTTP, or so long that it is not read to its end, gets its bare 400, 414 or 431 before there is a request.
//! - A 5xx body holds a fixed text, or the one sentence of a 501. What happened is in the log only.
//! - Nothing is served before the door was asked, except `/healthz` and `/readyz`.
//! - A kept answer is never served under another stamp than the one taken before it was computed.
//! - The OpenAPI document does not depend on the plugins installed.
//! - Deliberately absent: rules about plugins, configurations and templates (the registry's), SQL (the store's), Lua, and
//!   any state of a request after its answer.

mod body;
mod catalogue_views;
mod cluster;
mod configurations;
mod data_products;
mod door;
mod environments;
mod error;
mod etag;
mod front;
mod input;
mod kept;
mod layers;
mod log;
mod loopback;
mod metrics;
mod openapi;
mod operations;
mod path;
mod platforms;
mod plugins;
mod request_id;
mod routes;
mod serve;
#[cfg(test)]
mod tests;
mod unread;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use patchbay_registry::{Registry, Stamp};
use patchbay_store::Store;

use crate::door::Door;
use crate::error::ApiError;
use crate::kept::{Entry, Kept, Key};
use crate::metrics::Metrics;
use crate::request_id::Ids;

pub use crate::door::{ApiToken, ListenRefused};
pub use crate::openapi::document;
pub use crate::serve::serve;

/// How the server answers over HTTP.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The token of the API; without one only loopback is served.
    pub token: Option<ApiToken>,
    /// Whether to serve everyone who can reach the server, when there is no token.
    pub insecure: bool,
    /// Foreign origins whose pages may call, as written in `Origin`: `https://portal.example.com`; `*` for any, which
    /// counts only with a token or `insecure`.
    pub cors_origins: Vec<HeaderValue>,
    /// The longest body of a request, in bytes.
    pub body_limit: usize,
    /// How long a request may take until the head of its answer; past it, 504.
    pub request_timeout: Duration,
    /// How long requests under way may take to end at shutdown.
    pub drain: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            token: None,
            insecure: false,
            cors_origins: Vec::new(),
            body_limit: 1024 * 1024,
            request_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

/// Everything that answers requests. A cheap handle.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    store: Store,
    settings: HttpSettings,
    door: Door,
    ids: Ids,
    kept: Kept<Stamp>,
    metrics: Metrics,
}

impl App {
    /// An app that answers from a registry and its store.
    pub fn new(registry: Registry, store: Store, settings: HttpSettings) -> Self {
        let door = Door::new(
            settings.token.clone(),
            settings.insecure,
            settings.cors_origins.clone(),
        );
        Self {
            inner: Arc::new(Inner {
                metrics: Metrics::new(registry.clone()),
                registry,
                store,
                settings,
                door,
                ids: Ids::new(),
                kept: Kept::new(),
            }),
        }
    }

    /// Whether the door lets the server listen on an address.
    ///
    /// # Errors
    /// Without a token and without `insecure`, when other machines can reach the address.
    pub fn may_listen(&self, address: SocketAddr) -> Result<(), ListenRefused> {
        self.inner.door.may_listen(address)
    }

    fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }

    fn settings(&self) -> &HttpSettings {
        &self.inner.settings
    }

    fn door(&self) -> &Door {
        &self.inner.door
    }

    fn ids(&self) -> &Ids {
        &self.inner.ids
    }

    /// The kept answer of a key, if there is one that is still right.
    fn kept(&self, key: &Key<'_>) -> Option<Arc<Entry<Stamp>>> {
        self.inner.kept.find(key, self.registry().stamp())
    }

    /// The answer of a key: the kept one, else what `compute` gives, which is kept.
    async fn answer_kept(
        &self,
        key: &Key<'_>,
        request: &HeaderMap,
        compute: impl AsyncFnOnce() -> Result<Bytes, ApiError>,
    ) -> Result<Response, ApiError> {
        // The stamp is taken first: a change while the answer is computed must not find it valid afterwards.
        let stamp = self.registry().stamp();
        let entry = match self.inner.kept.find(key, stamp) {
            Some(entry) => entry,
            None => {
                self.metrics().miss();
                self.inner.kept.answer(key, stamp, compute).await?
            }
        };
        entry.response(request).await
    }

    fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }
}

/// Whether the settings let a server listen on an address, before anything else is started.
///
/// # Errors
/// Without a token and without `insecure`, when other machines can reach the address.
pub fn may_listen(settings: &HttpSettings, address: SocketAddr) -> Result<(), ListenRefused> {
    Door::new(settings.token.clone(), settings.insecure, Vec::new()).may_listen(address)
}

//! The whole service, from request to response, over a real registry and a real database, without a socket.

mod bodies;
mod catalogue;
mod configurations;
mod everywhere;
mod kept;
mod serve;
mod together;

use std::collections::BTreeMap;
use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use patchbay_lua::Sandbox;
use patchbay_registry::Registry;
use patchbay_registry::settings::{RegistrySettings, Shipped};
use patchbay_store::Store;
use patchbay_store::settings::{DatabaseUrl, StoreSettings};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::front::Front;
use crate::{App, HttpSettings, layers, routes};

/// A plugin that needs no hook.
const PLUGIN: &str = r#"
local field = patchbay.field
return patchbay.plugin {
  name = "Pigeon",
  aliases = { "Dove" },
  fields = {
    field.string "loft" { required = true },
    field.enum "speed" { values = { "slow", "fast" }, default = "slow" },
  },
}
"#;

/// A server without a socket.
pub(super) struct Fixture {
    pub(super) app: App,
    front: Front,
    dir: TempDir,
}

/// A response that was read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body as JSON, which it has to be.
    #[track_caller]
    pub(super) fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("no JSON ({error}): {self:?}"),
        }
    }

    /// A header as text; empty when it is not there.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("text"))
    }

    /// What an error says.
    #[track_caller]
    pub(super) fn detail(&self) -> Value {
        self.json()["detail"].clone()
    }
}

pub(super) async fn fixture(settings: HttpSettings) -> Fixture {
    fixture_of(settings, PLUGIN, |_| {}).await
}

/// A server with another plugin, and on a database that is set up in another way.
pub(super) async fn fixture_of(
    settings: HttpSettings,
    plugin: &str,
    set_up: impl FnOnce(&mut StoreSettings),
) -> Fixture {
    let dir = tempfile::tempdir().expect("a folder");
    let plugins = dir.path().join("plugins");
    std::fs::create_dir(&plugins).expect("a folder");
    std::fs::write(plugins.join("pigeon.lua"), plugin).expect("a plugin");
    let url = DatabaseUrl::Sqlite(dir.path().join("patchbay.db"));
    let mut database = StoreSettings::new(url);
    set_up(&mut database);
    let store = Store::open(database).await.expect("a store");
    let registry = RegistrySettings {
        libraries: Vec::new(),
        row_check: std::time::Duration::from_secs(2),
        plugin_paths: vec![plugins],
        packages: dir.path().join("packages"),
        selection: Default::default(),
        auto_migrate: true,
        strict_versions: false,
        watch: Default::default(),
        server_name: None,
        plugin_settings: BTreeMap::new(),
    };
    let sandbox = Sandbox::new(Default::default());
    let registry = Registry::load(registry, store.clone(), sandbox, Shipped::default()).await;
    let app = App::new(registry, store, settings);
    Fixture {
        front: layers::service(routes::service(&app), &app),
        app,
        dir,
    }
}

impl Fixture {
    /// The same server with other routes.
    pub(super) fn with_routes(mut self, routes: Router) -> Self {
        self.front = layers::service(routes, &self.app);
        self
    }

    /// The folder of plugins.
    pub(super) fn plugins(&self) -> std::path::PathBuf {
        Path::new(self.dir.path()).join("plugins")
    }

    /// Sends a request from loopback, with JSON when there is a body.
    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost");
        }
        if body.is_some() && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map_or(Body::empty(), |body| match body {
            Value::String(raw) => Body::from(raw),
            json => Body::from(json.to_string()),
        });
        let request = request.body(body).expect("a request");
        let response = match self.front.answer(request, |body| body).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.expect("a body").to_bytes(),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], None).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask("POST", path, &[], Some(body)).await
    }

    pub(super) async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask("PUT", path, &[], Some(body)).await
    }

    pub(super) async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &[], None).await
    }

    /// A figure of `/metrics`.
    pub(super) async fn figure(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.body;
        let text = String::from_utf8(text.to_vec()).expect("text");
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not among\n{text}"));
        line.rsplit(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .expect("a number")
    }

    /// Creates a data product and gives its id.
    pub(super) async fn data_product(&self, namespace: &str) -> String {
        let body = json!({"name": namespace, "namespace": namespace, "domain": "sales"});
        let answer = self.post("/api/v2/data_products", body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().expect("an id").to_owned()
    }
}

//! The OpenAPI document.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::Server;
use crate::world::bigquery;

const DOCUMENT: &str = "/api/openapi.json";

/// Every path of the contract, with its methods.
const PATHS: &[(&str, &str)] = &[
    ("/api/v2/plugins", "get"),
    ("/api/v2/plugins/platform-tiles", "get"),
    ("/api/v2/plugins/status", "get"),
    ("/api/v2/plugins/migrations", "get"),
    ("/api/v2/plugins/reload", "post"),
    ("/api/v2/plugins/render_technical_asset_access_path", "post"),
    ("/api/v2/plugins/{}", "get"),
    ("/api/v2/plugins/{}/form", "get"),
    ("/api/v2/plugins/{}/url", "get"),
    ("/api/v2/plugins/{}/schema", "get"),
    ("/api/v2/plugins/{}/icon", "get"),
    ("/api/v2/plugins/{}/validate", "post"),
    ("/api/v2/plugins/{}/configurations", "get post"),
    ("/api/v2/configurations", "get"),
    ("/api/v2/configurations/export", "get"),
    ("/api/v2/configurations/{}", "get put patch delete"),
    ("/api/v2/configurations/{}/history", "get"),
    ("/api/v2/configuration/platforms", "get post"),
    ("/api/v2/configuration/platforms/configs", "get post"),
    (
        "/api/v2/configuration/platforms/configs/{}",
        "get put delete",
    ),
    ("/api/v2/configuration/platforms/{}/services", "get post"),
    (
        "/api/v2/configuration/platforms/{}/services/{}",
        "get put delete",
    ),
    ("/api/v2/configuration/environments", "get post"),
    ("/api/v2/configuration/environments/{}", "get put delete"),
    ("/api/v2/configuration/environments/{}/configs", "get post"),
    (
        "/api/v2/configuration/environments/configs/{}",
        "get put delete",
    ),
    (
        "/api/v2/configuration/environments/platforms/{}/services/{}/config",
        "get",
    ),
    (
        "/api/v2/configuration/environments/{}/platforms/{}/config",
        "get",
    ),
    (
        "/api/v2/configuration/environments/{}/platforms/{}/services/{}/config",
        "get",
    ),
    ("/api/v2/data_products", "get post"),
    ("/api/v2/data_products/{}", "get put delete"),
    ("/api/v2/cluster", "get"),
    ("/healthz", "get"),
    ("/readyz", "get"),
    ("/metrics", "get"),
    ("/api/openapi.json", "get"),
];

/// A path with the names of its parameters taken out.
fn nameless(path: &str) -> String {
    let mut parts = path.split('{');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |path, part| {
        format!("{path}{{{}", &part[part.find('}').expect("a name")..])
    })
}

#[tokio::test]
async fn the_document_has_every_path_of_the_contract() {
    let server = Server::start(|_| {});
    let document = server.get(DOCUMENT).await.is(200).json();
    assert!(
        document["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3.1")),
        "{document}"
    );
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let paths = document["paths"].as_object().expect("paths");
    for (path, methods) in PATHS {
        let found = paths.iter().find(|(found, _)| nameless(found) == *path);
        let (_, item) = found.unwrap_or_else(|| panic!("{path} in {:?}", paths.keys()));
        for method in methods.split(' ') {
            assert!(item.get(method).is_some(), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn what_the_document_refers_to_is_in_it_and_operations_have_ids_of_their_own() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(entries) => {
                found.extend(
                    entries
                        .get("$ref")
                        .and_then(Value::as_str)
                        .map(str::to_owned),
                );
                entries.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let server = Server::start(|_| {});
    let document = server.get(DOCUMENT).await.is(200).json();
    let mut all = BTreeSet::new();
    references(&document, &mut all);
    assert!(
        all.iter()
            .any(|reference| reference.ends_with("/PluginMeta")),
        "{all:?}"
    );
    for reference in all {
        let pointer = reference
            .strip_prefix('#')
            .unwrap_or_else(|| panic!("{reference}"));
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let Some(id) = operation["operationId"].as_str() else {
                panic!("{method} {path}: no operationId")
            };
            assert!(ids.insert(id.to_owned()), "{id} twice");
            assert!(
                operation["responses"]
                    .as_object()
                    .is_some_and(|all| !all.is_empty()),
                "{id}"
            );
        }
    }
}

#[tokio::test]
async fn the_document_does_not_change_with_the_plugins() {
    let server = Server::start(|_| {});
    let before = server.get(DOCUMENT).await.is(200);
    server
        .folder
        .write("lua-plugins/bigquery.lua", bigquery("1.0.0", "Dataset"));
    server
        .until("plugins/BigQueryDataOutput/form", 200, |_| true)
        .await;
    let now = server.get(DOCUMENT).await.is(200);
    assert_eq!(now.text(), before.text());
    assert_eq!(now.header("etag"), before.header("etag"));
    let none = Server::start(|options| {
        options.env("ENABLED_PLUGINS", "[]");
    });
    assert_eq!(none.get(DOCUMENT).await.is(200).text(), before.text());
}

#[tokio::test]
async fn figures_are_told_in_the_format_of_prometheus() {
    let server = Server::start(|_| {});
    server.get("plugins").await.is(200);
    server.get("plugins/Nope/form").await.error(404);
    let answer = server.get("/metrics").await.is(200);
    assert_eq!(
        answer.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let text = answer.text();
    for start in [
        "patchbay_http_requests_total{",
        "patchbay_http_requests_in_flight ",
        "patchbay_build_info{",
    ] {
        assert!(
            text.lines().any(|line| line.starts_with(start)),
            "{start}: {text}"
        );
    }
    let list =
        "patchbay_http_requests_total{method=\"GET\",route=\"/api/v2/plugins\",status=\"200\"} 1";
    assert!(text.lines().any(|line| line == list), "{list}: {text}");
    assert!(!text.contains("Nope"), "what clients make up is no label");
}

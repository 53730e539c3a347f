//! The shapes of bodies in the document, held to what reads them.
//!
//! The document has them from structs of their own, and the bodies are read key by key, so that all mistakes are told at
//! once. Nothing but this test keeps the two together.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Fixture, fixture};
use crate::{HttpSettings, openapi};

/// Where there is nothing to read: its body is not looked at.
const WITHOUT_BODY: &[&str] = &["post /api/v2/plugins/reload"];

/// One operation that takes a body.
struct Taking {
    method: &'static str,
    /// The path in the document.
    route: String,
    schema: Value,
}

/// Every POST and PUT of the document, with the schema of its body.
fn operations(document: &Value) -> Vec<Taking> {
    let mut found = Vec::new();
    for (route, item) in document["paths"].as_object().expect("paths") {
        for method in ["post", "put"] {
            let name = format!("{method} {route}");
            let Some(operation) = item.get(method) else {
                continue;
            };
            if WITHOUT_BODY.contains(&name.as_str()) {
                assert!(operation.get("requestBody").is_none(), "{name}");
                continue;
            }
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let reference = schema["$ref"].as_str();
            let reference = reference.unwrap_or_else(|| panic!("{name} has no schema: {schema}"));
            let schema = document.pointer(reference.trim_start_matches('#'));
            found.push(Taking {
                method: if method == "post" { "POST" } else { "PUT" },
                route: route.clone(),
                schema: schema.expect("what is referred to").clone(),
            });
        }
    }
    found
}

/// A server on which every route leads somewhere, and the paths in place of the routes.
struct World {
    server: Fixture,
    places: Vec<(&'static str, String)>,
}

impl World {
    async fn new() -> World {
        const PLATFORMS: &str = "/api/v2/configuration/platforms";
        const ENVIRONMENTS: &str = "/api/v2/configuration/environments";
        let server = fixture(HttpSettings::default()).await;
        let create = async |path: &str, body: Value| {
            let answer = server.post(path, body).await;
            assert_eq!(answer.status, 201, "{path}: {answer:?}");
            answer.json()["id"].as_str().expect("an id").to_owned()
        };
        let product = server.data_product("sales").await;
        let platform = create(PLATFORMS, json!({"name": "Birds"})).await;
        let services = format!("{PLATFORMS}/{platform}/services");
        let body = json!({"name": "Pigeon", "result_string_template": "{loft}"});
        let service = create(&services, body).await;
        let options = json!({"platform_id": platform, "service_id": service, "config": ["a"]});
        let options = create(&format!("{PLATFORMS}/configs"), options).await;
        let body = json!({"name": "production", "acronym": "prd"});
        let environment = create(ENVIRONMENTS, body).await;
        let configs = format!("{ENVIRONMENTS}/{environment}/configs");
        let body = json!({"platform_id": platform, "config": {}});
        let config = create(&configs, body).await;
        let body = json!({"data_product_id": product, "name": "n", "configuration": {"loft": "l"}});
        let configuration = create("/api/v2/plugins/Pigeon/configurations", body).await;
        World {
            server,
            places: vec![
                ("{plugin}", "Pigeon".to_owned()),
                ("{service_id}", service),
                ("data_products/{id}", format!("data_products/{product}")),
                (
                    "platforms/configs/{id}",
                    format!("platforms/configs/{options}"),
                ),
                ("platforms/{id}", format!("platforms/{platform}")),
                (
                    "environments/configs/{id}",
                    format!("environments/configs/{config}"),
                ),
                ("environments/{id}", format!("environments/{environment}")),
                (
                    "configurations/{id}",
                    format!("configurations/{configuration}"),
                ),
            ],
        }
    }

    /// What is wrong with a body, as the server says, in the form `key` or `key kind`.
    async fn errors(&self, taking: &Taking, body: &Value) -> Vec<Value> {
        let mut path = taking.route.clone();
        for (route, place) in &self.places {
            path = path.replace(route, place);
        }
        assert!(!path.contains('{'), "{path} leads nowhere");
        let answer = self
            .server
            .ask(taking.method, &path, &[], Some(body.clone()))
            .await;
        let what = format!("{} {path} {body}", taking.method);
        // A dry run tells what is wrong as what it found.
        let errors = match taking.route.ends_with("/validate") {
            true => {
                assert_eq!(answer.status, 200, "{what}: {answer:?}");
                answer.json()["errors"].take()
            }
            false => {
                assert_eq!(answer.status, 422, "{what}: {answer:?}");
                answer.detail()
            }
        };
        errors
            .as_array()
            .unwrap_or_else(|| panic!("{what}: {errors}"))
            .clone()
    }
}

/// The keys of a body that errors of a kind are about.
fn keys(errors: &[Value], kind: Option<&str>) -> BTreeSet<String> {
    errors
        .iter()
        .filter(|error| kind.is_none_or(|kind| error["type"] == kind))
        .map(|error| {
            assert_eq!(error["loc"][0], "body", "{error}");
            error["loc"][1]
                .as_str()
                .unwrap_or_else(|| panic!("{error}"))
                .to_owned()
        })
        .collect()
}

/// Something that a property's schema does not allow; none when it allows anything.
fn wrong(schema: &Value) -> Option<Value> {
    let kinds = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        // An enumeration of words stands by its name.
        _ if schema.get("$ref").is_some() || schema.get("oneOf").is_some() => vec!["string"],
        _ => return None,
    };
    let allowed = |kind: &str| kinds.contains(&kind);
    match allowed("string") {
        // A text is the likeliest to be taken for something else, so it is sent where it is wrong.
        false => Some(json!("x")),
        true => Some(json!(true)),
    }
}

#[tokio::test]
async fn what_the_document_requires_is_what_readers_miss() {
    let world = World::new().await;
    let operations = operations(&serde_json::to_value(openapi::document()).expect("JSON"));
    assert!(operations.len() >= 16, "{}", operations.len());
    for taking in &operations {
        let required: BTreeSet<String> = taking.schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|key| key.as_str().expect("a key").to_owned())
            .collect();
        let errors = world.errors(taking, &json!({})).await;
        assert_eq!(keys(&errors, Some("missing")), required, "{}", taking.route);
        assert_eq!(
            keys(&errors, None),
            required,
            "{}: {errors:?}",
            taking.route
        );
    }
}

#[tokio::test]
async fn what_the_document_describes_is_what_readers_read() {
    let world = World::new().await;
    let operations = operations(&serde_json::to_value(openapi::document()).expect("JSON"));
    let mut tried = 0;
    for taking in &operations {
        let properties = taking.schema["properties"].as_object().expect("properties");
        assert!(!properties.is_empty(), "{}", taking.route);
        for (key, schema) in properties {
            let Some(value) = wrong(schema) else {
                assert_eq!(key, "config", "{}: {schema} says nothing", taking.route);
                continue;
            };
            let errors = world.errors(taking, &json!({ key.as_str(): value })).await;
            let told = errors
                .iter()
                .any(|error| error["loc"][1] == key.as_str() && error["type"] != "missing");
            assert!(
                told,
                "{} reads no {key}, or takes {value}: {errors:?}",
                taking.route
            );
            tried += 1;
        }
    }
    assert!(tried >= 45, "{tried}");
}

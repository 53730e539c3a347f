//! Two servers in one process, which share nothing; and one whose database is full.

use serde_json::json;

use super::{fixture, fixture_of};
use crate::HttpSettings;

const OF_PIGEON: &str = "/api/v2/plugins/Pigeon/configurations";

/// Another plugin of the name that the fixture's has, with another version, other fields and another form.
const OTHER: &str = r#"
local field, ui = patchbay.field, patchbay.ui
return patchbay.plugin {
  name = "Pigeon",
  version = "7.0.0",
  fields = { field.integer "rings" { required = true } },
  ui_metadata = function() return { ui.string "rings" { label = "Rings" } } end,
}
"#;

#[tokio::test]
async fn two_servers_in_one_process_share_nothing() {
    let (first, second) = tokio::join!(
        fixture(HttpSettings::default()),
        fixture_of(HttpSettings::default(), OTHER, |_| {}),
    );
    let servers = [
        (&first, "1.0", "loft", json!("north"), 2),
        (&second, "7.0.0", "rings", json!(3), 1),
    ];
    let mut stored = Vec::new();
    // Twice, so that each is asked after the other has kept its answers.
    for round in 0..2 {
        for (server, version, field, value, fields) in &servers {
            let form = server.get("/api/v2/plugins/Pigeon/form").await.json();
            assert_eq!(form["version"], *version, "{form}");
            assert_eq!(form["ui_metadata"][0]["name"], *field, "{form}");
            let list = server.get("/api/v2/plugins").await.json();
            assert_eq!(list["plugins"][0]["version"], *version, "{list}");
            let schema = server.get("/api/v2/plugins/Pigeon/schema").await.json();
            let properties = schema["properties"].as_object().expect("properties");
            let own = properties.keys().filter(|key| *key != "configuration_type");
            assert_eq!(own.count(), *fields, "{schema}");
            // The same namespace is free in each, and a data product of one is none of the other.
            let product = server.data_product(&format!("sales-{round}")).await;
            let body = json!({
                "data_product_id": product, "name": "one", "configuration": { *field: value },
            });
            let answer = server.post(OF_PIGEON, body).await;
            assert_eq!(answer.status, 201, "{answer:?}");
            assert_eq!(answer.json()["configuration"][*field], *value);
            stored.push((product, answer.json()["id"].clone()));
        }
    }
    for (place, (product, id)) in stored.iter().enumerate() {
        let id = id.as_str().expect("an id");
        for (server, (own, _, _, _, _)) in [&first, &second].into_iter().zip(&servers) {
            assert!(std::ptr::eq(server, *own));
            let is_its = std::ptr::eq(server, servers[place % 2].0);
            let wanted = if is_its { 200 } else { 404 };
            for path in [
                format!("data_products/{product}"),
                format!("configurations/{id}"),
            ] {
                let answer = server.get(&format!("/api/v2/{path}")).await;
                assert_eq!(answer.status, wanted, "{path}: {answer:?}");
            }
        }
    }
    // A reload of one is no news for the other.
    std::fs::write(
        first.plugins().join("pigeon.lua"),
        OTHER.replace("7.0.0", "2.0.0"),
    )
    .expect("a plugin");
    let before = second.get("/api/v2/plugins/status").await.json();
    let reloaded = first.post("/api/v2/plugins/reload", json!({})).await;
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    assert_eq!(second.get("/api/v2/plugins/status").await.json(), before);
    let form = second.get("/api/v2/plugins/Pigeon/form").await.json();
    assert_eq!(form["version"], "7.0.0");
}

#[tokio::test]
async fn a_full_database_is_a_503_and_what_it_has_is_read() {
    let server = fixture_of(HttpSettings::default(), super::PLUGIN, |database| {
        database.page_limit = Some(120);
    })
    .await;
    let product = server.data_product("sales").await;
    let body = |name: &str, length: usize| {
        json!({
            "data_product_id": product, "name": name, "description": "d".repeat(9_000),
            "configuration": {"loft": "l".repeat(length)},
        })
    };
    let kept = server.post(OF_PIGEON, body("kept", 1)).await;
    assert_eq!(kept.status, 201, "{kept:?}");
    let refused = server.post(OF_PIGEON, body("large", 800_000)).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.detail(), "Not available at the moment, try again");
    let list = server.get("/api/v2/configurations").await.json();
    let names: Vec<_> = list["configurations"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    assert_eq!(names.len(), 1, "{list}");
    assert_eq!(names[0]["name"], "kept");
    let small = server.post(OF_PIGEON, body("small", 1)).await;
    assert_eq!(small.status, 201, "what fits is still taken: {small:?}");
}

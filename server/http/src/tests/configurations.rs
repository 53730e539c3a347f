//! Stored configurations: their revisions as ETags, pages, history and export.

use serde_json::{Value, json};

use super::{Answer, Fixture, fixture};
use crate::{ApiToken, HttpSettings};

const OF_PIGEON: &str = "/api/v2/plugins/Pigeon/configurations";

fn body(product: &str, name: &str) -> Value {
    json!({"data_product_id": product, "name": name, "configuration": {"loft": "north"}})
}

async fn stored(server: &Fixture, product: &str, name: &str) -> Answer {
    let answer = server.post(OF_PIGEON, body(product, name)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer
}

#[tokio::test]
async fn a_write_carries_the_revision_and_a_stale_one_is_refused() {
    let server = fixture(HttpSettings::default()).await;
    let product = server.data_product("sales").await;
    let created = stored(&server, &product, "one").await;
    let path = created.header("location").to_owned();
    assert_eq!(
        path,
        format!(
            "/api/v2/configurations/{}",
            created.json()["id"].as_str().expect("an id")
        )
    );
    assert!(created.header("etag").starts_with("\"1-"), "{created:?}");
    assert_eq!(
        created.json()["configuration"],
        json!({"configuration_type": "Pigeon", "loft": "north", "speed": "slow"})
    );
    let read = server.get(&path).await;
    assert_eq!(
        (read.header("etag"), read.json()),
        (created.header("etag"), created.json())
    );

    let change = json!({"configuration": {"loft": "south"}});
    let first = [("if-match", created.header("etag"))];
    let patched = server
        .ask("PATCH", &path, &first, Some(change.clone()))
        .await;
    assert_eq!(patched.status, 200, "{patched:?}");
    assert!(patched.header("etag").starts_with("\"2-"), "{patched:?}");
    assert_eq!(patched.json()["configuration"]["loft"], "south");
    for method in ["PATCH", "PUT", "DELETE"] {
        let content = (method != "DELETE").then(|| body(&product, "one"));
        let stale = server.ask(method, &path, &first, content).await;
        assert_eq!(stale.status, 412, "{method} {stale:?}");
    }
    let any = [("if-match", "*")];
    let replaced = server
        .ask("PUT", &path, &any, Some(body(&product, "one")))
        .await;
    assert!(replaced.header("etag").starts_with("\"3-"), "{replaced:?}");

    let gone = server
        .ask("DELETE", &path, &[("if-match", "\"3\"")], None)
        .await;
    assert_eq!((gone.status.as_u16(), gone.body.len()), (204, 0));
    assert_eq!(server.get(&path).await.status, 404);
    let history = server.get(&format!("{path}/history")).await.json();
    let entries = history["history"].as_array().expect("a list");
    assert_eq!(entries.len(), 4);
    assert!(
        entries.iter().all(|entry| entry["changed_by"] == "local"),
        "{history}"
    );
}

#[tokio::test]
async fn the_history_names_the_token() {
    let server = fixture(HttpSettings {
        token: Some(ApiToken::new("portal", "s3cret")),
        ..HttpSettings::default()
    })
    .await;
    let key = [("x-key", "s3cret")];
    let product = json!({"name": "p", "namespace": "p", "domain": "d"});
    let product = server
        .ask("POST", "/api/v2/data_products", &key, Some(product))
        .await
        .json();
    let content = body(product["id"].as_str().expect("an id"), "one");
    let created = server.ask("POST", OF_PIGEON, &key, Some(content)).await;
    let path = format!("{}/history", created.header("location"));
    let history = server.ask("GET", &path, &key, None).await.json();
    assert_eq!(history["history"][0]["changed_by"], "portal", "{history}");
}

#[tokio::test]
async fn lists_page_and_the_export_has_a_line_for_each() {
    let server = fixture(HttpSettings::default()).await;
    let product = server.data_product("sales").await;
    for name in ["one", "two", "three"] {
        stored(&server, &product, name).await;
    }
    let mut path = format!("{OF_PIGEON}?limit=2");
    let mut names = Vec::new();
    loop {
        let page = server.get(&path).await.json();
        let items = page["configurations"].as_array().expect("a list");
        names.extend(items.iter().map(|item| item["name"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("{OF_PIGEON}?limit=2&cursor={cursor}");
    }
    assert_eq!(names, ["three", "two", "one"]);
    let filtered = server
        .get("/api/v2/configurations?plugin=Dove&q=TW")
        .await
        .json();
    assert_eq!(
        filtered["configurations"].as_array().map(Vec::len),
        Some(1),
        "{filtered}"
    );

    let export = server.get("/api/v2/configurations/export").await;
    assert_eq!(export.header("content-type"), "application/x-ndjson");
    let text = String::from_utf8(export.body.to_vec()).expect("text");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("json"))
        .collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line["plugin"] == "Pigeon"));

    for query in ["limit=0", "limit=x", "cursor=nope", "data_product_id=nope"] {
        let name = query.split('=').next().expect("a name");
        for list in [OF_PIGEON, "/api/v2/configurations"] {
            let bad = server.get(&format!("{list}?{query}")).await;
            assert_eq!(bad.status, 422, "{query}");
            assert_eq!(bad.detail()[0]["loc"], json!(["query", name]), "{bad:?}");
        }
    }
    assert_eq!(
        server
            .get("/api/v2/plugins/Nobody/configurations")
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn a_plugin_is_shown_from_every_side() {
    let server = fixture(HttpSettings::default()).await;
    for (path, key) in [
        ("/api/v2/plugins/Dove", "aliases"),
        ("/api/v2/plugins/status", "plugins"),
        ("/api/v2/plugins/migrations", "migrations"),
        ("/api/v2/plugins/Pigeon/schema", "properties"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_ne!(answer.header("etag"), "");
        assert!(!answer.json()[key].is_null(), "{answer:?}");
    }
    assert_eq!(server.get("/api/v2/plugins/Pigeon/icon").await.status, 404);
    let url = server.get("/api/v2/plugins/pigeon/url?id=nope").await;
    assert!([422, 501].contains(&url.status.as_u16()), "{url:?}");
    let dry = server
        .post(
            "/api/v2/plugins/Pigeon/validate",
            json!({"configuration": {}}),
        )
        .await;
    assert_eq!(
        (dry.status.as_u16(), &dry.json()["valid"]),
        (200, &json!(false)),
        "{dry:?}"
    );
    let svg = "<svg xmlns=\"http://www.w3.org/2000/svg\"/>";
    std::fs::write(server.plugins().join("pigeon-logo.svg"), svg).expect("written");
    server
        .ask("POST", "/api/v2/plugins/reload", &[], None)
        .await;
    let icon = server.get("/api/v2/plugins/Pigeon/icon").await;
    assert_eq!(icon.header("content-type"), "image/svg+xml", "{icon:?}");
    assert!(
        icon.header("content-security-policy")
            .starts_with("sandbox; default-src 'none'")
    );
    assert_eq!(icon.body, svg);
}

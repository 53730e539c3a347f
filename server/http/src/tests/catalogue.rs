//! The catalogue and data products: written, read in the shapes of the origin, refused, deleted.

use serde_json::{Value, json};

use super::{Fixture, fixture};
use crate::HttpSettings;

const PLATFORMS: &str = "/api/v2/configuration/platforms";
const ENVIRONMENTS: &str = "/api/v2/configuration/environments";

async fn created(server: &Fixture, path: &str, body: Value) -> (String, Value) {
    let answer = server.post(path, body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let json = answer.json();
    let id = json["id"].as_str().expect("an id").to_owned();
    assert!(answer.header("location").ends_with(&id));
    (id, json)
}

#[tokio::test]
async fn platforms_services_and_options_nest_as_in_the_origin() {
    let server = fixture(HttpSettings::default()).await;
    let (platform_id, platform) = created(&server, PLATFORMS, json!({"name": "AWS"})).await;
    assert_eq!(platform, json!({"id": platform_id, "name": "AWS"}));
    assert_eq!(
        server.get(PLATFORMS).await.json(),
        json!({"platforms": [platform]})
    );
    assert_eq!(
        server
            .get(&format!("{PLATFORMS}/{platform_id}"))
            .await
            .json(),
        platform
    );

    let services = format!("{PLATFORMS}/{platform_id}/services");
    let body = json!({"name": "Glue", "result_string_template": "{database}"});
    let (service_id, service) = created(&server, &services, body).await;
    let wanted = json!({
        "id": service_id, "name": "Glue", "platform": platform,
        "result_string_template": "{database}", "technical_info_template": "{database}",
    });
    assert_eq!(service, wanted);
    assert_eq!(
        server.get(&services).await.json(),
        json!({"platform_services": [wanted]})
    );

    let of_service = format!("{services}/{service_id}");
    let missing = server.get(&of_service).await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.detail(), "Platform service configuration not found");
    let configs = format!("{PLATFORMS}/configs");
    let body = json!({"platform_id": platform_id, "service_id": service_id, "config": ["clean"]});
    let (config_id, config) = created(&server, &configs, body.clone()).await;
    let wanted = json!({
        "id": config_id, "platform": platform, "service": service, "config": ["clean"],
    });
    assert_eq!(config, wanted);
    assert_eq!(server.get(&of_service).await.json(), wanted);
    assert_eq!(
        server.get(&format!("{configs}/{config_id}")).await.json(),
        wanted
    );
    let all = json!({"platform_service_configurations": [wanted]});
    assert_eq!(server.get(&configs).await.json(), all);
    assert_eq!(server.post(&configs, body).await.status, 409);

    let replaced = server
        .put(&format!("{configs}/{config_id}"), json!({"config": []}))
        .await;
    assert_eq!(
        (replaced.status.as_u16(), &replaced.json()["config"]),
        (200, &json!([]))
    );
    let body =
        json!({"name": "Glue", "result_string_template": "a", "technical_info_template": "b"});
    let replaced = server.put(&of_service, body).await;
    assert_eq!(
        replaced.json()["technical_info_template"],
        "b",
        "{replaced:?}"
    );
    let renamed = server
        .put(
            &format!("{PLATFORMS}/{platform_id}"),
            json!({"name": "Amazon"}),
        )
        .await;
    assert_eq!(renamed.json()["name"], "Amazon");

    for path in [
        format!("{configs}/{config_id}"),
        of_service,
        format!("{PLATFORMS}/{platform_id}"),
    ] {
        let gone = server.delete(&path).await;
        assert_eq!((gone.status.as_u16(), gone.body.len()), (204, 0), "{path}");
        assert_eq!(server.delete(&path).await.status, 404, "{path}");
    }
    assert_eq!(server.get(&services).await.detail(), "Platform not found");
}

#[tokio::test]
async fn environments_hold_what_platforms_and_services_are_in_them_without_secrets() {
    let server = fixture(HttpSettings::default()).await;
    let (platform_id, platform) = created(&server, PLATFORMS, json!({"name": "PostgreSQL"})).await;
    let services = format!("{PLATFORMS}/{platform_id}/services");
    let body = json!({"name": "PostgreSQL", "result_string_template": "{database}"});
    let (service_id, service) = created(&server, &services, body).await;
    let body = json!({"name": "production", "acronym": "prd"});
    let (environment_id, environment) = created(&server, ENVIRONMENTS, body).await;
    let wanted = json!({
        "id": environment_id, "name": "production", "acronym": "prd", "context": "", "is_default": false,
    });
    assert_eq!(environment, wanted);
    assert_eq!(
        server.get(ENVIRONMENTS).await.json(),
        json!({"environments": [wanted]})
    );

    let configs = format!("{ENVIRONMENTS}/{environment_id}/configs");
    let entry = json!({"identifier": "db", "host": "h", "admin_pwd": "hush"});
    let body = json!({"platform_id": platform_id, "service_id": service_id, "config": [entry]});
    let (config_id, config) = created(&server, &configs, body).await;
    let wanted = json!({
        "id": config_id, "environment": environment, "platform": platform, "service": service,
        "config": [{"identifier": "db", "host": "h", "admin_pwd": ""}],
    });
    assert_eq!(config, wanted);
    let body = json!({"platform_id": platform_id, "config": {"region": "eu"}});
    let (own_id, own) = created(&server, &configs, body).await;
    assert_eq!(
        own,
        json!({"id": own_id, "environment": environment, "platform": platform, "config": {"region": "eu"}})
    );

    let of_service = format!("platforms/{platform_id}/services/{service_id}/config");
    let list = json!({"environment_configs": [wanted]});
    for (path, found) in [
        (configs.clone(), &list),
        (format!("{ENVIRONMENTS}/{of_service}"), &list),
        (
            format!("{ENVIRONMENTS}/{environment_id}/{of_service}"),
            &wanted,
        ),
        (format!("{ENVIRONMENTS}/configs/{config_id}"), &wanted),
        (
            format!("{ENVIRONMENTS}/{environment_id}/platforms/{platform_id}/config"),
            &own,
        ),
    ] {
        assert_eq!(&server.get(&path).await.json(), found, "{path}");
    }

    let one = format!("{ENVIRONMENTS}/configs/{config_id}");
    let kept = json!({"config": [{"identifier": "db", "host": "i", "admin_pwd": ""}]});
    let answer = server.put(&one, kept.clone()).await;
    assert_eq!(answer.json()["config"], kept["config"], "{answer:?}");
    // A secret is not lost by a new name, and not given to a second entry.
    for (entries, place) in [
        (
            json!([{"identifier": "renamed", "admin_pwd": ""}]),
            json!([0, "admin_pwd"]),
        ),
        (
            json!([{"identifier": "db", "admin_pwd": ""}, {"identifier": "db", "admin_pwd": ""}]),
            json!([1, "identifier"]),
        ),
    ] {
        let wrong = server.put(&one, json!({"config": entries})).await;
        assert_eq!(wrong.status, 422, "{wrong:?}");
        assert_eq!(
            wrong.detail()[0]["loc"],
            json!(["body", "config", place[0], place[1]])
        );
    }
    let cleared = json!({"config": [{"identifier": "db", "admin_pwd": null}]});
    let answer = server.put(&one, cleared).await;
    assert_eq!(answer.json()["config"], json!([{"identifier": "db"}]));

    let wrong = server
        .put(&one, json!({"config": {"identifier": "db"}}))
        .await;
    assert_eq!(wrong.status, 422);
    assert_eq!(wrong.detail()[0]["type"], "list_type");
    let wrong = server.put(&one, json!({"config": [{}]})).await;
    assert_eq!(
        wrong.detail()[0]["loc"],
        json!(["body", "config", 0, "identifier"])
    );

    let path = format!("{ENVIRONMENTS}/{environment_id}");
    let body = json!({"name": "prod", "acronym": "prd", "context": "c", "is_default": true});
    assert_eq!(server.put(&path, body).await.json()["is_default"], true);
    assert_eq!(server.delete(&one).await.status, 204);
    assert_eq!(server.delete(&path).await.status, 204);
    assert_eq!(server.get(&path).await.detail(), "Environment not found");
    assert_eq!(server.get(&configs).await.detail(), "Environment not found");
}

#[tokio::test]
async fn ids_are_checked_and_unknown_ones_not_found() {
    let server = fixture(HttpSettings::default()).await;
    let nil = "00000000-0000-0000-0000-000000000000";
    for (path, detail) in [
        (format!("{PLATFORMS}/{nil}"), "Platform not found"),
        (
            format!("{PLATFORMS}/configs/{nil}"),
            "Platform service configuration not found",
        ),
        (format!("{ENVIRONMENTS}/{nil}"), "Environment not found"),
        (
            format!("{ENVIRONMENTS}/configs/{nil}"),
            "Environment configuration not found",
        ),
        (
            format!("{ENVIRONMENTS}/platforms/{nil}/services/{nil}/config"),
            "Platform service not found",
        ),
        (
            format!("{ENVIRONMENTS}/{nil}/platforms/{nil}/config"),
            "Environment configuration not found",
        ),
        (
            format!("/api/v2/data_products/{nil}"),
            "Data product not found",
        ),
        (
            format!("/api/v2/configurations/{nil}"),
            "Configuration not found",
        ),
    ] {
        let answer = server.get(&path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.detail()),
            (404, json!(detail)),
            "{path}"
        );
        let bad = server.get(&path.replace(nil, "nope")).await;
        assert_eq!(bad.status, 422, "{path}");
        assert_eq!(bad.detail()[0]["type"], "value_error");
        assert_eq!(bad.detail()[0]["loc"][0], "path");
    }
    let body = json!({"platform_id": nil, "service_id": nil, "config": []});
    assert_eq!(
        server
            .post(&format!("{PLATFORMS}/configs"), body)
            .await
            .status,
        404
    );
    let many = server.post(PLATFORMS, json!({})).await;
    assert_eq!(
        many.detail(),
        json!([{"type": "missing", "loc": ["body", "name"], "msg": "Field required", "input": {}}])
    );
    assert_eq!(
        server.post(PLATFORMS, json!([])).await.detail()[0]["type"],
        "dict_type"
    );
    assert_eq!(
        server.post(PLATFORMS, json!("{\"a")).await.detail()[0]["type"],
        "json_invalid"
    );
}

#[tokio::test]
async fn data_products_are_paged_unique_and_well_named() {
    let server = fixture(HttpSettings::default()).await;
    let path = "/api/v2/data_products";
    let mut ids = Vec::new();
    for namespace in ["a", "b", "c"] {
        ids.push(server.data_product(namespace).await);
    }
    let first = server.get(&format!("{path}?limit=2")).await.json();
    let names = |page: &Value| -> Vec<String> {
        let items = page["data_products"].as_array().expect("a list");
        items
            .iter()
            .map(|item| item["namespace"].as_str().expect("text").to_owned())
            .collect()
    };
    assert_eq!(names(&first), ["a", "b"]);
    let cursor = first["next_cursor"].as_str().expect("a cursor");
    let second = server
        .get(&format!("{path}?limit=2&cursor={cursor}"))
        .await
        .json();
    assert_eq!(
        (names(&second), &second["next_cursor"]),
        (vec!["c".to_owned()], &Value::Null)
    );
    let bad = server.get(&format!("{path}?cursor=%00")).await;
    assert_eq!(
        (bad.status.as_u16(), &bad.detail()[0]["loc"]),
        (422, &json!(["query", "cursor"]))
    );

    for (namespace, status) in [
        ("a", 409),
        ("", 422),
        ("Upper", 422),
        ("a b", 422),
        ("ok+=,.@_-", 201),
    ] {
        let body = json!({"name": "n", "namespace": namespace, "domain": "d"});
        assert_eq!(server.post(path, body).await.status, status, "{namespace}");
    }
    let id = "6a1f7cfa-0b3c-4c0a-9d0e-5b8d6f1f0a11";
    let body = json!({"id": id, "name": "n", "namespace": "own-id", "domain": "d"});
    assert_eq!(created(&server, path, body).await.0, id);

    let one = format!("{path}/{}", ids[0]);
    let body = json!({"name": "n", "namespace": "z", "domain": "d"});
    let replaced = server.put(&one, body).await;
    assert_eq!(
        replaced.json(),
        json!({"id": ids[0], "name": "n", "namespace": "z", "domain": "d"})
    );
    assert_eq!(server.get(&one).await.json(), replaced.json());
    assert_eq!(server.delete(&one).await.status, 204);
    assert_eq!(server.get(&one).await.status, 404);
}

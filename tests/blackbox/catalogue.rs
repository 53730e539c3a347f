//! Platforms, services, environments and data products.

use serde_json::{Value, json};

use crate::harness::{Http, Server, for_each_database};
use crate::world::assert_same_text;

const NOWHERE: &str = "00000000-0000-4000-8000-000000000000";

async fn created(server: &Http, path: &str, body: Value) -> String {
    let answer = server.post(path, &body).await.is(201);
    let created = answer.json();
    let id = created["id"].as_str().expect("an id").to_owned();
    assert!(
        answer.header("location").ends_with(&id),
        "{}",
        answer.header("location")
    );
    id
}

#[tokio::test]
async fn the_default_catalogue_reads_as_in_the_origin() {
    for_each_database(async |database| {
    let server = Server::on(database);
    let platforms = server.get("configuration/platforms").await.is(200).json();
    let names: Vec<&Value> = platforms["platforms"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|platform| &platform["name"])
        .collect();
    assert_eq!(
        names,
        [
            "AWS",
            "Azure",
            "Databricks",
            "OSI",
            "PostgreSQL",
            "Snowflake"
        ]
    );
    let (aws, glue) = server.service("AWS", "Glue").await;
    let services = server
        .get(&format!("configuration/platforms/{aws}/services"))
        .await
        .is(200)
        .json();
    let services = services["platform_services"].as_array().expect("a list");
    assert_eq!(services.len(), 4);
    let platform = json!({ "id": aws, "name": "AWS" });
    let template = "{database}__{database_suffix}.{table}";
    let service = json!({
        "id": glue, "name": "Glue", "platform": platform, "result_string_template": template,
        "technical_info_template": template,
    });
    assert!(services.contains(&service), "{services:?}");
    let options = server
        .get(&format!("configuration/platforms/{aws}/services/{glue}"))
        .await
        .is(200)
        .json();
    let expected = json!({ "id": options["id"], "platform": platform, "service": service, "config": ["clean", "master"] });
    assert_same_text(&options, &expected);
    let all = server
        .get("configuration/platforms/configs")
        .await
        .is(200)
        .json();
    let all = all["platform_service_configurations"]
        .as_array()
        .expect("a list");
    assert_eq!(all.len(), 9);
    assert!(all.contains(&options));
    let id = options["id"].as_str().expect("an id");
    assert_same_text(
        &server
            .get(&format!("configuration/platforms/configs/{id}"))
            .await
            .is(200)
            .json(),
        &options,
    );

    let environments = server
        .get("configuration/environments")
        .await
        .is(200)
        .json();
    let development = environments["environments"][0].clone();
    let expected = json!({
        "id": development["id"], "name": "development", "acronym": "dev",
        "context": "arn:aws:iam::111111111111:role/{{}}-dev", "is_default": true,
    });
    assert_same_text(&development, &expected);
    assert_eq!(environments["environments"][1]["acronym"], "prd");
    let environment = development["id"].as_str().expect("an id");
    let path = format!("configuration/environments/{environment}");
    assert_same_text(&server.get(&path).await.is(200).json(), &development);
    let of_platform = server
        .get(&format!("{path}/platforms/{aws}/config"))
        .await
        .is(200)
        .json();
    assert_eq!(of_platform["environment"], development);
    assert_eq!(of_platform["platform"], platform);
    assert_eq!(of_platform["config"]["account_id"], "111111111111");
    let of_service = server
        .get(&format!("{path}/platforms/{aws}/services/{glue}/config"))
        .await
        .is(200)
        .json();
    assert_eq!(of_service["service"], service);
    assert_eq!(of_service["config"][0]["identifier"], "clean");
    let id = of_service["id"].as_str().expect("an id");
    let by_id = server
        .get(&format!("configuration/environments/configs/{id}"))
        .await
        .is(200)
        .json();
    assert_same_text(&by_id, &of_service);
    let configs = server.get(&format!("{path}/configs")).await.is(200).json();
    assert!(
        configs["environment_configs"]
            .as_array()
            .expect("a list")
            .contains(&of_service)
    );
    let everywhere = format!("configuration/environments/platforms/{aws}/services/{glue}/config");
    let everywhere = server.get(&everywhere).await.is(200).json();
    let everywhere = everywhere["environment_configs"]
        .as_array()
        .expect("a list");
    assert_eq!(everywhere.len(), 2);
    assert!(everywhere.contains(&of_service));
}).await;
}

#[tokio::test]
async fn what_is_unknown_is_a_404_that_says_what() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let (aws, glue) = server.service("AWS", "Glue").await;
        let development = server.environment("development").await;
        for (path, what) in [
            (
                format!("configuration/platforms/{NOWHERE}/services"),
                "Platform",
            ),
            (
                format!("configuration/platforms/{aws}/services/{NOWHERE}"),
                "Platform service configuration",
            ),
            (
                format!("configuration/platforms/{NOWHERE}/services/{glue}"),
                "Platform service configuration",
            ),
            (
                format!("configuration/platforms/configs/{NOWHERE}"),
                "Platform service configuration",
            ),
            (
                format!("configuration/environments/{NOWHERE}"),
                "Environment",
            ),
            (
                format!("configuration/environments/{NOWHERE}/configs"),
                "Environment",
            ),
            (
                format!("configuration/environments/configs/{NOWHERE}"),
                "Environment configuration",
            ),
            (
                format!("configuration/environments/{development}/platforms/{NOWHERE}/config"),
                "Environment configuration",
            ),
            (format!("data_products/{NOWHERE}"), "Data product"),
            (format!("configurations/{NOWHERE}"), "Configuration"),
            (format!("configurations/{NOWHERE}/history"), "Configuration"),
        ] {
            assert_eq!(
                server.get(&path).await.error(404),
                format!("{what} not found"),
                "{path}"
            );
        }
        for path in [
            "configuration/environments/nope",
            "data_products/nope",
            "configurations/nope",
        ] {
            let detail = server.get(path).await.error(422);
            assert_eq!(detail[0]["loc"][0], "path", "{path}: {detail}");
        }
        for path in [
            format!("configuration/platforms/{NOWHERE}"),
            format!("configuration/platforms/configs/{NOWHERE}"),
            format!("configuration/environments/{NOWHERE}"),
            format!("configuration/environments/configs/{NOWHERE}"),
            format!("data_products/{NOWHERE}"),
            format!("configurations/{NOWHERE}"),
        ] {
            server.delete(&path).await.error(404);
        }
    })
    .await;
}

#[tokio::test]
async fn the_catalogue_can_be_written_and_forms_follow() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.file(
                "lua-plugins/lake.lua",
                crate::world::plugin("LakeDataOutput", LAKE),
            );
        });
        let form = || async {
            server
                .get("plugins/LakeDataOutput/form")
                .await
                .is(200)
                .json()
        };
        let options = |form: &Value| form["ui_metadata"][0]["select"]["options"].clone();
        let unconfigured = form().await;
        assert_eq!(unconfigured["not_configured"], true);
        assert_eq!(unconfigured["ui_metadata"], json!([]));
        assert_eq!(unconfigured["state"], "active");

        let platform = created(
            &server,
            "configuration/platforms",
            json!({ "name": "Lakes" }),
        )
        .await;
        let services = format!("configuration/platforms/{platform}/services");
        let template = json!({ "name": "Lake", "result_string_template": "{path}" });
        let service = created(&server, &services, template).await;
        let stored = server.get(&services).await.is(200).json();
        assert_eq!(
            stored["platform_services"][0]["technical_info_template"],
            "{path}"
        );
        assert_eq!(
            form().await["not_configured"],
            true,
            "a service without options"
        );

        let body = json!({ "platform_id": platform, "service_id": service, "config": [] });
        let config = created(&server, "configuration/platforms/configs", body).await;
        let configured = form().await;
        assert_eq!(
            configured["not_configured"], false,
            "an empty list counts as configured"
        );
        assert_eq!(options(&configured), json!([]));

        let path = format!("configuration/platforms/configs/{config}");
        for config in [json!(["a"]), json!(["b", "a"])] {
            server
                .put(&path, &json!({ "config": config }))
                .await
                .is(200);
            let values: Vec<Value> = options(&form().await)
                .as_array()
                .expect("a list")
                .iter()
                .map(|o| o["value"].clone())
                .collect();
            assert_eq!(json!(values), config);
        }
        server.delete(&path).await.is(204);
        assert_eq!(form().await["not_configured"], true);
        server
            .delete(&format!("{services}/{service}"))
            .await
            .is(204);
        server
            .delete(&format!("configuration/platforms/{platform}"))
            .await
            .is(204);
        server.get(&services).await.error(404);
    })
    .await;
}

const LAKE: &str = r#"
    ui_metadata = function(db)
        return { ui.select "path" { label = "Path", options = db:platform_options() } }
    end,
"#;

#[tokio::test]
async fn environments_can_be_written() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let (aws, glue) = server.service("AWS", "Glue").await;
        let body =
            json!({ "name": "staging", "acronym": "stg", "context": "c", "is_default": true });
        let staging = created(&server, "configuration/environments", body.clone()).await;
        let all = server
            .get("configuration/environments")
            .await
            .is(200)
            .json();
        let defaults: Vec<&Value> = all["environments"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|environment| environment["is_default"] == true)
            .map(|environment| &environment["name"])
            .collect();
        assert_eq!(defaults, ["staging"], "there is one default");
        server
            .post("configuration/environments", &body)
            .await
            .error(409);
        let path = format!("configuration/environments/{staging}");
        let changed =
            json!({ "name": "staging", "acronym": "st", "context": "", "is_default": false });
        assert_eq!(
            server.put(&path, &changed).await.is(200).json()["acronym"],
            "st"
        );

        let configs = format!("{path}/configs");
        let entries = json!([{ "identifier": "clean", "database_name": "clean_stg" }]);
        let body = json!({ "platform_id": aws, "service_id": glue, "config": entries });
        let config = created(&server, &configs, body.clone()).await;
        server.post(&configs, &body).await.error(409);
        let config = format!("configuration/environments/configs/{config}");
        assert_eq!(server.get(&config).await.is(200).json()["config"], entries);
        for wrong in [
            json!({ "config": {} }),
            json!({ "config": [{}] }),
            json!({ "config": "x" }),
            json!({}),
        ] {
            server.put(&config, &wrong).await.error(422);
        }
        server.delete(&config).await.is(204);
        server.get(&config).await.error(404);
        server.delete(&path).await.is(204);
        server.get(&path).await.error(404);
    })
    .await;
}

#[tokio::test]
async fn a_secret_goes_in_and_never_comes_out() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database).env("ENABLED_PLUGINS", "PostgreSQLDataOutput");
            // A plugin that tries to show whatever it can read.
            options.file("lua-plugins/spy.lua", crate::world::plugin("PostgreSQL2DataOutput", SPY));
        });
        let (platform, service) = server.service("PostgreSQL", "PostgreSQL").await;
        let development = server.environment("development").await;
        let path =
            format!("configuration/environments/{development}/platforms/{platform}/services/{service}/config");
        let id = server.get(&path).await.is(200).json()["id"].as_str().expect("an id").to_owned();
        let write = format!("configuration/environments/configs/{id}");
        let entry = |secret: Value| {
            let entry = json!({
                "identifier": "warehouse", "host": "h", "port": 5432, "admin_user": "a", "admin_pwd": secret,
            });
            json!({ "config": [entry] })
        };
        let stored = async || {
            let sql = format!(
                "SELECT CAST(config AS text) FROM environment_configurations WHERE CAST(id AS text) = '{id}'"
            );
            let config = database.texts(&server.folder, &sql).await;
            serde_json::from_str::<Value>(&config[0]).expect("JSON")[0]["admin_pwd"].clone()
        };
        for (sent, out, kept) in [
            (json!("hunter2"), json!(""), json!("hunter2")),
            // Blank, as it was read, keeps what is stored.
            (json!(""), json!(""), json!("hunter2")),
            (json!("other"), json!(""), json!("other")),
            // Null clears it.
            (Value::Null, Value::Null, Value::Null),
            (json!(""), Value::Null, Value::Null),
        ] {
            let answer = server.put(&write, &entry(sent.clone())).await.is(200);
            assert_eq!(answer.json()["config"][0]["admin_pwd"], out, "{sent}");
            assert_eq!(stored().await, kept, "{sent}");
            let all = format!("configuration/environments/{development}/configs");
            for path in [&path, &write, &all] {
                let text = server.get(path).await.is(200).text();
                assert!(!text.contains("hunter2") && !text.contains("other"), "{text}");
            }
        }
        server.put(&write, &entry(json!("hunter2"))).await.is(200);
        let product = server.data_product("sales", "sales").await;
        let link = format!("plugins/PostgreSQL2DataOutput/url?id={product}&environment=development");
        assert_eq!(server.get(&link).await.is(200).json()["url"], "https://h/nil");
        let log = server.logged();
        assert!(!log.contains("hunter2"), "{log}");
    })
    .await;
}

#[tokio::test]
async fn a_secret_in_a_wrong_body_is_not_repeated() {
    for_each_database(async |database| {
    let server = Server::on(database);
    let (platform, service) = server.service("PostgreSQL", "PostgreSQL").await;
    let development = server.environment("development").await;
    let of_service = format!(
        "configuration/environments/{development}/platforms/{platform}/services/{service}/config"
    );
    let id = server.get(&of_service).await.is(200).json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let write = format!("configuration/environments/configs/{id}");
    let create = format!("configuration/environments/{development}/configs");
    let entry = json!({ "admin_pwd": "hunter2" });
    for body in [
        json!({ "config": [entry] }),
        json!({ "config": entry }),
        json!({ "config": [{ "identifier": 5, "admin_pwd": "hunter2" }] }),
        json!({ "cofnig": [entry] }),
        json!([entry]),
    ] {
        let refused = server.put(&write, &body).await;
        assert!(!refused.text().contains("hunter2"), "{}", refused.summary());
        refused.error(422);
        let refused = server.post(&create, &body).await;
        assert!(!refused.text().contains("hunter2"), "{}", refused.summary());
        refused.error(422);
    }
    let log = server.logged();
    assert!(!log.contains("hunter2"), "{log}");
}).await;
}

const SPY: &str = r#"
    platform = { platform_key = "postgresql" },
    table = "spy",
    url = function(context, db)
        local entry = db:service_configuration(context.environment)[1]
        return "https://" .. entry.host .. "/" .. tostring(entry.admin_pwd)
    end,
"#;

#[tokio::test]
async fn names_are_unique_and_what_is_referred_to_stays() {
    for_each_database(async |database| {
        let server = Server::on(database);
        server
            .post("configuration/platforms", &json!({ "name": "AWS" }))
            .await
            .error(409);
        let (snowflake, service) = server.service("Snowflake", "Snowflake").await;
        let services = format!("configuration/platforms/{snowflake}/services");
        let body = json!({ "name": "Snowflake", "result_string_template": "" });
        server.post(&services, &body).await.error(409);
        let body = json!({ "platform_id": snowflake, "service_id": service, "config": [] });
        server
            .post("configuration/platforms/configs", &body)
            .await
            .error(409);

        let sales = server.data_product("sales", "sales").await;
        let configuration = json!({ "database": "sales", "access_granularity": "schema" });
        let id = server
            .configured("SnowflakeDataOutput", &sales, "n", configuration)
            .await;
        for path in [
            format!("data_products/{sales}"),
            format!("configuration/platforms/{snowflake}"),
            format!("{services}/{service}"),
        ] {
            server.delete(&path).await.error(409);
        }
        server.delete(&format!("configurations/{id}")).await.is(204);
        server
            .delete(&format!("{services}/{service}"))
            .await
            .is(204);
        server
            .delete(&format!("configuration/platforms/{snowflake}"))
            .await
            .is(204);
        server
            .delete(&format!("data_products/{sales}"))
            .await
            .is(204);
    })
    .await;
}

#[tokio::test]
async fn data_products_are_read_and_written() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let body = json!({ "name": "Sales of Europe", "namespace": "sales-eu", "domain": "sales" });
        let id = created(&server, "data_products", body.clone()).await;
        let path = format!("data_products/{id}");
        let expected =
            json!({ "id": id, "name": "Sales of Europe", "namespace": "sales-eu", "domain": "sales" });
        assert_same_text(&server.get(&path).await.is(200).json(), &expected);
        server.post("data_products", &body).await.error(409);
        let changed = json!({ "name": "Sales", "namespace": "sales", "domain": "s" });
        assert_eq!(server.put(&path, &changed).await.is(200).json()["namespace"], "sales");
        created(&server, "data_products", body).await;
        let list = server.get("data_products").await.is(200).json();
        let namespaces: Vec<&Value> =
            list["data_products"].as_array().expect("a list").iter().map(|product| &product["namespace"]).collect();
        assert_eq!(namespaces, ["sales", "sales-eu"]);
        for namespace in ["a", "a+=,.@_-9", &"x".repeat(64)] {
            created(&server, "data_products", json!({ "name": "n", "namespace": namespace, "domain": "d" })).await;
        }
        for namespace in ["", "A", "a b", "é", "a/b", &"x".repeat(65)] {
            let body = json!({ "name": "n", "namespace": namespace, "domain": "d" });
            let detail = server.post("data_products", &body).await.error(422);
            assert_eq!(detail[0]["loc"], json!(["body", "namespace"]), "{namespace}: {detail}");
        }
        let detail = server.post("data_products", &json!({ "namespace": 1 })).await.error(422);
        let wrong: Vec<(&Value, &Value)> =
            detail.as_array().expect("a list").iter().map(|error| (&error["type"], &error["loc"][1])).collect();
        let (missing, string_type) = (json!("missing"), json!("string_type"));
        let (name, namespace, domain) = (json!("name"), json!("namespace"), json!("domain"));
        assert_eq!(wrong, [(&missing, &name), (&string_type, &namespace), (&missing, &domain)]);
        server.delete(&path).await.is(204);
        server.delete(&path).await.error(404);
    })
    .await;
}

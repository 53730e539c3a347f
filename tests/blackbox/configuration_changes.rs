//! What becomes of a stored configuration: changes, races, history, and the end of its plugin.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Http, Server, for_each_database};
use crate::world::{bigquery, snowflake};

fn each<'a>(list: &'a Value, key: &str) -> Vec<&'a Value> {
    list.as_array()
        .expect("a list")
        .iter()
        .map(|item| &item[key])
        .collect()
}

async fn with_if_match(
    server: &Http,
    method: Method,
    path: &str,
    if_match: &str,
    body: &Value,
) -> Answer {
    server
        .send(method, path, |request| {
            request.header("if-match", if_match).json(body)
        })
        .await
}

#[tokio::test]
async fn a_configuration_is_replaced_changed_and_deleted_and_its_history_stays() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let product = server.data_product("sales", "sales").await;
        let id = server
            .configured("SnowflakeDataOutput", &product, "n", snowflake("sales"))
            .await;
        let path = format!("configurations/{id}");
        let body = json!({
            "data_product_id": product, "name": "m", "description": "d",
            "configuration": { "database": "sales2", "table": "t", "access_granularity": "table" },
        });
        let answer = with_if_match(&server, Method::PUT, &path, "\"1\"", &body)
            .await
            .is(200);
        assert!(answer.header("etag").starts_with("\"2-"));
        let replaced = answer.json();
        assert_eq!(
            (&replaced["name"], &replaced["description"]),
            (&json!("m"), &json!("d"))
        );
        assert_eq!(replaced["configuration"]["database_path"], "sales2");
        assert_eq!(replaced["access_path"], "sales2..t");
        assert_eq!(replaced["revision"], 2);
        assert!(
            replaced["updated_at"].as_str() > replaced["created_at"].as_str(),
            "{replaced}"
        );

        for stale in ["\"1\"", "\"99\"", "\"x\""] {
            with_if_match(&server, Method::PUT, &path, stale, &body)
                .await
                .error(412);
            with_if_match(
                &server,
                Method::PATCH,
                &path,
                stale,
                &json!({ "name": "z" }),
            )
            .await
            .error(412);
            with_if_match(&server, Method::DELETE, &path, stale, &json!({}))
                .await
                .error(412);
        }
        let patched = with_if_match(
            &server,
            Method::PATCH,
            &path,
            "\"2\"",
            &json!({ "configuration": { "schema": "s" } }),
        )
        .await
        .is(200)
        .json();
        assert_eq!(patched["configuration"]["schema"], "s");
        assert_eq!(
            patched["configuration"]["table"], "t",
            "what a PATCH leaves out stays"
        );
        assert_eq!(
            (&patched["name"], &patched["description"]),
            (&json!("m"), &json!("d"))
        );
        let cleared = server
            .patch(&path, &json!({ "description": null }))
            .await
            .is(200)
            .json();
        assert_eq!(
            (&cleared["description"], &cleared["revision"]),
            (&Value::Null, &json!(4))
        );
        let invalid = server
            .patch(
                &path,
                &json!({ "configuration": { "database": "marketing" } }),
            )
            .await
            .error(422);
        assert_eq!(invalid[0]["type"], "value_error");
        server
            .put(&path, &json!({ "name": "only" }))
            .await
            .error(422);
        let any = with_if_match(
            &server,
            Method::PATCH,
            &path,
            "*",
            &json!({ "name": "last" }),
        )
        .await
        .is(200);
        assert!(any.header("etag").starts_with("\"5-"));

        let deleted = with_if_match(&server, Method::DELETE, &path, "\"5\"", &json!({}))
            .await
            .is(204);
        assert!(deleted.body.is_empty());
        assert_eq!(
            server.get(&path).await.error(404),
            "Configuration not found"
        );
        server.delete(&path).await.error(404);
        server
            .patch(&path, &json!({ "name": "x" }))
            .await
            .error(404);
        let all = server.get("configurations").await.is(200).json();
        assert_eq!(all["configurations"], json!([]));

        let history = server.get(&format!("{path}/history")).await.is(200).json();
        let history = &history["history"];
        assert_eq!(each(history, "revision"), [6, 5, 4, 3, 2, 1]);
        assert_eq!(
            each(history, "action"),
            ["delete", "update", "update", "update", "update", "create"]
                .map(|action| json!(action))
                .each_ref()
        );
        assert!(
            each(history, "changed_by").iter().all(|by| *by == "local"),
            "{history}"
        );
        assert!(
            history[0]["changed_at"]
                .as_str()
                .is_some_and(|at| at.ends_with('Z'))
        );
        assert_eq!(
            history[1]["changes"],
            json!({ "name": { "from": "m", "to": "last" } })
        );
        assert_eq!(
            history[2]["changes"],
            json!({ "description": { "from": "d", "to": null } })
        );
        assert!(
            history[3]["changes"]
                .to_string()
                .contains("\"from\":\"\",\"to\":\"s\""),
            "{}",
            history[3]
        );
        assert!(
            history[5]["changes"]
                .to_string()
                .contains("\"to\":\"sales\""),
            "{}",
            history[5]
        );
    })
    .await;
}

#[tokio::test]
async fn of_many_writers_with_one_etag_one_wins() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let product = server.data_product("sales", "sales").await;
        let id = server
            .configured("SnowflakeDataOutput", &product, "n", snowflake("sales"))
            .await;
        let path = format!("configurations/{id}");
        let writers = (0..16).map(|number| {
            let (server, path) = (server.http(), path.clone());
            tokio::spawn(async move {
                let body = json!({ "name": format!("n{number}") });
                with_if_match(&server, Method::PATCH, &path, "\"1\"", &body)
                    .await
                    .status
            })
        });
        let mut statuses = Vec::new();
        for writer in writers.collect::<Vec<_>>() {
            statuses.push(writer.await.expect("a status"));
        }
        statuses.sort_unstable();
        assert_eq!(statuses[0], 200, "{statuses:?}");
        assert!(
            statuses[1..].iter().all(|status| *status == 412),
            "{statuses:?}"
        );
        // Without a condition every change is merged over the others.
        let changes = ["name", "description"].map(|key| {
            let (server, path) = (server.http(), path.clone());
            tokio::spawn(async move { server.patch(&path, &json!({ key: "mine" })).await.status })
        });
        for change in changes {
            assert_eq!(change.await.expect("a status"), 200);
        }
        let last = server.get(&path).await.is(200).json();
        assert_eq!(
            (&last["name"], &last["description"]),
            (&json!("mine"), &json!("mine"))
        );
        assert_eq!(last["revision"], 4);
    })
    .await;
}

#[tokio::test]
async fn of_many_creates_of_one_name_one_wins() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let product = server.data_product("sales", "sales").await;
        let creates: Vec<_> = (0..12)
            .map(|_| {
                let (server, product) = (server.http(), product.clone());
                tokio::spawn(async move {
                    server
                        .configure("SnowflakeDataOutput", &product, "n", snowflake("sales"))
                        .await
                        .status
                })
            })
            .collect();
        let mut statuses = Vec::new();
        for create in creates {
            statuses.push(create.await.expect("a status"));
        }
        statuses.sort_unstable();
        assert_eq!(statuses[0], 201, "{statuses:?}");
        assert!(
            statuses[1..].iter().all(|status| *status == 409),
            "{statuses:?}"
        );
        let list = server.get("configurations").await.is(200).json();
        assert_eq!(list["configurations"].as_array().map(Vec::len), Some(1));
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_kept_follows_what_it_is_rendered_from() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let product = server.data_product("sales", "sales").await;
        let id = server
            .configured("SnowflakeDataOutput", &product, "n", snowflake("sales"))
            .await;
        let path = format!("configurations/{id}");
        let etag = server.get(&path).await.is(200).header("etag").to_owned();
        server
            .get_with(&path, ("if-none-match", &etag))
            .await
            .is(304);
        let (platform, service) = server.service("Snowflake", "Snowflake").await;
        let template = json!({ "name": "Snowflake", "result_string_template": "new/{database}" });
        server
            .put(
                &format!("configuration/platforms/{platform}/services/{service}"),
                &template,
            )
            .await
            .is(200);
        let now = server
            .get_with(&path, ("if-none-match", &etag))
            .await
            .is(200);
        assert_eq!(now.json()["access_path"], "new/sales");
        // The revision is the same, so what the client saw is still what it changes.
        with_if_match(
            &server,
            Method::PATCH,
            &path,
            &etag,
            &json!({ "name": "m" }),
        )
        .await
        .is(200);
        with_if_match(
            &server,
            Method::PATCH,
            &path,
            &etag,
            &json!({ "name": "o" }),
        )
        .await
        .error(412);
    })
    .await;
}

#[tokio::test]
async fn what_is_off_or_has_no_fields_takes_no_new_configurations() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database).env(
                "ENABLED_PLUGINS",
                "SnowflakeDataOutput,GlueDataOutput,AgnoPlugin",
            );
        });
        let product = server.data_product("sales", "sales").await;
        server
            .configured("GlueDataOutput", &product, "n", snowflake("sales"))
            .await;
        server
            .configure("AgnoPlugin", &product, "m", json!({}))
            .await
            .error(409);
        let server = server.restart(|options| {
            options.env("DISABLED_PLUGINS", "GlueTechnicalAssetConfiguration");
        });
        for name in ["GlueDataOutput", "GlueTechnicalAssetConfiguration"] {
            let detail = server
                .configure(name, &product, "m", snowflake("sales"))
                .await
                .error(409);
            assert!(
                detail
                    .as_str()
                    .is_some_and(|detail| detail.contains("disabled")),
                "{detail}"
            );
        }
        let list = server
            .get("plugins/GlueDataOutput/configurations")
            .await
            .is(200)
            .json();
        let [left] = list["configurations"]
            .as_array()
            .expect("a list")
            .as_slice()
        else {
            panic!("{list}")
        };
        assert_eq!(left["plugin_state"], "disabled");
        assert_eq!(left["configuration"]["database_path"], "sales");
        assert_eq!(
            (&left["access_path"], &left["technical_info"]),
            (&Value::Null, &Value::Null)
        );
        let path = format!("configurations/{}", left["id"].as_str().expect("an id"));
        server
            .patch(&path, &json!({ "name": "x" }))
            .await
            .error(409);
        let server = server.restart(|options| {
            options.env("DISABLED_PLUGINS", "");
        });
        let back = server.get(&path).await.is(200).json();
        assert_eq!(
            (&back["plugin_state"], &back["access_path"]),
            (&json!("active"), &json!("sales.*"))
        );
    })
    .await;
}

#[tokio::test]
async fn a_configuration_outlives_its_plugin() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .file("lua-plugins/bigquery.lua", bigquery("1.0.0", "Dataset"));
        });
        let product = server.data_product("sales", "sales").await;
        let other = server
            .configured("SnowflakeDataOutput", &product, "other", snowflake("sales"))
            .await;
        let id = server
            .configured(
                "BigQueryDataOutput",
                &product,
                "n",
                json!({ "dataset": "d" }),
            )
            .await;
        let path = format!("configurations/{id}");
        let before = server.get(&path).await.is(200).json();
        assert_eq!(before["plugin_state"], "active");
        // No service of the catalogue belongs to it.
        assert_eq!(
            (&before["platform_id"], &before["access_path"]),
            (&Value::Null, &Value::Null)
        );

        let check_gone = async |server: &Http, states: &[&str]| {
            let gone = server.get(&path).await.is(200).json();
            let state = gone["plugin_state"].as_str().expect("a state");
            assert!(states.contains(&state), "{state}");
            assert_eq!(gone["configuration"], before["configuration"]);
            assert_eq!(
                (&gone["access_path"], &gone["technical_info"]),
                (&Value::Null, &Value::Null)
            );
            let list = server.get("configurations").await.is(200).json();
            assert_eq!(
                each(&list["configurations"], "id"),
                [&json!(id), &json!(other)]
            );
            assert_eq!(list["configurations"][1]["access_path"], "sales..*");
            let export = server.get("configurations/export").await.is(200).text();
            assert_eq!(export.lines().count(), 2, "{export}");
            let own = server
                .get("configurations?plugin=BigQueryDataOutput")
                .await
                .is(200)
                .json();
            assert_eq!(each(&own["configurations"], "id"), [&json!(id)]);
            // Nothing fits, which is no reason to say that there never was such a plugin.
            let none = "plugins/BigQueryDataOutput/configurations?q=nothing";
            let none = server.get(none).await.is(200).json();
            assert_eq!(none["configurations"], json!([]));
            server
                .patch(&path, &json!({ "name": "x" }))
                .await
                .error(409);
        };
        server.folder.remove("lua-plugins/bigquery.lua");
        server
            .until("plugins/BigQueryDataOutput/form", 404, |_| true)
            .await;
        check_gone(&server, &["gone"]).await;
        let server = server.restart(|_| {});
        check_gone(&server, &["gone"]).await;
        server
            .configure(
                "BigQueryDataOutput",
                &product,
                "m",
                json!({ "dataset": "d" }),
            )
            .await
            .error(404);
        // A file that does not even parse cannot say which plugin it was.
        server
            .folder
            .write("lua-plugins/bigquery.lua", "return patchbay.plugin {");
        let server = server.restart(|_| {});
        check_gone(&server, &["gone", "failed"]).await;
        server
            .folder
            .write("lua-plugins/bigquery.lua", bigquery("1.1.0", "Dataset"));
        let back = server
            .until(&path, 200, |found| found["plugin_state"] == "active")
            .await;
        assert_eq!(back["configuration"], before["configuration"]);
        assert_eq!(back["plugin_version"], "1.0.0", "the version that wrote it");
        let written = server
            .patch(&path, &json!({ "description": "d" }))
            .await
            .is(200)
            .json();
        assert_eq!(written["plugin_version"], "1.1.0");
        server.folder.remove("lua-plugins/bigquery.lua");
        server
            .until("plugins/BigQueryDataOutput/form", 404, |_| true)
            .await;
        server.delete(&path).await.is(204);
        server.get(&format!("{path}/history")).await.is(200);
        let list = server
            .get("plugins/BigQueryDataOutput/configurations")
            .await;
        assert_eq!(list.is(200).json()["configurations"], json!([]));
        let never = "plugins/NeverDataOutput/configurations";
        server.get(never).await.error(404);
    })
    .await;
}

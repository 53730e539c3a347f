//! What is stored: created, checked and read back.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, for_each_database};
use crate::world::{assert_same_text, snowflake};

const NOWHERE: &str = "00000000-0000-4000-8000-000000000000";

fn each<'a>(list: &'a Value, key: &str) -> Vec<&'a Value> {
    list.as_array()
        .expect("a list")
        .iter()
        .map(|item| &item[key])
        .collect()
}

#[tokio::test]
async fn each_default_plugin_and_s3_store_what_their_rules_make() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database).env(
                "ENABLED_PLUGINS",
                "SnowflakeDataOutput,DatabricksDataOutput,GlueDataOutput,RedshiftDataOutput,S3DataOutput",
            );
        });
        let table = |database: &str, schema: &str| {
            let mut fields = json!({ database: "", schema: "", "table": "*", "bucket_identifier": "" });
            fields[format!("{database}_path")] = "".into();
            fields["table_path"] = "*".into();
            fields["access_granularity"] = "schema".into();
            fields
        };
        let over = |base: &Value, changes: Value| {
            let mut base = base.clone();
            for (key, value) in changes.as_object().expect("an object") {
                base[key] = value.clone();
            }
            base
        };
        let s3 = |suffix: &str| json!({ "bucket": "datalake", "suffix": suffix, "path": "/orders//daily/" });
        for (plugin, namespace, sent, stored, access_path, info) in [
            (
                "SnowflakeDataOutput",
                "analytics",
                json!({ "database": "analytics", "schema": "or-ders", "access_granularity": "schema" }),
                over(
                    &table("database", "schema"),
                    json!({ "database": "analytics", "schema": "or-ders", "database_path": "analytics" }),
                ),
                "analytics.or_ders.*",
                Some(["analytics.or_ders.*"; 2]),
            ),
            // An empty table_path is filled from the table as typed, before the granularity clears it.
            (
                "SnowflakeDataOutput",
                "anal",
                json!({ "database": "analytics", "table": "zzz", "access_granularity": "schema" }),
                over(
                    &table("database", "schema"),
                    json!({ "database": "analytics", "database_path": "analytics", "table_path": "zzz" }),
                ),
                "analytics..*",
                Some(["analytics..*"; 2]),
            ),
            // No environment has an entry for this database.
            (
                "SnowflakeDataOutput",
                "sales",
                json!({
                    "database": "sales_dwh", "schema": "s", "table": "t", "database_path": "d", "table_path": "p",
                    "bucket_identifier": "b", "access_granularity": "table",
                }),
                json!({
                    "database": "sales_dwh", "schema": "s", "table": "t", "bucket_identifier": "b",
                    "database_path": "d", "table_path": "p", "access_granularity": "table",
                }),
                "sales_dwh.s.t",
                None,
            ),
            (
                "DatabricksDataOutput",
                "clean",
                json!({ "catalog": "clean", "schema": "o-r", "table": "t", "access_granularity": "table" }),
                over(
                    &table("catalog", "schema"),
                    json!({
                        "catalog": "clean", "schema": "o-r", "table": "t", "catalog_path": "clean",
                        "table_path": "t", "access_granularity": "table",
                    }),
                ),
                "clean.o-r.t",
                Some(["clean.o-r.t"; 2]),
            ),
            (
                "GlueDataOutput",
                "master",
                json!({ "database": "master", "access_granularity": "schema" }),
                over(
                    &table("database", "database_suffix"),
                    json!({ "database": "master", "database_path": "master" }),
                ),
                "master.*",
                Some(["master.*"; 2]),
            ),
            (
                "RedshiftDataOutput",
                "warehouse",
                json!({ "database": "warehouse", "schema": "orders", "access_granularity": "schema" }),
                over(
                    &table("database", "schema"),
                    json!({ "database": "warehouse", "schema": "orders", "database_path": "warehouse" }),
                ),
                "warehouse__orders.*",
                Some(["warehouse__orders.*"; 2]),
            ),
            (
                "S3DataOutput",
                "lake",
                s3("lake"),
                s3("lake"),
                "datalake/lake/orders/daily",
                Some([
                    "arn:aws:s3:::example-datalake-dev/lake/orders/daily/*",
                    "arn:aws:s3:::example-datalake-prd/lake/orders/daily/*",
                ]),
            ),
        ] {
            let product = server.data_product(namespace, "sales").await;
            let answer = server.configure(plugin, &product, "first", sent.clone()).await.is(201);
            let created = answer.json();
            let id = created["id"].as_str().expect("an id");
            assert_eq!(answer.header("location"), format!("/api/v2/configurations/{id}"));
            assert!(answer.header("etag").starts_with("\"1-"));
            let mut configuration = json!({ "configuration_type": plugin });
            for (key, value) in stored.as_object().expect("an object") {
                configuration[key] = value.clone();
            }
            let info: Vec<Value> = created["technical_info"]
                .as_array()
                .expect("technical info")
                .iter()
                .enumerate()
                .map(|(place, found)| {
                    json!({
                        "environment_id": found["environment_id"],
                        "environment": (if place == 0 { "development" } else { "production" }),
                        "info": info.map(|info| info[place]),
                    })
                })
                .collect();
            assert_eq!(info.len(), 2, "{plugin}");
            assert!(info[0]["environment_id"].is_string());
            let expected = json!({
                "id": id,
                "plugin": plugin,
                "plugin_version": "1.0.0",
                "plugin_state": "active",
                "name": "first",
                "description": null,
                "data_product_id": product,
                "technical_mapping": "default",
                "platform_id": created["platform_id"],
                "service_id": created["service_id"],
                "revision": 1,
                "configuration": configuration,
                "access_path": access_path,
                "technical_info": info,
                "created_at": created["created_at"],
                "updated_at": created["created_at"],
            });
            assert_eq!(created, expected);
            for time in ["created_at", "updated_at"] {
                let text = created[time].as_str().expect("a time");
                assert!(text.len() >= 20 && text.ends_with('Z') && &text[10..11] == "T", "{text}");
            }
            let read = server.get(&format!("configurations/{id}")).await.is(200);
            assert!(read.header("etag").starts_with("\"1-"));
            assert_same_text(&read.json(), &created);
        }
    })
    .await;
}

#[tokio::test]
async fn the_row_stands_in_the_base_table_and_in_the_plugins_own() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let product = server.data_product("sales", "sales").await;
        server
            .configured("SnowflakeDataOutput", &product, "n", snowflake("sales"))
            .await;
        let row = database
            .texts(
                &server.folder,
                "SELECT base.configuration_type || ' ' || own.database_path || ' ' || own.\"table\" \
                 FROM data_output_configurations AS base \
                 JOIN snowflake_data_output_configurations AS own ON own.id = base.id",
            )
            .await;
        assert_eq!(row, ["SnowflakeDataOutput sales *"]);
        database
            .execute(&server.folder, "DELETE FROM data_output_configurations")
            .await;
        let left = "SELECT count(*) FROM snowflake_data_output_configurations";
        let left = database.number(&server.folder, left).await;
        assert_eq!(left, 0, "deletion cascades");
    })
    .await;
}

#[tokio::test]
async fn rules_apply_to_the_default_mapping_only() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let product = server.data_product("sales", "sales").await;
        for (plugin, field, rest) in [
            ("SnowflakeDataOutput", "database", "database"),
            ("DatabricksDataOutput", "catalog", "catalog"),
            ("GlueDataOutput", "database", "database"),
            ("RedshiftDataOutput", "database", "database"),
        ] {
            let configuration = json!({ field: "marketing", "access_granularity": "schema" });
            let detail = server
                .configure(plugin, &product, "n", configuration.clone())
                .await
                .error(422);
            let expected = json!([{
                "type": "value_error", "loc": ["body", "configuration", plugin, field],
                "msg": format!("Invalid {rest} specified"), "input": "marketing",
            }]);
            assert_eq!(detail, expected);
            let body = json!({
                "data_product_id": product, "name": plugin, "technical_mapping": "custom",
                "configuration": configuration,
            });
            let created = server
                .post(&format!("plugins/{plugin}/configurations"), &body)
                .await
                .is(201);
            assert_eq!(created.json()["technical_mapping"], "custom");
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_with_mistakes_is_refused_with_all_of_them() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let product = server.data_product("sales", "sales").await;
        let path = "plugins/SnowflakeDataOutput/configurations";
        let detail = server.post(path, &json!({})).await.error(422);
        let places = each(&detail, "loc");
        assert_eq!(
            places,
            [&json!(["body", "data_product_id"]), &json!(["body", "name"]), &json!(["body", "configuration"])]
        );
        assert!(each(&detail, "type").iter().all(|kind| *kind == "missing"));
        let with = |changes: Value| {
            let mut body =
                json!({ "data_product_id": product, "name": "n", "configuration": snowflake("sales") });
            for (key, value) in changes.as_object().expect("an object") {
                body[key] = value.clone();
            }
            body
        };
        let configuration = |key: &str| json!(["body", "configuration", "SnowflakeDataOutput", key]);
        for (changes, kind, loc) in [
            (json!({ "name": 1 }), "string_type", json!(["body", "name"])),
            (json!({ "name": "" }), "value_error", json!(["body", "name"])),
            (json!({ "name": "x".repeat(300) }), "value_error", json!(["body", "name"])),
            (json!({ "name": "a\u{0}b" }), "value_error", json!(["body", "name"])),
            (json!({ "description": [] }), "string_type", json!(["body", "description"])),
            (json!({ "data_product_id": 7 }), "string_type", json!(["body", "data_product_id"])),
            (json!({ "data_product_id": "7" }), "value_error", json!(["body", "data_product_id"])),
            (json!({ "technical_mapping": "other" }), "enum", json!(["body", "technical_mapping"])),
            (json!({ "platform_id": true }), "string_type", json!(["body", "platform_id"])),
            (json!({ "configuration": [] }), "dict_type", json!(["body", "configuration"])),
            (json!({ "configuration": {} }), "missing", configuration("database")),
            (
                json!({ "configuration": { "database": "sales\u{0}", "access_granularity": "schema" } }),
                "value_error",
                configuration("database"),
            ),
            (
                json!({ "configuration": { "database": "sales", "access_granularity": "schema", "table": null } }),
                "string_type",
                configuration("table"),
            ),
            (
                json!({ "configuration": {
                    "configuration_type": "GlueDataOutput", "database": "sales", "access_granularity": "schema",
                }}),
                "union_tag_invalid",
                json!(["body", "configuration"]),
            ),
        ] {
            let detail = server.post(path, &with(changes.clone())).await.error(422);
            assert_eq!((&detail[0]["type"], &detail[0]["loc"]), (&json!(kind), &loc), "{changes}: {detail}");
        }
        let (glue_platform, glue) = server.service("AWS", "Glue").await;
        let (platform, _) = server.service("Snowflake", "Snowflake").await;
        for (changes, status, detail) in [
            (json!({ "data_product_id": NOWHERE }), 404, "Data product not found"),
            (json!({ "platform_id": NOWHERE }), 404, "Platform not found"),
            (json!({ "platform_id": platform, "service_id": NOWHERE }), 404, "Platform service not found"),
        ] {
            assert_eq!(server.post(path, &with(changes.clone())).await.error(status), detail, "{changes}");
        }
        for changes in [
            json!({ "platform_id": glue_platform, "service_id": glue }),
            json!({ "platform_id": glue_platform }),
        ] {
            let detail = server.post(path, &with(changes)).await.error(409);
            assert!(detail.as_str().is_some_and(|detail| detail.contains("SnowflakeDataOutput")), "{detail}");
        }
        let unknown = server.post("plugins/Nope/configurations", &with(json!({}))).await.error(404);
        assert_eq!(unknown, "Plugin 'Nope' not found");
        let all = server.get("configurations").await.is(200).json();
        assert_eq!(all, json!({ "configurations": [], "next_cursor": null }), "nothing of it was stored");
        // Keys that nobody knows are ignored, and so is the tag where it fits.
        let body = with(json!({ "extra": 1, "configuration": {
            "configuration_type": "SnowflakeTechnicalAssetConfiguration", "database": "sales",
            "access_granularity": "schema", "colour": "red",
        }}));
        let created = server.post(path, &body).await.is(201).json();
        assert_eq!(created["configuration"]["configuration_type"], "SnowflakeDataOutput");
        assert_eq!(created["configuration"].get("colour"), None);
    })
    .await;
}

#[tokio::test]
async fn names_are_unique_in_a_data_product() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let sales = server.data_product("sales", "sales").await;
        let other = server.data_product("sales-eu", "sales").await;
        server
            .configured("SnowflakeDataOutput", &sales, "n", snowflake("sales"))
            .await;
        server
            .configured("SnowflakeDataOutput", &other, "n", snowflake("sales-eu"))
            .await;
        let second = server
            .configured("SnowflakeDataOutput", &sales, "m", snowflake("sales"))
            .await;
        server
            .configure("SnowflakeDataOutput", &sales, "n", snowflake("sales"))
            .await
            .error(409);
        let glue = json!({ "database": "sales", "access_granularity": "schema" });
        server
            .configure("GlueDataOutput", &sales, "n", glue)
            .await
            .error(409);
        let path = format!("configurations/{second}");
        server
            .patch(&path, &json!({ "name": "n" }))
            .await
            .error(409);
        assert_eq!(server.get(&path).await.is(200).json()["revision"], 1);
    })
    .await;
}

#[tokio::test]
async fn values_of_every_kind_come_back_as_they_went_in() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database).file(
                "lua-plugins/kinds.lua",
                r#"
local field = patchbay.field
return patchbay.plugin {
    name = "KindsDataOutput",
    fields = {
        field.string "text" { min = 1, max = 5, pattern = "^[^!]*$" },
        field.integer "count" { min = -9007199254740991 },
        field.number "share" {},
        field.boolean "public" { default = false },
        field.enum "mode" { values = { "a", "b" }, default = "a" },
        field.list "tags" { of = "string", max = 2 },
        field.json "extra",
    },
}"#,
            );
        });
        let product = server.data_product("sales", "sales").await;
        let extra = json!({ "b": [1, 2.5, null, { "z": 1, "a": "é😀" }], "a": {}, "e": [] });
        let sent = json!({
            "text": "é😀\"';", "count": -9007199254740991_i64, "share": 0.1, "public": true, "mode": "b",
            "tags": ["x", "y"], "extra": extra,
        });
        let id = server.configured("KindsDataOutput", &product, "n", sent.clone()).await;
        let read = server.get(&format!("configurations/{id}")).await.is(200).json();
        let mut expected = json!({ "configuration_type": "KindsDataOutput" });
        for (key, value) in sent.as_object().expect("an object") {
            expected[key] = value.clone();
        }
        assert_same_text(&read["configuration"], &expected);
        let empty = server.configured("KindsDataOutput", &product, "m", json!({})).await;
        let read = server.get(&format!("configurations/{empty}")).await.is(200).json();
        let expected = json!({
            "configuration_type": "KindsDataOutput", "text": null, "count": null, "share": null, "public": false,
            "mode": "a", "tags": null, "extra": null,
        });
        assert_eq!(read["configuration"], expected);
        for (key, value, kind) in [
            ("text", json!(""), "value_error"),
            ("text", json!("abcdef"), "value_error"),
            ("text", json!("a!"), "value_error"),
            ("text", json!(5), "string_type"),
            ("share", serde_json::from_str("1e999").expect("a number"), "float_type"),
            ("count", json!("5"), "int_type"),
            ("count", json!(1.5), "int_type"),
            ("count", json!(9007199254740993_i64), "value_error"),
            ("share", json!("0.1"), "float_type"),
            ("public", json!("true"), "bool_type"),
            ("public", json!(1), "bool_type"),
            ("mode", json!("c"), "enum"),
            ("tags", json!("x"), "list_type"),
            ("tags", json!(["x", 1]), "string_type"),
            ("tags", json!(["x", "y", "z"]), "value_error"),
            ("extra", json!({ "a": ["\u{0}"] }), "value_error"),
        ] {
            let detail = server.configure("KindsDataOutput", &product, "x", json!({ key: value })).await.error(422);
            assert_eq!(detail[0]["type"], kind, "{key}: {value}: {detail}");
        }
    })
    .await;
}

#[tokio::test]
async fn json_that_a_hook_leaves_alone_keeps_its_text() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database).file(
                "lua-plugins/keeps.lua",
                r#"
local field = patchbay.field
return patchbay.plugin {
    name = "KeepsDataOutput",
    fields = { field.string "path" { required = true }, field.json "extra", field.number "share" },
    normalize = function(configuration)
        configuration.path = configuration.path:upper()
        return configuration
    end,
}"#,
            );
        });
        let product = server.data_product("sales", "sales").await;
        let extra = r#"{"z":1.0,"a":12345678901234567890.123456789,"list":[],"map":{},"null":null}"#;
        let body = format!(
            r#"{{"data_product_id":"{product}","name":"n","configuration":{{"path":"p","share":0.10,"extra":{extra}}}}}"#
        );
        let answer = server
            .send(Method::POST, "plugins/KeepsDataOutput/configurations", |request| {
                request.header("content-type", "application/json").body(body)
            })
            .await
            .is(201);
        assert!(answer.text().contains(&format!("\"extra\":{extra}")), "{}", answer.text());
        assert!(answer.text().contains("\"path\":\"P\""), "{}", answer.text());
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        let read = server.get(&format!("configurations/{id}")).await.is(200).text();
        assert!(read.contains(&format!("\"extra\":{extra}")), "{read}");
    })
    .await;
}

#[tokio::test]
async fn values_that_the_form_hides_are_kept() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database).file(
                "lua-plugins/hiding.lua",
                r#"
local field, ui = patchbay.field, patchbay.ui

return patchbay.plugin {
    name = "HidingDataOutput",
    fields = {
        field.string "path" { required = true },
        field.string "hidden" { default = "as ever" },
        field.string "table" { default = "*" },
        field.enum "granularity" { values = { "schema", "table" }, default = "schema" },
        field.string "demanded" { required = true, depends_on = { granularity = "table" } },
    },
    ui_metadata = function()
        return {
            ui.string "path" { label = "Path" },
            ui.string "hidden" { label = "Hidden", hidden = true },
            ui.radio "granularity" {
                label = "Granularity",
                options = { { label = "Schema", value = "schema" }, { label = "Table", value = "table" } },
            },
            ui.string "table" { label = "Table", depends_on = { granularity = "table" } },
            ui.string "demanded" { label = "Demanded", depends_on = { granularity = "table" } },
        }
    end,
}
"#,
            );
        });
        let product = server.data_product("sales", "sales").await;
        // Hidden, of a dependency that is not met, and in the form not at all: the fields decide, the form does not.
        let sent = json!({
            "path": "p", "hidden": "by hand", "table": "orders", "granularity": "schema", "demanded": "kept",
        });
        let id = server.configured("HidingDataOutput", &product, "n", sent.clone()).await;
        let read = server.get(&format!("configurations/{id}")).await.is(200).json();
        for (key, value) in sent.as_object().expect("values") {
            assert_eq!(&read["configuration"][key], value, "{key}: {read}");
        }
        // An unmet dependency only lifts `required`.
        let bare = json!({ "path": "p" });
        server.configured("HidingDataOutput", &product, "bare", bare).await;
        let demanding = json!({ "path": "p", "granularity": "table" });
        let answer = server.configure("HidingDataOutput", &product, "demanding", demanding).await;
        let detail = answer.error(422);
        assert_eq!(detail[0]["type"], "missing", "{detail}");
        assert_eq!(
            detail[0]["loc"],
            json!(["body", "configuration", "HidingDataOutput", "demanded"])
        );
        // What is of the wrong type is refused, hidden or not.
        for key in ["hidden", "table", "demanded"] {
            let mut wrong = sent.clone();
            wrong[key] = json!(1);
            let answer = server.configure("HidingDataOutput", &product, key, wrong).await;
            assert_eq!(answer.error(422)[0]["type"], "string_type", "{key}");
        }
    })
    .await;
}

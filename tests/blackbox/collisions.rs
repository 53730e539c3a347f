//! What happens when two plugins claim the same.

use serde_json::{Value, json};

use crate::harness::{Server, for_each_database};
use crate::world::{DEFAULTS, bigquery, entry, entry_at, names, plugin};

#[tokio::test]
async fn a_plugin_in_a_path_takes_the_place_of_the_embedded_one() {
    for_each_database(async |database| {
        let shipped = format!("{}/lua-plugins/snowflake", env!("CARGO_MANIFEST_DIR"));
        let read = |file: &str| {
            std::fs::read_to_string(format!("{shipped}/{file}")).expect("a shipped file")
        };
        let server = Server::start(|options| {
            options.database(database);
            let source =
                read("plugin.lua").replace("label = \"Database\"", "label = \"Our database\"");
            options.file("lua-plugins/snowflake/plugin.lua", source);
            let migration = "migrations/0001_create_table.lua";
            options.file(
                &format!("lua-plugins/snowflake/{migration}"),
                read(migration),
            );
        });
        let list = server.get("plugins").await.is(200).json();
        assert_eq!(names(&list), DEFAULTS);
        assert_eq!(
            entry(&list, "SnowflakeDataOutput")["ui_metadata"][0]["label"],
            "Our database"
        );
        let details = server
            .get("plugins/SnowflakeDataOutput")
            .await
            .is(200)
            .json();
        assert!(
            details["source"]
                .as_str()
                .is_some_and(|source| source.ends_with("lua-plugins/snowflake")),
            "{details}"
        );
    })
    .await;
}

#[tokio::test]
async fn of_one_name_in_two_paths_the_later_serves_with_a_warning_in_both_places() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .env("PATCHBAY_PLUGIN_PATHS", "one:two");
            options.file("one/bigquery.lua", bigquery("1.0.0", "First"));
            options.file("two/other.lua", bigquery("2.0.0", "Second"));
        });
        let form = server
            .get("plugins/BigQueryDataOutput/form")
            .await
            .is(200)
            .json();
        assert_eq!(
            (&form["version"], &form["ui_metadata"][0]["label"]),
            (&json!("2.0.0"), &json!("Second"))
        );
        let status = server.get("plugins/status").await.is(200).json();
        let (first, second) = (
            entry_at(&status, "one/bigquery.lua"),
            entry_at(&status, "two/other.lua"),
        );
        assert!(
            first["warnings"][0]
                .as_str()
                .is_some_and(|text| text.contains("two/other.lua")),
            "{first}"
        );
        assert!(
            second["warnings"][0]
                .as_str()
                .is_some_and(|text| text.contains("one/bigquery.lua")),
            "{second}"
        );
        assert_eq!(second["state"], "active");
        assert_ne!(first["state"], "active");
        // It continues the history, and hands it back when it goes.
        let product = server.data_product("sales", "sales").await;
        let id = server
            .configured(
                "BigQueryDataOutput",
                &product,
                "n",
                json!({ "dataset": "d" }),
            )
            .await;
        server.folder.remove("two/other.lua");
        let form = server
            .until("plugins/BigQueryDataOutput/form", 200, |form| {
                form["version"] == "1.0.0"
            })
            .await;
        assert_eq!(form["ui_metadata"][0]["label"], "First");
        let read = server
            .get(&format!("configurations/{id}"))
            .await
            .is(200)
            .json();
        assert_eq!(read["configuration"]["dataset"], "d");
        let status = server.get("plugins/status").await.is(200).json();
        assert_eq!(entry_at(&status, "one/bigquery.lua")["warnings"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn that_a_plugin_stands_in_for_another_is_news_though_it_did_not_change() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.env("PATCHBAY_PLUGIN_PATHS", "one:two");
            options.file("one/README.md", String::new());
            options.file("two/other.lua", bigquery("2.0.0", "Second"));
        });
        server
            .folder
            .write("one/bigquery.lua", bigquery("1.0.0", "First"));
        let warning = "takes the place of one/bigquery.lua, whose path comes earlier";
        server
            .until("plugins/status", 200, |status| {
                entry_at(status, "two/other.lua")["warnings"] == json!([warning])
            })
            .await;
        let log = server.logged();
        assert!(
            log.contains(&format!("from two/other.lua: {warning}")),
            "{log}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_later_plugin_that_does_not_continue_the_history_leaves_the_earlier_serving() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .env("PATCHBAY_PLUGIN_PATHS", "one:two");
            options.file("one/bigquery.lua", bigquery("1.0.0", "First"));
        });
        let narrower = r#"return patchbay.plugin { name = "BigQueryDataOutput", version = "2.0.0",
            fields = { patchbay.field.string "dataset" { required = true } } }"#;
        server.folder.write_by_rename("two/other.lua", narrower);
        let status = server
            .until("plugins/status", 200, |status| {
                entry_at(status, "two/other.lua")["last_error"].is_object()
            })
            .await;
        let failed = entry_at(&status, "two/other.lua");
        assert_eq!(failed["state"], "failed", "{failed}");
        assert!(
            failed["last_error"]["message"]
                .as_str()
                .is_some_and(|text| text.contains("table")),
            "{failed}"
        );
        let form = server
            .get("plugins/BigQueryDataOutput/form")
            .await
            .is(200)
            .json();
        assert_eq!(form["version"], "1.0.0");
    })
    .await;
}

#[tokio::test]
async fn of_one_name_in_one_path_the_first_by_file_name_serves_and_the_other_fails() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.file("lua-plugins/b.lua", bigquery("2.0.0", "Second"));
            options.file("lua-plugins/a/plugin.lua", bigquery("1.0.0", "First"));
        });
        let form = server
            .get("plugins/BigQueryDataOutput/form")
            .await
            .is(200)
            .json();
        assert_eq!(form["version"], "1.0.0");
        let status = server.get("plugins/status").await.is(200).json();
        let other = entry_at(&status, "b.lua");
        assert_eq!(other["state"], "failed", "{other}");
        assert!(
            other["last_error"]["message"]
                .as_str()
                .is_some_and(|text| text.contains("lua-plugins/a")),
            "{other}"
        );
        assert_eq!(entry_at(&status, "lua-plugins/a")["state"], "active");
        server.folder.remove("lua-plugins/a");
        server
            .until("plugins/BigQueryDataOutput/form", 200, |form| {
                form["version"] == "2.0.0"
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_second_claim_on_a_name_or_a_table_fails_the_later_plugin() {
    for_each_database(async |database| {
        let alias = r#"aliases = { "Shared" },"#;
        let of_one = r#"table = "shared_table","#;
        for (first, second, word) in [
            (
                plugin("ADataOutput", alias),
                plugin("BDataOutput", alias),
                "Shared",
            ),
            (
                plugin("ADataOutput", ""),
                plugin("BDataOutput", r#"aliases = { "ADataOutput" },"#),
                "ADataOutput",
            ),
            (
                plugin("ADataOutput", of_one),
                plugin("BDataOutput", of_one),
                "shared_table",
            ),
            (
                plugin("ADataOutput", ""),
                plugin(
                    "BDataOutput",
                    r#"aliases = { "GlueTechnicalAssetConfiguration" },"#,
                ),
                "GlueTechnicalAssetConfiguration",
            ),
            (
                plugin("ADataOutput", ""),
                plugin(
                    "BDataOutput",
                    r#"table = "snowflake_data_output_configurations","#,
                ),
                "snowflake_data_output_configurations",
            ),
        ] {
            let server = Server::start(|options| {
                options.database(database);
                options.file("lua-plugins/a.lua", &first);
                options.file("lua-plugins/b.lua", &second);
            });
            let list = server.get("plugins").await.is(200).json();
            assert!(names(&list).contains(&"ADataOutput"), "{word}");
            assert!(!names(&list).contains(&"BDataOutput"), "{word}");
            assert_eq!(names(&list).len(), 5, "{word}");
            let status = server.get("plugins/status").await.is(200).json();
            let failed = entry(&status, "BDataOutput");
            assert_eq!(
                (&failed["state"], &failed["last_error"]["stage"]),
                (&json!("failed"), &json!("collision"))
            );
            let message = failed["last_error"]["message"].as_str().expect("a message");
            assert!(message.contains(word), "{message}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_table_stays_its_owners_when_the_owner_is_gone() {
    for_each_database(async |database| {
        let table = r#"table = "shared_table","#;
        let server = Server::start(|options| {
            options
                .database(database)
                .file("lua-plugins/a.lua", plugin("ADataOutput", table));
        });
        server.get("plugins/ADataOutput/form").await.is(200);
        server.folder.remove("lua-plugins/a.lua");
        server
            .until("plugins/ADataOutput/form", 404, |_| true)
            .await;
        server
            .folder
            .write("lua-plugins/b.lua", plugin("BDataOutput", table));
        let status = server
            .until("plugins/status", 200, |status| {
                entry(status, "BDataOutput")["state"] == "failed"
            })
            .await;
        let message = &entry(&status, "BDataOutput")["last_error"]["message"];
        assert!(
            message
                .as_str()
                .is_some_and(|text| text.contains("ADataOutput")),
            "{message}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_platform_key_may_be_there_twice_and_the_first_by_name_has_tile_and_link() {
    for_each_database(async |database| {
        let of = |name: &str, table: &str| {
            let lines = format!(
                r#"
    platform = {{ platform_key = "shared", display_name = "{name}" }},
    table = "{table}",
    url = function() return "https://example.com/{name}" end,
"#
            );
            plugin(name, &lines)
        };
        let server = Server::start(|options| {
            options.database(database);
            options.env("ENABLED_PLUGINS", "[]");
            // File names in the other order, so that only the plugins' names can have decided.
            options.file("lua-plugins/a.lua", of("Zulu", "z_table"));
            options.file("lua-plugins/z.lua", of("Alpha", "a_table"));
        });
        let list = server.get("plugins").await.is(200).json();
        assert_eq!(names(&list), ["Alpha", "Zulu"]);
        let tiles = server.get("plugins/platform-tiles").await.is(200).json();
        let labels: Vec<&Value> = tiles["platform_tiles"]
            .as_array()
            .expect("tiles")
            .iter()
            .map(|tile| &tile["label"])
            .collect();
        assert_eq!(labels, ["Alpha"]);
        let product = server.data_product("sales", "sales").await;
        let link = server
            .get(&format!("plugins/shared/url?id={product}"))
            .await
            .is(200)
            .json();
        assert_eq!(link["url"], "https://example.com/Alpha");
        let link = server
            .get(&format!("plugins/Zulu/url?id={product}"))
            .await
            .is(200)
            .json();
        assert_eq!(link["url"], "https://example.com/Zulu");
    })
    .await;
}

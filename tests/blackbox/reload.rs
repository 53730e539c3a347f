//! Plugins that change while the server runs: the last good version serves until a better one is whole.

use serde_json::{Value, json};

use crate::harness::{Server, for_each_database};
use crate::world::{FILE, FORM, bigquery, entry, entry_at, names, plugin, until_version};

#[tokio::test]
async fn a_plugin_that_is_dropped_in_is_served_and_one_that_is_removed_is_gone() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let before = server.get("plugins").await.is(200).json();
        server.get(FORM).await.error(404);
        server.folder.write(FILE, bigquery("1.0.0", "Dataset"));
        let form = until_version(&server, "1.0.0").await;
        assert_eq!(form["ui_metadata"][0]["label"], "Dataset");
        assert_eq!(
            (&form["platform"], &form["display_name"]),
            (&json!("bigquery"), &json!("BigQuery"))
        );
        let list = server.get("plugins").await.is(200).json();
        let expected = [
            "BigQueryDataOutput",
            "DatabricksDataOutput",
            "GlueDataOutput",
            "RedshiftDataOutput",
            "SnowflakeDataOutput",
        ];
        assert_eq!(names(&list), expected, "ordered by platform key");
        assert!(
            list["plugins"][0]["generation"].as_u64() > before["plugins"][0]["generation"].as_u64()
        );
        let product = server.data_product("sales", "sales").await;
        server
            .configured(
                "BigQueryTechnicalAssetConfiguration",
                &product,
                "n",
                json!({ "dataset": "d" }),
            )
            .await;
        server.folder.write(FILE, bigquery("1.1.0", "Data set"));
        let form = until_version(&server, "1.1.0").await;
        assert_eq!(form["ui_metadata"][0]["label"], "Data set");
        server.folder.remove(FILE);
        server
            .until(FORM, 404, |body| {
                body["detail"] == "Plugin 'BigQueryDataOutput' not found"
            })
            .await;
        let list = server.get("plugins").await.is(200).json();
        assert_eq!(names(&list).len(), 4);
        let tiles = server.get("plugins/platform-tiles").await.is(200).text();
        assert!(!tiles.contains("bigquery"), "{tiles}");
    })
    .await;
}

/// A way to break a plugin: what the file becomes, and the stage, line and words of the reason.
struct Break {
    what: &'static str,
    source: String,
    stage: &'static str,
    line: Option<u64>,
    says: &'static str,
}

fn breaks() -> Vec<Break> {
    let good = || bigquery("9.9.9", "Nine");
    let case = |what, source: String, stage, line, says| Break {
        what,
        source,
        stage,
        line,
        says,
    };
    vec![
        case(
            "a syntax error",
            good().replace("fields = {", "fields = {{"),
            "parse",
            None,
            "",
        ),
        case(
            "an empty file",
            String::new(),
            "definition",
            None,
            "patchbay.plugin",
        ),
        case(
            "an error while it loads",
            format!("\nlocal x = nil\nx.y = 1\n{}", good()),
            "load",
            Some(3),
            "nil",
        ),
        case(
            "an endless loop while it loads",
            format!("while true do end\n{}", good()),
            "load",
            None,
            "",
        ),
        case(
            "a wrong key",
            good().replace("    aliases =", "    alisses ="),
            "definition",
            Some(7),
            "did you mean `aliases`?",
        ),
        case(
            "a missing module",
            format!("require \"@lib/nowhere\"\n{}", good()),
            "load",
            Some(1),
            "nowhere",
        ),
        case(
            "a field that is none",
            good().replace(
                "field.string \"table\" { default = \"*\" }",
                "field.string \"table\" { default = 5 }",
            ),
            "definition",
            Some(10),
            "default",
        ),
        case(
            "a form that raises",
            good().replace(
                "ui_metadata = function(db)",
                "ui_metadata = function(db)\n        error(\"no form\")",
            ),
            "hook",
            Some(13),
            "no form",
        ),
        case(
            "a form that never ends",
            good().replace(
                "ui_metadata = function(db)",
                "ui_metadata = function(db) while true do end",
            ),
            "hook",
            None,
            "",
        ),
        case(
            "a form that is nonsense",
            good().replace(
                "ui_metadata = function(db)",
                "ui_metadata = function(db) do return { 5 } end",
            ),
            "hook",
            None,
            "",
        ),
        case(
            "a form of an unknown element",
            good().replace("ui.string \"table\"", "ui.slider \"table\""),
            "hook",
            None,
            "slider",
        ),
        case(
            "an end that is none",
            format!("{}\u{0}", good()),
            "read",
            None,
            "NUL",
        ),
    ]
}

#[tokio::test]
async fn a_broken_plugin_serves_its_last_good_version_and_says_why() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.file(FILE, bigquery("0.9.0", "0"));
            options.file("lua-plugins/other.lua", plugin("OtherDataOutput", ""));
        });
        let product = server.data_product("sales", "sales").await;
        for (round, broken) in breaks().into_iter().enumerate() {
            let version = format!("1.{round}.0");
            server.folder.write(FILE, bigquery(&version, &version));
            let good = until_version(&server, &version).await;
            server.folder.write(FILE, &broken.source);
            let what = broken.what;
            // A file that is written in place may be read while it is still empty, so it is this reason that is waited for.
            let status = server
                .until("plugins/status", 200, |status| {
                    let found = entry(status, "BigQueryDataOutput");
                    let error = &found["last_error"];
                    found["state"] == "degraded"
                        && error["stage"] == broken.stage
                        && error["message"]
                            .as_str()
                            .is_some_and(|text| text.contains(broken.says))
                })
                .await;
            let found = entry(&status, "BigQueryDataOutput");
            assert_eq!(found["version"], version, "{what}: what serves");
            let error = &found["last_error"];
            assert!(
                error["file"]
                    .as_str()
                    .is_some_and(|file| file.ends_with("bigquery.lua")),
                "{what}: {error}"
            );
            if broken.line.is_some() {
                assert_eq!(error["line"].as_u64(), broken.line, "{what}: {error}");
            }
            let message = error["message"].as_str().expect("a message");
            assert!(!message.contains("stack traceback"), "{what}: {message}");
            if broken.stage == "hook" {
                assert_eq!(error["hook"], "ui_metadata", "{what}");
                assert_eq!(error["version"], "9.9.9", "{what}: what failed");
            }
            assert_eq!(entry(&status, "OtherDataOutput")["state"], "active");
            let details = server
                .get("plugins/BigQueryDataOutput")
                .await
                .is(200)
                .json();
            assert_eq!(details["last_error"], *error, "{what}");
            assert_eq!(
                (&details["version"], &details["state"]),
                (&json!(version), &json!("degraded")),
                "{what}"
            );
            let served = server.get(FORM).await.is(200).json();
            assert_eq!(
                (&served["version"], &served["state"]),
                (&json!(version), &json!("degraded")),
                "{what}"
            );
            assert_eq!(served["ui_metadata"], good["ui_metadata"], "{what}");
            assert_eq!(served["not_configured"], false, "{what}");
            let name = format!("n{round}");
            server
                .configured(
                    "BigQueryDataOutput",
                    &product,
                    &name,
                    json!({ "dataset": "d" }),
                )
                .await;
        }
        server.folder.write(FILE, bigquery("2.0.0", "Mended"));
        until_version(&server, "2.0.0").await;
        let details = server
            .get("plugins/BigQueryDataOutput")
            .await
            .is(200)
            .json();
        assert_eq!(details["last_error"], Value::Null);
        let log = server.logged();
        assert!(
            log.contains("bigquery.lua:7"),
            "the reasons are in the log too: {log}"
        );
    })
    .await;
}

#[tokio::test]
async fn all_mistakes_of_a_file_come_at_once() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.file(
                "lua-plugins/bad.lua",
                r#"local field = patchbay.field
return patchbay.plugin {
    name = "BadDataOutput",
    verison = "1.0.0",
    requires = "newest",
    fields = {
        field.string "Upper",
        field.enum "mode" { values = {} },
        field.string "ok" { requred = true },
    },
    render = "no function",
}"#,
            );
        });
        let status = server.get("plugins/status").await.is(200).json();
        let bad = entry_at(&status, "bad.lua");
        let mistakes: Vec<&str> = bad["last_error"]["mistakes"]
            .as_array()
            .expect("mistakes")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        for (place, words) in [
            ("bad.lua:4", "did you mean `version`?"),
            ("bad.lua:5", "requires"),
            ("bad.lua:7", "fields[1].name"),
            ("bad.lua:8", "fields[2].values"),
            ("bad.lua:9", "did you mean `required`?"),
            ("bad.lua:11", "render"),
        ] {
            assert!(
                mistakes
                    .iter()
                    .any(|mistake| mistake.contains(place) && mistake.contains(words)),
                "{place} {words}: {mistakes:#?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_plugin_that_never_worked_is_shown_as_failed_until_it_is_mended() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.file(FILE, "return patchbay.plugin {");
        });
        server.get(FORM).await.error(404);
        let status = server.get("plugins/status").await.is(200).json();
        let failed = entry_at(&status, "bigquery.lua");
        assert_eq!(
            (&failed["state"], &failed["version"]),
            (&json!("failed"), &Value::Null)
        );
        server.folder.write(FILE, bigquery("1.0.0", "Dataset"));
        until_version(&server, "1.0.0").await;
        let status = server.get("plugins/status").await.is(200).json();
        assert_eq!(
            entry(&status, "BigQueryDataOutput")["last_error"],
            Value::Null
        );
    })
    .await;
}

#[tokio::test]
async fn modules_and_icons_are_part_of_a_plugin() {
    for_each_database(async |database| {
    let source = r#"
local labels = require "./parts/labels"
local shared = require "@lib/shared"
return patchbay.plugin {
    name = "ModularDataOutput",
    platform = { icon_name = "modular.svg" },
    fields = { patchbay.field.string "path" },
    ui_metadata = function() return { patchbay.ui.string "path" { label = labels.path .. shared.suffix } } end,
}"#;
    let svg = |colour: &str| {
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><rect fill="{colour}"/></svg>"#
        )
    };
    let server = Server::start(|options| {
 options.database(database);
        options.file("lua-plugins/modular/plugin.lua", source);
        options.file(
            "lua-plugins/modular/parts/labels.lua",
            "return { path = 'Path' }",
        );
        options.file("lua-plugins/modular/modular.svg", svg("red"));
        options.file("lua-plugins/lib/shared.lua", "return { suffix = '!' }");
        options.file("lua-plugins/other.lua", plugin("OtherDataOutput", ""));
    });
    let label = async |label: &str| {
        server
            .until("plugins/ModularDataOutput/form", 200, |form| {
                form["ui_metadata"][0]["label"] == label && form["state"] == "active"
            })
            .await
    };
    label("Path!").await;
    server.folder.write(
        "lua-plugins/modular/parts/labels.lua",
        "return { path = 'Where' }",
    );
    label("Where!").await;
    server
        .folder
        .write("lua-plugins/lib/shared.lua", "return { suffix = '?' }");
    label("Where?").await;
    // A module that breaks degrades those that require it.
    server
        .folder
        .write_by_rename("lua-plugins/lib/shared.lua", "return { suffix = ");
    let status = server
        .until("plugins/status", 200, |status| {
            entry(status, "ModularDataOutput")["state"] == "degraded"
        })
        .await;
    let error = &entry(&status, "ModularDataOutput")["last_error"];
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("shared.lua")),
        "{error}"
    );
    assert_eq!(entry(&status, "OtherDataOutput")["state"], "active");
    server.folder.remove("lua-plugins/lib/shared.lua");
    server
        .folder
        .write("lua-plugins/lib/shared.lua", "return { suffix = '.' }");
    label("Where.").await;
    let icon = "lua-plugins/modular/modular.svg";
    for colour in ["green", "blue"] {
        let path = "plugins/ModularDataOutput/form";
        let before = server.get(path).await.is(200).json()["icon_data_uri"].clone();
        server.folder.write(icon, svg(colour));
        server
            .until(path, 200, |form| form["icon_data_uri"] != before)
            .await;
        let served = server
            .get("plugins/ModularDataOutput/icon")
            .await
            .is(200)
            .text();
        assert_eq!(served, svg(colour));
        let tiles = server.get("plugins/platform-tiles").await.is(200).json();
        let now = server.get(path).await.is(200).json()["icon_data_uri"].clone();
        assert!(tiles.to_string().contains(now.as_str().expect("an icon")));
    }
    server.folder.remove(icon);
    server
        .until("plugins/ModularDataOutput/icon", 404, |_| true)
        .await;
}).await;
}

#[tokio::test]
async fn what_is_not_touched_stays_as_it_is() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.file(FILE, bigquery("1.0.0", "Dataset"));
            options.file("lua-plugins/other.lua", plugin("OtherDataOutput", ""));
        });
        let since = |status: &Value, name: &str| {
            entry(status, name)["generation"]
                .as_u64()
                .expect("a generation")
        };
        let before = server.get("plugins/status").await.is(200).json();
        server.folder.write(FILE, bigquery("1.1.0", "Dataset"));
        until_version(&server, "1.1.0").await;
        let now = server.get("plugins/status").await.is(200).json();
        assert!(now["generation"].as_u64() > before["generation"].as_u64());
        assert_eq!(
            since(&now, "OtherDataOutput"),
            since(&before, "OtherDataOutput")
        );
        assert!(since(&now, "BigQueryDataOutput") > since(&before, "BigQueryDataOutput"));
        // Writing the same again changes nothing; the change after it shows that it was looked at.
        server.folder.write(FILE, bigquery("1.1.0", "Dataset"));
        let reload = server
            .post("plugins/reload", &json!({}))
            .await
            .is(200)
            .json();
        assert_eq!(reload["generation"], now["generation"]);
        assert_eq!(server.get("plugins/status").await.is(200).json(), now);
    })
    .await;
}

#[tokio::test]
async fn reloading_by_request_says_what_it_did() {
    for_each_database(async |database| {
    let server = Server::start(|options| {
 options.database(database);
        // Nothing is noticed by itself within the life of this test.
        options.env("PATCHBAY_POLL_MS", "3600000");
        options.file(FILE, bigquery("1.0.0", "Dataset"));
    });
    let reload = async || {
        server
            .post("plugins/reload", &json!({}))
            .await
            .is(200)
            .json()
    };
    let summary = |generation: &Value,
                   added: Value,
                   changed: Value,
                   removed: Value,
                   failed: Value| {
        json!({ "generation": generation, "added": added, "changed": changed, "removed": removed, "failed": failed })
    };
    let none = || json!([]);
    let first = reload().await;
    let number = first["generation"].as_u64().expect("a number");
    assert_eq!(
        first,
        summary(&json!(number), none(), none(), none(), none())
    );
    server
        .folder
        .write("lua-plugins/other.lua", plugin("OtherDataOutput", ""));
    let added = summary(
        &json!(number + 1),
        json!(["OtherDataOutput"]),
        none(),
        none(),
        none(),
    );
    assert_eq!(reload().await, added);
    server.folder.write(FILE, bigquery("1.1.0", "Dataset"));
    let changed = summary(
        &json!(number + 2),
        none(),
        json!(["BigQueryDataOutput"]),
        none(),
        none(),
    );
    assert_eq!(reload().await, changed);
    server.folder.write(FILE, "return 5");
    let failed = reload().await;
    assert_eq!(failed["generation"], number + 3);
    assert_eq!(
        failed["failed"].as_array().map(Vec::len),
        Some(1),
        "{failed}"
    );
    assert_eq!(
        (&failed["changed"], &failed["removed"]),
        (&none(), &none()),
        "{failed}"
    );
    server.folder.remove("lua-plugins/other.lua");
    let removed = reload().await;
    assert_eq!(removed["removed"], json!(["OtherDataOutput"]));
    server.get("plugins/OtherDataOutput/form").await.error(404);
    assert_eq!(server.get(FORM).await.is(200).json()["version"], "1.1.0");
}).await;
}

#[tokio::test]
async fn a_form_is_computed_again_when_what_it_was_computed_from_changes() {
    for_each_database(async |database| {
        let lines = r#"
    ui_metadata = function(db)
        local count = #db:configurations {}
        return { ui.string "path" { label = "Path " .. count } }
    end,
"#;

        let server = Server::start(|options| {
            options
                .database(database)
                .file("lua-plugins/rows.lua", plugin("RowsDataOutput", lines));
        });
        let label = async || {
            server
                .get("plugins/RowsDataOutput/form")
                .await
                .is(200)
                .json()["ui_metadata"][0]["label"]
                .clone()
        };
        assert_eq!(label().await, "Path 0");
        let product = server.data_product("sales", "sales").await;
        let mut ids = Vec::new();
        for count in 1..=3 {
            ids.push(
                server
                    .configured(
                        "RowsDataOutput",
                        &product,
                        &format!("n{count}"),
                        json!({ "path": "p" }),
                    )
                    .await,
            );
            // What was acknowledged shows in the very next answer.
            assert_eq!(label().await, format!("Path {count}"));
            let list = server.get("plugins").await.is(200).json();
            assert_eq!(
                entry(&list, "RowsDataOutput")["ui_metadata"][0]["label"],
                format!("Path {count}")
            );
        }
        server
            .delete(&format!("configurations/{}", ids[0]))
            .await
            .is(204);
        assert_eq!(label().await, "Path 2");
    })
    .await;
}

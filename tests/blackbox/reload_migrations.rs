//! Tables that change with their plugins.

use serde_json::{Value, json};

use crate::harness::{Database, Folder, Server, for_each_database};
use crate::world::{FILE, FORM, bigquery, entry, until_version};

const DETAILS: &str = "plugins/BigQueryDataOutput";

/// BigQuery in a file, with these fields and no form of its own.
fn with_fields(version: &str, fields: &str) -> String {
    format!(
        r#"local field = patchbay.field
return patchbay.plugin {{ name = "BigQueryDataOutput", version = "{version}", fields = {{ {fields} }} }}"#
    )
}

const DATASET: &str = r#"field.string "dataset" { required = true }"#;
const TABLE: &str = r#"field.string "table" { default = "*" }"#;

async fn columns(database: Database, folder: &Folder) -> Vec<String> {
    let table = "bigquery_data_output_configurations";
    database.columns(folder, table).await
}

#[tokio::test]
async fn a_new_field_is_a_new_column_and_old_rows_stay_readable() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database).file(FILE, with_fields("1.0.0", DATASET));
        });
        let product = server.data_product("sales", "sales").await;
        let id = server.configured("BigQueryDataOutput", &product, "n", json!({ "dataset": "d" })).await;
        assert_eq!(columns(database, &server.folder).await, ["id", "dataset"]);
        let fields = format!("{DATASET}, {TABLE}, field.integer \"days\", field.string \"owner\" {{ required = true }}");
        server.folder.write(FILE, with_fields("1.1.0", &fields));
        // The row that is there has no owner, and is accepted all the same.
        server.until(DETAILS, 200, |details| details["last_error"]["stage"] == "rows").await;
        server.post("plugins/reload?force=BigQueryDataOutput", &json!({})).await.is(200);
        until_version(&server, "1.1.0").await;
        assert_eq!(columns(database, &server.folder).await, ["id", "dataset", "table", "days", "owner"]);
        let path = format!("configurations/{id}");
        let old = server.get(&path).await.is(200).json();
        assert_eq!(
            old["configuration"],
            json!({
                "configuration_type": "BigQueryDataOutput", "dataset": "d", "table": "*", "days": null, "owner": null,
            })
        );
        assert_eq!(old["revision"], 1, "a migration is no write of a configuration");
        let detail = server.configure("BigQueryDataOutput", &product, "m", json!({ "dataset": "d" })).await.error(422);
        assert_eq!(detail[0]["loc"][3], "owner");
        let details = server.get(DETAILS).await.is(200).json();
        let steps: Vec<(&Value, &Value, &Value)> = details["migrations"]
            .as_array()
            .expect("migrations")
            .iter()
            .map(|step| (&step["id"], &step["state"], &step["path"]))
            .collect();
        assert_eq!(steps.len(), 4, "{steps:?}");
        assert!(steps.iter().all(|(_, state, path)| **state == "applied" && path.is_null()), "{steps:?}");
        // All of it is there after a restart, and nothing runs twice.
        let server = server.restart(|_| {});
        let again = server.get(DETAILS).await.is(200).json();
        assert_eq!(again["migrations"], details["migrations"]);
        assert_eq!(server.get(&path).await.is(200).json(), old);
    })
    .await;
}

#[tokio::test]
async fn a_removal_or_a_narrowing_needs_a_written_step() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .file(FILE, with_fields("1.0.0", &format!("{DATASET}, {TABLE}")));
        });
        let product = server.data_product("sales", "sales").await;
        for (fields, says) in [
            (DATASET.to_owned(), "m:drop_column("),
            (
                format!("{DATASET}, field.integer \"table\" {{ default = 1 }}"),
                "table",
            ),
            (
                format!("{DATASET}, field.string \"table_name\" {{ default = \"*\" }}"),
                "m:rename_column(",
            ),
        ] {
            server.folder.write(FILE, with_fields("2.0.0", &fields));
            let status = server
                .until("plugins/status", 200, |status| {
                    let found = entry(status, "BigQueryDataOutput");
                    found["state"] == "degraded"
                        && found["last_error"]["message"]
                            .as_str()
                            .is_some_and(|text| text.contains(says))
                })
                .await;
            let error = &entry(&status, "BigQueryDataOutput")["last_error"];
            assert_eq!(
                (&error["stage"], &error["version"]),
                (&json!("plan"), &json!("2.0.0")),
                "{error}"
            );
            // The version before goes on, with its table.
            let name = format!("n{}", fields.len());
            let body = json!({ "dataset": "d", "table": "t" });
            server
                .configured("BigQueryDataOutput", &product, &name, body)
                .await;
            server
                .folder
                .write(FILE, with_fields("1.0.1", &format!("{DATASET}, {TABLE}")));
            until_version(&server, "1.0.1").await;
        }
        assert_eq!(
            columns(database, &server.folder).await,
            ["id", "dataset", "table"]
        );
    })
    .await;
}

/// A plugin in a folder, with written migrations.
fn folder_plugin(folder: &Folder, version: &str, fields: &str) {
    folder.write_by_rename(
        "lua-plugins/bigquery/plugin.lua",
        with_fields(version, fields),
    );
}

fn migration(folder: &Folder, id: &str, up: &str) {
    let text = format!("local column = patchbay.column\nreturn {{ up = function(m)\n{up}\nend }}");
    folder.write_by_rename(&format!("lua-plugins/bigquery/migrations/{id}.lua"), text);
}

const CREATE: &str = r#"m:create_table("bigquery_data_output_configurations", {
    column.id(), column.text "dataset" { nullable = false }, column.text "table" { nullable = false, default = "*" } })"#;

#[tokio::test]
async fn a_migration_file_that_only_adds_runs_by_itself() {
    for_each_database(async |database| {
        let folder = Folder::new();
        migration(&folder, "0001_create_table", CREATE);
        folder_plugin(&folder, "1.0.0", &format!("{DATASET}, {TABLE}"));
        let server = Server::start_in(folder.clone(), |options| {
            options.database(database);
        });
        let form = server.get(FORM).await.is(200).json();
        assert_eq!(form["migration_file_path"], "migrations/0001_create_table.lua");
        let product = server.data_product("sales", "sales").await;
        let id = server.configured("BigQueryDataOutput", &product, "n", json!({ "dataset": "d" })).await;
        migration(
            &folder,
            "0002_add_region",
            r#"m:add_column("bigquery_data_output_configurations", column.text "region" { default = "eu" })
            m:create_index("bigquery_data_output_configurations", { "region" })"#,
        );
        folder_plugin(&folder, "1.1.0", &format!("{DATASET}, {TABLE}, field.string \"region\" {{ default = \"eu\" }}"));
        let form = until_version(&server, "1.1.0").await;
        assert_eq!(form["migration_file_path"], "migrations/0002_add_region.lua");
        let read = server.get(&format!("configurations/{id}")).await.is(200).json();
        assert_eq!(read["configuration"]["region"], "eu");
        let all = server.get("plugins/migrations").await.is(200).json();
        let steps = &all["migrations"]["BigQueryDataOutput"];
        assert_eq!((&steps[1]["id"], &steps[1]["state"]), (&json!("0002_add_region"), &json!("applied")), "{steps}");
        // What has run cannot be changed afterwards; only its text may.
        migration(&folder, "0001_create_table", &format!("-- a comment\n{CREATE}"));
        folder_plugin(&folder, "1.2.0", &format!("{DATASET}, {TABLE}, field.string \"region\" {{ default = \"eu\" }}"));
        until_version(&server, "1.2.0").await;
        migration(&folder, "0001_create_table", &CREATE.replace("default = \"*\"", "default = \"x\""));
        let degraded = server.until(DETAILS, 200, |details| details["state"] == "degraded").await;
        let message = degraded["last_error"]["message"].as_str().expect("a message");
        assert!(message.contains("0001_create_table") && message.contains("changed"), "{message}");
        migration(&folder, "0001_create_table", CREATE);
        server.until(DETAILS, 200, |details| details["state"] == "active").await;
        folder.remove("lua-plugins/bigquery/migrations/0002_add_region.lua");
        let degraded = server.until(DETAILS, 200, |details| details["state"] == "degraded").await;
        let message = degraded["last_error"]["message"].as_str().expect("a message");
        assert!(message.contains("0002_add_region") && message.contains("no longer there"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_migration_that_does_more_waits_until_it_is_told() {
    for_each_database(async |database| {
        let folder = Folder::new();
        migration(&folder, "0001_create_table", CREATE);
        folder_plugin(&folder, "1.0.0", &format!("{DATASET}, {TABLE}"));
        let server = Server::start_in(folder.clone(), |options| {
            options.database(database);
        });
        let product = server.data_product("sales", "sales").await;
        let id = server
            .configured("BigQueryDataOutput", &product, "n", json!({ "dataset": "d", "table": "t" }))
            .await;
        migration(&folder, "0002_drop_table", r#"m:drop_column("bigquery_data_output_configurations", "table")"#);
        folder_plugin(&folder, "2.0.0", DATASET);
        let waiting = server
            .until(DETAILS, 200, |details| {
                details["last_error"]["version"] == "2.0.0" && details["last_error"]["stage"] == "migration"
            })
            .await;
        assert_eq!(waiting["state"], "pending_migration", "{waiting}");
        assert_eq!(waiting["version"], "1.0.0", "what serves");
        let message = waiting["last_error"]["message"].as_str().expect("a message");
        assert!(message.contains("0002_drop_table"), "{message}");
        assert!(message.contains("patchbay plugin migrate BigQueryDataOutput"), "{message}");
        let steps = &server.get("plugins/migrations").await.is(200).json()["migrations"]["BigQueryDataOutput"];
        assert_eq!(
            (&steps[0]["state"], &steps[1]["state"], &steps[1]["applied_at"]),
            (&json!("applied"), &json!("pending"), &Value::Null),
            "{steps}"
        );
        assert_eq!(waiting["migrations"], *steps, "the details show what is pending as well");
        // Until then the version before reads and writes.
        let body = json!({ "dataset": "d", "table": "u" });
        server.configured("BigQueryDataOutput", &product, "m", body).await;
        // A restart does not tell it to, either, and the rows stay readable.
        let server = server.restart(|_| {});
        let status = server.get("plugins/status").await.is(200).json();
        assert_eq!(entry(&status, "BigQueryDataOutput")["state"], "pending_migration", "{status}");
        let read = server.get(&format!("configurations/{id}")).await.is(200).json();
        assert_eq!(read["configuration"]["table"], "t");
        server.configure("BigQueryDataOutput", &product, "x", json!({ "dataset": "d" })).await.error(409);

        let said = server.run(&["plugin", "migrate", "BigQueryDataOutput"]).well();
        assert!(said.contains("0002_drop_table"), "{said}");
        // The running server notices.
        until_version(&server, "2.0.0").await;
        let read = server.get(&format!("configurations/{id}")).await.is(200).json();
        assert_eq!(read["configuration"], json!({ "configuration_type": "BigQueryDataOutput", "dataset": "d" }));
        assert_eq!(columns(database, &folder).await, ["id", "dataset"]);
        let written = server.patch(&format!("configurations/{id}"), &json!({ "description": "d" })).await;
        assert_eq!(written.is(200).json()["revision"], 2);
        let said = server.run(&["plugin", "migrate", "BigQueryDataOutput"]).well();
        assert!(said.contains("nothing"), "{said}");
        server.run(&["plugin", "migrate", "Nope"]).badly();
    })
    .await;
}

#[tokio::test]
async fn data_is_moved_by_a_migration() {
    for_each_database(async |database| {
        let folder = Folder::new();
        migration(&folder, "0001_create_table", CREATE);
        folder_plugin(&folder, "1.0.0", &format!("{DATASET}, {TABLE}"));
        let server = Server::start_in(folder.clone(), |options| {
            options.database(database);
        });
        let product = server.data_product("sales", "sales").await;
        let mut ids = Vec::new();
        for (name, table) in [("a", "*"), ("b", "t")] {
            let body = json!({ "dataset": "d", "table": table });
            ids.push(server.configured("BigQueryDataOutput", &product, name, body).await);
        }
        migration(
            &folder,
            "0002_reshape",
            r#"local name = "bigquery_data_output_configurations"
            m:update(name, { set = { table = "all" }, where = { table = "*" } })
            m:rename_column(name, "table", "table_name")
            m:alter_column(name, column.text "table_name" { nullable = true })"#,
        );
        folder_plugin(&folder, "2.0.0", &format!("{DATASET}, field.string \"table_name\""));
        server.until(DETAILS, 200, |details| details["last_error"]["stage"] == "migration").await;
        server.run(&["plugin", "migrate", "BigQueryDataOutput"]).well();
        until_version(&server, "2.0.0").await;
        for (id, table) in ids.iter().zip(["all", "t"]) {
            let read = server.get(&format!("configurations/{id}")).await.is(200).json();
            let expected = json!({ "configuration_type": "BigQueryDataOutput", "dataset": "d", "table_name": table });
            assert_eq!(read["configuration"], expected, "rows outlive the rebuild of their table");
        }
        server.configured("BigQueryDataOutput", &product, "c", json!({ "dataset": "d" })).await;
        server.delete(&format!("configurations/{}", ids[0])).await.is(204);
    })
    .await;
}

#[tokio::test]
async fn without_auto_migrate_even_a_new_column_waits() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .file(FILE, with_fields("1.0.0", DATASET));
        });
        server.get(FORM).await.is(200);
        let server = server.restart(|options| {
            options.env("PATCHBAY_AUTO_MIGRATE", "false");
        });
        server
            .folder
            .write(FILE, with_fields("1.1.0", &format!("{DATASET}, {TABLE}")));
        let waiting = server
            .until(DETAILS, 200, |details| {
                details["state"] == "pending_migration"
            })
            .await;
        assert_eq!(waiting["version"], "1.0.0");
        assert_eq!(columns(database, &server.folder).await, ["id", "dataset"]);
        server
            .run(&["plugin", "migrate", "BigQueryDataOutput"])
            .well();
        until_version(&server, "1.1.0").await;
    })
    .await;
}

#[tokio::test]
async fn a_version_that_promises_too_little_is_warned_about_or_refused() {
    for strict in ["false", "true"] {
        for_each_database(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .env("PATCHBAY_STRICT_VERSIONS", strict)
                .file(FILE, with_fields("1.0.0", DATASET));
        });
        server.get(FORM).await.is(200);
        let demands = format!("{DATASET}, field.string \"project\" {{ required = true }}");
        server.folder.write(FILE, with_fields("1.0.1", &demands));
        let reason = "the version 1.0.1 after 1.0.0 says that there is a fix at most, but fields.project is new, required, \
                      and has no default, which is a breaking change; make it 2.0.0";
        if strict == "true" {
            let refused = server
                .until(DETAILS, 200, |details| {
                    details["last_error"]["stage"] == "version"
                })
                .await;
            assert_eq!(refused["version"], "1.0.0");
            let remedy = "or accept it with `patchbay plugin migrate BigQueryDataOutput --force` or POST \
                          /api/v2/plugins/reload?force=BigQueryDataOutput";
            assert_eq!(refused["last_error"]["message"], format!("{reason}, {remedy}"));
            server.folder.write(FILE, with_fields("2.0.0", &demands));
            until_version(&server, "2.0.0").await;
        } else {
            until_version(&server, "1.0.1").await;
            let status = server.get("plugins/status").await.is(200).json();
            let plugins = status["plugins"].as_array().expect("a list");
            let own = plugins
                .iter()
                .find(|plugin| plugin["plugin"] == "BigQueryDataOutput")
                .expect("the plugin");
            assert_eq!(own["warnings"], json!([reason]));
        }
    }).await;
    }
}

#[tokio::test]
async fn a_migration_that_cannot_run_changes_nothing() {
    for_each_database(async |database| {
        let folder = Folder::new();
        migration(&folder, "0001_create_table", CREATE);
        folder_plugin(&folder, "1.0.0", &format!("{DATASET}, {TABLE}"));
        let server = Server::start_in(folder.clone(), |options| {
            options.database(database);
        });
        let product = server.data_product("sales", "sales").await;
        for name in ["a", "b"] {
            server.configured("BigQueryDataOutput", &product, name, json!({ "dataset": "d" })).await;
        }
        let name = "bigquery_data_output_configurations";
        for (id, up, words) in [
            ("0002_nowhere", format!("m:drop_column(\"{name}\", \"nope\")"), "nope"),
            ("0002_other", "m:drop_table(\"snowflake_data_output_configurations\")".to_owned(), "snowflake"),
            ("0002_core", "m:drop_table(\"data_output_configurations\")".to_owned(), "data_output_configurations"),
            ("0002_id", format!("m:drop_column(\"{name}\", \"id\")"), "id"),
            ("0002_null", format!("m:add_column(\"{name}\", column.text \"x\" {{ nullable = false }})"), "default"),
            ("0002_raises", "error(\"no step\")".to_owned(), "no step"),
            ("0002-bad", String::new(), "0002-bad"),
        ] {
            migration(&folder, id, &up);
            let broken = server
                .until(DETAILS, 200, |details| {
                    details["state"] == "degraded" && details["last_error"].to_string().contains(words)
                })
                .await;
            assert_eq!(broken["version"], "1.0.0", "{id}");
            folder.remove(&format!("lua-plugins/bigquery/migrations/{id}.lua"));
            server.until(DETAILS, 200, |details| details["state"] == "active").await;
        }
        // One that fails on the data in it: the whole of it is taken back.
        migration(
            &folder,
            "0002_unique",
            &format!(
                "m:update(\"{name}\", {{ set = {{ table = \"changed\" }} }})\nm:create_index(\"{name}\", {{ \"dataset\" }}, {{ unique = true }})"
            ),
        );
        server.until(DETAILS, 200, |details| details["last_error"]["stage"] == "migration").await;
        let complaint = server.run(&["plugin", "migrate", "BigQueryDataOutput"]).badly();
        assert!(complaint.contains("0002_unique"), "{complaint}");
        assert_eq!(columns(database, &folder).await, ["id", "dataset", "table"]);
        let all = server.get("configurations").await.is(200).json();
        assert_eq!(all["configurations"].as_array().map(Vec::len), Some(2));
        assert_eq!(all["configurations"][0]["configuration"]["table"], "*");
        server.configured("BigQueryDataOutput", &product, "c", json!({ "dataset": "d" })).await;
    })
    .await;
}

#[tokio::test]
async fn writes_go_on_while_the_table_changes_under_them() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .file(FILE, bigquery("1.0.0", "Dataset"));
        });
        let product = server.data_product("sales", "sales").await;
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (server, product) = (server.http(), product.clone());
                tokio::spawn(async move {
                    for number in 0..40 {
                        let name = format!("{writer}-{number}");
                        server
                            .configured(
                                "BigQueryDataOutput",
                                &product,
                                &name,
                                json!({ "dataset": "d" }),
                            )
                            .await;
                    }
                })
            })
            .collect();
        let mut fields = format!("{DATASET}, {TABLE}");
        for round in 1..=6 {
            fields.push_str(&format!(
                ", field.string \"extra_{round}\" {{ default = \"{round}\" }}"
            ));
            let version = format!("1.{round}.0");
            server.folder.write(FILE, with_fields(&version, &fields));
            until_version(&server, &version).await;
        }
        for writer in writers {
            writer.await.expect("no write fails");
        }
        let all = server.get("configurations?limit=200").await.is(200).json();
        let rows = all["configurations"].as_array().expect("rows");
        assert_eq!(rows.len(), 160);
        assert!(
            rows.iter()
                .all(|row| row["configuration"]["extra_6"] == "6")
        );
    })
    .await;
}

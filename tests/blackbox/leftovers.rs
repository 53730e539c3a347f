//! What plugins stored: written to a file, and dropped, by name or alias, of plugins that are gone or turned off.

use serde_json::{Value, json};

use crate::harness::{Database, Server, for_each_database, on_postgres};
use crate::world::{FILE, FORM, bigquery, entry, snowflake, until_version};

const SNOWFLAKE: &str = "SnowflakeDataOutput";

async fn with_snowflake(database: Database) -> (Server, String) {
    let server = Server::on(database);
    let product = server.data_product("sales", "sales").await;
    let id = server
        .configured(SNOWFLAKE, &product, "n", snowflake("sales"))
        .await;
    (server, id)
}

#[tokio::test]
async fn an_export_replaces_a_file_only_when_it_is_whole() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .file(FILE, bigquery("1.0.0", "Dataset"))
                .file("rows.jsonl", "of before");
        });
        until_version(&server, "1.0.0").await;
        let product = server.data_product("sales", "sales").await;
        server
            .configured(
                "BigQueryDataOutput",
                &product,
                "n",
                json!({ "dataset": "d" }),
            )
            .await;
        let export = ["plugin", "export", "BigQueryDataOutput", "-o", "rows.jsonl"];
        let broken = "ALTER TABLE data_output_configurations RENAME COLUMN description TO away";
        database.execute(&server.folder, broken).await;
        server.run(&export).badly();
        assert_eq!(server.folder.read("rows.jsonl"), "of before");
        let mended = "ALTER TABLE data_output_configurations RENAME COLUMN away TO description";
        database.execute(&server.folder, mended).await;
        server.run(&export).well();
        let exported = server.folder.read("rows.jsonl");
        let row: Value = serde_json::from_str(&exported).expect("a row");
        assert_eq!(row["configuration"]["dataset"], "d");
        // Nothing is left beside it, a link stays one, and what is no file is written to.
        let beside = std::fs::read_dir(server.folder.path("")).expect("the folder");
        let left = beside
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().contains("export"));
        assert_eq!(left.count(), 0);
        server.folder.write("linked/rows.jsonl", "of before");
        server.folder.link("linked/rows.jsonl", "link.jsonl");
        let alias = "BigQueryTechnicalAssetConfiguration";
        server
            .run(&["plugin", "export", alias, "-o", "link.jsonl"])
            .well();
        assert_eq!(server.folder.read("linked/rows.jsonl"), exported);
        assert!(server.folder.path("link.jsonl").is_symlink());
        let null = ["plugin", "export", alias, "-o", "/dev/null"];
        server.run(&null).well();

        // An alias is known by what was applied, also when the plugin is gone.
        server.folder.remove(FILE);
        server.until(FORM, 404, |_| true).await;
        assert_eq!(server.run(&["plugin", "export", alias]).well(), exported);
        let complaint = server.run(&["plugin", "drop", alias]).badly();
        assert!(
            complaint.contains("1 configurations of BigQueryDataOutput"),
            "{complaint}"
        );
        let said = server.run(&["plugin", "drop", alias, "--yes"]).well();
        assert!(
            said.contains("bigquery_data_output_configurations"),
            "{said}"
        );
        server.run(&["plugin", "export", "Nobody"]).badly();
    })
    .await;
}

#[tokio::test]
async fn what_a_plugin_of_the_program_stored_is_dropped_once_it_is_turned_off() {
    for_each_database(async |database| {
        let (server, id) = with_snowflake(database).await;
        let complaint = server.run(&["plugin", "drop", SNOWFLAKE, "--yes"]).badly();
        assert!(
            complaint.contains("embedded:snowflake")
                && complaint.contains("DISABLED_PLUGINS=SnowflakeDataOutput"),
            "{complaint}"
        );
        let path = format!("configurations/{id}");
        server.get(&path).await.is(200);
        let server = server.restart(|options| {
            options.env("DISABLED_PLUGINS", SNOWFLAKE);
        });
        let said = server
            .run(&[
                "plugin",
                "drop",
                "SnowflakeTechnicalAssetConfiguration",
                "--yes",
            ])
            .well();
        assert!(
            said.contains(
                "1 configurations of SnowflakeDataOutput deleted; tables dropped: snowflake_"
            ),
            "{said}"
        );
        server.get(&path).await.error(404);
        let history = server.get(&format!("{path}/history")).await.is(200).json();
        let by = history["history"][0]["changed_by"].as_str().expect("who");
        assert!(by.starts_with("local ") && by.contains('@'), "{by}");
        // Turned on again, it begins with an empty table.
        let server = server.restart(|options| {
            options.env("DISABLED_PLUGINS", "");
        });
        let status = server.get("plugins/status").await.is(200).json();
        assert_eq!(entry(&status, SNOWFLAKE)["state"], "active", "{status}");
        let product = server.data_product("other", "other").await;
        server
            .configured(SNOWFLAKE, &product, "n", snowflake("other"))
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_table_is_not_dropped_under_a_server_that_says_it_serves_it() {
    on_postgres(async |database| {
        let (server, id) = with_snowflake(database).await;
        // The settings of somebody else, on the same database.
        let off = Server::start(|options| {
            options
                .database(database)
                .env("DISABLED_PLUGINS", SNOWFLAKE);
        });
        let drop = ["plugin", "drop", SNOWFLAKE, "--yes"];
        let served = |cluster: &Value| cluster["servers"].as_array().map(Vec::len) == Some(2);
        off.until("cluster", 200, served).await;
        let complaint = off.run(&drop).badly();
        assert!(
            complaint.contains("no server on this database serves"),
            "{complaint}"
        );
        server.get(&format!("configurations/{id}")).await.is(200);
        server.stop().well();
        let said = off.run(&drop).well();
        assert!(said.contains("1 configurations"), "{said}");
    })
    .await;
}

/// On SQLite a server does not say what it serves.
#[tokio::test]
async fn a_server_whose_table_is_dropped_makes_it_again() {
    let (server, id) = with_snowflake(Database::Sqlite).await;
    let dropped = crate::harness::run_with(&server.folder, |options| {
        options.env("DISABLED_PLUGINS", SNOWFLAKE);
        for word in ["plugin", "drop", SNOWFLAKE, "--yes"] {
            options.arg(word);
        }
    });
    dropped.well();
    server.get(&format!("configurations/{id}")).await.error(404);
    let product = server.data_product("other", "other").await;
    let id = server
        .configured(SNOWFLAKE, &product, "m", snowflake("other"))
        .await;
    let row = server
        .get(&format!("configurations/{id}"))
        .await
        .is(200)
        .json();
    assert_eq!(row["configuration"]["database"], "other");
}

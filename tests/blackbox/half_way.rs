//! Migrations of which a later step fails: nothing of the earlier ones stays, and the plugin says why.

use serde_json::{Value, json};

use crate::harness::{Database, Server, for_each_database};
use crate::world::{FILE, FORM, entry, until_version};

const NAME: &str = "BigQueryDataOutput";
const DETAILS: &str = "plugins/BigQueryDataOutput";
const TABLE: &str = "bigquery_data_output_configurations";

/// The plugin with these steps after the one that makes its table.
fn stepped(version: &str, fields: &str, steps: &str) -> String {
    format!(
        r#"local field, column, migration = patchbay.field, patchbay.column, patchbay.migration
return patchbay.plugin {{
    name = "{NAME}", version = "{version}", fields = {{ field.string "dataset" {{ required = true }}, {fields} }},
    migrations = {{
        migration "0001_create" {{ up = function(m)
            m:create_table("{TABLE}", {{ column.id(), column.text "dataset" {{ nullable = false }} }})
        end }},
        {steps}
    }},
}}"#
    )
}

const REGION: &str = r#"field.string "region" {}"#;
const ADD: &str = r#"migration "0002_add" { up = function(m)
    m:add_column("bigquery_data_output_configurations", column.text "region" {})
end },"#;

/// A server with the plugin and two rows that agree.
async fn serving(database: Database) -> (Server, String) {
    let server = Server::start(|options| {
        options
            .database(database)
            .file(FILE, stepped("1.0.0", "", ""));
    });
    until_version(&server, "1.0.0").await;
    let product = server.data_product("sales", "sales").await;
    for name in ["a", "b"] {
        let values = json!({ "dataset": "same" });
        server.configured(NAME, &product, name, values).await;
    }
    (server, product)
}

/// Asserts that the table, its history, its rows and the version before are as they were.
async fn as_before(server: &Server, database: Database, product: &str, name: &str) {
    let columns = database.columns(&server.folder, TABLE).await;
    assert_eq!(columns, ["id", "dataset"]);
    let steps = "SELECT count(*) FROM plugin_migrations WHERE plugin = 'BigQueryDataOutput'";
    assert_eq!(database.number(&server.folder, steps).await, 1);
    let form = server.get(FORM).await.is(200).json();
    assert_eq!(form["version"], "1.0.0");
    let values = json!({ "dataset": "same" });
    server.configured(NAME, product, name, values).await;
}

/// The server runs both by itself. A table that refers to another plugin's is what it refuses on the way.
#[tokio::test]
async fn of_two_steps_that_a_server_runs_the_second_fails() {
    for_each_database(async |database| {
        let (server, product) = serving(database).await;
        let other = r#"migration "0003_other" { up = function(m)
            m:create_table("bigquery_notes", {
                column.id(),
                column.uuid "other" { references = { table = "snowflake_data_output_configurations", column = "id" } },
            })
        end },"#;
        server
            .folder
            .write(FILE, stepped("1.1.0", REGION, &format!("{ADD} {other}")));
        let failed = |details: &Value| {
            details["last_error"]["stage"] == "migration" && details["state"] == "degraded"
        };
        server.until(DETAILS, 200, failed).await;
        let status = server.get("plugins/status").await.is(200).json();
        let message = entry(&status, NAME)["last_error"]["message"].to_string();
        assert!(
            message.contains("0003_other")
                && message.contains("refers to snowflake_data_output_configurations"),
            "{message}"
        );
        as_before(&server, database, &product, "c").await;
    })
    .await;
}

/// An index that forbids rows that are there is only made when told to.
#[tokio::test]
async fn of_two_steps_that_are_told_to_run_the_second_fails() {
    for_each_database(async |database| {
        let (server, product) = serving(database).await;
        let unique = format!(
            r#"migration "0003_unique" {{ up = function(m)
                m:create_index("{TABLE}", {{ "dataset" }}, {{ unique = true }})
            end }},"#
        );
        server
            .folder
            .write(FILE, stepped("2.0.0", REGION, &format!("{ADD} {unique}")));
        let waits = |details: &Value| details["last_error"]["stage"] == "migration";
        server.until(DETAILS, 200, waits).await;
        let complaint = server.run(&["plugin", "migrate", NAME]).badly();
        assert!(
            complaint.contains("0003_unique")
                && complaint.contains("rows agree in dataset, which shall be unique"),
            "{complaint}"
        );
        as_before(&server, database, &product, "c").await;
    })
    .await;
}

//! What operators and authors do with migrations by the command line, beside a running server, and what becomes of tables
//! that somebody else changes.

use serde_json::{Value, json};

use crate::harness::{Database, Folder, Server, for_each_database, on_postgres, run};
use crate::world::entry;

const DETAILS: &str = "plugins/LakeDataOutput";
const TABLE: &str = "lake_data_output_configurations";
const PLUGIN: &str = "lua-plugins/lake/plugin.lua";

const FOLDER: &str = r#"field.string "folder" { required = true }"#;
const REGION: &str = r#"field.string "region" { default = "eu" }"#;

/// The plugin in its folder, with these fields.
/// What is odd about the plugin.
async fn warnings(server: &Server) -> Value {
    let status = server.get("plugins/status").await.is(200).json();
    entry(&status, "LakeDataOutput")["warnings"].clone()
}

fn write(folder: &Folder, version: &str, fields: &str) {
    folder.write_by_rename(
        PLUGIN,
        format!(
            r#"local field = patchbay.field
return patchbay.plugin {{ name = "LakeDataOutput", version = "{version}", fields = {{ {fields} }} }}"#
        ),
    );
}

fn migration(folder: &Folder, id: &str, text: &str) {
    let text = format!("local column = patchbay.column\nreturn {{ {text} }}");
    folder.write_by_rename(&format!("lua-plugins/lake/migrations/{id}.lua"), text);
}

fn created(folder: &Folder) {
    let text = format!(
        r#"up = function(m)
            m:create_table("{TABLE}", {{ column.id(), column.text "folder" {{ nullable = false }} }})
        end"#
    );
    migration(folder, "0001_create_table", &text);
}

fn grown(folder: &Folder) {
    let text = format!(
        r#"up = function(m)
            m:add_column("{TABLE}", column.text "region" {{ nullable = false, default = "eu" }})
        end"#
    );
    migration(folder, "0002_add_region", &text);
}

/// A server with the plugin at its second step, and a configuration.
async fn lake(database: Database) -> (Server, Folder, String, String) {
    let folder = Folder::new();
    created(&folder);
    grown(&folder);
    write(&folder, "1.1.0", &format!("{FOLDER}, {REGION}"));
    let server = Server::start_in(folder.clone(), |options| {
        // What the environment says of who somebody is counts for nothing.
        options
            .database(database)
            .env("USER", "mallory")
            .env("LOGNAME", "mallory");
    });
    let product = server.data_product("sales", "sales").await;
    let id = server
        .configured(
            "LakeDataOutput",
            &product,
            "a",
            json!({ "folder": "orders" }),
        )
        .await;
    (server, folder, product, id)
}

async fn until_state(server: &Server, state: &str) -> Value {
    server
        .until(DETAILS, 200, |details| details["state"] == state)
        .await
}

async fn values(server: &Server, id: &str) -> Value {
    let read = server.get(&format!("configurations/{id}")).await.is(200);
    let mut values = read.json()["configuration"].clone();
    values
        .as_object_mut()
        .expect("values")
        .remove("configuration_type");
    values
}

#[tokio::test]
async fn a_plugin_goes_down_waits_and_goes_up_again() {
    for_each_database(async |database| {
        let (server, folder, product, id) = lake(database).await;
        let cluster = server.get("cluster").await.is(200).json();
        let own = &cluster["servers"][0];
        let text = |key: &str| own[key].as_str().expect("a text").to_owned();
        let first = format!("server {} ({})", text("name"), text("id"));
        assert_eq!(
            values(&server, &id).await,
            json!({ "folder": "orders", "region": "eu" })
        );
        let said = server
            .run(&["plugin", "migrate", "LakeDataOutput", "--to", "1"])
            .well();
        assert!(said.contains("0002_add_region taken back"), "{said}");
        assert!(
            said.contains("LakeDataOutput is held at 0001_create_table"),
            "{said}"
        );
        assert_eq!(database.columns(&folder, TABLE).await, ["id", "folder"]);

        // The running server notices, says why, and does not go up by itself, whatever is saved or restarted.
        let waiting = until_state(&server, "pending_migration").await;
        assert_eq!(waiting["last_error"]["stage"], "migration", "{waiting}");
        let message = waiting["last_error"]["message"]
            .as_str()
            .expect("a message");
        for part in [
            "held at the migration 0001_create_table",
            "by local",
            "0002_add_region",
            "patchbay plugin migrate LakeDataOutput",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert_eq!(values(&server, &id).await, json!({ "folder": "orders" }));
        let body = json!({ "folder": "x" });
        server
            .configure("LakeDataOutput", &product, "b", body.clone())
            .await
            .error(409);
        write(&folder, "1.1.1", &format!("{FOLDER}, {REGION}"));
        server
            .until(DETAILS, 200, |details| {
                details["last_error"]["version"] == "1.1.1"
            })
            .await;
        let server = server.restart(|_| {});
        until_state(&server, "pending_migration").await;
        assert_eq!(values(&server, &id).await, json!({ "folder": "orders" }));
        assert_eq!(database.columns(&folder, TABLE).await, ["id", "folder"]);
        // Nobody else is touched.
        server.get("plugins/SnowflakeDataOutput/form").await.is(200);
        let told = server.run(&["doctor"]).stdout;
        assert!(
            told.contains("held at the migration 0001_create_table since")
                && told.contains("so 0002_add_region does not run"),
            "{told}"
        );

        // The version that the table is for serves with it.
        folder.remove("lua-plugins/lake/migrations/0002_add_region.lua");
        write(&folder, "1.0.0", FOLDER);
        until_state(&server, "active").await;
        // That it is held is told all the same.
        let held = warnings(&server).await.to_string();
        for part in [
            "held at the migration 0001_create_table since",
            "waits until `patchbay plugin migrate LakeDataOutput` goes on",
        ] {
            assert!(held.contains(part), "{part}: {held}");
        }
        server
            .configured("LakeDataOutput", &product, "b", body.clone())
            .await;
        // The newer one is still held until it is told to go on.
        grown(&folder);
        write(&folder, "1.1.2", &format!("{FOLDER}, {REGION}"));
        server
            .until(DETAILS, 200, |details| {
                details["state"] == "pending_migration" && details["version"] == "1.0.0"
            })
            .await;
        let said = server.run(&["plugin", "migrate", "LakeDataOutput"]).well();
        assert!(
            said.contains("0002_add_region applied") && said.contains("held no longer"),
            "{said}"
        );
        server
            .until(DETAILS, 200, |details| {
                // It is let go after the step, which the server notices by itself.
                details["state"] == "active"
                    && details["version"] == "1.1.2"
                    && details["warnings"] == json!([])
            })
            .await;
        assert_eq!(warnings(&server).await, json!([]));
        assert_eq!(
            values(&server, &id).await,
            json!({ "folder": "orders", "region": "eu" })
        );
        let history = server.get(DETAILS).await.is(200).json()["migrations"].clone();
        assert_eq!(history[1]["state"], "applied");
        // By the account of the process, whatever the environment says, and by the server as the cluster calls it.
        let by = history[1]["applied_by"].as_str().expect("who");
        let account = std::process::Command::new("id").arg("-un").output();
        let account = String::from_utf8(account.expect("id").stdout).expect("a name");
        assert!(
            by.starts_with(&format!("local {}@", account.trim())),
            "{by}"
        );
        assert_eq!(history[0]["applied_by"], first);
    })
    .await;
}

#[tokio::test]
async fn what_would_be_lost_needs_force() {
    for_each_database(async |database| {
        let (server, folder, product, id) = lake(database).await;
        let body = json!({ "folder": "x", "region": "us" });
        let other = server
            .configured("LakeDataOutput", &product, "b", body)
            .await;
        let complaint = server
            .run(&["plugin", "migrate", "LakeDataOutput", "--to", "1"])
            .badly();
        assert!(
            complaint.contains("values would be lost")
                && complaint.contains(&format!(
                    "0002_add_region: the values of {TABLE}.region (1 rows)"
                ))
                && complaint.contains("--force"),
            "{complaint}"
        );
        assert_eq!(server.get(DETAILS).await.is(200).json()["state"], "active");
        assert_eq!(
            database.columns(&folder, TABLE).await,
            ["id", "folder", "region"]
        );
        server
            .run(&[
                "plugin",
                "migrate",
                "LakeDataOutput",
                "--to",
                "0001_create_table",
                "--force",
            ])
            .well();
        until_state(&server, "pending_migration").await;
        assert_eq!(values(&server, &other).await, json!({ "folder": "x" }));

        // Down to nothing, which takes all values, and up again.
        let complaint = server
            .run(&["plugin", "migrate", "LakeDataOutput", "--to", "0"])
            .badly();
        assert!(
            complaint.contains(&format!("all of {TABLE} (2 rows)")),
            "{complaint}"
        );
        let said = server
            .run(&[
                "plugin",
                "migrate",
                "LakeDataOutput",
                "--to",
                "0",
                "--force",
            ])
            .well();
        assert!(said.contains("held with nothing applied"), "{said}");
        assert_eq!(database.columns(&folder, TABLE).await, Vec::<String>::new());
        assert_eq!(
            values(&server, &id).await,
            json!({}),
            "the configurations stay"
        );
        server.run(&["plugin", "migrate", "LakeDataOutput"]).well();
        until_state(&server, "active").await;
        let body = json!({ "configuration": { "folder": "again" } });
        server
            .patch(&format!("configurations/{id}"), &body)
            .await
            .is(200);
        assert_eq!(
            values(&server, &id).await,
            json!({ "folder": "again", "region": "eu" })
        );
    })
    .await;
}

#[tokio::test]
async fn a_step_without_a_way_back_or_a_proof_says_so() {
    for_each_database(async |database| {
        let (server, folder, _, id) = lake(database).await;
        let drop = format!("up = function(m) m:drop_column(\"{TABLE}\", \"region\") end");
        migration(&folder, "0003_drop_region", &drop);
        write(&folder, "2.0.0", FOLDER);
        until_state(&server, "pending_migration").await;
        server.run(&["plugin", "migrate", "LakeDataOutput"]).well();
        until_state(&server, "active").await;
        let complaint = server.run(&["plugin", "migrate", "LakeDataOutput", "--to", "2"]).badly();
        assert!(
            complaint.contains("0003_drop_region cannot be taken back")
                && complaint.contains(&format!("m:drop_column(\"{TABLE}\", \"region\")")),
            "{complaint}"
        );
        let forced = server.run(&["plugin", "migrate", "LakeDataOutput", "--to", "2", "--force"]).badly();
        assert_eq!(forced, complaint, "nobody can force what there is no way for");
        // What came with a `down`, that cannot bring the values back, is done when it is forced.
        migration(
            &folder,
            "0004_drop_folder",
            &format!(
                r#"up = function(m) m:rename_column("{TABLE}", "folder", "path") m:update("{TABLE}", {{ set = {{ path = "all" }} }}) end,
                down = function(m) m:rename_column("{TABLE}", "path", "folder") end"#
            ),
        );
        write(&folder, "3.0.0", r#"field.string "path" { required = true }"#);
        until_state(&server, "pending_migration").await;
        server.run(&["plugin", "migrate", "LakeDataOutput"]).well();
        until_state(&server, "active").await;
        let complaint = server.run(&["plugin", "migrate", "LakeDataOutput", "--to", "3"]).badly();
        assert!(
            complaint.contains("not proved to be reversible") && complaint.contains("0004_drop_folder: after `up` and `down`"),
            "{complaint}"
        );
        server.run(&["plugin", "migrate", "LakeDataOutput", "--to", "3", "--force"]).well();
        until_state(&server, "pending_migration").await;
        assert_eq!(values(&server, &id).await, json!({ "folder": "all" }));
        let check = server.run(&["plugin", "check"]);
        assert_eq!(check.code, Some(1));
        let says = format!(
            "migrations/0004_drop_folder.lua: the `down` of the migration 0004_drop_folder does not restore what `up` changed: \
             after `up` and `down`, {TABLE}.folder was"
        );
        assert!(check.stdout.contains(&says), "{}", check.stdout);
        assert!(!check.stdout.contains("waits to be told"), "an empty database has nothing to lose: {}", check.stdout);
    })
    .await;
}

#[tokio::test]
async fn a_plugin_goes_up_to_a_step_and_no_further() {
    for_each_database(async |database| {
        let folder = Folder::new();
        created(&folder);
        grown(&folder);
        write(&folder, "1.1.0", &format!("{FOLDER}, {REGION}, field.integer \"days\""));
        let server = Server::start_in(folder.clone(), |options| {
            options.database(database).env("PATCHBAY_AUTO_MIGRATE", "false");
        });
        until_state(&server, "pending_migration").await;
        for (to, applied, columns) in [
            ("1", "0001_create_table applied", &["id", "folder"][..]),
            ("0002_add_region", "0002_add_region applied", &["id", "folder", "region"]),
            ("3", "0003_add_days applied", &["id", "folder", "region", "days"]),
        ] {
            let said = server.run(&["plugin", "migrate", "LakeDataOutput", "--to", to]).well();
            assert!(said.contains(applied) && said.contains("is held at"), "{said}");
            assert_eq!(database.columns(&folder, TABLE).await, columns);
        }
        until_state(&server, "active").await;
        let said = server.run(&["plugin", "migrate", "LakeDataOutput", "--to", "3"]).well();
        assert!(said.contains("nothing to migrate"), "{said}");
        for (to, says) in [
            ("7", "found \"7\"; there are 0001_create_table, 0002_add_region, 0003_add_days, and 0 for nothing"),
            ("0002_add_regoin", "did you mean \"0002_add_region\"?"),
            ("-1", "unexpected argument"),
        ] {
            let complaint = server.run(&["plugin", "migrate", "LakeDataOutput", "--to", to]).badly();
            assert!(complaint.contains(says), "{complaint}");
        }
        server.run(&["plugin", "migrate", "Nope", "--to", "1"]).badly();
        // A plugin whose file is gone can still be taken back: its history knows how.
        folder.remove("lua-plugins/lake");
        server.until(DETAILS, 404, |_| true).await;
        let said = server.run(&["plugin", "migrate", "LakeDataOutput", "--to", "2"]).well();
        assert!(said.contains("0003_add_days taken back"), "{said}");
        assert_eq!(database.columns(&folder, TABLE).await, ["id", "folder", "region"]);
    })
    .await;
}

#[tokio::test]
async fn the_sql_of_a_way_is_shown_for_both_databases() {
    for_each_database(async |database| {
        let (server, folder, _, id) = lake(database).await;
        let nothing = server.run(&["plugin", "migrate", "LakeDataOutput", "--sql"]).well();
        assert_eq!(nothing, "-- nothing to migrate\n");
        let down = server.run(&["plugin", "migrate", "LakeDataOutput", "--to", "1", "--sql"]).well();
        assert_eq!(
            down,
            format!(
                "-- SQLite: 0002_add_region (migrations/0002_add_region.lua), taken back, destructive: it does more than add\n\
                 ALTER TABLE \"{TABLE}\" DROP COLUMN \"region\";\n\
                 -- Postgres: 0002_add_region (migrations/0002_add_region.lua), taken back, destructive: it does more than add\n\
                 ALTER TABLE \"{TABLE}\" DROP COLUMN \"region\";\n"
            )
        );
        migration(
            &folder,
            "0003_days",
            &format!("up = function(m) m:add_column(\"{TABLE}\", column.integer \"days\") end"),
        );
        migration(
            &folder,
            "0004_narrow",
            &format!("up = function(m) m:alter_column(\"{TABLE}\", column.number \"region\") end"),
        );
        write(&folder, "2.0.0", &format!("{FOLDER}, field.number \"region\", field.integer \"days\""));
        until_state(&server, "pending_migration").await;
        let up = server.run(&["plugin", "migrate", "LakeDataOutput", "--sql"]).well();
        for line in [
            "-- SQLite: 0003_days (migrations/0003_days.lua), expanding: a server of the version before goes on reading beside it",
            "ADD COLUMN \"days\" integer CHECK",
            "-- SQLite: 0004_narrow (migrations/0004_narrow.lua), destructive: it does more than add",
            "CREATE TABLE \"patchbay rebuild\"",
            "ADD COLUMN \"days\" bigint;",
            "ALTER COLUMN \"region\" TYPE double precision",
        ] {
            assert!(up.contains(line), "{line}: {up}");
        }
        let to_three = server.run(&["plugin", "migrate", "LakeDataOutput", "--to", "3", "--sql"]).well();
        assert!(to_three.contains("0003_days") && !to_three.contains("0004_narrow"), "{to_three}");
        // Nothing has happened, nor is anything held.
        assert_eq!(database.columns(&folder, TABLE).await, ["id", "folder", "region"]);
        assert_eq!(values(&server, &id).await, json!({ "folder": "orders", "region": "eu" }));
        assert_eq!(database.number(&folder, "SELECT count(*) FROM plugin_targets").await, 0);
        server.run(&["plugin", "migrate", "LakeDataOutput", "--to", "9", "--sql"]).badly();
    })
    .await;
}

#[test]
fn to_look_at_the_sql_makes_no_database() {
    let folder = Folder::new();
    created(&folder);
    write(&folder, "1.0.0", FOLDER);
    let said = run(&folder, &["plugin", "migrate", "LakeDataOutput", "--sql"]).well();
    assert!(
        said.contains(&format!("CREATE TABLE \"{TABLE}\"")),
        "{said}"
    );
    assert!(!folder.path("data/patchbay.db").exists());
}

#[tokio::test]
async fn what_is_proved_to_be_reversible_is_shown() {
    for_each_database(async |database| {
        let (server, folder, _, _) = lake(database).await;
        let text = format!("up = function(m) m:drop_column(\"{TABLE}\", \"region\") end");
        migration(&folder, "0003_drop_region", &text);
        write(&folder, "2.0.0", FOLDER);
        until_state(&server, "pending_migration").await;
        let all = server
            .until("plugins/migrations", 200, |all| {
                !all.to_string().contains("not proved yet")
            })
            .await;
        let steps = &all["migrations"]["LakeDataOutput"];
        let claims: Vec<(&Value, &Value)> = steps
            .as_array()
            .expect("steps")
            .iter()
            .map(|step| (&step["reversible"], &step["reversible_reason"]))
            .collect();
        assert_eq!(
            claims[..2],
            [(&json!(true), &Value::Null), (&json!(true), &Value::Null)]
        );
        assert_eq!(claims[2].0, &json!(false));
        let reason = claims[2].1.as_str().expect("a reason");
        assert!(
            reason.contains("no `down`") && reason.contains("m:drop_column"),
            "{reason}"
        );
        assert_eq!(
            server.get(DETAILS).await.is(200).json()["migrations"],
            *steps
        );
        let said = server.run(&["plugin", "migrations"]).well();
        assert!(
            said.contains("0002_add_region  migrations/0002_add_region.lua  reversible"),
            "{said}"
        );
        // The command line reads the same of the database.
        let own = said.split("LakeDataOutput\n").nth(1).expect("the plugin");
        for step in steps.as_array().expect("steps") {
            let text = |key: &str| step[key].as_str().unwrap_or_default();
            let line = own
                .lines()
                .find(|line| line.starts_with(&format!("  {}  {}", text("id"), text("path"))))
                .unwrap_or_else(|| panic!("{step}: {said}"));
            let state = match step["state"].as_str() {
                Some("applied") => {
                    format!("applied {} by {}", text("applied_at"), text("applied_by"))
                }
                _ => "pending".to_owned(),
            };
            assert!(
                line.ends_with(&format!("  {state}  checksum {}", text("checksum"))),
                "{line}: {step}"
            );
        }
        assert!(
            said.contains("migrations/0003_drop_region.lua  not reversible: it has no `down`"),
            "{said}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_table_that_somebody_else_changed_blocks_its_plugin_only() {
    for_each_database(async |database| {
        let (server, folder, product, id) = lake(database).await;
        let form = "plugins/LakeDataOutput/form";
        // While the server runs: what serves goes on, and a reload says what is wrong.
        database
            .execute(
                &folder,
                &format!("ALTER TABLE {TABLE} ADD COLUMN extra text"),
            )
            .await;
        server.post("plugins/reload", &json!({})).await.is(200);
        let degraded = until_state(&server, "degraded").await;
        assert_eq!(degraded["last_error"]["stage"], "drift", "{degraded}");
        let message = degraded["last_error"]["message"]
            .as_str()
            .expect("a message");
        assert!(
            message.contains(&format!(
                "{TABLE} has a column extra (text) that no step made"
            )),
            "{message}"
        );
        server.get(form).await.is(200);
        assert_eq!(
            values(&server, &id).await,
            json!({ "folder": "orders", "region": "eu" })
        );
        let refused = server
            .configure("LakeDataOutput", &product, "b", json!({ "folder": "x" }))
            .await
            .error(409);
        assert!(refused.to_string().contains("extra"), "{refused}");
        let path = format!("configurations/{id}");
        server
            .patch(&path, &json!({ "description": "d" }))
            .await
            .error(409);
        // A newer version does not come in, and no step runs.
        write(
            &folder,
            "1.2.0",
            &format!("{FOLDER}, {REGION}, field.integer \"days\""),
        );
        server
            .until(DETAILS, 200, |details| {
                details["last_error"]["version"] == "1.2.0"
                    && details["last_error"]["stage"] == "drift"
            })
            .await;
        // Neither does one that is not even read, and what is wrong with it hides nothing of the table.
        folder.write_by_rename(PLUGIN, "return nonsense(");
        server
            .until(DETAILS, 200, |details| {
                details["last_error"]["stage"] == "parse"
            })
            .await;
        let refused = server
            .configure("LakeDataOutput", &product, "b", json!({ "folder": "x" }))
            .await
            .error(409);
        assert!(refused.to_string().contains("extra"), "{refused}");
        write(
            &folder,
            "1.2.0",
            &format!("{FOLDER}, {REGION}, field.integer \"days\""),
        );
        let complaint = server.run(&["plugin", "migrate", "LakeDataOutput"]).badly();
        assert!(
            complaint.contains("extra") && complaint.contains("nothing was changed"),
            "{complaint}"
        );
        write(&folder, "1.1.0", &format!("{FOLDER}, {REGION}"));
        database
            .execute(&folder, &format!("ALTER TABLE {TABLE} DROP COLUMN extra"))
            .await;
        server.post("plugins/reload", &json!({})).await.is(200);
        until_state(&server, "active").await;

        // At the start: the plugin does not serve, all others do, and its rows are read as far as they are there.
        database
            .execute(&folder, &format!("ALTER TABLE {TABLE} DROP COLUMN region"))
            .await;
        let server = server.restart(|_| {});
        let status = server.get("plugins/status").await.is(200).json();
        let own = entry(&status, "LakeDataOutput");
        assert_eq!(
            (&own["state"], &own["last_error"]["stage"]),
            (&json!("failed"), &json!("drift")),
            "{own}"
        );
        let message = own["last_error"]["message"].as_str().expect("a message");
        let expected =
            format!("{TABLE} lacks the column region (0002_add_region made it with m:add_column)");
        assert!(message.contains(&expected), "{message}");
        server.get("plugins/SnowflakeDataOutput/form").await.is(200);
        assert_eq!(values(&server, &id).await, json!({ "folder": "orders" }));
        server
            .configure("LakeDataOutput", &product, "b", json!({ "folder": "x" }))
            .await
            .error(409);
        // Once it is put back, a reload takes the plugin in.
        let region = format!("ALTER TABLE {TABLE} ADD COLUMN region text NOT NULL DEFAULT 'eu'");
        database.execute(&folder, &region).await;
        server.post("plugins/reload", &json!({})).await.is(200);
        until_state(&server, "active").await;
        assert_eq!(
            values(&server, &id).await,
            json!({ "folder": "orders", "region": "eu" })
        );

        // A table that is gone altogether.
        database
            .execute(&folder, &format!("DROP TABLE {TABLE}"))
            .await;
        let server = server.restart(|_| {});
        let failed = until_state(&server, "failed").await;
        let message = failed["last_error"]["message"].as_str().expect("a message");
        assert!(
            message.contains(&format!("the table {TABLE} is missing")),
            "{message}"
        );
        assert_eq!(values(&server, &id).await, json!({}));
        server.get("configurations").await.is(200);
    })
    .await;
}

#[tokio::test]
async fn an_edited_step_is_told_by_its_operation() {
    for_each_database(async |database| {
        let (server, folder, _, _) = lake(database).await;
        let text = format!(
            r#"up = function(m)
                m:add_column("{TABLE}", column.text "region" {{ nullable = false, default = "us" }})
            end"#
        );
        migration(&folder, "0002_add_region", &text);
        let degraded = until_state(&server, "degraded").await;
        assert_eq!(degraded["last_error"]["stage"], "plan");
        let message = degraded["last_error"]["message"].as_str().expect("a message");
        let expected = format!(
            "the migration 0002_add_region was changed after it was applied: in `up`, operation 1 was m:add_column(\"{TABLE}\", \
             column.text \"region\" {{ nullable = false, default = \"eu\" }}), is now m:add_column(\"{TABLE}\", column.text \
             \"region\" {{ nullable = false, default = \"us\" }})"
        );
        assert!(message.contains(&expected), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_migration_is_written_from_what_the_table_lacks() {
    for_each_database(async |database| {
        let folder = Folder::new();
        write(
            &folder,
            "1.0.0",
            &format!("{FOLDER}, field.list \"tags\" {{ default = {{}} }}"),
        );
        let server = Server::start_in(folder.clone(), |options| {
            options.database(database);
        });
        until_state(&server, "active").await;
        let product = server.data_product("sales", "sales").await;
        let body = json!({ "folder": "orders", "tags": ["a"] });
        let id = server
            .configured("LakeDataOutput", &product, "a", body)
            .await;
        // The table was derived; there is nothing to write as long as the fields fit.
        let complaint = server
            .run(&["plugin", "migration", "new", "LakeDataOutput"])
            .badly();
        assert!(
            complaint.contains("fits its fields") && complaint.contains("--empty"),
            "{complaint}"
        );
        // A field goes and another one of its type comes: the file proposes both ways.
        write(
            &folder,
            "2.0.0",
            &format!("{FOLDER}, field.list \"labels\" {{ default = {{}} }}"),
        );
        server
            .until(DETAILS, 200, |details| {
                details["last_error"]["stage"] == "plan"
            })
            .await;
        let said = server
            .run(&["plugin", "migration", "new", "LakeDataOutput"])
            .well();
        assert!(
            said.contains("wrote lua-plugins/lake/migrations/0002_change_fields.lua"),
            "{said}"
        );
        let text = folder.read("lua-plugins/lake/migrations/0002_change_fields.lua");
        for part in [
            format!("m:drop_column(\"{TABLE}\", \"tags\")"),
            format!("--     m:rename_column(\"{TABLE}\", \"tags\", \"labels\")"),
            format!("m:add_column(\"{TABLE}\", column.json \"labels\""),
            "down = function(m)".to_owned(),
        ] {
            assert!(text.contains(&part), "{part}: {text}");
        }
        server.run(&["plugin", "check"]).well();
        until_state(&server, "pending_migration").await;
        server.run(&["plugin", "migrate", "LakeDataOutput"]).well();
        until_state(&server, "active").await;
        assert_eq!(
            values(&server, &id).await,
            json!({ "folder": "orders", "labels": [] })
        );
        // The next one gets the next number and the name it is given.
        let said = server
            .run(&[
                "plugin",
                "migration",
                "new",
                "LakeDataOutput",
                "--empty",
                "--name",
                "mend_labels",
            ])
            .well();
        assert!(said.contains("0003_mend_labels.lua"), "{said}");
        // A running server does not take it for a step that does nothing, which could not be written any more.
        let waiting = server
            .until(DETAILS, 200, |details| details["state"] == "degraded")
            .await;
        let message = waiting["last_error"]["message"]
            .as_str()
            .expect("a message");
        assert!(
            message.contains("0003_mend_labels.lua:5: write what the step does"),
            "{message}"
        );
        let file = "lua-plugins/lake/migrations/0003_mend_labels.lua";
        let empty = folder.read(file);
        let line = empty
            .lines()
            .find(|line| line.contains("error "))
            .expect("the line to replace");
        let update = format!("m:update(\"{TABLE}\", {{ set = {{ folder = \"mended\" }} }})");
        folder.write_by_rename(file, empty.replace(line.trim(), &update));
        until_state(&server, "pending_migration").await;
        server.run(&["plugin", "migrate", "LakeDataOutput"]).well();
        until_state(&server, "active").await;
        assert_eq!(
            values(&server, &id).await,
            json!({ "folder": "mended", "labels": [] })
        );
        let complaint = server
            .run(&[
                "plugin",
                "migration",
                "new",
                "LakeDataOutput",
                "--empty",
                "--name",
                "Mend",
            ])
            .badly();
        assert!(complaint.contains("four digits"), "{complaint}");
        server.run(&["plugin", "migration", "new", "Nope"]).badly();
        let complaint = server
            .run(&["plugin", "migration", "new", "SnowflakeDataOutput"])
            .badly();
        assert!(complaint.contains("part of the program"), "{complaint}");
    })
    .await;
}

#[test]
fn a_single_file_is_told_what_to_paste() {
    let folder = Folder::new();
    folder.write(
        "lua-plugins/lake.lua",
        r#"return patchbay.plugin { name = "LakeDataOutput", fields = { patchbay.field.string "folder" { required = true } } }"#,
    );
    let said = run(&folder, &["plugin", "migration", "new", "LakeDataOutput"]).well();
    assert!(
        said.contains("into its definition, as migrations = { … }, in lua-plugins/lake.lua"),
        "{said}"
    );
    assert!(
        !folder.path("data/patchbay.db").exists(),
        "to look makes no database"
    );
    // What is printed can be pasted as it is.
    let entry: String = said
        .lines()
        .skip_while(|line| !line.starts_with("patchbay.migration"))
        .map(|line| format!("{line}\n"))
        .collect();
    folder.write(
        "lua-plugins/lake.lua",
        format!(
            r#"local column = patchbay.column
return patchbay.plugin {{ name = "LakeDataOutput", fields = {{ patchbay.field.string "folder" {{ required = true }} }},
migrations = {{ {entry} }} }}"#
        ),
    );
    run(&folder, &["plugin", "check"]).well();
    let said = run(&folder, &["plugin", "migrations"]).well();
    assert!(
        said.contains("0001_create_table  (derived from the fields)  reversible"),
        "{said}"
    );
}

#[tokio::test]
async fn all_servers_on_a_database_go_down_together() {
    on_postgres(async |database| {
        let (one, folder, product, id) = lake(database).await;
        // The other one has the version before already, as when versions are rolled out one server after the other.
        let older = Folder::new();
        created(&older);
        write(&older, "1.0.0", FOLDER);
        let two = Server::start_in(older.clone(), |options| {
            options.database(database);
        });
        assert_eq!(
            values(&two, &id).await,
            json!({ "folder": "orders", "region": "eu" })
        );
        // With the older files: what takes a step back is in the history.
        two.run(&["plugin", "migrate", "LakeDataOutput", "--to", "1"])
            .well();
        until_state(&one, "pending_migration").await;
        // The table is the older version's now, so that server takes writes, and the newer one reads them.
        until_state(&two, "active").await;
        let body = json!({ "folder": "x" });
        let other = two
            .configured("LakeDataOutput", &product, "b", body.clone())
            .await;
        assert_eq!(values(&one, &other).await, body);
        one.configure("LakeDataOutput", &product, "c", body)
            .await
            .error(409);
        // An expanding step leaves the older one reading.
        one.run(&["plugin", "migrate", "LakeDataOutput"]).well();
        until_state(&one, "active").await;
        for server in [&one, &two] {
            assert_eq!(
                values(server, &other).await,
                json!({ "folder": "x", "region": "eu" })
            );
        }
        assert_eq!(
            database.columns(&folder, TABLE).await,
            ["id", "folder", "region"]
        );
    })
    .await;
}

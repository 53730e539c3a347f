//! What serves is given up only for something better: overrides that fail, names that move, examples, new shapes.

use serde_json::json;

use crate::harness::{Server, for_each_database};
use crate::world::{entry, entry_at, names, plugin};

/// A form that raises.
const RAISES: &str = "ui_metadata = function(db) error(\"no form today\") end,";

async fn reload(server: &Server) -> serde_json::Value {
    server
        .post("plugins/reload", &json!({}))
        .await
        .is(200)
        .json()
}

#[tokio::test]
async fn an_override_whose_form_fails_leaves_the_plugin_that_it_would_replace() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options
                .env("PATCHBAY_PLUGIN_PATHS", "one:two")
                .file("one/own.lua", plugin("OwnDataOutput", ""))
                .file("two/.keep", "");
        });
        let good = server
            .get("plugins/OwnDataOutput/form")
            .await
            .is(200)
            .json();
        server
            .folder
            .write_by_rename("two/own.lua", plugin("OwnDataOutput", RAISES));
        let status = server
            .until("plugins/status", 200, |status| {
                entry_at(status, "two/own.lua")["state"] == "failed"
            })
            .await;
        let failed = entry_at(&status, "two/own.lua");
        assert_eq!(failed["last_error"]["hook"], "ui_metadata", "{failed}");
        assert_eq!(
            entry_at(&status, "one/own.lua")["state"],
            "active",
            "{status}"
        );
        let form = server
            .get("plugins/OwnDataOutput/form")
            .await
            .is(200)
            .json();
        assert_eq!(form["ui_metadata"], good["ui_metadata"]);

        // What fails again and again changes nothing, so kept answers stay.
        let generation = reload(&server).await["generation"].clone();
        assert_eq!(reload(&server).await["generation"], generation);
        assert_eq!(reload(&server).await["changed"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn a_waiting_override_is_the_one_that_is_told_to_migrate() {
    for_each_database(async |database| {
        let source = |version: &str, more: &str| {
            format!(
                r#"local field = patchbay.field
                return patchbay.plugin {{
                    name = "OwnDataOutput", version = "{version}", table = "own_rows",
                    fields = {{ field.string "path" {{ required = true }} {more} }},
                }}"#
            )
        };
        let server = Server::start(|options| {
            options
                .database(database)
                .env("PATCHBAY_PLUGIN_PATHS", "one:two")
                .env("PATCHBAY_AUTO_MIGRATE", "true")
                .file("one/own.lua", source("1.0.0", ""));
            options.file("two/.keep", "");
        });
        server.get("plugins/OwnDataOutput/form").await.is(200);
        let drop = r#"return { up = function(m)
            m:add_column("own_rows", patchbay.column.text "note" { nullable = true })
            m:drop_column("own_rows", "note")
        end }"#;
        server.folder.write("two/own/migrations/0002_try.lua", drop);
        server
            .folder
            .write("two/own/plugin.lua", source("2.0.0", ""));
        let status = server
            .until("plugins/status", 200, |status| {
                entry_at(status, "two/own")["state"] == "pending_migration"
            })
            .await;
        assert_eq!(
            entry_at(&status, "one/own.lua")["version"],
            "1.0.0",
            "{status}"
        );
        let said = server.run(&["plugin", "migrate", "OwnDataOutput"]).well();
        assert!(said.contains("0002_try"), "{said}");
        server
            .until("plugins/OwnDataOutput/form", 200, |form| {
                form["version"] == "2.0.0"
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn an_enabled_example_is_live_like_every_plugin() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.env("ENABLED_PLUGINS", "MineDataOutput");
            options.file(
                "lua-plugins/examples/mine/plugin.lua",
                plugin("MineDataOutput", ""),
            );
        });
        server.get("plugins/MineDataOutput/form").await.is(200);
        let titled = plugin("MineDataOutput", "platform = { display_name = \"Mine!\" },");
        server
            .folder
            .write("lua-plugins/examples/mine/plugin.lua", titled);
        server
            .until("plugins/MineDataOutput/form", 200, |form| {
                form["display_name"] == "Mine!"
            })
            .await;
        server.folder.remove("lua-plugins/examples/mine/plugin.lua");
        server
            .until("plugins/MineDataOutput/form", 404, |_| true)
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_plugin_that_takes_a_taken_name_keeps_serving_under_its_own() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options
                .file("lua-plugins/a.lua", plugin("ADataOutput", ""))
                .file("lua-plugins/b.lua", plugin("BDataOutput", ""));
        });
        server
            .folder
            .write("lua-plugins/b.lua", plugin("ADataOutput", ""));
        let status = server
            .until("plugins/status", 200, |status| {
                entry_at(status, "b.lua")["last_error"]["stage"] == "collision"
            })
            .await;
        assert_eq!(entry_at(&status, "b.lua")["state"], "degraded", "{status}");
        let list = server.get("plugins").await.is(200).json();
        assert!(
            names(&list).contains(&"ADataOutput") && names(&list).contains(&"BDataOutput"),
            "{list}"
        );
        assert_eq!(entry(&list, "ADataOutput")["state"], "active");
    })
    .await;
}

#[tokio::test]
async fn a_first_file_that_takes_a_name_and_fails_leaves_the_one_that_has_it() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.file("lua-plugins/b.lua", plugin("BDataOutput", ""));
        });
        server.get("plugins/BDataOutput/form").await.is(200);
        let misfit = plugin("BDataOutput", "requires = \">=99\",");
        server.folder.write_by_rename("lua-plugins/a.lua", misfit);
        let status = server
            .until("plugins/status", 200, |status| {
                entry_at(status, "a.lua")["state"] == "incompatible"
            })
            .await;
        assert_eq!(entry_at(&status, "b.lua")["state"], "active", "{status}");
        assert_eq!(
            server.get("plugins/BDataOutput/form").await.is(200).json()["state"],
            "active"
        );
    })
    .await;
}

#[tokio::test]
async fn a_form_may_read_rows_by_a_field_that_its_version_adds() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .file("lua-plugins/own.lua", plugin("OwnDataOutput", ""));
        });
        let product = server.data_product("sales", "sales").await;
        server
            .configured("OwnDataOutput", &product, "n", json!({ "path": "p" }))
            .await;
        let source = r#"
            local field, ui = patchbay.field, patchbay.ui
            return patchbay.plugin {
                name = "OwnDataOutput", version = "2.0.0",
                fields = { field.string "path" { required = true }, field.string "zone" { default = "a" } },
                ui_metadata = function(db)
                    local rows = db:configurations { zone = "a" }
                    return { ui.string "path" { label = #rows .. " in zone a" } }
                end,
            }"#;
        server.folder.write_by_rename("lua-plugins/own.lua", source);
        let form = server
            .until("plugins/OwnDataOutput/form", 200, |form| form["version"] == "2.0.0")
            .await;
        assert_eq!(form["state"], "active", "{form}");
        server
            .until("plugins/OwnDataOutput/form", 200, |form| {
                form["ui_metadata"][0]["label"] == "1 in zone a"
            })
            .await;
    })
    .await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_that_may_not_be_read_is_no_wish_to_remove_its_plugin() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.file("lua-plugins/own/plugin.lua", plugin("OwnDataOutput", ""));
        });
        server.get("plugins/OwnDataOutput/form").await.is(200);
        // A loop of links is an error that a superuser meets too, unlike a missing permission.
        // A link to itself is an error that a superuser meets too, unlike a missing permission.
        server.folder.remove("lua-plugins/own/plugin.lua");
        server
            .folder
            .link("plugin.lua", "lua-plugins/own/plugin.lua");
        let status = server
            .until("plugins/status", 200, |status| {
                entry(status, "OwnDataOutput")["state"] == "degraded"
            })
            .await;
        assert_eq!(
            entry(&status, "OwnDataOutput")["last_error"]["stage"],
            "read",
            "{status}"
        );
        server.get("plugins/OwnDataOutput/form").await.is(200);
    })
    .await;
}

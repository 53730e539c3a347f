//! Plugins that are installed, pinned and taken out, beside a running server.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{Database, Folder, Http, Options, Server, for_each_database, run, run_with};
use crate::world::{FORM, bigquery, entry, names, plugin, until_version};

const LOCK: &str = "data/packages/plugins.lock";

/// A server with nothing installed, beside a folder `src/bigquery` that holds a package.
fn server(database: Database) -> Server {
    Server::start(|options| {
        options.database(database);
        options.file("src/bigquery/plugin.lua", bigquery("1.0.0", "Dataset"));
    })
}

impl Server {
    fn install(&self, words: &[&str]) -> String {
        self.run(&[&["plugin", "install"], words].concat()).well()
    }

    fn installs_badly(&self, words: &[&str]) -> String {
        self.run(&[&["plugin", "install"], words].concat()).badly()
    }

    fn said(&self, words: &[&str]) -> Value {
        let said = self.run(&[&["plugin"], words, &["--json"]].concat()).well();
        serde_json::from_str(&said).expect("JSON")
    }
}

/// Where the files of a package lie.
fn location(folder: &Folder, name: &str) -> PathBuf {
    let said = run(folder, &["plugin", "info", name, "--json"]).well();
    let info: Value = serde_json::from_str(&said).expect("JSON");
    folder.path(info["location"].as_str().expect("a location"))
}

async fn until_status(server: &Http, plugin: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let body = server
        .until("plugins/status", 200, |status| is_so(entry(status, plugin)))
        .await;
    entry(&body, plugin).clone()
}

#[tokio::test]
async fn an_installed_plugin_is_there_at_once_and_goes_with_its_package() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .file("src/bigquery/plugin.lua", bigquery("1.0.0", "Dataset"));
        });
        server.get(FORM).await.error(404);
        let said = server.install(&["src/bigquery"]);
        assert!(
            said.contains("bigquery 1.0.0 installed: BigQueryDataOutput"),
            "{said}"
        );
        until_version(&server, "1.0.0").await;
        let status = until_status(&server, "BigQueryDataOutput", |entry| entry.is_object()).await;
        assert_eq!(status["package"], "bigquery");
        assert_eq!(status["state"], "active");
        // What it was installed from may go.
        server.folder.remove("src");
        let product = server.data_product("sales", "sales").await;
        let id = server
            .configured(
                "BigQueryDataOutput",
                &product,
                "n",
                json!({ "dataset": "d" }),
            )
            .await;
        let path = format!("configurations/{id}");

        server.said(&["disable", "bigquery"]);
        until_status(&server, "BigQueryDataOutput", |entry| {
            entry["state"] == "disabled"
        })
        .await;
        server.get(FORM).await.error(404);
        server
            .configure(
                "BigQueryDataOutput",
                &product,
                "m",
                json!({ "dataset": "d" }),
            )
            .await
            .error(409);
        assert_eq!(
            server.get(&path).await.is(200).json()["plugin_state"],
            "disabled"
        );
        let server = server.restart(|_| {});
        server.get(FORM).await.error(404);
        server.said(&["enable", "BigQueryDataOutput"]);
        until_version(&server, "1.0.0").await;

        let kept = location(&server.folder, "bigquery");
        let said = server.run(&["plugin", "remove", "bigquery"]).well();
        assert!(said.contains("bigquery 1.0.0 removed"), "{said}");
        assert!(
            said.contains("kept, with their rows: ")
                && said.contains("bigquery_data_output_configurations"),
            "{said}"
        );
        server.until(FORM, 404, |_| true).await;
        assert!(!kept.exists());
        let gone = server.get(&path).await.is(200).json();
        assert_eq!(gone["plugin_state"], "gone");
        assert_eq!(gone["configuration"]["dataset"], "d");
        server
            .patch(&path, &json!({ "name": "x" }))
            .await
            .error(409);
        server
            .configure(
                "BigQueryDataOutput",
                &product,
                "m",
                json!({ "dataset": "d" }),
            )
            .await
            .error(404);

        for step in ["export", "drop"] {
            let command = format!("patchbay plugin {step} BigQueryDataOutput");
            assert!(said.contains(&command), "{command}: {said}");
        }

        server
            .folder
            .write("src/bigquery/plugin.lua", bigquery("1.1.0", "Dataset"));
        server.install(&["src/bigquery"]);
        until_version(&server, "1.1.0").await;
        let back = server.get(&path).await.is(200).json();
        assert_eq!(
            (&back["plugin_state"], &back["name"]),
            (&json!("active"), &json!("n"))
        );
    })
    .await;
}

#[tokio::test]
async fn what_a_removed_plugin_stored_is_exported_and_dropped_when_told_to() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .file("src/bigquery/plugin.lua", bigquery("1.0.0", "Dataset"));
        });
        server.install(&["src/bigquery"]);
        until_version(&server, "1.0.0").await;
        let product = server.data_product("sales", "sales").await;
        let mut ids = Vec::new();
        for name in ["a", "b", "c"] {
            let values = json!({ "dataset": name });
            let id = server
                .configured("BigQueryDataOutput", &product, name, values)
                .await;
            ids.push(id);
        }
        let other = json!({ "database": "sales", "access_granularity": "schema" });
        server
            .configured("SnowflakeDataOutput", &product, "other", other)
            .await;
        let complaint = server
            .run(&["plugin", "drop", "BigQueryDataOutput", "--yes"])
            .badly();
        assert!(
            complaint.contains("patchbay plugin remove bigquery"),
            "{complaint}"
        );
        server.run(&["plugin", "remove", "bigquery"]).well();
        server.until(FORM, 404, |_| true).await;

        let export = ["plugin", "export", "BigQueryDataOutput"];
        let exported = server.run(&export).well();
        let lines: Vec<Value> = exported
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[2]["id"], ids[0].as_str());
        assert_eq!(
            lines[2]["configuration"],
            json!({ "configuration_type": "BigQueryDataOutput", "dataset": "a", "table": "*" })
        );
        server
            .run(&[&export[..], &["-o", "rows.jsonl"]].concat())
            .well();
        assert_eq!(server.folder.read("rows.jsonl"), exported);

        let complaint = server
            .run(&["plugin", "drop", "BigQueryDataOutput"])
            .badly();
        assert!(
            complaint.contains("3 configurations") && complaint.contains("--yes"),
            "{complaint}"
        );
        server
            .get(&format!("configurations/{}", ids[0]))
            .await
            .is(200);
        let said = server
            .run(&["plugin", "drop", "BigQueryDataOutput", "--yes"])
            .well();
        assert!(
            said.contains("3 configurations")
                && said.contains("bigquery_data_output_configurations"),
            "{said}"
        );
        for id in &ids {
            server.get(&format!("configurations/{id}")).await.error(404);
            let history = server.get(&format!("configurations/{id}/history")).await;
            let history = history.is(200).json();
            assert_eq!(history["history"][0]["action"], "delete");
        }
        let left = server.get("configurations").await.is(200).json();
        assert_eq!(left["configurations"].as_array().map(Vec::len), Some(1));

        // It comes back as one that never was here, also with other fields under the same names.
        let changed = bigquery("2.0.0", "Dataset").replace(
            "field.string \"dataset\" { required = true }",
            "field.string \"dataset\" {}, field.integer \"days\" { required = true }",
        );
        server.folder.write("src/bigquery/plugin.lua", changed);
        server.install(&["src/bigquery"]);
        until_version(&server, "2.0.0").await;
        let id = server
            .configured("BigQueryDataOutput", &product, "a", json!({ "days": 3 }))
            .await;
        let row = server
            .get(&format!("configurations/{id}"))
            .await
            .is(200)
            .json();
        assert_eq!(row["configuration"]["days"], 3);
        let complaint = server
            .run(&["plugin", "export", "BigQueryDataOutptu"])
            .badly();
        assert!(complaint.contains("did you mean"), "{complaint}");
    })
    .await;
}

#[tokio::test]
async fn an_archive_is_the_same_bytes_and_the_same_package() {
    let server = server(Database::Sqlite);
    server.folder.write("src/bigquery/README.md", "Read me");
    server
        .folder
        .write("src/bigquery/lib/rules.lua", "return {}");
    let pack = |folder: &str, to: &str| {
        server.run(&["plugin", "pack", folder, "-o", to]).well();
        std::fs::read(server.folder.path(to)).expect("an archive")
    };
    let first = pack("src/bigquery", "first.tar.gz");
    // Another folder, other times, other rights.
    for file in ["lib/rules.lua", "README.md", "plugin.lua"] {
        let text = server.folder.read(&format!("src/bigquery/{file}"));
        server.folder.write(&format!("other/{file}"), text);
    }
    assert_eq!(pack("other", "second.tar.gz"), first);
    server.install(&["first.tar.gz"]);
    until_version(&server, "1.0.0").await;
    let info = server.said(&["info", "bigquery", "--files"]);
    assert_eq!(
        info["files"]
            .as_object()
            .expect("files")
            .keys()
            .collect::<Vec<_>>(),
        ["README.md", "lib/rules.lua", "plugin.lua"]
    );
    assert_eq!(
        (
            &info["editable"],
            &info["enabled"],
            &info["plugins"][0]["name"]
        ),
        (&json!(false), &json!(true), &json!("BigQueryDataOutput"))
    );
    assert_eq!(info["status"][0]["state"], "active");
    // The folder has the same content as the archive.
    let again = server.said(&["install", "src/bigquery"]);
    assert_eq!(again["unchanged"], true);
    // What is installed is packed to the same archive again.
    let installed = location(&server.folder, "bigquery");
    assert_eq!(
        pack(installed.to_str().expect("a path"), "third.tar.gz"),
        first
    );
    let said = server.run(&["plugin", "pack", "src/bigquery"]).well();
    assert!(said.contains("bigquery-1.0.0.tar.gz"), "{said}");
    assert_eq!(
        std::fs::read(server.folder.path("bigquery-1.0.0.tar.gz")).expect("an archive"),
        first
    );
}

#[tokio::test]
async fn a_changed_file_is_refused_and_named() {
    for_each_database(async |database| {
        let server = server(database);
        server.folder.write("src/bigquery/rules.lua", "return {}");
        server.install(&["src/bigquery"]);
        until_version(&server, "1.0.0").await;
        server.run(&["plugin", "verify"]).well();
        let installed = location(&server.folder, "bigquery");
        let plugin_file = installed.join("plugin.lua");
        let good = std::fs::read_to_string(&plugin_file).expect("the plugin");
        let refused = async |server: &Http, file: &str| {
            let status = until_status(server, "BigQueryDataOutput", |entry| {
                entry["state"] == "degraded"
            })
            .await;
            let error = &status["last_error"];
            assert_eq!(error["stage"], "package");
            assert!(
                error["file"].as_str().expect("a file").ends_with(file),
                "{error}"
            );
            let message = error["message"].as_str().expect("a message");
            assert!(
                message.contains(file) && message.contains("install the package again"),
                "{error}"
            );
            // What served before goes on.
            assert_eq!(status["version"], "1.0.0");
            assert_eq!(server.get(FORM).await.is(200).json()["version"], "1.0.0");
        };
        for (file, text) in [
            ("plugin.lua", Some(bigquery("9.9.9", "Dataset"))),
            ("rules.lua", None),
            ("migrations/0001_more.lua", Some("return {}".to_owned())),
            (
                "patchbay-package.toml",
                Some("name = \"bigquery\"".to_owned()),
            ),
        ] {
            let path = installed.join(file);
            let before = std::fs::read(&path).ok();
            match text {
                Some(text) => {
                    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                    std::fs::write(&path, text).expect("a file");
                }
                None => std::fs::remove_file(&path).expect("removed"),
            }
            refused(&server, file).await;
            let verify = server.run(&["plugin", "verify", "bigquery"]);
            assert_eq!(verify.code, Some(1), "{verify:#?}");
            assert!(
                verify.stdout.contains("CHANGED") && verify.stdout.contains(file),
                "{verify:#?}"
            );
            let info = server.run(&["plugin", "info", "bigquery"]).well();
            assert!(info.contains("not active") && info.contains(file), "{info}");
            match before {
                Some(before) => std::fs::write(&path, before).expect("put back"),
                None => std::fs::remove_file(&path).expect("removed"),
            }
            until_status(&server, "BigQueryDataOutput", |entry| {
                entry["state"] == "active"
            })
            .await;
        }

        // A server that starts with it does not load it, and nobody else minds.
        std::fs::write(&plugin_file, format!("{good}\n-- more")).expect("a file");
        let server = server.restart(|_| {});
        server.get(FORM).await.error(404);
        let status = server.get("plugins/status").await.is(200).json();
        let found = status["plugins"].as_array().expect("a list");
        let failed: Vec<&Value> = found
            .iter()
            .filter(|entry| entry["state"] == "failed")
            .collect();
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert_eq!(failed[0]["package"], "bigquery");
        assert!(names(&server.get("plugins").await.json()).contains(&"SnowflakeDataOutput"));
        // Installing it again mends it.
        server.install(&["src/bigquery"]);
        until_version(&server, "1.0.0").await;
        server.run(&["plugin", "verify"]).well();
    })
    .await;
}

#[tokio::test]
async fn versions_go_up_and_back_and_never_mean_two_things() {
    for_each_database(async |database| {
        let server = server(database);
        let put = |version: &str, label: &str| {
            server
                .folder
                .write("src/bigquery/plugin.lua", bigquery(version, label));
        };
        server.install(&["src/bigquery"]);
        until_version(&server, "1.0.0").await;
        let complaint = server.run(&["plugin", "rollback", "bigquery"]).badly();
        assert!(complaint.contains("only version"), "{complaint}");

        put("1.10.0", "Newer");
        let said = server.install(&["src/bigquery"]);
        assert!(
            said.contains("1.10.0 installed in place of 1.0.0"),
            "{said}"
        );
        until_version(&server, "1.10.0").await;

        put("1.9.0", "Older");
        let complaint = server.installs_badly(&["src/bigquery"]);
        assert!(
            complaint.contains("1.10.0")
                && complaint.contains("1.9.0")
                && complaint.contains("--force"),
            "{complaint}"
        );
        put("1.10.0", "Other");
        let complaint = server.installs_badly(&["src/bigquery"]);
        assert!(
            complaint.contains("same version") && complaint.contains("--force"),
            "{complaint}"
        );
        let form = server.get(FORM).await.is(200).json();
        assert_eq!(form["ui_metadata"][0]["label"], "Newer");
        server.install(&["src/bigquery", "--force"]);
        server
            .until(FORM, 200, |form| form["ui_metadata"][0]["label"] == "Other")
            .await;

        // Back through what was installed before, in its order.
        server.run(&["plugin", "rollback", "bigquery"]).well();
        server
            .until(FORM, 200, |form| form["ui_metadata"][0]["label"] == "Newer")
            .await;
        server
            .run(&["plugin", "rollback", "BigQueryDataOutput"])
            .well();
        until_version(&server, "1.0.0").await;
        server.run(&["plugin", "rollback", "bigquery"]).badly();
        server.run(&["plugin", "verify"]).well();
        // No version that nothing refers to is left.
        let folder = server.folder.path("data/packages/bigquery");
        assert_eq!(std::fs::read_dir(folder).expect("a folder").count(), 1);
        put("1.9.0", "Older");
        server.install(&["src/bigquery"]);
        until_version(&server, "1.9.0").await;
    })
    .await;
}

/// Going back is a version like any other for the rows that came since.
#[tokio::test]
async fn a_running_server_tries_the_version_that_is_gone_back_to_on_its_rows() {
    for_each_database(async |database| {
        let server = server(database);
        let rule = |version: &str, refused: &str| {
            let rule = format!(
                "validate = function(configuration)\n        if configuration.dataset == \"{refused}\" then\n            \
                 return {{ {{ field = \"dataset\", message = \"not {refused}\" }} }}\n        end\n    end,\n    ui_metadata"
            );
            bigquery(version, "Dataset").replacen("ui_metadata", &rule, 1)
        };
        let put = |text: String| server.folder.write("src/bigquery/plugin.lua", text);
        put(rule("1.0.0", "later"));
        server.install(&["src/bigquery"]);
        until_version(&server, "1.0.0").await;
        put(rule("1.1.0", "never"));
        server.install(&["src/bigquery"]);
        until_version(&server, "1.1.0").await;
        let product = server.data_product("sales", "sales").await;
        let values = json!({ "dataset": "later" });
        let id = server
            .configured("BigQueryDataOutput", &product, "n", values)
            .await;
        let said = server.run(&["plugin", "rollback", "bigquery"]).well();
        assert!(said.contains("rolled back from 1.1.0 to 1.0.0"), "{said}");
        let held = until_status(&server, "BigQueryDataOutput", |status| {
            status["last_error"]["stage"] == "rows"
        })
        .await;
        assert_eq!(held["version"], "1.1.0", "{held}");
        let message = held["last_error"].to_string();
        assert!(
            message.contains(&id) && message.contains("not later"),
            "{message}"
        );
        server
            .post("plugins/reload?force=BigQueryDataOutput", &json!({}))
            .await
            .is(200);
        until_version(&server, "1.0.0").await;
    })
    .await;
}

#[test]
fn what_is_left_of_a_removed_package_is_told() {
    for link in [false, true] {
        let folder = Folder::new();
        folder.write("src/bigquery/plugin.lua", bigquery("1.0.0", "Dataset"));
        run(&folder, &["plugin", "install", "src/bigquery"]).well();
        folder.rename("data/packages/bigquery", "aside");
        match link {
            true => folder.link("../../aside", "data/packages/bigquery"),
            false => folder.write("data/packages/bigquery", "a file"),
        }
        let said = run(&folder, &["plugin", "remove", "bigquery"]).well();
        let what = if link { "a link" } else { "a file" };
        assert!(
            said.contains("bigquery 1.0.0 removed")
                && said.contains("warning: ")
                && said.contains("data/packages/bigquery")
                && said.contains(what),
            "{said}"
        );
        assert!(folder.path("aside").exists());
        run(&folder, &["plugin", "remove", "bigquery"]).badly();
    }
}

#[tokio::test]
async fn a_linked_package_is_edited_where_it_lies() {
    for_each_database(async |database| {
        let server = server(database);
        let source = |label: &str| {
            format!(
                "local rules = require \"@lib/rules\"\n{}",
                bigquery("1.0.0", label)
            )
            .replace("label = \"Dataset\"", "label = rules.label")
        };
        server
            .folder
            .write("src/bigquery/lib/rules.lua", "return { label = \"One\" }");
        server
            .folder
            .write("src/bigquery/plugin.lua", source("Dataset"));
        server.install(&["--link", "src/bigquery"]);
        let label = async |server: &Server, label: &str| {
            server
                .until(FORM, 200, |form| {
                    form["ui_metadata"][0]["label"] == label && form["state"] == "active"
                })
                .await
        };
        label(&server, "One").await;
        let info = server.said(&["info", "bigquery"]);
        assert_eq!(
            (&info["editable"], &info["sha256"]),
            (&json!(true), &Value::Null)
        );
        assert!(
            info["location"]
                .as_str()
                .expect("a place")
                .ends_with("src/bigquery")
        );
        // Its code, and the modules of its own.
        server
            .folder
            .write("src/bigquery/lib/rules.lua", "return { label = \"Two\" }");
        label(&server, "Two").await;
        server.folder.write(
            "src/bigquery/plugin.lua",
            source("Three").replace("rules.label", "\"Three\""),
        );
        label(&server, "Three").await;
        // A slip leaves the last good one.
        server
            .folder
            .write("src/bigquery/plugin.lua", "return patchbay.plugin {");
        until_status(&server, "BigQueryDataOutput", |entry| {
            entry["state"] == "degraded"
        })
        .await;
        label_stays(&server, "Three").await;
        server
            .folder
            .write("src/bigquery/plugin.lua", bigquery("1.1.0", "Four"));
        label(&server, "Four").await;
        // The same after a start.
        let server = server.restart(|_| {});
        server
            .folder
            .write("src/bigquery/plugin.lua", bigquery("1.1.0", "Five"));
        label(&server, "Five").await;
        let said = server.run(&["plugin", "verify"]).well();
        assert!(said.contains("linked"), "{said}");
        // An install of it pins what is there, and edits no longer count.
        server.install(&["src/bigquery"]);
        until_status(&server, "BigQueryDataOutput", |entry| {
            entry["source"]
                .as_str()
                .is_some_and(|source| source.contains("data/packages"))
        })
        .await;
        server.install(&["--link", "src/bigquery"]);
        until_status(&server, "BigQueryDataOutput", |entry| {
            entry["source"]
                .as_str()
                .is_some_and(|source| source.ends_with("src/bigquery"))
        })
        .await;
        server.run(&["plugin", "remove", "bigquery"]).well();
        server.until(FORM, 404, |_| true).await;
        assert!(server.folder.path("src/bigquery/plugin.lua").exists());
        let complaint = server.installs_badly(&["--link", "src/bigquery/plugin.lua"]);
        assert!(complaint.contains("expected a folder"), "{complaint}");
    })
    .await;
}

async fn label_stays(server: &Server, label: &str) {
    let form = server.get(FORM).await.is(200).json();
    assert_eq!(form["ui_metadata"][0]["label"], label);
}

#[tokio::test]
async fn a_package_has_several_plugins_and_modules_of_its_own() {
    for_each_database(async |database| {
    let server = server(database);
    let folder = &server.folder;
    for (package, word) in [("one", "First"), ("two", "Second")] {
        folder.write(
            &format!("src/{package}/lib/words.lua"),
            format!("return {{ label = \"{word}\" }}"),
        );
        for (place, name) in [("a/plugin.lua", "Alpha"), ("beta.lua", "Beta")] {
            let name = format!("{name}{word}DataOutput");
            let source = plugin(
                &name,
                "ui_metadata = function() return { ui.string \"path\" { label = words.label } } end,",
            );
            folder.write(
                &format!("src/{package}/{place}"),
                format!("local words = require \"@lib/words\"\n{source}"),
            );
        }
    }
    server.install(&["src/one"]);
    server.install(&["src/two"]);
    for word in ["First", "Second"] {
        for name in ["Alpha", "Beta"] {
            server
                .until(
                    &format!("plugins/{name}{word}DataOutput/form"),
                    200,
                    |form| form["ui_metadata"][0]["label"] == word,
                )
                .await;
        }
    }
    let list = server.said(&["list"]);
    let packages: Vec<&Value> = list["packages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|package| &package["name"])
        .collect();
    assert_eq!(packages, ["one", "two"]);
    // One plugin of it is turned off by itself, but not taken out.
    server
        .run(&["plugin", "disable", "AlphaFirstDataOutput"])
        .well();
    server
        .until("plugins/AlphaFirstDataOutput/form", 404, |_| true)
        .await;
    server.get("plugins/BetaFirstDataOutput/form").await.is(200);
    let info = server.run(&["plugin", "info", "one"]).well();
    assert!(info.contains("not active: it is disabled"), "{info}");
    let complaint = server
        .run(&["plugin", "remove", "AlphaFirstDataOutput"])
        .badly();
    assert!(
        complaint.contains("one of 2 plugins of the package one"),
        "{complaint}"
    );
    let complaint = server.run(&["plugin", "remove", "oen"]).badly();
    assert!(complaint.contains("did you mean \"one\"?"), "{complaint}");
    server.run(&["plugin", "enable", "one"]).well();
    server
        .until("plugins/AlphaFirstDataOutput/form", 200, |_| true)
        .await;
    // Several plugins of different versions need a version of their package's own.
    folder.write(
        "src/two/beta.lua",
        plugin("BetaSecondDataOutput", "").replace("1.0.0", "1.1.0"),
    );
    let complaint = server.installs_badly(&["src/two"]);
    assert!(complaint.contains("version = "), "{complaint}");
    folder.write(
        "src/two/patchbay-package.toml",
        "name = \"two\"\nversion = \"2.0.0\"\n",
    );
    server.install(&["src/two"]);
    let info = server.said(&["info", "two"]);
    assert_eq!(
        (&info["version"], &info["previous"]),
        (&json!("2.0.0"), &json!(["1.0.0"]))
    );
    })
    .await;
}

#[tokio::test]
async fn two_packages_cannot_claim_the_same() {
    for_each_database(async |database| {
        let server = server(database);
        server.install(&["src/bigquery"]);
        until_version(&server, "1.0.0").await;
        for (source, says) in [
            (plugin("BigQueryDataOutput", ""), "a plugin's name"),
            (
                plugin("BigQueryTechnicalAssetConfiguration", ""),
                "a plugin's name",
            ),
            (
                plugin("OtherDataOutput", "aliases = { \"BigQueryDataOutput\" },"),
                "an alias",
            ),
            (
                plugin(
                    "OtherDataOutput",
                    "table = \"bigquery_data_output_configurations\",",
                ),
                "a table",
            ),
            (
                plugin(
                    "OtherDataOutput",
                    "platform = { platform_key = \"bigquery\" }, table = \"other_rows\",",
                ),
                "a platform key",
            ),
        ] {
            server.folder.write("src/other/plugin.lua", source);
            server
                .folder
                .write("src/other/patchbay-package.toml", "name = \"other\"");
            for words in [
                &["src/other"][..],
                &["src/other", "--force"],
                &["--link", "src/other"],
            ] {
                let complaint = server.installs_badly(words);
                assert!(
                    complaint.contains(says) && complaint.contains("bigquery 1.0.0"),
                    "{says}: {complaint}"
                );
            }
        }
        let list = server.said(&["list"]);
        assert_eq!(list["packages"].as_array().map(Vec::len), Some(1));
        // The same platform key as a plugin that is no package's is only odd.
        server.folder.write(
            "src/other/plugin.lua",
            plugin(
                "OtherDataOutput",
                "platform = { platform_key = \"snowflake\" }, table = \"other_rows\",",
            ),
        );
        let said = server.install(&["src/other"]);
        assert!(
            said.contains("warning") && said.contains("SnowflakeDataOutput"),
            "{said}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_lock_that_cannot_be_used_takes_nothing_away() {
    for_each_database(async |database| {
        let server = server(database);
        server.install(&["src/bigquery"]);
        until_version(&server, "1.0.0").await;
        let good = server.folder.read(LOCK);
        for (bad, says) in [
            ("[[package]".to_owned(), "line 1"),
            (String::new(), "format"),
            (good.replace("format = 1", "format = 2"), "newer Patchbay"),
            (
                good.replace("sha256 = \"", "sha256 = \"zz"),
                "64 hexadecimal digits",
            ),
            (
                good.replace("name = \"bigquery\"", "name = \"../bigquery\""),
                "expected a package's name",
            ),
            (
                good.replace("enabled = true", "enabled = true\nextra = 1"),
                "extra",
            ),
        ] {
            server.folder.write_by_rename(LOCK, &bad);
            let status = until_status(&server, "BigQueryDataOutput", |entry| {
                entry["state"] == "degraded"
            })
            .await;
            let message = status["last_error"]["message"].as_str().expect("a message");
            assert!(
                message.contains("plugins.lock") && message.contains(says),
                "{says}: {message}"
            );
            server.get(FORM).await.is(200);
            for words in [
                &["install", "src/bigquery"][..],
                &["remove", "bigquery"],
                &["list"],
                &["verify"],
                &["disable", "bigquery"],
            ] {
                let complaint = server.run(&[&["plugin"], words].concat()).badly();
                assert!(complaint.contains(says), "{words:?} {says}: {complaint}");
            }
            assert_eq!(server.folder.read(LOCK), bad, "it is left as it was");
            server.folder.write_by_rename(LOCK, &good);
            until_status(&server, "BigQueryDataOutput", |entry| {
                entry["state"] == "active"
            })
            .await;
        }

        // Without one, what serves goes on, and a new start loads nothing and says so.
        server.folder.remove(LOCK);
        let status = until_status(&server, "BigQueryDataOutput", |entry| {
            entry["state"] == "degraded"
        })
        .await;
        assert!(
            status["last_error"]["message"]
                .as_str()
                .is_some_and(|text| text.contains("missing"))
        );
        server.get(FORM).await.is(200);
        let server = server.restart(|_| {});
        server.get(FORM).await.error(404);
        let status = server.get("plugins/status").await.is(200).json();
        let problem = status["problems"][0].as_str().expect("a problem");
        assert!(problem.contains("bigquery is not in"), "{problem}");
        let listed = server.run(&["plugin", "list"]).well();
        assert!(listed.contains("is not in"), "{listed}");
        server.install(&["src/bigquery"]);
        until_version(&server, "1.0.0").await;
        let status = server.get("plugins/status").await.is(200).json();
        assert_eq!(status["problems"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn what_a_killed_install_left_is_swept() {
    let server = server(Database::Sqlite);
    // Killed while it was put together, and killed between the files and the lock.
    server
        .folder
        .write("data/packages/.staging/dead/x/1.0.0-00/plugin.lua", "x");
    server.folder.write(
        "data/packages/bigquery/0.9.0-000000000000/plugin.lua",
        bigquery("0.9.0", "Dead"),
    );
    server.get(FORM).await.error(404);
    server.install(&["src/bigquery"]);
    until_version(&server, "1.0.0").await;
    assert!(!server.folder.path("data/packages/.staging").exists());
    assert!(
        !server
            .folder
            .path("data/packages/bigquery/0.9.0-000000000000")
            .exists()
    );
    // Where it was to go, something lies already: it is not trusted.
    let installed = location(&server.folder, "bigquery");
    server.run(&["plugin", "remove", "bigquery"]).well();
    server.until(FORM, 404, |_| true).await;
    std::fs::create_dir_all(&installed).expect("a folder");
    std::fs::write(installed.join("evil.lua"), "x").expect("a file");
    server.install(&["src/bigquery"]);
    until_version(&server, "1.0.0").await;
    assert!(!installed.join("evil.lua").exists());
}

#[tokio::test]
async fn many_installs_at_once_are_one_after_the_other() {
    let server = server(Database::Sqlite);
    for number in 0..6 {
        server.folder.write(
            &format!("src/p{number}/plugin.lua"),
            plugin(&format!("Many{number}DataOutput"), ""),
        );
    }
    let folder = &server.folder;
    std::thread::scope(|scope| {
        for number in 0..6 {
            scope.spawn(move || {
                run(folder, &["plugin", "install", &format!("src/p{number}")]).well();
            });
        }
    });
    let list = server.said(&["list"]);
    assert_eq!(list["packages"].as_array().map(Vec::len), Some(6));
    for number in 0..6 {
        server
            .until(&format!("plugins/Many{number}DataOutput/form"), 200, |_| {
                true
            })
            .await;
    }
    server.run(&["plugin", "verify"]).well();
}

#[tokio::test]
async fn a_package_that_goes_while_its_rows_are_edited_loses_none() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .file("src/bigquery/plugin.lua", bigquery("1.0.0", "Dataset"));
        });
        server.install(&["src/bigquery"]);
        until_version(&server, "1.0.0").await;
        let product = server.data_product("sales", "sales").await;
        let edited = server
            .configured(
                "BigQueryDataOutput",
                &product,
                "edited",
                json!({ "dataset": "d" }),
            )
            .await;
        let over = AtomicBool::new(false);
        let write = async |writer: usize| {
            let mut created = Vec::new();
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                number += 1;
                let name = format!("w{writer}-{number}");
                let answer = server
                    .configure(
                        "BigQueryDataOutput",
                        &product,
                        &name,
                        json!({ "dataset": "d" }),
                    )
                    .await;
                match answer.status {
                    201 => created.push(answer.json()["id"].as_str().expect("an id").to_owned()),
                    404 => {}
                    other => panic!("{other}: {}", answer.summary()),
                }
                let answer = server
                    .patch(
                        &format!("configurations/{edited}"),
                        &json!({ "description": name }),
                    )
                    .await;
                assert!([200, 409].contains(&answer.status), "{}", answer.summary());
            }
            created
        };
        let remove = async {
            let folder = server.folder.clone();
            let removed = tokio::task::spawn_blocking(move || {
                run(&folder, &["plugin", "remove", "bigquery"]).well()
            });
            removed.await.expect("removed");
            server.until(FORM, 404, |_| true).await;
            over.store(true, Ordering::Relaxed);
        };
        let (first, second, ()) = tokio::join!(write(1), write(2), remove);
        for id in first.iter().chain(&second) {
            let row = server
                .get(&format!("configurations/{id}"))
                .await
                .is(200)
                .json();
            assert_eq!(
                (&row["plugin_state"], &row["configuration"]["dataset"]),
                (&json!("gone"), &json!("d"))
            );
        }
        assert!(!first.is_empty());
        server
            .patch(
                &format!("configurations/{edited}"),
                &json!({ "description": "late" }),
            )
            .await
            .error(409);
    })
    .await;
}

#[test]
fn info_says_which_setting_turns_a_plugin_off() {
    let folder = Folder::new();
    folder.write("source/plugin.lua", plugin("OwnDataOutput", ""));
    run(&folder, &["plugin", "install", "source"]).well();
    let off = |options: &mut Options| {
        options.env("DISABLED_PLUGINS", "OwnDataOutput");
        options.arg("plugin").arg("info").arg("OwnDataOutput");
    };
    let info = run_with(&folder, off).well();
    assert!(
        info.contains("not active: DISABLED_PLUGINS names \"OwnDataOutput\"; take it out there"),
        "{info}"
    );
    let info = run(&folder, &["plugin", "info", "OwnDataOutput"]).well();
    assert!(info.lines().any(|line| line.trim() == "active"), "{info}");
}

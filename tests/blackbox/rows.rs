//! What becomes of stored rows when their plugin changes: they are checked first, carried over, or only shown.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::{Database, Folder, Http, Server, eventually, for_each_database, on_postgres};
use crate::world::entry;

const NAME: &str = "PathsDataOutput";
const FILE: &str = "lua-plugins/paths.lua";
const DETAILS: &str = "plugins/PathsDataOutput";
const TABLE: &str = "paths_data_output_configurations";
const RELOAD: &str = "plugins/reload";

/// A plugin of this version, with these fields after `path`, and these lines in its definition.
fn paths(version: &str, fields: &str, lines: &str) -> String {
    format!(
        "local field, migration, column = patchbay.field, patchbay.migration, patchbay.column\n\
         return patchbay.plugin {{\n  name = \"{NAME}\", version = \"{version}\",\n  \
         fields = {{ field.string \"path\" {{ required = true }}, {fields} }},\n{lines}\n}}"
    )
}

/// A rule: paths must not contain these words.
fn without(words: &[&str]) -> String {
    let checks: String = words
        .iter()
        .map(|word| {
            format!(
                "    if configuration.path:find(\"{word}\", 1, true) then return {{ {{ field = \"path\", message = \"no {word}\" }} }} end\n"
            )
        })
        .collect();
    format!("  validate = function(configuration)\n{checks}    return {{}}\n  end,")
}

fn serving(database: Database, source: String) -> Server {
    Server::start(|options| {
        options.database(database).file(FILE, source);
    })
}

async fn stored(server: &Http, product: &str, name: &str, path: &str) -> String {
    server
        .configured(NAME, product, name, json!({ "path": path }))
        .await
}

/// Waits until the newest version does not serve, at this stage, and gives the details.
async fn held_at(server: &Http, stage: &str, version: &str) -> Value {
    server
        .until(DETAILS, 200, |details| {
            details["last_error"]["stage"] == stage && details["last_error"]["version"] == version
        })
        .await
}

async fn until_serves(server: &Http, version: &str) -> Value {
    server
        .until(DETAILS, 200, |details| {
            details["version"] == version && details["state"] == "active"
        })
        .await
}

async fn read(server: &Http, id: &str) -> Value {
    server
        .get(&format!("configurations/{id}"))
        .await
        .is(200)
        .json()
}

#[tokio::test]
async fn rows_that_would_be_refused_hold_a_version_back() {
    for_each_database(async |database| {
        let server = serving(database, paths("1.0.0", "", &without(&["broken"])));
        let product = server.data_product("sales", "sales").await;
        let mut old = BTreeSet::new();
        for number in 0..22 {
            let name = format!("old {number}");
            old.insert(stored(&server, &product, &name, "old/path").await);
        }
        for number in 0..3 {
            stored(&server, &product, &format!("new {number}"), "new/path").await;
        }
        // The rule is for the mapping `default` alone.
        let custom = json!({
            "data_product_id": product, "name": "custom", "technical_mapping": "custom",
            "configuration": { "path": "old/custom" },
        });
        let create = format!("plugins/{NAME}/configurations");
        server.post(&create, &custom).await.is(201);
        // One was refused before, too: it holds nothing back, whatever the next version says of it.
        let broken = stored(&server, &product, "broken", "was right").await;
        let sql = format!("UPDATE {TABLE} SET path = 'broken, old' WHERE id = '{broken}'");
        database.execute(&server.folder, &sql).await;

        server
            .folder
            .write(FILE, paths("2.0.0", "", &without(&["broken", "old"])));
        let held = held_at(&server, "rows", "2.0.0").await;
        assert_eq!(
            (&held["version"], &held["state"]),
            (&json!("1.0.0"), &json!("degraded"))
        );
        let error = &held["last_error"];
        let check = &error["rows"];
        assert_eq!(
            (&check["refused"], &check["checked"], &check["total"]),
            (&json!(22), &json!(27), &json!(27)),
            "{error}"
        );
        let shown = check["rows"].as_array().expect("rows");
        assert_eq!(shown.len(), 20, "{error}");
        for row in shown {
            assert!(old.contains(row["id"].as_str().expect("an id")), "{row}");
            assert_eq!(
                (&row["field"], &row["message"]),
                (&json!("path"), &json!("no old"))
            );
        }
        let message = error["message"].as_str().expect("a message");
        for part in [
            "22 of the stored configurations that version 1.0.0 accepts would be refused by 2.0.0 (checked all 27)",
            "patchbay plugin migrate PathsDataOutput --force",
            "POST /api/v2/plugins/reload?force=PathsDataOutput",
        ] {
            assert!(message.contains(part), "{message}");
        }
        let status = server.get("plugins/status").await.is(200).json();
        assert_eq!(entry(&status, NAME)["last_error"]["rows"], *check);
        assert_eq!(entry(&status, NAME)["state"], "degraded");
        // The version before goes on, by its own rules.
        stored(&server, &product, "one more", "old/still").await;
        // The command line says the same, of what it can know.
        let said = server.run(&["plugin", "migrate", NAME]).badly();
        assert!(said.contains("24 of the stored configurations") && said.contains("path: no old"), "{said}");
        assert!(said.contains("and 4 more"), "{said}");

        // A mended version takes its place at once.
        server
            .folder
            .write(FILE, paths("2.0.1", "", &without(&["broken"])));
        until_serves(&server, "2.0.1").await;
        let log = server.logged();
        assert!(log.contains("path: no old") && log.contains("and 2 more"), "{log}");
    })
    .await;
}

#[tokio::test]
async fn a_version_is_accepted_by_force() {
    for_each_database(async |database| {
        for by_command in [false, true] {
            let server = serving(database, paths("1.0.0", "", ""));
            let product = server
                .data_product(&format!("sales{by_command}"), "sales")
                .await;
            let id = stored(&server, &product, "n", "old").await;
            server
                .folder
                .write(FILE, paths("2.0.0", "", &without(&["old"])));
            held_at(&server, "rows", "2.0.0").await;
            if by_command {
                server.run(&["plugin", "migrate", NAME, "--force"]).well();
            } else {
                let none = server
                    .post(&format!("{RELOAD}?force=Nope"), &json!({}))
                    .await;
                assert_eq!(none.error(404), "Plugin 'Nope' not found");
                assert_eq!(server.get(DETAILS).await.is(200).json()["version"], "1.0.0");
                let forced = server
                    .post(&format!("{RELOAD}?force={NAME}"), &json!({}))
                    .await;
                assert_eq!(forced.is(200).json()["changed"], json!([NAME]));
            }
            until_serves(&server, "2.0.0").await;
            assert_eq!(read(&server, &id).await["configuration"]["path"], "old");
            let again = json!({ "description": "d" });
            let path = format!("configurations/{id}");
            server.patch(&path, &again).await.error(422);
            // What was accepted stays accepted.
            let server = server.restart(|_| {});
            let details = until_serves(&server, "2.0.0").await;
            assert_eq!(details["warnings"], json!([]), "{details}");
            server.delete(&path).await.is(204);
        }
    })
    .await;
}

#[tokio::test]
async fn at_a_start_nothing_is_held_back_and_the_rows_are_named() {
    for_each_database(async |database| {
        let server = serving(database, paths("1.0.0", "", ""));
        let product = server.data_product("sales", "sales").await;
        let id = stored(&server, &product, "n", "old").await;
        let folder = server.folder.clone();
        let mut server = server;
        for _ in 0..2 {
            let stopped = server.kill();
            folder.write(FILE, paths("2.0.0", "", &without(&["old"])));
            server = stopped.start();
            let details = until_serves(&server, "2.0.0").await;
            let warnings = details["warnings"].to_string();
            assert!(
                warnings.contains("1 of the stored configurations would be refused by 2.0.0")
                    && warnings.contains(&format!("{id}: path: no old")),
                "{warnings}"
            );
            assert_eq!(read(&server, &id).await["configuration"]["path"], "old");
        }
        server
            .patch(
                &format!("configurations/{id}"),
                &json!({ "configuration": { "path": "new" } }),
            )
            .await
            .is(200);
        let server = server.restart(|_| {});
        assert_eq!(until_serves(&server, "2.0.0").await["warnings"], json!([]));
        // The warning can be acknowledged, too.
        let stopped = server.kill();
        folder.write(FILE, paths("3.0.0", "", &without(&["new"])));
        let server = stopped.start();
        assert_ne!(until_serves(&server, "3.0.0").await["warnings"], json!([]));
        let force = format!("{RELOAD}?force={NAME}");
        server.post(&force, &json!({})).await.is(200);
        assert_eq!(until_serves(&server, "3.0.0").await["warnings"], json!([]));
        let server = server.restart(|_| {});
        assert_eq!(until_serves(&server, "3.0.0").await["warnings"], json!([]));
    })
    .await;
}

/// Adds rows behind the server's back: so many, with ids spread over all that there can be.
async fn fill(database: Database, folder: &Folder, product: &str, count: usize) {
    let mut sql = String::new();
    for number in 0..count {
        let id = format!(
            "{:08x}-0000-4000-8000-{number:012x}",
            number * (u32::MAX as usize / count)
        );
        let (time, own) = (
            "2026-01-01T00:00:00.000000Z",
            format!("INSERT INTO {TABLE} (id, path) VALUES ('{id}', 'old');"),
        );
        sql.push_str(&format!(
            "INSERT INTO data_output_configurations VALUES ('{id}', '{NAME}', '1.0.0', 'n{number}', 'n{number}', NULL, \
             '{product}', 'default', NULL, NULL, 1, '{time}', '{time}'); {own}"
        ));
    }
    database
        .execute(folder, &format!("BEGIN; {sql} COMMIT"))
        .await;
}

#[tokio::test]
async fn where_there_is_no_time_for_all_rows_a_sample_says_so() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .env("PATCHBAY_ROW_CHECK_MS", "150")
                .file(FILE, paths("1.0.0", "", ""));
        });
        let product = server.data_product("sales", "sales").await;
        fill(database, &server.folder, &product, 3000).await;
        // It takes its time, and refuses every second row: those in the later half of all ids among them.
        let slow = "  validate = function(configuration)\n    local sum = 0\n    for i = 1, 60000 do sum += i end\n    \
                    if configuration.path == \"old\" then return \"no old\" end\n  end,";
        server.folder.write(FILE, paths("2.0.0", "", slow));
        let held = held_at(&server, "rows", "2.0.0").await;
        let check = &held["last_error"]["rows"];
        let (checked, total) = (check["checked"].as_u64().expect("a count"), &check["total"]);
        assert!((1..3000).contains(&checked) && *total == 3000, "{check}");
        let message = held["last_error"]["message"].as_str().expect("a message");
        assert!(
            message.contains(&format!("(checked {checked} of 3,000, spread over all)"))
                || message.contains("of 3,000, spread over all)"),
            "{message}"
        );
        if checked > 20 {
            let ids: Vec<&str> = check["rows"]
                .as_array()
                .expect("rows")
                .iter()
                .filter_map(|row| row["id"].as_str())
                .collect();
            let spread = |half: fn(char) -> bool| ids.iter().any(|id| id.starts_with(half));
            assert!(spread(|digit| digit < '8') && spread(|digit| digit >= '8'), "{ids:?}");
        }
        // Nobody looks, so nothing is held back.
        let server = server.restart(|options| {
            options.env("PATCHBAY_ROW_CHECK_MS", "0");
        });
        until_serves(&server, "2.0.0").await;
        server
            .folder
            .write(FILE, paths("3.0.0", "", &without(&["o"])));
        until_serves(&server, "3.0.0").await;
    })
    .await;
}

#[tokio::test]
async fn a_hook_that_fails_on_a_row_names_the_row() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .env("PATCHBAY_ROW_CHECK_MS", "20000")
                .file(FILE, paths("1.0.0", "", ""));
        });
        let product = server.data_product("sales", "sales").await;
        let mut ids = Vec::new();
        for path in ["fine", "raises", "loops", "eats", "fine too"] {
            ids.push(stored(&server, &product, path, path).await);
        }
        // What one row leaves behind, another does not see.
        let hooks = r#"  normalize = function(configuration)
    seen.count += 1
    if seen.count > 1 then error("a row sees another") end
    if configuration.path == "raises" then error("not this one") end
    while configuration.path == "loops" do end
    return configuration
  end,
  validate = function(configuration)
    local kept = {}
    while configuration.path == "eats" do table.insert(kept, string.rep("x", 100000) .. #kept) end
    return {}
  end,"#;
        let source = paths("2.0.0", "", hooks);
        server
            .folder
            .write(FILE, format!("local seen = {{ count = 0 }}\n{source}"));
        let held = held_at(&server, "rows", "2.0.0").await;
        let check = &held["last_error"]["rows"];
        assert_eq!(
            (&check["refused"], &check["checked"]),
            (&json!(3), &json!(5)),
            "{check}"
        );
        for (place, part) in [(1, "not this one"), (2, "longer than"), (3, "memory")] {
            let row = check["rows"]
                .as_array()
                .expect("rows")
                .iter()
                .find(|row| row["id"] == ids[place]);
            let message = row.expect("the row")["message"]
                .as_str()
                .expect("a message");
            assert!(
                message.contains(part) && message.contains("lua-plugins/paths.lua:"),
                "{message}"
            );
        }
        // Its neighbours were not held up, and the version before serves.
        stored(&server, &product, "one more", "loops").await;
    })
    .await;
}

/// Splits the path into where and what.
const SPLIT: &str = r#"  upgrade = function(configuration, from_version)
    if from_version ~= "1.0.0" then return nil, "from " .. from_version end
    local where, what = configuration.path:match("^(.-)/(.*)$")
    if where == nil then return nil, { { field = "path", message = "no slash in it" } } end
    return { path = what, folder = where }
  end,
  normalize = function(configuration)
    configuration.path = configuration.path:lower()
    return configuration
  end,"#;
const FOLDER_FIELD: &str = "field.string \"folder\" { default = \"\" }";

#[tokio::test]
async fn a_plugin_carries_its_rows_over() {
    for_each_database(async |database| {
        let server = serving(database, paths("1.0.0", "", ""));
        let product = server.data_product("sales", "sales").await;
        let one = stored(&server, &product, "one", "in/ONE").await;
        let bad = stored(&server, &product, "bad", "nowhere").await;
        server
            .folder
            .write(FILE, paths("2.0.0", FOLDER_FIELD, SPLIT));
        let held = held_at(&server, "rows", "2.0.0").await;
        assert_eq!(
            held["last_error"]["rows"]["rows"],
            json!([{ "id": bad, "field": "path", "message": "no slash in it" }])
        );
        assert_eq!(
            database.columns(&server.folder, TABLE).await,
            ["id", "path"]
        );
        server
            .patch(
                &format!("configurations/{bad}"),
                &json!({ "configuration": { "path": "some/Where" } }),
            )
            .await
            .is(200);
        server.post(RELOAD, &json!({})).await.is(200);
        until_serves(&server, "2.0.0").await;
        for (id, folder, path, revision) in [(&one, "in", "one", 2), (&bad, "some", "where", 3)] {
            let row = read(&server, id).await;
            let expected = json!({ "configuration_type": NAME, "path": path, "folder": folder });
            assert_eq!(row["configuration"], expected);
            assert_eq!(
                (&row["revision"], &row["plugin_version"]),
                (&json!(revision), &json!("2.0.0"))
            );
        }
        let history = server
            .get(&format!("configurations/{one}/history"))
            .await
            .is(200)
            .json();
        let last = &history["history"][0];
        assert_eq!(
            (&last["action"], &last["revision"]),
            (&json!("upgrade"), &json!(2))
        );
        let cluster = server.get("cluster").await.is(200).json();
        let own = &cluster["servers"][0];
        let (name, id) = (
            own["name"].as_str().expect("a name"),
            own["id"].as_str().expect("an id"),
        );
        assert_eq!(last["changed_by"], format!("server {name} ({id})"));
        assert_eq!(
            last["changes"],
            json!({
                "plugin_version": { "from": "1.0.0", "to": "2.0.0" },
                "configuration.path": { "from": "in/ONE", "to": "one" },
                "configuration.folder": { "from": null, "to": "in" },
            })
        );
        // Nothing is carried over twice.
        let server = server.restart(|_| {});
        until_serves(&server, "2.0.0").await;
        server.folder.write(FILE, paths("2.0.1", FOLDER_FIELD, ""));
        until_serves(&server, "2.0.1").await;
        assert_eq!(read(&server, &one).await["revision"], 2);
    })
    .await;
}

#[tokio::test]
async fn rows_that_take_too_long_to_carry_over_are_given_up_once() {
    for_each_database(async |database| {
        let server = serving(database, paths("1.0.0", "", ""));
        let product = server.data_product("sales", "sales").await;
        fill(database, &server.folder, &product, 60).await;
        // From here on no row changes.
        let server = server.restart(|_| {});
        let endless = "  upgrade = function() while true do end end,";
        server.folder.write(FILE, paths("1.1.0", "", endless));
        let held = held_at(&server, "rows", "1.1.0").await;
        let message = held["last_error"]["message"].as_str().expect("a message");
        for part in [
            "carrying the rows over was given up after ",
            " of them ran past the deadline of a hook: lua-plugins/paths.lua:5: upgrade: it ran longer than",
            "make `upgrade` faster, or write a migration with m:update(…)",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert_eq!(
            (&held["version"], &held["state"]),
            (&json!("1.0.0"), &json!("degraded"))
        );
        // Others come in without all that being gone through again.
        let other = crate::world::plugin("OtherDataOutput", "");
        server.folder.write("lua-plugins/other.lua", other);
        server
            .until("plugins/OtherDataOutput", 200, |details| {
                details["state"] == "active"
            })
            .await;
        let again = held_at(&server, "rows", "1.1.0").await;
        assert_eq!(again["last_error"]["at"], held["last_error"]["at"]);
    })
    .await;
}

#[tokio::test]
async fn rows_are_carried_over_from_the_columns_that_a_step_takes_away() {
    for_each_database(async |database| {
        let server = serving(database, paths("1.0.0", FOLDER_FIELD, ""));
        let product = server.data_product("sales", "sales").await;
        let values = json!({ "path": "p", "folder": "f" });
        let id = server.configured(NAME, &product, "n", values).await;
        let lines = format!(
            "  migrations = {{ migration \"0002_drop_folder\" {{ up = function(m) m:drop_column(\"{TABLE}\", \"folder\") end }} }},\n  \
             upgrade = function(configuration, from)\n    return {{ path = configuration.folder .. \"/\" .. configuration.path .. \" of \" .. from }}\n  end,"
        );
        server.folder.write(FILE, paths("2.0.0", "", &lines));
        held_at(&server, "migration", "2.0.0").await;
        server.run(&["plugin", "migrate", NAME]).well();
        until_serves(&server, "2.0.0").await;
        let row = read(&server, &id).await;
        assert_eq!(row["configuration"], json!({ "configuration_type": NAME, "path": "f/p of 1.0.0" }));
        assert_eq!(database.columns(&server.folder, TABLE).await, ["id", "path"]);
        let history = server.get(&format!("configurations/{id}/history")).await.is(200).json();
        let last = &history["history"][0];
        assert_eq!(last["action"], "upgrade");
        assert!(last["changed_by"].as_str().is_some_and(|by| by.starts_with("local ") && by.contains('@')), "{last}");
    })
    .await;
}

/// Writers that create and change rows until they are told to stop. Gives how many writes were acknowledged.
struct Writers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<(String, Value)>>>,
}

impl Writers {
    /// `refused` says which answers but 201 are clear.
    fn start(server: &Http, product: &str, refused: fn(u16) -> bool) -> Writers {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let tasks = (0..4)
            .map(|writer| {
                let (server, product) = (server.clone(), product.to_owned());
                let (stop, done) = (stop.clone(), done.clone());
                tokio::spawn(async move {
                    let mut kept = Vec::new();
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        number += 1;
                        let path = format!("w{writer}/{number}");
                        let name = format!("{writer}-{number}");
                        let values = json!({ "path": path });
                        let answer = server.configure(NAME, &product, &name, values).await;
                        if answer.status == 201 {
                            let row = answer.json();
                            kept.push((
                                row["id"].as_str().expect("an id").to_owned(),
                                row["configuration"].clone(),
                            ));
                            // Some are changed right away.
                            if number % 2 == 0 {
                                let path = format!("configurations/{}", kept.last().expect("it").0);
                                let answer =
                                    server.patch(&path, &json!({ "description": "d" })).await;
                                assert!(
                                    answer.status == 200 || refused(answer.status),
                                    "{}",
                                    answer.summary()
                                );
                            }
                        } else {
                            assert!(refused(answer.status), "{}", answer.summary());
                            assert!(answer.json()["detail"].is_string(), "{}", answer.summary());
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    kept
                })
            })
            .collect();
        Writers { stop, done, tasks }
    }

    /// Waits until so many more requests were answered.
    async fn go_on(&self, more: usize) {
        let until = self.done.load(Ordering::Relaxed) + more;
        eventually("requests are answered", async || {
            match self.done.load(Ordering::Relaxed) {
                now if now >= until => Ok(()),
                now => Err(format!("{now} of {until}")),
            }
        })
        .await;
    }

    async fn stop(self) -> Vec<(String, Value)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut kept = Vec::new();
        for task in self.tasks {
            kept.extend(task.await.expect("a writer"));
        }
        kept
    }
}

#[tokio::test]
async fn rows_written_while_others_are_carried_over_are_carried_over_too() {
    for_each_database(async |database| {
        let server = serving(database, paths("1.0.0", "", ""));
        let product = server.data_product("sales", "sales").await;
        for number in 0..30 {
            stored(
                &server,
                &product,
                &format!("before {number}"),
                &format!("in/{number}"),
            )
            .await;
        }
        let writers = Writers::start(&server.http(), &product, |_| false);
        writers.go_on(20).await;
        // What a writer that began before sends has no folder, so that its path keeps its slash.
        server
            .folder
            .write(FILE, paths("2.0.0", FOLDER_FIELD, SPLIT));
        until_serves(&server, "2.0.0").await;
        writers.go_on(20).await;
        let kept = writers.stop().await;
        let older =
            "SELECT count(*) FROM data_output_configurations WHERE plugin_version <> '2.0.0'";
        assert_eq!(database.number(&server.folder, older).await, 0);
        let mut carried = 0;
        for (id, values) in kept {
            let row = read(&server, &id).await;
            let (sent, now) = (&values["path"], &row["configuration"]);
            let together = format!(
                "{}/{}",
                now["folder"].as_str().unwrap_or_default(),
                now["path"].as_str().unwrap_or_default()
            );
            let by_old = values.get("folder").is_none();
            carried += usize::from(by_old);
            let expected = if by_old {
                sent.as_str().expect("a path").to_owned()
            } else {
                format!("/{}", sent.as_str().expect("a path"))
            };
            assert_eq!(together, expected, "{row}");
        }
        assert!(carried > 0);
    })
    .await;
}

#[tokio::test]
async fn of_two_servers_one_carries_the_rows_over() {
    on_postgres(async |database| {
        let folder = Folder::new();
        folder.write(FILE, paths("1.0.0", "", ""));
        let start = || {
            Server::start_in(folder.clone(), |options| {
                options.database(database);
            })
        };
        let (one, two) = (start(), start());
        let product = one.data_product("sales", "sales").await;
        for number in 0..40 {
            stored(
                &one,
                &product,
                &format!("n{number}"),
                &format!("in/{number}"),
            )
            .await;
        }
        // Without and with a step.
        for (version, fields, upgrade) in [
            (
                "2.0.0",
                "",
                "return { path = configuration.path .. \"/2\" }",
            ),
            (
                "3.0.0",
                FOLDER_FIELD,
                "return { path = configuration.path .. \"/3\", folder = \"f\" }",
            ),
        ] {
            let lines = format!("  upgrade = function(configuration) {upgrade} end,");
            folder.write(FILE, paths(version, fields, &lines));
            for server in [&one, &two] {
                until_serves(server, version).await;
            }
        }
        let rows =
            format!("SELECT count(*) FROM {TABLE} WHERE path LIKE 'in/%/2/3' AND folder = 'f'");
        assert_eq!(database.number(&folder, &rows).await, 40);
        let steps = "SELECT count(*) FROM configuration_revisions WHERE action = 'upgrade'";
        assert_eq!(database.number(&folder, steps).await, 80);
        stored(&two, &product, "more", "x").await;
    })
    .await;
}

const DAYS: &str = "field.integer \"days\" { default = 7 }";

/// Asserts that the plugin only shows its rows, all columns of them, and says why.
async fn only_shown(server: &Http, product: &str, id: &str) {
    let details = held_at(server, "older", "1.0.0").await;
    assert_eq!(
        (&details["state"], &details["version"]),
        (&json!("degraded"), &json!("1.0.0"))
    );
    let status = server.get("plugins/status").await.is(200).json();
    let message = entry(&status, NAME)["last_error"]["message"].to_string();
    assert!(
        message.contains("1.0.0")
            && message.contains("1.1.0")
            && !message.contains("restore its file"),
        "{message}"
    );
    server.get(&format!("{DETAILS}/form")).await.is(200);
    let list = server
        .get(&format!("plugins/{NAME}/configurations"))
        .await
        .is(200)
        .json();
    let row = read(server, id).await;
    for row in [&row, &list["configurations"][0]] {
        let expected = json!({ "configuration_type": NAME, "path": "p", "days": 30 });
        assert_eq!(row["configuration"], expected, "no column is lost");
        assert_eq!(row["plugin_state"], "degraded");
    }
    let path = format!("configurations/{id}");
    let changed = json!({ "description": "d" });
    for answer in [
        server
            .configure(NAME, product, "m", json!({ "path": "q" }))
            .await,
        server.patch(&path, &changed).await,
    ] {
        assert!(answer.header("retry-after").parse::<u32>().is_ok());
        let detail = answer.error(503).to_string();
        assert!(
            detail.contains("1.0.0") && detail.contains("1.1.0"),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn a_plugin_older_than_its_table_is_only_shown() {
    for_each_database(async |database| {
        let newer = paths("1.1.0", DAYS, "");
        let server = serving(database, newer.clone());
        let product = server.data_product("sales", "sales").await;
        let values = json!({ "path": "p", "days": 30 });
        let id = server.configured(NAME, &product, "n", values).await;

        // Edited back while it runs: the newer version is still in memory, and goes on.
        server.folder.write(FILE, paths("1.0.0", "", ""));
        let details = held_at(&server, "older", "1.0.0").await;
        assert_eq!(
            (&details["version"], &details["state"]),
            (&json!("1.1.0"), &json!("degraded"))
        );
        let message = details["last_error"]["message"].to_string();
        assert!(
            message.contains("1.0.0") && message.contains("1.1.0"),
            "{message}"
        );
        server
            .patch(
                &format!("configurations/{id}"),
                &json!({ "description": "c" }),
            )
            .await
            .is(200);

        // At a start it is not there.
        let server = server.restart(|_| {});
        only_shown(&server, &product, &id).await;
        // Nothing of that changes when something else is read again.
        let before = server.get("plugins/status").await.is(200).json()["generation"].clone();
        let reloaded = server.post(RELOAD, &json!({})).await.is(200).json();
        assert_eq!(
            (&reloaded["generation"], &reloaded["changed"]),
            (&before, &json!([]))
        );
        only_shown(&server, &product, &id).await;

        server.folder.write(FILE, newer);
        until_serves(&server, "1.1.0").await;
        server
            .configured(NAME, &product, "m", json!({ "path": "q", "days": 1 }))
            .await;
        server
            .patch(
                &format!("configurations/{id}"),
                &json!({ "description": "d" }),
            )
            .await
            .is(200);
    })
    .await;
}

#[tokio::test]
async fn a_server_whose_plugin_is_overtaken_shows_it_until_it_has_the_newer_one() {
    on_postgres(async |database| {
        let older = serving(database, paths("1.0.0", "", ""));
        let newer = serving(database, paths("1.0.0", "", ""));
        let product = newer.data_product("sales", "sales").await;
        newer.folder.write(FILE, paths("1.1.0", DAYS, ""));
        until_serves(&newer, "1.1.0").await;
        let values = json!({ "path": "p", "days": 30 });
        let id = newer.configured(NAME, &product, "n", values).await;
        only_shown(&older, &product, &id).await;
        older.folder.write(FILE, paths("1.1.0", DAYS, ""));
        until_serves(&older, "1.1.0").await;
        older
            .configured(NAME, &product, "m", json!({ "path": "q" }))
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_step_that_is_missing_from_a_version_that_is_not_older_is_an_error() {
    for_each_database(async |database| {
        let step = |version: &str, with: bool| {
            let step = format!("migration \"0001_index\" {{ up = function(m) m:create_index(\"{TABLE}\", {{ \"path\" }}) end }}");
            let step = if with { step.as_str() } else { "" };
            paths(version, "", &format!("  migrations = {{ {step} }},"))
        };
        let server = serving(database, paths("1.0.0", "", ""));
        server.folder.write(FILE, step("1.1.0", true));
        until_serves(&server, "1.1.0").await;
        let server = server.restart(|_| {});
        for version in ["1.1.0", "1.2.0"] {
            server.folder.write(FILE, step(version, false));
            let held = held_at(&server, "plan", version).await;
            assert!(held["last_error"]["message"].to_string().contains("restore its file"), "{held}");
        }
        // An older one whose steps are those of the table serves, whatever its number.
        server.folder.write(FILE, step("1.0.5", true));
        until_serves(&server, "1.0.5").await;
    })
    .await;
}

#[tokio::test]
async fn a_plugin_is_removed_while_its_rows_are_edited() {
    for_each_database(async |database| {
        let source = paths("1.0.0", "", "");
        let server = serving(database, source.clone());
        let product = server.data_product("sales", "sales").await;
        let first = stored(&server, &product, "first", "p").await;
        let clear = |status| [404, 409, 503].contains(&status);
        let writers = Writers::start(&server.http(), &product, clear);
        for _ in 0..2 {
            writers.go_on(20).await;
            server.folder.remove(FILE);
            server.until(DETAILS, 404, |_| true).await;
            writers.go_on(20).await;
            // Reads go on, and say so.
            let row = read(&server, &first).await;
            assert_eq!((&row["configuration"]["path"], &row["plugin_state"]), (&json!("p"), &json!("gone")));
            server.get("configurations").await.is(200);
            server.folder.write(FILE, &source);
            until_serves(&server, "1.0.0").await;
        }
        writers.go_on(20).await;
        let kept = writers.stop().await;
        assert!(kept.len() > 20, "{}", kept.len());
        for (id, values) in &kept {
            assert_eq!(read(&server, id).await["configuration"], *values);
        }
        let rows = format!("SELECT count(*) FROM {TABLE}");
        assert_eq!(database.number(&server.folder, &rows).await, kept.len() as i64 + 1);
        let half = format!(
            "SELECT count(*) FROM data_output_configurations WHERE id NOT IN (SELECT id FROM {TABLE})"
        );
        assert_eq!(database.number(&server.folder, &half).await, 0);
    })
    .await;
}

/// Of two plugins of one name the later path's serves. What the other would say of the rows is nobody's business, and costs
/// nobody time.
#[tokio::test]
async fn only_what_will_serve_is_tried_on_the_rows() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .env("PATCHBAY_PLUGIN_PATHS", "earlier:lua-plugins")
                .file("earlier/paths.lua", paths("0.9.0", "", &without(&["old"])))
                .file(FILE, paths("1.0.0", "", ""));
        });
        let product = server.data_product("sales", "sales").await;
        stored(&server, &product, "n", "old").await;
        server.folder.write(FILE, paths("1.0.1", "", ""));
        until_serves(&server, "1.0.1").await;
        server.post(RELOAD, &json!({})).await.is(200);
        // The one that is left is tried once it is its turn. What served is gone, so nothing is held back.
        server.folder.remove(FILE);
        let left = until_serves(&server, "0.9.0").await;
        assert!(
            left["warnings"].to_string().contains("path: no old"),
            "{left}"
        );
        let log = server.logged();
        let checks = |version: &str| {
            let line = format!("Plugin registry: {NAME} {version}: checked all 1 ");
            log.matches(&line).count()
        };
        assert_eq!(checks("1.0.1"), 1, "{log}");
        assert_eq!(checks("0.9.0"), 1, "{log}");
    })
    .await;
}

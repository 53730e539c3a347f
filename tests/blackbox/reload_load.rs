//! Reloads under load: no request fails, and none sees half a set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use tokio::task::JoinHandle;

use crate::harness::{Database, Folder, Http, Server, eventually, for_each_database};
use crate::world::{FILE, bigquery, entry, names};

/// The label of a plugin whose version, module and label are written together.
fn twin(name: &str, version: usize) -> (String, String) {
    let source = format!(
        r#"
local part = require "./part"
return patchbay.plugin {{
    name = "{name}",
    version = "1.{version}.0",
    fields = {{ patchbay.field.string "path" }},
    ui_metadata = function() return {{ patchbay.ui.string "path" {{ label = "1.{version}.0/" .. part.version }} }} end,
}}"#
    );
    (source, format!("return {{ version = \"1.{version}.0\" }}"))
}

/// Says what is wrong with an answer to `GET /plugins` during reloads, if anything is.
fn whole(list: &Value, expected: &[&str]) -> Result<(), String> {
    if names(list) != expected {
        return Err(format!("{:?}", names(list)));
    }
    let plugins = list["plugins"].as_array().ok_or("no list")?;
    for plugin in plugins {
        let label = plugin["ui_metadata"][0]["label"]
            .as_str()
            .unwrap_or_default();
        let version = plugin["version"].as_str().unwrap_or_default();
        let is_twin = plugin["plugin"]
            .as_str()
            .is_some_and(|name| name.starts_with("Twin"));
        let differs = is_twin && label != format!("{version}/{version}");
        if differs
            || plugin["generation"] != plugins[0]["generation"]
            || plugin["not_configured"] == true
        {
            return Err(format!(
                "{} {version} {label:?} {}",
                plugin["plugin"], plugin["generation"]
            ));
        }
    }
    Ok(())
}

/// Requests that go on until the end. None may fail, and none may see half a set.
struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Result<(), String>>>,
}

const EXPECTED: [&str; 4] = [
    "BigQueryDataOutput",
    "SnowflakeDataOutput",
    "TwinA",
    "TwinB",
];

impl Load {
    async fn on(server: &Http) -> Load {
        let product = server.data_product("sales", "sales").await;
        let mut load = Load {
            stop: Arc::default(),
            answers: Arc::default(),
            tasks: Vec::new(),
        };
        for worker in 0..6 {
            let (server, product) = (server.clone(), product.clone());
            let (stop, answers) = (load.stop.clone(), load.answers.clone());
            load.tasks.push(tokio::spawn(async move {
                let mut last = 0;
                for count in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    match worker % 3 {
                        0 => {
                            let list = server.get("plugins").await.is(200).json();
                            let generation = list["plugins"][0]["generation"]
                                .as_u64()
                                .unwrap_or_default();
                            if generation < last {
                                return Err(format!("generation {generation} after {last}"));
                            }
                            last = generation;
                            whole(&list, &EXPECTED)?;
                        }
                        1 => {
                            let form = server.get("plugins/TwinA/form").await.is(200).json();
                            whole(&json!({ "plugins": [form] }), &["TwinA"])?;
                        }
                        _ => {
                            let name = format!("{worker}-{count}");
                            server
                                .configured(
                                    "BigQueryDataOutput",
                                    &product,
                                    &name,
                                    json!({ "dataset": "d" }),
                                )
                                .await;
                        }
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
        load
    }

    /// Waits for some more answers.
    async fn goes_on(&self, server: &Http) {
        let before = self.answers.load(Ordering::Relaxed);
        eventually("load", async || {
            // A request of this task's own lets the others run.
            server.get("/healthz").await.is(200);
            let now = self.answers.load(Ordering::Relaxed);
            (now > before + 20)
                .then_some(())
                .ok_or_else(|| format!("{now} answers"))
        })
        .await;
    }

    async fn was_well(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            assert_eq!(task.await.expect("no request fails"), Ok(()), "half a set");
        }
    }
}

/// Writes the folder of a twin.
fn write_twin(folder: &Folder, at: &str, name: &str, version: usize) {
    let (source, part) = twin(name, version);
    folder.write(&format!("{at}/plugin.lua"), source);
    folder.write(&format!("{at}/part.lua"), part);
}

/// A server with two twins, linked as deployments link them, and BigQuery in a file.
fn start(database: Database) -> Server {
    let folder = Folder::new();
    for name in ["TwinA", "TwinB"] {
        write_twin(&folder, &format!("releases/{name}-0"), name, 0);
        folder.link(
            &format!("../releases/{name}-0"),
            &format!("lua-plugins/{name}"),
        );
    }
    Server::start_in(folder, |options| {
        options
            .database(database)
            .env("ENABLED_PLUGINS", "SnowflakeDataOutput");
        options.file(FILE, bigquery("1.0.0", "0"));
    })
}

async fn until_all(server: &Http, version: &str) {
    server
        .until("plugins", 200, |list| {
            ["BigQueryDataOutput", "TwinA", "TwinB"]
                .iter()
                .all(|name| entry(list, name)["version"] == version)
        })
        .await;
}

#[tokio::test]
async fn under_load_no_request_fails_and_none_sees_half_a_set() {
    for_each_database(async |database| {
        let server = start(database);
        let load = Load::on(&server).await;
        for round in 1..=15 {
            for name in ["TwinA", "TwinB"] {
                let release = format!("releases/{name}-{round}");
                write_twin(&server.folder, &release, name, round);
                server
                    .folder
                    .link(&format!("../{release}"), &format!("next-{name}"));
                server
                    .folder
                    .rename(&format!("next-{name}"), &format!("lua-plugins/{name}"));
            }
            let version = format!("1.{round}.0");
            // In place, so that a reader may find it empty or cut off.
            server
                .folder
                .write(FILE, bigquery(&version, &"x".repeat(round)));
            until_all(&server, &version).await;
            load.goes_on(&server).await;
        }
        load.was_well().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_gone_for_a_moment_only_is_not_missed() {
    for_each_database(async |database| {
        let server = start(database);
        let load = Load::on(&server).await;
        for round in 1..=15 {
            let version = format!("1.{round}.0");
            for name in ["TwinA", "TwinB"] {
                write_twin(&server.folder, &format!("next/{name}"), name, round);
                let place = format!("lua-plugins/{name}");
                server.folder.rename(&place, &format!("old-{name}-{round}"));
                server.folder.rename(&format!("next/{name}"), &place);
            }
            // As a checkout of another branch does it.
            server.folder.remove(FILE);
            server.folder.write(FILE, bigquery(&version, "Dataset"));
            until_all(&server, &version).await;
            load.goes_on(&server).await;
        }
        load.was_well().await;
    })
    .await;
}

//! Reloads under load: no request fails, and none sees half a set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::harness::{Folder, Server, eventually, for_each_database};
use crate::world::{FILE, bigquery, entry, names, until_version};

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

/// What is wrong with an answer to `GET /plugins` during reloads, if anything.
fn torn(list: &Value, expected: &[&str]) -> Option<String> {
    let plugins = list["plugins"].as_array()?;
    if names(list) != expected {
        return Some(format!("{:?}", names(list)));
    }
    let generation = &plugins[0]["generation"];
    plugins.iter().find_map(|plugin| {
        let label = plugin["ui_metadata"][0]["label"]
            .as_str()
            .unwrap_or_default();
        let version = plugin["version"].as_str().unwrap_or_default();
        let is_twin = plugin["plugin"]
            .as_str()
            .is_some_and(|name| name.starts_with("Twin"));
        let differs = is_twin && label != format!("{version}/{version}");
        (differs || plugin["generation"] != *generation || plugin["not_configured"] == true).then(
            || {
                format!(
                    "{} {version} {label:?} {}",
                    plugin["plugin"], plugin["generation"]
                )
            },
        )
    })
}

#[tokio::test]
async fn under_load_no_request_fails_and_none_sees_half_a_set() {
    for_each_database(async |database| {
        let write = |folder: &Folder, name: &str, version: usize| {
            let (source, part) = twin(name, version);
            folder.write(&format!("next/{name}/plugin.lua"), source);
            folder.write(&format!("next/{name}/part.lua"), part);
        };
        let server = Server::start(|options| {
            options
                .database(database)
                .env("ENABLED_PLUGINS", "SnowflakeDataOutput");
            for name in ["TwinA", "TwinB"] {
                let (source, part) = twin(name, 0);
                options.file(&format!("lua-plugins/{name}/plugin.lua"), source);
                options.file(&format!("lua-plugins/{name}/part.lua"), part);
            }
            options.file(FILE, bigquery("1.0.0", "0"));
        });
        let product = server.data_product("sales", "sales").await;
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for worker in 0..6 {
            let (server, stop, answers, product) = (
                server.http(),
                stop.clone(),
                answers.clone(),
                product.clone(),
            );
            tasks.push(tokio::spawn(async move {
                let expected = [
                    "BigQueryDataOutput",
                    "SnowflakeDataOutput",
                    "TwinA",
                    "TwinB",
                ];
                let mut last = 0;
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    count += 1;
                    let problem = match worker % 3 {
                        0 => {
                            let list = server.get("plugins").await.is(200).json();
                            let generation = list["plugins"][0]["generation"]
                                .as_u64()
                                .unwrap_or_default();
                            let back =
                                (generation < last).then(|| format!("{generation} after {last}"));
                            last = generation;
                            back.or_else(|| torn(&list, &expected))
                        }
                        1 => {
                            let form = server.get("plugins/TwinA/form").await.is(200).json();
                            torn(&json!({ "plugins": [form] }), &["TwinA"])
                        }
                        _ => {
                            let name = format!("{worker}-{count}");
                            let body = json!({ "dataset": "d" });
                            server
                                .configured("BigQueryDataOutput", &product, &name, body)
                                .await;
                            None
                        }
                    };
                    if let Some(problem) = problem {
                        return Err(problem);
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
        for round in 1..=15 {
            let before = answers.load(Ordering::Relaxed);
            for name in ["TwinA", "TwinB"] {
                write(&server.folder, name, round);
                server
                    .folder
                    .rename(&format!("lua-plugins/{name}"), &format!("old{name}{round}"));
                // The plugin is really gone for a moment, which must not be shown; the burst is one change.
                server
                    .folder
                    .rename(&format!("next/{name}"), &format!("lua-plugins/{name}"));
            }
            // In place, so that a reader may find it empty or cut off.
            server
                .folder
                .write(FILE, bigquery(&format!("1.{round}.0"), &"x".repeat(round)));
            let version = format!("1.{round}.0");
            until_version(&server, &version).await;
            server
                .until("plugins", 200, |list| {
                    ["TwinA", "TwinB"]
                        .iter()
                        .all(|name| entry(list, name)["version"] == version)
                })
                .await;
            eventually("load", async || {
                let now = answers.load(Ordering::Relaxed);
                // A request of this task's own lets the others run.
                server.get("/healthz").await.is(200);
                (now > before + 20)
                    .then_some(())
                    .ok_or_else(|| format!("{now} answers"))
            })
            .await;
        }
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            let result = task.await.expect("no request fails");
            assert_eq!(result, Ok(()), "half a set");
        }
    })
    .await;
}

//! Several servers on one Postgres: they see each other's writes, start and migrate at once, and are restarted one after
//! the other without anybody noticing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Database, Folder, Http, Server, eventually, on_postgres, run_with};
use crate::world::{FILE, FORM, bigquery, entry, plugin, snowflake, unavailable, until_version};
use crate::writers::{Subject, nothing_is_lost};

const CREATE: &str = "plugins/SnowflakeDataOutput/configurations";

/// Two servers on the same plugins.
fn pair(database: Database, folder: &Folder) -> (Server, Server) {
    let start = || {
        Server::start_in(folder.clone(), |options| {
            options.database(database);
        })
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(start);
        (start(), other.join().expect("a server"))
    })
}

#[tokio::test]
async fn what_one_server_writes_the_other_shows() {
    on_postgres(async |database| {
        let folder = Folder::new();
        // Forms that show the catalogue, and the plugin's own rows.
        let lines = r#"
            ui_metadata = function(db)
                local names = {}
                for place, row in db:configurations {} do names[place] = row.path end
                return { ui.select "path" { label = "Path", options = names } }
            end,"#;
        folder.write("lua-plugins/rows.lua", plugin("RowsDataOutput", lines));
        let (one, two) = pair(database, &folder);
        let product = one.data_product("sales", "sales").await;
        two.get(&format!("data_products/{product}")).await.is(200);

        // A configuration.
        let options = |form: &Value| form["ui_metadata"][0]["select"]["options"].clone();
        assert_eq!(
            options(&two.get("plugins/RowsDataOutput/form").await.is(200).json()),
            json!([])
        );
        let id = one
            .configured("RowsDataOutput", &product, "n", json!({ "path": "a" }))
            .await;
        let path = format!("configurations/{id}");
        assert_eq!(two.get(&path).await.is(200).json()["revision"], 1);
        for (path, of) in [("plugins/RowsDataOutput/form", false), ("plugins", true)] {
            two.until(path, 200, |body| {
                let form = if of {
                    entry(body, "RowsDataOutput")
                } else {
                    body
                };
                options(form).to_string().contains("\"a\"")
            })
            .await;
        }
        two.patch(&path, &json!({ "description": "d" }))
            .await
            .is(200);
        let history = one.get(&format!("{path}/history")).await.is(200).json();
        assert_eq!(
            history["history"].as_array().map(Vec::len),
            Some(2),
            "{history}"
        );
        let stale = one
            .send(Method::PATCH, &path, |request| {
                request
                    .header("if-match", "\"1\"")
                    .json(&json!({ "description": "e" }))
            })
            .await;
        stale.error(412);

        // The catalogue.
        let form = "plugins/SnowflakeDataOutput/form";
        let etag = two.get(form).await.is(200).header("etag").to_owned();
        let (platform, service) = one.service("Snowflake", "Snowflake").await;
        let options_of = format!("configuration/platforms/{platform}/services/{service}");
        let config = one.get(&options_of).await.is(200).json();
        let config = format!(
            "configuration/platforms/configs/{}",
            config["id"].as_str().expect("an id")
        );
        one.put(&config, &json!({ "config": ["one", "two", "three"] }))
            .await
            .is(200);
        two.until(form, 200, |form| {
            options(form).as_array().map(Vec::len) == Some(3)
        })
        .await;
        assert_ne!(two.get(form).await.is(200).header("etag"), etag);
        two.until(&config, 200, |body| body.to_string().contains("three"))
            .await;

        // A data product, which both keep.
        let owner = format!("data_products/{product}");
        one.get(&owner).await.is(200);
        let renamed = json!({ "name": "Renamed", "namespace": "sales", "domain": "sales" });
        two.put(&owner, &renamed).await.is(200);
        one.until(&owner, 200, |owner| owner["name"] == "Renamed")
            .await;
        one.delete(&path).await.is(204);
        two.get(&path).await.error(404);
        two.until("plugins/RowsDataOutput/form", 200, |form| {
            options(form) == json!([])
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_lacks_a_plugin_reads_its_rows_all_the_same() {
    on_postgres(async |database| {
        let with = Server::start(|options| {
            options
                .database(database)
                .file(FILE, bigquery("1.0.0", "Dataset"));
        });
        let without = Server::on(database);
        let product = with.data_product("sales", "sales").await;
        let id = with
            .configured(
                "BigQueryDataOutput",
                &product,
                "n",
                json!({ "dataset": "d" }),
            )
            .await;
        let read = without
            .get(&format!("configurations/{id}"))
            .await
            .is(200)
            .json();
        assert_eq!(read["configuration"]["dataset"], "d");
        without
            .configure(
                "BigQueryDataOutput",
                &product,
                "m",
                json!({ "dataset": "d" }),
            )
            .await
            .error(404);
        // Once it has the file, it has the table too.
        without.folder.write(FILE, bigquery("1.0.0", "Dataset"));
        until_version(&without, "1.0.0").await;
        without
            .configured(
                "BigQueryDataOutput",
                &product,
                "m",
                json!({ "dataset": "d" }),
            )
            .await;
        // A newer version that one of them has first leaves the other reading, and writing as soon as it has it too.
        let newer = bigquery("1.1.0", "Dataset").replace(
            "field.string \"table\"",
            "field.integer \"days\", field.string \"table\"",
        );
        with.folder.write(FILE, &newer);
        until_version(&with, "1.1.0").await;
        without.get(&format!("configurations/{id}")).await.is(200);
        unavailable(
            without
                .configure(
                    "BigQueryDataOutput",
                    &product,
                    "o",
                    json!({ "dataset": "d" }),
                )
                .await,
        );
        without.folder.write(FILE, &newer);
        until_version(&without, "1.1.0").await;
        without
            .configured(
                "BigQueryDataOutput",
                &product,
                "o",
                json!({ "dataset": "d" }),
            )
            .await;
    })
    .await;
}

#[tokio::test]
async fn servers_that_start_at_once_migrate_once() {
    for _ in 0..3 {
        on_postgres(async |database| {
            let folder = Folder::new();
            let written = |number: usize, up: &str| {
                let path = format!("lua-plugins/bigquery/migrations/{number:04}_step.lua");
                let source = format!(
                    "local column = patchbay.column\nreturn {{ up = function(m)\n{up}\nend }}"
                );
                folder.write(&path, source);
            };
            let table = "bigquery_data_output_configurations";
            written(
                1,
                &format!(
                    "m:create_table(\"{table}\", {{ column.id(), column.text \"dataset\" {{ nullable = false }} }})"
                ),
            );
            written(
                2,
                &format!("m:add_column(\"{table}\", column.text \"table\" {{ default = \"*\" }})"),
            );
            folder.write("lua-plugins/bigquery/plugin.lua", bigquery("1.0.0", "Dataset"));
            let (one, two) = pair(database, &folder);
            for server in [&one, &two] {
                until_version(server, "1.0.0").await;
                let status = server.get("plugins/status").await.is(200).json();
                for entry in status["plugins"].as_array().expect("plugins") {
                    assert!(["active", "disabled"].contains(&entry["state"].as_str().expect("a state")), "{entry}");
                }
            }
            let count = |sql: &'static str| database.number(&folder, sql);
            let steps = "SELECT count(*) FROM plugin_migrations WHERE plugin = 'BigQueryDataOutput'";
            assert_eq!(count(steps).await, 2);
            let alone = Server::start(|_| {});
            let platforms = alone.get("configuration/platforms").await.is(200).json();
            let platforms = platforms["platforms"].as_array().map(Vec::len);
            let found = count("SELECT count(*) FROM platforms").await;
            assert_eq!(Some(found as usize), platforms, "the catalogue is filled once");

            // Both see the next step at once.
            written(3, &format!("m:add_column(\"{table}\", column.integer \"days\" {{}})"));
            let source = bigquery("1.1.0", "Dataset")
                .replace("field.string \"table\"", "field.integer \"days\",\n field.string \"table\"");
            folder.write("lua-plugins/bigquery/plugin.lua", source);
            for server in [&one, &two] {
                until_version(server, "1.1.0").await;
            }
            assert_eq!(count(steps).await, 3);
            let columns = database.columns(&folder, table).await;
            assert_eq!(columns, ["id", "dataset", "table", "days"]);
        })
        .await;
    }
}

/// A load balancer in a few lines: each request goes to the next server, and to the one after when that refuses the
/// connection. Whatever else goes wrong is a failed request.
#[derive(Clone)]
struct Balancer {
    servers: Arc<RwLock<Vec<Http>>>,
    next: Arc<AtomicUsize>,
}

impl Balancer {
    fn set(&self, place: usize, server: Http) {
        self.servers.write().unwrap_or_else(PoisonError::into_inner)[place] = server;
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for next in first..first + 3 {
            let server = {
                let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
                servers[next % servers.len()].clone()
            };
            // Each on a connection of its own, so that none is sent on one that is just being closed.
            let sent = server.try_send(Method::POST, path, |request| {
                request.header("connection", "close").json(body)
            });
            match sent.await {
                Ok(answer) => return answer.is(201).json(),
                Err(error) if error.is_connect() => {}
                Err(error) => panic!("a request failed: {error:?}"),
            }
        }
        panic!("no server takes a connection")
    }
}

#[tokio::test]
async fn servers_are_restarted_one_after_the_other_and_no_request_fails() {
    on_postgres(async |database| {
        let folder = Folder::new();
        let (one, two) = pair(database, &folder);
        let subject = Subject {
            plugin: "SnowflakeDataOutput",
            product: one.data_product("sales", "sales").await,
            values: snowflake("sales"),
        };
        let balancer = Balancer {
            servers: Arc::new(RwLock::new(vec![one.http(), two.http()])),
            next: Arc::default(),
        };
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let callers: Vec<_> = (0..6)
            .map(|caller| {
                let (balancer, subject) = (balancer.clone(), subject.clone());
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                tokio::spawn(async move {
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        number += 1;
                        let body = json!({
                            "data_product_id": subject.product, "name": format!("{caller} {number}"),
                            "configuration": subject.values,
                        });
                        balancer.post(CREATE, &body).await;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    number
                })
            })
            .collect();
        let goes_on = async || {
            let until = done.load(Ordering::Relaxed) + 30;
            eventually("requests are answered", async || match done.load(Ordering::Relaxed) {
                now if now >= until => Ok(()),
                now => Err(format!("{now}")),
            })
            .await;
        };
        let mut servers = vec![one, two];
        for round in 0..6 {
            goes_on().await;
            let place = round % 2;
            let server = servers.remove(place);
            // What blocks while it waits for the process must not hold the callers up.
            let restarted = tokio::task::spawn_blocking(move || server.restart(|_| {})).await;
            let server = restarted.expect("a server");
            balancer.set(place, server.http());
            servers.insert(place, server);
        }
        goes_on().await;
        stop.store(true, Ordering::Relaxed);
        let mut sent = 0;
        for caller in callers {
            sent += caller.await.expect("no request failed");
        }
        let rows = "SELECT count(*) FROM data_output_configurations";
        assert_eq!(database.number(&folder, rows).await, sent);
        nothing_is_lost(database, &folder, "snowflake_data_output_configurations", &[]).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_older_than_the_core_schema_refuses_writes() {
    on_postgres(async |database| {
        let server = Server::on(database);
        let product = server.data_product("sales", "sales").await;
        let id = server
            .configured("SnowflakeDataOutput", &product, "n", snowflake("sales"))
            .await;
        // What a newer server does when it is started.
        let newer = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) \
             VALUES (999, 'later', '', '1'); SELECT pg_notify('patchbay', 'schema')";
        database.execute(&server.folder, newer).await;
        server
            .until("/readyz", 503, |body| {
                body["detail"] == "database newer than this server"
            })
            .await;
        let path = format!("configurations/{id}");
        unavailable(
            server
                .configure("SnowflakeDataOutput", &product, "m", snowflake("sales"))
                .await,
        );
        unavailable(server.patch(&path, &json!({ "name": "x" })).await);
        unavailable(server.delete(&path).await);
        unavailable(
            server
                .post("configuration/platforms", &json!({ "name": "x" }))
                .await,
        );
        // Reading goes on, so that a rolling upgrade shows what there is.
        assert_eq!(server.get(&path).await.is(200).json()["revision"], 1);
        server.get("configurations").await.is(200);
        server.get("plugins").await.is(200);
        server
            .get(FORM.replace("BigQuery", "Snowflake").as_str())
            .await
            .is(200);
        let complaint = run_with(&Folder::new(), |options| {
            options
                .env("PATCHBAY_LISTEN", "127.0.0.1:0")
                .database(database);
        })
        .badly();
        assert!(
            complaint.contains("999") && complaint.contains("use a newer one"),
            "{complaint}"
        );
        let log = server.logged();
        assert!(log.contains("this server writes no more"), "{log}");
    })
    .await;
}

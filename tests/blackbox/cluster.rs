//! Several servers on one Postgres: how they stand, and that each sees what another has written.

use std::ops::Deref;

use patchbay_test_cluster::{Cluster, connect};
use serde_json::{Value, json};

use crate::harness::{Folder, Server, eventually};
use crate::world::{FILE, FORM, bigquery, until_version};

/// A server with a folder of its own, on a database that others may share.
struct Member {
    server: Server,
    name: &'static str,
}

impl Deref for Member {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Member {
    fn start(url: &str, name: &'static str) -> Member {
        Member::start_in(Folder::new(), url, name)
    }

    fn start_in(folder: Folder, url: &str, name: &'static str) -> Member {
        // The connections of a server have its name, so that they can be told from another's.
        let url = format!("{url}?application_name={name}");
        let server = Server::start_in(folder, |options| {
            options.env("PATCHBAY_DATABASE_URL", &url);
        });
        Member { server, name }
    }

    /// What the cluster looks like from here, once this holds.
    async fn sees(&self, holds: impl Fn(&Value) -> bool) -> Value {
        self.until("cluster", 200, holds).await
    }

    /// How the server at an address stands.
    fn found<'a>(&self, cluster: &'a Value) -> &'a Value {
        server_at(cluster, &self.address)
    }
}

fn server_at<'a>(cluster: &'a Value, address: &str) -> &'a Value {
    cluster["servers"]
        .as_array()
        .and_then(|servers| servers.iter().find(|server| server["address"] == address))
        .unwrap_or(&Value::Null)
}

fn count(cluster: &Value) -> usize {
    cluster["servers"].as_array().map_or(0, Vec::len)
}

fn all_current(cluster: &Value) -> bool {
    cluster["servers"]
        .as_array()
        .is_some_and(|servers| servers.iter().all(|server| server["state"] == "current"))
}

/// A plugin whose form shows how many rows it has.
fn counting() -> &'static str {
    r#"
local field, ui = patchbay.field, patchbay.ui

return patchbay.plugin {
    name = "CountingDataOutput",
    version = "1.0.0",
    fields = { field.string "path" { required = true } },
    ui_metadata = function(db)
        return { ui.string "path" { label = "Path " .. #db:configurations { limit = 500 }, required = true } }
    end,
}
"#
}

#[tokio::test]
async fn a_server_alone_on_sqlite_is_a_cluster_of_one() {
    let server = Server::start(|_| {});
    let cluster = server.get("cluster").await.is(200).json();
    let keys: Vec<&String> = cluster.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["generation", "shared", "servers", "generations"]);
    let one = server_at(&cluster, &server.address);
    let keys: Vec<&String> = one.as_object().expect("an object").keys().collect();
    assert_eq!(
        keys,
        [
            "id",
            "name",
            "address",
            "version",
            "state",
            "answering",
            "started_at",
            "heartbeat_at",
            "generation",
            "cluster_generation",
            "lag",
            "plugin_set",
            "differences",
            "failures",
            "last_error"
        ]
    );
    assert_eq!(cluster["shared"], false);
    assert_eq!(one["state"], "current");
    assert_eq!(one["lag"], json!({ "generations": 0, "seconds": 0.0 }));
    assert_eq!(one["differences"], json!([]));
    let before = &cluster["generation"];
    server.folder.write(FILE, bigquery("1.0.0", "Dataset"));
    until_version(&server, "1.0.0").await;
    let now = server.get("cluster").await.is(200).json();
    assert!(now["generation"].as_u64() > before.as_u64(), "{now}");
    assert_ne!(
        server_at(&now, &server.address)["plugin_set"],
        one["plugin_set"]
    );
    // It has nobody to tell, so it writes nothing.
    let database = crate::harness::open_database(&server.folder);
    let rows: i64 = database
        .query_row("SELECT count(*) FROM servers", [], |row| row.get(0))
        .expect("a count");
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn what_each_server_serves_and_how_far_it_is_behind_shows_on_all() {
    let url = Cluster::shared().database().await;
    let (first, second) = (Member::start(&url, "first"), Member::start(&url, "second"));
    let start = second.sees(|it| count(it) == 2 && all_current(it)).await;
    let number = start["generation"].as_u64().expect("a number");
    assert_eq!(second.found(&start)["answering"], true);
    assert_eq!(first.found(&start)["answering"], false);
    let set = |cluster: &Value, member: &Member| member.found(cluster)["plugin_set"].clone();
    assert_eq!(
        set(&start, &first),
        set(&start, &second),
        "the same plugins"
    );

    // One comes to a new set; the other is behind, and why is told by both.
    first
        .server
        .folder
        .write(FILE, bigquery("1.0.0", "Dataset"));
    for member in [&first, &second] {
        let cluster = member
            .sees(|it| it["generation"] == number + 1 && second.found(it)["state"] == "behind")
            .await;
        let behind = second.found(&cluster);
        assert_eq!(behind["lag"]["generations"], 1, "{cluster}");
        assert!(
            behind["lag"]["seconds"]
                .as_f64()
                .is_some_and(|seconds| seconds < 10.0)
        );
        let difference = &behind["differences"][0];
        assert_eq!(difference["plugin"], "BigQueryDataOutput");
        assert_eq!(difference["reason"], "missing");
        assert_eq!(difference["newest"]["version"], "1.0.0");
        assert_eq!(first.found(&cluster)["state"], "current");
    }
    // The other comes to the same set, which is the same generation.
    second
        .server
        .folder
        .write(FILE, bigquery("1.0.0", "Dataset"));
    let cluster = second.sees(all_current).await;
    assert_eq!(cluster["generation"], number + 1);
    let generations = cluster["generations"].as_array().expect("generations");
    assert_eq!(
        generations[0]["servers"].as_array().map(Vec::len),
        Some(2),
        "{cluster}"
    );

    // A version that fails on one of them.
    let broken = bigquery("2.0.0", "Dataset").replace("ui_metadata", "ui_metadat");
    second.server.folder.write(FILE, broken);
    first
        .server
        .folder
        .write(FILE, bigquery("2.0.0", "Dataset"));
    let cluster = first
        .sees(|it| {
            let behind = second.found(it);
            behind["differences"][0]["reason"] == "failed" && it["generation"] == number + 2
        })
        .await;
    let difference = &second.found(&cluster)["differences"][0];
    assert_eq!(
        difference["here"]["version"], "1.0.0",
        "the last good one serves: {difference}"
    );
    assert!(
        difference["message"]
            .as_str()
            .is_some_and(|text| text.contains("ui_metadat")),
        "{difference}"
    );

    // Going back is a new generation, whose set was served before.
    first
        .server
        .folder
        .write(FILE, bigquery("1.0.0", "Dataset"));
    second
        .server
        .folder
        .write(FILE, bigquery("1.0.0", "Dataset"));
    let cluster = first
        .sees(|it| it["generation"] == number + 3 && all_current(it))
        .await;
    let sets = cluster["generations"].as_array().expect("generations");
    assert_eq!(sets[0]["plugin_set"], sets[2]["plugin_set"]);
    assert_eq!(sets[2]["servers"], json!([]), "{cluster}");
}

#[tokio::test]
async fn a_server_that_stops_leaves_and_one_that_died_is_forgotten() {
    let url = Cluster::shared().database().await;
    let staying = Member::start(&url, "staying");
    let stopped = Member::start(&url, "stopped");
    let dying = Member::start(&url, "dying");
    staying.sees(|it| count(it) == 3 && all_current(it)).await;
    let database = connect(&url).await;
    let sets = "SELECT count(*) FROM plugin_sets";
    let before: i64 = database.query_one(sets, &[]).await.expect("a count").get(0);
    stopped.server.stop().well();
    staying.sees(|it| count(it) == 2).await;
    let died = dying.found(&staying.get("cluster").await.json())["id"].clone();
    let died = died.as_str().expect("an id").to_owned();
    drop(dying);
    // Time passes by being moved.
    let silent_for = async |seconds: u32| {
        let sql = format!(
            "UPDATE servers SET heartbeat_at = now() - interval '{seconds} seconds' WHERE id = '{died}'"
        );
        database.batch_execute(&sql).await.expect("an update");
    };
    silent_for(11).await;
    staying
        .sees(|it| {
            let servers = it["servers"].as_array().expect("servers");
            servers
                .iter()
                .any(|server| server["state"] == "stale" && server["id"] == *died)
        })
        .await;
    silent_for(61).await;
    let left = staying.sees(|it| count(it) == 1).await;
    assert_eq!(staying.found(&left)["state"], "current", "{left}");
    let after: i64 = database.query_one(sets, &[]).await.expect("a count").get(0);
    assert_eq!(before, after, "no set came");
}

#[tokio::test]
async fn a_set_that_nobody_serves_any_more_gives_way_to_what_is_served() {
    let url = Cluster::shared().database().await;
    let old = Member::start(&url, "old");
    let folder = Folder::new();
    folder.write(FILE, bigquery("1.0.0", "Dataset"));
    let new = Member::start_in(folder, &url, "new");
    let cluster = old.sees(|it| old.found(it)["state"] == "behind").await;
    let number = cluster["generation"].as_u64().expect("a number");
    new.server.stop().well();
    let cluster = old.sees(|it| count(it) == 1).await;
    // It may come back: a restart is no way back for the others.
    assert_eq!(old.found(&cluster)["state"], "behind", "{cluster}");
    let long_ago = "UPDATE plugin_sets SET left_at = now() - interval '61 seconds'";
    connect(&url)
        .await
        .batch_execute(long_ago)
        .await
        .expect("an update");
    let cluster = old.sees(all_current).await;
    assert_eq!(cluster["generation"], number + 1, "{cluster}");
}

#[tokio::test]
async fn a_write_on_one_server_is_seen_on_the_others() {
    let url = Cluster::shared().database().await;
    let folders = [Folder::new(), Folder::new()];
    for folder in &folders {
        folder.write("lua-plugins/counting.lua", counting());
    }
    let [first, second] = folders;
    let (first, second) = (
        Member::start_in(first, &url, "first"),
        Member::start_in(second, &url, "second"),
    );
    let form = "plugins/CountingDataOutput/form";
    let product = first.data_product("sales", "commerce").await;
    let label =
        |rows: usize| move |it: &Value| it["ui_metadata"][0]["label"] == format!("Path {rows}");
    second.until(form, 200, label(0)).await;
    for round in 0..3 {
        // Whoever listens is cut off at times; what was missed meanwhile is made up for.
        if round > 0 {
            cut_off(&url, &second).await;
        }
        let name = format!("n{round}");
        first
            .configured(
                "CountingDataOutput",
                &product,
                &name,
                json!({ "path": "p" }),
            )
            .await;
        first.until(form, 200, label(round + 1)).await;
        second.until(form, 200, label(round + 1)).await;
        second
            .until("plugins", 200, |list| {
                list.to_string().contains(&format!("Path {}", round + 1))
            })
            .await;

        let body = json!({ "name": format!("Platform {round}") });
        let made = first
            .post("configuration/platforms", &body)
            .await
            .is(201)
            .json();
        second
            .until("configuration/platforms", 200, |list| {
                list["platforms"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|it| it["id"] == made["id"]))
            })
            .await;
    }
    let form = "plugins/SnowflakeDataOutput/form";
    let (platform, service) = first.service("Snowflake", "Snowflake").await;
    let services = first
        .get("configuration/platforms/configs")
        .await
        .is(200)
        .json();
    let config = services["platform_service_configurations"]
        .as_array()
        .and_then(|all| all.iter().find(|it| it["service"]["id"] == service))
        .expect("options")
        .clone();
    let (id, body) = (
        config["id"].as_str().expect("an id"),
        json!({ "platform_id": platform, "service_id": service, "config": ["only_this"] }),
    );
    first
        .put(&format!("configuration/platforms/configs/{id}"), &body)
        .await
        .is(200);
    second
        .until(form, 200, |it| it.to_string().contains("only_this"))
        .await;
}

/// Ends the connections of a server, the listening one among them, and waits until it has noticed.
async fn cut_off(url: &str, member: &Member) {
    let database = connect(url).await;
    let of = "SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1";
    let before: Vec<i32> = database
        .query_one(of, &[&member.name])
        .await
        .expect("backends")
        .get(0);
    assert!(!before.is_empty());
    let end = "SELECT count(pg_terminate_backend(pid)) FROM unnest($1::integer[]) AS pid";
    database.query_one(end, &[&before]).await.expect("an end");
    eventually("the backends are gone", async || {
        let now: Vec<i32> = database
            .query_one(of, &[&member.name])
            .await
            .expect("backends")
            .get(0);
        match now.iter().any(|pid| before.contains(pid)) {
            true => Err(format!("{now:?}")),
            false => Ok(()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_migration_that_one_process_runs_sets_the_others_free() {
    const FIELD: &str = r#"field.string "dataset" { required = true }"#;
    let source = |version: &str, more: &str| {
        format!(
            r#"
local field = patchbay.field

return patchbay.plugin {{
    name = "BigQueryDataOutput",
    version = "{version}",
    fields = {{ {FIELD}{more} }},
}}
"#
        )
    };
    let url = Cluster::shared().database().await;
    let folders = [Folder::new(), Folder::new()];
    for folder in &folders {
        folder.write(FILE, source("1.0.0", ""));
    }
    let more = r#", field.string "table" { default = "*" }"#;
    let [first, second] = folders.map(|folder| {
        let server = Server::start_in(folder, |options| {
            options
                .env("PATCHBAY_DATABASE_URL", &url)
                .env("PATCHBAY_AUTO_MIGRATE", "false");
        });
        server
            .run(&["plugin", "migrate", "BigQueryDataOutput"])
            .well();
        server
    });
    let pending = |it: &Value| it["state"] == "pending_migration";
    for server in [&first, &second] {
        until_version(server, "1.0.0").await;
        server.folder.write(FILE, source("2.0.0", more));
        server
            .until("plugins/BigQueryDataOutput", 200, pending)
            .await;
    }
    first
        .run(&["plugin", "migrate", "BigQueryDataOutput"])
        .well();
    for server in [&first, &second] {
        until_version(server, "2.0.0").await;
        server.get(FORM).await.is(200);
    }
}

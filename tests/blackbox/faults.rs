//! Files that are locked, replaced or no database, and servers that are stopped.

use serde_json::{Value, json};

use crate::harness::{
    Folder, Http, Options, Server, eventually, for_each_database, open_database, run, run_with,
};
use crate::world::{entry, snowflake, unavailable};

const CREATE: &str = "plugins/SnowflakeDataOutput/configurations";

fn start_and_fail(folder: &Folder, configure: impl FnOnce(&mut Options)) -> String {
    run_with(folder, |options| {
        options.env("PATCHBAY_LISTEN", "127.0.0.1:0");
        configure(options);
    })
    .badly()
}

#[tokio::test]
async fn a_second_server_on_the_same_file_is_refused() {
    let server = Server::start(|_| {});
    let complaint = start_and_fail(&server.folder, |_| {});
    assert!(
        complaint.contains("served by another process"),
        "{complaint}"
    );
    assert!(complaint.contains("data/patchbay.db"), "{complaint}");
    server.get("plugins").await.is(200);
    // The lock goes with its process, however that ends.
    let server = server.kill_and_restart();
    server.get("plugins").await.is(200);
}

#[tokio::test]
async fn an_address_that_is_taken_is_said() {
    let server = Server::start(|_| {});
    let address = server.address.clone();
    let complaint = run_with(&Folder::new(), |options| {
        options.env("PATCHBAY_LISTEN", &address);
    })
    .badly();
    assert!(complaint.contains(&address), "{complaint}");
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_said_at_the_start() {
    let folder = Folder::new();
    folder.write("a-folder/file", "");
    folder.write("garbage.db", "this is no database ".repeat(1000));
    folder.write("truncated.db", "SQLite format 3\0 and then it ends");
    for (url, says) in [
        ("sqlite://a-folder", "a-folder"),
        ("sqlite://garbage.db/x.db", "garbage.db"),
        ("sqlite://garbage.db", "garbage.db"),
        ("sqlite://truncated.db", "truncated.db"),
        ("sqlite:///proc/nowhere/x.db", "/proc/nowhere"),
        ("mysql://x", "mysql"),
        ("patchbay.db", "sqlite://"),
    ] {
        let complaint = start_and_fail(&folder, |options| {
            options.env("PATCHBAY_DATABASE_URL", url);
        });
        assert!(complaint.contains(says), "{url}: {complaint}");
    }
    assert!(
        folder.read("garbage.db").starts_with("this is no database"),
        "it was left as it was"
    );
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_left_alone() {
    let server = Server::start(|_| {});
    let folder = server.folder.clone();
    server.stop().well();
    open_database(&folder)
        .execute(
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES (999, 'later', '', '1')",
            [],
        )
        .expect("a later version");
    let complaint = start_and_fail(&folder, |_| {});
    assert!(
        complaint.contains("999") || complaint.to_lowercase().contains("newer"),
        "{complaint}"
    );
}

#[tokio::test]
async fn a_locked_database_is_a_503_and_forms_answer_still() {
    let server = Server::start(|options| {
        options.env("PATCHBAY_BUSY_TIMEOUT_MS", "100");
    });
    let product = server.data_product("sales", "sales").await;
    let id = server
        .configured("SnowflakeDataOutput", &product, "n", snowflake("sales"))
        .await;
    let other = open_database(&server.folder);
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let body =
        json!({ "data_product_id": product, "name": "m", "configuration": snowflake("sales") });
    unavailable(server.post(CREATE, &body).await);
    unavailable(
        server
            .patch(&format!("configurations/{id}"), &json!({ "name": "x" }))
            .await,
    );
    unavailable(server.delete(&format!("configurations/{id}")).await);
    unavailable(
        server
            .post("configuration/platforms", &json!({ "name": "x" }))
            .await,
    );
    let list = server.get("plugins").await.is(200).json();
    assert_eq!(entry(&list, "SnowflakeDataOutput")["state"], "active");
    server.get("plugins/GlueDataOutput/form").await.is(200);
    server.get(&format!("configurations/{id}")).await.is(200);
    server.get("/healthz").await.is(200);
    // A plugin that comes in meanwhile waits, and gets in when the lock is gone.
    server.folder.write(
        "lua-plugins/bigquery.lua",
        crate::world::bigquery("1.0.0", "Dataset"),
    );
    server
        .until("plugins/status", 200, |status| {
            entry(status, "BigQueryDataOutput")["state"] == "failed"
        })
        .await;
    other.execute_batch("ROLLBACK").expect("no lock");
    server.post(CREATE, &body).await.is(201);
    let read = server
        .get(&format!("configurations/{id}"))
        .await
        .is(200)
        .json();
    assert_eq!(read["revision"], 1);
    server.post("plugins/reload", &json!({})).await.is(200);
    server.get("plugins/BigQueryDataOutput/form").await.is(200);
}

#[tokio::test]
async fn a_database_that_vanishes_is_noticed() {
    for how in ["removed", "replaced", "moved"] {
        let server = Server::start(|_| {});
        let product = server.data_product("sales", "sales").await;
        server.get("/readyz").await.is(200);
        match how {
            "removed" => {
                for file in ["patchbay.db", "patchbay.db-wal", "patchbay.db-shm"] {
                    server.folder.remove(&format!("data/{file}"));
                }
            }
            "replaced" => server.folder.write_by_rename("data/patchbay.db", ""),
            _ => server.folder.rename("data", "elsewhere"),
        }
        let body =
            json!({ "data_product_id": product, "name": "m", "configuration": snowflake("sales") });
        // A write that were acknowledged now would be lost with the file that nobody sees any more.
        unavailable(server.post(CREATE, &body).await);
        let ready = server.get("/readyz").await;
        assert_eq!(ready.status, 503, "{how}: {}", ready.summary());
        server.get("/healthz").await.is(200);
        server.get("plugins").await.is(200);
        server.get("plugins/GlueDataOutput/form").await.is(200);
    }
}

#[tokio::test]
async fn a_catalogue_that_is_written_by_the_command_line_is_noticed() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.file(
                "more.toml",
                "[[platform]]\nname = \"Snowflake\"\n[[platform.service]]\nname = \"Snowflake\"\n\
                 result_string_template = \"{database}!\"\noptions = [\"one\", \"two\", \"three\"]\n",
            );
        });
        let form = "plugins/SnowflakeDataOutput/form";
        let options = |form: &Value| form["ui_metadata"][0]["select"]["options"].as_array().map(Vec::len);
        assert_eq!(options(&server.get(form).await.is(200).json()), Some(2));
        server.run(&["catalogue", "apply", "more.toml", "--yes"]).well();
        server.until(form, 200, |form| options(form) == Some(3)).await;
        let list = server.get("plugins").await.is(200).json();
        assert_eq!(options(entry(&list, "SnowflakeDataOutput")), Some(3));
        let configuration = json!({
            "configuration_type": "SnowflakeDataOutput", "database": "d", "access_granularity": "schema",
        });
        let rendered = server.render("Snowflake", "Snowflake", configuration).await.is(200).json();
        assert_eq!(rendered["technical_asset_access_path"], "d!");
    })
    .await;
}

/// How many requests are being answered, as `/metrics` says, that one included or not.
async fn in_flight(server: &Http) -> u64 {
    let text = server.get("/metrics").await.is(200).text();
    text.lines()
        .find_map(|line| line.strip_prefix("patchbay_http_requests_in_flight "))
        .unwrap_or_else(|| panic!("{text}"))
        .trim()
        .parse()
        .expect("a number")
}

#[tokio::test]
async fn a_stop_lets_what_is_under_way_end() {
    let server = Server::start(|options| {
        options.env("PATCHBAY_BUSY_TIMEOUT_MS", "20000");
    });
    let product = server.data_product("sales", "sales").await;
    let alone = in_flight(&server).await;
    let other = open_database(&server.folder);
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let slow = {
        let (server, body) = (
            server.http(),
            json!({ "data_product_id": product, "name": "m", "configuration": snowflake("sales") }),
        );
        tokio::spawn(async move { server.post(CREATE, &body).await })
    };
    eventually("the slow request is under way", async || {
        let now = in_flight(&server).await;
        (now > alone).then_some(()).ok_or_else(|| format!("{now}"))
    })
    .await;
    server.terminate();
    let address = server.address.clone();
    eventually(
        "no new connection is taken",
        async || match tokio::net::TcpStream::connect(&address).await {
            Ok(_) => Err("it is taken".to_owned()),
            Err(_) => Ok(()),
        },
    )
    .await;
    assert!(!slow.is_finished());
    other.execute_batch("ROLLBACK").expect("no lock");
    drop(other);
    let created = slow.await.expect("an answer").is(201).json();
    let (folder, finished) = (server.folder.clone(), server.wait());
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(finished.stderr.contains("stopped"), "{finished:#?}");
    assert!(
        !folder.path("data/patchbay.db-wal").exists(),
        "the log is written into the file"
    );
    let server = Server::start_in(folder, |_| {});
    server
        .get(&format!(
            "configurations/{}",
            created["id"].as_str().expect("an id")
        ))
        .await
        .is(200);
}

#[tokio::test]
async fn what_does_not_end_in_the_drain_time_is_cut_off() {
    let server = Server::start(|options| {
        options
            .env("PATCHBAY_BUSY_TIMEOUT_MS", "25000")
            .env("PATCHBAY_DRAIN_MS", "200");
    });
    let product = server.data_product("sales", "sales").await;
    let other = open_database(&server.folder);
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let body =
        json!({ "data_product_id": product, "name": "m", "configuration": snowflake("sales") });
    let before = in_flight(&server).await;
    let http = server.http();
    let stuck = tokio::spawn(async move {
        http.try_send(reqwest::Method::POST, CREATE, |request| request.json(&body))
            .await
    });
    eventually("the request is under way", async || {
        match in_flight(&server).await {
            more if more > before => Ok(()),
            same => Err(format!("{same} are")),
        }
    })
    .await;
    server.terminate();
    let answer = stuck.await.expect("no panic");
    assert!(
        answer.is_err(),
        "its connection is closed without an answer"
    );
    // The writer of the database is waiting still, and the program ends when it is done.
    other.execute_batch("ROLLBACK").expect("no lock");
    drop(other);
    let finished = server.wait();
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(
        finished.stderr.contains("at the end of the drain time"),
        "{finished:#?}"
    );
}

#[test]
fn a_reading_verb_leaves_no_trace() {
    let folder = Folder::new();
    run(&folder, &["plugin", "check"]).well();
    run(&folder, &["plugin", "migrations"]).well();
    assert!(!folder.path("data").exists());
}

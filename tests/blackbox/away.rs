//! A Postgres that is stopped, held, full, crowded, or cuts connections.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use patchbay_test_cluster::{Cluster, Durability};
use serde_json::{Value, json};

use crate::harness::{
    Database, Folder, Http, Server, eventually, on_postgres, run_with, stopped_at,
};
use crate::world::{FILE, FORM, bigquery, entry, snowflake, unavailable, until_version};
use crate::writers::{Subject, Writers, nothing_is_lost};

const CREATE: &str = "plugins/SnowflakeDataOutput/configurations";
const TABLE: &str = "snowflake_data_output_configurations";

/// How long a server may take to be ready again once its database is.
const RECOVERY: Duration = Duration::from_secs(5);

/// A server that does not wait long.
fn hasty(database: Database) -> Server {
    Server::start(|options| {
        options
            .database(database)
            .env("PATCHBAY_BUSY_TIMEOUT_MS", "500")
            .env("PATCHBAY_CONNECT_TIMEOUT_MS", "2000")
            .env("PATCHBAY_STATEMENT_TIMEOUT_MS", "2000")
            .file(FILE, bigquery("1.0.0", "Dataset"));
    })
}

fn url(database: Database) -> &'static str {
    match database {
        Database::Postgres(url) => url,
        Database::Sqlite => panic!("no Postgres"),
    }
}

async fn is_ready(server: &Http) {
    server
        .until("/readyz", 200, |body| body["status"] == "ok")
        .await;
}

/// Waits until the server says that its database is away, and in so many words.
async fn is_away(server: &Http) {
    let body = server.until("/readyz", 503, |_| true).await;
    assert_eq!(body["detail"], "database away");
}

/// What a frontend needs to show its pages and forms.
async fn read_all_that_is_kept(server: &Http) -> Vec<Value> {
    let mut all = Vec::new();
    for path in [
        "plugins",
        "plugins/platform-tiles",
        "plugins/status",
        "plugins/SnowflakeDataOutput/form",
        "plugins/SnowflakeDataOutput/schema",
        "/api/openapi.json",
        FORM,
    ] {
        all.push(server.get(path).await.is(200).json());
    }
    server.get("plugins/SnowflakeDataOutput/icon").await.is(200);
    server.get("/healthz").await.is(200);
    all
}

#[tokio::test]
async fn forms_answer_from_memory_while_postgres_is_away_and_all_is_well_when_it_is_back() {
    let cluster = Cluster::start(Durability::None);
    // Postgres itself must keep what it has acknowledged.
    cluster.configure("synchronous_commit = on");
    cluster.reload();
    let database = Database::postgres(&cluster).await;
    let server = hasty(database);
    let subject = Subject {
        plugin: "SnowflakeDataOutput",
        product: server.data_product("sales", "sales").await,
        values: snowflake("sales"),
    };
    let body = json!({
        "data_product_id": subject.product, "name": "n", "configuration": snowflake("sales"),
    });
    let mut kept = Vec::new();
    for (round, how) in ["stopped", "crashed", "held"].into_iter().enumerate() {
        let before = read_all_that_is_kept(&server).await;
        let writers = Writers::start(&[&server], &subject, how);
        writers.go_on(30).await;
        match how {
            "stopped" => cluster.stop_politely(),
            "crashed" => cluster.stop(),
            _ => cluster.pause(),
        }
        is_away(&server).await;
        assert_eq!(read_all_that_is_kept(&server).await, before, "{how}");
        unavailable(server.post(CREATE, &body).await);
        let platform = json!({ "name": "x" });
        unavailable(server.post("configuration/platforms", &platform).await);
        unavailable(server.get("configurations").await);
        // A plugin that wants a column meanwhile waits, and the one before goes on.
        let version = format!("2.{round}.0");
        let fields: String = (0..=round)
            .map(|number| format!("field.string \"extra_{number}\", "))
            .collect();
        let source = bigquery(&version, "Dataset").replace(
            "field.string \"table\"",
            &format!("{fields} field.string \"table\""),
        );
        server.folder.write(FILE, source);
        let status = server
            .until("plugins/status", 200, |status| {
                entry(status, "BigQueryDataOutput")["last_error"]["version"] == version
            })
            .await;
        let waiting = entry(&status, "BigQueryDataOutput");
        assert_eq!(waiting["state"], "degraded", "{waiting}");
        assert_eq!(waiting["last_error"]["stage"], "store", "{waiting}");
        let form = server.get(FORM).await.is(200).json();
        assert_eq!(form["version"], before.last().expect("a form")["version"]);
        match how {
            "held" => cluster.resume(),
            _ => cluster.run(),
        }
        let back = Instant::now();
        is_ready(&server).await;
        assert!(back.elapsed() < RECOVERY, "{how}: {:?}", back.elapsed());
        writers.go_on(30).await;
        kept.extend(writers.stop().await);
        nothing_is_lost(database, &server.folder, TABLE, &kept).await;
        // Nobody has touched the file since.
        until_version(&server, &version).await;
        let table = "bigquery_data_output_configurations";
        let columns = database.columns(&server.folder, table).await;
        assert!(columns.contains(&format!("extra_{round}")), "{columns:?}");
    }
}

#[tokio::test]
async fn a_server_waits_for_a_postgres_that_comes_and_obeys_while_it_waits() {
    let cluster = Cluster::start(Durability::None);
    let database = Database::postgres(&cluster).await;
    cluster.stop();
    let stopped = stopped_at(&Folder::new(), "cannot be reached yet", |options| {
        options.database(database);
    });
    assert_eq!(stopped.code, Some(0), "{stopped:#?}");
    let impatient = run_with(&Folder::new(), |options| {
        options
            .env("PATCHBAY_LISTEN", "127.0.0.1:0")
            .env("PATCHBAY_START_TIMEOUT_MS", "200")
            .database(database);
    })
    .badly();
    assert!(
        impatient.contains("check that Postgres runs there"),
        "{impatient}"
    );
    let server = std::thread::scope(|scope| {
        let starting = scope.spawn(|| hasty(database));
        cluster.run();
        starting.join().expect("a server")
    });
    is_ready(&server).await;
    until_version(&server, "1.0.0").await;
}

#[tokio::test]
async fn connections_that_are_killed_in_the_middle_of_writes_lose_nothing() {
    on_postgres(async |database| {
        let server = hasty(database);
        let subject = Subject {
            plugin: "SnowflakeDataOutput",
            product: server.data_product("sales", "sales").await,
            values: snowflake("sales"),
        };
        let writers = Writers::start(&[&server, &server], &subject, "n");
        let mut killed = 0;
        for _ in 0..20 {
            writers.go_on(5).await;
            killed += Cluster::shared().kill_backends(url(database)).await;
            server.get(FORM).await.is(200);
        }
        assert!(killed > 40, "{killed}");
        writers.go_on(30).await;
        let kept = writers.stop().await;
        is_ready(&server).await;
        nothing_is_lost(database, &server.folder, TABLE, &kept).await;
    })
    .await;
}

#[tokio::test]
async fn when_no_connection_is_left_callers_are_told_to_come_back() {
    on_postgres(async |database| {
        let server = Server::start(|options| {
            options
                .database(database)
                .env("PATCHBAY_POOL", "2")
                .env("PATCHBAY_BUSY_TIMEOUT_MS", "300");
        });
        let product = server.data_product("sales", "sales").await;
        let holder = Cluster::shared().connect(name(database)).await;
        holder
            .batch_execute("BEGIN; LOCK TABLE data_output_configurations IN ACCESS EXCLUSIVE MODE")
            .await
            .expect("a lock");
        let body = |number: usize| {
            json!({
                "data_product_id": product, "name": format!("{number}"), "configuration": snowflake("sales"),
            })
        };
        let reads = join_all((0..8).map(|_| server.get("configurations")));
        let writes = join_all((0..8).map(|number| {
            let body = body(number);
            let server = server.http();
            async move { server.post(CREATE, &body).await }
        }));
        let (reads, writes) = tokio::join!(reads, writes);
        for answer in reads.into_iter().chain(writes) {
            unavailable(answer);
        }
        // What needs no connection does not wait for one.
        server.get("plugins").await.is(200);
        server.get("plugins/SnowflakeDataOutput/form").await.is(200);
        holder.batch_execute("COMMIT").await.expect("let go");
        server.post(CREATE, &body(99)).await.is(201);
        let all = server.get("configurations").await.is(200).json();
        assert_eq!(all["configurations"].as_array().map(Vec::len), Some(1));
        is_ready(&server).await;
    })
    .await;
}

/// The name of a database in its URL.
fn name(database: Database) -> &'static str {
    url(database).rsplit('/').next().unwrap_or_default()
}

#[tokio::test]
async fn what_postgres_gives_up_for_anothers_sake_is_done_again() {
    on_postgres(async |database| {
        let server = Server::on(database);
        let product = server.data_product("sales", "sales").await;
        let body = |name: &str| {
            json!({ "data_product_id": product, "name": name, "configuration": snowflake("sales") })
        };
        // A deadlock: the write holds what the other wants, and waits for what the other holds.
        let other = Cluster::shared().connect(name(database)).await;
        other
            .batch_execute(
                "SET deadlock_timeout = '1min'; BEGIN; LOCK TABLE configuration_revisions IN EXCLUSIVE MODE",
            )
            .await
            .expect("a lock");
        let writing = {
            let (server, body) = (server.http(), body("deadlocked"));
            tokio::spawn(async move { server.post(CREATE, &body).await })
        };
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'configuration_revisions'::regclass";
        eventually("the write waits", async || {
            match database.number(&server.folder, waits).await {
                1 => Ok(()),
                other => Err(format!("{other} wait")),
            }
        })
        .await;
        other
            .batch_execute("SELECT head FROM applied_definitions FOR UPDATE; COMMIT")
            .await
            .expect("the other wins");
        writing.await.expect("an answer").is(201);
        eventually("Postgres has counted it", async || {
            let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
            match database.number(&server.folder, sql).await {
                0 => Err("none".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
        // What Postgres cannot serialise, twice; a sequence counts on though the transaction is undone.
        database
            .execute(
                &server.folder,
                "CREATE SEQUENCE tries; \
                 CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 IF nextval('tries') <= 2 THEN RAISE EXCEPTION USING ERRCODE = 'serialization_failure'; END IF; \
                 RETURN NEW; END $$; \
                 CREATE TRIGGER conflict BEFORE INSERT ON configuration_revisions \
                 FOR EACH ROW EXECUTE FUNCTION conflict()",
            )
            .await;
        let made = server.post(CREATE, &body("serialised")).await.is(201).json();
        assert_eq!(made["revision"], 1);
        let tries = "SELECT last_value FROM tries";
        assert_eq!(database.number(&server.folder, tries).await, 3);
        nothing_is_lost(database, &server.folder, TABLE, &[]).await;
    })
    .await;
}

#[tokio::test]
async fn of_several_hosts_one_that_does_not_answer_is_passed_over() {
    on_postgres(async |database| {
        // Somebody who takes no connection and refuses none, as a machine that has lost its power.
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let dead = socket.listen(1).expect("a listener");
        let address = dead.local_addr().expect("an address");
        let mut waiting = Vec::new();
        let short = Duration::from_millis(300);
        while let Ok(connected) =
            tokio::time::timeout(short, tokio::net::TcpStream::connect(address)).await
        {
            waiting.push(connected.expect("a place in the queue"));
        }
        let (user, place) = url(database).split_once('@').expect("a user");
        let both = format!(
            "{user}@127.0.0.1:{},{place}?target_session_attrs=read-write",
            address.port()
        );
        let server = Server::start(|options| {
            options
                .env("PATCHBAY_DATABASE_URL", &both)
                .env("PATCHBAY_CONNECT_TIMEOUT_MS", "500");
        });
        is_ready(&server).await;
        server.data_product("sales", "sales").await;
    })
    .await;
}

/// The file of a table, put out of the way: in its place stands a device on which nothing can be written, so that the
/// system tells Postgres that there is no space left.
struct FullTable {
    path: PathBuf,
}

impl FullTable {
    /// The table must be empty.
    async fn fill(database: Database, folder: &Folder, table: &str) -> FullTable {
        let sql = format!(
            "SELECT current_setting('data_directory') || '/' || pg_relation_filepath('{table}')"
        );
        let path = PathBuf::from(&database.texts(folder, &sql).await[0]);
        let full = path.with_extension("full");
        std::os::unix::fs::symlink("/dev/full", &full).expect("a link");
        std::fs::rename(&path, path.with_extension("kept")).expect("the file is put away");
        std::fs::rename(full, &path).expect("the link is put in its place");
        FullTable { path }
    }

    fn empty(&self) {
        let kept: &Path = &self.path.with_extension("kept");
        std::fs::rename(kept, &self.path).expect("the file is put back");
    }
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full_and_reading_goes_on() {
    on_postgres(async |database| {
        let server = hasty(database);
        let product = server.data_product("sales", "sales").await;
        let body =
            json!({ "data_product_id": product, "name": "n", "configuration": { "dataset": "d" } });
        let create = "plugins/BigQueryDataOutput/configurations";
        let full = FullTable::fill(
            database,
            &server.folder,
            "bigquery_data_output_configurations",
        )
        .await;
        // Open files are still those from before.
        Cluster::shared().kill_backends(url(database)).await;
        is_ready(&server).await;
        unavailable(server.post(create, &body).await);
        server.get(FORM).await.is(200);
        server.get("plugins").await.is(200);
        let all = server.get("configurations").await.is(200).json();
        assert_eq!(all["configurations"], json!([]), "nothing of it is left");
        // What goes elsewhere has space.
        let other = server
            .configured("SnowflakeDataOutput", &product, "m", snowflake("sales"))
            .await;
        full.empty();
        Cluster::shared().kill_backends(url(database)).await;
        is_ready(&server).await;
        server.post(create, &body).await.is(201);
        server.get(&format!("configurations/{other}")).await.is(200);
        for table in ["data_output_configurations", "configuration_revisions"] {
            let rows = format!("SELECT count(*) FROM {table}");
            assert_eq!(database.number(&server.folder, &rows).await, 2, "{table}");
        }
        let log = server.logged();
        assert!(log.contains("the database is full"), "{log}");
    })
    .await;
}

//! Servers that are killed at any moment: in the middle of writes, migrations and reloads.
//!
//! Each round writes, and in two of three a plugin is edited too, so that its table gains a column or it is only loaded
//! again. Somewhere in it a server is killed, and started again. Which round does what, and when the kill comes, is drawn
//! from a seed that is shown when the test fails; `PATCHBAY_TEST_SEED` in the environment repeats it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Database, Folder, Killed, Options, Server, for_each_database, on_postgres};
use crate::writers::{Subject, Writers, Written, nothing_is_lost};

const FILE: &str = "lua-plugins/growing.lua";
const NAME: &str = "GrowingDataOutput";
const TABLE: &str = "growing_data_output_configurations";

/// How many kills a test brings; there are three.
const ROUNDS: usize = 70;

/// How long a start may take. A lock that outlived its server would be waited for longer.
const START: Duration = Duration::from_secs(15);

/// What is edited, and what must be there afterwards.
struct Growing {
    version: usize,
    columns: usize,
}

impl Growing {
    fn source(&self) -> String {
        let fields: String = (0..self.columns)
            .map(|number| {
                format!("patchbay.field.string \"f{number}\" {{ default = \"{number}\" }}, ")
            })
            .collect();
        format!(
            "return patchbay.plugin {{ name = \"{NAME}\", version = \"1.{}.0\", fields = {{ {fields} }} }}",
            self.version
        )
    }

    /// The table matches the history and the register, and the plugin is active in its last version.
    async fn is_whole(&self, database: Database, folder: &Folder, server: &Server) {
        let version = format!("1.{}.0", self.version);
        let details = server
            .until(&format!("plugins/{NAME}"), 200, |details| {
                details["version"] == version && details["state"] == "active"
            })
            .await;
        let steps = details["migrations"].as_array().expect("migrations");
        assert_eq!(steps.len(), self.columns, "{details}");
        assert!(
            steps.iter().all(|step| step["state"] == "applied"),
            "{details}"
        );
        let columns: Vec<String> = (0..self.columns)
            .map(|number| format!("f{number}"))
            .collect();
        let found = database.columns(folder, TABLE).await;
        assert_eq!(found[0], "id");
        assert_eq!(found[1..], columns, "the table is as its history says");
        let register = database
            .texts(
                folder,
                "SELECT table_name || ' ' || plugin FROM plugin_tables",
            )
            .await;
        assert_eq!(register, [format!("{TABLE} {NAME}")]);
        let sql =
            "SELECT d.version || ' ' || d.head || ' ' || d.table_name FROM applied_definitions d";
        let head = steps.last().expect("a step")["id"].as_str().expect("an id");
        let applied = database.texts(folder, sql).await;
        assert_eq!(applied, [format!("{version} {head} {TABLE}")]);
    }
}

/// Shows the seed when a test fails.
struct Seed(u64);

impl Seed {
    fn draw() -> Seed {
        let given = std::env::var("PATCHBAY_TEST_SEED").ok();
        Seed(given.map_or_else(
            || fastrand::u64(..),
            |text| text.parse().expect("PATCHBAY_TEST_SEED is a number"),
        ))
    }
}

impl Drop for Seed {
    #[expect(clippy::print_stderr, reason = "a failed test shows how to repeat it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("── PATCHBAY_TEST_SEED={} ──", self.0);
        }
    }
}

async fn kill_again_and_again(database: Database, servers: usize) {
    let seed = Seed::draw();
    let mut random = fastrand::Rng::with_seed(seed.0);
    let mut growing = Growing {
        version: 0,
        columns: 1,
    };
    let folder = Folder::new();
    folder.write(FILE, growing.source());
    let configure = |options: &mut Options| {
        // Nothing else is loaded, so that a start is short and a kill falls into what this is about.
        options
            .database(database)
            .env("ENABLED_PLUGINS", "[]")
            .env("PATCHBAY_BUSY_TIMEOUT_MS", "30000");
    };
    let mut running: Vec<Server> = (0..servers)
        .map(|_| Server::start_in(folder.clone(), configure))
        .collect();
    let subject = Subject {
        plugin: NAME,
        product: running[0].data_product("sales", "sales").await,
        values: json!({ "f0": "x" }),
    };
    let mut kept: Vec<Written> = Vec::new();
    let mut kills = 0;
    while kills < ROUNDS {
        let https: Vec<_> = running.iter().map(|server| server.http()).collect();
        let callers: Vec<_> = https.iter().collect();
        let writers = Writers::start(&callers, &subject, &format!("{kills}"));
        writers.go_on(random.usize(0..8)).await;
        let edits = random.usize(0..3);
        if edits > 0 {
            growing.version += 1;
            growing.columns += edits - 1;
            folder.write_by_rename(FILE, growing.source());
        }
        let victim = random.usize(0..servers);
        for _ in 0..random.usize(0..30) {
            running[victim].get("/healthz").await.is(200);
        }
        let mut killed: Vec<Killed> = vec![running.swap_remove(victim).kill()];
        // Now and then nobody is left.
        if !running.is_empty() && random.usize(0..4) == 0 {
            killed.push(running.remove(0).kill());
        }
        kills += killed.len();
        let begun = Instant::now();
        running.extend(killed.into_iter().map(Killed::start));
        let took = begun.elapsed();
        assert!(took < START, "no lock is left behind: {took:?}");
        kept.extend(writers.stop().await);
        for server in &running {
            growing.is_whole(database, &folder, server).await;
        }
        nothing_is_lost(database, &folder, TABLE, &kept).await;
    }
    if database == Database::Sqlite {
        let check = database.texts(&folder, "PRAGMA integrity_check").await;
        assert_eq!(check, ["ok"]);
    }
    // What is there is read as ever.
    let rows = format!("SELECT count(*) FROM {TABLE}");
    let export = running[0].get("configurations/export").await.is(200).text();
    assert_eq!(
        export.lines().count() as i64,
        database.number(&folder, &rows).await
    );
    assert!(kept.len() > ROUNDS, "something was written in most lives");
}

#[tokio::test]
async fn a_server_that_is_killed_at_any_moment_loses_nothing() {
    for_each_database(async |database| kill_again_and_again(database, 1).await).await;
}

#[tokio::test]
async fn two_servers_that_are_killed_at_any_moment_lose_nothing() {
    on_postgres(async |database| kill_again_and_again(database, 2).await).await;
}

//! Servers that are killed at any moment: in the middle of writes, migrations and reloads.
//!
//! Each round writes, and in two of three a plugin is edited too, so that its table gains a column or it is only loaded
//! again. Somewhere in it a server is killed, and started again: after a time that is drawn, or at the moment at which it
//! says that it begins to load or to migrate. Which round does what, and when the kill comes, is drawn from a seed that is
//! shown when the test fails; `PATCHBAY_TEST_SEED` in the environment repeats it. How many kills fell into a migration and
//! into a reload is counted, by what the database says afterwards.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Database, Folder, Killed, Options, Server, for_each_database, on_postgres};
use crate::writers::{Subject, Writers, Written, nothing_is_lost};

const FILE: &str = "lua-plugins/growing.lua";
const NAME: &str = "GrowingDataOutput";
const TABLE: &str = "growing_data_output_configurations";

/// How many kills a test brings. Of the three tests two are on Postgres, where each takes longer.
fn rounds(database: Database) -> usize {
    match database {
        Database::Sqlite => 100,
        Database::Postgres(_) => 70,
    }
}

/// How long a server is watched for the moment to kill it at. Of two, the other may have been faster.
const WATCHED: Duration = Duration::from_secs(2);

/// What a server says when it begins to load the plugin, and when it begins to migrate its table.
const LOADS: &str = "Plugin registry: loading lua-plugins/growing.lua";
const MIGRATES: &str = "migrations to run";

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

    /// Whether its last version is not recorded yet: whoever was loading it, or migrating its table, was not done.
    async fn is_pending(&self, database: Database, folder: &Folder) -> bool {
        let sql = format!(
            "SELECT count(*) FROM applied_definitions WHERE version = '1.{}.0'",
            self.version
        );
        database.number(folder, &sql).await == 0
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

/// How many kills fell into something that had begun and was not done.
#[derive(Debug, Default)]
struct Hits {
    migrations: usize,
    reloads: usize,
}

/// Watches what a server logs until it has said this once more, or somebody else must have been faster.
async fn until_it_says(server: &Server, what: &str, before: usize) -> bool {
    let end = Instant::now() + WATCHED;
    while Instant::now() < end {
        if server.logged_so_far().matches(what).count() > before {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
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
            .env("PATCHBAY_LOG", "info,patchbay_registry=debug")
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
    let mut hits = Hits::default();
    let (mut kills, rounds) = (0, rounds(database));
    while kills < rounds {
        let https: Vec<_> = running.iter().map(|server| server.http()).collect();
        let callers: Vec<_> = https.iter().collect();
        let writers = Writers::start(&callers, &subject, &format!("{kills}"));
        writers.go_on(random.usize(0..8)).await;
        let edits = random.usize(0..3);
        let victim = random.usize(0..servers);
        let mark = if edits == 2 { MIGRATES } else { LOADS };
        let said = running[victim].logged_so_far().matches(mark).count();
        if edits > 0 {
            growing.version += 1;
            growing.columns += edits - 1;
            folder.write_by_rename(FILE, growing.source());
        }
        let mut has_begun = false;
        if edits > 0 && random.bool() {
            has_begun = until_it_says(&running[victim], mark, said).await;
        } else {
            for _ in 0..random.usize(0..30) {
                running[victim].get("/healthz").await.is(200);
            }
        }
        let mut killed: Vec<Killed> = vec![running.swap_remove(victim).kill()];
        // Now and then nobody is left.
        if !running.is_empty() && random.usize(0..4) == 0 {
            killed.push(running.remove(0).kill());
        }
        kills += killed.len();
        if has_begun && growing.is_pending(database, &folder).await {
            match edits {
                2 => hits.migrations += 1,
                _ => hits.reloads += 1,
            }
        }
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
    assert!(kept.len() > rounds, "something was written in most lives");
    assert!(
        hits.migrations > 0 && hits.reloads > 0,
        "kills fell into each: {hits:?} of {kills}"
    );
}

#[tokio::test]
async fn a_server_that_is_killed_at_any_moment_loses_nothing() {
    for_each_database(async |database| kill_again_and_again(database, 1).await).await;
}

#[tokio::test]
async fn two_servers_that_are_killed_at_any_moment_lose_nothing() {
    on_postgres(async |database| kill_again_and_again(database, 2).await).await;
}

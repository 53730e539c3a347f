//! Databases that are copied, from one kind to the other and back, and what a server on the copy answers.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use patchbay_test_cluster::{Cluster, connect};
use serde_json::{Value, json};

use crate::harness::{Folder, Server, eventually, open_database, run};
use crate::world::plugin;

/// A plugin with a field of each kind.
const KINDS: &str = r#"
local field = patchbay.field

return patchbay.plugin {
    name = "KindsDataOutput",
    version = "1.0.0",
    fields = {
        field.string "text" {},
        field.integer "whole" {},
        field.number "number" {},
        field.boolean "flag" {},
        field.list "words" { of = "string" },
        field.json "anything" {},
    },
}
"#;

/// The same in a folder, with migrations that rename, index and convert.
const MIGRATED: &str = r#"
local field = patchbay.field

return patchbay.plugin {
    name = "MigratedDataOutput",
    version = "2.0.0",
    fields = { field.string "bucket" { required = true }, field.string "region" { default = "eu" } },
    table = "migrated_data_output_configurations",
}
"#;

/// A plugin that is taken away.
const GONE: &str = "lua-plugins/gone.lua";

fn migration(body: &str) -> String {
    format!("local column = patchbay.column\nreturn {{ up = function(m)\n{body}\nend }}")
}

/// Where a server finds its database.
fn options_of(url: &str) -> impl FnOnce(&mut crate::harness::Options) {
    let url = url.to_owned();
    move |options| {
        options.env("PATCHBAY_DATABASE_URL", &url);
    }
}

fn sqlite(folder: &Folder, name: &str) -> String {
    format!("sqlite://{}", folder.path(name).display())
}

fn copy(folder: &Folder, from: &str, to: &str) -> String {
    run(folder, &["db", "copy", "--from", from, "--to", to]).well()
}

/// The hashes that a copy tells, table by table.
fn hashes(said: &str) -> Vec<&str> {
    said.lines()
        .filter(|line| line.contains(" rows, ") && line.contains(": "))
        .collect()
}

/// Everything that is stored, as a server answers it: by path, the body.
async fn answers(server: &Server, ids: &[String]) -> Vec<(String, String)> {
    let mut paths: Vec<String> = [
        "configurations?limit=2",
        "configurations?limit=500",
        "configurations?plugin=KindsDataOutput",
        "configurations/export",
        "data_products",
        "configuration/platforms",
        "configuration/platforms/configs",
        "configuration/environments",
        "plugins/migrations",
    ]
    .map(str::to_owned)
    .to_vec();
    for id in ids {
        paths.push(format!("configurations/{id}"));
        paths.push(format!("configurations/{id}/history"));
    }
    let environments = server
        .get("configuration/environments")
        .await
        .is(200)
        .json();
    for environment in environments["environments"]
        .as_array()
        .expect("environments")
    {
        let id = environment["id"].as_str().expect("an id");
        paths.push(format!("configuration/environments/{id}/configs"));
    }
    let mut found = Vec::new();
    for path in paths {
        let answer = server.get(&path).await;
        let status = answer.status;
        // What names the request is not of the database.
        let body = match status {
            200 => answer.text(),
            _ => answer.json()["detail"].to_string(),
        };
        found.push((path, format!("{status} {body}")));
    }
    found
}

/// Fills a database with all that a copy must keep, and gives the ids of the configurations.
async fn fill(folder: &Folder, url: &str) -> Vec<String> {
    folder.write("lua-plugins/kinds.lua", KINDS);
    folder.write(GONE, plugin("GoneDataOutput", ""));
    folder.write("lua-plugins/migrated/plugin.lua", MIGRATED);
    folder.write(
        "lua-plugins/migrated/migrations/0001_create.lua",
        migration(
            r#"m:create_table("migrated_data_output_configurations", { column.id(), column.text "name" { nullable = false } })"#,
        ),
    );
    folder.write(
        "lua-plugins/migrated/migrations/0002_rename.lua",
        migration(
            r#"m:rename_column("migrated_data_output_configurations", "name", "bucket")
               m:create_index("migrated_data_output_configurations", { "bucket" }, { name = "migrated_buckets", unique = true })"#,
        ),
    );
    let server = Server::start_in(folder.clone(), options_of(url));
    server
        .run(&["plugin", "migrate", "MigratedDataOutput"])
        .well();
    server
        .until("plugins/MigratedDataOutput", 200, |it| {
            it["state"] == "active"
        })
        .await;
    let product = server.data_product("sales", "commérce \u{1f600}").await;
    let mut ids = Vec::new();
    let edges = [
        json!({}),
        json!({ "text": "", "whole": 0, "number": 0, "flag": false, "words": [], "anything": {} }),
        json!({ "text": "naïve \u{1f600} \u{2028} \"quoted\" \\ 'single' \t", "whole": 9_007_199_254_740_991_i64, "number": 1e308,
                "flag": true, "words": ["b", "a", ""], "anything": { "z": 1, "a": [null, true, { "y": "x", "b": "\u{e9}" }] } }),
        json!({ "whole": -9_007_199_254_740_991_i64, "number": -1e-308, "anything": [1.0, 1e3, -0.5, "1"] }),
        json!({ "whole": 42, "number": 9_007_199_254_740_993_i64, "anything": "only a text" }),
        json!({ "number": 0.1, "anything": { "number": 12_345_678_901_234_567_890_u64, "deep": [[[[[]]]]] } }),
    ];
    for (place, configuration) in edges.into_iter().enumerate() {
        let name = format!("configuration {place} \u{df}");
        ids.push(
            server
                .configured("KindsDataOutput", &product, &name, configuration)
                .await,
        );
    }
    let bucket = json!({ "bucket": "logs" });
    ids.push(
        server
            .configured("MigratedDataOutput", &product, "logs", bucket)
            .await,
    );
    let path = json!({ "path": "p" });
    ids.push(
        server
            .configured("GoneDataOutput", &product, "gone", path)
            .await,
    );
    // A history with changes, and one that ends.
    let patch = json!({ "description": "changed", "configuration": { "text": "other" } });
    server
        .patch(&format!("configurations/{}", ids[1]), &patch)
        .await
        .is(200);
    server
        .delete(&format!("configurations/{}", ids[0]))
        .await
        .is(204);
    // Secrets are stored, and not answered.
    let environment =
        json!({ "name": "secret", "acronym": "sec", "context": "c", "is_default": false });
    let environment = server
        .post("configuration/environments", &environment)
        .await
        .is(201)
        .json();
    let (platform, _) = server.service("Snowflake", "Snowflake").await;
    let path = format!(
        "configuration/environments/{}/configs",
        environment["id"].as_str().expect("an id")
    );
    let body =
        json!({ "platform_id": platform, "config": { "z_first": "1", "admin_pwd": "hush hush" } });
    server.post(&path, &body).await.is(201);
    server.stop().well();
    // Its rows and its table stay.
    folder.remove(GONE);
    ids
}

#[tokio::test]
async fn a_server_on_a_copy_answers_as_the_one_before() {
    let folder = Folder::new();
    let first = sqlite(&folder, "first/patchbay.db");
    let ids = fill(&folder, &first).await;
    let server = Server::start_in(folder.clone(), options_of(&first));
    let wanted = answers(&server, &ids).await;
    assert!(
        wanted
            .iter()
            .any(|(_, body)| body.contains("12345678901234567890")),
        "{wanted:#?}"
    );
    server.stop().well();

    let cluster = Cluster::shared();
    let (second, third) = (cluster.database().await, cluster.database().await);
    let (fourth, fifth) = (sqlite(&folder, "fourth.db"), sqlite(&folder, "fifth.db"));
    let steps = [
        (&first, &second),
        (&second, &third),
        (&third, &fourth),
        (&fourth, &fifth),
    ];
    let mut told: Option<String> = None;
    for (from, to) in steps {
        let said = copy(&folder, from, to);
        assert!(said.contains("counts and hashes agree"), "{said}");
        let before = told.get_or_insert_with(|| said.clone());
        assert_eq!(
            hashes(&said),
            hashes(before),
            "the hashes are of the rows, whatever the database"
        );
        assert!(
            hashes(&said)
                .iter()
                .any(|line| line.starts_with("migrated_data_output_configurations: 1 rows"))
        );
    }
    let client = connect(&second).await;
    let secret =
        "SELECT config::text FROM environment_configurations WHERE config::text LIKE '%hush%'";
    let secret: String = client
        .query_one(secret, &[])
        .await
        .expect("the secret")
        .get(0);
    assert_eq!(secret, r#"{"z_first":"1","admin_pwd":"hush hush"}"#);
    let index = "SELECT indexdef FROM pg_indexes WHERE indexname = 'migrated_buckets'";
    let index: String = client
        .query_one(index, &[])
        .await
        .expect("the index")
        .get(0);
    assert!(index.starts_with("CREATE UNIQUE INDEX"), "{index}");
    let types = "SELECT string_agg(data_type, ',' ORDER BY ordinal_position) FROM information_schema.columns \
        WHERE table_name = (SELECT table_name FROM applied_definitions WHERE plugin = 'KindsDataOutput')";
    let types: String = client
        .query_one(types, &[])
        .await
        .expect("the types")
        .get(0);
    assert_eq!(types, "uuid,text,bigint,double precision,boolean,json,json");
    drop(client);

    for url in [&second, &fifth] {
        let server = Server::start_in(folder.clone(), options_of(url));
        let found = answers(&server, &ids).await;
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_eq!(found, wanted, "on {url}");
        }
        // It is a database like any other.
        let taken = server.get("data_products").await.json()["data_products"][0]["id"].clone();
        let product = taken.as_str().expect("an id");
        let logs = json!({ "bucket": "logs" });
        server
            .configure("MigratedDataOutput", product, "more", logs)
            .await
            .error(409);
        server
            .configured("KindsDataOutput", product, "more", json!({ "text": "t" }))
            .await;
        server.folder.write(GONE, plugin("GoneDataOutput", ""));
        server
            .until(&format!("configurations/{}", ids[7]), 200, |it| {
                it["plugin_state"] == "active"
            })
            .await;
        server.folder.remove(GONE);
        server.stop().well();
    }
}

#[tokio::test]
async fn a_copy_is_refused_where_it_would_do_harm() {
    let folder = Folder::new();
    let first = sqlite(&folder, "first.db");
    let refused =
        |from: &str, to: &str| run(&folder, &["db", "copy", "--from", from, "--to", to]).badly();
    let said = refused(&first, &sqlite(&folder, "x.db"));
    assert!(said.contains("is not there"), "{said}");
    assert!(!folder.path("first.db").exists(), "the source is not made");

    let server = Server::start_in(folder.clone(), options_of(&first));
    let copied = sqlite(&folder, "copied.db");
    let said = copy(&folder, &first, &copied);
    assert!(
        said.contains("is being served: what is written from now on is not copied"),
        "{said}"
    );
    let said = refused(&copied, &first);
    assert!(said.contains("served by another process"), "{said}");
    server.stop().well();
    for target in [&first, &copied] {
        let said = refused(&first, target);
        assert!(said.contains("is not empty"), "{said}");
    }

    let url = Cluster::shared().database().await;
    let server = Server::start_in(folder.clone(), options_of(&url));
    server
        .until("cluster", 200, |it| {
            it["servers"].as_array().is_some_and(|all| !all.is_empty())
        })
        .await;
    let said = refused(&first, &url);
    assert!(
        said.contains("is served by") && !said.contains("hush"),
        "{said}"
    );
    server.stop().well();
    let said = refused(&first, &url);
    assert!(said.contains("is not empty"), "{said}");

    let older = Cluster::shared().database().await;
    let said = refused(&older, &sqlite(&folder, "y.db"));
    assert!(
        said.contains("core schema 0") && said.contains("serve it with this version once"),
        "{said}"
    );
}

/// Many rows, written past the server.
fn many_rows(folder: &Folder, rows: u32) {
    let database = open_database(folder);
    database
        .execute_batch(&format!(
            "INSERT INTO data_products VALUES ('00000000-0000-4000-8000-000000000001', 'p', 'p', 'd'); \
             WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
             INSERT INTO data_output_configurations SELECT printf('00000000-0000-7000-8000-%012d', i), 'Gone', '1.0.0', \
             'n' || i, 'n' || i, NULL, '00000000-0000-4000-8000-000000000001', 'default', NULL, NULL, 1, \
             '2026-01-01T00:00:00.000001Z', '2026-01-01T00:00:00.999999Z' FROM n"
        ))
        .expect("rows");
}

/// How many configurations a target has so far.
async fn copied_so_far(target: &str) -> i64 {
    const COUNT: &str = "SELECT count(*) FROM data_output_configurations";
    match target.strip_prefix("sqlite://") {
        Some(path) => rusqlite::Connection::open(path)
            .and_then(|database| database.query_row(COUNT, [], |row| row.get(0)))
            .expect("a count"),
        None => {
            let database = connect(target).await;
            database
                .query_one(COUNT, &[])
                .await
                .expect("a count")
                .get(0)
        }
    }
}

/// Starts a copy that commits each row by itself, and kills it when it has copied configurations, but not all.
async fn begin_and_kill(folder: &Folder, from: &str, to: &str, rows: u32) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_patchbay"))
        .args(["db", "copy", "--batch", "1", "--from", from, "--to", to])
        .current_dir(folder.path(""))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its standard output")).lines();
    let begun = lines
        .any(|line| line.is_ok_and(|line| line.starts_with("copying data_output_configurations")));
    assert!(begun, "it copies");
    let before = copied_so_far(to).await;
    eventually("configurations are copied", async || {
        match copied_so_far(to).await > before {
            true => Ok(()),
            false => Err("none is".to_owned()),
        }
    })
    .await;
    child.kill().expect("a kill");
    child.wait().expect("its end");
    let copied = copied_so_far(to).await;
    assert!(copied > 0 && copied < i64::from(rows), "{copied}");
}

#[tokio::test]
async fn a_copy_that_was_killed_goes_on_and_a_changed_source_is_noticed() {
    const ROWS: u32 = 20_000;
    let folder = Folder::new();
    Server::start_in(folder.clone(), |_| {}).stop().well();
    many_rows(&folder, ROWS);
    let source = sqlite(&folder, "data/patchbay.db");
    let postgres = Cluster::shared().database().await;
    for target in [postgres, sqlite(&folder, "target.db")] {
        begin_and_kill(&folder, &source, &target, ROWS).await;
        begin_and_kill(&folder, &source, &target, ROWS).await;
        // What is half a database is not served, nor copied.
        let said = crate::harness::run_with(&folder, |options| {
            options
                .arg("serve")
                .env("PATCHBAY_LISTEN", "127.0.0.1:0")
                .env("PATCHBAY_DATABASE_URL", &target);
        })
        .badly();
        assert!(said.contains("is not finished"), "{said}");
        let said = run(
            &folder,
            &["db", "copy", "--from", &target, "--to", "sqlite://z.db"],
        )
        .badly();
        assert!(said.contains("is not finished"), "{said}");
        // What was copied is something else now.
        let change = |name: &str| {
            let rename = format!(
                "UPDATE data_output_configurations SET name = '{name}' WHERE id = '00000000-0000-7000-8000-000000000001'"
            );
            open_database(&folder)
                .execute_batch(&rename)
                .expect("a change");
        };
        change("other");
        let said = run(&folder, &["db", "copy", "--from", &source, "--to", &target]).badly();
        assert!(said.contains("the source has changed"), "{said}");
        change("n1");
        // What comes after it is taken along.
        let later = "UPDATE data_output_configurations SET name = name || '.' WHERE id = '00000000-0000-7000-8000-000000020000'";
        open_database(&folder)
            .execute_batch(later)
            .expect("a change");
        let said = copy(&folder, &source, &target);
        assert!(said.contains("going on with a copy"), "{said}");
        let table = format!("data_output_configurations: {ROWS} rows");
        assert!(said.contains(&table) && said.contains("agree"), "{said}");
        let server = Server::start_in(folder.clone(), options_of(&target));
        let list = server
            .get("configurations?limit=1&q=n20000")
            .await
            .is(200)
            .json();
        let name = &list["configurations"][0]["name"];
        assert!(
            name.as_str()
                .is_some_and(|name| name.starts_with("n20000.")),
            "{list}"
        );
        assert_eq!(
            list["configurations"][0]["updated_at"],
            Value::from("2026-01-01T00:00:00.999999Z")
        );
    }
}

#[tokio::test]
async fn a_target_that_is_not_the_source_in_the_end_is_refused() {
    const ROWS: u32 = 2_000;
    let folder = Folder::new();
    Server::start_in(folder.clone(), |_| {}).stop().well();
    many_rows(&folder, ROWS);
    let source = sqlite(&folder, "data/patchbay.db");
    let names_of_first = "configurations SET name = 'other' WHERE name = 'n1'";
    let last = "configurations WHERE name = 'n1'";
    for (number, tamper) in [
        format!("UPDATE data_output_{names_of_first}"),
        format!("DELETE FROM data_output_{last}"),
    ]
    .iter()
    .enumerate()
    {
        let postgres = Cluster::shared().database().await;
        for target in [postgres, sqlite(&folder, &format!("target-{number}.db"))] {
            begin_and_kill(&folder, &source, &target, ROWS).await;
            // Somebody else has changed what was copied already, which only the comparison at the end can see.
            match target.strip_prefix("sqlite://") {
                Some(path) => rusqlite::Connection::open(path)
                    .and_then(|database| database.execute_batch(tamper))
                    .expect(tamper),
                None => connect(&target)
                    .await
                    .batch_execute(tamper)
                    .await
                    .expect(tamper),
            }
            let finished = run(&folder, &["db", "copy", "--from", &source, "--to", &target]);
            assert!(!finished.stdout.contains("agree"), "{finished:#?}");
            assert!(
                finished
                    .stdout
                    .contains("going on with a copy that was interrupted"),
                "{finished:#?}"
            );
            let said = finished.badly();
            let wanted =
                "the table data_output_configurations of the target is not that of the source";
            assert!(said.contains(wanted), "{said}");
            let rows = ROWS as usize - number;
            assert!(
                said.contains(&format!("{rows} rows instead of {ROWS}")),
                "{said}"
            );
            assert!(
                said.contains("take an empty target and copy again"),
                "{said}"
            );
            // The marker stays, so that nobody serves it.
            let served = crate::harness::run_with(&folder, |options| {
                options
                    .arg("serve")
                    .env("PATCHBAY_LISTEN", "127.0.0.1:0")
                    .env("PATCHBAY_DATABASE_URL", &target);
            })
            .badly();
            assert!(served.contains("is not finished"), "{served}");
        }
    }
}

#[tokio::test]
async fn a_copy_tells_how_far_it_is() {
    let folder = Folder::new();
    Server::start_in(folder.clone(), |_| {}).stop().well();
    many_rows(&folder, 1_000);
    let said = copy(
        &folder,
        &sqlite(&folder, "data/patchbay.db"),
        &sqlite(&folder, "target.db"),
    );
    let lines: Vec<&str> = said.lines().collect();
    // Without a terminal: a line as each table begins, in the order in which references hold, then what was compared.
    let begun: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("copying "))
        .collect();
    assert!(begun.contains(&"data_products, 1 rows"), "{said}");
    assert!(
        begun.contains(&"data_output_configurations, 1000 rows"),
        "{said}"
    );
    let place = |wanted: &str| begun.iter().position(|line| line.starts_with(wanted));
    assert!(
        place("data_products,") < place("data_output_configurations,"),
        "{said}"
    );
    let compared = lines
        .iter()
        .filter(|line| line.contains(" rows, ") && line.contains(": "));
    assert_eq!(
        compared.count(),
        begun.len(),
        "each table is compared: {said}"
    );
    let last = lines.last().expect("a last line");
    let tables = begun.len();
    assert!(
        last.ends_with(&format!(
            " rows in {tables} tables are copied; counts and hashes agree"
        )),
        "{last}"
    );
}

//! `patchbay doctor`: what is told of an installation, and what to do.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Folder, Options, Server, for_each_database, run_with};
use crate::world::{bigquery, plugin};

/// What the doctor says, and how it ends.
fn doctor(folder: &Folder, configure: impl FnOnce(&mut Options)) -> (Option<i32>, Value) {
    let finished = run_with(folder, |options| {
        // A port on which nobody listens.
        options.env("PATCHBAY_LISTEN", "127.0.0.1:1");
        configure(options);
        options.arg("doctor").arg("--json");
    });
    let document = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("no JSON ({error}): {finished:#?}"));
    (finished.code, document)
}

fn check<'a>(document: &'a Value, title: &str) -> &'a Value {
    document["checks"]
        .as_array()
        .and_then(|checks| checks.iter().find(|check| check["title"] == title))
        .unwrap_or_else(|| panic!("no check {title}: {document:#}"))
}

/// Asserts that a check stands so, with a finding and a help that say this.
#[track_caller]
fn says(document: &Value, title: &str, state: &str, message: &str, help: &str) {
    let check = check(document, title);
    let findings = check["findings"].as_array().expect("findings");
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let said = findings.iter().any(|finding| {
        finding["state"] == state
            && text(finding, "message").contains(message)
            && text(finding, "help").contains(help)
    });
    assert!(said, "{title}, {state}, {message}, {help}: {check:#}");
}

#[test]
fn the_guide_and_the_doctor_are_one_list() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = std::fs::read_to_string(root.join("lua-plugins/README.md")).expect("the guide");
    let chapter = guide
        .split("\n## ")
        .find(|chapter| chapter.starts_with("Troubleshooting"));
    let paragraphs: Vec<&str> = chapter
        .expect("the chapter")
        .lines()
        .filter_map(|line| {
            line.strip_prefix("**")?
                .split_once(".**")
                .map(|(title, _)| title)
        })
        .collect();
    let (code, document) = doctor(&Folder::new(), |_| {});
    assert_eq!(code, Some(0), "{document:#}");
    let checks = document["checks"].as_array().expect("checks");
    let titles: Vec<&str> = checks
        .iter()
        .filter_map(|check| check["title"].as_str())
        .collect();
    assert_eq!(titles, paragraphs);
}

#[test]
fn an_empty_folder_is_well_and_stays_empty() {
    let folder = Folder::new();
    let finished = run_with(&folder, |options| {
        options.arg("doctor").env("PATCHBAY_LISTEN", "127.0.0.1:1");
    });
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(
        finished.stdout.ends_with("0 problems, 0 warnings\n"),
        "{finished:#?}"
    );
    let left = std::fs::read_dir(folder.path(""))
        .expect("the folder")
        .count();
    assert_eq!(left, 0, "nothing is made");
    // A folder of the plugins that ship, as a checkout has it, is as well.
    folder.write("lua-plugins/agno/plugin.lua", plugin("AgnoPlugin", ""));
    let (code, document) = doctor(&folder, |options| {
        options.env("PATCHBAY_LISTEN", "127.0.0.1:1");
    });
    assert_eq!(code, Some(0), "{document:#}");
    let title = "A plugin is not discovered";
    assert_eq!(check(&document, title)["state"], "ok", "{document:#}");
    says(&document, title, "ok", "off, as they ship: AgnoPlugin", "");
}

#[test]
fn where_settings_come_from_is_told_and_no_secret_is() {
    let folder = Folder::new();
    folder.write(
        "own.toml",
        "poll_ms = 500\nlog = \"warn\"\n[plugins.GitHubPlugin]\ngithub_org = \"hush-one\"\n",
    );
    let (code, document) = doctor(&folder, |options| {
        options
            .env("PATCHBAY_API_TOKEN", "hush-hush")
            .env("PATCHBAY_LOG", "error")
            .arg("--config")
            .arg("own.toml")
            .arg("--plugin-path")
            .arg("mine");
    });
    assert_eq!(code, Some(0), "{document:#}");
    let title = "The settings";
    says(&document, title, "ok", "own.toml is read", "");
    says(&document, title, "ok", "poll_ms = 500, from own.toml", "");
    says(
        &document,
        title,
        "ok",
        "log = \"error\", from the environment",
        "",
    );
    says(
        &document,
        title,
        "ok",
        "plugin_paths = [\"mine\"], from a flag",
        "",
    );
    says(
        &document,
        title,
        "ok",
        "api_token = (set), from the environment",
        "",
    );
    assert!(!document.to_string().contains("hush"), "{document:#}");
    says(
        &document,
        "Nobody gets in, or everybody",
        "warning",
        "shorter than 16",
        "openssl",
    );
    says(
        &document,
        "Changes are not noticed",
        "ok",
        "every 500 ms",
        "",
    );
    says(
        &document,
        "A plugin is not discovered",
        "warning",
        "mine is not there",
        "PATCHBAY_PLUGIN_PATHS",
    );

    let (code, document) = doctor(&folder, |options| {
        options.env("PATCHBAY_LISTNE", "x");
    });
    assert_eq!(code, Some(1));
    says(
        &document,
        title,
        "problem",
        "did you mean PATCHBAY_LISTEN?",
        "config/patchbay.toml",
    );
    let (code, document) = doctor(&folder, |options| {
        options.env("PATCHBAY_DATABASE_URL", "mysql://me:hush@x/y");
    });
    assert_eq!(code, Some(1));
    says(&document, title, "problem", "database_url", "");
    assert!(!document.to_string().contains("hush"), "{document:#}");
}

#[test]
fn what_is_not_discovered_and_what_fails_is_told() {
    let folder = Folder::new();
    folder.write("lua-plugins/good.lua", bigquery("1.0.0", "Dataset"));
    folder.write("lua-plugins/a.luau", "return 1");
    folder.write("lua-plugins/.b.lua", "return 1");
    folder.write("lua-plugins/deep/er/plugin.lua", "return 1");
    folder.write("lua-plugins/off.lua", plugin("OffDataOutput", ""));
    folder.write(
        "lua-plugins/bad.lua",
        plugin("BadDataOutput", "feilds = {},"),
    );
    folder.write("more/good.lua", bigquery("2.0.0", "Dataset"));
    folder.write("data/packages/stray/plugin.lua", "return 1");
    let (code, document) = doctor(&folder, |options| {
        options
            .env("PATCHBAY_PLUGIN_PATHS", "lua-plugins:more")
            .env("DISABLED_PLUGINS", "OffDataOutput")
            .env(
                "ENABLED_PLUGINS",
                "SnowflakeDataOutput,KafkaTopicDataOutput",
            );
    });
    assert_eq!(code, Some(1), "{document:#}");
    assert_eq!(document["good"], false);
    let title = "A plugin is not discovered";
    says(
        &document,
        title,
        "warning",
        "a.luau is not discovered",
        "rename it to a.lua",
    );
    says(
        &document,
        title,
        "warning",
        ".b.lua is not discovered",
        "rename it to b.lua",
    );
    says(
        &document,
        title,
        "warning",
        "deep is not discovered",
        "lua-plugins/deep in PATCHBAY_PLUGIN_PATHS",
    );
    says(
        &document,
        title,
        "warning",
        "OffDataOutput",
        "DISABLED_PLUGINS names \"OffDataOutput\"",
    );
    says(&document, title, "ok", "off, as they ship: AgnoPlugin", "");
    let title = "An error in the sandbox";
    says(
        &document,
        title,
        "problem",
        "did you mean `fields`?",
        "patchbay plugin check lua-plugins/bad.lua",
    );
    says(
        &document,
        title,
        "warning",
        "BigQueryDataOutput from lua-plugins/good.lua",
        "rename",
    );
    says(
        &document,
        "A form is not configured",
        "warning",
        "KafkaTopicDataOutput",
        "catalogue apply",
    );
    says(
        &document,
        "A package is refused",
        "warning",
        "stray",
        "install",
    );
    says(
        &document,
        "Changes are not noticed",
        "ok",
        "changes in more are told",
        "",
    );
}

#[tokio::test]
async fn a_served_installation_is_well_and_its_own_database_counts() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.file("lua-plugins/own.lua", plugin("OwnDataOutput", ""));
        });
        server.get("/readyz").await.is(200);
        let look = || {
            let finished = server.run(&["doctor", "--json"]);
            let document: Value = serde_json::from_str(&finished.stdout)
                .unwrap_or_else(|error| panic!("no JSON ({error}): {finished:#?}"));
            (finished.code, document)
        };
        let (code, document) = look();
        assert_eq!(code, Some(0), "{document:#}");
        says(&document, "The database", "ok", "core schema", "");
        says(&document, "Migration issues", "ok", "every migration of an active plugin is applied", "");

        // A step that takes something away waits, here as in the server.
        let source = plugin("OwnDataOutput", "").replace("\"path\"", "\"place\"").replace("1.0.0", "2.0.0");
        server.folder.remove("lua-plugins/own.lua");
        server.folder.write(
            "lua-plugins/own/migrations/0002_rename.lua",
            "return { up = function(m) m:rename_column(\"own_data_output_configurations\", \"path\", \"place\") end }",
        );
        server.folder.write("lua-plugins/own/plugin.lua", source);
        server
            .until("plugins/OwnDataOutput", 200, |details| details["state"] == "pending_migration")
            .await;
        let (code, document) = look();
        assert_eq!(code, Some(0), "{document:#}");
        says(
            &document,
            "Migration issues",
            "warning",
            "0002_rename waits",
            "patchbay plugin migrate OwnDataOutput",
        );
    })
    .await;
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_told_with_the_remedy() {
    let folder = Folder::new();
    folder.write(
        "data/patchbay.db",
        "this is no database at all, whatever its name says",
    );
    let (code, document) = doctor(&folder, |_| {});
    assert_eq!(code, Some(1));
    says(
        &document,
        "The database",
        "problem",
        "cannot be reached",
        "PATCHBAY_DATABASE_URL",
    );
    let (code, document) = doctor(&folder, |options| {
        options.env("PATCHBAY_DATABASE_URL", "postgres://me:hush@127.0.0.1:1/db");
    });
    assert_eq!(code, Some(1));
    says(
        &document,
        "The database",
        "problem",
        "cannot be reached",
        "see that it runs",
    );
    assert!(!document.to_string().contains("hush"), "{document:#}");

    // A second server is refused where one has the file open, and the doctor says so.
    let server = Server::start(|_| {});
    let (code, document) = doctor(&server.folder, |_| {});
    assert_eq!(code, Some(0), "{document:#}");
    says(&document, "The database", "ok", "a server has it open", "");
    says(
        &document,
        "The server is not ready",
        "warning",
        "nothing answers",
        "",
    );
    let address = server.address.clone();
    let (code, document) = doctor(&server.folder, |options| {
        options.env("PATCHBAY_LISTEN", &address);
    });
    assert_eq!(code, Some(0), "{document:#}");
    says(&document, "The server is not ready", "ok", "is ready", "");
}

#[test]
fn a_door_that_is_open_or_shut_is_told() {
    let folder = Folder::new();
    let (code, document) = doctor(&folder, |options| {
        options.env("PATCHBAY_LISTEN", "0.0.0.0:1");
    });
    assert_eq!(code, Some(1));
    says(
        &document,
        "Nobody gets in, or everybody",
        "problem",
        "",
        "PATCHBAY_API_TOKEN",
    );
    let (code, document) = doctor(&folder, |options| {
        options
            .env("PATCHBAY_LISTEN", "0.0.0.0:1")
            .env("PATCHBAY_INSECURE", "true");
    });
    assert_eq!(code, Some(0));
    says(
        &document,
        "Nobody gets in, or everybody",
        "warning",
        "open to whoever",
        "PATCHBAY_API_TOKEN",
    );
}

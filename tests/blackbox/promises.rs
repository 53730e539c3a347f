//! What a version number promises, held against what changes: the same while a server runs, after a restart, on another
//! server, and on the command line.

use serde_json::{Value, json};

use crate::harness::{Database, Folder, Options, Server, for_each_database, on_postgres};
use crate::world::{FILE, entry, entry_at};

const NAME: &str = "ShareDataOutput";
const DETAILS: &str = "plugins/ShareDataOutput";
const TABLE: &str = "share_data_output_configurations";

const PATH: &str = r#"field.string "path" { required = true }"#;
const NOTE: &str = r#"field.string "note" {}"#;
const PROJECT: &str = r#"field.string "project" { required = true }"#;

/// What is said of 1.0.1 with [`PROJECT`] after 1.0.0 without.
const REASON: &str = "the version 1.0.1 after 1.0.0 says that there is a fix at most, but fields.project is new, required, \
                      and has no default, which is a breaking change; make it 2.0.0";
const REMEDY: &str = ", or accept it with `patchbay plugin migrate ShareDataOutput --force` or POST \
                      /api/v2/plugins/reload?force=ShareDataOutput";

/// The plugin with these fields and further lines.
fn share(version: &str, fields: &str, lines: &str) -> String {
    format!(
        r#"local field, column = patchbay.field, patchbay.column
return patchbay.plugin {{ name = "{NAME}", version = "{version}", fields = {{ {fields} }}, {lines} }}"#
    )
}

fn demanding(version: &str) -> String {
    share(version, &format!("{PATH}, {PROJECT}"), "")
}

fn strict(options: &mut Options, strict: bool) {
    options.env("PATCHBAY_STRICT_VERSIONS", &strict.to_string());
}

/// A server with 1.0.0 of the plugin and a configuration.
async fn serving(database: Database, is_strict: bool) -> (Server, String, String) {
    let server = Server::start(|options| {
        options
            .database(database)
            .file(FILE, share("1.0.0", PATH, ""));
        strict(options, is_strict);
    });
    let product = server.data_product("sales", "sales").await;
    let id = server
        .configured(NAME, &product, "n", json!({ "path": "p" }))
        .await;
    (server, product, id)
}

async fn until_serves(server: &Server, version: &str) -> Value {
    let serves = |details: &Value| details["version"] == version && details["state"] == "active";
    server.until(DETAILS, 200, serves).await;
    entry(&server.get("plugins/status").await.is(200).json(), NAME).clone()
}

/// Asserts that the plugin only shows what is stored, and says this.
async fn only_shown(server: &Server, product: &str, id: &str, reason: &str) {
    let shown = |details: &Value| {
        details["last_error"]["stage"] == "version"
            && details["last_error"]["message"]
                .to_string()
                .contains(reason)
            && details["state"] == "degraded"
    };
    server.until(DETAILS, 200, shown).await;
    let status = server.get("plugins/status").await.is(200).json();
    let message = entry(&status, NAME)["last_error"]["message"].to_string();
    assert!(message.contains(reason), "{message}");
    assert!(
        message.contains("what is stored is shown, and nothing is written"),
        "{message}"
    );
    let path = format!("configurations/{id}");
    let row = server.get(&path).await.is(200).json();
    assert_eq!(row["configuration"]["path"], "p", "{row}");
    assert_eq!(row["plugin_state"], "degraded", "{row}");
    server.get("plugins/ShareDataOutput/form").await.is(200);
    for answer in [
        server
            .configure(NAME, product, "m", json!({ "path": "q", "project": "x" }))
            .await,
        server.patch(&path, &json!({ "description": "d" })).await,
    ] {
        let detail = answer.error(503).to_string();
        assert!(detail.contains(reason), "{detail}");
    }
}

#[tokio::test]
async fn a_strict_server_that_starts_with_a_version_that_promises_too_little_only_shows_its_rows() {
    for_each_database(async |database| {
        let (server, product, id) = serving(database, true).await;
        server.folder.write(FILE, demanding("1.0.1"));
        let refused =
            |details: &Value| details["last_error"]["message"] == format!("{REASON}{REMEDY}");
        server.until(DETAILS, 200, refused).await;

        let server = server.restart(|_| {});
        only_shown(&server, &product, &id, &format!("{REASON}{REMEDY}")).await;
        assert_eq!(
            database.columns(&server.folder, TABLE).await,
            ["id", "path"],
            "nothing has run"
        );
        // Nothing of that changes when something else is read again, or at the next start.
        let before = server.get("plugins/status").await.is(200).json()["generation"].clone();
        let reloaded = server
            .post("plugins/reload", &json!({}))
            .await
            .is(200)
            .json();
        assert_eq!(
            (&reloaded["generation"], &reloaded["changed"]),
            (&before, &json!([]))
        );
        let server = server.restart(|_| {});
        only_shown(&server, &product, &id, REASON).await;
        let finding = server.run(&["doctor"]).stdout;
        assert!(
            finding.contains(&format!("! {NAME}: {REASON}")),
            "{finding}"
        );

        // What it is compared with is what is applied, not what was refused.
        server.folder.write(FILE, demanding("1.0.2"));
        let next = REASON.replace("1.0.1", "1.0.2");
        only_shown(&server, &product, &id, &next).await;
        server.folder.write(FILE, demanding("2.0.0"));
        let own = until_serves(&server, "2.0.0").await;
        assert_eq!(
            own["warnings"].to_string().matches("version").count(),
            0,
            "{own}"
        );
        server
            .configured(NAME, &product, "m", json!({ "path": "q", "project": "x" }))
            .await;
        let log = server.logged();
        assert!(
            log.contains(&next) && log.contains("what is stored is shown, and nothing is written"),
            "{log}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_not_strict_warns_of_it_at_every_start() {
    for_each_database(async |database| {
        let (server, product, _) = serving(database, false).await;
        let folder = server.folder.clone();
        let server = server.restart(|_| folder.write(FILE, demanding("1.0.1")));
        for _ in 0..2 {
            let own = until_serves(&server, "1.0.1").await;
            assert!(
                own["warnings"]
                    .as_array()
                    .expect("a list")
                    .contains(&json!(REASON)),
                "{own}"
            );
        }
        server
            .configured(NAME, &product, "m", json!({ "path": "q", "project": "x" }))
            .await;
        let server = server.restart(|_| {});
        let own = until_serves(&server, "1.0.1").await;
        assert!(
            own["warnings"]
                .as_array()
                .expect("a list")
                .contains(&json!(REASON)),
            "{own}"
        );
        let finding = server.run(&["doctor"]).well();
        assert!(
            finding.contains(&format!("? {NAME}: {REASON}")),
            "{finding}"
        );
        // What is applied is taken by a server that is strict as well: the rows and the table are of this version.
        let server = server.restart(|options| strict(options, true));
        let own = until_serves(&server, "1.0.1").await;
        assert!(
            own["warnings"]
                .as_array()
                .expect("a list")
                .contains(&json!(REASON)),
            "{own}"
        );
        // It says so until the number changes.
        folder.write(FILE, format!("{}\n-- the same", demanding("1.0.1")));
        server.post("plugins/reload", &json!({})).await.is(200);
        let own = until_serves(&server, "1.0.1").await;
        assert!(
            own["warnings"]
                .as_array()
                .expect("a list")
                .contains(&json!(REASON)),
            "{own}"
        );
        folder.write(FILE, demanding("1.0.2"));
        let own = until_serves(&server, "1.0.2").await;
        assert_eq!(own["warnings"], json!([]));
    })
    .await;
}

/// Beside the fields everything else counts that the number speaks of, and an earlier version is asked for no promise.
#[tokio::test]
async fn an_alias_that_went_while_the_server_was_down_is_noticed() {
    for_each_database(async |database| {
        let aliased = |version: &str| share(version, PATH, "aliases = { \"OldShare\" }");
        let server = Server::start(|options| {
            options.database(database).file(FILE, aliased("1.1.0"));
            strict(options, true);
        });
        until_serves(&server, "1.1.0").await;
        let folder = server.folder.clone();
        let server = server.restart(|_| folder.write(FILE, share("1.1.1", PATH, "")));
        let refused = |details: &Value| {
            details["last_error"]["message"]
                .to_string()
                .contains("aliases.OldShare is removed")
        };
        server.until(DETAILS, 200, refused).await;
        let server = server.restart(|_| folder.write(FILE, share("1.0.0", PATH, "")));
        let own = until_serves(&server, "1.0.0").await;
        assert_eq!(own["warnings"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn force_accepts_a_version_that_promises_too_little_for_good() {
    for_each_database(async |database| {
        let force = format!("plugins/reload?force={NAME}");
        // While the version before serves; the row lacks the field, which force accepts as well.
        let (server, product, _) = serving(database, true).await;
        server.folder.write(FILE, demanding("1.0.1"));
        server
            .until(DETAILS, 200, |details| {
                details["last_error"]["stage"] == "version"
            })
            .await;
        server.post(&force, &json!({})).await.is(200);
        let own = until_serves(&server, "1.0.1").await;
        assert!(
            own["warnings"]
                .as_array()
                .expect("a list")
                .contains(&json!(REASON)),
            "{own}"
        );
        let server = server.restart(|_| {});
        let own = until_serves(&server, "1.0.1").await;
        assert!(
            own["warnings"]
                .as_array()
                .expect("a list")
                .contains(&json!(REASON)),
            "{own}"
        );
        server
            .configured(NAME, &product, "m", json!({ "path": "q", "project": "x" }))
            .await;

        // Where it only shows what is stored.
        let folder = server.folder.clone();
        let server = server.restart(|_| folder.write(FILE, share("1.0.2", PATH, "")));
        server
            .until(DETAILS, 200, |details| {
                details["last_error"]["stage"] == "plan"
            })
            .await;
        let open = format!("{PATH}, {PROJECT}, {NOTE}");
        let server = server.restart(|_| folder.write(FILE, share("1.0.2", &open, "")));
        server
            .until(DETAILS, 200, |details| {
                details["last_error"]["stage"] == "version"
            })
            .await;
        server.post(&force, &json!({})).await.is(200);
        until_serves(&server, "1.0.2").await;
        server
            .configured(
                NAME,
                &product,
                "o",
                json!({ "path": "q", "project": "x", "note": "y" }),
            )
            .await;

        // By the command line, beside the server that refused it.
        let more = format!("{open}, field.string \"more\" {{}}");
        let server = server.restart(|_| folder.write(FILE, share("1.0.3", &more, "")));
        server
            .until(DETAILS, 200, |details| {
                details["last_error"]["stage"] == "version"
            })
            .await;
        let complaint = server.run(&["plugin", "migrate", NAME]).badly();
        assert!(
            complaint.contains("fields.more is new, which is an addition; make it 1.1.0"),
            "{complaint}"
        );
        let done = server.run(&["plugin", "migrate", NAME, "--force"]);
        assert!(
            done.stderr
                .contains("warning: ShareDataOutput: the version 1.0.3 after 1.0.2"),
            "{done:#?}"
        );
        assert!(done.well().contains("add_more applied"));
        until_serves(&server, "1.0.3").await;
        server
            .configured(
                NAME,
                &product,
                "p",
                json!({ "path": "q", "project": "x", "more": "y" }),
            )
            .await;
        // Where nothing is to run, too.
        let silent = share("1.0.4", &more, "aliases = { \"Share\" }");
        let server = server.restart(|_| folder.write(FILE, &silent));
        server
            .until(DETAILS, 200, |details| {
                details["last_error"]["stage"] == "version"
            })
            .await;
        let complaint = server.run(&["plugin", "migrate", NAME]).badly();
        assert!(complaint.contains("aliases.Share is new"), "{complaint}");
        server.run(&["plugin", "migrate", NAME, "--force"]).well();
        until_serves(&server, "1.0.4").await;
    })
    .await;
}

#[tokio::test]
async fn a_second_server_does_not_take_what_the_first_refuses() {
    on_postgres(async |database| {
        let (first, product, id) = serving(database, true).await;
        let second = Server::start(|options| {
            options.database(database).file(FILE, demanding("1.0.1"));
            strict(options, true);
        });
        only_shown(&second, &product, &id, REASON).await;
        first
            .patch(
                &format!("configurations/{id}"),
                &json!({ "description": "d" }),
            )
            .await
            .is(200);
        second.folder.write(FILE, share("1.0.0", PATH, ""));
        until_serves(&second, "1.0.0").await;
        second
            .configured(NAME, &product, "m", json!({ "path": "q" }))
            .await;
        // What one server is made to take, the other takes with it.
        first.folder.write(FILE, demanding("1.0.1"));
        first
            .until(DETAILS, 200, |details| {
                details["last_error"]["stage"] == "version"
            })
            .await;
        second.folder.write(FILE, demanding("1.0.1"));
        second
            .until(DETAILS, 200, |details| {
                details["last_error"]["stage"] == "version"
            })
            .await;
        first
            .post(&format!("plugins/reload?force={NAME}"), &json!({}))
            .await
            .is(200);
        for server in [&first, &second] {
            until_serves(server, "1.0.1").await;
        }
    })
    .await;
}

const CREATE: &str = r#"migration "0001_create" { up = function(m) m:create_table("share_data_output_configurations", {
    column.id(), column.text "path" { nullable = false }, column.text "note" {} }) end }"#;
const DROP: &str = r#"migration "0002_drop" { up = function(m) m:drop_column("share_data_output_configurations", "note") end }"#;

/// The plugin with written steps.
fn stepped(version: &str, fields: &str, steps: &[&str]) -> String {
    let lines = format!("migrations = {{ {} }}", steps.join(", "));
    share(version, fields, &lines).replacen(
        "return",
        "local migration = patchbay.migration\nreturn",
        1,
    )
}

#[tokio::test]
async fn no_step_runs_for_a_version_that_a_strict_server_refuses() {
    for_each_database(async |database| {
        let both = format!("{PATH}, {NOTE}");
        let server = Server::start(|options| {
            options
                .database(database)
                .file(FILE, stepped("1.0.0", &both, &[CREATE]));
            strict(options, true);
        });
        let product = server.data_product("sales", "sales").await;
        let values = json!({ "path": "p", "note": "kept" });
        let id = server.configured(NAME, &product, "n", values).await;
        server
            .folder
            .write(FILE, stepped("1.0.1", PATH, &[CREATE, DROP]));
        let refused = server
            .until(DETAILS, 200, |details| {
                details["last_error"]["stage"] == "version"
            })
            .await;
        let reason = refused["last_error"]["message"]
            .as_str()
            .expect("a message");
        assert!(
            reason.contains("which is a breaking change; make it 2.0.0"),
            "{reason}"
        );
        for words in [
            &["plugin", "migrate", NAME][..],
            &["plugin", "migrate", NAME, "--to", "2"],
        ] {
            let complaint = server.run(words).badly();
            assert!(complaint.contains(reason), "{complaint}");
        }
        // The version before writes, and its column has its values.
        let columns = database.columns(&server.folder, TABLE).await;
        assert_eq!(columns, ["id", "path", "note"]);
        let path = format!("configurations/{id}");
        server
            .patch(&path, &json!({ "description": "d" }))
            .await
            .is(200);
        server
            .configured(NAME, &product, "m", json!({ "path": "q", "note": "n" }))
            .await;
        assert_eq!(
            server.get(&path).await.is(200).json()["configuration"]["note"],
            "kept"
        );
        let mut held = server.get("plugins/migrations").await.is(200).json();
        assert_eq!(
            held["migrations"][NAME][1]["state"].take(),
            "pending",
            "{held}"
        );

        // With force it runs, and the running server takes the version.
        let done = server.run(&["plugin", "migrate", NAME, "--force"]);
        assert!(
            done.stderr
                .contains("which is a breaking change; make it 2.0.0"),
            "{done:#?}"
        );
        assert!(done.well().contains("0002_drop applied"));
        until_serves(&server, "1.0.1").await;
        server
            .configured(NAME, &product, "o", json!({ "path": "r" }))
            .await;
    })
    .await;
}

#[tokio::test]
async fn without_strict_a_step_runs_with_a_warning() {
    for_each_database(async |database| {
        let both = format!("{PATH}, {NOTE}");
        let server = Server::start(|options| {
            options
                .database(database)
                .file(FILE, stepped("1.0.0", &both, &[CREATE]));
        });
        until_serves(&server, "1.0.0").await;
        server
            .folder
            .write(FILE, stepped("1.0.1", PATH, &[CREATE, DROP]));
        server
            .until(DETAILS, 200, |details| {
                details["last_error"]["stage"] == "migration"
            })
            .await;
        let done = server.run(&["plugin", "migrate", NAME]);
        assert!(
            done.stderr
                .contains("warning: ShareDataOutput: the version 1.0.1 after 1.0.0"),
            "{done:#?}"
        );
        assert!(done.well().contains("0002_drop applied"));
        let own = until_serves(&server, "1.0.1").await;
        assert!(
            own["warnings"].to_string().contains("make it 2.0.0"),
            "{own}"
        );
    })
    .await;
}

/// A refused version in a plugin path is no reason to stop the one that ships, not even after a restart.
#[tokio::test]
async fn of_several_places_the_one_that_keeps_its_word_serves() {
    for_each_database(async |database| {
        let folder = Folder::new();
        folder.write("one/share.lua", share("1.0.0", PATH, ""));
        let server = Server::start_in(folder.clone(), |options| {
            options
                .database(database)
                .env("PATCHBAY_PLUGIN_PATHS", "one:two");
            strict(options, true);
        });
        let product = server.data_product("sales", "sales").await;
        server
            .configured(NAME, &product, "n", json!({ "path": "p" }))
            .await;
        folder.write("two/share.lua", demanding("1.0.1"));
        let server = server.restart(|_| {});
        until_serves(&server, "1.0.0").await;
        let status = server.get("plugins/status").await.is(200).json();
        let refused = entry_at(&status, "two/share.lua");
        assert_eq!(
            refused["last_error"]["message"],
            format!("{REASON}{REMEDY}"),
            "{status}"
        );
        assert_eq!(refused["state"], "failed", "{status}");
        server
            .configured(NAME, &product, "m", json!({ "path": "q" }))
            .await;
    })
    .await;
}

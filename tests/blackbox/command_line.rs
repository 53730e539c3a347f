//! The verbs.

use patchbay_test_cluster::{Cluster, GUARDED_PASSWORD};

use crate::harness::{Database, Folder, Server, for_each_database, on_postgres, run, run_with};
use crate::readme_words::Program;
use crate::world::{bigquery, names, plugin};

#[test]
fn help_names_every_verb() {
    let folder = Folder::new();
    let help = run(&folder, &["--help"]).well();
    for word in [
        "serve",
        "plugin",
        "catalogue",
        "health",
        "--config",
        "--database-url",
        "--plugin-path",
        "--log",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    for verb in [
        &["serve", "--help"][..],
        &["plugin", "--help"],
        &["plugin", "check", "--help"],
        &["catalogue", "apply", "--help"],
    ] {
        assert!(!run(&folder, verb).well().is_empty(), "{verb:?}");
    }
    assert!(
        run(&folder, &["--version"])
            .well()
            .contains(env!("CARGO_PKG_VERSION"))
    );
    let complaint = run(&folder, &["plugin", "chekc"]).badly();
    assert!(complaint.contains("check"), "{complaint}");
    assert!(!folder.path("data").exists());
}

#[test]
fn plugin_check_shows_the_configured_set() {
    let folder = Folder::new();
    folder.write("lua-plugins/bigquery.lua", bigquery("1.2.3", "Dataset"));
    let said = run(&folder, &["plugin", "check"]).well();
    insta::assert_snapshot!(said, @r#"
    found   DatabricksDataOutput  version 1.0.0  from embedded:databricks  latest migration migrations/0001_create_table.lua
    found   GlueDataOutput  version 1.0.0  from embedded:glue  latest migration migrations/0001_create_table.lua
    found   RedshiftDataOutput  version 1.0.0  from embedded:redshift  latest migration migrations/0001_create_table.lua
    found   SnowflakeDataOutput  version 1.0.0  from embedded:snowflake  latest migration migrations/0001_create_table.lua
    found   BigQueryDataOutput  version 1.2.3  from lua-plugins/bigquery.lua  latest migration -
    warning: ui_metadata: expected a `tooltip` for "dataset" that says what to type, found none, and its field has no `description` either
      --> lua-plugins/bigquery.lua:14:13
       |
    14 |             ui.string "dataset" { label = "Dataset", required = true },
       |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ [1]
       |
       = help: add `tooltip = "…"`, or a `description` to the field

    warning: ui_metadata: expected a `tooltip` for "table" that says what to type, found none, and its field has no `description` either
      --> lua-plugins/bigquery.lua:15:13
       |
    15 |             ui.string "table" { label = "Table", initial_value = "*" },
       |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ [2]
       |
       = help: add `tooltip = "…"`, or a `description` to the field

    5 plugins registered, 0 failed, 2 warnings
    "#);
}

#[test]
fn plugin_check_fails_when_a_plugin_does() {
    // What only fails to give a form is registered all the same.
    for (source, says, registered) in [
        ("return patchbay.plugin {".to_owned(), "bad.lua:1", 4),
        (
            plugin("BadDataOutput", "feilds = {},"),
            "did you mean `fields`?",
            4,
        ),
        (
            plugin(
                "BadDataOutput",
                "ui_metadata = function() error('no form') end,",
            ),
            "no form",
            5,
        ),
        (plugin("BadDataOutput", "requires = \">=99\","), ">=99", 4),
        (
            plugin(
                "SnowflakeDataOutput2",
                "table = \"snowflake_data_output_configurations\",",
            ),
            "snowflake_data_output_configurations",
            4,
        ),
        ("return 5".to_owned(), "patchbay.plugin", 4),
    ] {
        let folder = Folder::new();
        folder.write("lua-plugins/bad.lua", source);
        let finished = run(&folder, &["plugin", "check"]);
        assert_eq!(finished.code, Some(1), "{finished:#?}");
        assert!(
            finished.stdout.contains("FAILED") && finished.stdout.contains(says),
            "{says}: {finished:#?}"
        );
        assert!(
            finished.stdout.contains("SnowflakeDataOutput"),
            "the others are shown as well: {finished:#?}"
        );
        let last = finished.stdout.lines().last().expect("a last line");
        let counted = format!("{registered} plugins registered, 1 failed");
        assert!(last.starts_with(&counted), "{says}: {last}");
    }
    let finished = run_with(&Folder::new(), |options| {
        options
            .env("ENABLED_PLUGINS", "SnowflakeDataOutptu")
            .arg("plugin")
            .arg("check");
    });
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert!(
        finished
            .stdout
            .contains("did you mean \"SnowflakeDataOutput\"?"),
        "{finished:#?}"
    );
}

#[test]
fn plugin_check_can_be_told_where_to_look() {
    let folder = Folder::new();
    folder.write("mine/plugin.lua", bigquery("1.0.0", "Dataset"));
    let said = run(&folder, &["--plugin-path", "mine", "plugin", "check"]).well();
    assert!(said.contains("BigQueryDataOutput"), "{said}");
    let said = run(&folder, &["plugin", "check", "--plugin-path", "mine"]).well();
    assert!(said.contains("BigQueryDataOutput"), "{said}");
    folder.write(
        "settings.toml",
        "plugin_paths = [\"mine\"]\nenabled_plugins = []\n",
    );
    let said = run(&folder, &["plugin", "check", "--config", "settings.toml"]).well();
    assert!(
        said.contains("BigQueryDataOutput") && said.contains("1 plugins registered"),
        "{said}"
    );
}

#[test]
fn plugin_migrations_prints_each_plugins_files() {
    let folder = Folder::new();
    folder.write("lua-plugins/bigquery.lua", bigquery("1.0.0", "Dataset"));
    let said = run(&folder, &["plugin", "migrations"]).well();
    insta::assert_snapshot!(said, @"
    BigQueryDataOutput
      0001_create_table  (derived from the fields)  reversible
    DatabricksDataOutput
      0001_create_table  migrations/0001_create_table.lua  reversible
    GlueDataOutput
      0001_create_table  migrations/0001_create_table.lua  reversible
    RedshiftDataOutput
      0001_create_table  migrations/0001_create_table.lua  reversible
    SnowflakeDataOutput
      0001_create_table  migrations/0001_create_table.lua  reversible
    ");
}

#[tokio::test]
async fn catalogue_apply_shows_the_difference_first() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.file(
                "more.toml",
                "[[platform]]\nname = \"Lakes\"\n[[platform.service]]\nname = \"Lake\"\n\
                 result_string_template = \"{path}\"\noptions = [\"a\"]\n\n[[environment]]\nname = \"development\"\n\
                 acronym = \"d\"\nis_default = true\n",
            );
            options.file("bad.toml", "[[platform]]\nnmae = \"Lakes\"\n");
            options.file("worse.toml", "[[platform]\n");
        });
        let before = server.get("configuration/platforms").await.is(200).json();
        let said = server.run(&["catalogue", "apply", "more.toml", "--dry-run"]).well();
insta::allow_duplicates! {
        insta::assert_snapshot!(said, @r#"
        + platform Lakes
        + service Lakes / Lake
        + options of Lakes / Lake: ["a"]
        ~ environment development: acronym, context
        "#);
}

        // Where nobody can be asked, nothing is done.
        let complaint = server.run(&["catalogue", "apply", "more.toml"]).badly();
        assert!(complaint.contains("--yes"), "{complaint}");
        assert_eq!(server.get("configuration/platforms").await.is(200).json(), before);
        let said = server.run(&["catalogue", "apply", "more.toml", "--yes"]).well();
        assert!(said.contains("changes applied"), "{said}");
        server
            .until("configuration/platforms", 200, |platforms| platforms.to_string().contains("Lakes"))
            .await;
        let platforms = server.get("configuration/platforms").await.is(200).text();
        assert!(platforms.contains("AWS"), "nothing is deleted");
        let said = server.run(&["catalogue", "apply", "more.toml", "--yes"]).well();
        assert!(said.contains("nothing to change"), "{said}");
        for (file, says) in [("nowhere.toml", "nowhere.toml"), ("bad.toml", "nmae"), ("worse.toml", "worse.toml")] {
            let complaint = server.run(&["catalogue", "apply", file, "--yes"]).badly();
            assert!(complaint.contains(says), "{file}: {complaint}");
        }
    })
    .await;
}

#[tokio::test]
async fn health_asks_the_server() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let address = server.address.clone();
        let said = run(&server.folder, &["health", "--address", &address]).well();
        assert!(said.contains("healthy"), "{said}");
        let by_setting = run_with(&server.folder, |options| {
            options.env("PATCHBAY_LISTEN", &address).arg("health");
        });
        by_setting.well();
        server.stop().well();
        run(&Folder::new(), &["health", "--address", &address]).badly();
    })
    .await;
}

#[test]
fn settings_that_are_wrong_are_said_in_a_line() {
    for (name, value, says) in [
        ("PATCHBAY_LISTN", "x", "did you mean PATCHBAY_LISTEN?"),
        ("PATCHBAY_WHATEVER", "x", "PATCHBAY_WHATEVER"),
        ("PATCHBAY_LISTEN", "nowhere", "listen"),
        ("PATCHBAY_READERS", "many", "PATCHBAY_READERS"),
        ("PATCHBAY_READERS", "0", "readers"),
        ("PATCHBAY_SYNCHRONOUS", "sometimes", "synchronous"),
        ("PATCHBAY_LOG", "warning", "log"),
        ("PATCHBAY_DATABASE_URL", "nonsense", "database_url"),
        ("PATCHBAY_CATALOGUE", "nowhere.toml", "nowhere.toml"),
        ("PATCHBAY_CONFIG", "nowhere.toml", "nowhere.toml"),
        ("ENABLED_PLUGINS", "[\"a\"", "ENABLED_PLUGINS"),
        (
            "PATCHBAY_CORS_ORIGINS",
            "portal.example.com",
            "cors_origins",
        ),
    ] {
        let folder = Folder::new();
        let complaint = run_with(&folder, |options| {
            options
                .env("PATCHBAY_LISTEN", "127.0.0.1:0")
                .env(name, value);
        })
        .badly();
        assert!(complaint.contains(says), "{name}={value}: {complaint}");
    }
    let folder = Folder::new();
    folder.write("settings.toml", "lisen = \"127.0.0.1:0\"\n");
    let complaint = run(&folder, &["--config", "settings.toml", "serve"]).badly();
    assert!(
        complaint.contains("lisen") && complaint.contains("settings.toml"),
        "{complaint}"
    );
}

#[test]
fn a_secret_of_the_wrong_type_is_not_shown() {
    for line in [
        "api_token = 48151623",
        "api_token = [\"48151623\"]",
        "api_token = { is = \"48151623\" }",
        "database_url = 48151623",
        "database_url = [\"48151623\"]",
        "plugins = \"48151623\"",
        "plugins.GitHubPlugin = \"48151623\"",
        "plugins.GitHubPlugin = [48151623]",
    ] {
        let folder = Folder::new();
        folder.write("settings.toml", format!("{line}\n"));
        let finished = run(&folder, &["--config", "settings.toml", "serve"]);
        assert!(
            !finished.stdout.contains("48151623"),
            "{line}: {finished:#?}"
        );
        let complaint = finished.badly();
        assert!(!complaint.contains("48151623"), "{line}: {complaint}");
        let key = line.split([' ', '.']).next().expect("a key");
        assert!(
            complaint.contains(&format!("`{key}")) && complaint.contains("settings.toml"),
            "{line}: {complaint}"
        );
        assert!(
            complaint.contains("expected") && complaint.contains("found"),
            "{line}: {complaint}"
        );
    }
    // What is no secret is shown, because that helps to find it.
    let folder = Folder::new();
    folder.write("settings.toml", "readers = \"48151623\"\n");
    let complaint = run(&folder, &["--config", "settings.toml", "serve"]).badly();
    assert!(complaint.contains("48151623"), "{complaint}");
}

#[tokio::test]
async fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let folder = Folder::new();
    folder.write(
        "settings.toml",
        "listen = \"127.0.0.1:1\"\ndatabase_url = \"sqlite://file.db\"\nplugin_paths = [\"by-file\"]\n\
         log = \"debug\"\n",
    );
    for place in ["by-file", "by-environment", "by-flag"] {
        let name = format!("{}DataOutput", place.replace("by-", "X"));
        folder.write(&format!("{place}/own.lua"), plugin(&name, ""));
    }
    let server = Server::start_in(folder, |options| {
        options
            .env("PATCHBAY_CONFIG", "settings.toml")
            .env("PATCHBAY_LISTEN", "127.0.0.1:1")
            .env("PATCHBAY_DATABASE_URL", "sqlite://environment.db")
            .env("PATCHBAY_PLUGIN_PATHS", "by-environment")
            .env("PATCHBAY_LOG", "info")
            .env("ENABLED_PLUGINS", "[]");
        for word in [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--database-url",
            "sqlite://flag.db",
            "--plugin-path",
            "by-flag",
            "--log",
            "error",
        ] {
            options.arg(word);
        }
    });
    let list = server.get("plugins").await.is(200).json();
    assert_eq!(names(&list), ["XflagDataOutput"]);
    assert!(server.folder.path("flag.db").exists());
    assert!(!server.folder.path("environment.db").exists());
    assert!(!server.folder.path("file.db").exists());
    assert_eq!(server.logged(), "");
}

#[tokio::test]
async fn the_memory_of_plugins_is_as_set() {
    // Eight times a megabyte of text, which no two share.
    let hungry = plugin(
        "HungryDataOutput",
        r#"    ui_metadata = function()
        local texts = {}
        for place = 1, 8 do
            texts[place] = string.rep("x", 1000000) .. place
        end
        return { ui.string "path" { label = "Path " .. #texts } }
    end,"#,
    );
    for (memory, fits) in [(None, true), (Some("4"), false)] {
        let server = Server::start(|options| {
            options.file("lua-plugins/hungry.lua", &hungry);
            options.env("ENABLED_PLUGINS", "[]");
            if let Some(memory) = memory {
                options.env("PATCHBAY_LUA__MEMORY_MIB", memory);
            }
        });
        let details = server.get("plugins/HungryDataOutput").await.is(200).json();
        let error = &details["last_error"];
        match fits {
            true => assert_eq!(details["state"], "active", "{error}"),
            false => {
                assert_eq!(details["state"], "failed", "{error}");
                let message = error["message"].as_str().expect("a message");
                assert!(message.contains("memory"), "{message}");
            }
        }
    }
}

#[tokio::test]
async fn a_settings_file_is_over_the_defaults_and_under_the_environment() {
    let server = Server::start(|options| {
        options.file(
            "settings.toml",
            "listen = \"127.0.0.1:1\"\ndatabase_url = \"sqlite://elsewhere/file.db\"\nbody_limit = 100\n\
             enabled_plugins = [\"GitHubPlugin\"]\n\n[plugins.GitHubPlugin]\ngithub_org = \"our-org\"\n",
        );
        options
            .env("PATCHBAY_BODY_LIMIT", "1000")
            .env("PATCHBAY_CONFIG", "settings.toml");
    });
    assert!(server.folder.path("elsewhere/file.db").exists());
    assert!(!server.folder.path("data/patchbay.db").exists());
    let product = server.data_product("sales", &"d".repeat(200)).await;
    let link = server
        .get(&format!("plugins/github/url?id={product}"))
        .await
        .is(200)
        .json();
    assert_eq!(link["url"], "https://github.com/our-org/sales");
}

#[tokio::test]
async fn the_log_goes_where_it_is_told_and_in_which_form() {
    let server = Server::start(|options| {
        options
            .env("PATCHBAY_LOG_FORMAT", "json")
            .env("PATCHBAY_LOG_FILE", "logs/patchbay.log");
    });
    server
        .get_with("plugins/Nope/form", ("x-request-id", "find-me"))
        .await
        .error(404);
    let folder = server.folder.clone();
    assert_eq!(server.logged(), "");
    let log = folder.read("logs/patchbay.log");
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    let about: Vec<String> = lines
        .iter()
        .map(ToString::to_string)
        .filter(|line| line.contains("find-me"))
        .collect();
    assert_eq!(
        about.len(),
        1,
        "an error is logged once, with its request's id: {log}"
    );
    assert!(about[0].contains("Plugin 'Nope' not found"), "{}", about[0]);
}

#[tokio::test]
async fn the_password_of_a_database_is_shown_nowhere() {
    on_postgres(async |database| {
        let Database::Postgres(url) = database else { panic!("{database:?}") };
        let hidden = |text: &str| {
            for secret in [GUARDED_PASSWORD, &GUARDED_PASSWORD.replace(' ', "%20"), "hush"] {
                assert!(!text.contains(secret), "{text}");
            }
        };
        let cluster = Cluster::shared();
        let right = cluster.guarded(url, GUARDED_PASSWORD).await;
        let server = Server::start(|options| {
            options
                .env("PATCHBAY_DATABASE_URL", &right)
                .env("PATCHBAY_LOG", "trace")
                .env("PATCHBAY_SERVER_NAME", "the guarded one");
        });
        let named = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'patchbay the guarded one' \
             AND usename = 'guarded' AND datname = current_database()";
        assert!(database.number(&server.folder, named).await > 1);
        server.data_product("sales", "sales").await;
        for path in ["/readyz", "/metrics", "/api/openapi.json", "plugins/status"] {
            hidden(&server.get(path).await.is(200).text());
        }
        hidden(&server.run(&["plugin", "check"]).well());
        let log = server.logged();
        let place = url.rsplit('@').next().expect("a place");
        assert!(log.contains(&format!("opening the database postgres://{place}")), "{log}");
        hidden(&log);

        let wrong = cluster.guarded(url, "hush").await;
        let nowhere = wrong.replace(&format!(":{}/", cluster.port()), ":1/");
        for (url, says) in [
            (wrong, "check the user and the password"),
            (nowhere, "check that Postgres runs there"),
            ("postgres://me:hush@127.0.0.1/db?sslmode=maybe".to_owned(), "verify-full"),
            ("postgres://me:hush@127.0.0.1:no/db".to_owned(), "cannot be read"),
        ] {
            let complaint = run_with(&Folder::new(), |options| {
                options
                    .env("PATCHBAY_LISTEN", "127.0.0.1:0")
                    .env("PATCHBAY_DATABASE_URL", &url)
                    .env("PATCHBAY_START_TIMEOUT_MS", "300")
                    .env("PATCHBAY_LOG", "trace");
            })
            .badly();
            assert!(complaint.contains(says) && complaint.contains("postgres://127.0.0.1"), "{complaint}");
            hidden(&complaint);
        }
    })
    .await;
}

#[test]
fn a_new_plugin_passes_as_it_is_written() {
    let folder = Folder::new();
    let words = [
        "plugin",
        "new",
        "LakeDataOutput",
        "--field",
        "folder!",
        "--field",
        "format:enum",
        "--field",
        "days:integer",
        "--field",
        "share:number",
        "--field",
        "open:boolean",
        "--field",
        "tags:list!",
        "--field",
        "more:json",
    ];
    let said = run(&folder, &words).well();
    assert!(said.contains("lua-plugins/lake is there"), "{said}");
    // What it names next can be run as it stands there.
    for (verb, says) in [
        (
            &["check", "--deny-warnings"][..],
            "1 plugin checked, 0 failed",
        ),
        (&["test"], "2 passed, 0 failed"),
    ] {
        let next = format!("patchbay plugin {} lua-plugins/lake", verb[0]);
        assert!(said.contains(&next), "{said}");
        let words = [&["plugin"], verb, &["lua-plugins/lake"]].concat();
        let passed = run(&folder, &words).well();
        assert!(passed.contains(says), "{passed}");
        assert!(!passed.contains("warning"), "{passed}");
    }
    let checked = run(&folder, &["plugin", "check"]).well();
    assert!(
        checked.contains("found   LakeDataOutput  version 0.1.0  from lua-plugins/lake"),
        "{checked}"
    );
    assert!(
        folder
            .read("lua-plugins/lake/lake-logo.svg")
            .contains("<svg")
    );
    // The same works outside of the plugin paths.
    let aside = [&words[..], &["--in", "aside"]].concat();
    let said = run(&folder, &aside).well();
    assert!(
        said.contains("aside is no plugin path")
            && said.contains("patchbay plugin check aside/lake"),
        "{said}"
    );
    run(
        &folder,
        &["plugin", "check", "--deny-warnings", "aside/lake"],
    )
    .well();
    run(&folder, &["plugin", "test", "aside/lake"]).well();
    let again = run(&folder, &words).badly();
    assert!(
        again.contains("there is a plugin in lua-plugins/lake already"),
        "{again}"
    );
    for (words, says) in [
        (&["plugin", "new"][..], "no terminal to ask on"),
        (&["plugin", "new", "not a name"], "is no name for a plugin"),
        (
            &["plugin", "new", "Other", "--field", "x:text"],
            "\"text\" is no kind of field; expected one of string",
        ),
        (
            &["plugin", "new", "Other", "--field", "Id"],
            "is no name for a field",
        ),
        (
            &["plugin", "new", "Other", "--field", "a", "--field", "a!"],
            "the field \"a\" is there twice",
        ),
    ] {
        let complaint = run(&folder, words).badly();
        assert!(complaint.contains(says), "{complaint}");
        assert!(!folder.path("lua-plugins/other").exists());
    }
}

#[test]
fn a_plugin_has_a_reference_page() {
    let folder = Folder::new();
    let page = run(
        &folder,
        &["plugin", "docs", "SnowflakeTechnicalAssetConfiguration"],
    )
    .well();
    for line in [
        "# Snowflake",
        "| `access_granularity` | `schema`, `table` | yes |  |  |",
        "It has a form of its own, values brought into shape before they are stored, rules of its own, an access path that \
         is finished by code, a link.",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    let complaint = run(&folder, &["plugin", "docs", "Nothing"]).badly();
    assert!(
        complaint.contains("`patchbay plugin check` lists the plugins"),
        "{complaint}"
    );
}

/// All verbs of the program, each with its flags.
fn every_verb() -> Vec<(Vec<String>, Vec<String>)> {
    let program = Program::new();
    let mut paths = vec![Vec::new()];
    let mut all = Vec::new();
    while let Some(path) = paths.pop() {
        let verb = program.verb(&path);
        // `help` only repeats what the others say.
        for word in verb.verbs.iter().filter(|word| *word != "help") {
            paths.push([&path[..], std::slice::from_ref(word)].concat());
        }
        all.push((path, verb.flags.into_keys().collect()));
    }
    all
}

/// Asserts that quotes and brackets of a script are closed in the order in which they were opened.
fn is_balanced(shell: &str, script: &str) {
    let mut open = Vec::new();
    let mut quoted = false;
    for (place, line) in script.lines().enumerate() {
        for letter in line.chars() {
            // A quote within quotes is written twice, which closes and opens them.
            match letter {
                '\'' => quoted = !quoted,
                _ if quoted => {}
                '#' => break,
                '(' => open.push(')'),
                '[' => open.push(']'),
                '{' => open.push('}'),
                ')' | ']' | '}' => {
                    assert_eq!(open.pop(), Some(letter), "{shell}:{}: {line}", place + 1);
                }
                _ => {}
            }
        }
    }
    assert!(open.is_empty() && !quoted, "{shell}: {open:?}");
}

#[test]
fn shells_can_complete_every_verb_and_flag() {
    let folder = Folder::new();
    let verbs = every_verb();
    assert!(verbs.len() > 25, "{verbs:?}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(&folder, &["completions", shell]).well();
        for (path, flags) in &verbs {
            // The generator for fish goes two verbs deep, which is all but `plugin migration new`.
            if shell == "fish" && path.len() > 2 {
                continue;
            }
            // These two have a part for each verb; the others have one list, or functions of their own naming.
            let part = match shell {
                "powershell" | "elvish" => {
                    let name = [&["patchbay".to_owned()], &path[..]].concat().join(";");
                    let (start, end) = match shell {
                        "powershell" => (format!("'{name}' {{"), "break"),
                        _ => (format!("&'{name}'= {{"), "\n        }"),
                    };
                    let (_, rest) = script.split_once(&start).expect(&start);
                    rest.split_once(end).expect(end).0
                }
                _ => &script,
            };
            for word in path.iter().skip(path.len().saturating_sub(1)) {
                assert!(script.contains(word), "{shell}: {word}");
            }
            for flag in flags {
                let written = match shell {
                    "powershell" => format!("[CompletionResult]::new('{flag}', "),
                    "elvish" => format!("cand {flag} '"),
                    "fish" => match flag.strip_prefix("--") {
                        Some(long) => format!("-l {long}"),
                        None => format!("-s {}", flag.trim_start_matches('-')),
                    },
                    _ => flag.clone(),
                };
                assert!(part.contains(&written), "{shell}: {path:?} {flag}");
            }
        }
        if matches!(shell, "powershell" | "elvish") {
            is_balanced(shell, &script);
        }
    }
}

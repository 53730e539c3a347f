//! Which plugins are enabled.

use serde_json::{Value, json};

use crate::harness::Server;
use crate::world::{DEFAULTS, bigquery, entry, entry_at, names, plugin};

/// The names in the list of a server with these settings, and its problems.
async fn listed(enabled: &str, disabled: &str) -> (Vec<String>, Value) {
    let server = Server::start(|options| {
        options
            .env("ENABLED_PLUGINS", enabled)
            .env("DISABLED_PLUGINS", disabled);
        options.file("lua-plugins/own.lua", plugin("OwnDataOutput", ""));
    });
    let list = server.get("plugins").await.is(200).json();
    let found = names(&list).into_iter().map(str::to_owned).collect();
    let status = server.get("plugins/status").await.is(200).json();
    (found, status["problems"].clone())
}

#[tokio::test]
async fn enabled_plugins_chooses_among_the_shipped_and_disabled_plugins_wins() {
    let osi = "OSISemanticModelDataOutput";
    let s3 = "S3DataOutput";
    let own = "OwnDataOutput";
    let defaults = [
        "DatabricksDataOutput",
        "GlueDataOutput",
        own,
        "RedshiftDataOutput",
        "SnowflakeDataOutput",
    ];
    for (enabled, disabled, expected) in [
        ("", "", &defaults[..]),
        (" ", "", &defaults),
        ("[]", "", &[own]),
        ("OSISemanticModelDataOutput", "", &[osi, own]),
        (
            "OSISemanticModelTechnicalAssetConfiguration",
            "",
            &[osi, own],
        ),
        (
            " GlueDataOutput , OSISemanticModelDataOutput ,",
            "",
            &["GlueDataOutput", osi, own],
        ),
        (
            "[\"GlueDataOutput\", \"OSISemanticModelDataOutput\"]",
            "",
            &["GlueDataOutput", osi, own],
        ),
        (
            "app.data_output_configuration.glue.schema.GlueDataOutput",
            "",
            &["GlueDataOutput", own],
        ),
        ("lua-plugins/osi", "", &[osi, own]),
        ("./lua-plugins/osi/plugin.lua", "", &[osi, own]),
        ("[\"lua-plugins/osi/\"]", "", &[osi, own]),
        ("S3DataOutput", "", &[own, s3]),
        ("S3TechnicalAssetConfiguration", "", &[own, s3]),
        (
            "",
            "GlueDataOutput,SnowflakeTechnicalAssetConfiguration",
            &["DatabricksDataOutput", own, "RedshiftDataOutput"],
        ),
        (
            "GlueDataOutput,OSISemanticModelDataOutput",
            "[\"GlueDataOutput\"]",
            &[osi, own],
        ),
        ("[]", "OwnDataOutput", &[]),
        ("[]", "lua-plugins/own.lua", &[]),
    ] {
        let (found, problems) = listed(enabled, disabled).await;
        assert_eq!(
            found, expected,
            "ENABLED_PLUGINS={enabled:?} DISABLED_PLUGINS={disabled:?}"
        );
        assert_eq!(
            problems,
            json!([]),
            "ENABLED_PLUGINS={enabled:?} DISABLED_PLUGINS={disabled:?}"
        );
    }
}

#[tokio::test]
async fn a_name_that_is_found_nowhere_is_reported_and_stops_nothing() {
    let server = Server::start(|options| {
        options.env(
            "ENABLED_PLUGINS",
            "SnowflakeDataOutput,GlueDataOutptu,Zzzzzz",
        );
        options.env("DISABLED_PLUGINS", "DatabricksDataOuput");
    });
    let list = server.get("plugins").await.is(200).json();
    assert_eq!(names(&list), ["SnowflakeDataOutput"]);
    let status = server.get("plugins/status").await.is(200).json();
    let problems: Vec<&str> = status["problems"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let [first, second, third] = problems[..] else {
        panic!("{problems:?}")
    };
    assert!(
        first.contains("GlueDataOutptu") && first.contains("did you mean \"GlueDataOutput\"?"),
        "{first}"
    );
    assert!(
        second.contains("Zzzzzz") && !second.contains("did you mean"),
        "{second}"
    );
    assert!(
        third.contains("DISABLED_PLUGINS") && third.contains("\"DatabricksDataOutput\"?"),
        "{third}"
    );
    let log = server.logged();
    let line = log
        .lines()
        .find(|line| line.contains("GlueDataOutptu"))
        .unwrap_or_else(|| panic!("{log}"));
    assert!(
        line.contains("ERROR") && line.contains("Plugin registry:"),
        "{line}"
    );
}

#[tokio::test]
async fn the_log_about_discovery_begins_with_its_words_and_ends_with_a_count() {
    let server = Server::start(|options| {
        options.file("lua-plugins/own.lua", plugin("OwnDataOutput", ""));
        options.file("lua-plugins/broken.lua", "return nonsense(");
    });
    let log = server.logged();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("Plugin registry:"))
        .collect();
    assert!(
        lines.iter().any(|line| line.contains("OwnDataOutput")),
        "{log}"
    );
    assert!(
        lines.iter().any(|line| line.contains("broken.lua")),
        "{log}"
    );
    let last = lines.last().unwrap_or_else(|| panic!("{log}"));
    let (_, told) = last.split_once("Plugin registry: ").expect("its words");
    assert_eq!(
        told,
        "generation 1, 5 plugins registered, 1 failed, 10 not enabled"
    );
}

#[tokio::test]
async fn every_line_about_discovery_begins_with_its_words() {
    let server = Server::start(|options| {
        options
            .env("PATCHBAY_LOG_FORMAT", "json")
            .env("PATCHBAY_LOG", "debug")
            .env("PATCHBAY_LOG_FILE", "patchbay.log")
            .env("ENABLED_PLUGINS", "SnowflakeDataOutput,GlueDataOutptu")
            .env("PATCHBAY_PLUGIN_PATHS", "lua-plugins:more");
        options.file("lua-plugins/own.lua", plugin("OwnDataOutput", ""));
        options.file("lua-plugins/broken.lua", "return nonsense(");
        options.file(
            "lua-plugins/formless.lua",
            plugin(
                "FormlessDataOutput",
                "ui_metadata = function() error('no') end,",
            ),
        );
        options.file(
            "more/own.lua",
            plugin("OwnDataOutput", "aliases = { \"Mine\" },"),
        );
        options.file(
            "more/new.lua",
            plugin("NewDataOutput", r#"requires = ">=99","#),
        );
    });
    server
        .folder
        .write("lua-plugins/late.lua", bigquery("1.0.0", "Dataset"));
    server
        .until("plugins/BigQueryDataOutput/form", 200, |_| true)
        .await;
    server.folder.remove("lua-plugins/late.lua");
    server
        .until("plugins/BigQueryDataOutput/form", 404, |_| true)
        .await;
    let folder = server.folder.clone();
    server.logged();
    let log = folder.read("patchbay.log");
    let mut messages = Vec::new();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        // A request, and a line that a hook wrote, are about something else.
        if line["target"]
            .as_str()
            .is_some_and(|target| target.starts_with("patchbay_registry"))
        {
            messages.push(
                line["message"]
                    .as_str()
                    .unwrap_or_else(|| panic!("{line}"))
                    .to_owned(),
            );
        }
    }
    for about in [
        "SnowflakeDataOutput",
        "GlueDataOutptu",
        "OwnDataOutput",
        "broken.lua",
        "FormlessDataOutput",
        "more/own.lua",
        "NewDataOutput",
        "BigQueryDataOutput",
        "late.lua is gone",
        "is not enabled",
    ] {
        assert!(
            messages.iter().any(|message| message.contains(about)),
            "{about}: {messages:#?}"
        );
    }
    for message in &messages {
        assert!(message.starts_with("Plugin registry: "), "{message}");
    }
    let last = messages.last().expect("a last line");
    assert_eq!(
        last,
        "Plugin registry: generation 3, 3 plugins registered, 3 failed, 14 not enabled"
    );
}

#[tokio::test]
async fn a_folder_of_plugins_is_scanned_and_what_is_none_is_left_alone() {
    let server = Server::start(|options| {
        options.env("ENABLED_PLUGINS", "[]");
        options.file("lua-plugins/bigquery.lua", bigquery("1.0.0", "Dataset"));
        options.file(
            "lua-plugins/folder/plugin.lua",
            plugin("FolderDataOutput", ""),
        );
        options.file(
            "lua-plugins/bigquery_spec.lua",
            plugin("SpecDataOutput", ""),
        );
        options.file("lua-plugins/lib/shared.lua", "return {}");
        options.file(
            "lua-plugins/types/patchbay.lua",
            plugin("TypesDataOutput", ""),
        );
        options.file(
            "lua-plugins/examples/mine/plugin.lua",
            plugin("ExampleDataOutput", ""),
        );
        options.file("lua-plugins/notes/readme.txt", "no plugin");
        options.file("lua-plugins/.hidden.lua", plugin("HiddenDataOutput", ""));
        options.file("lua-plugins/none.lua", "return { 1, 2 }");
        options.file("lua-plugins/empty.lua", "");
    });
    let list = server.get("plugins").await.is(200).json();
    assert_eq!(names(&list), ["BigQueryDataOutput", "FolderDataOutput"]);
    let status = server.get("plugins/status").await.is(200).json();
    for file in ["none.lua", "empty.lua"] {
        let entry = entry_at(&status, file);
        assert_eq!(
            (&entry["plugin"], &entry["state"]),
            (&Value::Null, &json!("failed")),
            "{file}: {status}"
        );
        let error = &entry["last_error"];
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| text.contains("patchbay.plugin")),
            "{error}"
        );
        assert!(
            error["file"]
                .as_str()
                .is_some_and(|path| path.ends_with(file)),
            "{error}"
        );
    }
    for absent in ["SpecDataOutput", "TypesDataOutput", "HiddenDataOutput"] {
        assert_eq!(entry(&status, absent), &Value::Null, "{absent}");
    }
}

#[tokio::test]
async fn an_example_of_ones_own_is_found_by_its_name() {
    let server = Server::start(|options| {
        options.env("ENABLED_PLUGINS", "ExampleDataOutput");
        options.file(
            "lua-plugins/examples/mine/plugin.lua",
            plugin("ExampleDataOutput", ""),
        );
        options.file(
            "lua-plugins/examples/other/plugin.lua",
            plugin("OtherDataOutput", ""),
        );
    });
    let list = server.get("plugins").await.is(200).json();
    assert_eq!(names(&list), ["ExampleDataOutput"]);
}

#[tokio::test]
async fn a_plugin_path_is_a_folder_of_plugins_or_one_plugins_folder() {
    let examples = format!("{}/lua-plugins/examples", env!("CARGO_MANIFEST_DIR"));
    for paths in [
        format!("{examples}/s3"),
        format!("here:{examples}"),
        format!("here:{examples}/s3/"),
    ] {
        let server = Server::start(|options| {
            options.env("PATCHBAY_PLUGIN_PATHS", &paths);
            options.file("here/own.lua", plugin("OwnDataOutput", ""));
        });
        let form = server.get("plugins/S3DataOutput/form").await.is(200).json();
        assert_eq!(form["parent_platform"], "aws", "{paths}");
        let options: Vec<&Value> = form["ui_metadata"][0]["select"]["options"]
            .as_array()
            .expect("options")
            .iter()
            .map(|option| &option["value"])
            .collect();
        assert_eq!(options, ["datalake", "ingress", "egress"], "{paths}");
        let list = server.get("plugins").await.is(200).json();
        assert_eq!(
            names(&list).contains(&"OwnDataOutput"),
            paths.starts_with("here"),
            "{paths}"
        );
    }
}

#[tokio::test]
async fn a_plugin_for_another_patchbay_is_incompatible() {
    let server = Server::start(|options| {
        options.file(
            "lua-plugins/new.lua",
            plugin("NewDataOutput", r#"requires = ">=99","#),
        );
    });
    server.get("plugins/NewDataOutput/form").await.error(404);
    let details = server.get("plugins/NewDataOutput").await.is(200).json();
    assert_eq!(details["state"], "incompatible");
    let message = details["last_error"]["message"]
        .as_str()
        .expect("a message");
    assert!(
        message.contains(">=99") && message.contains("0.1.0"),
        "{message}"
    );
    let complaint = server.run(&["plugin", "migrate", "NewDataOutput"]).badly();
    assert!(complaint.contains("requires Patchbay >=99"), "{complaint}");
}

#[tokio::test]
async fn settings_of_a_plugin_that_are_wrong_are_said() {
    for (variable, value, says) in [
        (
            "PATCHBAY_PLUGINS__GITHUBPLUGIN__GITHUB_ORGG",
            "x",
            "did you mean `github_org`?",
        ),
        (
            "PATCHBAY_PLUGINS__GITHUBPLUGIN__GITHUB_ORG",
            "two words",
            "github_org",
        ),
    ] {
        let server = Server::start(|options| {
            options
                .env("ENABLED_PLUGINS", "GitHubPlugin")
                .env(variable, value);
        });
        let status = server.get("plugins/status").await.is(200).json();
        let failed = entry_at(&status, "github");
        assert_eq!(
            (&failed["state"], &failed["last_error"]["stage"]),
            (&json!("failed"), &json!("settings")),
            "{failed}"
        );
        let message = failed["last_error"]["message"].as_str().expect("a message");
        assert!(message.contains(says), "{message}");
    }
}

#[tokio::test]
async fn a_word_of_the_routes_is_no_plugin_name() {
    let server = Server::start(|options| {
        for (place, word) in ["status", "migrations", "reload"].iter().enumerate() {
            options.file(&format!("lua-plugins/p{place}.lua"), plugin(word, ""));
        }
        options.file(
            "lua-plugins/alias.lua",
            plugin("FineDataOutput", r#"aliases = { "status" },"#),
        );
    });
    let list = server.get("plugins").await.is(200).json();
    assert_eq!(names(&list), DEFAULTS);
    let status = server.get("plugins/status").await.is(200).json();
    for file in ["p0.lua", "p1.lua", "p2.lua", "alias.lua"] {
        let failed = entry_at(&status, file);
        assert_eq!(failed["state"], "failed", "{file}");
        assert!(failed["last_error"]["line"].is_u64(), "{failed}");
    }
}

#[tokio::test]
async fn a_plugin_for_another_api_is_incompatible_whatever_else_it_says() {
    // One that reads like one for this API, one that uses a function, one that uses a syntax, and one that uses keys which
    // are not known here.
    for newer in [
        plugin("OwnDataOutput", "api = 2,"),
        "return patchbay.plugin {\n    name = \"OwnDataOutput\",\n    api = 2,\n    streams = patchbay.stream \"x\" {},\n}\n"
            .to_owned(),
        "return patchbay.plugin {\n    name = \"OwnDataOutput\",\n    api = 2,\n    fields = [| folder |],\n}\n"
            .to_owned(),
        "local api = 1 + 1\nreturn patchbay.plugin {\n    name = \"OwnDataOutput\",\n    api = api,\n    streams = {},\n}\n"
            .to_owned(),
    ] {
        let server = Server::start(|options| {
            options.file("lua-plugins/own.lua", plugin("OwnDataOutput", ""));
        });
        server.get("plugins/OwnDataOutput/form").await.is(200);
        server.folder.write_by_rename("lua-plugins/own.lua", &newer);
        let status = server
            .until("plugins/status", 200, |status| {
                entry_at(status, "own.lua")["state"] == "incompatible"
            })
            .await;
        let error = &entry_at(&status, "own.lua")["last_error"];
        assert_eq!(error["stage"], "api", "{newer}: {status:#}");
        let message = error["message"].as_str().expect("a message");
        assert!(
            message.contains("this Patchbay speaks plugin API 1")
                && message.contains("install a version of the plugin for API 1, or a Patchbay that speaks 2"),
            "{message}"
        );
        assert_eq!(error["mistakes"].as_array().expect("mistakes").len(), 1, "{error:#}");
        // The last good one stays.
        let form = server.get("plugins/OwnDataOutput/form").await.is(200).json();
        assert_eq!(form["version"], "1.0.0");
        assert_eq!(form["state"], "incompatible");
        server.folder.write_by_rename("lua-plugins/own.lua", plugin("OwnDataOutput", "api = 1,"));
        server
            .until("plugins/OwnDataOutput", 200, |details| details["state"] == "active")
            .await;
    }
}

#[tokio::test]
async fn a_plugin_that_requires_another_patchbay_is_incompatible_whatever_else_it_says() {
    const FILE: &str = "lua-plugins/own.lua";
    // One that reads like one for this Patchbay, and one that uses a key which is not known here.
    for newer in [
        plugin("OwnDataOutput", "requires = \">=99\","),
        "return patchbay.plugin {\n    name = \"OwnDataOutput\",\n    version = \"2.0.0\",\n    requires = \">=99\",\n    streams = {},\n}\n"
            .to_owned(),
    ] {
        let server = Server::start(|options| {
            options.file(FILE, plugin("OwnDataOutput", "requires = \">=0.1, <2\","));
        });
        let good = server.get("plugins/OwnDataOutput/form").await.is(200).json();
        assert_eq!((&good["version"], &good["state"]), (&json!("1.0.0"), &json!("active")));
        server.folder.write_by_rename(FILE, &newer);
        let status = server
            .until("plugins/status", 200, |status| {
                entry_at(status, "own.lua")["state"] == "incompatible"
            })
            .await;
        let error = &entry_at(&status, "own.lua")["last_error"];
        assert_eq!(error["stage"], "requires", "{status:#}");
        let line = newer
            .lines()
            .position(|line| line.contains("requires"))
            .expect("the line");
        assert_eq!(error["line"], line + 1);
        let message = error["message"].as_str().expect("a message");
        assert!(
            message.contains("requires Patchbay >=99, and this is 0.1.0")
                && message.contains("install a version of the plugin that fits 0.1.0, or a Patchbay that is >=99"),
            "{message}"
        );
        assert_eq!(error["mistakes"].as_array().expect("mistakes").len(), 1, "{error:#}");
        // The last good one stays: its form, and what is stored through it.
        let form = server.get("plugins/OwnDataOutput/form").await.is(200).json();
        assert_eq!((&form["version"], &form["state"]), (&json!("1.0.0"), &json!("incompatible")));
        assert_eq!(form["ui_metadata"], good["ui_metadata"]);
        let product = server.data_product("sales", "sales").await;
        server
            .configured("OwnDataOutput", &product, "n", json!({ "path": "p" }))
            .await;
        server
            .folder
            .write_by_rename(FILE, plugin("OwnDataOutput", "requires = \">=0.1\","));
        server
            .until("plugins/OwnDataOutput", 200, |details| {
                details["state"] == "active" && details["last_error"].is_null()
            })
            .await;
    }
}

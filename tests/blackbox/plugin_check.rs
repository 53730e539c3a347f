//! `patchbay plugin check`: of single plugins and packages, and as editors and pipelines read it.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Folder, run, run_with};
use crate::world::plugin;

/// Three mistakes in three places.
const WRONG: &str = r#"local field = patchbay.field

return patchbay.plugin {
    name = "LakeDataOutput",
    vesion = "1.2.0",
    fields = {
        field.string "folder" { requierd = true },
        field.integer "days" { min = "one" },
    },
}
"#;

/// A plugin about which nothing is odd.
const RIGHT: &str = r#"return patchbay.plugin {
    name = "LakeDataOutput",
    fields = { patchbay.field.string "folder" { label = "Folder", description = "Where the files are" } },
}
"#;

fn json_of(folder: &Folder, words: &[&str]) -> (Option<i32>, Value) {
    let finished = run(folder, words);
    let document = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("no JSON ({error}): {finished:#?}"));
    (finished.code, document)
}

#[test]
fn mistakes_come_at_once_with_their_lines_underlined() {
    let folder = Folder::new();
    folder.write("x/lake.lua", WRONG);
    let finished = run(&folder, &["plugin", "check", "x/lake.lua"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    insta::assert_snapshot!(finished.stdout, @r#"
    FAILED  (unknown)  version -  from x/lake.lua  latest migration -
    error: expected one of the keys aliases, api, environment_entry, examples, fields, migrations, name, normalize, placeholders, platform, render, requires, settings, table, ui_metadata, upgrade, url, validate, version, found `vesion`
     --> x/lake.lua:5:5
      |
    5 |     vesion = "1.2.0",
      |     ^^^^^^ vesion
      |
      = help: did you mean `version`?

    error: expected one of the keys default, depends_on, description, label, max, min, name, pattern, required, type, found `requierd`
     --> x/lake.lua:7:33
      |
    7 |         field.string "folder" { requierd = true },
      |                                 ^^^^^^^^ fields[1].requierd
      |
      = help: did you mean `required`?

    error: expected an integer, found "one"
     --> x/lake.lua:8:38
      |
    8 |         field.integer "days" { min = "one" },
      |                                      ^^^^^ fields[2].min

    1 plugin checked, 1 failed
    "#);
    assert_eq!(finished.stderr, "");
    assert!(
        !folder.path("data").exists(),
        "it needs no database and makes none"
    );
}

#[test]
fn what_the_vm_raises_is_underlined_where_the_line_tells() {
    let folder = Folder::new();
    for (source, says) in [
        (
            "local f = patchbay.field\nreturn patchbay.plugin { name = \"A\", fields = { f.strin \"x\" } }\n",
            "x.lua:2:51\n  |\n2 | return patchbay.plugin { name = \"A\", fields = { f.strin \"x\" } }\n  |                                                   ^^^^^\n",
        ),
        (
            "return patchbay.plugin {\n    name = \"A\"\n    version = \"1\",\n}\n",
            "x.lua:3:5\n  |\n3 |     version = \"1\",\n  |     ^^^^^^^^^^^^^^\n",
        ),
        (
            "local function f()\n    error(\"not today\")\nend\nf()\n",
            "error: not today\n --> x.lua:2:5\n  |\n2 |     error(\"not today\")\n  |     ^^^^^^^^^^^^^^^^^^\n",
        ),
    ] {
        folder.write("x.lua", source);
        let finished = run(&folder, &["plugin", "check", "x.lua"]);
        assert_eq!(finished.code, Some(1));
        assert!(
            finished.stdout.contains(says),
            "{says}\n{}",
            finished.stdout
        );
    }
}

#[test]
fn json_is_one_document_for_editors_and_pipelines() {
    let folder = Folder::new();
    folder.write("x/lake.lua", WRONG);
    let (code, document) = json_of(&folder, &["plugin", "check", "--json", "x/lake.lua"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        (
            &document["format"],
            &document["good"],
            &document["errors"],
            &document["warnings"]
        ),
        (&json!(1), &json!(false), &json!(3), &json!(0))
    );
    assert_eq!(
        document["plugins"],
        json!([{ "plugin": null, "version": null, "source": "x/lake.lua", "good": false }])
    );
    assert_eq!(
        document["diagnostics"][1],
        json!({
            "severity": "error",
            "stage": "definition",
            "hook": null,
            "plugin": null,
            "source": "x/lake.lua",
            "file": "x/lake.lua",
            "line": 7,
            "column": 33,
            "end": { "line": 7, "column": 41 },
            "path": "fields[1].requierd",
            "message": "expected one of the keys default, depends_on, description, label, max, min, name, pattern, required, type, found `requierd`",
            "help": "did you mean `required`?",
        })
    );
    // The same keys for what has no place, and for the configured set.
    folder.write("lua-plugins/lake.lua", WRONG);
    let (code, document) = json_of(&folder, &["plugin", "check", "--json"]);
    assert_eq!(code, Some(1));
    let diagnostics = document["diagnostics"].as_array().expect("a list");
    assert!(
        diagnostics
            .iter()
            .any(|one| one["file"] == "lua-plugins/lake.lua" && one["line"] == 5)
    );
    let finished = run_with(&folder, |options| {
        options
            .env("ENABLED_PLUGINS", "Nope")
            .arg("plugin")
            .arg("check")
            .arg("--json");
    });
    let document: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    let problem = document["diagnostics"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["stage"] == "settings"))
        .unwrap_or_else(|| panic!("{document:#}"));
    assert_eq!(problem["file"], Value::Null);
    assert_eq!(problem["source"], Value::Null);
}

#[test]
fn what_nobody_explains_is_a_warning_that_fails_only_when_told_to() {
    let folder = Folder::new();
    folder.write("x.lua", plugin("LakeDataOutput", ""));
    let finished = run(&folder, &["plugin", "check", "x.lua"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(
        finished
            .stdout
            .contains("warning: expected a `label` for \"path\""),
        "{finished:#?}"
    );
    assert!(
        finished
            .stdout
            .ends_with("1 plugin checked, 0 failed, 2 warnings\n"),
        "{finished:#?}"
    );
    let denied = run(&folder, &["plugin", "check", "--deny-warnings", "x.lua"]);
    assert_eq!(denied.code, Some(1), "{denied:#?}");
    let (code, document) = json_of(&folder, &["plugin", "check", "x.lua", "--json"]);
    assert_eq!(code, Some(0));
    assert_eq!(
        (&document["good"], &document["warnings"]),
        (&json!(true), &json!(2))
    );
    assert_eq!(document["diagnostics"][0]["severity"], "warning");
    assert_eq!(document["diagnostics"][0]["plugin"], "LakeDataOutput");
    folder.write("x.lua", RIGHT);
    let said = run(&folder, &["plugin", "check", "--deny-warnings", "x.lua"]).well();
    assert!(said.ends_with("1 plugin checked, 0 failed\n"), "{said}");
}

#[test]
fn everything_that_ships_is_right_and_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("lua-plugins");
    let folder = Folder::new();
    let root = root.display().to_string();
    let said = run(&folder, &["plugin", "check", "--deny-warnings", &root]).well();
    assert!(said.ends_with("15 plugins checked, 0 failed\n"), "{said}");
    assert!(!said.contains("note:"), "each form was made: {said}");
}

#[test]
fn a_template_that_does_not_fit_is_a_warning() {
    let folder = Folder::new();
    folder.write(
        "lake/catalogue.toml",
        "[[platform]]\nname = \"Lake\"\n[[platform.service]]\nname = \"Lake\"\n\
         result_string_template = \"{bucket}/{folder}\"\noptions = []\n",
    );
    folder.write(
        "lake/plugin.lua",
        RIGHT.replace("fields", "placeholders = { \"zone\" },\n    fields"),
    );
    let said = run(&folder, &["plugin", "check", "lake"]).well();
    assert!(
        said.contains("found none for {bucket}") && said.contains("lake/plugin.lua:4:5"),
        "{said}"
    );
    assert!(
        said.contains("\"zone\", which neither has") && said.contains("lake/plugin.lua:3:5"),
        "{said}"
    );
    folder.write("lake/catalogue.toml", "[[platform]]\nnmae = \"Lake\"\n");
    let finished = run(&folder, &["plugin", "check", "lake"]);
    assert_eq!(finished.code, Some(1));
    assert!(
        finished.stdout.contains("lake/catalogue.toml"),
        "{finished:#?}"
    );
}

#[test]
fn a_form_without_its_service_is_said_not_to_have_been_looked_at() {
    let folder = Folder::new();
    let form = "ui_metadata = function(db) return { patchbay.ui.select \"path\" { label = \"P\", options = db:platform_options() } } end,";
    folder.write("x.lua", plugin("LakeDataOutput", form));
    let said = run(&folder, &["plugin", "check", "--deny-warnings", "x.lua"]).well();
    assert!(said.contains("note: the form was not looked at"), "{said}");
    assert!(
        said.contains("help: put them into `catalogue.toml`"),
        "{said}"
    );
}

#[test]
fn a_package_is_checked_as_a_whole() {
    let folder = Folder::new();
    folder.write("pack/lib/words.lua", "return { label = \"Folder\" }");
    folder.write(
        "pack/lake/plugin.lua",
        RIGHT
            .replace(
                "return patchbay",
                "local words = require \"@lib/words\"\nreturn patchbay",
            )
            .replace("label = \"Folder\"", "label = words.label"),
    );
    folder.write("pack/pond.lua", RIGHT.replace("Lake", "Pond"));
    folder.write(
        "pack/patchbay-package.toml",
        "name = \"lakes\"\nversion = \"1.0.0\"\n",
    );
    let said = run(&folder, &["plugin", "check", "pack"]).well();
    assert!(said.ends_with("2 plugins checked, 0 failed\n"), "{said}");

    // Two plugins that claim one name.
    folder.write("pack/pond.lua", RIGHT);
    let finished = run(&folder, &["plugin", "check", "pack"]);
    assert_eq!(finished.code, Some(1));
    assert!(
        finished
            .stdout
            .contains("found \"LakeDataOutput\", which pack/lake has"),
        "{finished:#?}"
    );
    folder.remove("pack/pond.lua");

    folder.write("pack/patchbay-package.toml", "nmae = \"lakes\"\n");
    let finished = run(&folder, &["plugin", "check", "pack"]);
    assert_eq!(finished.code, Some(1));
    assert!(
        finished.stdout.contains("--> pack/patchbay-package.toml")
            && finished.stdout.contains("nmae"),
        "{finished:#?}"
    );
    folder.remove("pack/patchbay-package.toml");

    // A mistake in a module that plugins share is shown where the module lies.
    folder.write("pack/lib/words.lua", "return { label = nil .. \"x\" }");
    let (_, document) = json_of(&folder, &["plugin", "check", "--json", "pack"]);
    assert_eq!(
        document["diagnostics"][0]["file"], "pack/lib/words.lua",
        "{document:#}"
    );
    assert_eq!(document["diagnostics"][0]["line"], 1);
}

#[test]
fn any_file_of_a_plugin_means_the_plugin() {
    let folder = Folder::new();
    folder.write("lake/plugin.lua", RIGHT);
    folder.write("lake/rules.lua", "return {}");
    folder.write("lake/lake_spec.lua", "");
    folder.write(
        "lake/migrations/0001_create_table.lua",
        "return { upp = 1 }",
    );
    for file in [
        "lake",
        "lake/plugin.lua",
        "lake/rules.lua",
        "lake/lake_spec.lua",
        "lake/migrations/0001_create_table.lua",
    ] {
        let finished = run(&folder, &["plugin", "check", file]);
        assert_eq!(finished.code, Some(1));
        assert!(
            finished
                .stdout
                .contains("--> lake/migrations/0001_create_table.lua:1:10"),
            "{file}: {finished:#?}"
        );
    }
    for (word, says) in [
        ("nowhere.lua", "found nothing there"),
        ("LakeDataOutptu", "expected a path, or the name of a plugin"),
        (
            "SnowflakeDataOutptu",
            "did you mean \"SnowflakeDataOutput\"?",
        ),
    ] {
        let complaint = run(&folder, &["plugin", "check", word]).badly();
        assert!(complaint.contains(says), "{word}: {complaint}");
    }
}

#[test]
fn a_configured_plugin_is_checked_by_its_name() {
    let folder = Folder::new();
    folder.write("lua-plugins/bad.lua", "return 5");
    let said = run(
        &folder,
        &["plugin", "check", "SnowflakeTechnicalAssetConfiguration"],
    )
    .well();
    insta::assert_snapshot!(said, @"
    found   SnowflakeDataOutput  version 1.0.0  from embedded:snowflake  latest migration migrations/0001_create_table.lua
    1 plugins registered, 0 failed
    ");
}

#[test]
fn migrations_that_cannot_run_are_told_by_file() {
    let folder = Folder::new();
    folder.write("lake/plugin.lua", RIGHT);
    folder.write(
        "lake/migrations/0001_create_table.lua",
        "return { up = function(m)\n    m:create_table(\"lake_data_output_configurations\", { patchbay.column.id() })\n\
             m:drop_column(\"lake_data_output_configurations\", \"x\")\nend }",
    );
    let finished = run(&folder, &["plugin", "check", "lake"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert!(
        finished
            .stdout
            .contains("the migration 0001_create_table cannot run")
            && finished
                .stdout
                .contains("--> lake/migrations/0001_create_table.lua"),
        "{finished:#?}"
    );
}

//! `patchbay plugin test` and `patchbay plugin types`.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Folder, Server, for_each_database, run};
use crate::world::plugin;

/// What the repository ships.
fn shipped() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("lua-plugins");
    root.display().to_string()
}

const SPEC: &str = r#"
local plugin = patchbay.test.plugin()
describe("it", function()
    it("has a form", function() expect(plugin:form()):to_match_snapshot "form" end)
    it("is stored", function()
        expect(plugin:normalize { dataset = "a" }):to_equal {
            dataset = "b",
        }
    end)
end)
"#;

fn with_spec(spec: &str) -> Folder {
    let folder = Folder::new();
    folder.write(
        "lua-plugins/x.lua",
        plugin(
            "XDataOutput",
            "fields = { patchbay.field.string \"dataset\" },",
        ),
    );
    folder.write("lua-plugins/x_spec.lua", spec);
    folder
}

#[test]
fn every_plugin_that_ships_passes_its_spec() {
    let folder = Folder::new();
    let said = run(&folder, &["plugin", "test", &shipped()]).well();
    let last = said.lines().last().expect("a last line");
    assert!(
        last.contains("in 15 specs") && last.contains(" 0 failed"),
        "{last}"
    );
    for unwanted in ["FAILED", "no spec", "--update"] {
        assert!(!said.contains(unwanted), "{unwanted}: {said}");
    }
    assert!(!folder.path("data").exists(), "nothing is made for tests");
}

#[test]
fn a_failure_shows_its_place_and_what_differs() {
    let folder = with_spec(SPEC);
    let finished = run(&folder, &["plugin", "test"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let mut said: Vec<String> = finished.stdout.lines().map(untimed).collect();
    said.iter_mut().for_each(|line| {
        let end = line.trim_end().len();
        line.truncate(end);
    });
    insta::assert_snapshot!(said.join("\n"), @r#"
    XDataOutput  lua-plugins/x_spec.lua
      it
        FAILED  has a form
                lua-plugins/x_spec.lua:4: there is no snapshot "form" yet; run the tests with --update to write it
                4 |     it("has a form", function() expect(plugin:form()):to_match_snapshot "form" end)
        FAILED  is stored
                lua-plugins/x_spec.lua:6: it should equal what is expected
                6 |         expect(plugin:normalize { dataset = "a" }):to_equal {
                - expected  + found
                  {
                -   dataset = "b",
                +   dataset = "a",
                  }

    2 tests in 1 spec: 0 passed, 2 failed
    "#);
}

/// A line without the time that something took.
fn untimed(line: &str) -> String {
    match line.rsplit_once("  (") {
        Some((rest, time)) if time.ends_with("s)") => rest.to_owned(),
        _ => line.to_owned(),
    }
}

#[test]
fn the_report_is_there_for_programs_too() {
    let folder = with_spec(SPEC);
    let finished = run(&folder, &["plugin", "test", "--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let report: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(
        (&report["passed"], &report["failed"]),
        (&0.into(), &2.into())
    );
    let spec = &report["specs"][0];
    assert_eq!(spec["plugin"], "XDataOutput");
    assert_eq!(spec["file"], "lua-plugins/x_spec.lua");
    let test = &spec["tests"][1];
    assert_eq!(test["names"], json!(["it", "is stored"]));
    assert_eq!(
        (&test["line"], &test["failure"]["line"]),
        (&5.into(), &6.into())
    );
    assert!(test["duration_ms"].is_number());
    assert!(
        test["failure"]["diff"]
            .as_str()
            .is_some_and(|diff| diff.contains("+   dataset = \"a\",")),
        "{test}"
    );
}

#[cfg(unix)]
#[test]
fn snapshots_are_kept_beside_their_spec_wherever_links_lead() {
    let update = ["plugin", "test", "--filter", "has a form", "--update"];
    let decoy = "{ \"name\": \"decoy\" }";
    let link = |target: &str, place: std::path::PathBuf| {
        std::os::unix::fs::symlink(target, place).expect("a link");
    };
    // The folder is a link.
    let folder = with_spec(SPEC);
    folder.write("elsewhere/x_spec.json", decoy);
    link("../elsewhere", folder.path("lua-plugins/__snapshots__"));
    let said = run(&folder, &update).badly();
    assert!(
        said.contains("snapshots are kept beside their spec only"),
        "{said}"
    );
    assert_eq!(folder.read("elsewhere/x_spec.json"), decoy);
    // The file is one.
    let folder = with_spec(SPEC);
    folder.write("package.json", decoy);
    folder.write("lua-plugins/__snapshots__/other.json", "{}");
    link(
        "../../package.json",
        folder.path("lua-plugins/__snapshots__/x_spec.json"),
    );
    let said = run(&folder, &update).badly();
    assert!(said.contains("it is no plain file"), "{said}");
    assert_eq!(folder.read("package.json"), decoy);
}

#[test]
fn what_a_spec_says_does_nothing_to_the_terminal() {
    let folder = with_spec(
        "describe(\"\\27]0;pwn\\7\", function() it(\"a\\27[2Jb\", function() print(\"c\\27[2J\") expect(\"d\\27[2J\").to_be(\"e\") end) end)",
    );
    let finished = run(&folder, &["plugin", "test"]);
    assert!(!finished.stdout.contains(['\x1b', '\x07']), "{finished:?}");
    assert!(finished.stdout.contains("a\\u{1b}[2Jb"), "{finished:?}");
}

#[test]
fn snapshots_are_written_when_told_and_compared_ever_after() {
    let folder = with_spec(SPEC);
    let only = ["plugin", "test", "--filter", "has a form"];
    assert_eq!(run(&folder, &only).code, Some(1));
    assert!(!folder.path("lua-plugins/__snapshots__").exists());
    run(
        &folder,
        &["plugin", "test", "--filter", "has a form", "--update"],
    )
    .well();
    let written = folder.read("lua-plugins/__snapshots__/x_spec.json");
    let snapshots: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(snapshots["form"]["elements"][0]["name"], "dataset");
    run(&folder, &only).well();
    folder.write(
        "lua-plugins/x.lua",
        plugin(
            "XDataOutput",
            "fields = { patchbay.field.string \"dataset\" { label = \"Other\" } },",
        ),
    );
    let finished = run(&folder, &only);
    assert_eq!(finished.code, Some(1));
    assert!(
        finished.stdout.contains("+       label = \"Other\","),
        "{finished:#?}"
    );
    let none = run(&folder, &["plugin", "test", "--filter", "no such test"]);
    assert_eq!(
        none.code,
        Some(1),
        "nothing that ran is no success: {none:#?}"
    );
}

#[test]
fn what_cannot_be_tested_is_said() {
    let folder = with_spec("while true do end");
    folder.write(
        "lua-plugins/lone.lua",
        plugin("LoneDataOutput", "fields = {},"),
    );
    folder.write("lua-plugins/broken.lua", "return patchbay.plugin {");
    folder.write("lua-plugins/broken_spec.lua", "it('x', function() end)");
    let finished = run(&folder, &["plugin", "test"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    for line in [
        "FAILED  lua-plugins/x_spec.lua:1: the top level of its files ran longer than 1000 ms",
        "FAILED  lua-plugins/broken.lua:1: ",
        "no spec  lua-plugins/lone.lua",
        "0 passed, 2 failed",
    ] {
        assert!(finished.stdout.contains(line), "{line}: {finished:#?}");
    }
    for (path, reason) in [
        ("gone", "gone: there is no such file or folder"),
        (
            "lua-plugins/y_spec.lua",
            "there is no plugin beside this spec",
        ),
        ("data", "no such file"),
    ] {
        let complaint = run(&folder, &["plugin", "test", path]).badly();
        assert!(complaint.contains(reason), "{complaint}");
    }
    run(&folder, &["plugin", "test", "lua-plugins/lone.lua"]).well();
}

#[test]
fn types_are_those_that_the_repository_has() {
    let folder = Folder::new();
    let printed = run(&folder, &["plugin", "types"]).well();
    let path = Path::new(&shipped()).join("types/patchbay.d.luau");
    let committed = std::fs::read_to_string(path).expect("the types");
    assert_eq!(printed, committed);
    run(
        &folder,
        &["plugin", "types", "--write", "types/patchbay.d.luau"],
    )
    .well();
    assert_eq!(folder.read("types/patchbay.d.luau"), committed);
}

/// A plugin whose hooks change, refuse and finish.
const JUDGING: &str = r#"
local field = patchbay.field
return patchbay.plugin {
    name = "XDataOutput",
    platform = { platform_key = "snowflake" },
    fields = {
        field.string "database" { required = true, max = 12 },
        field.string "schema" { default = "main" },
        field.string "table" { default = "*" },
        field.integer "days" { min = 1 },
    },
    table = "x_data_output_configurations",
    normalize = function(configuration, context)
        if configuration.table == "refused" then
            return nil, { { field = "table", message = "not this one" }, "nor anything like it" }
        end
        if context.technical_mapping == "default" then
            configuration.database = context.data_product.namespace .. "_" .. configuration.database
        end
        return configuration
    end,
    validate = function(configuration)
        return configuration.schema == "theirs" and { { field = "schema", message = "not yours" } } or {}
    end,
    render = function(configuration, filled, context)
        return filled:upper() .. "/" .. tostring(configuration.days) .. "/" .. context.technical_mapping
    end,
}
"#;

/// Plain data as Luau writes it.
fn in_lua(value: &Value) -> String {
    match value {
        Value::Null => "patchbay.null".to_owned(),
        Value::Object(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("[\"{key}\"] = {}", in_lua(value)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

/// What a server says of a dry run, as a spec sees it: without nulls, and errors by field.
fn as_a_spec_sees_it(mut run: Value) -> Value {
    let errors: Vec<Value> = run["errors"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|error| match error["loc"].get(3) {
            Some(field) => json!({ "field": field, "message": error["msg"] }),
            None => json!({ "message": error["msg"] }),
        })
        .collect();
    let mut seen = json!({ "errors": errors });
    if run["valid"] == true {
        let values = run["configuration"].as_object_mut().expect("values");
        values.retain(|key, value| key != "configuration_type" && !value.is_null());
        seen["values"] = run["configuration"].take();
        seen["path"] = run["access_path"].take();
    }
    seen
}

#[tokio::test]
async fn a_spec_is_told_what_a_server_tells() {
    for_each_database(async |database| {
    let cases = [
        json!({ "database": "dwh" }),
        json!({ "database": "dwh", "schema": "ours", "table": "t-1", "days": 3, "unknown": true }),
        json!({ "database": "dwh", "days": null }),
        json!({}),
        json!({ "database": 5, "schema": true, "days": 0 }),
        json!({ "database": "dwh", "days": 1.5 }),
        json!({ "database": "much too long" }),
        json!({ "database": "dwh", "table": "refused" }),
        json!({ "database": "dwh", "schema": "theirs" }),
    ];
    let server = Server::start(|options| {
        options.database(database).file("lua-plugins/x.lua", JUDGING);
    });
    let product = server.data_product("sales", "commerce").await;
    let (mut told, mut tests) = (serde_json::Map::new(), String::new());
    for (place, case) in cases.iter().enumerate() {
        for mapping in ["default", "custom"] {
            let body = json!({ "data_product_id": product, "technical_mapping": mapping, "configuration": case });
            let answer = server.post("plugins/XDataOutput/validate", &body).await;
            let name = format!("{place} {mapping}");
            told.insert(name.clone(), as_a_spec_sees_it(answer.is(200).json()));
            tests += &format!("try(\"{name}\", {}, \"{mapping}\")\n", in_lua(case));
        }
    }
    assert!(
        told.values()
            .any(|seen| seen["path"] == "SALES_DWH.MAIN.*/nil/default"),
        "{told:#?}"
    );
    let spec = r#"
        local plugin = patchbay.test.plugin { data_product = { namespace = "sales", domain = "commerce" } }
        local function try(name, configuration, mapping)
            it(name, function()
                local world = { technical_mapping = mapping }
                local seen = { errors = plugin:validate(configuration, world) }
                if #seen.errors == 0 then
                    seen.values = plugin:normalize(configuration, world)
                    seen.path = plugin:render("{database}.{schema}.{table}", configuration, world)
                end
                expect(seen):to_match_snapshot(name)
            end)
        end
    "#;
    server
        .folder
        .write("lua-plugins/x_spec.lua", format!("{spec}\n{tests}"));
    let told = serde_json::to_string(&told).expect("JSON");
    server
        .folder
        .write("lua-plugins/__snapshots__/x_spec.json", told);
    let said = server.run(&["plugin", "test"]).well();
    assert!(
        said.contains("18 tests in 1 spec: 18 passed, 0 failed"),
        "{said}"
    );
    })
    .await;
}

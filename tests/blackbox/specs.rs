//! `patchbay plugin test` and `patchbay plugin types`.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Folder, run};
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
    assert_eq!(test["names"], serde_json::json!(["it", "is stored"]));
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

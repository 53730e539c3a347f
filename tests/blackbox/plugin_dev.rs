//! `patchbay plugin dev`: one plugin, served while it is written.

use serde_json::json;

use crate::harness::{Folder, Server, run};
use crate::world::names;

const RIGHT: &str = r#"return patchbay.plugin {
    name = "LakeDataOutput",
    fields = { patchbay.field.string "folder" { label = "Folder", description = "Where the files are" } },
    examples = { { folder = "orders" } },
}
"#;

fn dev(folder: &Folder, words: &[&str]) -> Server {
    folder.write("tmp/here", "");
    let temporary = folder.path("tmp").display().to_string();
    Server::start_in(folder.clone(), |options| {
        options.env("TMPDIR", &temporary).arg("plugin").arg("dev");
        for word in words {
            options.arg(word);
        }
    })
}

#[tokio::test]
async fn a_plugin_is_served_alone_and_live_and_every_slip_is_shown() {
    let folder = Folder::new();
    folder.write("lua-plugins/lake.lua", RIGHT);
    folder.write("lua-plugins/other.lua", RIGHT.replace("Lake", "Other"));
    let mut server = dev(&folder, &["lua-plugins/lake.lua"]);
    server.says("live     LakeDataOutput 1.0");
    let form = server.says("form     ");
    assert!(
        form.ends_with("/api/v2/plugins/LakeDataOutput/form"),
        "{form}"
    );
    assert!(
        server
            .says("schema   ")
            .ends_with("/api/v2/plugins/LakeDataOutput/schema")
    );
    let validate = server.says("validate ");
    assert!(
        validate.contains(r#""configuration":{"folder":"orders"}"#),
        "{validate}"
    );
    let list = server.get("plugins").await.is(200).json();
    assert_eq!(names(&list), ["LakeDataOutput"], "no other plugin is there");
    let form = server
        .get("plugins/LakeDataOutput/form")
        .await
        .is(200)
        .json();
    assert_eq!(form["ui_metadata"][0]["label"], "Folder");
    // There is a data product to try it with, and the default catalogue.
    let products = server.get("data_products").await.is(200).json();
    let product = products["data_products"][0]["id"].clone();
    let dry = json!({ "data_product_id": product, "configuration": { "folder": "orders" } });
    let dry = server
        .post("plugins/LakeDataOutput/validate", &dry)
        .await
        .is(200)
        .json();
    assert_eq!(dry["valid"], true, "{dry}");
    server
        .until("configuration/platforms", 200, |platforms| {
            platforms.to_string().contains("AWS")
        })
        .await;

    folder.write_by_rename(
        "lua-plugins/lake.lua",
        RIGHT.replace("\"Folder\"", "\"Path\""),
    );
    server.says("live     LakeDataOutput 1.0");
    let form = server
        .get("plugins/LakeDataOutput/form")
        .await
        .is(200)
        .json();
    assert_eq!(form["ui_metadata"][0]["label"], "Path");
    let more = RIGHT.replace(
        "} },\n    examples",
        "}, patchbay.field.boolean \"raw\" { label = \"Raw\" } },\n    examples",
    );
    folder.write_by_rename("lua-plugins/lake.lua", &more);
    let changes = server.says("live     LakeDataOutput 1.0");
    assert!(changes.contains("raw"), "it says what changed: {changes:?}");

    folder.write_by_rename(
        "lua-plugins/lake.lua",
        more.replace("description", "descripton"),
    );
    server.says("error: expected one of the keys");
    assert_eq!(server.says(" --> "), "lua-plugins/lake.lua:3:67");
    let line = server.says("3 |     fields = {");
    assert!(line.contains("descripton"), "{line}");
    server.says("  = help: did you mean `description`?");
    server.says("FAILED   LakeDataOutput: version 1.0 keeps serving");
    let form = server
        .get("plugins/LakeDataOutput/form")
        .await
        .is(200)
        .json();
    assert_eq!(form["ui_metadata"].as_array().expect("elements").len(), 2);
    // Saved again as it is, it is said again.
    folder.write_by_rename(
        "lua-plugins/lake.lua",
        more.replace("description", "descripton"),
    );
    server.says("FAILED   LakeDataOutput: version 1.0 keeps serving");

    folder.write_by_rename("lua-plugins/lake.lua", RIGHT.replace("Where the", "Which"));
    server.says("FAILED   LakeDataOutput");
    folder.write_by_rename("lua-plugins/lake.lua", more.replace("Where the", "Which"));
    server.says("live     LakeDataOutput 1.0");
    let form = server
        .get("plugins/LakeDataOutput/form")
        .await
        .is(200)
        .json();
    assert_eq!(form["ui_metadata"][0]["tooltip"], "Which files are");

    folder.remove("lua-plugins/lake.lua");
    server.says("FAILED   LakeDataOutput: version 1.0 keeps serving");
    let finished = server.stop();
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(
        finished.stdout.ends_with("stopped; its database is gone\n"),
        "{finished:#?}"
    );
    let left: Vec<_> = std::fs::read_dir(folder.path("tmp"))
        .expect("a folder")
        .flatten()
        .collect();
    assert_eq!(left.len(), 1, "nothing is left: {left:?}");
    assert!(!folder.path("data").exists());
}

#[tokio::test]
async fn a_plugin_that_fails_at_first_is_waited_for() {
    let folder = Folder::new();
    folder.write("lake/plugin.lua", "return patchbay.plugin {\n");
    let mut server = dev(&folder, &["lake/plugin.lua"]);
    server.says("--> lake/plugin.lua:2");
    server.says("FAILED   (unknown): nothing serves yet");
    folder.write_by_rename("lake/plugin.lua", RIGHT);
    server.says("live     LakeDataOutput 1.0");
    server.says("form     ");
    server.get("plugins/LakeDataOutput/form").await.is(200);
}

#[tokio::test]
async fn what_lies_around_a_plugin_counts_and_its_specs_run() {
    let folder = Folder::new();
    folder.write("lua-plugins/lib/words.lua", "return { label = \"Folder\" }");
    let source = format!("local words = require \"@lib/words\"\n{RIGHT}")
        .replace("\"Folder\"", "words.label");
    folder.write("lua-plugins/lake/plugin.lua", source);
    folder.write(
        "lua-plugins/lake/catalogue.toml",
        "[[platform]]\nname = \"Lake\"\n[[platform.service]]\nname = \"Lake\"\nresult_string_template = \"{folder}\"\n",
    );
    folder.write(
        "lua-plugins/lake/lake_spec.lua",
        "local plugin = patchbay.test.plugin()\nit(\"has a form\", function() expect(plugin:form().elements[1].label):to_equal \"Folder\" end)\n",
    );
    let mut server = dev(&folder, &["lua-plugins/lake", "--test"]);
    server.says("live     LakeDataOutput 1.0");
    server.says("1 test in 1 spec: 1 passed, 0 failed");
    server
        .until("configuration/platforms", 200, |platforms| {
            platforms.to_string().contains("Lake")
        })
        .await;
    // A module that the plugin requires is as live as the plugin.
    folder.write_by_rename("lua-plugins/lib/words.lua", "return { label = \"Path\" }");
    server.says("live     LakeDataOutput 1.0");
    server.says("  FAILED  has a form");
    let form = server
        .get("plugins/LakeDataOutput/form")
        .await
        .is(200)
        .json();
    assert_eq!(form["ui_metadata"][0]["label"], "Path");
}

#[test]
fn what_is_no_single_plugin_is_refused() {
    let folder = Folder::new();
    folder.write("many/a.lua", RIGHT);
    folder.write("many/b.lua", RIGHT.replace("Lake", "Other"));
    folder.write("none/readme.txt", "");
    for (path, says) in [
        ("many", "name one of them"),
        ("none", "found none"),
        ("nowhere", "found nothing there"),
    ] {
        let complaint = run(&folder, &["plugin", "dev", path]).badly();
        assert!(complaint.contains(says), "{complaint}");
    }
    let complaint = run(
        &folder,
        &["plugin", "dev", "many/a.lua", "--listen", "0.0.0.0:0"],
    )
    .badly();
    assert!(
        complaint.contains("PATCHBAY_API_TOKEN") || complaint.contains("token"),
        "{complaint}"
    );
}

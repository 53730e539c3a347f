//! The list, forms, tiles, details.

use base64::Engine;
use serde_json::{Value, json};

use crate::harness::{Server, for_each_database};
use crate::world::{assert_same_text, entry, names, plugin};

/// An element of a form, with what is not null in it.
fn element(label: &str, kind: &str, required: bool, name: &str, rest: Value) -> Value {
    let mut element = json!({
        "label": label, "type": kind, "required": required, "name": name, "tooltip": null, "hidden": null,
        "checkbox": null, "select": null, "string": null, "radio": null, "depends_on": null, "disabled": null,
        "use_namespace_when_not_source_aligned": null,
    });
    for (key, value) in rest.as_object().expect("an object") {
        assert!(element.get(key).is_some(), "{key}");
        element[key] = value.clone();
    }
    element
}

fn database(label: &str, name: &str, options: &[&str]) -> Value {
    let options: Vec<Value> = options
        .iter()
        .map(|option| json!({ "label": option, "value": option }))
        .collect();
    element(
        label,
        "select",
        true,
        name,
        json!({
            "select": { "max_count": 1, "options": options },
            "use_namespace_when_not_source_aligned": true,
        }),
    )
}

fn text(label: &str, name: &str, tooltip: &str) -> Value {
    let rest = json!({ "tooltip": tooltip, "string": { "initial_value": null } });
    element(label, "string", true, name, rest)
}

/// The form of the family of tables.
fn table_form(database: Value, schema: Value) -> Value {
    let granularity = json!({
        "tooltip": "Give write access to the entire schema or a single table",
        "radio": {
            "max_count": 1, "initial_value": "schema",
            "options": [
                { "label": "Schema level", "value": "schema" },
                { "label": "Table level", "value": "table" },
            ],
        },
    });
    let table = json!({
        "tooltip": "The name of the table to give write access to",
        "string": { "initial_value": "*" },
        "depends_on": [{ "field_name": "access_granularity", "value": "table" }],
    });
    json!([
        database,
        schema,
        element(
            "Access granularity",
            "radio",
            true,
            "access_granularity",
            granularity
        ),
        element("Table", "string", true, "table", table),
    ])
}

/// What a plugin's entry says beside its form.
struct Entry {
    plugin: &'static str,
    platform: &'static str,
    display_name: &'static str,
    icon_name: &'static str,
    parent_platform: Option<&'static str>,
    detailed_name: &'static str,
}

impl Entry {
    /// The entry as it goes over the wire. What differs from start to start is taken from `found`.
    fn with(&self, form: Value, found: &Value) -> Value {
        json!({
            "not_configured": false,
            "ui_metadata": form,
            "plugin": self.plugin,
            "has_environments": true,
            "result_label": "Resulting table",
            "result_tooltip": "The table you can access through this technical asset",
            "platform": self.platform,
            "display_name": self.display_name,
            "icon_name": self.icon_name,
            "icon_data_uri": found["icon_data_uri"],
            "parent_platform": self.parent_platform,
            "platform_tile": null,
            "show_in_form": true,
            "shareable": true,
            "detailed_name": self.detailed_name,
            "version": "1.0.0",
            "migration_file_path": "migrations/0001_create_table.lua",
            "state": "active",
            "generation": found["generation"],
        })
    }
}

const ENTRIES: [Entry; 4] = [
    Entry {
        plugin: "DatabricksDataOutput",
        platform: "databricks",
        display_name: "Databricks",
        icon_name: "databricks-logo.svg",
        parent_platform: None,
        detailed_name: "Schema",
    },
    Entry {
        plugin: "GlueDataOutput",
        platform: "glue",
        display_name: "Glue",
        icon_name: "glue-logo.svg",
        parent_platform: Some("aws"),
        detailed_name: "Database",
    },
    Entry {
        plugin: "RedshiftDataOutput",
        platform: "redshift",
        display_name: "Redshift",
        icon_name: "aws-redshift-logo.svg",
        parent_platform: Some("aws"),
        detailed_name: "Schema",
    },
    Entry {
        plugin: "SnowflakeDataOutput",
        platform: "snowflake",
        display_name: "Snowflake",
        icon_name: "snowflake-logo.svg",
        parent_platform: None,
        detailed_name: "Schema",
    },
];

fn forms() -> [Value; 4] {
    let schema = || {
        let tooltip =
            "The name of the schema to give write access to. Defaults to data product namespace";
        text("Schema", "schema", tooltip)
    };
    let suffix = text(
        "Database suffix",
        "database_suffix",
        "The name of the database to give write access to. Defaults to data product namespace",
    );
    let on = |options: &[&str]| database("Database", "database", options);
    [
        table_form(
            database("Catalog", "catalog", &["clean", "master"]),
            schema(),
        ),
        table_form(on(&["clean", "master"]), suffix),
        table_form(on(&[]), schema()),
        table_form(on(&["analytics", "staging"]), schema()),
    ]
}

#[tokio::test]
async fn in_an_empty_folder_the_four_default_plugins_are_listed_to_the_letter() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let answer = server.get("plugins/").await.is(200);
        assert_eq!(answer.header("content-type"), "application/json");
        let list = answer.json();
        let found = list["plugins"].as_array().expect("a list");
        assert_eq!(found.len(), 4, "{:?}", names(&list));
        let generation = &found[0]["generation"];
        assert!(
            generation.as_u64().is_some_and(|number| number > 0),
            "{generation}"
        );
        for ((entry, form), found) in ENTRIES.iter().zip(forms()).zip(found) {
            assert_same_text(found, &entry.with(form, found));
            assert_eq!(found["generation"], *generation);
            let path = format!("plugins/{}/form", entry.plugin);
            assert_same_text(&server.get(&path).await.is(200).json(), found);
        }
        assert_eq!(list.as_object().map(|list| list.len()), Some(1));
    })
    .await;
}

#[tokio::test]
async fn an_icon_is_served_and_embedded() {
    for_each_database(async |database| {
        let server = Server::on(database);
        for entry in &ENTRIES {
            let answer = server
                .get(&format!("plugins/{}/icon", entry.plugin))
                .await
                .is(200);
            assert_eq!(answer.header("content-type"), "image/svg+xml");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            assert!(answer.header("content-security-policy").contains("sandbox"));
            let folder = format!(
                "{}/lua-plugins/{}",
                env!("CARGO_MANIFEST_DIR"),
                entry.platform
            );
            let drawn = std::fs::read(format!("{folder}/{}", entry.icon_name)).expect("an icon");
            assert_eq!(answer.body, drawn);
            let form = server
                .get(&format!("plugins/{}/form", entry.plugin))
                .await
                .is(200)
                .json();
            let encoded = base64::engine::general_purpose::STANDARD.encode(&drawn);
            assert_eq!(
                form["icon_data_uri"],
                format!("data:image/svg+xml;base64,{encoded}")
            );
        }
        let without = server.folder.clone();
        without.write("lua-plugins/plain.lua", plugin("PlainOutput", ""));
        let plain = server
            .until("plugins/PlainOutput/form", 200, |_| true)
            .await;
        assert_eq!(plain["icon_data_uri"], Value::Null);
        assert_eq!(plain["icon_name"], "plainoutput-logo.svg");
        server.get("plugins/PlainOutput/icon").await.error(404);
    })
    .await;
}

#[tokio::test]
async fn tiles_are_two_deep_and_a_parent_stands_where_its_first_child_does() {
    for_each_database(async |database| {
    let server = Server::on(database);
    let found = server.get("plugins/platform-tiles").await.is(200).json();
    let list = server.get("plugins").await.is(200).json();
    let icon = |plugin: &str| entry(&list, plugin)["icon_data_uri"].clone();
    let tile = |label: &str, value: &str, icon_name: &str, icon: Value, children: Value| {
        json!({
            "label": label, "value": value, "icon_name": icon_name, "icon_data_uri": icon,
            "has_environments": true, "has_config": true, "children": children, "show_in_form": true,
        })
    };
    let leaf = |entry: &Entry| {
        tile(
            entry.display_name,
            entry.platform,
            entry.icon_name,
            icon(entry.plugin),
            json!([]),
        )
    };
    let aws = json!([leaf(&ENTRIES[1]), leaf(&ENTRIES[2])]);
    let tiles = json!({ "platform_tiles": [
        leaf(&ENTRIES[0]),
        tile("AWS", "aws", "aws-logo.svg", Value::Null, aws),
        leaf(&ENTRIES[3]),
    ]});
    assert_same_text(&found, &tiles);
}).await;
}

#[tokio::test]
async fn a_plugin_of_a_name_and_fields_has_everything_else_by_default() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.file(
                "lua-plugins/own.lua",
                r#"return patchbay.plugin { name = "OwnDataOutput", fields = {
                patchbay.field.string "path",
                patchbay.field.enum "mode" { values = { "read", "write" }, default = "read" },
                patchbay.field.boolean "public" { default = false },
            } }"#,
            );
        });
        let form = server
            .get("plugins/OwnDataOutput/form")
            .await
            .is(200)
            .json();
        let choice = |label: &str, value: &str| json!({ "label": label, "value": value });
        let radio = json!({ "radio": {
            "max_count": 1, "initial_value": "read",
            "options": [choice("Read", "read"), choice("Write", "write")],
        }});
        let elements = json!([
            element(
                "Path",
                "string",
                false,
                "path",
                json!({ "string": { "initial_value": null } })
            ),
            element("Mode", "radio", false, "mode", radio),
            element(
                "Public",
                "checkbox",
                false,
                "public",
                json!({ "checkbox": { "initial_value": false } })
            ),
        ]);
        let expected = json!({
            "not_configured": false,
            "ui_metadata": elements,
            "plugin": "OwnDataOutput",
            "has_environments": true,
            "result_label": "Resulting output",
            "result_tooltip": "The output you can access through this technical asset",
            "platform": "own",
            "display_name": "Own",
            "icon_name": "own-logo.svg",
            "icon_data_uri": null,
            "parent_platform": null,
            "platform_tile": null,
            "show_in_form": true,
            "shareable": true,
            "detailed_name": "Own",
            "version": "1.0",
            "migration_file_path": null,
            "state": "active",
            "generation": form["generation"],
        });
        assert_same_text(&form, &expected);
    })
    .await;
}

#[tokio::test]
async fn names_are_case_sensitive_and_aliases_do_as_well() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let form = server
            .get("plugins/SnowflakeDataOutput/form")
            .await
            .is(200)
            .json();
        for also in [
            "SnowflakeTechnicalAssetConfiguration",
            "Snowflake%44ataOutput",
        ] {
            assert_same_text(
                &server
                    .get(&format!("plugins/{also}/form"))
                    .await
                    .is(200)
                    .json(),
                &form,
            );
        }
        for (unknown, shown) in [
            ("snowflakedataoutput", "snowflakedataoutput"),
            ("snowflake", "snowflake"),
            ("S3DataOutput", "S3DataOutput"),
            ("a%20b", "a b"),
            ("a%2Fb", "a/b"),
            ("..%2f..%2fetc", "../../etc"),
            ("%27", "'"),
        ] {
            for rest in ["/form", "/schema", "/icon", "/configurations"] {
                let answer = server.get(&format!("plugins/{unknown}{rest}")).await;
                if unknown == "S3DataOutput" && rest == "/configurations" {
                    continue;
                }
                assert_eq!(
                    answer.error(404),
                    format!("Plugin '{shown}' not found"),
                    "{unknown}{rest}"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn details_say_all_about_a_plugin() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let form = server
            .get("plugins/GlueDataOutput/form")
            .await
            .is(200)
            .json();
        let details = server
            .get("plugins/GlueTechnicalAssetConfiguration")
            .await
            .is(200)
            .json();
        let of_the_form: Value = form
            .as_object()
            .expect("a form")
            .keys()
            .map(|key| (key.clone(), details[key].clone()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        assert_same_text(&of_the_form, &form);
        assert_eq!(
            details["aliases"],
            json!(["GlueTechnicalAssetConfiguration"])
        );
        assert_eq!(details["table"], "glue_data_output_configurations");
        assert_eq!(details["last_error"], Value::Null);
        assert_eq!(details["warnings"], json!([]));
        assert_eq!(details["requires"], ">=0.1, <2");
        let fields: Vec<&Value> = details["fields"]
            .as_array()
            .expect("fields")
            .iter()
            .map(|field| &field["name"])
            .collect();
        let expected = [
            "database",
            "database_suffix",
            "table",
            "bucket_identifier",
            "database_path",
            "table_path",
            "access_granularity",
        ];
        assert_eq!(fields, expected);
        let [migration] = details["migrations"]
            .as_array()
            .expect("migrations")
            .as_slice()
        else {
            panic!("{details}")
        };
        assert_eq!(migration["id"], "0001_create_table");
        assert_eq!(migration["path"], "migrations/0001_create_table.lua");
        assert_eq!(migration["state"], "applied");
        assert_eq!(migration["checksum"].as_str().map(str::len), Some(64));
        assert!(
            migration["applied_at"]
                .as_str()
                .is_some_and(|at| at.ends_with('Z')),
            "{migration}"
        );
        assert!(migration["applied_by"].is_string());
        let all = server.get("plugins/migrations").await.is(200).json();
        assert_eq!(all["migrations"]["GlueDataOutput"], json!([migration]));
        assert_eq!(all["migrations"].as_object().map(|all| all.len()), Some(4));
    })
    .await;
}

#[tokio::test]
async fn a_disabled_plugin_has_details_and_no_form() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.env("DISABLED_PLUGINS", "GlueDataOutput");
        });
        server.get("plugins/GlueDataOutput/form").await.error(404);
        let details = server.get("plugins/GlueDataOutput").await.is(200).json();
        assert_eq!(details["state"], "disabled");
        let status = server.get("plugins/status").await.is(200).json();
        assert_eq!(entry(&status, "GlueDataOutput")["state"], "disabled");
        assert_eq!(entry(&status, "SnowflakeDataOutput")["state"], "active");
    })
    .await;
}

#[tokio::test]
async fn a_schema_says_what_a_configuration_is() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let schema = server
            .get("plugins/SnowflakeDataOutput/schema")
            .await
            .is(200)
            .json();
        assert_eq!(
            schema["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
        assert_eq!(schema["type"], "object");
        assert_eq!(
            schema["required"],
            json!(["database", "access_granularity"])
        );
        let properties = &schema["properties"];
        assert_eq!(
            properties["access_granularity"]["enum"],
            json!(["schema", "table"])
        );
        assert_eq!(properties["table"]["default"], "*");
        assert_eq!(properties["database"]["type"], "string");
        assert!(!schema["examples"].as_array().expect("examples").is_empty());
    })
    .await;
}

//! What a new version changes, told through the server: each kind of change is named, and a number that promises less than
//! the change makes is refused by a strict server and warned about by any other.

use serde_json::{Value, json};

use crate::harness::{Folder, Server, for_each_database};
use crate::world::entry;

/// One plugin, what its version 1.0.1 changes, and what the server says of that.
struct Case {
    key: &'static str,
    /// Lines of the definition that 1.0.1 has in the place of those of 1.0.0.
    replace: &'static [(&'static str, &'static str)],
    /// What the written step of 1.0.1 does.
    step: Option<&'static str>,
    change: &'static str,
    kind: &'static str,
    /// The number that would keep the promise.
    honest: &'static str,
}

const BREAKS: &str = "a breaking change";

const CASES: &[Case] = &[
    Case {
        key: "removed",
        replace: &[(NOTE, "")],
        step: Some("m:drop_column(name, \"note\")"),
        change: "migrations.0002_change takes something away from the table, or changes it (and 1 more)",
        kind: BREAKS,
        honest: "2.0.0",
    },
    Case {
        key: "demanded",
        replace: &[(NOTE, "field.string \"note\" { required = true },")],
        step: None,
        change: "fields.note is required now",
        kind: BREAKS,
        honest: "2.0.0",
    },
    Case {
        key: "narrowed",
        replace: &[(DAYS, "field.integer \"days\" {},")],
        step: Some("m:alter_column(name, column.integer \"days\")"),
        change: "migrations.0002_change takes something away from the table, or changes it (and 1 more)",
        kind: BREAKS,
        honest: "2.0.0",
    },
    Case {
        key: "bounded",
        replace: &[(NOTE, "field.string \"note\" { max = 9 },")],
        step: None,
        change: "fields.note has the greatest 9 now",
        kind: BREAKS,
        honest: "2.0.0",
    },
    Case {
        key: "fewer",
        replace: &[("{ \"raw\", \"clean\" }", "{ \"raw\" }")],
        step: None,
        change: "fields.stage has no value \"clean\" any more",
        kind: BREAKS,
        honest: "2.0.0",
    },
    Case {
        key: "destroyed",
        replace: &[],
        step: Some("m:update(name, { set = { note = \"gone\" } })"),
        change: "migrations.0002_change takes something away from the table, or changes it",
        kind: BREAKS,
        honest: "2.0.0",
    },
    Case {
        key: "renamed",
        replace: &[("aliases = { \"OldName_renamed\" },", "")],
        step: None,
        change: "aliases.OldName_renamed is removed",
        kind: BREAKS,
        honest: "2.0.0",
    },
    Case {
        key: "moved",
        replace: &[("platform_key = \"moved\"", "platform_key = \"elsewhere\"")],
        step: None,
        change: "platform.platform_key was \"moved\", is \"elsewhere\"",
        kind: BREAKS,
        honest: "2.0.0",
    },
    Case {
        key: "unlinked",
        replace: &[("url = function() return \"https://x.example.com\" end,", "")],
        step: None,
        change: "url is removed",
        kind: BREAKS,
        honest: "2.0.0",
    },
    Case {
        key: "added",
        replace: &[(NOTE, "field.string \"note\" {}, field.string \"more\" {},")],
        step: Some("m:add_column(name, column.text \"more\")"),
        change: "fields.more is new",
        kind: "an addition",
        honest: "1.1.0",
    },
];

const NOTE: &str = "field.string \"note\" {},";
const DAYS: &str = "field.number \"days\" {},";

impl Case {
    fn plugin(&self) -> String {
        format!("{}DataOutput", self.key)
    }

    fn details(&self) -> String {
        format!("plugins/{}", self.plugin())
    }

    /// The definition, before and after the change.
    fn definition(&self, version: &str, is_changed: bool) -> String {
        let key = self.key;
        let mut text = format!(
            r#"local field = patchbay.field
return patchbay.plugin {{
    name = "{key}DataOutput",
    version = "{version}",
    aliases = {{ "OldName_{key}" }},
    platform = {{ platform_key = "{key}" }},
    table = "{key}_data_output_configurations",
    fields = {{
        field.string "path" {{ required = true }},
        field.enum "stage" {{ values = {{ "raw", "clean" }}, default = "raw" }},
        {NOTE}
        {DAYS}
    }},
    url = function() return "https://x.example.com" end,
}}
"#
        );
        for (from, to) in self.replace.iter().filter(|_| is_changed) {
            assert_eq!(text.matches(from).count(), 1, "{from}");
            text = text.replace(from, to);
        }
        text
    }

    fn step(&self, folder: &Folder, id: &str, up: &str) {
        let text = format!(
            "local column = patchbay.column\nlocal name = \"{}_data_output_configurations\"\nreturn {{ up = function(m)\n{up}\nend }}\n",
            self.key
        );
        folder.write_by_rename(
            &format!("lua-plugins/{}/migrations/{id}.lua", self.key),
            text,
        );
    }

    fn write(&self, folder: &Folder, version: &str, is_changed: bool) {
        if let Some(up) = self.step.filter(|_| is_changed) {
            self.step(folder, "0002_change", up);
        }
        folder.write_by_rename(
            &format!("lua-plugins/{}/plugin.lua", self.key),
            self.definition(version, is_changed),
        );
    }

    fn reason(&self, change: &str) -> String {
        format!(
            "the version 1.0.1 after 1.0.0 says that there is a fix at most, but {change}, which is {}; make it {}",
            self.kind, self.honest
        )
    }

    /// Whether its step waits to be told.
    fn waits(&self) -> bool {
        self.step.is_some() && self.kind == BREAKS
    }
}

/// A server with all plugins of the cases in version 1.0.0, and a row for each.
async fn server(database: crate::harness::Database, strict: bool) -> Server {
    let folder = Folder::new();
    for case in CASES {
        case.step(
            &folder,
            "0001_create_table",
            r#"m:create_table(name, { column.id(), column.text "path" { nullable = false },
                column.text "stage" { nullable = false, default = "raw" }, column.text "note", column.number "days" })"#,
        );
        case.write(&folder, "1.0.0", false);
    }
    let server = Server::start_in(folder, |options| {
        options
            .database(database)
            .env("PATCHBAY_STRICT_VERSIONS", &strict.to_string());
    });
    let product = server.data_product("sales", "sales").await;
    for case in CASES {
        let body = json!({ "path": "p", "note": "n", "days": 1 });
        server
            .configured(&case.plugin(), &product, case.key, body)
            .await;
    }
    for case in CASES {
        case.write(&server.folder, "1.0.1", true);
    }
    server
}

#[tokio::test]
async fn a_strict_server_refuses_each_kind_of_change_under_too_small_a_number() {
    for_each_database(async |database| {
        let server = server(database, true).await;
        for case in CASES {
            let refused = server
                .until(&case.details(), 200, |details| {
                    details["last_error"]["version"] == "1.0.1"
                        && details["last_error"]["stage"] == "version"
                })
                .await;
            let plugin = case.plugin();
            let message = format!(
                "{}, or accept it with `patchbay plugin migrate {plugin} --force` or POST /api/v2/plugins/reload?force={plugin}",
                case.reason(case.change)
            );
            assert_eq!(refused["last_error"]["message"], message, "{refused:#}");
            assert_eq!(
                (&refused["version"], &refused["state"]),
                (&json!("1.0.0"), &json!("degraded"))
            );
            // The number that it names is the one that will do.
            case.write(&server.folder, case.honest, true);
            if case.waits() {
                server
                    .until(&case.details(), 200, |details| {
                        details["state"] == "pending_migration"
                    })
                    .await;
                server.run(&["plugin", "migrate", &case.plugin()]).well();
            }
            let now = server
                .until(&case.details(), 200, |details| {
                    details["version"] == case.honest && details["state"] == "active"
                })
                .await;
            assert_eq!(now["last_error"], Value::Null);
        }
        let status = server.get("plugins/status").await.is(200).json();
        for case in CASES {
            assert_eq!(entry(&status, &case.plugin())["warnings"], json!([]));
        }
    })
    .await;
}

#[tokio::test]
async fn any_other_server_warns_of_each_kind_of_change_under_too_small_a_number() {
    for_each_database(async |database| {
        let server = server(database, false).await;
        for case in CASES {
            if case.waits() {
                server
                    .until(&case.details(), 200, |details| {
                        details["state"] == "pending_migration"
                            && details["last_error"]["version"] == "1.0.1"
                    })
                    .await;
                server.run(&["plugin", "migrate", &case.plugin()]).well();
            }
            server
                .until(&case.details(), 200, |details| {
                    details["version"] == "1.0.1" && details["state"] == "active"
                })
                .await;
            let status = server.get("plugins/status").await.is(200).json();
            let warnings = entry(&status, &case.plugin())["warnings"].clone();
            // Told when the step ran, and kept with what is applied.
            assert_eq!(warnings, json!([case.reason(case.change)]), "{}", case.key);
        }
    })
    .await;
}

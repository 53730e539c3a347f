//! What tests have in common: data products, services, plugin sources.

use serde_json::{Value, json};

use crate::harness::{Answer, Http};

/// The plugins that are on when nothing is said, ordered by platform key.
pub(crate) const DEFAULTS: [&str; 4] = [
    "DatabricksDataOutput",
    "GlueDataOutput",
    "RedshiftDataOutput",
    "SnowflakeDataOutput",
];

/// Where tests put [`bigquery`].
pub(crate) const FILE: &str = "lua-plugins/bigquery.lua";
/// Where its form is.
pub(crate) const FORM: &str = "plugins/BigQueryDataOutput/form";

/// Waits until the form of [`bigquery`] is of this version.
pub(crate) async fn until_version(server: &Http, version: &str) -> Value {
    server
        .until(FORM, 200, |form| {
            form["version"] == version && form["state"] == "active"
        })
        .await
}

/// A plugin that has a form, a rule and a table, in a file of its own. `version` and `label` show in its answers.
pub(crate) fn bigquery(version: &str, label: &str) -> String {
    format!(
        r#"
local field, ui = patchbay.field, patchbay.ui

return patchbay.plugin {{
    name = "BigQueryDataOutput",
    version = "{version}",
    aliases = {{ "BigQueryTechnicalAssetConfiguration" }},
    fields = {{
        field.string "dataset" {{ required = true }},
        field.string "table" {{ default = "*" }},
    }},
    ui_metadata = function(db)
        return {{
            ui.string "dataset" {{ label = "{label}", required = true }},
            ui.string "table" {{ label = "Table", initial_value = "*" }},
        }}
    end,
}}
"#
    )
}

/// A plugin of a name with the given lines in its definition, and one field.
pub(crate) fn plugin(name: &str, lines: &str) -> String {
    format!(
        r#"
local field, ui = patchbay.field, patchbay.ui

return patchbay.plugin {{
    name = "{name}",
    version = "1.0.0",
    fields = {{ field.string "path" {{ required = true }} }},
{lines}
}}
"#
    )
}

/// Values of a configuration of Snowflake.
pub(crate) fn snowflake(database: &str) -> Value {
    json!({ "database": database, "access_granularity": "schema" })
}

/// Asserts that an answer says that the server cannot now, when to try again, and nothing of what is inside.
#[track_caller]
pub(crate) fn unavailable(answer: Answer) {
    assert!(answer.header("retry-after").parse::<u32>().is_ok());
    let detail = answer.error(503).to_string().to_lowercase();
    for internal in [
        "sqlite",
        "postgres",
        "127.0.0.1",
        "select",
        "insert",
        "/tmp",
        ".db",
    ] {
        assert!(!detail.contains(internal), "{detail}");
    }
}

/// The names of the plugins in an answer to `GET /plugins`.
pub(crate) fn names(list: &Value) -> Vec<&str> {
    list["plugins"]
        .as_array()
        .expect("a list of plugins")
        .iter()
        .filter_map(|plugin| plugin["plugin"].as_str())
        .collect()
}

/// The entry of a plugin in an answer to `GET /plugins` or `GET /plugins/status`, or null.
pub(crate) fn entry<'a>(list: &'a Value, plugin: &str) -> &'a Value {
    list["plugins"]
        .as_array()
        .and_then(|plugins| plugins.iter().find(|entry| entry["plugin"] == plugin))
        .unwrap_or(&Value::Null)
}

/// The entry of an answer to `GET /plugins/status` whose source ends so, or null.
pub(crate) fn entry_at<'a>(statuses: &'a Value, source: &str) -> &'a Value {
    let ends = |entry: &&Value| {
        entry["source"]
            .as_str()
            .is_some_and(|text| text.ends_with(source))
    };
    statuses["plugins"]
        .as_array()
        .and_then(|plugins| plugins.iter().find(ends))
        .unwrap_or(&Value::Null)
}

/// Asserts that two JSON texts are the same, the order of keys included.
#[track_caller]
pub(crate) fn assert_same_text(found: &Value, expected: &Value) {
    let text = |value| serde_json::to_string_pretty(value).expect("JSON");
    assert_eq!(text(found), text(expected));
}

/// Whether `whole` has everything that `part` has: objects by key, lists in full, the rest as it is.
pub(crate) fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, value)| whole.get(key).is_some_and(|found| contains(found, value))),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len()
                && whole
                    .iter()
                    .zip(part)
                    .all(|(whole, part)| contains(whole, part))
        }
        (whole, part) => whole == part,
    }
}

impl Http {
    /// Creates a data product and gives its id.
    pub(crate) async fn data_product(&self, namespace: &str, domain: &str) -> String {
        let body = json!({ "name": namespace, "namespace": namespace, "domain": domain });
        let created = self.post("data_products", &body).await.is(201).json();
        created["id"].as_str().expect("an id").to_owned()
    }

    /// The ids of a platform and its service, by their names.
    pub(crate) async fn service(&self, platform: &str, service: &str) -> (String, String) {
        let platforms = self.get("configuration/platforms").await.is(200).json();
        let platform = id_of(&platforms["platforms"], platform);
        let path = format!("configuration/platforms/{platform}/services");
        let services = self.get(&path).await.is(200).json();
        let service = id_of(&services["platform_services"], service);
        (platform, service)
    }

    /// The id of an environment, by its name.
    pub(crate) async fn environment(&self, name: &str) -> String {
        let environments = self.get("configuration/environments").await.is(200).json();
        id_of(&environments["environments"], name)
    }

    /// Posts a configuration of a plugin.
    pub(crate) async fn configure(
        &self,
        plugin: &str,
        data_product: &str,
        name: &str,
        configuration: Value,
    ) -> Answer {
        let body = json!({ "data_product_id": data_product, "name": name, "configuration": configuration });
        self.post(&format!("plugins/{plugin}/configurations"), &body)
            .await
    }

    /// Stores a configuration of a plugin and gives its id.
    pub(crate) async fn configured(
        &self,
        plugin: &str,
        data_product: &str,
        name: &str,
        configuration: Value,
    ) -> String {
        let answer = self
            .configure(plugin, data_product, name, configuration)
            .await
            .is(201);
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// Renders the access path of a configuration that is not stored.
    pub(crate) async fn render(
        &self,
        platform: &str,
        service: &str,
        configuration: Value,
    ) -> Answer {
        let (platform, service) = self.service(platform, service).await;
        let body = json!({ "platform_id": platform, "service_id": service, "configuration": configuration });
        self.post("plugins/render_technical_asset_access_path", &body)
            .await
    }
}

fn id_of(items: &Value, name: &str) -> String {
    items
        .as_array()
        .and_then(|items| items.iter().find(|item| item["name"] == name))
        .and_then(|item| item["id"].as_str())
        .unwrap_or_else(|| panic!("no {name} in {items}"))
        .to_owned()
}

//! Every hook, from Luau source to plain data.

mod common;

use std::sync::Arc;

use common::{call, folder, load, reader, short, texts};
use patchbay_lua::{NormalizeError, RenderCall, Sandbox};
use serde_json::json;

const SNOWFLAKE: &str = r#"
local field, ui = patchbay.field, patchbay.ui
local tables = require "@lib/table_family"

return patchbay.plugin {
  name = "SnowflakeDataOutput",
  version = "1.0.0",
  fields = {
    field.string "database" { required = true },
    field.string "schema" { default = "" },
    field.string "table" { default = "*" },
    field.enum "access_granularity" { values = { "schema", "table" }, required = true },
  },
  examples = { { database = "sales_dwh", access_granularity = "schema" } },
  ui_metadata = function(db)
    return {
      ui.select "database" { label = "Database", required = true, options = db:platform_options(), use_namespace_when_not_source_aligned = true },
      ui.string "schema" { label = "Schema", required = true, tooltip = "The name of the schema" },
      ui.radio "access_granularity" { label = "Access granularity", required = true, initial_value = "schema",
        options = { { label = "Schema level", value = "schema" }, { label = "Table level", value = "table" } } },
      ui.string "table" { label = "Table", required = true, initial_value = "*", depends_on = { access_granularity = "table" } },
    }
  end,
  normalize = tables.normalize,
  validate = function(configuration, context)
    if string.sub(configuration.database, 1, #context.data_product.namespace) ~= context.data_product.namespace then
      return { { field = "database", message = "Invalid database specified" } }
    end
  end,
  render = function(configuration, filled) return (filled:gsub("-", "_")) end,
  url = function(context, db)
    local configuration = db:platform_configuration "development"
    if not configuration then return nil, patchbay.not_found "nothing" end
    return configuration.login_url .. "?" .. patchbay.url_encode(context.data_product.name .. " é")
  end,
}
"#;

const TABLES: &str = r#"
local M = {}
function M.normalize(configuration)
  if configuration.access_granularity == "schema" then configuration.table = "*" end
  if configuration.database == "" then return nil, { { field = "database", message = "empty" } } end
  return configuration
end
return M
"#;

#[tokio::test]
async fn a_plugin_answers_through_every_hook() {
    let sandbox = Sandbox::new(short());
    let mut source = folder(&[("plugin.lua", SNOWFLAKE)]);
    source.libs = Arc::new(texts(&[("table_family.lua", TABLES)]));
    let plugin = load(&sandbox, source).await.expect("a plugin");
    assert_eq!(plugin.definition().name.as_str(), "SnowflakeDataOutput");
    assert!(plugin.required_libs().contains("table_family.lua"));

    let form = plugin.ui_metadata(reader()).await.expect("a form");
    assert!(!form.not_configured && form.reads.catalogue && !form.reads.configurations);
    assert_eq!(
        serde_json::to_string(&form.elements[0]).expect("json"),
        r#"{"label":"Database","type":"select","required":true,"name":"database","tooltip":null,"hidden":null,"checkbox":null,"select":{"max_count":1,"options":[{"label":"analytics","value":"analytics"},{"label":"staging","value":"staging"}]},"string":null,"radio":null,"depends_on":null,"disabled":null,"use_namespace_when_not_source_aligned":true}"#
    );

    let values = json!({"database": "sales_x", "schema": null, "table": "zzz", "access_granularity": "schema"});
    let normalized = plugin
        .normalize(call(values.clone()))
        .await
        .expect("values");
    assert_eq!(
        serde_json::Value::Object(normalized),
        json!({"database": "sales_x", "schema": null, "table": "*", "access_granularity": "schema"})
    );
    let rejected = plugin.normalize(call(json!({"database": ""}))).await;
    assert!(
        matches!(rejected, Err(NormalizeError::Rejected(errors)) if errors[0].message == "empty")
    );

    assert_eq!(plugin.validate(call(values)).await, Ok(vec![]));
    let errors = plugin
        .validate(call(json!({"database": "x"})))
        .await
        .expect("errors");
    assert_eq!(errors[0].field.as_deref(), Some("database"));

    let renders = (0..3)
        .map(|place| RenderCall {
            values: serde_json::Map::new(),
            filled: format!("a-b{place}"),
            context: Default::default(),
        })
        .collect();
    let rendered: Vec<String> = plugin.render(renders).await.into_iter().flatten().collect();
    assert_eq!(rendered, ["a_b0", "a_b1", "a_b2"]);

    assert_eq!(
        plugin.url(call(json!({}))).await.expect("a link"),
        "https://snowflake.example?Sales%20%C3%A9"
    );
}

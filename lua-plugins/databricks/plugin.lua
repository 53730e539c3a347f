-- Tables in a catalog of Databricks.

local links = require "@lib/links"
local tables = require "@lib/table_family"

return patchbay.plugin {
    name = "DatabricksDataOutput",
    version = "1.0.0",
    aliases = { "DatabricksTechnicalAssetConfiguration" },
    requires = ">=0.1, <2",

    platform = {
        platform_key = "databricks",
        display_name = "Databricks",
        detailed_name = "Schema",
        icon_name = "databricks-logo.svg",
        result_label = "Resulting table",
        result_tooltip = "The table you can access through this technical asset",
    },

    fields = tables.fields("catalog", "schema"),
    table = "databricks_data_output_configurations",
    environment_entry = "catalog",
    examples = {
        { catalog = "sales", schema = "orders", access_granularity = "schema" },
        { catalog = "sales", schema = "orders", table = "order_lines", access_granularity = "table" },
    },

    ui_metadata = function(db)
        return {
            tables.database "catalog" { label = "Catalog", options = db:platform_options() },
            tables.schema,
            tables.access_granularity,
            tables.table_name,
        }
    end,

    normalize = tables.normalize "catalog",
    validate = tables.starts_with_namespace "catalog",

    -- Each business domain has a workspace of its own.
    url = function(context, db)
        if not context.environment then
            return links.environment_required "Databricks"
        end
        local databricks = db:platform_configuration(context.environment)
        local workspaces = databricks and databricks.workspace_urls or {}
        local domain = context.data_product.domain
        if not workspaces[domain] then
            return nil, patchbay.not_found("Workspace not configured for domain " .. domain)
        end
        return workspaces[domain]
    end,
}

-- Tables in a catalog of Databricks.

local field, ui = patchbay.field, patchbay.ui
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

    fields = {
        field.string "catalog" { required = true },
        field.string "schema" { default = "" },
        field.string "table" { default = "*" },
        field.string "bucket_identifier" { default = "" },
        field.string "catalog_path" { default = "" },
        field.string "table_path" { default = "" },
        field.enum "access_granularity" { values = { "schema", "table" }, required = true },
    },
    table = "databricks_data_output_configurations",
    environment_entry = "catalog",
    examples = {
        { catalog = "sales", schema = "orders", access_granularity = "schema" },
        { catalog = "sales", schema = "orders", table = "order_lines", access_granularity = "table" },
    },

    ui_metadata = function(db)
        return {
            ui.select "catalog" {
                label = "Catalog",
                required = true,
                options = db:platform_options(),
                use_namespace_when_not_source_aligned = true,
            },
            ui.string "schema" {
                label = "Schema",
                required = true,
                tooltip = "The name of the schema to give write access to. Defaults to data product namespace",
            },
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

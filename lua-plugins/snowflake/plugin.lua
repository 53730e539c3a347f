-- Tables in Snowflake.

local field, ui = patchbay.field, patchbay.ui
local links = require "@lib/links"
local tables = require "@lib/table_family"

return patchbay.plugin {
    name = "SnowflakeDataOutput",
    version = "1.0.0",
    aliases = { "SnowflakeTechnicalAssetConfiguration" },
    requires = ">=0.1, <2",

    platform = {
        platform_key = "snowflake",
        display_name = "Snowflake",
        detailed_name = "Schema",
        icon_name = "snowflake-logo.svg",
        result_label = "Resulting table",
        result_tooltip = "The table you can access through this technical asset",
    },

    fields = {
        field.string "database" { required = true },
        field.string "schema" { default = "" },
        field.string "table" { default = "*" },
        field.string "bucket_identifier" { default = "" },
        field.string "database_path" { default = "" },
        field.string "table_path" { default = "" },
        field.enum "access_granularity" { values = { "schema", "table" }, required = true },
    },
    table = "snowflake_data_output_configurations",
    environment_entry = "database",
    examples = {
        { database = "sales_dwh", schema = "orders", access_granularity = "schema" },
        { database = "sales_dwh", schema = "orders", table = "order_lines", access_granularity = "table" },
    },

    ui_metadata = function(db)
        return {
            ui.select "database" {
                label = "Database",
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

    normalize = tables.normalize "database",
    validate = tables.starts_with_namespace "database",

    -- Snowflake takes no `-` in a name that is not quoted.
    render = function(_, filled)
        local text = filled:gsub("%-", "_")
        return text
    end,

    url = function(context, db)
        if not context.environment then
            return links.environment_required "Snowflake"
        end
        local snowflake = db:platform_configuration(context.environment)
        if not (snowflake and snowflake.login_url) then
            return nil, patchbay.not_found "login_url missing from Snowflake configuration"
        end
        return snowflake.login_url
    end,
}

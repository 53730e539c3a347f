-- Tables in Snowflake.

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

    fields = tables.fields("database", "schema"),
    table = "snowflake_data_output_configurations",
    environment_entry = "database",
    examples = {
        { database = "sales_dwh", schema = "orders", access_granularity = "schema" },
        { database = "sales_dwh", schema = "orders", table = "order_lines", access_granularity = "table" },
    },

    ui_metadata = function(db)
        return {
            tables.database "database" { label = "Database", options = db:platform_options() },
            tables.schema,
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

-- Tables in PostgreSQL.

local field = patchbay.field
local tables = require "@lib/table_family"

return patchbay.plugin {
    name = "PostgreSQLDataOutput",
    version = "1.0.0",
    aliases = { "PostgreSQLTechnicalAssetConfiguration" },
    requires = ">=0.1, <2",

    platform = {
        platform_key = "postgresql",
        display_name = "PostgreSQL",
        detailed_name = "Schema",
        icon_name = "postgresql-logo.svg",
        result_label = "Resulting table",
        result_tooltip = "The table you can access through this technical asset",
    },

    fields = {
        field.string "database" { required = true },
        field.string "schema" { default = "" },
        field.string "table" { default = "*" },
        field.enum "access_granularity" { values = { "schema", "table" }, required = true },
    },
    table = "postgresql_data_output_configurations",
    environment_entry = "database",
    examples = {
        { database = "warehouse", schema = "orders", access_granularity = "schema" },
        { database = "warehouse", schema = "orders", table = "order_lines", access_granularity = "table" },
    },

    ui_metadata = function(db)
        return {
            tables.database "database" { label = "Database", options = db:platform_options() },
            tables.schema,
            tables.access_granularity,
            tables.table_name,
        }
    end,

    normalize = tables.all_tables_of_schema,
    validate = tables.starts_with_namespace "database",
    render = tables.without_trailing_underscores,

    -- A PostgreSQL server has no page to go to.
    url = function()
        return ""
    end,
}

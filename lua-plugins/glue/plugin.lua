-- Tables in the AWS Glue data catalog.

local ui = patchbay.ui
local aws_console = require "@lib/aws_console"
local tables = require "@lib/table_family"

return patchbay.plugin {
    name = "GlueDataOutput",
    version = "1.0.0",
    aliases = { "GlueTechnicalAssetConfiguration" },
    requires = ">=0.1, <2",

    platform = {
        platform_key = "glue",
        parent_platform = "aws",
        display_name = "Glue",
        detailed_name = "Database",
        icon_name = "glue-logo.svg",
        result_label = "Resulting table",
        result_tooltip = "The table you can access through this technical asset",
    },

    fields = tables.fields("database", "database_suffix"),
    table = "glue_data_output_configurations",
    environment_entry = "database",
    examples = {
        { database = "sales", database_suffix = "orders", access_granularity = "schema" },
        { database = "sales", database_suffix = "orders", table = "order_lines", access_granularity = "table" },
    },

    ui_metadata = function(db)
        return {
            tables.database "database" { label = "Database", options = db:platform_options() },
            ui.string "database_suffix" {
                label = "Database suffix",
                required = true,
                tooltip = "The name of the database to give write access to. Defaults to data product namespace",
            },
            tables.access_granularity,
            tables.table_name,
        }
    end,

    normalize = tables.normalize "database",
    validate = tables.starts_with_namespace "database",
    render = tables.without_trailing_underscores,

    url = function(context)
        return aws_console.switch_role(context, "Glue")
    end,
}

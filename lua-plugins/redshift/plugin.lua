-- Tables in AWS Redshift.

local tables = require "@lib/table_family"

return patchbay.plugin {
    name = "RedshiftDataOutput",
    version = "1.0.0",
    aliases = { "RedshiftTechnicalAssetConfiguration" },
    requires = ">=0.1, <2",

    platform = {
        platform_key = "redshift",
        parent_platform = "aws",
        display_name = "Redshift",
        detailed_name = "Schema",
        icon_name = "aws-redshift-logo.svg",
        result_label = "Resulting table",
        result_tooltip = "The table you can access through this technical asset",
    },

    fields = tables.fields("database", "schema"),
    table = "redshift_data_output_configurations",
    environment_entry = "database",
    examples = {
        { database = "sales", schema = "orders", access_granularity = "schema" },
        { database = "sales", schema = "orders", table = "order_lines", access_granularity = "table" },
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
    render = tables.without_trailing_underscores,
}

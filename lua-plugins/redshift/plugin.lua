-- Tables in AWS Redshift.

local field, ui = patchbay.field, patchbay.ui
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

    fields = {
        field.string "database" { required = true },
        field.string "schema" { default = "" },
        field.string "table" { default = "*" },
        field.string "bucket_identifier" { default = "" },
        field.string "database_path" { default = "" },
        field.string "table_path" { default = "" },
        field.enum "access_granularity" { values = { "schema", "table" }, required = true },
    },
    table = "redshift_data_output_configurations",
    environment_entry = "database",
    examples = {
        { database = "sales", schema = "orders", access_granularity = "schema" },
        { database = "sales", schema = "orders", table = "order_lines", access_granularity = "table" },
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
    render = tables.without_trailing_underscores,
}

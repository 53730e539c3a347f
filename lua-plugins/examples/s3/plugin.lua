-- Paths in a bucket of AWS S3.

local field, ui = patchbay.field, patchbay.ui
local aws_console = require "@lib/aws_console"
local path = require "@lib/path"

return patchbay.plugin {
    name = "S3DataOutput",
    version = "1.0.0",
    aliases = { "S3TechnicalAssetConfiguration" },
    requires = ">=0.1, <2",

    platform = {
        platform_key = "s3",
        parent_platform = "aws",
        display_name = "S3",
        detailed_name = "Path",
        icon_name = "s3-logo.svg",
        result_label = "Resulting path",
        result_tooltip = "The path you can access through this technical asset",
    },

    fields = {
        field.string "bucket" { required = true },
        field.string "suffix" { default = "" },
        field.string "path" { required = true },
    },
    table = "s3_data_output_configurations",
    environment_entry = "bucket",
    examples = {
        { bucket = "datalake", suffix = "sales", path = "orders/daily" },
    },

    ui_metadata = function(db)
        return {
            ui.select "bucket" { label = "Bucket", required = true, options = db:platform_options() },
            ui.string "suffix" {
                label = "Suffix",
                required = true,
                hidden = true,
                initial_value = "",
                use_namespace_when_not_source_aligned = true,
            },
            ui.string "path" {
                label = "Path",
                required = true,
                tooltip = "The name of the path to give write access to",
            },
        }
    end,

    -- An empty suffix, or slashes typed around a path, leave empty levels behind.
    render = function(_, filled)
        return path.clean(filled)
    end,

    url = function(context)
        return aws_console.switch_role(context, "S3")
    end,
}

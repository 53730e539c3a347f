local column = patchbay.column

return {
    up = function(m)
        m:create_table("iceberg_table_data_output_configurations", {
            column.id(),
            column.text "catalog" { nullable = false },
            column.text "catalog_type" { nullable = false, default = "rest" },
            column.text "namespace" { nullable = false },
            column.text "table" { nullable = false, default = "*" },
            column.text "location" { nullable = false, default = "" },
            column.text "format_version" { nullable = false, default = "2" },
            column.text "access_granularity" { nullable = false },
        })
    end,
}

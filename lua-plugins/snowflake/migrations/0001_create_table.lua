local column = patchbay.column

return {
    up = function(m)
        m:create_table("snowflake_data_output_configurations", {
            column.id(),
            column.text "database" { nullable = false },
            column.text "schema" { nullable = false, default = "" },
            column.text "table" { nullable = false, default = "*" },
            column.text "bucket_identifier" { nullable = false, default = "" },
            column.text "database_path" { nullable = false, default = "" },
            column.text "table_path" { nullable = false, default = "" },
            column.text "access_granularity" { nullable = false },
        })
    end,
}

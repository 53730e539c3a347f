local column = patchbay.column

return {
    up = function(m)
        m:create_table("google_bigquery_data_output_configurations", {
            column.id(),
            column.text "project" { nullable = false },
            column.text "dataset" { nullable = false },
            column.text "table" { nullable = false, default = "*" },
            column.text "access_granularity" { nullable = false },
        })
    end,
}

local column = patchbay.column

return {
    up = function(m)
        m:create_table("s3_data_output_configurations", {
            column.id(),
            column.text "bucket" { nullable = false },
            column.text "suffix" { nullable = false, default = "" },
            column.text "path" { nullable = false },
        })
    end,
}

local column = patchbay.column

return {
    up = function(m)
        m:create_table("azure_blob_data_output_configurations", {
            column.id(),
            column.text "domain" { nullable = false, default = "" },
            column.text "container_name" { nullable = false },
            column.text "path" { nullable = false, default = "" },
        })
    end,
}

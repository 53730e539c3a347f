local column = patchbay.column

return {
    up = function(m)
        m:create_table("parameter_store_data_output_configurations", {
            column.id(),
            column.text "prefix" { nullable = false, default = "" },
            column.text "parameter_name" { nullable = false },
        })
    end,
}

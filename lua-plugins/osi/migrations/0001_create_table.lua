local column = patchbay.column

return {
    up = function(m)
        m:create_table("osi_semantic_model_data_output_configurations", {
            column.id(),
            column.text "model_name" { nullable = false, default = "" },
            column.text "location" { nullable = false, default = "" },
        })
    end,
}

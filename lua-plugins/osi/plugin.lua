-- Semantic models as OSI yaml files.

local field, ui = patchbay.field, patchbay.ui

return patchbay.plugin {
    name = "OSISemanticModelDataOutput",
    version = "1.0.0",
    aliases = { "OSISemanticModelTechnicalAssetConfiguration" },
    requires = ">=0.1, <2",

    platform = {
        platform_key = "osi",
        display_name = "OSI",
        detailed_name = "Model",
        icon_name = "osi-logo.svg",
        result_label = "Resulting model",
        result_tooltip = "The yaml file you can access through this technical asset",
    },

    fields = {
        field.string "model_name" { default = "", description = "What the semantic model is called" },
        field.string "location" { default = "", description = "Where its YAML file lies" },
    },
    table = "osi_semantic_model_data_output_configurations",
    examples = {
        { model_name = "orders", location = "https://models.example.com/sales/orders.yaml" },
    },

    ui_metadata = function()
        return {
            ui.string "model_name" { label = "Model Name", required = true },
            ui.string "location" { label = "Location", required = true },
        }
    end,

    -- A model is a file, and its location is its link already.
    url = function()
        return ""
    end,
}

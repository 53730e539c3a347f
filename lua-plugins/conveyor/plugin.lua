-- A tile and a link to the Conveyor project of a data product.

return patchbay.plugin {
    name = "ConveyorPlugin",
    version = "1.0.0",
    requires = ">=0.1, <2",

    platform = {
        platform_key = "conveyor",
        display_name = "Conveyor",
        icon_name = "conveyor-logo.svg",
        has_environments = false,
        show_in_form = false,
    },

    url = function(context)
        return "https://app.conveyordata.com/projects/" .. patchbay.url_encode(context.data_product.namespace)
    end,
}

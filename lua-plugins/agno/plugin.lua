-- A tile and a link to a chat with the Agno agent of a data product.

return patchbay.plugin {
    name = "AgnoPlugin",
    version = "1.0.0",
    requires = ">=0.1, <2",

    platform = {
        platform_key = "agno",
        display_name = "Agno",
        detailed_name = "Agno Agent",
        icon_name = "agno-logo.svg",
        has_environments = false,
        show_in_form = false,
    },

    url = function(context)
        local agent = context.data_product.namespace .. "-agent"
        return "https://os.agno.com/chat?type=agent&id=" .. patchbay.url_encode(agent)
    end,
}

-- A tile and a link to the GitHub repository of a data product.

local field = patchbay.field

return patchbay.plugin {
    name = "GitHubPlugin",
    version = "1.0.0",
    requires = ">=0.1, <2",

    platform = {
        platform_key = "github",
        display_name = "GitHub",
        icon_name = "github-logo.svg",
        has_environments = false,
        show_in_form = false,
    },

    settings = {
        field.string "github_org" {
            label = "GitHub organisation",
            description = "The organisation whose repositories are named like the namespaces of the data products",
            pattern = "^[A-Za-z0-9-]+$",
        },
    },

    url = function(context)
        local organisation = context.settings.github_org
        if not organisation then
            return nil, patchbay.not_found "github_org missing from the settings of GitHubPlugin"
        end
        return "https://github.com/" .. organisation .. "/" .. patchbay.url_encode(context.data_product.namespace)
    end,
}

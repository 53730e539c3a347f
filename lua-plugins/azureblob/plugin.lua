-- Paths in a container of Azure Blob Storage.

local field, ui = patchbay.field, patchbay.ui

-- The storage account that the environment has for a domain, or the one that it has for all.
local function storage_account_for(domain, environment)
    local accounts = environment and environment.entry and environment.entry.storage_account_names or {}
    if accounts[domain] then
        return accounts[domain]
    end
    local first = next(accounts)
    if first == "default" and next(accounts, first) == nil then
        return accounts.default
    end
    error("No storage account is configured for domain '" .. domain .. "', and there is no single default one")
end

return patchbay.plugin {
    name = "AzureBlobDataOutput",
    version = "1.0.0",
    aliases = { "AzureBlobTechnicalAssetConfiguration" },
    requires = ">=0.1, <2",

    platform = {
        platform_key = "azureblob",
        parent_platform = "azure",
        display_name = "Blob",
        detailed_name = "Path",
        icon_name = "azure-storage-account-logo.svg",
        result_label = "Resulting path",
        result_tooltip = "The path you can access through this technical asset",
    },

    fields = {
        field.string "domain" { default = "" },
        field.string "container_name" { required = true, description = "The container in the storage account" },
        field.string "path" { default = "" },
    },
    table = "azure_blob_data_output_configurations",
    environment_entry = "first",
    placeholders = { "storage_account" },
    examples = {
        { container_name = "orders" },
        { domain = "sales", container_name = "orders", path = "daily/lines" },
    },

    ui_metadata = function()
        return {
            ui.string "domain" { label = "domain", required = false, hidden = true, initial_value = "" },
            ui.string "container_name" { label = "Container", required = true, initial_value = "" },
            ui.string "path" {
                label = "Path",
                required = false,
                tooltip = "The name of the path to give write access to",
                initial_value = "",
            },
        }
    end,

    normalize = function(configuration, context)
        if context.technical_mapping == "default" and context.data_product then
            configuration.domain = context.data_product.domain
        end
        return configuration
    end,

    render = function(configuration, filled, context)
        if not context.template:find("{storage_account}", 1, true) then
            return filled
        end
        local account = storage_account_for(configuration.domain, context.environment)
        local text = filled:gsub("{(storage_account)}", { storage_account = account })
        return text
    end,

    url = function()
        return "https://portal.azure.com/"
    end,
}

local TEMPLATE = "https://{storage_account}.blob.core.windows.net/{container_name}/{path}"

-- The world in which an environment has these storage accounts.
local function accounts(names)
    return {
        environment = "development",
        catalogue = {
            environments = {
                {
                    name = "development",
                    acronym = "dev",
                    service_configuration = { { identifier = "storage", storage_account_names = names } },
                },
            },
        },
    }
end

local plugin = patchbay.test.plugin { data_product = { domain = "commerce" } }

it("presents itself", function()
    expect(plugin.definition.platform):to_match_snapshot "platform"
end)

it("has a form that needs nothing of the catalogue", function()
    expect(plugin:form()):to_match_snapshot "form"
end)

describe("what is stored", function()
    it("has the data product's domain, under the default mapping", function()
        expect(plugin:normalize { container_name = "orders", domain = "typed" }):to_equal {
            domain = "commerce",
            container_name = "orders",
            path = "",
        }
    end)

    it("has the domain that was typed, under a custom one", function()
        local stored = plugin:normalize(
            { container_name = "orders", domain = "typed" },
            { technical_mapping = "custom" }
        )
        expect(stored.domain):to_be "typed"
    end)

    it("needs a container", function()
        expect(plugin:validate {}):to_equal { { field = "container_name", message = "Field required" } }
    end)
end)

describe("the access path", function()
    local asset = { container_name = "orders", path = "daily/lines" }

    it("names no account unless the template asks for one", function()
        local template = "platform_provided_storage_account/{container_name}/{path}"
        expect(plugin:render(template, asset)):to_be "platform_provided_storage_account/orders/daily/lines"
    end)

    it("has the account of the domain", function()
        local world = accounts { commerce = "one", default = "other" }
        expect(plugin:render(TEMPLATE, asset, world)):to_be "https://one.blob.core.windows.net/orders/daily/lines"
    end)

    it("has the only account when that is the default", function()
        local world = accounts { default = "all" }
        expect(plugin:render(TEMPLATE, asset, world)):to_be "https://all.blob.core.windows.net/orders/daily/lines"
    end)

    it("says so when no account fits", function()
        for _, names in { {}, { finance = "theirs" }, { default = "all", finance = "theirs" } } do
            expect(function()
                plugin:render(TEMPLATE, asset, accounts(names))
            end):to_fail "No storage account is configured for domain 'commerce', and there is no single default one"
        end
    end)

    it("leaves the path as it was typed", function()
        local typed = { container_name = "orders", path = "//a//" }
        expect(plugin:render("{container_name}/{path}", typed)):to_be "orders///a//"
    end)
end)

it("links to the portal", function()
    expect(plugin:url()):to_be "https://portal.azure.com/"
end)

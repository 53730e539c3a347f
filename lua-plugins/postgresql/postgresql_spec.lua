local plugin = patchbay.test.plugin {
    data_product = { namespace = "sales" },
    catalogue = {
        options = { "warehouse" },
        environments = {
            {
                name = "development",
                acronym = "dev",
                service_configuration = {
                    { identifier = "sales", host = "postgres.example.com", port = 5432, admin_pwd = "hidden" },
                },
            },
        },
    },
}

local TEMPLATE = "{database}.{schema}.{table}"

it("presents itself", function()
    expect(plugin.definition.platform):to_match_snapshot "platform"
end)

describe("the form", function()
    it("offers the databases of the catalogue", function()
        expect(plugin:form()):to_match_snapshot "form"
    end)

    it("is not configured while the catalogue has none", function()
        expect(plugin:form({ catalogue = {} }).not_configured):to_be(true)
    end)
end)

describe("what is stored", function()
    it("has defaults, and no paths", function()
        expect(plugin:normalize { database = "sales", access_granularity = "table" }):to_equal {
            database = "sales",
            schema = "",
            table = "*",
            access_granularity = "table",
        }
    end)

    it("means all tables when the granularity is the schema", function()
        local stored = plugin:normalize { database = "sales", table = "zzz", access_granularity = "schema" }
        expect(stored.table):to_be "*"
    end)
end)

it("keeps to databases of the data product, under the default mapping", function()
    local function validate(database, mapping)
        local asset = { database = database, access_granularity = "schema" }
        return plugin:validate(asset, { technical_mapping = mapping })
    end
    expect(validate("sales_dwh", "default")):to_equal {}
    expect(validate("finance", "default")):to_equal { { field = "database", message = "Invalid database specified" } }
    expect(validate("finance", "custom")):to_equal {}
end)

describe("the access path", function()
    local asset = { database = "sales", schema = "orders_", access_granularity = "schema" }

    it("has no underscores at the end of its parts", function()
        expect(plugin:render(TEMPLATE, asset)):to_be "sales.orders.*"
    end)

    it("has what the environment says, and never its password", function()
        local here = { environment = "development" }
        expect(plugin:render("{host}:{port}/{database}", asset, here)):to_be "postgres.example.com:5432/sales"
        expect(function()
            plugin:render("{admin_pwd}", asset, here)
        end):to_fail "needs 'admin_pwd'"
    end)
end)

it("has a link that leads nowhere", function()
    expect(plugin:url()):to_be ""
end)

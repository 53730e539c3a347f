local plugin = patchbay.test.plugin { data_product = { namespace = "sales" }, catalogue = { options = {} } }

local TEMPLATE = "{database}__{schema}.{table}"

it("presents itself", function()
    expect(plugin.definition.platform):to_match_snapshot "platform"
end)

describe("the form", function()
    it("is there although no database is on offer", function()
        expect(plugin:form()):to_match_snapshot "form"
    end)

    it("is not configured while the catalogue does not even have an empty list", function()
        expect(plugin:form({ catalogue = {} }).not_configured):to_be(true)
    end)
end)

describe("what is stored", function()
    it("has defaults, and paths named like what they hold", function()
        expect(plugin:normalize { database = "sales", access_granularity = "table" }):to_equal {
            database = "sales",
            schema = "",
            table = "*",
            bucket_identifier = "",
            database_path = "sales",
            table_path = "*",
            access_granularity = "table",
        }
    end)

    it("means all tables when the granularity is the schema", function()
        local stored = plugin:normalize { database = "sales", table = "zzz", access_granularity = "schema" }
        expect(stored):to_contain { table = "*", table_path = "zzz" }
    end)
end)

it("keeps to databases of the data product, under the default mapping", function()
    local function validate(database, mapping)
        local asset = { database = database, access_granularity = "schema" }
        return plugin:validate(asset, { technical_mapping = mapping })
    end
    expect(validate("sales", "default")):to_equal {}
    expect(validate("finance", "default")):to_equal { { field = "database", message = "Invalid database specified" } }
    expect(validate("finance", "custom")):to_equal {}
end)

it("leaves no underscores behind in the access path", function()
    local asset = { database = "sales", access_granularity = "schema" }
    expect(plugin:render(TEMPLATE, asset)):to_be "sales.*"
    asset.schema = "orders"
    expect(plugin:render(TEMPLATE, asset)):to_be "sales__orders.*"
end)

it("has no link", function()
    expect(plugin.definition.hooks.url):to_be(false)
    local _, refusal = plugin:url()
    expect(refusal.kind):to_be "not_implemented"
end)

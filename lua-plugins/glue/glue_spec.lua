local plugin = patchbay.test.plugin {
    data_product = { namespace = "sales" },
    catalogue = {
        options = { "clean", "master" },
        environments = {
            { name = "development", acronym = "dev", context = "arn:aws:iam::111111111111:role/{{}}-dev" },
            { name = "production", acronym = "prd" },
        },
    },
}

local TEMPLATE = "{database}__{database_suffix}.{table}"

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
    it("has defaults, and paths named like what they hold", function()
        expect(plugin:normalize { database = "sales", access_granularity = "table" }):to_equal {
            database = "sales",
            database_suffix = "",
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
    expect(validate("sales_dwh", "default")):to_equal {}
    expect(validate("finance", "default")):to_equal { { field = "database", message = "Invalid database specified" } }
    expect(validate("finance", "custom")):to_equal {}
end)

describe("the access path", function()
    local function render(suffix)
        local asset = { database = "sales", database_suffix = suffix, access_granularity = "schema" }
        return (plugin:render(TEMPLATE, asset))
    end

    it("has the suffix", function()
        expect(render "orders"):to_be "sales__orders.*"
    end)

    it("leaves no underscores behind where there is none", function()
        expect(render ""):to_be "sales.*"
        expect(render "orders_"):to_be "sales__orders.*"
    end)
end)

describe("the link", function()
    it("switches to the role of the data product", function()
        expect(plugin:url { environment = "development" }):to_be(
            "https://signin.aws.amazon.com/switchrole?account=111111111111&roleName=sales-dev&displayName=sales-dev"
        )
    end)

    it("needs an environment with a role", function()
        local _, refusal = plugin:url { environment = "production" }
        expect(refusal):to_equal(patchbay.not_found "No AWS role in the context of environment production")
        _, refusal = plugin:url()
        expect(refusal):to_equal(
            patchbay.bad_request "Environment is required to get the URL for Glue technical asset configurations"
        )
    end)
end)

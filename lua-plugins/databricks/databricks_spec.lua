local plugin = patchbay.test.plugin {
    data_product = { namespace = "sales", domain = "commerce" },
    catalogue = {
        options = { "clean", "master" },
        environments = {
            {
                name = "development",
                acronym = "dev",
                platform_configuration = { workspace_urls = { commerce = "https://commerce.example.com" } },
                service_configuration = { { identifier = "sales" } },
            },
            { name = "production", acronym = "prd" },
        },
    },
}

it("presents itself", function()
    expect(plugin.definition.platform):to_match_snapshot "platform"
end)

describe("the form", function()
    it("offers the catalogs of the catalogue", function()
        expect(plugin:form()):to_match_snapshot "form"
    end)

    it("is not configured while the catalogue has none", function()
        expect(plugin:form({ catalogue = {} }).not_configured):to_be(true)
    end)
end)

describe("what is stored", function()
    it("has defaults, and paths named like what they hold", function()
        expect(plugin:normalize { catalog = "sales", schema = "orders", access_granularity = "table" }):to_equal {
            catalog = "sales",
            schema = "orders",
            table = "*",
            bucket_identifier = "",
            catalog_path = "sales",
            table_path = "*",
            access_granularity = "table",
        }
    end)

    it("means all tables when the granularity is the schema", function()
        local stored = plugin:normalize { catalog = "sales", table = "zzz", access_granularity = "schema" }
        expect(stored):to_contain { table = "*", table_path = "zzz" }
    end)

    it("needs a catalog", function()
        expect(plugin:validate { access_granularity = "schema" }):to_equal {
            { field = "catalog", message = "Field required" },
        }
    end)
end)

it("keeps to catalogs of the data product, under the default mapping", function()
    local function validate(catalog, mapping)
        local asset = { catalog = catalog, access_granularity = "schema" }
        return plugin:validate(asset, { technical_mapping = mapping })
    end
    expect(validate("sales_dwh", "default")):to_equal {}
    expect(validate("finance", "default")):to_equal { { field = "catalog", message = "Invalid catalog specified" } }
    expect(validate("finance", "custom")):to_equal {}
end)

it("renders the access path as it is", function()
    local asset = { catalog = "sales-eu", schema = "a-b_", table = "lines", access_granularity = "table" }
    expect(plugin:render("{catalog}.{schema}.{table}", asset)):to_be "sales-eu.a-b_.lines"
end)

describe("the link", function()
    it("is the workspace of the domain", function()
        expect(plugin:url { environment = "development" }):to_be "https://commerce.example.com"
    end)

    it("needs a workspace, and an environment", function()
        local _, refusal = plugin:url { environment = "development", data_product = { domain = "finance" } }
        expect(refusal):to_equal(patchbay.not_found "Workspace not configured for domain finance")
        _, refusal = plugin:url { environment = "production" }
        expect(refusal):to_equal(patchbay.not_found "Workspace not configured for domain commerce")
        _, refusal = plugin:url()
        expect(refusal):to_equal(
            patchbay.bad_request "Environment is required to get the URL for Databricks technical asset configurations"
        )
    end)
end)

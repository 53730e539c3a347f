local plugin = patchbay.test.plugin {
    data_product = { namespace = "sales-orders", domain = "sales" },
    catalogue = {
        options = { "analytics", "staging" },
        environments = {
            {
                name = "development",
                acronym = "dev",
                platform_configuration = { login_url = "https://app.snowflake.com/example/development" },
                service_configuration = { { identifier = "sales-orders", database_name = "sales_orders_dev" } },
            },
            { name = "production", acronym = "prd" },
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

    it("is not configured while the catalogue has no databases", function()
        expect(plugin:form { catalogue = {} }):to_equal { not_configured = true, elements = {} }
        expect(plugin:form({ catalogue = { options = {} } }).not_configured):to_be(false)
    end)
end)

describe("what is stored", function()
    it("has defaults, and paths named like what they hold", function()
        expect(plugin:normalize { database = "sales-orders", access_granularity = "table" }):to_equal {
            database = "sales-orders",
            schema = "",
            table = "*",
            bucket_identifier = "",
            database_path = "sales-orders",
            table_path = "*",
            access_granularity = "table",
        }
    end)

    it("keeps paths that were typed", function()
        local typed =
            { database = "x", table = "lines", database_path = "y", table_path = "z", access_granularity = "table" }
        expect(plugin:normalize(typed)):to_contain { table = "lines", database_path = "y", table_path = "z" }
    end)

    it("means all tables when the granularity is the schema, and still names the path by the table", function()
        local stored = plugin:normalize { database = "x", table = "zzz", access_granularity = "schema" }
        expect(stored):to_contain { table = "*", table_path = "zzz" }
    end)

    it("needs a database and a granularity", function()
        expect(plugin:validate {}):to_equal {
            { field = "database", message = "Field required" },
            { field = "access_granularity", message = "Field required" },
        }
        expect(plugin:validate { database = "sales-orders", access_granularity = "column" }):to_equal {
            { field = "access_granularity", message = "Input should be 'schema' or 'table'" },
        }
    end)
end)

describe("the rule of the namespace", function()
    local function validate(database, world)
        return plugin:validate({ database = database, access_granularity = "schema" }, world)
    end

    it("lets databases of the data product pass", function()
        expect(validate "sales-orders"):to_equal {}
        expect(validate "sales-orders_dwh"):to_equal {}
    end)

    it("refuses those of others", function()
        expect(validate "finance"):to_equal { { field = "database", message = "Invalid database specified" } }
    end)

    it("is for the default mapping only", function()
        expect(validate("finance", { technical_mapping = "custom" })):to_equal {}
    end)
end)

describe("the access path", function()
    it("has `_` for every `-`", function()
        local asset = { database = "sales-orders", schema = "daily-runs", table = "a-b", access_granularity = "table" }
        expect(plugin:render(TEMPLATE, asset)):to_be "sales_orders.daily_runs.a_b"
    end)

    it("has the environment's entry of the database", function()
        local asset = { database = "sales-orders", access_granularity = "schema" }
        local template = "{database_name}.{schema}.{table}"
        expect(plugin:render(template, asset, { environment = "development" })):to_be "sales_orders_dev..*"
        expect((plugin:render(template, asset, { environment = "production" }))):to_be(nil)
    end)
end)

describe("the link", function()
    it("is the environment's login", function()
        expect(plugin:url { environment = "development" }):to_be "https://app.snowflake.com/example/development"
    end)

    it("needs an environment that has one", function()
        local _, refusal = plugin:url { environment = "production" }
        expect(refusal):to_equal(patchbay.not_found "login_url missing from Snowflake configuration")
        _, refusal = plugin:url()
        expect(refusal):to_equal(
            patchbay.bad_request "Environment is required to get the URL for Snowflake technical asset configurations"
        )
    end)
end)

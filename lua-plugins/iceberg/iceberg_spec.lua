local plugin = patchbay.test.plugin {
    data_product = { namespace = "sales-eu" },
    catalogue = {
        options = { "lake", "archive" },
        environments = {
            {
                name = "development",
                acronym = "dev",
                platform_configuration = { console_url = "https://lake.example.com/namespaces/{{}}" },
                service_configuration = {
                    { identifier = "lake", uri = "https://lake.example.com/catalog", warehouse = "s3://lake-dev" },
                },
            },
            { name = "production", acronym = "prd" },
        },
    },
}

-- A configuration that is right, but for what is given.
local function asset(changes)
    local made = { catalog = "lake", namespace = "sales_eu", table = "orders", access_granularity = "table" }
    for name, value in changes do
        made[name] = value
    end
    return made
end

local function errors_of(changes)
    return plugin:validate(asset(changes), { technical_mapping = "custom" })
end

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
    it("has defaults", function()
        local least = { catalog = "lake", namespace = "sales_eu", access_granularity = "table" }
        expect(plugin:normalize(least)):to_equal {
            catalog = "lake",
            catalog_type = "rest",
            namespace = "sales_eu",
            table = "*",
            location = "",
            format_version = "2",
            access_granularity = "table",
        }
    end)

    it("means all tables when the granularity is the namespace", function()
        expect(plugin:normalize(asset { access_granularity = "namespace" }).table):to_be "*"
    end)

    it("has a catalog's name for the namespace that the form puts there", function()
        expect(plugin:normalize(asset { namespace = "sales-eu" }).namespace):to_be "sales_eu"
    end)

    it("has a location without slashes at its end", function()
        expect(plugin:normalize(asset { location = "s3://lake/sales//" }).location):to_be "s3://lake/sales"
    end)
end)

describe("a namespace", function()
    it("has levels in a REST catalog, and in no other", function()
        expect(errors_of { namespace = "sales.orders.daily" }):to_equal {}
        expect(errors_of { namespace = "sales.orders", catalog_type = "glue" }):to_equal {
            { field = "namespace", message = "In Glue, a namespace has one level, so no '.'" },
        }
        expect(errors_of { namespace = "sales.orders", catalog_type = "hive" }):to_equal {
            { field = "namespace", message = "In the Hive metastore, a namespace has one level, so no '.'" },
        }
    end)

    it("has no empty levels", function()
        expect(errors_of({ namespace = "" })[1].message):to_be "The namespace can't be empty"
        for _, namespace in { ".", "a.", ".a", "a..b" } do
            expect(errors_of { namespace = namespace }):to_equal {
                { field = "namespace", message = "The levels of a namespace can't be empty" },
            }
        end
    end)

    it("is in lower case where the catalog would make it so", function()
        expect(errors_of { namespace = "Sales EU" }):to_equal {}
        for _, catalog_type in { "glue", "hive" } do
            local errors = errors_of { namespace = "Sales", catalog_type = catalog_type }
            expect(errors[1].message):to_contain "a namespace has lower-case letters, digits and '_' only"
        end
        expect(errors_of({ namespace = "a/b" })[1].message):to_contain "a namespace has no '/'"
    end)

    it("is not longer than the catalog takes", function()
        local long = ("a"):rep(200)
        expect(errors_of { namespace = long, catalog_type = "glue" }):to_equal {}
        expect(errors_of { namespace = long, catalog_type = "hive" }):to_equal {
            { field = "namespace", message = "In the Hive metastore, a namespace has at most 128 characters" },
        }
    end)

    it("is one of the data product, under the default mapping", function()
        expect(plugin:validate(asset {})):to_equal {}
        expect(plugin:validate(asset { namespace = "sales_eu.orders" })):to_equal {}
        expect(plugin:validate(asset { namespace = "finance" })):to_equal {
            {
                field = "namespace",
                message = "The namespace has to be 'sales_eu', or to begin with 'sales_eu_' or 'sales_eu.'",
            },
        }
        expect(#plugin:validate(asset { namespace = "sales_europe" })):to_be(1)
        expect(errors_of { namespace = "finance" }):to_equal {}
    end)
end)

it("has a table that the catalog takes", function()
    for _, name in { "orders", "Order lines", "*" } do
        expect(errors_of { table = name }):to_equal {}
    end
    expect(errors_of({ table = "" })[1].message):to_contain "The table can't be empty"
    expect(errors_of({ table = "a.b" })[1].message):to_be "The name of a table has no '.'"
    expect(errors_of({ table = "Orders", catalog_type = "glue" })[1].message):to_be(
        "In Glue, the name of a table has lower-case letters, digits and '_' only"
    )
end)

it("has a table whose name is not longer than the catalog takes", function()
    local function problem_of(length, catalog_type)
        local errors = errors_of { table = ("a"):rep(length), catalog_type = catalog_type }
        return errors[1] and errors[1].message
    end
    for catalog_type, longest in { rest = 255, glue = 255, hive = 256 } do
        expect(problem_of(longest, catalog_type)):to_be(nil)
        expect(problem_of(longest + 1, catalog_type)):to_contain(`at most {longest} characters`)
    end
end)

it("lies where the catalog can keep it", function()
    for _, location in { "", "s3://lake/sales", "gs://lake", "abfss://fs@account.dfs.core.windows.net/x", "hdfs://n/x" } do
        expect(errors_of { location = location }):to_equal {}
    end
    for _, location in { "lake/sales", "ftp://lake", "s3://", "https://lake.example.com" } do
        expect(errors_of({ location = location })[1].message):to_contain "The location is an address such as"
    end
    expect(errors_of({ location = "s3://a b" })[1].message):to_be "The location has no spaces"
    expect(errors_of({ location = "gs://lake", catalog_type = "glue" })[1].message):to_contain "Glue keeps tables in S3"
end)

it("knows the versions of the format", function()
    for _, version in { "1", "2", "3" } do
        expect(errors_of { format_version = version }):to_equal {}
    end
    expect(errors_of({ format_version = "4" })[1].message):to_be "Input should be '1', '2' or '3'"
end)

it("renders the table, and the catalog of the environment", function()
    expect(plugin:render("{catalog}.{namespace}.{table}", asset {})):to_be "lake.sales_eu.orders"
    local template = "type={catalog_type}; uri={uri}; warehouse={warehouse}; table={namespace}.{table}"
    local here = { environment = "development" }
    expect(plugin:render(template, asset { namespace = "sales_eu.orders" }, here)):to_be(
        "type=rest; uri=https://lake.example.com/catalog; warehouse=s3://lake-dev; table=sales_eu.orders.orders"
    )
    expect(plugin:render(template, asset { access_granularity = "namespace" }, here)):to_contain "table=sales_eu.*"
    -- An environment that does not say where the catalog is has nothing to tell.
    expect((plugin:render(template, asset {}, { environment = "production" }))):to_be(nil)
end)

describe("the link", function()
    it("opens the namespace of the data product", function()
        expect(plugin:url { environment = "development" }):to_be "https://lake.example.com/namespaces/sales_eu"
    end)

    it("needs an environment with a console", function()
        local _, refusal = plugin:url { environment = "production" }
        expect(refusal):to_equal(patchbay.not_found "console_url missing from Iceberg configuration")
        _, refusal = plugin:url()
        expect(refusal.kind):to_be "bad_request"
    end)
end)

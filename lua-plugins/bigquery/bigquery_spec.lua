local plugin = patchbay.test.plugin {
    data_product = { namespace = "sales-orders" },
    catalogue = {
        options = { "sales-data-eu", "sales-data-us" },
        environments = {
            {
                name = "development",
                acronym = "dev",
                platform_configuration = { project_id = "{{}}-dev" },
                service_configuration = { { identifier = "sales-data-eu", project_id = "sales-data-eu-dev" } },
            },
            { name = "production", acronym = "prd" },
        },
    },
}

-- A configuration that is right, but for what is given.
local function asset(changes)
    local made = { project = "sales-data-eu", dataset = "sales_orders", access_granularity = "table" }
    for name, value in changes do
        made[name] = value
    end
    return made
end

local function errors_of(changes, mapping)
    return plugin:validate(asset(changes), { technical_mapping = mapping })
end

it("presents itself", function()
    expect(plugin.definition.platform):to_match_snapshot "platform"
end)

describe("the form", function()
    it("offers the projects of the catalogue", function()
        expect(plugin:form()):to_match_snapshot "form"
    end)

    it("is not configured while the catalogue has none", function()
        expect(plugin:form({ catalogue = {} }).not_configured):to_be(true)
    end)
end)

describe("what is stored", function()
    it("has all tables by default", function()
        expect(plugin:normalize(asset {})):to_equal {
            project = "sales-data-eu",
            dataset = "sales_orders",
            table = "*",
            access_granularity = "table",
        }
    end)

    it("means all tables when the granularity is the dataset", function()
        expect(plugin:normalize(asset { table = "lines", access_granularity = "dataset" }).table):to_be "*"
    end)

    it("has a dataset's name for the namespace that the form puts there", function()
        expect(plugin:normalize(asset { dataset = "sales-orders" }).dataset):to_be "sales_orders"
    end)
end)

describe("a project", function()
    local WRONG =
        "A project ID has 6 to 30 lower-case letters, digits and '-', begins with a letter and does not end with '-'"

    it("is a project ID, also one of a domain", function()
        for _, project in { "sales-data-eu", "a12345", ("a"):rep(30), "example.com:sales-data" } do
            expect(errors_of { project = project }):to_equal {}
        end
    end)

    it("is refused otherwise, under either mapping", function()
        for _, project in { "short", ("a"):rep(31), "1project", "project-", "Project", "my_project", "" } do
            expect(errors_of { project = project }):to_equal { { field = "project", message = WRONG } }
            expect(errors_of({ project = project }, "custom")):to_equal { { field = "project", message = WRONG } }
        end
    end)
end)

describe("a dataset", function()
    it("has letters, digits and '_'", function()
        expect(errors_of { dataset = "sales_orders_2024" }):to_equal {}
        local wrong = { { field = "dataset", message = "The name of a dataset has letters, digits and '_' only" } }
        expect(errors_of({ dataset = "a-b" }, "custom")):to_equal(wrong)
        expect(errors_of({ dataset = "a.b" }, "custom")):to_equal(wrong)
    end)

    it("is not empty, and not too long", function()
        expect(errors_of { dataset = "" }):to_equal { { field = "dataset", message = "The dataset can't be empty" } }
        expect(errors_of { dataset = "sales_orders_" .. ("x"):rep(1011) }):to_equal {}
        expect(errors_of { dataset = "sales_orders_" .. ("x"):rep(1012) }):to_equal {
            { field = "dataset", message = "The name of a dataset has at most 1024 characters" },
        }
    end)

    it("begins with the namespace, under the default mapping", function()
        expect(errors_of { dataset = "finance" }):to_equal {
            { field = "dataset", message = "The dataset has to be 'sales_orders', or to begin with 'sales_orders_'" },
        }
        expect(#errors_of { dataset = "sales_ordersforce" }):to_be(1)
        expect(errors_of({ dataset = "finance" }, "custom")):to_equal {}
    end)
end)

describe("a table", function()
    it("has letters and digits of any script, '_', '-' and spaces", function()
        for _, name in { "order_lines", "order-lines 2024", "Bestellübersicht", "注文", "*" } do
            expect(errors_of { table = name }):to_equal {}
        end
        for _, name in { "a.b", "a/b", "a$b", "a*", "a`b", "a\nb" } do
            expect(errors_of { table = name }):to_equal {
                { field = "table", message = "The name of a table has letters, digits, '_', '-' and spaces only" },
            }
        end
    end)

    it("is not empty, and not too long", function()
        expect(errors_of({ table = "" })[1].message):to_contain "can't be empty"
        expect(errors_of { table = ("x"):rep(1024) }):to_equal {}
        expect(errors_of({ table = ("x"):rep(1025) })[1].message):to_be "The name of a table has at most 1024 bytes"
    end)
end)

it("tells all that is wrong at once", function()
    expect(#errors_of { project = "x", dataset = "-", table = "" }):to_be(3)
end)

describe("the access path", function()
    it("is what SQL takes", function()
        local path = plugin:render("{project}.{dataset}.{table}", asset { table = "lines" })
        expect(path):to_be "sales-data-eu.sales_orders.lines"
    end)

    it("has the environment's own project", function()
        local here = { environment = "development" }
        expect(plugin:render("{project_id}.{dataset}.{table}", asset {}, here)):to_be "sales-data-eu-dev.sales_orders.*"
    end)
end)

describe("the link", function()
    it("opens the dataset in the console", function()
        expect(plugin:url { environment = "development" }):to_be(
            "https://console.cloud.google.com/bigquery"
                .. "?project=sales-orders-dev&p=sales-orders-dev&d=sales_orders&page=dataset"
        )
    end)

    it("needs an environment with a project", function()
        local _, refusal = plugin:url { environment = "production" }
        expect(refusal):to_equal(patchbay.not_found "project_id missing from BigQuery configuration")
        _, refusal = plugin:url()
        expect(refusal.kind):to_be "bad_request"
    end)
end)

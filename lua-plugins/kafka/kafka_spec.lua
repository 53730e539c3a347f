local plugin = patchbay.test.plugin {
    data_product = { namespace = "sales" },
    catalogue = {
        options = { "events", "telemetry" },
        environments = {
            {
                name = "development",
                acronym = "dev",
                platform_configuration = { console_url = "https://kafka.example.com/topics?search={{}}" },
                service_configuration = { { identifier = "events", bootstrap_servers = "kafka.example.com:9092" } },
            },
            { name = "production", acronym = "prd" },
        },
    },
}

-- A configuration that is right, but for what is given.
local function asset(changes)
    local made = { cluster = "events", topic = "sales.orders" }
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
    it("offers the clusters of the catalogue", function()
        expect(plugin:form()):to_match_snapshot "form"
    end)

    it("is not configured while the catalogue has none", function()
        expect(plugin:form({ catalogue = {} }).not_configured):to_be(true)
    end)
end)

describe("what is stored", function()
    it("has defaults", function()
        expect(plugin:normalize(asset {})):to_equal {
            cluster = "events",
            topic = "sales.orders",
            partitions = "3",
            cleanup_policy = "delete",
            retention = "7d",
            value_format = "avro",
            subject = "sales.orders-value",
        }
    end)

    it("keeps a subject that was typed, and none without a schema", function()
        expect(plugin:normalize(asset { subject = "orders" }).subject):to_be "orders"
        expect(plugin:normalize(asset { subject = "orders", value_format = "none" }).subject):to_be ""
    end)

    it("is kept for ever when it is only compacted", function()
        expect(plugin:normalize(asset { cleanup_policy = "compact", retention = "1d" }).retention):to_be "forever"
        expect(plugin:normalize(asset { cleanup_policy = "compact,delete", retention = "1d" }).retention):to_be "1d"
    end)
end)

describe("a topic", function()
    it("has letters, digits, '.', '_' and '-'", function()
        for _, topic in { "sales", "sales.orders", "sales-orders_v2.Retry" } do
            expect(errors_of { topic = topic }):to_equal {}
        end
        for _, topic in { "sales/orders", "sales orders", "sales.örders", "sales:orders" } do
            expect(errors_of { topic = topic }):to_equal {
                { field = "topic", message = "The name of a topic has letters, digits, '.', '_' and '-' only" },
            }
        end
    end)

    it("has a name that Kafka takes", function()
        for topic, problem in
            {
                [""] = "The topic can't be empty",
                ["."] = "A topic can't be named '.' or '..'",
                [".."] = "A topic can't be named '.' or '..'",
                ["__consumer_offsets"] = "Topics that begin with '__' are Kafka's own",
                [("x"):rep(250)] = "The name of a topic has at most 249 characters",
            }
        do
            expect(errors_of({ topic = topic }, "custom")):to_equal { { field = "topic", message = problem } }
        end
        expect(errors_of({ topic = ("x"):rep(249) }, "custom")):to_equal {}
    end)

    it("is one of the data product, under the default mapping", function()
        local wrong = { { field = "topic", message = "The topic has to be 'sales', or to begin with 'sales.'" } }
        expect(errors_of { topic = "finance.orders" }):to_equal(wrong)
        expect(errors_of { topic = "salesforce" }):to_equal(wrong)
        expect(errors_of({ topic = "finance.orders" }, "custom")):to_equal {}
    end)
end)

it("has a whole number of partitions", function()
    for _, partitions in { "1", "12", "10000" } do
        expect(errors_of { partitions = partitions }):to_equal {}
    end
    for _, partitions in { "0", "10001", "-1", "1.5", "many", "" } do
        expect(errors_of { partitions = partitions }):to_equal {
            { field = "partitions", message = "Partitions are a whole number from 1 to 10000" },
        }
    end
end)

it("stores numbers as they count", function()
    local stored = plugin:normalize(asset { partitions = "007", retention = "012h" })
    expect(stored.partitions):to_be "7"
    expect(stored.retention):to_be "12h"
    expect(plugin:normalize(asset { partitions = "10", retention = "10d" }).partitions):to_be "10"
    expect(errors_of({ partitions = "000" })[1].field):to_be "partitions"
    expect(errors_of({ retention = "00d" })[1].field):to_be "retention"
end)

it("has a retention that people can read", function()
    for _, retention in { "7d", "12h", "30m", "forever" } do
        expect(errors_of { retention = retention }):to_equal {}
    end
    for _, retention in { "", "7", "0d", "7 d", "7w", "-1", "for ever" } do
        expect(errors_of({ retention = retention })[1].message):to_contain "such as '7d', '12h' or '30m'"
    end
end)

it("knows the cleanup policies and formats of Kafka", function()
    expect(errors_of({ cleanup_policy = "keep" })[1].message):to_be(
        "Input should be 'delete', 'compact' or 'compact,delete'"
    )
    expect(errors_of({ value_format = "xml" })[1].field):to_be "value_format"
end)

it("renders the topic, and where the environment's brokers are", function()
    expect(plugin:render("{cluster}/{topic}", asset {})):to_be "events/sales.orders"
    local here = { environment = "development" }
    expect(plugin:render("{bootstrap_servers}/{topic}", asset {}, here)):to_be "kafka.example.com:9092/sales.orders"
end)

describe("the link", function()
    it("opens the topics of the data product", function()
        expect(plugin:url { environment = "development" }):to_be "https://kafka.example.com/topics?search=sales"
        local strange = { namespace = "a+b" }
        expect(plugin:url { environment = "development", data_product = strange }):to_be(
            "https://kafka.example.com/topics?search=a-b"
        )
    end)

    it("needs an environment with a console", function()
        local _, refusal = plugin:url { environment = "production" }
        expect(refusal):to_equal(patchbay.not_found "console_url missing from Kafka configuration")
        _, refusal = plugin:url()
        expect(refusal.kind):to_be "bad_request"
    end)
end)

-- Topics in Apache Kafka.
--
-- What it needs of the catalogue is in catalogue.toml beside this file.

local field, ui = patchbay.field, patchbay.ui
local links = require "@lib/links"

-- The rules of Kafka: https://github.com/apache/kafka/blob/trunk/clients/src/main/java/org/apache/kafka/common/internals/Topic.java
local MAX_TOPIC = 249
-- More of one topic slow a cluster down long before Kafka itself would refuse them.
local MAX_PARTITIONS = 10000
local FOREVER = "forever"

local function problem_with_topic(topic)
    if topic == "" then
        return "The topic can't be empty"
    elseif topic == "." or topic == ".." then
        return "A topic can't be named '.' or '..'"
    elseif #topic > MAX_TOPIC then
        return "The name of a topic has at most 249 characters"
    elseif not topic:find "^[%w._%-]+$" then
        return "The name of a topic has letters, digits, '.', '_' and '-' only"
    elseif topic:sub(1, 2) == "__" then
        return "Topics that begin with '__' are Kafka's own"
    end
    return nil
end

-- `007` is 7, so that what is stored reads as it counts.
local function without_zeros(number)
    local text = number:gsub("^0+(%d)", "%1")
    return text
end

local function problem_with_partitions(partitions)
    local count = partitions:find "^%d+$" and tonumber(partitions)
    if not count or count < 1 or count > MAX_PARTITIONS then
        return "Partitions are a whole number from 1 to 10000"
    end
    return nil
end

local function problem_with_retention(retention)
    if retention == FOREVER then
        return nil
    end
    local count = retention:match "^(%d+)[mhd]$"
    if not count or tonumber(count) < 1 then
        return "Retention is a number of days, hours or minutes, such as '7d', '12h' or '30m', or 'forever'"
    end
    return nil
end

-- What of a namespace may stand in the name of a topic.
local function as_topic(namespace)
    local text = namespace:gsub("[^%w._%-]", "-")
    return text
end

return patchbay.plugin {
    name = "KafkaTopicDataOutput",
    version = "1.0.0",
    aliases = { "KafkaTopicTechnicalAssetConfiguration" },
    requires = ">=0.1, <2",

    platform = {
        platform_key = "kafka",
        display_name = "Kafka",
        detailed_name = "Topic",
        icon_name = "kafka-logo.svg",
        result_label = "Resulting topic",
        result_tooltip = "The topic you can access through this technical asset",
    },

    -- What is typed into a form comes as text, so numbers are texts here too, and `normalize` checks them.
    fields = {
        field.string "cluster" { required = true },
        field.string "topic" { required = true },
        field.string "partitions" { default = "3" },
        field.enum "cleanup_policy" { values = { "delete", "compact", "compact,delete" }, default = "delete" },
        field.string "retention" { default = "7d" },
        field.enum "value_format" { values = { "avro", "json_schema", "protobuf", "none" }, default = "avro" },
        field.string "subject" { default = "" },
    },
    table = "kafka_topic_data_output_configurations",
    environment_entry = "cluster",
    examples = {
        { cluster = "events", topic = "sales.orders" },
        { cluster = "events", topic = "sales.customers", partitions = "12", cleanup_policy = "compact" },
        { cluster = "events", topic = "sales.clicks", retention = "12h", value_format = "none" },
    },

    ui_metadata = function(db)
        return {
            ui.select "cluster" { label = "Cluster", required = true, options = db:platform_options() },
            ui.string "topic" {
                label = "Topic",
                required = true,
                tooltip = "Letters, digits, '.', '_' and '-'. Begins with the data product's namespace",
                placeholder = "sales.orders",
            },
            ui.string "partitions" {
                label = "Partitions",
                required = true,
                tooltip = "How many consumers of a group can read at once. It can be raised later, never lowered",
                initial_value = "3",
                widget = "integer",
                min = 1,
                max = MAX_PARTITIONS,
            },
            ui.select "cleanup_policy" {
                label = "Cleanup policy",
                required = true,
                tooltip = "Whether old records are deleted, only the last of each key is kept, or both",
                options = {
                    { label = "Delete old records", value = "delete" },
                    { label = "Keep the last record of each key", value = "compact" },
                    { label = "Keep the last of each key, and delete old ones", value = "compact,delete" },
                },
            },
            ui.string "retention" {
                label = "Retention",
                tooltip = "How long records are kept: '7d', '12h', '30m' or 'forever'",
                initial_value = "7d",
            },
            ui.select "value_format" {
                label = "Value format",
                required = true,
                tooltip = "How records are written; the schema registry has the schema",
                options = {
                    { label = "Avro", value = "avro" },
                    { label = "JSON Schema", value = "json_schema" },
                    { label = "Protobuf", value = "protobuf" },
                    { label = "No schema", value = "none" },
                },
            },
            ui.string "subject" {
                label = "Schema subject",
                tooltip = "The subject of the values' schema in the schema registry. Defaults to the topic and '-value'",
            },
        }
    end,

    -- Kafka would refuse these under either mapping, so they are no matter for `validate`.
    normalize = function(configuration)
        local errors = {}
        local function check(name, problem)
            if problem then
                table.insert(errors, { field = name, message = problem })
            end
        end
        check("topic", problem_with_topic(configuration.topic))
        check("partitions", problem_with_partitions(configuration.partitions))
        if configuration.cleanup_policy == "compact" then
            -- What is only compacted is never too old.
            configuration.retention = FOREVER
        end
        check("retention", problem_with_retention(configuration.retention))
        if #errors > 0 then
            return nil, errors
        end
        configuration.partitions = without_zeros(configuration.partitions)
        configuration.retention = without_zeros(configuration.retention)
        if configuration.value_format == "none" then
            configuration.subject = ""
        elseif configuration.subject == "" then
            configuration.subject = configuration.topic .. "-value"
        end
        return configuration
    end,

    validate = function(configuration, context)
        local prefix = as_topic(context.data_product and context.data_product.namespace or "")
        local topic = configuration.topic
        local rest = topic:sub(#prefix + 1)
        if topic:sub(1, #prefix) ~= prefix or not (rest == "" or rest:find "^[._%-]") then
            local message = "The topic has to be '%s', or to begin with '%s.'"
            return { { field = "topic", message = message:format(prefix, prefix) } }
        end
        return {}
    end,

    url = function(context, db)
        if not context.environment then
            return links.environment_required "Kafka"
        end
        local kafka = db:platform_configuration(context.environment)
        if not (kafka and kafka.console_url) then
            return nil, patchbay.not_found "console_url missing from Kafka configuration"
        end
        return links.for_namespace(kafka.console_url, patchbay.url_encode(as_topic(context.data_product.namespace)))
    end,
}

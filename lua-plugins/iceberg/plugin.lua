-- Tables in Apache Iceberg.
--
-- What it needs of the catalogue is in catalogue.toml beside this file.

local field, ui = patchbay.field, patchbay.ui
local links = require "@lib/links"

-- What each kind of catalog calls a name, in its own words: https://iceberg.apache.org/terms/#catalog,
-- https://docs.aws.amazon.com/athena/latest/ug/glue-best-practices.html, and the schema of the Hive metastore.
-- A table made here and kept in a local could be changed from call to call, and would make the server run this file for
-- each call; so it is made anew.
local function rules_of(kind)
    if kind == "glue" or kind == "hive" then
        return {
            called = kind == "glue" and "Glue" or "the Hive metastore",
            nested = false,
            longest_namespace = kind == "glue" and 255 or 128,
            longest_table = kind == "glue" and 255 or 256,
            allowed = "^[%l%d_]+$",
            says = "lower-case letters, digits and '_' only",
        }
    end
    return {
        called = "a REST catalog",
        nested = true,
        longest_namespace = 255,
        longest_table = 255,
        allowed = "^[^%c/?#%%*\"'`]+$",
        says = "no '/', '?', '#', '%', '*' and quotes",
    }
end

-- Where files of a table can lie.
local SCHEMES = " s3 s3a gs abfss wasbs hdfs file "

local function problem_with_name(name, rules, what, longest)
    if #name > longest then
        return ("In %s, %s has at most %d characters"):format(rules.called, what, longest)
    elseif not name:find(rules.allowed) then
        return ("In %s, %s has %s"):format(rules.called, what, rules.says)
    end
    return nil
end

local function problem_with_namespace(namespace, kind)
    local levels, rules = namespace:split ".", rules_of(kind)
    if namespace == "" then
        return "The namespace can't be empty"
    elseif #levels > 1 and not rules.nested then
        return ("In %s, a namespace has one level, so no '.'"):format(rules.called)
    end
    for _, level in levels do
        if level == "" then
            return "The levels of a namespace can't be empty"
        end
        local problem = problem_with_name(level, rules, "a namespace", rules.longest_namespace)
        if problem then
            return problem
        end
    end
    return nil
end

local function problem_with_table(name, kind)
    if name == "*" then
        return nil
    elseif name == "" then
        return "The table can't be empty; * stands for all tables of the namespace"
    elseif name:find(".", 1, true) then
        return "The name of a table has no '.'"
    end
    local rules = rules_of(kind)
    return problem_with_name(name, rules, "the name of a table", rules.longest_table)
end

local function problem_with_location(location, kind)
    if location == "" then
        return nil
    end
    local scheme, rest = location:match "^(%w+)://(.+)$"
    if not scheme or not SCHEMES:find(" " .. scheme .. " ", 1, true) then
        return "The location is an address such as 's3://bucket/path', 'gs://…', 'abfss://…' or 'hdfs://…'"
    elseif kind == "glue" and scheme ~= "s3" and scheme ~= "s3a" then
        return "Glue keeps tables in S3: the location begins with 's3://'"
    elseif rest:find "%s" then
        return "The location has no spaces"
    end
    return nil
end

-- What a namespace of a data product is in a catalog, where all kinds take letters, digits and `_`. So the data products
-- `sales-eu` and `sales_eu` share their namespaces here, which the form says; to tell them apart would mean to read the
-- rows of all others at each write.
local function as_level(namespace)
    local text = namespace:gsub("[^%w]", "_")
    return text
end

return patchbay.plugin {
    name = "IcebergTableDataOutput",
    version = "1.0.0",
    aliases = { "IcebergTableTechnicalAssetConfiguration" },
    requires = ">=0.1, <2",

    platform = {
        platform_key = "iceberg",
        display_name = "Iceberg",
        detailed_name = "Namespace",
        icon_name = "iceberg-logo.svg",
        result_label = "Resulting table",
        result_tooltip = "The table you can access through this technical asset",
    },

    fields = {
        field.string "catalog" { required = true },
        field.enum "catalog_type" { values = { "rest", "glue", "hive" }, default = "rest" },
        field.string "namespace" { required = true },
        field.string "table" { default = "*" },
        field.string "location" { default = "" },
        field.enum "format_version" { values = { "1", "2", "3" }, default = "2" },
        field.enum "access_granularity" { values = { "namespace", "table" }, required = true },
    },
    table = "iceberg_table_data_output_configurations",
    environment_entry = "catalog",
    examples = {
        { catalog = "lake", namespace = "sales", access_granularity = "namespace" },
        { catalog = "lake", namespace = "sales.orders", table = "order_lines", access_granularity = "table" },
        {
            catalog = "lake",
            catalog_type = "glue",
            namespace = "sales",
            location = "s3://example-lake/sales",
            access_granularity = "namespace",
        },
    },

    ui_metadata = function(db)
        return {
            ui.select "catalog" { label = "Catalog", required = true, options = db:platform_options() },
            ui.radio "catalog_type" {
                label = "Catalog type",
                required = true,
                tooltip = "What keeps the list of tables",
                initial_value = "rest",
                options = {
                    { label = "REST", value = "rest" },
                    { label = "AWS Glue", value = "glue" },
                    { label = "Hive metastore", value = "hive" },
                },
            },
            ui.string "namespace" {
                label = "Namespace",
                required = true,
                tooltip = "Begins with the data product's namespace, with '_' for what is no letter or digit ('a-b' and "
                    .. "'a_b' are one here). In a REST catalog '.' separates its levels",
                use_namespace_when_not_source_aligned = true,
            },
            ui.radio "access_granularity" {
                label = "Access granularity",
                required = true,
                tooltip = "Give write access to the entire namespace or a single table",
                initial_value = "namespace",
                options = {
                    { label = "Namespace level", value = "namespace" },
                    { label = "Table level", value = "table" },
                },
            },
            ui.string "table" {
                label = "Table",
                required = true,
                tooltip = "The name of the table to give write access to",
                initial_value = "*",
                depends_on = { access_granularity = "table" },
            },
            ui.string "location" {
                label = "Location",
                tooltip = "Where the files lie, such as 's3://bucket/path'. When empty, the catalog's warehouse decides",
            },
            ui.select "format_version" {
                label = "Format version",
                tooltip = "2 adds deletes of single rows; 3 adds deletion vectors, row lineage and more types",
                options = {
                    { label = "1: analytic tables", value = "1" },
                    { label = "2: row-level deletes", value = "2" },
                    { label = "3: deletion vectors and new types", value = "3" },
                },
            },
        }
    end,

    -- A catalog would refuse these under either mapping, so they are no matter for `validate`.
    normalize = function(configuration, context)
        local kind = configuration.catalog_type
        local namespace = context.data_product and context.data_product.namespace
        if configuration.namespace == namespace then
            -- The form puts the namespace here as it is.
            configuration.namespace = as_level(namespace)
        end
        if configuration.access_granularity == "namespace" then
            configuration.table = "*"
        end
        configuration.location = configuration.location:gsub("/+$", "")
        local errors = {}
        local function check(name, problem)
            if problem then
                table.insert(errors, { field = name, message = problem })
            end
        end
        check("namespace", problem_with_namespace(configuration.namespace, kind))
        check("table", problem_with_table(configuration.table, kind))
        check("location", problem_with_location(configuration.location, kind))
        if #errors > 0 then
            return nil, errors
        end
        return configuration
    end,

    -- A data product writes to namespaces of its own only.
    validate = function(configuration, context)
        local prefix = as_level(context.data_product and context.data_product.namespace or "")
        local rest = configuration.namespace:sub(#prefix + 1)
        -- `salesforce` is not a namespace of `sales`.
        if configuration.namespace:sub(1, #prefix) ~= prefix or not (rest == "" or rest:find "^[._]") then
            local message = "The namespace has to be '%s', or to begin with '%s_' or '%s.'"
            return { { field = "namespace", message = message:format(prefix, prefix, prefix) } }
        end
        return {}
    end,

    url = function(context, db)
        if not context.environment then
            return links.environment_required "Iceberg"
        end
        local iceberg = db:platform_configuration(context.environment)
        if not (iceberg and iceberg.console_url) then
            return nil, patchbay.not_found "console_url missing from Iceberg configuration"
        end
        return links.for_namespace(iceberg.console_url, as_level(context.data_product.namespace))
    end,
}

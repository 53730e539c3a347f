-- Tables and datasets in Google BigQuery.
--
-- What it needs of the catalogue is in catalogue.toml beside this file.

local field, ui = patchbay.field, patchbay.ui
local links = require "@lib/links"

-- The rules of Google: https://cloud.google.com/resource-manager/docs/creating-managing-projects,
-- https://cloud.google.com/bigquery/docs/datasets#dataset-naming, https://cloud.google.com/bigquery/docs/tables#table_naming
local MAX_NAME = 1024

local function problem_with_project(project)
    -- Old projects have their organisation's domain in front: `example.com:sales`.
    local id = project:match "^[%l%d.%-]+:(.+)$" or project
    if #id < 6 or #id > 30 or not id:find "^%l[%l%d%-]*[%l%d]$" then
        return "A project ID has 6 to 30 lower-case letters, digits and '-', begins with a letter and does not end with '-'"
    end
    return nil
end

local function problem_with_dataset(dataset)
    if dataset == "" then
        return "The dataset can't be empty"
    elseif #dataset > MAX_NAME then
        return "The name of a dataset has at most 1024 characters"
    elseif not dataset:find "^[%w_]+$" then
        return "The name of a dataset has letters, digits and '_' only"
    end
    return nil
end

-- Any letter and digit of any script will do, so what is refused is the rest of ASCII.
local function problem_with_table(name)
    if name == "*" then
        return nil
    elseif name == "" then
        return "The table can't be empty; * stands for all tables of the dataset"
    elseif #name > MAX_NAME then
        return "The name of a table has at most 1024 bytes"
    elseif name:find "[%c!-,./:-@[\\%]^`{-~]" then
        return "The name of a table has letters, digits, '_', '-' and spaces only"
    end
    return nil
end

-- What a namespace is in the name of a dataset, which has no `-`. So the data products `sales-eu` and `sales_eu` share
-- their datasets, which the form says; to tell them apart would mean to read the rows of all others at each write.
local function as_dataset(namespace)
    local text = namespace:gsub("[^%w]", "_")
    return text
end

return patchbay.plugin {
    name = "GoogleBigQueryDataOutput",
    version = "1.0.0",
    aliases = { "GoogleBigQueryTechnicalAssetConfiguration" },
    requires = ">=0.1, <2",

    platform = {
        platform_key = "bigquery",
        display_name = "BigQuery",
        detailed_name = "Dataset",
        icon_name = "bigquery-logo.svg",
        result_label = "Resulting table",
        result_tooltip = "The table you can access through this technical asset",
    },

    fields = {
        field.string "project" { required = true },
        field.string "dataset" { required = true },
        field.string "table" { default = "*" },
        field.enum "access_granularity" { values = { "dataset", "table" }, required = true },
    },
    table = "google_bigquery_data_output_configurations",
    environment_entry = "project",
    examples = {
        { project = "sales-data-eu", dataset = "sales_orders", access_granularity = "dataset" },
        { project = "sales-data-eu", dataset = "sales_orders", table = "order_lines", access_granularity = "table" },
    },

    ui_metadata = function(db)
        return {
            ui.select "project" {
                label = "Project",
                required = true,
                tooltip = "The Google Cloud project that holds the dataset",
                options = db:platform_options(),
            },
            ui.string "dataset" {
                label = "Dataset",
                required = true,
                tooltip = "Letters, digits and '_'. Begins with the data product's namespace, with '_' for what is no letter "
                    .. "or digit ('a-b' and 'a_b' are one here)",
                use_namespace_when_not_source_aligned = true,
            },
            ui.radio "access_granularity" {
                label = "Access granularity",
                required = true,
                tooltip = "Give write access to the entire dataset or a single table",
                initial_value = "dataset",
                options = {
                    { label = "Dataset level", value = "dataset" },
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
        }
    end,

    -- Google would refuse a wrong name under either mapping, so these are no matter for `validate`.
    normalize = function(configuration, context)
        local namespace = context.data_product and context.data_product.namespace
        if configuration.dataset == namespace then
            -- The form puts the namespace here as it is.
            configuration.dataset = as_dataset(namespace)
        end
        if configuration.access_granularity == "dataset" then
            configuration.table = "*"
        end
        local errors = {}
        local function check(name, problem)
            if problem then
                table.insert(errors, { field = name, message = problem })
            end
        end
        check("project", problem_with_project(configuration.project))
        check("dataset", problem_with_dataset(configuration.dataset))
        check("table", problem_with_table(configuration.table))
        if #errors > 0 then
            return nil, errors
        end
        return configuration
    end,

    -- A data product writes to datasets of its own only.
    validate = function(configuration, context)
        local prefix = as_dataset(context.data_product and context.data_product.namespace or "")
        local rest = configuration.dataset:sub(#prefix + 1)
        -- `salesforce` is not a dataset of `sales`.
        if configuration.dataset:sub(1, #prefix) ~= prefix or not (rest == "" or rest:find "^_") then
            local message = "The dataset has to be '%s', or to begin with '%s_'"
            return { { field = "dataset", message = message:format(prefix, prefix) } }
        end
        return {}
    end,

    url = function(context, db)
        if not context.environment then
            return links.environment_required "BigQuery"
        end
        local bigquery = db:platform_configuration(context.environment)
        if not (bigquery and bigquery.project_id) then
            return nil, patchbay.not_found "project_id missing from BigQuery configuration"
        end
        local namespace = context.data_product.namespace
        local project = patchbay.url_encode(links.for_namespace(bigquery.project_id, namespace))
        return "https://console.cloud.google.com/bigquery"
            .. ("?project=" .. project)
            .. ("&p=" .. project)
            .. ("&d=" .. as_dataset(namespace))
            .. "&page=dataset"
    end,
}

-- What plugins for tables in a warehouse have in common: their fields, the elements of their form, and the rules for what
-- is stored, checked and rendered. `database` is the name of the field that names the database; Databricks calls it
-- `catalog`. `second` is the field below it: a schema, or what Glue has in its place.

local field, ui = patchbay.field, patchbay.ui

local tables = {}

-- The fields: where the tables are, which of them, and the levels of the access path, which are named like what they hold
-- when they are left empty.
function tables.fields(database, second)
    return {
        field.string(database) { required = true },
        field.string(second) { default = "" },
        field.string "table" { default = "*" },
        field.string "bucket_identifier" { default = "" },
        field.string(database .. "_path") { default = "" },
        field.string "table_path" { default = "" },
        field.enum "access_granularity" { values = { "schema", "table" }, required = true },
    }
end

-- The first element of the form: one of the databases that the platform team has set up, or in the default mapping the one
-- that is called like the data product.
function tables.database(name)
    return function(element)
        element.required = true
        element.use_namespace_when_not_source_aligned = true
        return ui.select(name)(element)
    end
end

-- The second element: what the form says of it does not depend on the warehouse.
tables.schema = ui.string "schema" {
    label = "Schema",
    required = true,
    tooltip = "The name of the schema to give write access to. Defaults to data product namespace",
}

-- The last two elements: write access to everything, or to one table.

tables.access_granularity = ui.radio "access_granularity" {
    label = "Access granularity",
    required = true,
    tooltip = "Give write access to the entire schema or a single table",
    initial_value = "schema",
    options = {
        { label = "Schema level", value = "schema" },
        { label = "Table level", value = "table" },
    },
}

tables.table_name = ui.string "table" {
    label = "Table",
    required = true,
    tooltip = "The name of the table to give write access to",
    initial_value = "*",
    depends_on = { access_granularity = "table" },
}

-- Access to the entire schema means all of its tables, whatever was typed before.
function tables.all_tables_of_schema(configuration)
    if configuration.access_granularity == "schema" then
        configuration.table = "*"
    end
    return configuration
end

-- Paths that were left empty are named like what they hold. They come first, so that a table that was typed still
-- names its path.
function tables.normalize(database)
    local database_path = database .. "_path"
    return function(configuration)
        if configuration[database_path] == "" then
            configuration[database_path] = configuration[database]
        end
        if configuration.table_path == "" then
            configuration.table_path = configuration.table
        end
        return tables.all_tables_of_schema(configuration)
    end
end

-- A data product writes to databases of its own only: those that begin with its namespace.
function tables.starts_with_namespace(database)
    return function(configuration, context)
        local namespace = context.data_product and context.data_product.namespace or ""
        if configuration[database]:sub(1, #namespace) ~= namespace then
            return { { field = database, message = "Invalid " .. database .. " specified" } }
        end
        return {}
    end
end

-- An empty suffix leaves underscores behind: `sales__.*` is `sales.*`.
function tables.without_trailing_underscores(_, filled)
    local text = filled:gsub("_+%.", "."):gsub("_+$", "")
    return text
end

return tables

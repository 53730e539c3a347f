-- Parameters in the AWS Systems Manager Parameter Store.

local field, ui = patchbay.field, patchbay.ui
local aws_console = require "@lib/aws_console"
local path = require "@lib/path"

-- The limits of AWS: https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html
-- The environment is a level too; its name and the region's count towards the length, for which 100 are set aside.
local MAX_LEVELS = 15
local MAX_LENGTH = 1011
local SET_ASIDE = 100

-- Why AWS would refuse the name; nil when it would not.
local function problem_with(prefix, parameter_name)
    if #path.levels(parameter_name) == 0 then
        return "The parameter name can't be empty"
    end
    local levels = path.levels(prefix .. "/" .. parameter_name)
    local refused = {}
    for _, level in levels do
        if not level:find "^[%w_.%-]+$" then
            table.insert(refused, level)
        end
    end
    if #refused > 0 then
        return "Parameter names can only contain letters, numbers, '_', '.', '-' and '/', not: "
            .. table.concat(refused, ", ")
    end
    if #levels + 1 > MAX_LEVELS then
        return "A parameter name can have at most 15 levels, including the environment"
    end
    if #table.concat(levels, "/") + SET_ASIDE > MAX_LENGTH then
        return "The parameter name is too long"
    end
    return nil
end

return patchbay.plugin {
    name = "ParameterStoreDataOutput",
    version = "1.0.0",
    aliases = { "ParameterStoreTechnicalAssetConfiguration" },
    requires = ">=0.1, <2",

    platform = {
        platform_key = "parameterstore",
        parent_platform = "aws",
        display_name = "Parameter Store",
        detailed_name = "Parameter",
        icon_name = "parameter-store-logo.svg",
        result_label = "Resulting parameter",
        result_tooltip = "The parameter you can access through this technical asset",
        shareable = false,
    },

    fields = {
        field.string "prefix" { default = "" },
        field.string "parameter_name" { required = true },
    },
    table = "parameter_store_data_output_configurations",
    examples = {
        { prefix = "sales", parameter_name = "orders/refresh_token" },
    },

    ui_metadata = function()
        return {
            ui.string "prefix" {
                label = "Prefix",
                required = true,
                hidden = true,
                initial_value = "",
                use_namespace_when_not_source_aligned = true,
            },
            ui.string "parameter_name" {
                label = "Parameter name",
                required = true,
                tooltip = "The name of the parameter to give access to. "
                    .. "Use letters, numbers, '_', '.' and '-', and '/' to nest it deeper",
            },
        }
    end,

    -- AWS would refuse a wrong name under either mapping, so this is no matter for `validate`.
    normalize = function(configuration)
        local problem = problem_with(configuration.prefix, configuration.parameter_name)
        if problem then
            return nil, { { field = "parameter_name", message = problem } }
        end
        return configuration
    end,

    render = function(_, filled)
        return "/" .. path.clean(filled)
    end,

    url = function(context)
        return aws_console.switch_role(context, "Parameter Store")
    end,
}

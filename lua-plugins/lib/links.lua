-- What the links of plugins have in common.

local links = {}

-- The answer of a link that differs by environment, when none was named. `what` is what users call the platform.
function links.environment_required(what)
    local message = "Environment is required to get the URL for %s technical asset configurations"
    return nil, patchbay.bad_request(message:format(what))
end

-- A text of the catalogue in which `{{}}` stands for the namespace of a data product.
function links.for_namespace(text, namespace)
    local filled = text:gsub("{{}}", function()
        return namespace
    end)
    return filled
end

return links

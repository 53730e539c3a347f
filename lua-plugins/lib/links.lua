-- What the links of plugins have in common.

local links = {}

-- The answer of a link that differs by environment, when none was named. `what` is what users call the platform.
function links.environment_required(what)
    local message = "Environment is required to get the URL for %s technical asset configurations"
    return nil, patchbay.bad_request(message:format(what))
end

return links

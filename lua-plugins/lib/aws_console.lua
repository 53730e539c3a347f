-- Links into the AWS console.

local encode = patchbay.url_encode
local links = require "@lib/links"

local aws_console = {}

-- The link by which the console takes on the role of a data product in an environment. The environment's context names
-- the role, as in `arn:aws:iam::123456789012:role/{{}}-dev`, where `{{}}` stands for the data product's namespace.
-- `what` is what users call the platform.
function aws_console.switch_role(context, what)
    local environment, namespace = context.environment, context.data_product.namespace
    if not environment then
        return links.environment_required(what)
    end
    local account, role = environment.context:match "^arn:aws:iam::(%d+):role/(.+)$"
    if not account then
        local message = "No AWS role in the context of environment %s"
        return nil, patchbay.not_found(message:format(environment.name))
    end
    role = links.for_namespace(role, namespace)
    return "https://signin.aws.amazon.com/switchrole"
        .. ("?account=" .. account)
        .. ("&roleName=" .. encode(role))
        .. ("&displayName=" .. encode(namespace .. "-" .. environment.acronym))
end

return aws_console

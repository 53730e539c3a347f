-- Links into the AWS console.

local encode = patchbay.url_encode

local aws_console = {}

-- The link by which the console takes on the role of a data product in an environment. The environment's context names
-- the role, as in `arn:aws:iam::123456789012:role/{{}}-dev`, where `{{}}` stands for the data product's namespace.
-- `what` is what the link is for, as users call it.
function aws_console.switch_role(context, what)
    local environment, namespace = context.environment, context.data_product.namespace
    if not environment then
        return nil,
            patchbay.bad_request("Environment is required to get the URL for " .. what .. " technical asset configurations")
    end
    local account, role = environment.context:match "^arn:aws:iam::(%d+):role/(.+)$"
    if not account then
        return nil, patchbay.not_found("The context of environment " .. environment.name .. " is not the ARN of an AWS role")
    end
    role = role:gsub("{{}}", namespace)
    return "https://signin.aws.amazon.com/switchrole"
        .. ("?account=" .. account)
        .. ("&roleName=" .. encode(role))
        .. ("&displayName=" .. encode(namespace .. "-" .. environment.acronym))
end

return aws_console

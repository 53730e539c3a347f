local plugin = patchbay.test.plugin {
    data_product = { namespace = "sales" },
    catalogue = {
        environments = {
            { name = "development", acronym = "dev", context = "arn:aws:iam::111111111111:role/team/{{}}" },
        },
    },
}

local function problem_of(parameter_name, prefix, mapping)
    local asset = { parameter_name = parameter_name, prefix = prefix }
    local errors = plugin:validate(asset, { technical_mapping = mapping })
    if #errors > 0 then
        expect(#errors):to_be(1)
        expect(errors[1].field):to_be "parameter_name"
        return errors[1].message
    end
    return nil
end

it("presents itself", function()
    expect(plugin.definition.platform):to_match_snapshot "platform"
end)

it("has a form that needs nothing of the catalogue", function()
    expect(plugin:form()):to_match_snapshot "form"
end)

it("stores what was typed, with an empty prefix by default", function()
    expect(plugin:normalize { parameter_name = "/token/" }):to_equal { prefix = "", parameter_name = "/token/" }
end)

describe("a name", function()
    it("has levels of letters, numbers, '_', '.' and '-'", function()
        expect(problem_of "orders/refresh_token.v1-a"):to_be(nil)
        expect(problem_of("or ders/t*ken", "sales")):to_be(
            "Parameter names can only contain letters, numbers, '_', '.', '-' and '/', not: or ders, t*ken"
        )
    end)

    it("is not empty", function()
        for _, name in { "", "/", "//" } do
            expect(problem_of(name, "sales")):to_be "The parameter name can't be empty"
        end
    end)

    it("has at most 15 levels, with the environment", function()
        expect(problem_of(("a/"):rep(13), "sales")):to_be(nil)
        expect(problem_of(("a/"):rep(14), "sales")):to_be(
            "A parameter name can have at most 15 levels, including the environment"
        )
    end)

    it("leaves room for the rest of its address", function()
        expect(problem_of(("a"):rep(911))):to_be(nil)
        expect(problem_of(("a"):rep(912))):to_be "The parameter name is too long"
        expect(problem_of(("a"):rep(911), "b")):to_be "The parameter name is too long"
    end)

    it("is refused under either mapping", function()
        expect(problem_of("", "sales", "custom")):to_be "The parameter name can't be empty"
    end)

    it("has to be there", function()
        expect(plugin:validate {}):to_equal { { field = "parameter_name", message = "Field required" } }
    end)
end)

it("renders one `/` between levels, and one in front", function()
    local asset = { prefix = "", parameter_name = "/orders//token/" }
    expect(plugin:render("/{prefix}/{parameter_name}", asset)):to_be "/orders/token"
    asset.prefix = "sales"
    local template = "/{environment}/{prefix}/{parameter_name}"
    expect(plugin:render(template, asset, { environment = "development" })):to_be "/dev/sales/orders/token"
end)

describe("the link", function()
    it("switches to the role of the data product", function()
        expect(plugin:url { environment = "development" }):to_be(
            "https://signin.aws.amazon.com/switchrole"
                .. "?account=111111111111&roleName=team%2Fsales&displayName=sales-dev"
        )
    end)

    it("needs an environment", function()
        local _, refusal = plugin:url()
        expect(refusal):to_equal(
            patchbay.bad_request "Environment is required to get the URL for Parameter Store technical asset configurations"
        )
    end)
end)

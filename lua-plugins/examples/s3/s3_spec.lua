local plugin = patchbay.test.plugin {
    data_product = { namespace = "sales" },
    catalogue = {
        options = { "datalake", "ingress" },
        environments = {
            {
                name = "development",
                acronym = "dev",
                context = "arn:aws:iam::111111111111:role/{{}}-dev",
                service_configuration = {
                    { identifier = "datalake", bucket_arn = "arn:aws:s3:::example-datalake-dev" },
                },
            },
            { name = "production", acronym = "prd" },
        },
    },
}

it("presents itself", function()
    expect(plugin.definition.platform):to_match_snapshot "platform"
end)

describe("the form", function()
    it("offers the buckets of the catalogue", function()
        expect(plugin:form()):to_match_snapshot "form"
    end)

    it("is not configured while the catalogue has none", function()
        expect(plugin:form({ catalogue = {} }).not_configured):to_be(true)
    end)
end)

describe("what is stored", function()
    it("is what was typed, with an empty suffix by default", function()
        local stored = plugin:normalize { bucket = "datalake", path = "/orders/" }
        expect(stored):to_equal { bucket = "datalake", suffix = "", path = "/orders/" }
    end)

    it("needs a bucket and a path", function()
        expect(plugin:validate {}):to_equal {
            { field = "bucket", message = "Field required" },
            { field = "path", message = "Field required" },
        }
    end)
end)

describe("the access path", function()
    local asset = { bucket = "datalake", path = "orders//daily/" }

    it("has no empty levels", function()
        expect(plugin:render("{bucket}/{suffix}/{path}", asset)):to_be "datalake/orders/daily"
    end)

    it("has the bucket that the environment has for it", function()
        local template = "{bucket_arn}/{suffix}/{path}/*"
        expect(plugin:render(template, asset, { environment = "development" })):to_be(
            "arn:aws:s3:::example-datalake-dev/orders/daily/*"
        )
        expect((plugin:render(template, asset, { environment = "production" }))):to_be(nil)
    end)
end)

describe("the link", function()
    it("switches to the role of the data product", function()
        expect(plugin:url { environment = "development" }):to_be(
            "https://signin.aws.amazon.com/switchrole?account=111111111111&roleName=sales-dev&displayName=sales-dev"
        )
    end)

    it("needs an environment with a role", function()
        local _, refusal = plugin:url { environment = "production" }
        expect(refusal.kind):to_be "not_found"
        _, refusal = plugin:url()
        expect(refusal):to_equal(
            patchbay.bad_request "Environment is required to get the URL for S3 technical asset configurations"
        )
    end)
end)

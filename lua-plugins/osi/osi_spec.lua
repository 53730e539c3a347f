local plugin = patchbay.test.plugin()

it("presents itself", function()
    expect(plugin.definition.platform):to_match_snapshot "platform"
end)

it("has a form that needs nothing of the catalogue", function()
    expect(plugin:form()):to_match_snapshot "form"
end)

describe("what is stored", function()
    it("has defaults", function()
        expect(plugin:normalize {}):to_equal { model_name = "", location = "" }
    end)

    it("is text", function()
        expect(plugin:validate { model_name = 5, location = true }):to_equal {
            { field = "model_name", message = "Input should be a valid string" },
            { field = "location", message = "Input should be a valid string" },
        }
    end)

    it("has no rule of a namespace", function()
        expect(plugin:validate { model_name = "anything" }):to_equal {}
    end)
end)

it("renders names and locations as they are", function()
    local asset = { model_name = "orders-model_", location = "https://models.example.com/sales/orders.yaml" }
    expect(plugin:render("{model_name}", asset)):to_be "orders-model_"
    expect(plugin:render("{location}", asset, { environment = "development" })):to_be(asset.location)
end)

it("has a link that leads nowhere", function()
    expect(plugin:url()):to_be ""
end)

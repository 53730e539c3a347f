local plugin = patchbay.test.plugin()

it("presents itself, outside of the form", function()
    expect(plugin.definition.platform):to_match_snapshot "platform"
end)

it("has no fields and no table", function()
    expect(plugin.definition.fields):to_equal {}
    expect(plugin.definition.table):to_be(nil)
    expect(plugin:form()):to_equal { not_configured = false, elements = {} }
end)

it("links to the project of the data product", function()
    expect(plugin:url()):to_be "https://app.conveyordata.com/projects/sales"
    expect(plugin:url { data_product = { namespace = "a+b@c" } }):to_be "https://app.conveyordata.com/projects/a%2Bb%40c"
end)

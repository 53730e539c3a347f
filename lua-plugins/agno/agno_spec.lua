local plugin = patchbay.test.plugin()

it("presents itself, outside of the form", function()
    expect(plugin.definition.platform):to_match_snapshot "platform"
end)

it("has no fields and no table", function()
    expect(plugin.definition.fields):to_equal {}
    expect(plugin.definition.table):to_be(nil)
    expect(plugin:form()):to_equal { not_configured = false, elements = {} }
end)

it("links to a chat with the agent of the data product", function()
    expect(plugin:url()):to_be "https://os.agno.com/chat?type=agent&id=sales-agent"
    local strange = { namespace = "a+b@c" }
    expect(plugin:url { data_product = strange }):to_be "https://os.agno.com/chat?type=agent&id=a%2Bb%40c-agent"
end)

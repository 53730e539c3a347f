local plugin = patchbay.test.plugin { settings = { github_org = "example" } }

it("presents itself, outside of the form", function()
    expect(plugin.definition.platform):to_match_snapshot "platform"
end)

it("has no fields and no table", function()
    expect(plugin.definition.fields):to_equal {}
    expect(plugin.definition.table):to_be(nil)
end)

describe("the link", function()
    it("leads to the repository named like the namespace", function()
        expect(plugin:url()):to_be "https://github.com/example/sales"
        expect(plugin:url { data_product = { namespace = "a+b" } }):to_be "https://github.com/example/a%2Bb"
    end)

    it("needs the organisation", function()
        local _, refusal = plugin:url { settings = {} }
        expect(refusal):to_equal(patchbay.not_found "github_org missing from the settings of GitHubPlugin")
    end)
end)

it("refuses a setting that is no organisation", function()
    expect(function()
        plugin:url { settings = { github_org = "no/slash" } }
    end):to_fail "github_org"
end)

//! Specs: what they can say, what a failure tells, and that they have the limits of a plugin.

mod common;

use std::sync::Arc;

use common::{folder, load, short, single};
use insta::assert_snapshot;
use patchbay_lua::{Limits, SPEC_API, Sandbox, Snapshots, Source, Spec, SpecOptions, SpecReport};

/// A plugin with every hook.
const PLUGIN: &str = r#"
local field, ui = patchbay.field, patchbay.ui
return patchbay.plugin {
    name = "XDataOutput",
    version = "1.2.0",
    requires = ">=0.1",
    platform = { platform_key = "x", parent_platform = "aws" },
    fields = {
        field.string "database" { required = true },
        field.string "table" { default = "*" },
        field.integer "days" { default = 7, max = 30 },
    },
    settings = { field.string "host", field.integer "port" { default = 1 } },
    environment_entry = "database",
    placeholders = { "late" },
    ui_metadata = function(db)
        local tables = {}
        for _, row in db:configurations { limit = 10 } do
            table.insert(tables, row.table)
        end
        return {
            ui.select "database" { required = true, options = db:platform_options() },
            ui.select "table" { options = tables },
        }
    end,
    normalize = function(configuration, context)
        if configuration.table == "slip" then
            configuration.days = 99
        elseif configuration.table == "refused" then
            return nil, { { field = "table", message = "not this one" } }
        elseif configuration.table == "raises" then
            error("normalize is broken")
        end
        configuration.database = configuration.database:lower()
        return configuration
    end,
    validate = function(configuration, context)
        if configuration.database:sub(1, #context.data_product.namespace) ~= context.data_product.namespace then
            return { { field = "database", message = "not yours" } }
        end
        return {}
    end,
    render = function(_, filled, context)
        return (filled:gsub("{late}", context.environment and context.environment.entry.late or "early"))
    end,
    url = function(context, db)
        if not context.environment then
            return nil, patchbay.bad_request "which environment?"
        end
        local configuration = db:platform_configuration(context.environment)
        if not configuration then
            return nil, patchbay.not_found "nowhere"
        end
        return "http://" .. (context.settings.host or "-") .. ":" .. context.settings.port .. configuration.path
            .. tostring(configuration.admin_pwd)
    end,
}
"#;

fn source() -> Source {
    single(PLUGIN)
}

async fn run_with(
    source: Source,
    text: &str,
    snapshots: &str,
    options: &SpecOptions,
) -> SpecReport {
    let sandbox = Sandbox::new(short());
    let spec = Spec {
        plugin: source,
        file: "x_spec.lua".to_owned(),
        text: Arc::from(text),
        snapshots: Snapshots::parse(snapshots).expect("snapshots"),
    };
    sandbox.test(spec, options).await
}

async fn run(text: &str) -> SpecReport {
    run_with(source(), text, "{}", &SpecOptions::default()).await
}

/// The report in short: a line for each test, and below it what is wrong.
fn told(report: &SpecReport) -> String {
    let mut lines = Vec::new();
    for test in &report.tests {
        lines.push(format!(
            "{} {}",
            if test.failure.is_some() {
                "FAILED"
            } else {
                "ok"
            },
            test.names.join(" / ")
        ));
        if let Some(failure) = &test.failure {
            let place = match (&failure.file, failure.line) {
                (Some(file), Some(line)) => format!("{file}:{line}: "),
                (Some(file), None) => format!("{file}: "),
                _ => "nowhere: ".to_owned(),
            };
            lines.push(format!("  {place}{}", failure.message));
            for (word, value) in [
                ("line", failure.source_line.as_deref().map(str::trim)),
                ("expected", failure.expected.as_deref()),
                ("found", failure.found.as_deref()),
                ("diff", failure.diff.as_deref()),
            ] {
                if let Some(value) = value {
                    lines.push(format!("  {word}: {}", value.replace('\n', "\n    ")));
                }
            }
        }
    }
    lines.extend(report.errors.iter().map(|error| format!("error {error}")));
    lines.join("\n")
}

/// Expects every test to pass, and that there are so many.
fn all_pass(report: &SpecReport, count: usize) {
    assert!(report.passed(), "{}", told(report));
    assert_eq!(report.tests.len(), count);
}

#[tokio::test]
async fn expectations_hold() {
    let report = run(r#"
        it("is", function()
            expect(1):to_be(1)
            expect("a").never:to_be("b")
            expect(nil):to_be(nil)
            local t = {}
            expect(t):to_be(t)
            expect(t).never:to_be({})
            expect(print):to_be(print)
        end)
        it("equals", function()
            expect({ a = { 1, 2 }, b = "x" }):to_equal({ b = "x", a = { 1, 2 } })
            expect({ 1 }).never:to_equal({ 1, 2 })
            expect({ patchbay.null }):to_equal({ patchbay.null })
        end)
        it("contains", function()
            expect("abc"):to_contain("bc")
            expect({ "a", { b = 1 } }):to_contain({ b = 1 })
            expect({ a = 1, b = 2 }):to_contain({ b = 2 })
            expect({ a = 1 }).never:to_contain({ a = 2 })
        end)
        it("matches", function()
            expect("abc 12"):to_match("^%a+ %d+$")
            expect(5).never:to_match("5")
        end)
        it("fails", function()
            expect(function() error("it is broken") end):to_fail()
            expect(function() error("it is broken") end):to_fail("broken")
            expect(function() end).never:to_fail()
            expect(function() error({ code = 1 }) end):to_fail("code = 1")
        end)
    "#)
    .await;
    all_pass(&report, 5);
}

#[tokio::test]
async fn a_failure_tells_where_and_what() {
    let report = run(r#"local plugin = patchbay.test.plugin()
describe("outer", function()
    it("is not", function() expect(1):to_be(2) end)
    describe("inner", function()
        it("differs", function()
            local long = { name = "x", items = { "a", "b", "c", "d" } }
            expect(long):to_equal { name = "y", items = { "a", "b", "c", "d" } }
        end)
    end)
end)
it("is another table", function() expect({}):to_be({}) end)
it("compares functions", function() expect({ f = print }):to_equal({ f = print }) end)
it("matches nothing", function() expect("abc"):to_match("^b") end)
it("does not fail", function() expect(function() end):to_fail() end)
it("fails otherwise", function() expect(function() error("one") end):to_fail("two") end)
it("keeps what fails inside", function()
    expect(function()
        expect(1):to_be(2)
    end):to_fail()
end)
it("has a bug", function()
    local nothing
    return nothing.x
end)
it("misspells", function() expect(1):to_eqal(1) end)
it("asks for nonsense", function() plugin:form { environmnt = "x" } end)
it("asks where nothing is", function() plugin:url { environment = "prodution" } end)
it("breaks the plugin", function() plugin:normalize { database = "x", table = "raises" } end)
it("slips", function() plugin:normalize { database = "x", table = "slip" } end)
it("renders what is missing", function() plugin:render("{tabel}", { database = "x" }) end)
it("sets what is none", function() plugin:form { settings = { hots = "x" } } end)
it("works", function() end)
"#)
    .await;
    assert_snapshot!(told(&report));
}

#[tokio::test]
async fn a_plugin_is_called_as_a_server_calls_it() {
    let report = run(r#"
        local plugin = patchbay.test.plugin {
            data_product = { namespace = "sales" },
            catalogue = {
                options = { "sales", "other" },
                environments = {
                    {
                        name = "development",
                        acronym = "dev",
                        platform_configuration = { path = "/dev", admin_pwd = "secret" },
                        service_configuration = { { identifier = "sales", host = "h", late = "L" } },
                    },
                    { name = "production" },
                },
            },
        }
        it("has a definition", function()
            expect(plugin.definition):to_contain { name = "XDataOutput", version = "1.2.0", table = "x_data_output_configurations" }
            expect(plugin.definition.platform):to_contain { display_name = "X", parent_platform = "aws", shareable = true }
            expect(plugin.definition.hooks.url):to_be(true)
        end)
        it("has a form", function()
            local form = plugin:form { configurations = { { table = "a" }, { table = "b" } } }
            expect(form.not_configured):to_be(false)
            expect(form.elements[1].select.options):to_equal {
                { label = "sales", value = "sales" },
                { label = "other", value = "other" },
            }
            expect(form.elements[2].select.options[2].value):to_be("b")
            expect(plugin:form { catalogue = {} }):to_equal { not_configured = true, elements = {} }
        end)
        it("normalizes", function()
            expect(plugin:normalize { database = "SALES" }):to_equal { database = "sales", table = "*", days = 7 }
            local values, errors = plugin:normalize { table = 5, days = 31 }
            expect(values):to_be(nil)
            expect(errors):to_equal {
                { field = "database", message = "Field required" },
                { field = "table", message = "Input should be a valid string" },
                { field = "days", message = "Should be at most 30" },
            }
            values, errors = plugin:normalize { database = "x", table = "refused" }
            expect(errors):to_equal { { field = "table", message = "not this one" } }
            expect(function() plugin:normalize { database = "x", table = "slip" } end):to_fail "days: Should be at most 30"
        end)
        it("validates", function()
            expect(plugin:validate { database = "Sales_dwh" }):to_equal {}
            expect(plugin:validate { database = "other" }):to_equal { { field = "database", message = "not yours" } }
            expect(plugin:validate({ database = "other" }, { technical_mapping = "custom" })):to_equal {}
            expect(plugin:validate { database = "x", table = "refused" }):to_equal { { field = "table", message = "not this one" } }
        end)
        it("renders", function()
            expect(plugin:render("{database}.{table}-{late}", { database = "SALES" })):to_be "sales.*-early"
            expect(plugin:render("{host}/{table}/{environment}/{late}", { database = "sales" }, { environment = "development" }))
                :to_be "h/*/dev/L"
            local text, reason = plugin:render("{table}", { database = "sales" }, { environment = "production" })
            expect(text):to_be(nil)
            expect(reason):to_contain "production"
            expect(function() plugin:render("{nothing}", { database = "sales" }) end):to_fail "needs 'nothing'"
            expect(function() plugin:render("{table}", {}) end):to_fail "Field required"
        end)
        it("links", function()
            expect(plugin:url { environment = "development" }):to_be "http://-:1/devnil"
            expect(plugin:url { environment = "development", settings = { host = "h", port = 2 } }):to_be "http://h:2/devnil"
            local url, refusal = plugin:url()
            expect(url):to_be(nil)
            expect(refusal):to_equal(patchbay.bad_request "which environment?")
            url, refusal = plugin:url { environment = "production" }
            expect(refusal):to_equal(patchbay.not_found "nowhere")
            expect(function() plugin:url { environment = "x", settings = { port = "no" } } end):to_fail "settings.port"
        end)
    "#)
    .await;
    all_pass(&report, 6);
}

#[tokio::test]
async fn rows_are_carried_over_as_a_server_does_it() {
    let upgrade = r#"upgrade = function(configuration, from_version)
        if from_version == "0.9.0" then
            return nil, { { field = "table", message = "too old" } }
        end
        return { database = configuration.schema, table = configuration.table }
    end,
    normalize ="#;
    let plugin = PLUGIN.replacen("normalize =", upgrade, 1);
    let text = r#"
        local plugin = patchbay.test.plugin()
        it("is carried over", function()
            expect(plugin.definition.hooks.upgrade):to_be(true)
            expect(plugin:upgrade({ schema = "Sales_x" }, "1.0.0"))
                :to_equal { database = "sales_x", table = "*", days = 7 }
            local values, errors = plugin:upgrade({ schema = "x" }, "0.9.0")
            expect(values):to_be(nil)
            expect(errors):to_equal { { field = "table", message = "too old" } }
            local _, mine = plugin:upgrade({ schema = "other" }, "1.0.0")
            expect(mine):to_equal { { field = "database", message = "not yours" } }
        end)
    "#;
    let report = run_with(single(&plugin), text, "{}", &SpecOptions::default()).await;
    all_pass(&report, 1);
    let text = r#"
        it("has none", function()
            patchbay.test.plugin():upgrade({ database = "x" }, "1.0.0")
        end)
    "#;
    let told = told(&run(text).await);
    assert!(
        told.contains("plugin:upgrade: the plugin has no upgrade hook"),
        "{told}"
    );
}

#[tokio::test]
async fn each_test_starts_afresh() {
    let report = run_with(
        folder(&[
            ("plugin.lua", PLUGIN),
            ("counter.lua", "return { counted = { 0 } }"),
        ]),
        r#"
        local counter = require "./counter"
        local seen, order = 0, {}
        before_each(function() seen += 1 table.insert(order, "outer") end)
        describe("group", function()
            before_each(function() table.insert(order, "inner") end)
            for place = 1, 3 do
                it("counts " .. place, function()
                    expect(seen):to_be(1)
                    expect(order):to_equal { "outer", "inner" }
                    seen += 10
                    expect(counter.counted[1]):to_be(0)
                    counter.counted[1] += 1
                    print("test", place)
                end)
            end
        end)
        it("has only its own groups", function() expect(order):to_equal { "outer" } end)
        "#,
        "{}",
        &SpecOptions::default(),
    )
    .await;
    all_pass(&report, 4);
    assert_eq!(report.printed, ["test 1", "test 2", "test 3"]);
    assert_eq!(report.file, "lua-plugins/x/x_spec.lua");
}

#[tokio::test]
async fn a_spec_that_does_not_end_is_stopped_and_the_next_test_runs() {
    let report = run(r#"local plugin = patchbay.test.plugin()
it("runs for ever", function()
    while true do pcall(function() while true do end end) end
end)
it("eats memory", function()
    local all = {}
    while true do table.insert(all, ("x"):rep(100000) .. #all) end
end)
it("works", function() expect(plugin:normalize { database = "x" }):to_contain { days = 7 } end)
"#)
    .await;
    assert_snapshot!(told(&report), @r"
    FAILED runs for ever
      lua-plugins/x_spec.lua:3: it ran longer than 80 ms
      line: while true do pcall(function() while true do end end) end
    FAILED eats memory
      lua-plugins/x_spec.lua: it needed more than 8192 KiB of memory
    ok works
    ");
    let report = run("while true do end").await;
    assert_snapshot!(
        told(&report),
        @"error lua-plugins/x_spec.lua:1: the top level of its files ran longer than 200 ms"
    );
}

#[tokio::test]
async fn what_is_wrong_with_the_file_or_the_plugin_is_told_once() {
    let broken = run("describe('x', function( end)").await;
    assert_snapshot!(
        told(&broken),
        @"error lua-plugins/x_spec.lua:1: Expected identifier when parsing variable name, got 'end'"
    );
    let empty = run("local plugin = patchbay.test.plugin()").await;
    assert_snapshot!(
        told(&empty),
        @r#"error lua-plugins/x_spec.lua: it has no test: it("…", function() … end)"#
    );
    let raising = run("local x = nil\nx.y = 1").await;
    assert_snapshot!(told(&raising), @"error lua-plugins/x_spec.lua:2: attempt to index nil with 'y'");
    let misused = run("describe('x')").await;
    assert_snapshot!(
        told(&misused),
        @r#"error lua-plugins/x_spec.lua:1: describe takes a name and a function: describe("…", function() … end)"#
    );
    let late = run("it('x', function() it('y', function() end) end)").await;
    assert_snapshot!(told(&late), @r"
    FAILED x
      lua-plugins/x_spec.lua:1: it works only while the spec's file runs, not inside a test
      line: it('x', function() it('y', function() end) end)
    ");
    let options = SpecOptions::default();
    let no_plugin = run_with(
        single("return 1"),
        "it('x', function() end)",
        "{}",
        &options,
    )
    .await;
    assert_snapshot!(
        told(&no_plugin),
        @"error lua-plugins/x.lua:1:8: expected a plugin: return patchbay.plugin { name = …, fields = … }, found a number"
    );
    assert!(!no_plugin.passed() && no_plugin.plugin.is_none());
}

#[tokio::test]
async fn snapshots_are_compared_and_written_when_told() {
    let text = r#"
        it("one", function() expect({ b = 1, a = { true } }):to_match_snapshot "one" end)
        it("two", function() expect("x"):to_match_snapshot "two" end)
    "#;
    let update = SpecOptions {
        update: true,
        ..SpecOptions::default()
    };
    let missing = run(text).await;
    assert_eq!(
        missing
            .tests
            .iter()
            .filter(|test| test.failure.is_some())
            .count(),
        2
    );
    assert!(missing.snapshots.is_none());
    let written = run_with(source(), text, "{\"old\": 1}", &update).await;
    all_pass(&written, 2);
    let stored = written.snapshots.expect("snapshots").to_text();
    assert_eq!(
        stored,
        "{\n  \"one\": {\n    \"a\": [\n      true\n    ],\n    \"b\": 1\n  },\n  \"two\": \"x\"\n}\n"
    );
    let again = run_with(source(), text, &stored, &update).await;
    assert!(again.passed() && again.snapshots.is_none());
    let changed = stored.replace("\"x\"", "\"y\"");
    let differs = run_with(source(), text, &changed, &SpecOptions::default()).await;
    assert_snapshot!(told(&differs), @r#"
    ok one
    FAILED two
      lua-plugins/x_spec.lua:3: it should match the snapshot "two"; if it is right as it is now, run the tests with --update
      line: it("two", function() expect("x"):to_match_snapshot "two" end)
      expected: "y"
      found: "x"
    "#);
    let only = SpecOptions {
        filter: Some("tw".to_owned()),
        ..SpecOptions::default()
    };
    let filtered = run_with(source(), text, &stored, &only).await;
    all_pass(&filtered, 1);
    assert!(filtered.obsolete_snapshots.is_empty());
    let unasked = run_with(
        source(),
        "it('x', function() end)",
        &stored,
        &SpecOptions::default(),
    )
    .await;
    assert_eq!(unasked.obsolete_snapshots, ["one", "two"]);
}

#[tokio::test]
async fn no_plugin_has_what_specs_have() {
    let sandbox = Sandbox::new(Limits::default());
    for entry in SPEC_API {
        let root = entry.path.split('.').next().expect("a name");
        let text = match root {
            "patchbay" => "patchbay.test.plugin()".to_owned(),
            name => {
                format!("assert({name} == nil, \"{name} is there\") error(\"it is not there\")")
            }
        };
        let error = load(&sandbox, single(&text))
            .await
            .expect_err(entry.path)
            .to_string();
        let expected = match root {
            "patchbay" => "patchbay has no \"test\"",
            _ => "it is not there",
        };
        assert!(error.contains(expected), "{}: {error}", entry.path);
    }
    // A plugin's hook, called by a spec, has no more than when a server calls it.
    let report = run_with(
        single(
            "return patchbay.plugin { name = \"XDataOutput\", fields = { patchbay.field.string \"a\" },
             validate = function() return { tostring(expect) .. tostring(describe) } end }",
        ),
        "it('x', function() expect(patchbay.test.plugin():validate({})):to_equal { { message = 'nilnil' } } end)",
        "{}",
        &SpecOptions::default(),
    )
    .await;
    all_pass(&report, 1);
}

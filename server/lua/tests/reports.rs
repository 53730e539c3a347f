//! What an author reads: every kind of mistake, with its file, line, column and path, and what to do.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{call, folder, load, reader, short, single, texts, with_hooks};
use insta::assert_snapshot;
use patchbay_lua::{HookError, Report, Sandbox, Source};
use patchbay_plugin::Map;
use serde_json::json;

async fn mistakes(source: Source) -> String {
    let sandbox = Sandbox::new(short());
    match load(&sandbox, source).await {
        Ok(plugin) => panic!("{plugin:?} was loaded"),
        Err(error) => error.to_string(),
    }
}

fn lines(reports: &[Report]) -> String {
    let lines: Vec<String> = reports.iter().map(Report::to_string).collect();
    lines.join("\n")
}

#[tokio::test]
async fn all_mistakes_of_a_definition_come_at_once() {
    let text = r#"local field = patchbay.field

return patchbay.plugin {
  name = "XDataOutput",
  vesion = "1.0.0",
  platform = { platform_key = "X y" },
  fields = {
    field.string "a" { required = true, default = "b" },
    field.enum "kind" { values = { "one" }, default = "two" },
    field.integer "Count",
    field.string("d", 1) { patern = "x" },
    field.list "e" { of = "things" },
  },
  examples = {
    { a = "x", nope = 1 },
  },
  render = "text",
}
"#;
    assert_snapshot!(mistakes(single(text)).await, @r##"
    lua-plugins/x.lua:8:51: fields[1].default: expected no default on a required field, found "b" (a required field is always brought; drop `required` or `default`)
    lua-plugins/x.lua:9:55: fields[2].default: expected a value that the field itself accepts (enum), found "two" (Input should be 'one')
    lua-plugins/x.lua:10:19: fields[3].name: expected a field name: a lower-case letter, then lower-case letters, digits and `_`, at most 48 bytes, found "Count"
    lua-plugins/x.lua:11:28: fields[4].patern: expected one of the keys default, depends_on, description, label, max, min, name, pattern, required, type, found `patern` (did you mean `pattern`?)
    lua-plugins/x.lua:12:27: fields[5].of: expected "string", "integer", "number" or "boolean", found "things"
    lua-plugins/x.lua:15:16: examples[1].nope: expected a field of this plugin, found `nope` (it has no such field)
    lua-plugins/x.lua:17:12: render: expected a function, found "text"
    lua-plugins/x.lua:5:3: vesion: expected one of the keys aliases, api, environment_entry, examples, fields, migrations, name, normalize, placeholders, platform, render, requires, settings, table, ui_metadata, upgrade, url, validate, version, found `vesion` (did you mean `version`?)
    lua-plugins/x.lua:6:31: platform.platform_key: expected a platform key: lower-case letters, digits, `_` and `-`, at most 64, as in "snowflake", found "X y"
    "##);
}

#[tokio::test]
async fn a_definition_that_is_put_together_is_followed() {
    let text = r#"local field = patchbay.field
local database = field.string "database" { requird = true }
local definition = {
  name = "XDataOutput",
  fields = { database, (field.string "b" { min = "many" }) },
}
definition.version = 1
definition.platform = { icon_name = "../x.svg" }
for _, name in { "c", "C" } do
  table.insert(definition.fields, field.string(name))
end
function definition.render() end
return patchbay.plugin(definition)
"#;
    assert_snapshot!(mistakes(single(text)).await, @r##"
    lua-plugins/x.lua:7:22: version: expected a string, found 1
    lua-plugins/x.lua:2:44: fields[1].requird: expected one of the keys default, depends_on, description, label, max, min, name, pattern, required, type, found `requird` (did you mean `required`?)
    lua-plugins/x.lua:5:50: fields[2].min: expected an integer of 0 or more, found "many"
    lua-plugins/x.lua:5:12: fields[4].name: expected a field name: a lower-case letter, then lower-case letters, digits and `_`, at most 48 bytes, found "C"
    lua-plugins/x.lua:8:37: platform.icon_name: expected a plain file name that ends in .svg, such as "snowflake-logo.svg", found "../x.svg"
    "##);
}

#[tokio::test]
async fn errors_of_code_have_their_line_and_no_stack() {
    let mut found = String::new();
    for text in [
        "return patchbay.plugin {\n  name = \"X\"\n  fields = {}\n}",
        "local x = nil\n\nreturn x.y",
        "local function f()\n  error(\"no luck\")\nend\nf()",
        "\nerror({ code = 5 })",
        "\nerror(\"plain\", 0)",
        "\nlocal s = string.rep()",
        "\npatchbay.field.string \"a\" \"b\"",
        "\npatchbay.field.string { name = \"a\" }",
        "\nreturn patchbay.field.strng \"a\"",
        "\nreturn patchbay.plugin(nil)",
        "\nreturn 5",
        "\nreturn { name = \"X\" }",
        "return 'x\n",
        "x = 1",
        "\nlocal t = setmetatable({}, { __tostring = function() return 'an object' end })\nerror(t)",
        "pcall(error)\nlocal ok, message = pcall(function()\n  error('inner')\nend)\nerror(message)",
        "local co = coroutine.wrap(function()\n  error('in a coroutine')\nend)\nco()",
    ] {
        found.push_str(&mistakes(single(text)).await);
        found.push('\n');
    }
    assert!(!found.contains("traceback"));
    assert_snapshot!(found, @r##"
    lua-plugins/x.lua:3: Expected ',' after table constructor element
    lua-plugins/x.lua:3:10: attempt to index nil with 'y'
    lua-plugins/x.lua:2: no luck
    lua-plugins/x.lua:2: it raised a value that is no text; raise a text with error("…")
    lua-plugins/x.lua:2: plain
    lua-plugins/x.lua:2:18: invalid argument #1 to 'rep' (string expected, got nil)
    lua-plugins/x.lua:2:24: field.string "a" takes a table of options, not string
    lua-plugins/x.lua:2:25: field.string takes a name first: field.string "name" { … }
    lua-plugins/x.lua:2:23: patchbay.field has no "strng" (did you mean "string"?)
    lua-plugins/x.lua:2: patchbay.plugin takes a table, not nil
    lua-plugins/x.lua:2:8: expected a plugin: return patchbay.plugin { name = …, fields = … }, found a number
    lua-plugins/x.lua:2:8: expected a plugin: return patchbay.plugin { name = …, fields = … }, found a table that patchbay.plugin did not mark
    lua-plugins/x.lua:1: Malformed string; did you forget to finish it?
    lua-plugins/x.lua:1: globals cannot be set: write "local x = …"
    lua-plugins/x.lua:3: an object
    lua-plugins/x.lua:3: inner
    lua-plugins/x.lua:2: in a coroutine
    "##);
}

#[tokio::test]
async fn modules_are_refused_with_the_reason() {
    let mut source = folder(&[
        ("plugin.lua", ""),
        ("rules.lua", "return {}"),
        ("nothing.lua", "local x = 1"),
        ("broken.lua", "return {\n  a = = 1\n}"),
        ("raises.lua", "\nerror('out of order')"),
        ("a.lua", "return require './b'"),
        ("b.lua", "return require './a'"),
    ]);
    source.refused = Arc::new(BTreeMap::from([(
        "linked.lua".to_owned(),
        "linked.lua is a link that leaves the plugin's folder".to_owned(),
    )]));
    source.libs = Arc::new(texts(&[
        ("table_family.lua", "return {}"),
        ("nosy.lua", "return require './rules'"),
    ]));
    let mut found = String::new();
    for name in [
        "./rulez",
        "./linked",
        "./nothing",
        "./broken",
        "./raises",
        "./a",
        "./../secret",
        "/etc/passwd",
        "./a/../b",
        "rules",
        "@lib/table_famly",
        "@lib/nosy",
        ".\\\\rules",
        "@lib/../x",
        "./C:/x",
        "./",
        "./rules.lua",
    ] {
        let mut files = (*source.files).clone();
        let text =
            format!("return patchbay.plugin {{\n  name = \"X\",\n  fields = require \"{name}\" }}");
        files.insert("plugin.lua".to_owned(), text.into());
        let source = Source {
            files: Arc::new(files),
            ..source.clone()
        };
        found.push_str(&mistakes(source).await);
        found.push('\n');
    }
    found.push_str(&mistakes(single("require './rules'")).await);
    assert_snapshot!(found, @r##"
    lua-plugins/x/plugin.lua:3: require "./rulez": the plugin's folder has no such file (did you mean "./rules"?)
    lua-plugins/x/plugin.lua:3: require "./linked": linked.lua is a link that leaves the plugin's folder
    lua-plugins/x/plugin.lua:3: the module lua-plugins/x/nothing.lua returned nothing
    lua-plugins/x/broken.lua:2: Expected identifier when parsing expression, got '='
    lua-plugins/x/raises.lua:2: out of order
    lua-plugins/x/b.lua:1: modules require one another in a circle: lua-plugins/x/a.lua → lua-plugins/x/b.lua → lua-plugins/x/a.lua
    lua-plugins/x/plugin.lua:3:23: require "./../secret": the path must be plain names, without `..`, empty parts or drive letters
    lua-plugins/x/plugin.lua:3: require "/etc/passwd": a module is "./x" in the plugin's own folder or "@lib/x" among the shared modules; nothing else can be reached
    lua-plugins/x/plugin.lua:3:25: require "./a/../b": the path must be plain names, without `..`, empty parts or drive letters
    lua-plugins/x/plugin.lua:3:21: require "rules": a module is "./x" in the plugin's own folder or "@lib/x" among the shared modules; nothing else can be reached
    lua-plugins/x/plugin.lua:3: require "@lib/table_famly": there is no such shared module (did you mean "@lib/table_family"?)
    @lib/nosy.lua:1: require "./rules": a shared module reaches only other shared modules, "@lib/x"
    lua-plugins/x/plugin.lua:3: require ".\\rules": write `/` between the parts of a path
    lua-plugins/x/plugin.lua:3:26: require "@lib/../x": the path must be plain names, without `..`, empty parts or drive letters
    lua-plugins/x/plugin.lua:3: require "./C:/x": the path must be plain names, without `..`, empty parts or drive letters
    lua-plugins/x/plugin.lua:3:21: require "./": the path must be plain names, without `..`, empty parts or drive letters
    lua-plugins/x/plugin.lua:3: require "./rules.lua": the plugin's folder has no such file (did you mean "./rules"?)
    lua-plugins/x.lua:1: require "./rules": x.lua is a single file and has no folder of its own; make it a folder with plugin.lua, or use "@lib/x"
    "##);
}

#[tokio::test]
async fn migrations_are_read_with_their_lines() {
    let plugin = "return patchbay.plugin { name = \"XDataOutput\", fields = { patchbay.field.string \"a\" } }";
    let source = folder(&[
        ("plugin.lua", plugin),
        (
            "migrations/0001_create_table.lua",
            r#"local column = patchbay.column
return {
  up = function(m)
    m:create_table("x_data_output_configurations", {
      column.id(),
      column.text "a" { nulable = true },
    })
    m:create_index("x_data_output_configurations", { "a" }, { uniq = true })
    m:rename_column("x_data_output_configurations", "a")
    m:update("X", { set = { a = 1 } })
  end,
  dwn = function(m) end,
}
"#,
        ),
        (
            "migrations/0002_raises.lua",
            "return {\n  up = function(m)\n    m:drop_everything()\n  end,\n}",
        ),
        (
            "migrations/0003_syntax.lua",
            "return {\n  up = function(m) m:drop_table( end,\n}",
        ),
        ("migrations/0004_nothing.lua", "return {}"),
        ("migrations/4_short.lua", "return { up = function() end }"),
        (
            "migrations/0005_down.lua",
            "return { up = function(m) m:drop_table 'x' end, down = function(m)\n m:add_column('x', 5) end }",
        ),
    ]);
    assert_snapshot!(mistakes(source).await, @r##"
    lua-plugins/x/migrations/0001_create_table.lua:12:3: dwn: expected one of the keys up, down, found `dwn` (did you mean `down`?)
    lua-plugins/x/migrations/0001_create_table.lua:4: up[1].columns[2].nulable: expected one of the keys default, name, nullable, primary_key, references, type, found `nulable` (did you mean `nullable`?)
    lua-plugins/x/migrations/0001_create_table.lua:8:63: up[2].uniq: expected one of the keys columns, name, op, table, unique, found `uniq`
    lua-plugins/x/migrations/0001_create_table.lua:9: up[3].to: expected a string, found nothing
    lua-plugins/x/migrations/0001_create_table.lua:10:15: up[4].table: expected a table name: a lower-case letter, then lower-case letters, digits and `_`, at most 48 bytes, found "X"
    lua-plugins/x/migrations/0002_raises.lua:3:7: m has no "drop_everything"; it has create_table, drop_table, add_column, rename_column, drop_column, alter_column, create_index, drop_index, update
    lua-plugins/x/migrations/0003_syntax.lua:2:34: Expected identifier when parsing expression, got 'end'
    lua-plugins/x/migrations/0004_nothing.lua:1:8: up: expected a function: up = function(m) … end, found nothing
    lua-plugins/x/migrations/0005_down.lua:2: down[1].column: expected a column, such as column.text "database" { nullable = false }, found 5
    lua-plugins/x/migrations/4_short.lua: the name of a migration file is its id: expected a migration id: four digits, `_` and lower-case words, as in "0001_create_table", found "4_short"
    "##);
}

#[tokio::test]
async fn inline_migrations_are_read_with_their_lines() {
    let text = r#"local column, migration = patchbay.column, patchbay.migration
return patchbay.plugin {
  name = "XDataOutput",
  fields = { patchbay.field.string "a" },
  migrations = {
    migration "0001_create_table" {
      up = function(m)
        m:create_table("x_data_output_configurations", { column.id(), column.text "A" })
      end,
    },
    migration "0001_create_table" { up = function(m) end },
    migration "first" { up = function(m) end },
    migration "0002_no_up" { dwon = function(m) end },
    { up = function(m) end },
  },
}
"#;
    assert_snapshot!(mistakes(single(text)).await, @r##"
    lua-plugins/x.lua:12:15: migrations[3].id: expected a migration id: four digits, `_` and lower-case words, as in "0001_create_table", found "first"
    lua-plugins/x.lua:14:5: migrations[5]: expected a migration, such as patchbay.migration "0001_create_table" { up = … }, found a table that patchbay.migration did not build
    lua-plugins/x.lua:8:84: migrations[1].up[1].columns[2].name: expected a name: a lower-case letter, then lower-case letters, digits and `_`, at most 48 bytes, found "A"
    lua-plugins/x.lua:11:5: migrations[2]: expected each migration's id once, found 0001_create_table again (number it after the others)
    lua-plugins/x.lua:13:30: migrations[4].dwon: expected one of the keys up, down, found `dwon` (did you mean `down`?)
    lua-plugins/x.lua:13:5: migrations[4].up: expected a function: up = function(m) … end, found nothing
    "##);
}

#[tokio::test]
async fn settings_that_are_wrong_are_reported() {
    let sandbox = Sandbox::new(short());
    let text = "return patchbay.plugin { name = \"XPlugin\", settings = { patchbay.field.string \"org\" { required = true } } }";
    let lookup = Arc::new(
        |name: &patchbay_plugin::name::PluginName, fields: &[patchbay_plugin::field::Field]| {
            Err(vec![format!("{name}: {} is not set", fields[0].name)])
        },
    );
    let error = sandbox
        .load(single(text), lookup)
        .await
        .expect_err("no setting");
    assert_eq!(
        error.to_string(),
        "lua-plugins/x.lua: XPlugin: org is not set"
    );
    let plugin = sandbox
        .load(single(text), Arc::new(|_, _| Ok(Map::new())))
        .await;
    assert!(plugin.is_ok());
}

const WRONG_FORMS: &str = r#"local ui = patchbay.ui
local shared = { ui.string "a" { lable = "A" } }

return patchbay.plugin {
  name = "XDataOutput",
  fields = { patchbay.field.string "a", patchbay.field.string "b" },
  ui_metadata = function(db)
    local last = ui.radio "b" {
      options = { "x", 5 },
    }
    return {
      ui.string "a" {
        tooltip = 5,
      },
      ui.select "database" { options = "none" },
      last,
      shared[1],
    }
  end,
  validate = function(configuration)
    if configuration.a == "raise" then
      local nothing
      return nothing.field
    elseif configuration.a == "loop" then
      while true do
      end
    end
    return { { field = "c", message = "x" }, { text = "y" }, 5 }
  end,
  normalize = function(configuration)
    configuration.a = { print }
    configuration.b = 2 ^ 53
    return configuration
  end,
  url = function() return nil end,
  render = function() end,
}
"#;

#[tokio::test]
async fn answers_that_are_nonsense_are_placed_in_the_hook() {
    let sandbox = Sandbox::new(short());
    let plugin = load(&sandbox, single(WRONG_FORMS)).await.expect("a plugin");
    let mut found = String::new();
    for _ in 0..2 {
        let error = plugin.ui_metadata(reader()).await.expect_err("nonsense");
        found = lines(error.reports());
    }
    for a in ["x", "raise", "loop"] {
        let error = plugin
            .validate(call(json!({ "a": a })))
            .await
            .expect_err("nonsense");
        found.push_str(&format!("\n{}", lines(error.reports())));
    }
    let error = plugin
        .normalize(call(json!({})))
        .await
        .expect_err("nonsense");
    found.push_str(&format!("\n{error}"));
    let error = plugin.url(call(json!({}))).await.expect_err("nonsense");
    found.push_str(&format!("\n{error}"));
    let rendered = plugin
        .render(vec![patchbay_lua::RenderCall {
            values: Map::new(),
            filled: String::new(),
            context: Default::default(),
        }])
        .await;
    for answer in rendered {
        found.push_str(&format!("\n{}", answer.expect_err("nonsense")));
    }
    assert_snapshot!(found, @r##"
    lua-plugins/x.lua:13:19: ui_metadata: [1].tooltip: expected a string, found 5
    lua-plugins/x.lua:15:40: ui_metadata: [2].options: expected a list of options, such as { "a", { label = "B", value = "b" } }, found "none"
    lua-plugins/x.lua:15:17: ui_metadata: [2].name: expected the name of one of the plugin's fields, found "database"
    lua-plugins/x.lua:9:24: ui_metadata: [3].options[2]: expected a text, or a table with `label` and `value`, found 5
    lua-plugins/x.lua:17:7: ui_metadata: [4].lable: expected one of the keys depends_on, disabled, group, help, hidden, initial_value, label, max, min, name, pattern, placeholder, required, rows, secret, step, tooltip, type, use_namespace_when_not_source_aligned, widget, found `lable` (did you mean `label`?)
    lua-plugins/x.lua:17:7: ui_metadata: [4].name: expected each element's name once, found "a" again
    lua-plugins/x.lua:28:24: validate: [1].field: expected the name of one of the plugin's fields, found "c"
    lua-plugins/x.lua:28:46: validate: [2].message: expected a string, found nothing
    lua-plugins/x.lua:28:48: validate: [2].text: expected one of the keys field, message, found `text`
    lua-plugins/x.lua:28:62: validate: [3]: expected an error: { field = "…", message = "…" }, or a text, found 5
    lua-plugins/x.lua:23:22: validate: attempt to index nil with 'field'
    lua-plugins/x.lua:25: validate: it ran longer than 80 ms
    lua-plugins/x.lua:33:12: normalize: a[1]: expected plain data, found a function
    lua-plugins/x.lua:33:12: normalize: b: expected an integer within ±9007199254740991, found 9007199254740992
    lua-plugins/x.lua:35:27: url: expected a link (a text), or nil and patchbay.not_found "…" or patchbay.bad_request "…", found nil and nothing
    lua-plugins/x.lua:36:3: render: expected the finished text, found nothing
    "##);
}

#[tokio::test]
async fn strings_interpolated_in_one_another_hold_up_no_report() {
    let deep = format!("{}'x'{}", "`{".repeat(60), "}`".repeat(60));
    let text = format!("return patchbay.plugin {{ name = 'A', fields = {{}}, zzz = {deep} }}");
    let told = mistakes(single(&text)).await;
    assert!(
        told.starts_with("lua-plugins/x.lua: zzz: expected one of the keys"),
        "{told}"
    );
    // What the file says of its API is told all the same.
    let text = format!("return patchbay.plugin {{ name = 'A', api = 99, zzz = {deep} }}");
    let told = mistakes(single(&text)).await;
    assert!(told.starts_with("lua-plugins/x.lua:1:"), "{told}");
    assert!(told.contains("99"), "{told}");
}

#[tokio::test]
async fn a_link_leads_to_the_web_or_nowhere() {
    let sandbox = Sandbox::new(short());
    for (link, told) in [
        ("", None),
        ("https://example.com/a b", None),
        ("HTTP://example.com", None),
        ("javascript:alert(1)", Some("found \"javascript:alert(1)\"")),
        (
            " https://example.com",
            Some("found \" https://example.com\""),
        ),
        ("//example.com", Some("found \"//example.com\"")),
    ] {
        let text = format!(
            "return patchbay.plugin {{\n name = 'XDataOutput',\n platform = {{}},\n url = function()\n  return {link:?}\n end,\n}}"
        );
        let plugin = load(&sandbox, single(&text)).await.expect("a plugin");
        let answer = plugin.url(call(json!({}))).await;
        match told {
            None => assert_eq!(answer.expect("a link"), link),
            Some(told) => {
                let error = answer.expect_err("no link").to_string();
                assert!(
                    error.contains(told) && error.contains("x.lua:5:"),
                    "{error}"
                );
            }
        }
    }
}

#[tokio::test]
async fn names_that_lead_to_themselves_are_not_followed_for_ever() {
    let text = r#"local p
local function mk(x) return patchbay.plugin { name = "RecurOutput", fields = 5, bad = 1 } end
local p = mk(p)
return p
"#;
    let found = mistakes(single(text)).await;
    assert!(found.contains("bad: expected one of the keys"), "{found}");
    assert!(found.contains("fields: expected"), "{found}");

    let text = common::with_hooks(
        "validate = function() local x local function mk(y) return { { feld = 'a', message = 5 } } end\nlocal x = mk(x) return x end",
    );
    let sandbox = Sandbox::new(short());
    let plugin = load(&sandbox, single(&text)).await.expect("loads");
    let error = plugin
        .validate(call(json!({})))
        .await
        .expect_err("`feld` is no key");
    assert!(error.to_string().contains("feld"), "{error}");
}

#[tokio::test]
async fn places_are_found_in_deeply_nested_sources() {
    let deep = 180;
    let text = format!(
        "local x = {}{}\nlocal y = {}1{}\nreturn patchbay.plugin {{ name = \"XDataOutput\", fields = 5 }}",
        "{".repeat(deep),
        "}".repeat(deep),
        "(".repeat(deep),
        ")".repeat(deep),
    );
    let found = mistakes(single(&text)).await;
    assert!(found.contains("x.lua:3:"), "{found}");
}

/// What is wrong with a definition whose `junk` is hostile, and that it was found before anything was given up.
async fn junk(code: &str) -> String {
    let sandbox = Sandbox::new(patchbay_lua::Limits::default());
    let text = format!(
        "{code}\nreturn patchbay.plugin {{ name = \"XDataOutput\", fields = {{ patchbay.field.string \"a\" }}, junk = t }}"
    );
    match load(&sandbox, single(&text)).await {
        Ok(plugin) => panic!("{plugin:?} was loaded"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_table_is_not_read_twice_at_every_level() {
    let found = junk(
        "local function lvl(c) return { a = c, ['\\0'] = 1, b = c and 1, c = 1, d = 1 } end\nlocal t = {} for i = 1, 30 do t = lvl(t) end",
    )
    .await;
    assert!(found.contains("at most 100000 values"), "{found}");
}

#[tokio::test]
async fn long_keys_are_counted_before_they_are_copied() {
    let found = junk(
        "local key = string.rep('k', 1000000)\nlocal t = {} for i = 1, 3000 do t[i] = { [key] = 1 } end",
    )
    .await;
    assert!(found.contains("at most 4194304 bytes of text"), "{found}");
}

#[tokio::test]
async fn tables_that_are_only_long_to_walk_are_not_read_for_ever() {
    let sandbox = Sandbox::new(short());
    let hooks = r#"
      validate = function()
        local hollow, all = table.create(200000), {}
        for place = 1, 60000 do all[place] = hollow end
        return all
      end,"#;
    let plugin = load(&sandbox, single(&with_hooks(hooks)))
        .await
        .expect("a plugin");
    match plugin.validate(call(json!({ "a": "x" }))).await {
        Err(HookError::Nonsense(reports)) => {
            let told = reports[0].to_string();
            assert!(told.contains("at most 100000 values"), "{told}");
        }
        other => panic!("{other:?}"),
    }
}

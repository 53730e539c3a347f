//! The editor types are the lists of the API, and the lists are what the readers, the sandbox and specs have.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use common::{call, catalogue, load, reader, short, single};
use patchbay_lua::{
    API, HookContext, RECORDS, RenderCall, SPEC_API, SPEC_RECORDS, Sandbox, Shape, Spec,
    SpecOptions, SpecReport, types,
};
use patchbay_plugin::definition::Definition;
use patchbay_plugin::field::Field;
use patchbay_plugin::form::read_form;
use patchbay_plugin::migration::read_operations;
use patchbay_plugin::term::{Mistake, Mistakes, Path as TermPath, Term};
use serde_json::{Value, json};

/// Where the types lie.
fn committed() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../lua-plugins/types/patchbay.d.luau")
}

#[test]
fn the_committed_types_are_what_the_program_writes() {
    let text = std::fs::read_to_string(committed()).expect("the types");
    assert!(
        text == types(),
        "lua-plugins/types/patchbay.d.luau is out of date: patchbay plugin types --write lua-plugins/types/patchbay.d.luau"
    );
}

#[test]
fn the_types_are_luau() {
    // The parser knows types, but not the word that only definition files have.
    let text = types().replace("\ndeclare ", "\nlocal ");
    if let Err(errors) = full_moon::parse(&text) {
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        panic!("{told:#?}");
    }
}

#[test]
fn every_type_that_is_spoken_of_is_there_and_everything_has_a_doc() {
    let records: Vec<_> = RECORDS.iter().chain(SPEC_RECORDS).collect();
    let known: BTreeSet<&str> = records.iter().map(|record| record.name).collect();
    assert_eq!(known.len(), records.len(), "each type once");
    let mut signatures: Vec<&str> = SPEC_API.iter().map(|entry| entry.signature).collect();
    for entry in API
        .iter()
        .filter(|entry| entry.path.starts_with("patchbay."))
    {
        signatures.push(entry.signature);
        assert!(
            entry.doc.ends_with('.') || entry.doc.ends_with('…'),
            "{}: {}",
            entry.path,
            entry.doc
        );
    }
    for record in &records {
        assert!(record.doc.ends_with('.'), "{}", record.name);
        let mut names = BTreeSet::new();
        for part in record.parts() {
            assert!(
                names.insert(part.name),
                "{}.{} twice",
                record.name,
                part.name
            );
            assert!(part.doc.ends_with('.'), "{}.{}", record.name, part.name);
            signatures.push(part.signature);
        }
        if let Shape::Alias(signature) = record.shape {
            signatures.push(signature);
        }
    }
    for signature in signatures {
        let words = signature.split(|c: char| !c.is_ascii_alphanumeric());
        for word in words.filter(|word| word.starts_with(|first: char| first.is_ascii_uppercase()))
        {
            assert!(known.contains(word), "{word} in {signature}");
        }
    }
}

/// The fields of a type, ordered.
fn listed(name: &str) -> Vec<&'static str> {
    let record = RECORDS
        .iter()
        .chain(SPEC_RECORDS)
        .find(|record| record.name == name)
        .unwrap_or_else(|| panic!("a type {name}"));
    let mut names: Vec<&str> = record.parts().map(|part| part.name).collect();
    names.sort_unstable();
    names
}

/// A key that no table has.
const NONSENSE: &str = "zzzzzzzzzz";

/// The keys that a reader says it knows, when it meets one that it does not.
fn accepted(mistakes: &[Mistake], without: &[&str]) -> Vec<String> {
    let unknown = mistakes
        .iter()
        .find(|mistake| mistake.at_key && mistake.found == format!("`{NONSENSE}`"))
        .unwrap_or_else(|| panic!("a mistake about the key: {mistakes:#?}"));
    keys_of(&unknown.expected, "one of the keys ", without)
}

fn keys_of(text: &str, before: &str, without: &[&str]) -> Vec<String> {
    let (_, keys) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("{before:?} in {text:?}"));
    let keys = keys
        .split_once(['(', '\n', ';'])
        .map_or(keys, |(keys, _)| keys);
    let mut keys: Vec<String> = keys
        .trim()
        .split(", ")
        .map(|key| key.trim().to_owned())
        .filter(|key| !without.contains(&key.as_str()))
        .collect();
    keys.sort_unstable();
    keys
}

fn definition(value: Value) -> Vec<Mistake> {
    Definition::read(Term::from_json(value), Vec::new()).expect_err("a mistake")
}

#[test]
fn definitions_accept_what_is_listed() {
    assert_eq!(
        accepted(&definition(json!({ "name": "X", NONSENSE: 1 })), &[]),
        listed("PluginDefinition")
    );
    assert_eq!(
        accepted(
            &definition(json!({ "name": "X", "platform": { NONSENSE: 1 } })),
            &[]
        ),
        listed("Platform")
    );
}

#[test]
fn fields_accept_what_is_listed() {
    for (kind, record) in [
        ("string", "StringOptions"),
        ("integer", "IntegerOptions"),
        ("number", "NumberOptions"),
        ("boolean", "BooleanOptions"),
        ("enum", "EnumOptions"),
        ("list", "ListOptions"),
        ("json", "JsonOptions"),
    ] {
        let mut mistakes = Mistakes::default();
        let field = json!({ "type": kind, "name": "a", NONSENSE: 1 });
        Field::read(Term::from_json(field), TermPath::default(), &mut mistakes);
        let mistakes = mistakes.into_result(None::<()>).expect_err("a mistake");
        assert_eq!(
            accepted(&mistakes, &["type", "name"]),
            listed(record),
            "{kind}"
        );
    }
    let kinds: Vec<String> = patchbay_plugin::field::FIELD_KINDS
        .iter()
        .map(|kind| format!("patchbay.field.{kind}"))
        .collect();
    let functions: Vec<&str> = API
        .iter()
        .map(|entry| entry.path)
        .filter(|path| path.starts_with("patchbay.field."))
        .collect();
    assert_eq!(functions, kinds);
}

#[test]
fn elements_accept_what_is_listed() {
    for (kind, record) in [
        ("string", "StringElementOptions"),
        ("select", "SelectElementOptions"),
        ("checkbox", "CheckboxElementOptions"),
        ("radio", "RadioElementOptions"),
    ] {
        let form = json!([{ "type": kind, "name": "a", NONSENSE: 1 }]);
        let mistakes = read_form(Term::from_json(form), &[]).expect_err("a mistake");
        assert_eq!(
            accepted(&mistakes, &["type", "name"]),
            listed(record),
            "{kind}"
        );
    }
    let form =
        json!([{ "type": "radio", "name": "a", "options": [{ "value": "x", NONSENSE: 1 }] }]);
    let mistakes = read_form(Term::from_json(form), &[]).expect_err("a mistake");
    assert_eq!(accepted(&mistakes, &[]), listed("LabelledOption"));
}

#[test]
fn operations_accept_what_is_listed() {
    let operation = |value: Value| {
        let mut mistakes = Mistakes::default();
        read_operations(
            Term::List(vec![Term::from_json(value)]),
            TermPath::default(),
            &mut mistakes,
        );
        mistakes.into_result(None::<()>).expect_err("a mistake")
    };
    let column = |more: Value| {
        let mut column = json!({ "type": "text", "name": "a" });
        column
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        operation(json!({ "op": "add_column", "table": "x", "column": column }))
    };
    let arguments = ["op", "table", "columns"];
    assert_eq!(
        accepted(&column(json!({ NONSENSE: 1 })), &["type", "name"]),
        listed("ColumnOptions")
    );
    assert_eq!(
        accepted(
            &column(json!({ "references": { "table": "x", NONSENSE: 1 } })),
            &[]
        ),
        listed("Reference")
    );
    assert_eq!(
        accepted(
            &operation(
                json!({ "op": "create_index", "table": "x", "columns": ["a"], NONSENSE: 1 })
            ),
            &arguments
        ),
        listed("IndexOptions")
    );
    assert_eq!(
        accepted(
            &operation(json!({ "op": "update", "table": "x", "set": { "a": 1 }, NONSENSE: 1 })),
            &arguments
        ),
        listed("Change")
    );
}

/// A plugin with one field and this beside it.
fn plugin(more: &str) -> String {
    format!(
        "return patchbay.plugin {{ name = \"XDataOutput\", fields = {{ patchbay.field.string \"a\" }},\n{more}\n}}"
    )
}

/// What raising the sorted keys of `table` in a hook says.
const KEYS: &str = "local function keys(t) local all = {} for key in t do table.insert(all, key) end \
                    table.sort(all) return table.concat(all, \", \") end";

/// The methods that a source adds to an object of the API, ordered.
fn added(source: &str) -> Vec<&str> {
    let mut names: Vec<&str> = ["add_method(", "add_async_method("]
        .iter()
        .flat_map(|call| source.split(call).skip(1))
        .filter_map(|rest| rest.split('"').nth(1))
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn objects_have_no_method_that_is_not_listed() {
    assert_eq!(added(include_str!("../src/db.rs")), listed("Db"));
    assert_eq!(
        added(include_str!("../src/migrations.rs")),
        listed("Recorder")
    );
}

#[tokio::test]
async fn hooks_are_given_what_is_listed() {
    let sandbox = Sandbox::new(short());
    let text = format!(
        "{KEYS}\n{}",
        plugin(
            "render = function(_, _, context) return table.concat({ keys(context), keys(context.data_product), \
             keys(context.environment) }, '|') end"
        )
    );
    let plugin = load(&sandbox, single(&text)).await.expect("a plugin");
    let environment = catalogue().environments[0].clone();
    let render = RenderCall {
        values: Default::default(),
        filled: String::new(),
        context: HookContext {
            environment: Some(environment),
            entry: Some(json!({})),
            template: Some(String::new()),
            ..call(json!({})).context
        },
    };
    let rendered = plugin.render(vec![render]).await.remove(0).expect("a text");
    let lists: Vec<String> = ["Context", "DataProduct", "Environment"]
        .iter()
        .map(|record| listed(record).join(", "))
        .collect();
    assert_eq!(rendered, lists.join("|"));
    for method in listed("Db") {
        let text = format!(
            "return patchbay.plugin {{ name = \"XDataOutput\", fields = {{ patchbay.field.string \"a\" }},
             ui_metadata = function(db) assert(type(db.{method}) == \"function\") return {{}} end }}"
        );
        let plugin = load(&sandbox, single(&text)).await.expect("a plugin");
        plugin.ui_metadata(reader()).await.expect(method);
    }
}

#[tokio::test]
async fn recorders_and_migrations_have_what_is_listed() {
    let sandbox = Sandbox::new(short());
    let step = |body: &str| {
        plugin(&format!(
            "migrations = {{ patchbay.migration \"0001_a\" {{ up = function(m) {body} end }} }}"
        ))
    };
    let checks: String = listed("Recorder")
        .iter()
        .map(|method| format!("assert(type(m.{method}) == \"function\") "))
        .collect();
    load(&sandbox, single(&step(&checks)))
        .await
        .expect("all of them");
    let wrong = plugin(
        "migrations = { patchbay.migration \"0001_a\" { zzzzzzzzzz = 1, up = function() end } }",
    );
    let error = load(&sandbox, single(&wrong))
        .await
        .expect_err("no such key")
        .to_string();
    let (told, _) = error.split_once(", found").expect("what was found");
    assert_eq!(
        keys_of(told, "one of the keys ", &[]),
        listed("MigrationSteps")
    );
    assert_eq!(listed("Migration"), ["down", "id", "up"]);
}

/// Runs a spec with one test.
async fn run_spec(body: &str) -> SpecReport {
    let sandbox = Sandbox::new(short());
    let spec = Spec {
        plugin: single(&plugin("")),
        file: "x_spec.lua".to_owned(),
        text: Arc::from(format!(
            "{KEYS}\nlocal plugin = patchbay.test.plugin()\nit(\"fails\", function() {body} end)"
        )),
        snapshots: Default::default(),
    };
    sandbox.test(spec, &SpecOptions::default()).await
}

/// What a spec's only test fails with.
async fn failure(body: &str) -> String {
    let report = run_spec(body).await;
    match &report.tests[..] {
        [test] => test.failure.clone().expect("a failure").message,
        _ => panic!("{report:#?}"),
    }
}

#[tokio::test]
async fn specs_have_what_is_listed() {
    let report = run_spec(&format!(
        "for _, name in {{ \"{}\" }} do local found = expect(1)[name] assert(found, name) end
         for _, name in {{ \"{}\" }} do assert(plugin[name], name) end",
        listed("Expectation").join("\", \""),
        listed("PluginUnderTest").join("\", \""),
    ))
    .await;
    assert!(report.passed(), "{report:#?}");
    for (world, record) in [
        ("zzzzzzzzzz = 1", "World"),
        ("catalogue = { zzzzzzzzzz = 1 }", "FakeCatalogue"),
        (
            "catalogue = { environments = { { name = \"x\", zzzzzzzzzz = 1 } } }",
            "FakeEnvironment",
        ),
        ("data_product = { zzzzzzzzzz = 1 }", "FakeDataProduct"),
    ] {
        let told = failure(&format!("plugin:form {{ {world} }}")).await;
        let (told, _) = told.split_once(", found").expect("what was found");
        assert_eq!(
            keys_of(told, "one of the keys ", &[]),
            listed(record),
            "{record}"
        );
    }
    let keys = async |value: &str| {
        let told = failure(&format!("error(keys({value}))")).await;
        told.split(", ").map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(keys("plugin:form()").await, ["elements", "not_configured"]);
    assert_eq!(listed("Form"), ["elements", "not_configured"]);
    // What the plugin does not have is nil, and no key.
    let absent = ["environment_entry", "requires"];
    let mut definition = listed("Definition");
    definition.retain(|key| !absent.contains(key));
    assert_eq!(keys("plugin.definition").await, definition);
}

//! What a spec can reach besides the API of plugins, and the functions behind it.

use std::rc::Rc;
use std::sync::Arc;

use mlua::{Function, Lua, LuaString, Table, Value, Variadic};
use patchbay_plugin::Map;
use patchbay_plugin::definition::{Definition, EnvironmentEntry};
use patchbay_plugin::field::Field;
use patchbay_plugin::term::{Mistake, Mistakes, Path, Term};
use serde_json::{Value as Json, json};

use super::compare::{contains, difference, equal, has_function, shown};
use super::snapshots::Kept;
use super::world::World;
use super::{Failure, SpecHost, SpecReply, SpecRun, TestName, place_of as place_in};
use crate::admission::{Unadmitted, Unrendered};
use crate::api::{Entry, luau, raised, unknown};
use crate::call::HookCall;
use crate::error::{FieldError, UrlError};
use crate::explain::explain;
use crate::queue::lock;
use crate::require::Modules;
use crate::running::{Running, Slot, place_of};
use crate::values::{AnswerReader, Trail, into_lua, kind};
use crate::vm::{Stop, Vm};

/// What a spec can reach besides [`crate::API`]. No plugin can.
pub const SPEC_API: &[Entry] = &[
    luau(
        "describe",
        "(name: string, body: () -> ()) -> ()",
        "In specs only. Groups tests under a name. Groups may lie in groups.",
    ),
    luau(
        "it",
        "(name: string, body: () -> ()) -> ()",
        "In specs only. A test. The whole file is run again for each, so that none sees what another did.",
    ),
    luau(
        "before_each",
        "(body: () -> ()) -> ()",
        "In specs only. Runs before each test of this group and the groups in it; those of outer groups come first.",
    ),
    luau(
        "expect",
        "(found: any) -> Expectation",
        "In specs only. Begins an expectation: expect(found):to_equal(expected), or expect(found).never:to_equal(expected).",
    ),
    luau(
        "patchbay.test.plugin",
        "(world: World?) -> PluginUnderTest",
        "In specs only. The plugin beside the spec, called as a server calls it, in the world that is given.",
    ),
];

/// The matchers, each a method of what `expect` gives.
pub(crate) const MATCHERS: &[&str] = &[
    "never",
    "to_be",
    "to_contain",
    "to_equal",
    "to_fail",
    "to_match",
    "to_match_snapshot",
];

/// What can be asked of the plugin under test.
pub(crate) const METHODS: &[&str] = &[
    "definition",
    "form",
    "normalize",
    "render",
    "url",
    "validate",
];

/// What a VM keeps to run its spec.
pub(crate) struct SpecApi {
    /// Runs the spec's file, and then one of its tests: `(main, place?)`.
    run: Function,
}

/// A failed expectation. Raised, so that the test ends there.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
struct Judged(Failure);

/// What the plugin under test could not answer. Raised, and an expectation may catch it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
struct Unanswered(Failure);

fn failure_of(error: &mlua::Error) -> Option<&Failure> {
    match error {
        mlua::Error::ExternalError(error) => error
            .downcast_ref::<Judged>()
            .map(|judged| &judged.0)
            .or_else(|| error.downcast_ref::<Unanswered>().map(|asked| &asked.0)),
        mlua::Error::CallbackError { cause, .. } => failure_of(cause),
        _ => None,
    }
}

fn is_judged(error: &mlua::Error) -> bool {
    match error {
        mlua::Error::ExternalError(error) => error.is::<Judged>(),
        mlua::Error::CallbackError { cause, .. } => is_judged(cause),
        _ => false,
    }
}

impl Vm {
    /// Runs the spec's file, and one of its tests.
    pub(crate) async fn spec(
        &self,
        running: &Rc<Running>,
        run: SpecRun,
    ) -> Result<SpecReply, Stop> {
        let Some(spec) = &self.spec else {
            return Err(Stop::Raised(raised("this is no spec")));
        };
        let result = async {
            let mut arguments = mlua::MultiValue::new();
            if let SpecRun::Test(place) = run {
                arguments.push_front(Value::Number(place as f64));
            }
            arguments.push_front(Value::Function(self.main().clone()));
            self.run(running, &spec.run, arguments).await
        }
        .await;
        match result {
            Ok((tests, _)) => match run {
                SpecRun::List => Ok(SpecReply::Tests(test_names(&tests))),
                SpecRun::Test(_) => Ok(SpecReply::Passed),
            },
            Err(error) => match failure_of(&error) {
                Some(failure) if running.over.get().is_none() => {
                    Ok(SpecReply::Failed(failure.clone()))
                }
                _ => Err(Stop::of(error, running)),
            },
        }
    }
}

fn test_names(tests: &Value) -> Vec<TestName> {
    let mut reader = AnswerReader::default();
    let Term::List(items) = reader.term(tests, &Trail::ROOT) else {
        return Vec::new();
    };
    items
        .into_iter()
        .map(|item| {
            let item = item.into_json();
            let names = item.get("names").and_then(Json::as_array);
            TestName {
                names: names
                    .into_iter()
                    .flatten()
                    .filter_map(|name| name.as_str().map(str::to_owned))
                    .collect(),
                line: item
                    .get("line")
                    .and_then(Json::as_u64)
                    .and_then(|line| u32::try_from(line).ok()),
            }
        })
        .collect()
}

/// Adds to `api` what a spec can reach.
pub(crate) fn install(
    lua: &Lua,
    slot: &Rc<Slot>,
    modules: &Rc<Modules>,
    spec: &Arc<SpecHost>,
    api: &Table,
) -> mlua::Result<SpecApi> {
    let host = lua.create_table()?;
    host.raw_set("match", api.raw_get::<Value>("string.match")?)?;
    host.raw_set(
        "line",
        lua.create_function(|lua, ()| Ok(place_of(lua).map(|(_, line)| line)))?,
    )?;
    let loaded = slot.clone();
    host.raw_set(
        "loaded",
        lua.create_function(move |_, ()| {
            loaded.loaded();
            Ok(())
        })?,
    )?;
    host.raw_set(
        "unknown",
        lua.create_function(|_, (object, name): (String, Value)| {
            let name = match &name {
                Value::String(name) => name.to_string_lossy(),
                other => kind(other).to_owned(),
            };
            let known = match object.starts_with("expect") {
                true => MATCHERS,
                false => METHODS,
            };
            Err::<(), _>(unknown(&object, &name, known))
        })?,
    )?;
    let definition = spec.definition().clone();
    host.raw_set(
        "definition",
        lua.create_function(move |lua, ()| into_lua(lua, &definition_view(&definition)))?,
    )?;
    host.raw_set("judge", lua.create_function(judge)?)?;
    host.raw_set("judge_match", lua.create_function(judge_match)?)?;
    let source = modules.clone();
    host.raw_set(
        "judge_failure",
        lua.create_function(move |lua, given| judge_failure(lua, &source, given))?,
    )?;
    let book = spec.clone();
    host.raw_set(
        "judge_snapshot",
        lua.create_function(move |lua, given| judge_snapshot(lua, &book, given))?,
    )?;
    for ask in Ask::ALL {
        host.raw_set(ask.word(), asking(lua, slot, spec, *ask)?)?;
    }
    let built: Table = lua
        .load(include_str!("spec.luau"))
        .set_name("=[patchbay]")
        .call(host)?;
    let more: Table = built.raw_get("api")?;
    more.for_each(|name: String, function: Value| api.raw_set(name, function))?;
    Ok(SpecApi {
        run: built.raw_get("run")?,
    })
}

/// The definition as a spec sees it.
fn definition_view(definition: &Definition) -> Json {
    let fields = |fields: &[Field]| {
        Json::Array(
            fields
                .iter()
                .map(|field| serde_json::to_value(field).unwrap_or_default())
                .collect(),
        )
    };
    let hooks = definition.hooks;
    json!({
        "name": definition.name.as_str(),
        "version": definition.version,
        "aliases": definition.aliases.iter().map(|alias| alias.as_str()).collect::<Vec<_>>(),
        "requires": definition.requires.as_ref().map(ToString::to_string),
        "platform": serde_json::to_value(&definition.platform).unwrap_or_default(),
        "fields": fields(&definition.fields),
        "settings": fields(&definition.settings),
        "table": definition.table.as_ref().map(|table| table.as_str()),
        "examples": definition.examples,
        "hooks": {
            "ui_metadata": hooks.ui_metadata,
            "normalize": hooks.normalize,
            "validate": hooks.validate,
            "render": hooks.render,
            "url": hooks.url,
        },
        "environment_entry": match &definition.environment_entry {
            EnvironmentEntry::None => None,
            EnvironmentEntry::First => Some("first"),
            EnvironmentEntry::Identifier(field) => Some(field.as_str()),
        },
        "placeholders": definition.placeholders,
        "migrations": definition.migrations.iter().map(|step| step.id.as_str()).collect::<Vec<_>>(),
    })
}

/// A failure at the line of the spec that runs now.
fn failure(lua: &Lua, message: String) -> Failure {
    let (file, line) = place_of(lua).unzip();
    Failure {
        message,
        file,
        line,
        source_line: None,
        expected: None,
        found: None,
        diff: None,
    }
}

fn failed(failure: Failure) -> mlua::Error {
    mlua::Error::external(Judged(failure))
}

/// A failure that shows what was expected beside what was found.
fn differing(lua: &Lua, message: String, expected: String, found: String) -> mlua::Error {
    failed(Failure {
        diff: difference(&expected, &found),
        expected: Some(expected),
        found: Some(found),
        ..failure(lua, message)
    })
}

/// A value as plain data, or why it is none.
fn term_of(value: &Value, what: &str) -> mlua::Result<Term> {
    let mut reader = AnswerReader::default();
    let term = reader.term(value, &Trail::ROOT);
    match reader.into_mistakes().first() {
        None => Ok(term),
        Some(mistake) => Err(raised(format!(
            "{what} cannot be compared: {mistake}; to_be compares values that are no plain data"
        ))),
    }
}

/// A value for a message, whatever it is.
fn shown_value(value: &Value) -> String {
    let mut reader = AnswerReader::default();
    let term = reader.term(value, &Trail::ROOT);
    match reader.into_mistakes().is_empty() {
        true => shown(&term),
        false => kind(value).to_owned(),
    }
}

fn judge(
    lua: &Lua,
    (matcher, negated, found, expected): (String, bool, Value, Value),
) -> mlua::Result<()> {
    let never = if negated { "never " } else { "" };
    let (holds, message) = match matcher.as_str() {
        "to_be" => {
            let same = found == expected;
            let both_tables = found.is_table() && expected.is_table();
            let hint = match both_tables && !same {
                true => {
                    "; tables are only the same when they are one, to_equal compares what they hold"
                }
                false => "",
            };
            (
                same,
                format!("it should {never}be the expected value{hint}"),
            )
        }
        "to_contain" => {
            let whole = term_of(&found, "what was found")?;
            let part = term_of(&expected, "what is expected")?;
            let Some(holds) = contains(&whole, &part) else {
                return Err(raised(format!(
                    "to_contain looks for a text in a text, for an item in a list or for entries in a table, not for {} in {}",
                    part.kind(),
                    whole.kind(),
                )));
            };
            (holds, format!("it should {never}contain what is expected"))
        }
        _ => {
            let one = term_of(&found, "what was found")?;
            let other = term_of(&expected, "what is expected")?;
            if has_function(&one) || has_function(&other) {
                return Err(raised(
                    "functions cannot be compared with to_equal; to_be tells whether two are the same",
                ));
            }
            (
                equal(&one, &other),
                format!("it should {never}equal what is expected"),
            )
        }
    };
    if holds != negated {
        return Ok(());
    }
    Err(differing(
        lua,
        message,
        shown_value(&expected),
        shown_value(&found),
    ))
}

fn judge_match(
    lua: &Lua,
    (negated, found, pattern, matched): (bool, Value, String, bool),
) -> mlua::Result<()> {
    if matched != negated {
        return Ok(());
    }
    let never = if negated { "never " } else { "" };
    let message = format!("it should {never}match the pattern");
    Err(differing(
        lua,
        message,
        format!("{pattern:?}"),
        shown_value(&found),
    ))
}

fn judge_failure(
    lua: &Lua,
    modules: &Modules,
    (negated, ended, raised, wanted): (bool, bool, Value, Option<String>),
) -> mlua::Result<()> {
    if ended {
        return match negated {
            true => Ok(()),
            false => Err(failed(failure(
                lua,
                "it should fail, and did not".to_owned(),
            ))),
        };
    }
    let message = match &raised {
        // What the function itself expected in vain is not what it was expected to fail with.
        Value::Error(error) if is_judged(error) => return Err(error.as_ref().clone()),
        Value::Error(error) => match failure_of(error) {
            Some(failure) => failure.message.clone(),
            None => explain(error, modules.source()).message,
        },
        Value::String(text) => {
            let error = mlua::Error::RuntimeError(text.to_string_lossy());
            explain(&error, modules.source()).message
        }
        other => shown_value(other),
    };
    let fits = wanted
        .as_ref()
        .is_none_or(|wanted| message.contains(wanted.as_str()));
    match (negated, fits) {
        (false, true) | (true, false) => Ok(()),
        (true, true) => Err(failed(failure(
            lua,
            format!("it should not fail, and did: {message}"),
        ))),
        (false, false) => Err(differing(
            lua,
            "it should fail with the expected message".to_owned(),
            wanted
                .map(|wanted| format!("{wanted:?}"))
                .unwrap_or_default(),
            format!("{message:?}"),
        )),
    }
}

fn judge_snapshot(lua: &Lua, spec: &SpecHost, (name, found): (String, Value)) -> mlua::Result<()> {
    let term = term_of(&found, "what was found")?;
    if has_function(&term) {
        return Err(raised("a snapshot holds plain data, and no function"));
    }
    let kept = lock(&spec.book).look(&name, &term);
    match kept {
        Kept::Same => Ok(()),
        Kept::Missing => Err(failed(failure(
            lua,
            format!("there is no snapshot {name:?} yet; run the tests with --update to write it"),
        ))),
        Kept::Differs(known) => Err(differing(
            lua,
            format!(
                "it should match the snapshot {name:?}; if it is right as it is now, run the tests with --update"
            ),
            shown(&known),
            shown(&term),
        )),
    }
}

/// What a spec asks of the plugin.
#[derive(Clone, Copy)]
enum Ask {
    Form,
    Normalize,
    Validate,
    Render,
    Url,
}

impl Ask {
    const ALL: &[Ask] = &[
        Ask::Form,
        Ask::Normalize,
        Ask::Validate,
        Ask::Render,
        Ask::Url,
    ];

    fn word(self) -> &'static str {
        match self {
            Ask::Form => "form",
            Ask::Normalize => "normalize",
            Ask::Validate => "validate",
            Ask::Render => "render",
            Ask::Url => "url",
        }
    }
}

/// What is asked, read from Lua.
struct Asked {
    world: World,
    template: String,
    configuration: Map,
}

/// The two values that a method gives; null arrives as nil.
type Answers = (Json, Json);

fn asking(lua: &Lua, slot: &Rc<Slot>, spec: &Arc<SpecHost>, ask: Ask) -> mlua::Result<Function> {
    let (slot, spec) = (slot.clone(), spec.clone());
    lua.create_async_function(move |lua, given: Variadic<Value>| {
        // All but the wait happens before the future is made, in the coroutine that asks.
        let here = failure(&lua, String::new());
        let in_own = slot
            .with_current(|running| running.is_some_and(|running| running.is_in_own_thread(&lua)));
        let asked = match in_own {
            true => read_asked(ask, &given),
            false => Err(
                "it waits, and a coroutine of the spec's own cannot; call it in the test itself"
                    .to_owned(),
            ),
        };
        let spec = spec.clone();
        async move {
            let answered = match asked {
                Ok(asked) => answer(&spec, ask, asked).await,
                Err(message) => Err(message),
            };
            match answered {
                Ok((first, second)) => Ok((into_lua(&lua, &first)?, into_lua(&lua, &second)?)),
                Err(message) => Err(mlua::Error::external(Unanswered(Failure {
                    message: format!("plugin:{}: {message}", ask.word()),
                    ..here
                }))),
            }
        }
    })
}

fn read_asked(ask: Ask, given: &[Value]) -> Result<Asked, String> {
    let mut reader = AnswerReader::default();
    let nil = Value::Nil;
    let world = reader.term(given.first().unwrap_or(&nil), &Trail::ROOT);
    if let Some(mistake) = reader.into_mistakes().first() {
        return Err(mistake.to_string());
    }
    let world = World::read(world).map_err(|mistakes| told(&mistakes))?;
    let mut rest = given.iter().skip(1);
    let template = match ask {
        Ask::Render => match rest.next() {
            Some(Value::String(text)) => text.to_string_lossy(),
            other => {
                return Err(format!(
                    "expected a template, such as \"{{database}}.{{table}}\", found {}",
                    other.map_or("nothing", kind)
                ));
            }
        },
        _ => String::new(),
    };
    let configuration = match ask {
        Ask::Form | Ask::Url => Map::new(),
        _ => read_configuration(rest.next())?,
    };
    Ok(Asked {
        world,
        template,
        configuration,
    })
}

fn read_configuration(value: Option<&Value>) -> Result<Map, String> {
    let mut mistakes = Mistakes::default();
    let mut reader = AnswerReader::default();
    let read = match value {
        Some(value @ Value::Table(_)) => reader.configuration(value, &Map::new()),
        other => {
            mistakes.add(
                Path::default(),
                "a configuration: a table with values for the fields",
                other.map_or("nothing", kind),
            );
            None
        }
    };
    let more = reader.into_mistakes();
    match (read, more.first()) {
        (Some(map), None) => Ok(map),
        (_, Some(mistake)) => Err(mistake.to_string()),
        (None, None) => mistakes
            .into_result(None::<Map>)
            .map_err(|mistakes| told(&mistakes)),
    }
}

fn told(mistakes: &[Mistake]) -> String {
    let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    told.join("; ")
}

async fn answer(spec: &SpecHost, ask: Ask, asked: Asked) -> Result<Answers, String> {
    let Asked {
        world,
        template,
        configuration,
    } = asked;
    let plugin = spec.plugin(&world.settings).await?;
    let definition = plugin.definition();
    let catalogue = Arc::new(world.catalogue(definition));
    let reader = world.reader(&catalogue);
    let mut context = world.context(&catalogue)?;
    let values = configuration;
    match ask {
        Ask::Form => {
            let form = plugin
                .ui_metadata(reader)
                .await
                .map_err(|error| error.to_string())?;
            let elements = serde_json::to_value(&form.elements).unwrap_or_default();
            let form = json!({ "not_configured": form.not_configured, "elements": elements });
            Ok((without_nulls(form), Json::Null))
        }
        Ask::Normalize => match plugin.settle(&values, &context, &reader).await {
            Ok(values) => Ok((Json::Object(values), Json::Null)),
            Err(unadmitted) => Ok((Json::Null, errors_of(unadmitted)?)),
        },
        Ask::Validate => match plugin.admit(&values, &context, &reader).await {
            Ok(_) => Ok((json!([]), Json::Null)),
            Err(unadmitted) => Ok((errors_of(unadmitted)?, Json::Null)),
        },
        Ask::Render => {
            let values = match plugin.settle(&values, &context, &reader).await {
                Ok(values) => values,
                Err(unadmitted) => {
                    let errors = errors_of(unadmitted)?;
                    return Err(format!("the configuration is refused: {errors}"));
                }
            };
            if let Some(environment) = &context.environment {
                let entries = catalogue
                    .service_configuration(environment.id, &definition.platform.platform_key);
                let entry = definition.environment_entry.find(entries, &values);
                if entry.is_none() && definition.environment_entry != EnvironmentEntry::None {
                    let message = format!(
                        "no entry of the environment {} belongs to the configuration",
                        environment.name
                    );
                    return Ok((Json::Null, Json::String(message)));
                }
                context.entry = entry.cloned();
            }
            match plugin.access_path(&template, &values, context).await {
                Ok(text) => Ok((Json::String(text), Json::Null)),
                Err(Unrendered::Hook(error)) => Err(error.to_string()),
                Err(Unrendered::Unfilled(name)) => Err(format!(
                    "the template '{template}' needs '{name}', which {} does not have",
                    definition.name
                )),
            }
        }
        Ask::Url => {
            let call = HookCall {
                values: Map::new(),
                context,
                reader,
            };
            let refused = |kind: &str, message: String| {
                (Json::Null, json!({ "kind": kind, "message": message }))
            };
            match plugin.url(call).await {
                Ok(url) => Ok((Json::String(url), Json::Null)),
                Err(UrlError::NotFound(message)) => Ok(refused("not_found", message)),
                Err(UrlError::BadRequest(message)) => Ok(refused("bad_request", message)),
                Err(UrlError::Missing) => Ok(refused(
                    "not_implemented",
                    "the plugin has no url hook".to_owned(),
                )),
                Err(UrlError::Hook(error)) => Err(error.to_string()),
            }
        }
    }
}

/// What is wrong with a configuration, as a spec sees it; an error where the plugin is at fault.
fn errors_of(unadmitted: Unadmitted) -> Result<Json, String> {
    let errors: Vec<Json> = match unadmitted {
        Unadmitted::Invalid(errors) => errors
            .iter()
            .map(|error| json!({ "field": place_in(error), "message": error.msg }))
            .collect(),
        Unadmitted::Rejected(errors) => errors
            .into_iter()
            .map(|FieldError { field, message }| json!({ "field": field, "message": message }))
            .collect(),
        Unadmitted::Slip(errors) => {
            let told: Vec<String> = errors
                .iter()
                .map(|error| format!("{}: {}", place_in(error), error.msg))
                .collect();
            return Err(format!(
                "normalize returned values that the plugin's fields refuse: {}",
                told.join("; ")
            ));
        }
        Unadmitted::Hook(error) => return Err(error.to_string()),
    };
    Ok(Json::Array(errors))
}

/// The same without the keys that are null, which Lua would not see.
fn without_nulls(value: Json) -> Json {
    match value {
        Json::Array(items) => Json::Array(items.into_iter().map(without_nulls).collect()),
        Json::Object(entries) => Json::Object(
            entries
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        other => other,
    }
}

/// Keeps what a spec prints.
pub(crate) fn printing(lua: &Lua, spec: &Arc<SpecHost>) -> mlua::Result<Function> {
    let spec = spec.clone();
    lua.create_function(move |_, (_level, text): (LuaString, LuaString)| {
        spec.say(text.to_string_lossy());
        Ok(())
    })
}

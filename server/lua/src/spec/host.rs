//! What a spec can reach besides the API of plugins, and the functions behind it.

use std::rc::Rc;
use std::sync::Arc;

use mlua::{Function, Lua, LuaString, Table, Value};
use patchbay_plugin::term::Term;
use serde_json::Value as Json;

use super::ask::{Ask, asking, definition_view};
use super::judge::{failure_of, judge, judge_failure, judge_match, judge_snapshot};
use super::{SpecHost, SpecReply, SpecRun, TestName};
use crate::api::{Entry, luau, names_of, raised, unknown};
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

/// What a VM keeps to run its spec.
pub(crate) struct SpecApi {
    /// Runs the spec's file, and then one of its tests: `(main, place?)`.
    run: Function,
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
                true => "Expectation",
                false => "PluginUnderTest",
            };
            Err::<(), _>(unknown(&object, &name, &names_of(known)))
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

/// Keeps what a spec prints.
pub(crate) fn printing(lua: &Lua, spec: &Arc<SpecHost>) -> mlua::Result<Function> {
    let spec = spec.clone();
    lua.create_function(move |_, (_level, text): (LuaString, LuaString)| {
        spec.say(text.to_string_lossy());
        Ok(())
    })
}

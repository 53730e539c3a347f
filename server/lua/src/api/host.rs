//! Building the globals of one VM, and the host functions in Rust.

use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use mlua::{Function, Lua, LuaString, Table, Value, Variadic};
use patchbay_plugin::name::nearest;
use patchbay_plugin::template::{Template, text_of};

use super::{API, Entry, arrange};
use crate::log::PluginLog;
use crate::require::Modules;
use crate::running::Slot;
use crate::spec::{self, SPEC_API, SpecApi, SpecHost};
use crate::values::{AnswerReader, Trail, kind};

/// What the VM keeps of its API.
pub(crate) struct HostApi {
    /// Runs a plugin's files, then one of its hooks: `(main, hook, …arguments)`.
    pub(crate) run: Function,
    /// Runs a plugin's files alone, from end to end: `(main)`.
    pub(crate) ahead: Function,
    /// Forgets the modules of an `ahead` that did not come to its end.
    pub(crate) forget: Function,
    /// What a table reaches through tables: `(root)`.
    pub(crate) reach: Function,
    /// The metatable that marks what `patchbay.plugin` returned.
    pub(crate) plugin_meta: Table,
}

/// The longest text that `patchbay.fill` makes and `patchbay.url_encode` takes, in bytes.
const MAX_TEXT: usize = 1024 * 1024;

/// `host.luau`, compiled. Compiling it takes longer than everything else about a VM, and every VM runs the same.
fn host_code() -> mlua::Result<&'static [u8]> {
    static CODE: OnceLock<Vec<u8>> = OnceLock::new();
    if let Some(code) = CODE.get() {
        return Ok(code);
    }
    let compiler = mlua::chunk::Compiler::new().set_optimization_level(2);
    let code = compiler.compile(include_str!("host.luau"))?;
    Ok(CODE.get_or_init(|| code))
}

/// Replaces the globals of a fresh VM by the API and locks them.
pub(crate) fn install(
    lua: &Lua,
    slot: &Rc<Slot>,
    modules: &Rc<Modules>,
    log: &Rc<PluginLog>,
    spec: Option<&Arc<SpecHost>>,
) -> mlua::Result<(HostApi, Option<SpecApi>)> {
    let host = lua.create_table()?;
    host.raw_set("null", Value::NULL)?;
    let log = match spec {
        Some(spec) => spec::printing(lua, spec)?,
        None => log_function(lua, slot, log)?,
    };
    host.raw_set("log", log)?;
    host.raw_set("loaded", loaded_function(lua, slot)?)?;
    host.raw_set("modules", modules_function(lua, slot)?)?;
    host.raw_set("freeze", lua.create_function(freeze)?)?;
    host.raw_set("metatable", lua.create_function(metatable)?)?;
    let (resolve, provide) = modules.functions(lua, slot)?;
    host.raw_set("resolve", resolve)?;
    host.raw_set("provide", provide)?;

    let built: Table = lua
        .load(host_code()?)
        .set_name("=[patchbay]")
        .set_mode(mlua::chunk::ChunkMode::Binary)
        .call(host)?;
    let api: Table = built.raw_get("api")?;
    let globals_meta: Table = built.raw_get("globals_meta")?;
    let mut list: Vec<&[Entry]> = vec![API];
    let spec = match spec {
        Some(spec) => {
            list.push(SPEC_API);
            Some(spec::install(lua, slot, modules, spec, &api)?)
        }
        None => None,
    };

    let rust = lua.create_table()?;
    rust.raw_set("patchbay.fill", lua.create_function(fill)?)?;
    rust.raw_set("patchbay.url_encode", lua.create_function(url_encode)?)?;
    rust.raw_set("patchbay.null", Value::NULL)?;
    rust.raw_set("patchbay.version", env!("CARGO_PKG_VERSION"))?;
    rust.raw_set("_G", lua.globals())?;
    arrange(lua, &list, &api, &rust, name_the_unknown)?;

    // Methods of texts, `text:rep(3)`, go through the string metatable, which still has Luau's own table.
    if let Some(texts) = lua.type_metatable::<LuaString>() {
        texts.raw_set("__index", lua.globals().raw_get::<Table>("string")?)?;
        texts.raw_set("__metatable", "locked")?;
        texts.set_readonly(true);
    }
    globals_meta.set_readonly(true);
    let globals = lua.globals();
    globals.set_metatable(Some(globals_meta))?;
    globals.set_readonly(true);
    // Nothing can change from here on, so that Luau may resolve `patchbay.field` once when it loads a file.
    globals.set_safeenv(true);
    let host = HostApi {
        run: built.raw_get("run")?,
        ahead: built.raw_get("ahead")?,
        forget: built.raw_get("forget")?,
        reach: built.raw_get("reach")?,
        plugin_meta: built.raw_get("plugin_meta")?,
    };
    Ok((host, spec))
}

fn log_function(lua: &Lua, slot: &Rc<Slot>, log: &Rc<PluginLog>) -> mlua::Result<Function> {
    let (slot, log) = (slot.clone(), log.clone());
    lua.create_function(move |_, (level, text): (LuaString, LuaString)| {
        let running = slot.current();
        // The top level runs before every call; what it has to say, it said when the plugin was loaded.
        let again = running
            .as_ref()
            .is_some_and(|running| running.loading.get() && !running.is_load());
        if !again {
            let hook = running.and_then(|running| running.hook);
            log.write(&level.as_bytes(), &text.as_bytes(), hook);
        }
        Ok(())
    })
}

fn loaded_function(lua: &Lua, slot: &Rc<Slot>) -> mlua::Result<Function> {
    let slot = slot.clone();
    lua.create_function(move |_, ()| {
        slot.loaded();
        Ok(())
    })
}

/// The modules of the running call, by the name they are required by; none while a plugin is loaded.
fn modules_function(lua: &Lua, slot: &Rc<Slot>) -> mlua::Result<Function> {
    let slot = slot.clone();
    lua.create_function(move |lua, ()| {
        slot.with_current(|running| {
            let running = running.filter(|running| running.loading.get()).ok_or_else(|| {
                raised("require works only at the top level of a file, not inside a hook or a migration")
            })?;
            match running.is_load() {
                true => Ok(None),
                false => running.own_modules(lua).map(Some),
            }
        })
    })
}

/// Makes one table read-only, whatever its metatable.
fn freeze(_: &Lua, table: Table) -> mlua::Result<()> {
    table.set_readonly(true);
    Ok(())
}

/// The metatable of a table, also where it is hidden.
fn metatable(_: &Lua, table: Table) -> mlua::Result<Option<Table>> {
    Ok(table.metatable())
}

/// `patchbay.fill(template, values, more?)`
fn fill(
    _: &Lua,
    (template, values, more): (LuaString, Table, Option<Table>),
) -> mlua::Result<String> {
    let mut reader = AnswerReader::default();
    let Some(text) = reader.text(&template, &Trail::ROOT) else {
        return Err(raised("patchbay.fill takes a template in UTF-8"));
    };
    let reader = std::cell::RefCell::new(reader);
    let left = std::cell::Cell::new(MAX_TEXT.saturating_sub(text.len()));
    let too_long = std::cell::Cell::new(false);
    let filled = Template::parse(&text).fill(|name| {
        if too_long.get() {
            return None;
        }
        let value = std::iter::once(&values)
            .chain(&more)
            .map(|table| table.raw_get::<Value>(name).unwrap_or(Value::Nil))
            .find(|value| !value.is_nil())?;
        let mut reader = reader.borrow_mut();
        let text = text_of(&reader.json(&value, None, &Trail::ROOT.key(name)))?;
        match left.get().checked_sub(text.len()) {
            Some(rest) => left.set(rest),
            None => too_long.set(true),
        }
        Some(text)
    });
    if too_long.get() {
        return Err(raised(format!(
            "patchbay.fill makes at most {MAX_TEXT} bytes"
        )));
    }
    if let Some(mistake) = reader.into_inner().into_mistakes().first() {
        return Err(raised(format!("patchbay.fill: {mistake}")));
    }
    if !filled.missing.is_empty() {
        return Err(raised(format!(
            "patchbay.fill: the template {text:?} asks for {}, which has no value",
            filled.missing.join(", ")
        )));
    }
    Ok(filled.text)
}

/// `patchbay.url_encode(text)`
fn url_encode(_: &Lua, arguments: Variadic<Value>) -> mlua::Result<String> {
    let Some(Value::String(text)) = arguments.first() else {
        return Err(raised(format!(
            "patchbay.url_encode takes a text, not {}",
            arguments.first().map_or("nothing", kind)
        )));
    };
    let bytes = text.as_bytes();
    if bytes.len() > MAX_TEXT {
        return Err(raised(format!(
            "patchbay.url_encode takes at most {MAX_TEXT} bytes"
        )));
    }
    let mut encoded = String::with_capacity(bytes.len());
    for byte in bytes.iter() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            encoded.push(char::from(*byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(encoded)
}

/// An error for the plugin's author.
pub(crate) fn raised(message: impl Into<String>) -> mlua::Error {
    mlua::Error::RuntimeError(message.into())
}

/// The error of a name that an object of the API does not have.
pub(crate) fn unknown(object: &str, name: &str, known: &[&str]) -> mlua::Error {
    raised(match nearest(name, known.iter().copied()) {
        Some(near) => format!("{object} has no \"{name}\" (did you mean \"{near}\"?)"),
        None => format!("{object} has no \"{name}\"; it has {}", known.join(", ")),
    })
}

/// Lets the tables of `patchbay` say what they have when they are asked for what they have not.
fn name_the_unknown(lua: &Lua) -> mlua::Result<()> {
    let patchbay: Table = lua.globals().raw_get("patchbay")?;
    for part in ["", "field", "ui", "column", "log", "test"] {
        let (table, object) = match part {
            "" => (patchbay.clone(), "patchbay".to_owned()),
            part => match patchbay.raw_get::<Option<Table>>(part)? {
                Some(table) => (table, format!("patchbay.{part}")),
                None => continue,
            },
        };
        let mut known: Vec<String> = Vec::new();
        table.for_each(|name: String, _: Value| {
            known.push(name);
            Ok(())
        })?;
        known.sort();
        let index = lua.create_function(move |_, (_, name): (Value, Value)| {
            let name = match name {
                Value::String(name) => name.to_string_lossy(),
                other => kind(&other).to_owned(),
            };
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            Err::<Value, _>(unknown(&object, &name, &known))
        })?;
        let meta = lua.create_table()?;
        meta.raw_set("__index", index)?;
        meta.raw_set("__metatable", "locked")?;
        meta.set_readonly(true);
        table.set_metatable(Some(meta))?;
    }
    Ok(())
}

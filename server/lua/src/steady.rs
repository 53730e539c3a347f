//! Whether what a plugin's files leave behind can be changed by its hooks.
//!
//! Nothing is kept between calls, so the files are run again for each. For most plugins that is work for nothing: their
//! definition and modules are read-only once they have been run, and their functions hold on to texts, numbers and
//! read-only tables alone. Such a plugin is steady: its hooks find everything as the files left it, however often they
//! are called, and its files need to run once only.
//!
//! It is proved, not guessed: the heap is walked from the definition through everything that it holds on to, by Luau's
//! own dump of it. Whatever is not known to be unchangeable (a table that is not read-only, a local that a function
//! assigns to, a coroutine, an iterator, anything that this module does not know) makes the plugin not steady, and it is
//! run as before.

use std::collections::{HashMap, HashSet};

use mlua::{Function, Lua, Table, Value};
use serde::Deserialize;

use crate::vm::Opened;

/// The largest heap that is looked through, in bytes: a dump of it takes some milliseconds.
const MAX_HEAP: usize = 2 * 1024 * 1024;

/// Luau's dump of its heap, as far as it is of use here.
#[derive(Deserialize)]
struct Dump<'a> {
    #[serde(borrow)]
    objects: HashMap<&'a str, Object<'a>>,
}

/// One object, by what it refers to: the addresses of others.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    /// The code of a function that is written in Luau.
    proto: Option<&'a str>,
    #[serde(borrow)]
    upvalues: Option<Vec<&'a str>>,
    #[serde(borrow)]
    pairs: Option<Vec<Option<&'a str>>>,
    #[serde(borrow)]
    array: Option<Vec<&'a str>>,
    metatable: Option<&'a str>,
}

/// Whether nothing that the definition reaches can be changed. `reach` gives what tables hold, through other tables: those
/// tables and the functions in them, or nil when one of the tables can be changed.
///
/// # Errors
/// Why that is not so, or not known.
pub(crate) fn prove_steady(lua: &Lua, reach: &Function, opened: &Opened) -> Result<(), String> {
    if lua.used_memory() > MAX_HEAP {
        return Err("its heap is too large to look through".to_owned());
    }
    let reached = |root: &Table, others: &Table| -> Result<HashSet<String>, String> {
        let values: mlua::Result<Option<Vec<Value>>> = reach.call((root, others));
        match values {
            Ok(Some(values)) => Ok(values.iter().map(address).collect()),
            Ok(None) => Err("it holds a table that can be changed".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    };
    // The API is the sandbox's own, and keeps nothing for a plugin.
    let nothing = lua.create_table().map_err(|error| error.to_string())?;
    let api = reached(&lua.globals(), &nothing)?;
    let own = reached(&opened.definition, &opened.modules)?;
    // In the middle of collecting, what is garbage may still be there and refer to what is freed already. A dump follows
    // such references: so there must be none.
    lua.gc_collect().map_err(|error| error.to_string())?;
    let dump = lua.heap_dump().map_err(|error| error.to_string())?;
    let dump: Dump<'_> = serde_json::from_str(dump.to_json()).map_err(|error| error.to_string())?;
    let root = address(&Value::Table(opened.definition.clone()));
    let mut seen: HashSet<&str> = HashSet::new();
    let mut left: Vec<&str> = vec![root.as_str()];
    while let Some(place) = left.pop() {
        if api.contains(place) || !seen.insert(place) {
            continue;
        }
        let Some(object) = dump.objects.get(place) else {
            return Err("it holds something that the dump does not have".to_owned());
        };
        match object.kind {
            "string" => {}
            "table" if own.contains(place) => {
                left.extend(object.pairs.iter().flatten().flatten());
                left.extend(object.array.iter().flatten());
                left.extend(object.metatable);
            }
            // What a function of Luau's own holds on to is how far it has come.
            "function" if object.proto.is_some() || object.upvalues.is_none() => {
                left.extend(object.upvalues.iter().flatten());
            }
            kind => return Err(format!("a function of it holds a {kind} that can change")),
        }
    }
    Ok(())
}

/// An address as the dump writes it.
fn address(value: &Value) -> String {
    format!("{:p}", value.to_pointer())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::limits::Limits;
    use crate::log::PluginLog;
    use crate::source::{Files, Source};
    use crate::vm::Vm;

    fn proved(text: &str, libs: Files) -> Result<(), String> {
        let source = Arc::new(Source {
            label: String::new(),
            entry: "a.lua".to_owned(),
            files: Arc::new(Files::from([("a.lua".to_owned(), Arc::from(text))])),
            refused: Arc::default(),
            single_file: true,
            libs: Arc::new(libs),
        });
        let log = PluginLog::new("a.lua".to_owned());
        let vm = Vm::build(&source, &Limits::default(), &log, None).expect("a VM");
        let opened = vm.open_ahead().expect("a definition");
        prove_steady(&vm.lua, &vm.api.reach, &opened)
    }

    fn plugin(before: &str, fields: &str) -> String {
        format!("{before}\nreturn patchbay.plugin {{ name = 'A', {fields} }}")
    }

    #[test]
    fn what_cannot_change_is_steady() {
        for (before, fields) in [
            ("", ""),
            (
                "local field = patchbay.field",
                "fields = { field.string 'x', field.string 'y' { default = '' } }",
            ),
            (
                "local limit = 3 local gsub = string.gsub",
                "render = function(_, text) return gsub(text, 'a', 'b', limit) end",
            ),
            (
                "local function of(prefix) return function(_, text) return prefix .. text end end",
                "render = of 'x'",
            ),
            (
                "local known = table.freeze { 'a', 'b' }",
                "known = known, render = function() return known[1] end",
            ),
        ] {
            let text = plugin(before, fields);
            assert_eq!(proved(&text, Files::new()), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_a_hook_could_change_is_not() {
        for (before, render) in [
            ("local count = 0", "count += 1 return tostring(count)"),
            (
                "local kept = {}",
                "table.insert(kept, 1) return tostring(#kept)",
            ),
            ("local kept = { {} }", "kept[1].x = 1 return ''"),
            (
                "local function counter() local n = 0 return function() n += 1 return n end end local next = counter()",
                "return tostring(next())",
            ),
            (
                "local function holder() local t = {} return function() t[1] = 1 return #t end end local next = holder()",
                "return tostring(next())",
            ),
            (
                "local thread = coroutine.create(function() while true do coroutine.yield() end end)",
                "coroutine.resume(thread) return ''",
            ),
            (
                "local next = coroutine.wrap(function() for i = 1, 9 do coroutine.yield(i) end end)",
                "return tostring(next())",
            ),
            (
                "local words = string.gmatch('a b c', '%a')",
                "return words()",
            ),
            (
                "local kept = setmetatable({}, { __index = function(t, k) rawset(t, k, 1) return 1 end })",
                "return tostring(kept.x)",
            ),
            (
                "local inner = {} local kept = table.freeze { inner }",
                "inner.x = 1 return tostring(kept)",
            ),
        ] {
            let text = plugin(before, &format!("render = function(_, text) {render} end"));
            assert!(proved(&text, Files::new()).is_err(), "{text}");
        }
    }

    /// Those that ship are called most, so they should be.
    #[test]
    fn the_plugins_that_ship_are_steady() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../lua-plugins");
        let read = |path: &Path| Arc::<str>::from(fs::read_to_string(path).expect("a file"));
        let libs: Files = fs::read_dir(folder.join("lib"))
            .expect("the shared modules")
            .map(|entry| entry.expect("an entry").path())
            .map(|path| {
                (
                    path.file_name()
                        .expect("a name")
                        .to_string_lossy()
                        .into_owned(),
                    read(&path),
                )
            })
            .collect();
        let plugins: Vec<_> = fs::read_dir(&folder)
            .expect("the plugins")
            .map(|entry| entry.expect("an entry").path().join("plugin.lua"))
            .filter(|path| path.exists())
            .collect();
        assert!(plugins.len() >= 4, "{plugins:?}");
        for path in plugins {
            assert_eq!(proved(&read(&path), libs.clone()), Ok(()), "{path:?}");
        }
    }
}

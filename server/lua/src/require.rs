//! `require`: the plugin's own files and the shared modules, and nothing else.
//!
//! A module is named, never found: its name is looked up among the texts that were captured with the plugin, so no name
//! can reach a file that was not.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, LuaString, Value};
use patchbay_plugin::name::nearest;

use crate::api::raised;
use crate::running::{Module, Slot};
use crate::source::{MAX_FILE, Source, shown_lib};

/// The files of one plugin, compiled for one VM as they are needed.
pub(crate) struct Modules {
    source: Arc<Source>,
    compiled: RefCell<HashMap<String, Function>>,
    libs: RefCell<BTreeSet<String>>,
}

/// One file that may be run.
struct Found<'a> {
    /// How messages name it; also the name of its chunk.
    shown: String,
    text: &'a Arc<str>,
}

impl Modules {
    /// What the plugin is made from.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn new(source: Arc<Source>) -> Rc<Modules> {
        Rc::new(Modules {
            source,
            compiled: RefCell::default(),
            libs: RefCell::default(),
        })
    }

    /// The shared modules that were required, as keys of [`Source::libs`].
    pub(crate) fn libs(&self) -> BTreeSet<String> {
        self.libs.borrow().clone()
    }

    /// The plugin's own file `file`, compiled.
    pub(crate) fn own(&self, lua: &Lua, file: &str) -> mlua::Result<Function> {
        let text = self
            .source
            .files
            .get(file)
            .ok_or_else(|| raised(format!("there is no file {file}")))?;
        self.compile(
            lua,
            &Found {
                shown: self.source.shown(file),
                text,
            },
        )
    }

    fn compile(&self, lua: &Lua, found: &Found<'_>) -> mlua::Result<Function> {
        if let Some(function) = self.compiled.borrow().get(&found.shown) {
            return Ok(function.clone());
        }
        if found.text.len() > MAX_FILE {
            return Err(raised(format!(
                "{} is larger than {MAX_FILE} bytes",
                found.shown
            )));
        }
        let function = lua
            .load(found.text.as_ref())
            .set_name(format!("={}", found.shown))
            // Bytecode would be trusted as it is, and can crash the process.
            .set_mode(ChunkMode::Text)
            .into_function()?;
        self.compiled
            .borrow_mut()
            .insert(found.shown.clone(), function.clone());
        Ok(function)
    }

    /// The two halves of `require`: `resolve(name)` gives `true, value` or `false, function, key`; the caller runs the
    /// function and hands its value to `provide(key, value)`.
    pub(crate) fn functions(
        self: &Rc<Self>,
        lua: &Lua,
        slot: &Rc<Slot>,
    ) -> mlua::Result<(Function, Function)> {
        let resolve = {
            let (modules, slot) = (self.clone(), slot.clone());
            lua.create_function(move |lua, name: Value| {
                let Value::String(name) = name else {
                    return Err(raised(
                        "require takes the name of a module: \"./x\" or \"@lib/x\"",
                    ));
                };
                modules.resolve(lua, &slot, &name)
            })?
        };
        let provide = {
            let slot = slot.clone();
            lua.create_function(move |_, (key, value): (String, Value)| {
                if value.is_nil() {
                    return Err(raised(format!("the module {key} returned nothing")));
                }
                if let Value::Table(table) = &value {
                    table.set_readonly(true);
                }
                if let Some(running) = slot.current() {
                    let mut modules = running.modules.borrow_mut();
                    if let Some((_, module)) = modules.iter_mut().find(|(name, _)| *name == key) {
                        *module = Module::Ready(value.clone());
                    }
                }
                Ok(value)
            })?
        };
        Ok((resolve, provide))
    }

    fn resolve(
        &self,
        lua: &Lua,
        slot: &Slot,
        name: &LuaString,
    ) -> mlua::Result<(bool, Value, Option<String>)> {
        let running = slot
            .current()
            .ok_or_else(|| raised("require works only while a plugin's files run"))?;
        let name = name
            .to_str()
            .map_err(|_| raised("require takes a name in UTF-8"))?;
        let in_lib = is_called_by_lib(lua);
        let found = self.find(&name, in_lib).map_err(raised)?;
        {
            let modules = running.modules.borrow();
            match modules.iter().find(|(key, _)| *key == found.shown) {
                Some((_, Module::Ready(value))) => return Ok((true, value.clone(), None)),
                Some((_, Module::Opening)) => {
                    let mut chain: Vec<&str> = modules
                        .iter()
                        .filter(|(_, module)| matches!(module, Module::Opening))
                        .map(|(key, _)| key.as_str())
                        .skip_while(|key| *key != found.shown)
                        .collect();
                    chain.push(&found.shown);
                    return Err(raised(format!(
                        "modules require one another in a circle: {}",
                        chain.join(" → ")
                    )));
                }
                None => {}
            }
        }
        let function = self.compile(lua, &found)?;
        let key = found.shown.clone();
        running
            .modules
            .borrow_mut()
            .push((key.clone(), Module::Opening));
        Ok((false, Value::Function(function), Some(key)))
    }

    fn find(&self, name: &str, in_lib: bool) -> Result<Found<'_>, String> {
        if name.contains('\\') {
            return Err(format!(
                "require {name:?}: write `/` between the parts of a path"
            ));
        }
        let (rest, lib) = if let Some(rest) = name.strip_prefix("@lib/") {
            (rest, true)
        } else if let Some(rest) = name.strip_prefix("./") {
            (rest, false)
        } else {
            return Err(format!(
                "require {name:?}: a module is \"./x\" in the plugin's own folder or \"@lib/x\" among the shared modules; nothing else can be reached"
            ));
        };
        let plain = !rest.is_empty()
            && rest.split('/').all(|part| {
                !part.is_empty()
                    && part != "."
                    && part != ".."
                    && part.chars().all(|c| !c.is_control() && c != ':')
            });
        if !plain {
            return Err(format!(
                "require {name:?}: the path must be plain names, without `..`, empty parts or drive letters"
            ));
        }
        if lib {
            return self.find_lib(name, rest);
        }
        if in_lib {
            return Err(format!(
                "require {name:?}: a shared module reaches only other shared modules, \"@lib/x\""
            ));
        }
        self.find_own(name, rest)
    }

    fn find_lib(&self, name: &str, rest: &str) -> Result<Found<'_>, String> {
        for file in candidates(rest) {
            if let Some(text) = self.source.libs.get(&file) {
                self.libs.borrow_mut().insert(file.clone());
                return Ok(Found {
                    shown: shown_lib(&file),
                    text,
                });
            }
        }
        let names = self.source.libs.keys().map(|file| stem(file));
        Err(missing(
            name,
            "@lib/",
            rest,
            names,
            "there is no such shared module",
        ))
    }

    fn find_own(&self, name: &str, rest: &str) -> Result<Found<'_>, String> {
        if self.source.single_file {
            return Err(format!(
                "require {name:?}: {} is a single file and has no folder of its own; make it a folder with plugin.lua, or use \"@lib/x\"",
                self.source.entry
            ));
        }
        for file in candidates(rest) {
            if let Some(reason) = self.source.refused.get(&file) {
                return Err(format!("require {name:?}: {reason}"));
            }
            if let Some(text) = self.source.files.get(&file) {
                return Ok(Found {
                    shown: self.source.shown(&file),
                    text,
                });
            }
        }
        let names = self
            .source
            .files
            .keys()
            .filter(|file| **file != self.source.entry)
            .map(|file| stem(file));
        Err(missing(
            name,
            "./",
            rest,
            names,
            "the plugin's folder has no such file",
        ))
    }
}

fn candidates(rest: &str) -> [String; 2] {
    [format!("{rest}.lua"), format!("{rest}.luau")]
}

fn stem(file: &str) -> &str {
    file.strip_suffix(".lua")
        .or_else(|| file.strip_suffix(".luau"))
        .unwrap_or(file)
}

fn missing<'a>(
    name: &str,
    prefix: &str,
    rest: &str,
    names: impl Iterator<Item = &'a str>,
    reason: &str,
) -> String {
    match nearest(stem(rest), names) {
        Some(near) => format!("require {name:?}: {reason} (did you mean \"{prefix}{near}\"?)"),
        None => format!("require {name:?}: {reason}"),
    }
}

/// Whether the file that calls `require` is a shared module.
fn is_called_by_lib(lua: &Lua) -> bool {
    // Level 0 is this function, level 1 `require` in host.luau, level 2 its caller.
    lua.inspect_stack(2, |debug| {
        debug
            .source()
            .short_src
            .is_some_and(|source| source.starts_with("@lib/"))
    })
    .unwrap_or(false)
}

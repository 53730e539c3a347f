//! One VM: built from the captured sources, owned by one task, thrown away when a call spoilt it.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use mlua::state::{GcIncParams, GcMode};
use mlua::{
    Function, IntoLuaMulti, Lua, LuaOptions, LuaString, MultiValue, StdLib, Table, Thread, Value,
};
use patchbay_plugin::Map;
use patchbay_plugin::definition::Definition;

use crate::api::{self, HostApi};
use crate::call::{CatalogueReader, HookContext};
use crate::db::{Db, OptionLists, environment_table, settings_table};
use crate::explain::is_memory;
use crate::limits::Limits;
use crate::log::PluginLog;
use crate::require::Modules;
use crate::running::{Over, Running, Slot};
use crate::source::Source;
use crate::spec::{SpecApi, SpecHost};
use crate::steady::prove_steady;
use crate::values::{into_lua, map_into_lua};

/// What is known of a plugin once it is loaded.
pub(crate) struct Facts {
    pub(crate) definition: Arc<Definition>,
    /// The operator's settings.
    pub(crate) settings: Map,
    /// What its files are known to do when they are run.
    pub(crate) files: Arc<Habits>,
    /// What its hooks take.
    pub(crate) arity: HookArity,
}

/// How many arguments the hooks that everything stored passes through can see. What a hook does not take is not made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HookArity {
    pub(crate) normalize: usize,
    pub(crate) validate: usize,
}

impl HookArity {
    /// Of the hooks in a definition.
    pub(crate) fn of(definition: &Table) -> HookArity {
        let arity = |hook: &str| match definition.raw_get(hook) {
            Ok(Value::Function(function)) => match function.info() {
                info if info.is_vararg => usize::MAX,
                info => info.num_params.into(),
            },
            _ => 0,
        };
        HookArity {
            normalize: arity("normalize"),
            validate: arity("validate"),
        }
    }
}

/// What the files of a plugin are known to do when they are run. The same for all VMs of one version, because they are the
/// same files, and there is nothing from which they could do otherwise.
#[derive(Debug)]
pub(crate) struct Habits {
    /// They took less than a slice, and always did since: then they are run ahead of a call.
    quick: AtomicBool,
    /// Whether their plugin is [steady](crate::steady); none until it was looked at.
    steady: OnceLock<bool>,
}

impl Habits {
    pub(crate) fn new(quick: bool) -> Arc<Habits> {
        Arc::new(Habits {
            quick: quick.into(),
            steady: OnceLock::new(),
        })
    }
}

/// A VM with a plugin's code in it.
pub(crate) struct Vm {
    pub(crate) lua: Lua,
    pub(crate) slot: Rc<Slot>,
    pub(crate) modules: Rc<Modules>,
    pub(crate) api: HostApi,
    /// What runs the tests, when the files are a spec's.
    pub(crate) spec: Option<SpecApi>,
    pub(crate) limits: Limits,
    main: Function,
    hook_names: RefCell<Vec<(&'static str, LuaString)>>,
    threads: RefCell<Vec<Thread>>,
    /// What the files returned, run for the next call; for all calls when the plugin is steady.
    prepared: RefCell<Option<Opened>>,
    /// How many calls were made.
    calls: Cell<u32>,
    lists: Rc<OptionLists>,
    settings: RefCell<Option<Table>>,
    /// The plugin's, once it is loaded.
    pub(crate) habits: OnceCell<Arc<Habits>>,
}

/// What running a plugin's files gave.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) definition: Table,
    /// The modules that were required, by name.
    pub(crate) modules: Table,
}

/// Why Lua code did not come to its end.
pub(crate) enum Stop {
    /// It raised an error.
    Raised(mlua::Error),
    /// It ran into a limit of time.
    Over(Over),
    /// It ran out of memory.
    Memory,
}

impl Stop {
    /// What an error of the VM means for the call that was running.
    pub(crate) fn of(error: mlua::Error, running: &Running) -> Stop {
        if let Some(over) = running.over.get() {
            return Stop::Over(over);
        }
        if is_memory(&error) {
            return Stop::Memory;
        }
        Stop::Raised(error)
    }
}

/// After how many calls of one VM it is worth some milliseconds to see whether the plugin is steady.
const WORTH_PROVING: u32 = 64;
/// Coroutines that are kept for the next calls.
const KEPT_THREADS: usize = 16;

impl Vm {
    /// Builds a VM and compiles the plugin's main file.
    pub(crate) fn build(
        source: &Arc<Source>,
        limits: &Limits,
        log: &Rc<PluginLog>,
        spec: Option<&Arc<SpecHost>>,
    ) -> mlua::Result<Vm> {
        let libs = StdLib::COROUTINE
            | StdLib::TABLE
            | StdLib::STRING
            | StdLib::UTF8
            | StdLib::BIT
            | StdLib::MATH;
        let lua = Lua::new_with(libs, LuaOptions::default())?;
        lua.set_memory_limit(limits.memory)?;
        // The heap of a plugin is small, and marking it is most of what collecting costs: so the garbage may grow a bit
        // times of it before it is collected. The interrupt sees to the limit.
        lua.gc_set_mode(GcMode::Incremental(
            GcIncParams::default().goal(300).step_size(16),
        ));
        let slot = Slot::new(limits.clone());
        let modules = Modules::new(source.clone());
        let (api, spec) = api::install(&lua, &slot, &modules, log, spec)?;
        let main = modules.own(&lua, &source.entry)?;
        let vm = Vm {
            lua,
            slot,
            modules,
            api,
            spec,
            limits: limits.clone(),
            main,
            hook_names: RefCell::default(),
            threads: RefCell::default(),
            prepared: RefCell::default(),
            calls: Cell::default(),
            lists: Rc::default(),
            settings: RefCell::default(),
            habits: OnceCell::new(),
        };
        vm.interrupt();
        Ok(vm)
    }

    /// The file that returns the plugin, or holds the tests, compiled.
    pub(crate) fn main(&self) -> &Function {
        &self.main
    }

    fn interrupt(&self) {
        let slot = self.slot.clone();
        self.lua.set_interrupt(move |lua| slot.interrupt(lua));
    }

    /// Runs the plugin's files and then `hook` in a coroutine of its own. Gives the first two values it returned.
    pub(crate) async fn call(
        &self,
        running: &Running,
        hook: &'static str,
        arguments: impl IntoLuaMulti,
    ) -> Result<(Value, Value), Stop> {
        let result = async {
            let mut all = arguments.into_lua_multi(&self.lua)?;
            if self.wants_preparing() {
                self.prepare();
            }
            self.calls.set(self.calls.get().saturating_add(1));
            let prepared = match self.is_steady() {
                true => self.prepared.borrow().clone(),
                false => self.prepared.borrow_mut().take(),
            };
            if let Some(opened) = prepared
                && let Value::Function(function) =
                    opened.definition.raw_get(self.hook_name(hook)?)?
            {
                running.loaded(&self.limits);
                return self.run(running, &function, all).await;
            }
            all.push_front(self.hook_name(hook)?);
            all.push_front(Value::Function(self.main.clone()));
            self.run(running, &self.api.run, all).await
        }
        .await;
        result.map_err(|error| Stop::of(error, running))
    }

    fn is_steady(&self) -> bool {
        let habits = self.habits.get();
        habits.is_some_and(|habits| habits.steady.get() == Some(&true))
    }

    /// Whether [`Vm::prepare`] would do anything.
    pub(crate) fn wants_preparing(&self) -> bool {
        let Some(habits) = self.habits.get() else {
            return false;
        };
        match *self.prepared.borrow() {
            None => habits.quick.load(Ordering::Relaxed),
            Some(_) => self.calls.get() >= WORTH_PROVING && habits.steady.get().is_none(),
        }
    }

    /// Runs the plugin's files for the next call, which then begins with its hook: in a coroutine, as when the plugin
    /// was loaded, and for a slice at most. What they did then they do again; should they once not, they are never run
    /// ahead again. Where calls are many, sees whether one run of the files will do for all of them.
    pub(crate) fn prepare(&self) {
        let Some(habits) = self.habits.get() else {
            return;
        };
        if self.prepared.borrow().is_none() {
            // What fails here fails again in the call, where it is reported.
            let Some(opened) = self.open_ahead() else {
                habits.quick.store(false, Ordering::Relaxed);
                return;
            };
            *self.prepared.borrow_mut() = Some(opened);
        }
        if self.calls.get() >= WORTH_PROVING
            && let Some(opened) = self.prepared.borrow().as_ref()
        {
            habits.steady.get_or_init(|| {
                let proved = prove_steady(&self.lua, &self.api.reach, opened);
                if let Err(reason) = &proved {
                    let file = self.modules.source().shown(&self.modules.source().entry);
                    tracing::debug!(
                        file,
                        reason,
                        "the files of a plugin run for each of its calls"
                    );
                }
                proved.is_ok()
            });
        }
    }

    /// Runs the files within a slice. Gives what they return; none when that fails.
    pub(crate) fn open_ahead(&self) -> Option<Opened> {
        let running = Running::ahead(&self.limits);
        let returned = self.slot.run(&running, || self.run_ahead());
        running.end();
        returned.ok().flatten()
    }

    /// What the files return; none when it is no table, or they yielded.
    fn run_ahead(&self) -> mlua::Result<Option<Opened>> {
        let thread = self.thread(&self.api.ahead)?;
        let returned: mlua::Result<(Value, Value)> = thread.resume(&self.main);
        match returned {
            Ok((Value::Table(definition), Value::Table(modules))) if thread.is_finished() => {
                self.keep(thread);
                Ok(Some(Opened {
                    definition,
                    modules,
                }))
            }
            other => {
                self.api.forget.call::<()>(())?;
                other.map(|_| None)
            }
        }
    }

    /// A coroutine for a function.
    fn thread(&self, function: &Function) -> mlua::Result<Thread> {
        let kept = self.threads.borrow_mut().pop();
        match kept {
            Some(thread) => {
                thread.reset(function.clone())?;
                Ok(thread)
            }
            None => self.lua.create_thread(function.clone()),
        }
    }

    /// Keeps a coroutine that is done for a later call.
    fn keep(&self, thread: Thread) {
        let mut threads = self.threads.borrow_mut();
        if threads.len() < KEPT_THREADS {
            threads.push(thread);
        }
    }

    /// The name of a hook as Lua holds it.
    fn hook_name(&self, hook: &'static str) -> mlua::Result<Value> {
        let mut names = self.hook_names.borrow_mut();
        if let Some((_, name)) = names.iter().find(|(known, _)| *known == hook) {
            return Ok(Value::String(name.clone()));
        }
        let name = self.lua.create_string(hook)?;
        names.push((hook, name.clone()));
        Ok(Value::String(name))
    }

    /// Runs the plugin's files alone, for its definition.
    pub(crate) async fn open(&self, running: &Running) -> Result<Value, Stop> {
        let result: mlua::Result<(Value, Value)> =
            self.run(running, &self.main, MultiValue::new()).await;
        match result {
            Ok((value, _)) => Ok(value),
            Err(error) => Err(Stop::of(error, running)),
        }
    }

    /// Runs a function in a coroutine of its own, so that the interrupt may yield in it.
    pub(crate) async fn run(
        &self,
        running: &Running,
        function: &Function,
        arguments: MultiValue,
    ) -> mlua::Result<(Value, Value)> {
        let thread = self.thread(function)?;
        running.runs_in(&thread);
        let values = thread
            .clone()
            .into_async::<(Value, Value)>(arguments)?
            .await?;
        self.keep(thread);
        Ok(values)
    }

    /// Does the host's own work on values, which is bounded by itself, without the limit of memory. While there is one,
    /// mlua makes a protected call of each value that it pushes, which costs several times what pushing it does.
    pub(crate) fn unlimited<T>(&self, work: impl FnOnce() -> T) -> T {
        let limit = self.lua.set_memory_limit(0);
        let done = work();
        if let Ok(limit) = limit {
            // It was possible just now.
            let _ = self.lua.set_memory_limit(limit);
        }
        done
    }

    /// The `db` of one call.
    pub(crate) fn db(&self, running: &Rc<Running>, facts: &Facts) -> mlua::Result<Value> {
        let db = Db::new(
            running.clone(),
            facts.definition.clone(),
            self.lists.clone(),
        );
        Ok(Value::UserData(self.lua.create_userdata(db)?))
    }

    /// The values of a configuration.
    pub(crate) fn configuration(&self, values: &Map) -> mlua::Result<Value> {
        Ok(Value::Table(map_into_lua(&self.lua, values)?))
    }

    /// The `context` of one call.
    pub(crate) fn context(&self, context: &HookContext, facts: &Facts) -> mlua::Result<Value> {
        let lua = &self.lua;
        let table = lua.create_table_with_capacity(0, 5)?;
        if let Some(product) = &context.data_product {
            let fields = lua.create_table_with_capacity(0, 4)?;
            fields.raw_set("id", product.id.to_string())?;
            fields.raw_set("name", product.name.as_str())?;
            fields.raw_set("namespace", product.namespace.as_str())?;
            fields.raw_set("domain", product.domain.as_str())?;
            table.raw_set("data_product", fields)?;
        }
        table.raw_set("technical_mapping", context.technical_mapping.as_str())?;
        if let Some(environment) = &context.environment {
            let fields = environment_table(lua, environment)?;
            if let Some(entry) = &context.entry {
                fields.raw_set("entry", into_lua(lua, entry)?)?;
            }
            table.raw_set("environment", fields)?;
        }
        if let Some(template) = &context.template {
            table.raw_set("template", template.as_str())?;
        }
        let mut settings = self.settings.borrow_mut();
        let settings = match settings.as_ref() {
            Some(settings) => settings.clone(),
            None => settings
                .insert(settings_table(lua, &facts.settings)?)
                .clone(),
        };
        table.raw_set("settings", settings)?;
        Ok(Value::Table(table))
    }

    /// A call that begins now.
    pub(crate) fn begin(
        &self,
        hook: Option<&'static str>,
        reader: Option<Arc<dyn CatalogueReader>>,
    ) -> Rc<Running> {
        Running::new(hook, reader, &self.limits)
    }
}

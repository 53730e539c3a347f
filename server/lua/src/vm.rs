//! One VM: built from the captured sources, owned by one task, thrown away when a call spoilt it.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
use crate::values::{into_lua, map_into_lua};

/// What is known of a plugin once it is loaded.
pub(crate) struct Facts {
    pub(crate) definition: Arc<Definition>,
    /// The operator's settings.
    pub(crate) settings: Map,
    /// Whether the top level of its files took less than a slice, and always did since: then it is run ahead of a call.
    pub(crate) quick: Arc<AtomicBool>,
}

/// A VM with a plugin's code in it.
pub(crate) struct Vm {
    pub(crate) lua: Lua,
    pub(crate) slot: Rc<Slot>,
    pub(crate) modules: Rc<Modules>,
    pub(crate) api: HostApi,
    pub(crate) limits: Limits,
    main: Function,
    hook_names: RefCell<Vec<(&'static str, LuaString)>>,
    threads: RefCell<Vec<Thread>>,
    /// What the files returned, run for the next call.
    prepared: RefCell<Option<Table>>,
    lists: Rc<OptionLists>,
    settings: RefCell<Option<Table>>,
    /// Whether the files may be run by [`Vm::prepare`]; the plugin's, for all its VMs.
    pub(crate) quick: OnceCell<Arc<AtomicBool>>,
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

/// Coroutines that are kept for the next calls.
const KEPT_THREADS: usize = 16;

impl Vm {
    /// Builds a VM and compiles the plugin's main file.
    pub(crate) fn build(
        source: &Arc<Source>,
        limits: &Limits,
        log: &Rc<PluginLog>,
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
        lua.gc_set_mode(GcMode::Incremental(GcIncParams::default().goal(250)));
        let slot = Slot::new(limits.clone());
        let modules = Modules::new(source.clone());
        let api = api::install(&lua, &slot, &modules, log)?;
        let main = modules.own(&lua, &source.entry)?;
        let vm = Vm {
            lua,
            slot,
            modules,
            api,
            limits: limits.clone(),
            main,
            hook_names: RefCell::default(),
            threads: RefCell::default(),
            prepared: RefCell::default(),
            lists: Rc::default(),
            settings: RefCell::default(),
            quick: OnceCell::new(),
        };
        vm.interrupt();
        Ok(vm)
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
            let prepared = self.prepared.borrow_mut().take();
            if let Some(definition) = prepared
                && let Value::Function(function) = definition.raw_get(self.hook_name(hook)?)?
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

    /// Whether [`Vm::prepare`] would do anything.
    pub(crate) fn wants_preparing(&self) -> bool {
        self.prepared.borrow().is_none()
            && self
                .quick
                .get()
                .is_some_and(|quick| quick.load(Ordering::Relaxed))
    }

    /// Runs the plugin's files for the next call, which then begins with its hook: in a coroutine, as when the plugin
    /// was loaded, and for a slice at most. What they did then they do again; should they once not, they are never run
    /// ahead again.
    pub(crate) fn prepare(&self) {
        let running = Running::ahead(&self.limits);
        let returned = self.slot.run(&running, || self.run_ahead());
        running.end();
        // What fails here fails again in the call, where it is reported.
        match returned {
            Ok(Some(definition)) => *self.prepared.borrow_mut() = Some(definition),
            Ok(None) | Err(_) => {
                if let Some(quick) = self.quick.get() {
                    quick.store(false, Ordering::Relaxed);
                }
            }
        }
    }

    /// What the files return; none when it is no table, or they yielded.
    fn run_ahead(&self) -> mlua::Result<Option<Table>> {
        let thread = self.thread(&self.main)?;
        let returned: Value = thread.resume(())?;
        let Value::Table(definition) = returned else {
            return Ok(None);
        };
        if thread.status() != mlua::thread::ThreadStatus::Finished {
            return Ok(None);
        }
        self.keep(thread);
        Ok(Some(definition))
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

//! `db`: how a hook reads the catalogue and its plugin's own rows. Read-only, and bound to one call.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use mlua::{Lua, LuaString, MetaMethod, Table, UserData, UserDataMethods, Value};
use patchbay_plugin::Map;
use patchbay_plugin::catalogue::{Catalogue, Environment};
use patchbay_plugin::configuration::MAX_HOOK_ROWS;
use patchbay_plugin::definition::Definition;
use patchbay_plugin::name::PlatformKey;
use uuid::Uuid;

use crate::api::{names_of, raised, unknown};
use crate::call::ConfigurationFilter;
use crate::running::Running;
use crate::values::{AnswerReader, freeze, into_lua, kind, map_into_lua};

/// How many rows `db:configurations` gives where the hook does not say.
const ROWS: usize = 100;

/// What is raised when the catalogue lacks what a form needs. Out of `ui_metadata` it is no error but an answer.
#[derive(Debug, thiserror::Error)]
#[error("the catalogue has no options for the platform service \"{0}\"")]
pub(crate) struct NotConfigured(pub(crate) String);

/// Whether an error is, or comes from, [`NotConfigured`].
pub(crate) fn is_not_configured(error: &mlua::Error) -> bool {
    match error {
        mlua::Error::ExternalError(error) => error.is::<NotConfigured>(),
        mlua::Error::CallbackError { cause, .. } => is_not_configured(cause),
        _ => false,
    }
}

/// What is raised when the plugin's rows cannot be read at the moment, which is no fault of the plugin.
#[derive(Debug, thiserror::Error)]
#[error("db:configurations failed: {0}")]
struct Unavailable(String);

/// Why rows could not be read, when that is what an error is or comes from.
pub(crate) fn unavailable(error: &mlua::Error) -> Option<String> {
    match error {
        mlua::Error::ExternalError(error) => error
            .downcast_ref::<Unavailable>()
            .map(|unavailable| unavailable.0.clone()),
        mlua::Error::CallbackError { cause, .. } => unavailable(cause),
        _ => None,
    }
}

/// The lists of options of one catalogue, as Lua holds them. They are read-only, so calls can share them.
#[derive(Default)]
pub(crate) struct OptionLists {
    kept: RefCell<Option<Kept>>,
}

struct Kept {
    of: Arc<Catalogue>,
    by_key: Vec<(String, Table)>,
}

impl OptionLists {
    fn of(&self, lua: &Lua, catalogue: &Arc<Catalogue>, key: &PlatformKey) -> mlua::Result<Table> {
        let mut kept = self.kept.borrow_mut();
        let kept = kept.get_or_insert_with(|| Kept {
            of: catalogue.clone(),
            by_key: Vec::new(),
        });
        if !Arc::ptr_eq(&kept.of, catalogue) {
            kept.of = catalogue.clone();
            kept.by_key.clear();
        }
        if let Some((_, list)) = kept.by_key.iter().find(|(name, _)| name == key.as_str()) {
            return Ok(list.clone());
        }
        let options = catalogue
            .platform_options(key)
            .ok_or_else(|| mlua::Error::external(NotConfigured(key.to_string())))?;
        let list = lua.create_table_with_capacity(options.len(), 0)?;
        for (place, option) in options.iter().enumerate() {
            let entry = lua.create_table_with_capacity(0, 2)?;
            let text = lua.create_string(option)?;
            entry.raw_set("label", &text)?;
            entry.raw_set("value", text)?;
            entry.set_readonly(true);
            list.raw_set(place + 1, entry)?;
        }
        list.set_readonly(true);
        // A hook may ask for any key; only a few are worth keeping.
        if kept.by_key.len() < 16 {
            kept.by_key.push((key.to_string(), list.clone()));
        }
        Ok(list)
    }
}

/// The handle that a hook gets.
pub(crate) struct Db {
    running: Rc<Running>,
    definition: Arc<Definition>,
    lists: Rc<OptionLists>,
}

impl Db {
    pub(crate) fn new(
        running: Rc<Running>,
        definition: Arc<Definition>,
        lists: Rc<OptionLists>,
    ) -> Db {
        Db {
            running,
            definition,
            lists,
        }
    }

    fn check(&self, method: &str) -> mlua::Result<()> {
        if self.running.ended.get() {
            return Err(raised(format!(
                "db:{method} was used after its call ended; db belongs to one call"
            )));
        }
        Ok(())
    }

    fn catalogue(&self, method: &str) -> mlua::Result<&Arc<Catalogue>> {
        self.check(method)?;
        self.running
            .catalogue()
            .ok_or_else(|| raised(format!("db:{method} cannot be used in this hook")))
    }

    fn key(&self) -> &PlatformKey {
        &self.definition.platform.platform_key
    }

    fn platform_options(&self, lua: &Lua, key: Option<String>) -> mlua::Result<Table> {
        let catalogue = self.catalogue("platform_options")?;
        match key {
            None => self.lists.of(lua, catalogue, self.key()),
            Some(key) => match PlatformKey::parse(&key) {
                Ok(key) => self.lists.of(lua, catalogue, &key),
                Err(error) => Err(raised(format!(
                    "db:platform_options takes {}, not {key:?}",
                    error.expected
                ))),
            },
        }
    }

    fn environments(&self, lua: &Lua) -> mlua::Result<Table> {
        let catalogue = self.catalogue("environments")?;
        let list = lua.create_table_with_capacity(catalogue.environments.len(), 0)?;
        for (place, environment) in catalogue.environments.iter().enumerate() {
            list.raw_set(place + 1, environment_table(lua, environment)?)?;
        }
        Ok(list)
    }

    /// The environment that a hook names: by its name, or by the table it was given.
    fn environment(&self, method: &str, named: &Value) -> mlua::Result<Option<Uuid>> {
        let catalogue = self.catalogue(method)?;
        let name = match named {
            Value::String(name) => Some(name.clone()),
            Value::Table(table) => table.raw_get("name").ok(),
            _ => None,
        };
        let Some(name) = name else {
            return Err(raised(format!(
                "db:{method} takes an environment or its name, not {}",
                kind(named)
            )));
        };
        let name = name
            .to_str()
            .map_err(|_| raised(format!("db:{method} takes a name in UTF-8")))?;
        Ok(catalogue
            .environment(&name)
            .map(|environment| environment.id))
    }

    fn platform_configuration(&self, lua: &Lua, named: &Value) -> mlua::Result<Value> {
        let Some(id) = self.environment("platform_configuration", named)? else {
            return Ok(Value::Nil);
        };
        let catalogue = self.catalogue("platform_configuration")?;
        match catalogue.platform_configuration(id, self.key()) {
            Some(value) => into_lua(lua, value),
            None => Ok(Value::Nil),
        }
    }

    fn service_configuration(&self, lua: &Lua, named: &Value) -> mlua::Result<Value> {
        let Some(id) = self.environment("service_configuration", named)? else {
            return Ok(Value::Nil);
        };
        let catalogue = self.catalogue("service_configuration")?;
        match catalogue.service_configuration(id, self.key()) {
            Some(value) => into_lua(lua, value),
            None => Ok(Value::Nil),
        }
    }

    fn filter(&self, asked: Option<Table>) -> mlua::Result<ConfigurationFilter> {
        let mut filter = ConfigurationFilter {
            limit: ROWS,
            ..ConfigurationFilter::default()
        };
        let Some(asked) = asked else {
            return Ok(filter);
        };
        let mut reader = AnswerReader::default();
        let read = reader.configuration(&Value::Table(asked), &Map::new());
        if let Some(mistake) = reader.into_mistakes().first() {
            return Err(raised(format!("db:configurations: {mistake}")));
        }
        for (key, value) in read.into_iter().flatten() {
            match key.as_str() {
                "data_product_id" => {
                    let id = value.as_str().and_then(|text| Uuid::parse_str(text).ok());
                    filter.data_product_id = Some(id.ok_or_else(|| {
                        raised(
                            "db:configurations takes the id of a data product as data_product_id",
                        )
                    })?);
                }
                "limit" => {
                    let limit = value
                        .as_u64()
                        .filter(|limit| (1..=MAX_HOOK_ROWS as u64).contains(limit))
                        .ok_or_else(|| {
                            raised(format!(
                                "db:configurations takes a limit from 1 to {MAX_HOOK_ROWS}"
                            ))
                        })?;
                    filter.limit = limit as usize;
                }
                field => {
                    if !self
                        .definition
                        .fields
                        .iter()
                        .any(|known| known.name.as_str() == field)
                    {
                        return Err(raised(format!(
                            "db:configurations: the plugin has no field \"{field}\""
                        )));
                    }
                    filter.values.insert(key, value);
                }
            }
        }
        Ok(filter)
    }
}

impl UserData for Db {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("platform_options", |lua, db, key: Option<String>| {
            db.platform_options(lua, key)
        });
        methods.add_method("environments", |lua, db, ()| db.environments(lua));
        methods.add_method("platform_configuration", |lua, db, environment: Value| {
            db.platform_configuration(lua, &environment)
        });
        methods.add_method("service_configuration", |lua, db, environment: Value| {
            db.service_configuration(lua, &environment)
        });
        methods.add_meta_method(MetaMethod::Index, |_, _, name: LuaString| {
            Err::<Value, _>(unknown("db", &name.to_string_lossy(), &names_of("Db")))
        });
        methods.add_async_method("configurations", |lua, db, asked: Option<Table>| {
            // All but the wait happens before the future is made, in the coroutine that asks.
            let started = db.check("configurations").and_then(|()| {
                let running = &db.running;
                if !running.is_in_own_thread(&lua) {
                    return Err(raised(
                        "db:configurations waits, and a coroutine of the plugin's own cannot; call it in the hook itself",
                    ));
                }
                let Some(reader) = running.reader.clone() else {
                    return Err(raised("db:configurations cannot be used in this hook"));
                };
                let filter = db.filter(asked)?;
                let mut reads = running.reads.get();
                reads.configurations = true;
                running.reads.set(reads);
                Ok(reader.configurations(db.definition.name.clone(), filter))
            });
            async move {
                let rows =
                    started?.await.map_err(|reason| mlua::Error::external(Unavailable(reason)))?;
                let list = lua.create_table_with_capacity(rows.len(), 0)?;
                for (place, row) in rows.iter().enumerate() {
                    list.raw_set(place + 1, map_into_lua(&lua, row)?)?;
                }
                Ok(list)
            }
        });
    }
}

/// An environment as hooks see it.
pub(crate) fn environment_table(lua: &Lua, environment: &Environment) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 6)?;
    table.raw_set("id", environment.id.to_string())?;
    table.raw_set("name", environment.name.as_str())?;
    table.raw_set("acronym", environment.acronym.as_str())?;
    table.raw_set("context", environment.context.as_str())?;
    table.raw_set("is_default", environment.is_default)?;
    Ok(table)
}

/// The operator's settings as hooks see them: read-only, shared by all calls of a VM.
pub(crate) fn settings_table(lua: &Lua, settings: &Map) -> mlua::Result<Table> {
    let table = map_into_lua(lua, settings)?;
    freeze(&Value::Table(table.clone()));
    Ok(table)
}

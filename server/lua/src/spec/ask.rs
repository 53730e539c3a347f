//! What a spec asks of the plugin under test, and the plugin's answers as the spec sees them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::{Function, Lua, Value, Variadic};
use patchbay_plugin::Map;
use patchbay_plugin::definition::{Definition, EnvironmentEntry};
use patchbay_plugin::field::Field;
use patchbay_plugin::term::{Mistake, Mistakes, Path};
use patchbay_plugin::validation::Loc;
use serde_json::{Value as Json, json};

use super::judge::{Unanswered, failure};
use super::world::World;
use super::{Failure, SpecHost, place_of};
use crate::admission::{Filling, Incoming, Unadmitted, Unrendered};
use crate::call::{HookCall, RowCall, RowsCall};
use crate::error::{FieldError, HookError, UrlError};
use crate::running::Slot;
use crate::values::{AnswerReader, Trail, into_lua, kind};

/// Longer than a hook may take.
const LONG: Duration = Duration::from_secs(60);

/// What a spec asks of the plugin.
#[derive(Clone, Copy)]
pub(super) enum Ask {
    Form,
    Normalize,
    Validate,
    Render,
    Url,
    Upgrade,
}

impl Ask {
    pub(super) const ALL: &[Ask] = &[
        Ask::Form,
        Ask::Normalize,
        Ask::Validate,
        Ask::Render,
        Ask::Url,
        Ask::Upgrade,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Ask::Form => "form",
            Ask::Normalize => "normalize",
            Ask::Validate => "validate",
            Ask::Render => "render",
            Ask::Url => "url",
            Ask::Upgrade => "upgrade",
        }
    }
}

/// What is asked, read from Lua.
struct Asked {
    world: World,
    /// The template, or the version that wrote the configuration.
    template: String,
    configuration: Map,
}

/// The two values that a method gives; null arrives as nil.
type Answers = (Json, Json);

pub(super) fn asking(
    lua: &Lua,
    slot: &Rc<Slot>,
    spec: &Arc<SpecHost>,
    ask: Ask,
) -> mlua::Result<Function> {
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
        Ask::Upgrade => match rest.next() {
            Some(Value::String(text)) => text.to_string_lossy(),
            other => {
                return Err(format!(
                    "expected the version that wrote the configuration, such as \"1.0.0\", found {}",
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
    let loc = Loc::new();
    let incoming = Incoming {
        configuration: &values,
        context: &context,
        reader: &reader,
        loc: &loc,
    };
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
        Ask::Normalize => match plugin.settle(incoming).await {
            Ok(values) => Ok((Json::Object(values), Json::Null)),
            Err(unadmitted) => Ok((Json::Null, errors_of(unadmitted, "normalize")?)),
        },
        Ask::Validate => match plugin.admit(incoming).await {
            Ok(_) => Ok((json!([]), Json::Null)),
            Err(unadmitted) => Ok((errors_of(unadmitted, "normalize")?, Json::Null)),
        },
        Ask::Render => {
            let values = match plugin.settle(incoming).await {
                Ok(values) => values,
                Err(unadmitted) => {
                    let errors = errors_of(unadmitted, "normalize")?;
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
            let finished = match Filling::new(definition, &template, &values, context) {
                Ok(filling) => plugin.finish(vec![filling]).await.pop(),
                Err(unrendered) => Some(Err(unrendered)),
            };
            match finished.unwrap_or(Err(Unrendered::Hook(HookError::Closed))) {
                Ok(text) => Ok((Json::String(text), Json::Null)),
                Err(Unrendered::Hook(error)) => Err(error.to_string()),
                Err(Unrendered::Unfilled(name)) => Err(format!(
                    "the template '{template}' needs '{name}', which {} does not have",
                    definition.name
                )),
            }
        }
        Ask::Upgrade => {
            if !definition.hooks.upgrade {
                return Err("the plugin has no upgrade hook".to_owned());
            }
            let Some(data_product) = context.data_product else {
                return Err("a row belongs to a data product, and the world has none".to_owned());
            };
            let row = RowCall {
                values,
                from_version: Some(template.as_str().into()),
                data_product: Arc::new(data_product),
                technical_mapping: context.technical_mapping,
            };
            let call = RowsCall {
                rows: vec![row],
                reader,
                until: Instant::now() + LONG,
                room: usize::MAX,
            };
            match plugin.judge_rows(call).await.pop().flatten() {
                Some(Ok(values)) => Ok((Json::Object(values.unwrap_or_default()), Json::Null)),
                Some(Err(unadmitted)) => Ok((Json::Null, errors_of(unadmitted, "upgrade")?)),
                None => Err("it took too long".to_owned()),
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

/// What is wrong with a configuration, as a spec sees it; an error where the plugin is at fault. `hook` is the one whose
/// answer the fields are asked about.
fn errors_of(unadmitted: Unadmitted, hook: &str) -> Result<Json, String> {
    let errors: Vec<Json> = match unadmitted {
        Unadmitted::Invalid(errors) => errors
            .iter()
            .map(|error| json!({ "field": place_of(error), "message": error.msg }))
            .collect(),
        Unadmitted::Rejected { errors, .. } => errors
            .into_iter()
            .map(|FieldError { field, message }| json!({ "field": field, "message": message }))
            .collect(),
        Unadmitted::Slip(errors) => {
            let told: Vec<String> = errors
                .iter()
                .map(|error| format!("{}: {}", place_of(error), error.msg))
                .collect();
            return Err(format!(
                "{hook} returned values that the plugin's fields refuse: {}",
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

/// The definition as a spec sees it.
pub(super) fn definition_view(definition: &Definition) -> Json {
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
            "upgrade": hooks.upgrade,
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

//! The world around a plugin under test, as a spec describes it: a catalogue, a data product, the plugin's rows.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use patchbay_plugin::Map;
use patchbay_plugin::catalogue::{
    Catalogue, Environment, EnvironmentConfiguration, Platform, PlatformService,
    ServiceConfiguration,
};
use patchbay_plugin::configuration::{DataProduct, TechnicalMapping, is_namespace};
use patchbay_plugin::definition::Definition;
use patchbay_plugin::name::{PlatformKey, PluginName, nearest};
use patchbay_plugin::secret::without_secrets;
use patchbay_plugin::term::{Mistake, Mistakes, Path, TableReader, Term};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::call::{CatalogueReader, ConfigurationFilter, HookContext};

/// What is around a plugin under test.
pub(super) struct World {
    /// The operator's settings.
    pub(super) settings: Map,
    data_product: Option<DataProduct>,
    technical_mapping: TechnicalMapping,
    /// The name of the environment that the call is about.
    environment: Option<String>,
    catalogue: FakeCatalogue,
    rows: Vec<Map>,
}

/// A catalogue as a spec writes it: about the plugin's own service unless said otherwise.
struct FakeCatalogue {
    /// The options of the plugin's service; none leaves it without, which is what makes a form `not_configured`.
    options: Option<Vec<String>>,
    /// The options of other services, by platform key.
    services: Vec<(String, Vec<String>)>,
    environments: Vec<FakeEnvironment>,
}

struct FakeEnvironment {
    environment: Environment,
    platform: Option<Value>,
    service: Option<Value>,
}

impl World {
    /// Reads the table that a spec gave.
    pub(super) fn read(term: Term) -> Result<World, Vec<Mistake>> {
        let mut mistakes = Mistakes::default();
        let world = read_world(term, &mut mistakes);
        mistakes.into_result(world)
    }

    /// The catalogue of a plugin.
    pub(super) fn catalogue(&self, definition: &Definition) -> Catalogue {
        self.catalogue.of(definition)
    }

    /// What reads that catalogue and these rows.
    pub(super) fn reader(&self, catalogue: &Arc<Catalogue>) -> Arc<dyn CatalogueReader> {
        Arc::new(FakeReader {
            catalogue: catalogue.clone(),
            rows: self.rows.clone(),
        })
    }

    /// The context of a call, and the environment that it is about.
    pub(super) fn context(&self, catalogue: &Catalogue) -> Result<HookContext, String> {
        let environment = match &self.environment {
            None => None,
            Some(name) => Some(catalogue.environment(name).cloned().ok_or_else(|| {
                let names = catalogue
                    .environments
                    .iter()
                    .map(|environment| environment.name.as_str());
                match nearest(name, names) {
                    Some(near) => format!(
                        "the catalogue has no environment {name:?} (did you mean {near:?}?)"
                    ),
                    None => format!("the catalogue has no environment {name:?}"),
                }
            })?),
        };
        Ok(HookContext {
            data_product: self.data_product.clone(),
            technical_mapping: self.technical_mapping,
            environment,
            ..HookContext::default()
        })
    }
}

/// Ids are made up, and always the same.
fn id(number: u128) -> Uuid {
    Uuid::from_u128((0x5a1e_5000_u128 << 96) + number)
}

impl FakeCatalogue {
    fn of(&self, definition: &Definition) -> Catalogue {
        let key = definition.platform.platform_key.as_str();
        let platform_id = id(1);
        let mut catalogue = Catalogue {
            version: 1,
            platforms: vec![Platform {
                id: platform_id,
                name: definition.platform.display_name.clone(),
            }],
            ..Catalogue::default()
        };
        let own = [(key.to_owned(), self.options.clone())];
        let others = self
            .services
            .iter()
            .filter(|(name, _)| name != key)
            .map(|(name, options)| (name.clone(), Some(options.clone())));
        for (place, (name, options)) in own.into_iter().chain(others).enumerate() {
            let service_id = id(100 + place as u128);
            catalogue.services.push(PlatformService {
                id: service_id,
                platform_id,
                name,
                result_string_template: String::new(),
                technical_info_template: String::new(),
            });
            if let Some(config) = options {
                catalogue.service_configurations.push(ServiceConfiguration {
                    id: id(200 + place as u128),
                    platform_id,
                    service_id,
                    config,
                });
            }
        }
        for (place, fake) in self.environments.iter().enumerate() {
            let environment_id = id(300 + place as u128);
            catalogue.environments.push(Environment {
                id: environment_id,
                ..fake.environment.clone()
            });
            for (service_id, config) in [(None, &fake.platform), (Some(id(100)), &fake.service)] {
                if let Some(config) = config {
                    let number = catalogue.environment_configurations.len() as u128;
                    catalogue
                        .environment_configurations
                        .push(EnvironmentConfiguration {
                            id: id(400 + number),
                            environment_id,
                            platform_id,
                            service_id,
                            // A plugin never sees a secret, here either.
                            config: without_secrets(config),
                        });
                }
            }
        }
        catalogue
    }
}

struct FakeReader {
    catalogue: Arc<Catalogue>,
    rows: Vec<Map>,
}

impl CatalogueReader for FakeReader {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.clone()
    }

    fn configurations(
        &self,
        _plugin: PluginName,
        filter: ConfigurationFilter,
    ) -> BoxFuture<'static, Result<Vec<Map>, String>> {
        let owner = filter.data_product_id.map(|id| id.to_string());
        let fits = |row: &&Map| {
            let owned = owner.as_ref().is_none_or(|owner| {
                row.get("data_product_id").and_then(Value::as_str) == Some(owner.as_str())
            });
            owned
                && filter
                    .values
                    .iter()
                    .all(|(key, value)| row.get(key).unwrap_or(&Value::Null) == value)
        };
        let found: Vec<Map> = self
            .rows
            .iter()
            .filter(fits)
            .take(filter.limit)
            .cloned()
            .collect();
        async move { Ok(found) }.boxed()
    }
}

const WORLD: &str =
    "a table with what is around the plugin, such as { environment = \"development\" }";

fn read_world(term: Term, mistakes: &mut Mistakes) -> Option<World> {
    let mut table = TableReader::open(term, Path::default(), WORLD, mistakes)?;
    let settings = map_at(&mut table, "settings", mistakes);
    let catalogue = match table.take("catalogue") {
        Some(term) => read_catalogue(term, table.path_of("catalogue"), mistakes),
        None => read_catalogue(Term::List(Vec::new()), Path::default(), mistakes),
    };
    let data_product = match table.take("data_product") {
        None => read_data_product(Term::List(Vec::new()), Path::default(), mistakes),
        Some(Term::Boolean(false)) => None,
        Some(term) => read_data_product(term, table.path_of("data_product"), mistakes),
    };
    let technical_mapping = match table.string("technical_mapping", mistakes) {
        None => TechnicalMapping::default(),
        Some(word) => TechnicalMapping::parse(&word).unwrap_or_else(|| {
            mistakes.add(
                table.path_of("technical_mapping"),
                "\"default\" or \"custom\"",
                format!("{word:?}"),
            );
            TechnicalMapping::default()
        }),
    };
    let environment = table.string("environment", mistakes);
    let rows = read_rows(&mut table, mistakes);
    table.finish(mistakes);
    Some(World {
        settings,
        data_product,
        technical_mapping,
        environment,
        catalogue: catalogue?,
        rows,
    })
}

/// A table with text keys as plain data.
fn map_at(table: &mut TableReader, key: &'static str, mistakes: &mut Mistakes) -> Map {
    match table.take(key).map(|term| (term.found(), term.into_json())) {
        None => Map::new(),
        Some((_, Value::Object(map))) => map,
        Some((_, Value::Array(items))) if items.is_empty() => Map::new(),
        Some((found, _)) => {
            mistakes.add(table.path_of(key), "a table", found);
            Map::new()
        }
    }
}

fn read_data_product(term: Term, path: Path, mistakes: &mut Mistakes) -> Option<DataProduct> {
    const EXPECTED: &str =
        "a data product, such as { namespace = \"sales\", domain = \"commerce\" }, or false";
    let mut table = TableReader::open(term, path, EXPECTED, mistakes)?;
    let namespace = table
        .string("namespace", mistakes)
        .unwrap_or_else(|| "sales".to_owned());
    if !is_namespace(&namespace) {
        mistakes.add(
            table.path_of("namespace"),
            "a namespace: 1 to 64 of a-z, 0-9 and +=,.@_-",
            format!("{namespace:?}"),
        );
    }
    let name = table
        .string("name", mistakes)
        .unwrap_or_else(|| "Sales".to_owned());
    let domain = table
        .string("domain", mistakes)
        .unwrap_or_else(|| "commerce".to_owned());
    let product_id = match table.string("id", mistakes) {
        None => id(7),
        Some(text) => Uuid::parse_str(&text).unwrap_or_else(|_| {
            mistakes.add(table.path_of("id"), "a UUID", format!("{text:?}"));
            id(7)
        }),
    };
    table.finish(mistakes);
    Some(DataProduct {
        id: product_id,
        name,
        namespace,
        domain,
    })
}

fn read_catalogue(term: Term, path: Path, mistakes: &mut Mistakes) -> Option<FakeCatalogue> {
    const EXPECTED: &str = "a catalogue, such as { options = { \"clean\" } }";
    let mut table = TableReader::open(term, path, EXPECTED, mistakes)?;
    let options = table.strings("options", mistakes);
    let services = read_services(&mut table, mistakes);
    let environments = match table.list("environments", "a list of environments", mistakes) {
        None => vec![
            plain_environment("development", "dev", true),
            plain_environment("production", "prd", false),
        ],
        Some(items) => {
            let path = table.path_of("environments");
            items
                .into_iter()
                .enumerate()
                .filter_map(|(place, item)| read_environment(item, path.index(place + 1), mistakes))
                .collect()
        }
    };
    table.finish(mistakes);
    Some(FakeCatalogue {
        options,
        services,
        environments,
    })
}

fn read_services(table: &mut TableReader, mistakes: &mut Mistakes) -> Vec<(String, Vec<String>)> {
    const EXPECTED: &str = "options by platform key, such as { glue = { \"clean\" } }";
    let path = table.path_of("services");
    let entries = match table.take("services") {
        None => return Vec::new(),
        Some(Term::Table(entries)) => entries,
        Some(Term::List(items)) if items.is_empty() => return Vec::new(),
        Some(other) => {
            mistakes.add(path, EXPECTED, other.found());
            return Vec::new();
        }
    };
    let mut services = Vec::new();
    for (key, term) in entries {
        let path = path.key(&key);
        if let Err(error) = PlatformKey::parse(&key) {
            mistakes.add(path.clone(), error.expected, format!("{key:?}"));
        }
        let Term::List(items) = term else {
            mistakes.add(path, "a list of options", term.found());
            continue;
        };
        let mut options = Vec::new();
        for (place, item) in items.into_iter().enumerate() {
            match item {
                Term::String(text) => options.push(text),
                other => mistakes.add(path.index(place + 1), "a string", other.found()),
            }
        }
        services.push((key, options));
    }
    services
}

fn plain_environment(name: &str, acronym: &str, is_default: bool) -> FakeEnvironment {
    FakeEnvironment {
        environment: Environment {
            id: Uuid::nil(),
            name: name.to_owned(),
            acronym: acronym.to_owned(),
            context: String::new(),
            is_default,
        },
        platform: None,
        service: None,
    }
}

fn read_environment(term: Term, path: Path, mistakes: &mut Mistakes) -> Option<FakeEnvironment> {
    const EXPECTED: &str = "an environment, such as { name = \"development\", acronym = \"dev\" }";
    let mut table = TableReader::open(term, path, EXPECTED, mistakes)?;
    let name = table.required_string("name", mistakes);
    let acronym = table.string("acronym", mistakes);
    let context = table.string("context", mistakes);
    let is_default = table.boolean("is_default", mistakes).unwrap_or(false);
    let platform = table.take("platform_configuration").map(|term| match term {
        Term::List(items) if items.is_empty() => json!({}),
        other => other.into_json(),
    });
    let service = table
        .list(
            "service_configuration",
            "a list of entries, such as { { identifier = \"clean\" } }",
            mistakes,
        )
        .map(|items| Term::List(items).into_json());
    table.finish(mistakes);
    let name = name?;
    Some(FakeEnvironment {
        environment: Environment {
            id: Uuid::nil(),
            acronym: acronym.unwrap_or_else(|| name.clone()),
            context: context.unwrap_or_default(),
            is_default,
            name,
        },
        platform,
        service,
    })
}

fn read_rows(table: &mut TableReader, mistakes: &mut Mistakes) -> Vec<Map> {
    let path = table.path_of("configurations");
    let items = table
        .list("configurations", "a list of stored rows", mistakes)
        .unwrap_or_default();
    let mut rows = Vec::new();
    for (place, item) in items.into_iter().enumerate() {
        let found = item.found();
        let Value::Object(values) = item.into_json() else {
            mistakes.add(path.index(place + 1), "a row: a table of values", found);
            continue;
        };
        let number = place + 1;
        let mut row = Map::new();
        row.insert("id".to_owned(), json!(id(500 + place as u128).to_string()));
        row.insert("name".to_owned(), json!(format!("Configuration {number}")));
        row.insert("data_product_id".to_owned(), json!(id(7).to_string()));
        row.insert("technical_mapping".to_owned(), json!("default"));
        row.extend(values);
        rows.push(row);
    }
    rows
}

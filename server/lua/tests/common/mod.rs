//! What the tests of the sandbox share: a source in memory, a catalogue, a sandbox with short limits.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use patchbay_lua::{
    CatalogueReader, ConfigurationFilter, HookCall, HookContext, Limits, LoadError, Plugin,
    Sandbox, Source,
};
use patchbay_plugin::Map;
use patchbay_plugin::catalogue::{
    Catalogue, Environment, EnvironmentConfiguration, Platform, PlatformService,
    ServiceConfiguration,
};
use patchbay_plugin::configuration::DataProduct;
use patchbay_plugin::name::PluginName;
use serde_json::{Value, json};
use uuid::Uuid;

/// Limits under which a hostile script is stopped soon.
pub fn short() -> Limits {
    Limits {
        deadline: Duration::from_millis(80),
        load_deadline: Duration::from_millis(200),
        wall: Duration::from_millis(1500),
        memory: 8 * 1024 * 1024,
        threads: 1,
        ..Limits::default()
    }
}

/// A plugin of one file.
pub fn single(text: &str) -> Source {
    Source {
        label: "lua-plugins".to_owned(),
        entry: "x.lua".to_owned(),
        files: Arc::new(BTreeMap::from([("x.lua".to_owned(), Arc::from(text))])),
        refused: Arc::default(),
        single_file: true,
        libs: Arc::default(),
    }
}

/// A plugin in a folder.
pub fn folder(files: &[(&str, &str)]) -> Source {
    Source {
        label: "lua-plugins/x".to_owned(),
        entry: "plugin.lua".to_owned(),
        files: Arc::new(texts(files)),
        refused: Arc::default(),
        single_file: false,
        libs: Arc::default(),
    }
}

pub fn texts(files: &[(&str, &str)]) -> BTreeMap<String, Arc<str>> {
    files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), Arc::from(*text)))
        .collect()
}

pub async fn load(sandbox: &Sandbox, source: Source) -> Result<Plugin, LoadError> {
    sandbox.load(source, Arc::new(|_, _| Ok(Map::new()))).await
}

/// A plugin with one text field `a`, and the hooks given.
pub fn with_hooks(hooks: &str) -> String {
    format!(
        "return patchbay.plugin {{ name = \"XDataOutput\", fields = {{ patchbay.field.string \"a\" }},\n{hooks}\n}}"
    )
}

/// A reader of a small catalogue; rows are given by the test.
pub struct Reader {
    pub catalogue: Arc<Catalogue>,
    pub rows: Result<Vec<Map>, String>,
}

impl CatalogueReader for Reader {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.clone()
    }

    fn configurations(
        &self,
        plugin: PluginName,
        filter: ConfigurationFilter,
    ) -> BoxFuture<'static, Result<Vec<Map>, String>> {
        let rows = self.rows.clone();
        async move {
            tokio::task::yield_now().await;
            let mut rows = rows?;
            for row in &mut rows {
                row.insert("plugin".to_owned(), plugin.as_str().into());
                row.insert("limit".to_owned(), filter.limit.into());
            }
            Ok(rows)
        }
        .boxed()
    }
}

pub fn reader() -> Arc<dyn CatalogueReader> {
    Arc::new(Reader {
        catalogue: Arc::new(catalogue()),
        rows: Ok(Vec::new()),
    })
}

/// Snowflake with options in two environments, and a service without options.
pub fn catalogue() -> Catalogue {
    let (platform, service, bare) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    let (development, production) = (Uuid::from_u128(10), Uuid::from_u128(11));
    let template = "{database}.{schema}.{table}".to_owned();
    Catalogue {
        version: 1,
        platforms: vec![Platform {
            id: platform,
            name: "Snowflake".to_owned(),
        }],
        services: [(service, "Snowflake"), (bare, "X")]
            .map(|(id, name)| PlatformService {
                id,
                platform_id: platform,
                name: name.to_owned(),
                result_string_template: template.clone(),
                technical_info_template: template.clone(),
            })
            .into(),
        service_configurations: vec![ServiceConfiguration {
            id: Uuid::from_u128(4),
            platform_id: platform,
            service_id: service,
            config: vec!["analytics".to_owned(), "staging".to_owned()],
        }],
        environments: [
            (development, "development", "dev"),
            (production, "production", "prd"),
        ]
        .map(|(id, name, acronym)| Environment {
            id,
            name: name.to_owned(),
            acronym: acronym.to_owned(),
            context: String::new(),
            is_default: acronym == "dev",
        })
        .into(),
        environment_configurations: vec![EnvironmentConfiguration {
            id: Uuid::from_u128(20),
            environment_id: development,
            platform_id: platform,
            service_id: None,
            config: json!({"login_url": "https://snowflake.example"}),
        }],
    }
}

pub fn map(value: Value) -> Map {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

pub fn call(values: Value) -> HookCall {
    HookCall {
        values: map(values),
        context: HookContext {
            data_product: Some(DataProduct {
                id: Uuid::from_u128(30),
                name: "Sales".to_owned(),
                namespace: "sales".to_owned(),
                domain: "commerce".to_owned(),
            }),
            ..HookContext::default()
        },
        reader: reader(),
    }
}

//! The shipped plugins, loaded from their folders, against the facts that clients rely on: metadata, fields, tables,
//! forms, what is stored, what is refused, access paths and links.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use insta::assert_snapshot;
use patchbay_lua::{
    CatalogueReader, ConfigurationFilter, FieldError, Files, HookCall, HookContext, HookError,
    Limits, NormalizeError, Plugin, RenderCall, Sandbox, Source, UrlError,
};
use patchbay_plugin::Map;
use patchbay_plugin::catalogue::{
    Catalogue, CatalogueFile, Environment, EnvironmentConfiguration, Platform, PlatformService,
    ServiceConfiguration,
};
use patchbay_plugin::configuration::{DataProduct, TechnicalMapping};
use patchbay_plugin::definition::EnvironmentEntry;
use patchbay_plugin::field::{Field, FieldKind, parse_values};
use patchbay_plugin::migration::{Column, Operation, Origin, plan};
use patchbay_plugin::name::PluginName;
use patchbay_plugin::template::{Template, text_of};
use serde_json::{Value, json};
use uuid::Uuid;

/// The plugins for which the default catalogue has a service.
const SHIPPED: &[(&str, &str)] = &[
    ("snowflake", "SnowflakeDataOutput"),
    ("databricks", "DatabricksDataOutput"),
    ("glue", "GlueDataOutput"),
    ("redshift", "RedshiftDataOutput"),
    ("examples/s3", "S3DataOutput"),
    ("postgresql", "PostgreSQLDataOutput"),
    ("azureblob", "AzureBlobDataOutput"),
    ("osi", "OSISemanticModelDataOutput"),
    ("parameterstore", "ParameterStoreDataOutput"),
    ("conveyor", "ConveyorPlugin"),
    ("agno", "AgnoPlugin"),
    ("github", "GitHubPlugin"),
];

/// The plugins that bring what they need of the catalogue in a file of their own.
const WITH_CATALOGUE: &[(&str, &str)] = &[
    ("bigquery", "GoogleBigQueryDataOutput"),
    ("kafka", "KafkaTopicDataOutput"),
    ("iceberg", "IcebergTableDataOutput"),
];

/// Every shipped plugin.
fn shipped() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    SHIPPED.iter().chain(WITH_CATALOGUE)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn folder_of(folder: &str) -> PathBuf {
    repository().join("lua-plugins").join(folder)
}

/// The Lua files under `root`, by their path from it.
fn lua_files(root: &Path) -> Files {
    fn walk(root: &Path, folder: &Path, files: &mut Files) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(root, &path, files);
            } else if path.extension().is_some_and(|ending| ending == "lua") {
                let name = path.strip_prefix(root).expect("it lies under the root");
                let text = fs::read_to_string(&path).expect("a text file");
                files.insert(
                    name.to_str().expect("a name in UTF-8").to_owned(),
                    text.into(),
                );
            }
        }
    }
    let mut files = Files::new();
    walk(root, root, &mut files);
    files
}

/// A loaded plugin, and the sandbox without which it is closed.
struct Loaded {
    plugin: Plugin,
    _sandbox: Sandbox,
}

impl Deref for Loaded {
    type Target = Plugin;

    fn deref(&self) -> &Plugin {
        &self.plugin
    }
}

async fn load_with(folder: &str, settings: Value) -> Loaded {
    let source = Source {
        label: format!("lua-plugins/{folder}"),
        entry: "plugin.lua".to_owned(),
        files: Arc::new(lua_files(&folder_of(folder))),
        refused: Arc::new(BTreeMap::new()),
        single_file: false,
        libs: Arc::new(lua_files(&folder_of("lib"))),
    };
    let settings = map(settings);
    let sandbox = Sandbox::new(Limits::default());
    let plugin = sandbox
        .load(
            source,
            Arc::new(move |_: &PluginName, _: &[Field]| Ok(settings.clone())),
        )
        .await
        .unwrap_or_else(|error| panic!("{folder} loads: {:#?}", error.reports));
    Loaded {
        plugin,
        _sandbox: sandbox,
    }
}

/// The plugin of this name.
async fn load(name: &str) -> Loaded {
    let (folder, _) = SHIPPED
        .iter()
        .find(|(_, shipped)| *shipped == name)
        .expect("a shipped plugin");
    load_with(folder, json!({})).await
}

fn map(value: Value) -> Map {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is an object"),
    }
}

/// A catalogue that stays as it is.
struct Fixed(Arc<Catalogue>);

impl CatalogueReader for Fixed {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.0.clone()
    }

    fn configurations(
        &self,
        _: PluginName,
        _: ConfigurationFilter,
    ) -> BoxFuture<'static, Result<Vec<Map>, String>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

fn reader(catalogue: &Arc<Catalogue>) -> Arc<dyn CatalogueReader> {
    Arc::new(Fixed(catalogue.clone()))
}

/// The default catalogue, as a server has it that has just applied it.
fn default_catalogue() -> Arc<Catalogue> {
    let text = fs::read_to_string(repository().join("config/catalogue.toml")).expect("a file");
    let file: CatalogueFile = toml::from_str(&text).expect("the default catalogue");
    catalogue_of(&file)
}

fn catalogue_of(file: &CatalogueFile) -> Arc<Catalogue> {
    let mut next = 0;
    let mut id = || {
        next += 1;
        Uuid::from_u128(next)
    };
    let mut catalogue = Catalogue {
        version: 1,
        ..Catalogue::default()
    };
    for platform in &file.platforms {
        let platform_id = id();
        catalogue.platforms.push(Platform {
            id: platform_id,
            name: platform.name.clone(),
        });
        for service in &platform.services {
            let service_id = id();
            let result_string_template = service.result_string_template.clone();
            catalogue.services.push(PlatformService {
                id: service_id,
                platform_id,
                name: service.name.clone(),
                technical_info_template: service
                    .technical_info_template
                    .clone()
                    .unwrap_or_else(|| result_string_template.clone()),
                result_string_template,
            });
            if let Some(options) = &service.options {
                catalogue.service_configurations.push(ServiceConfiguration {
                    id: id(),
                    platform_id,
                    service_id,
                    config: options.clone(),
                });
            }
        }
    }
    for environment in &file.environments {
        let environment_id = id();
        catalogue.environments.push(Environment {
            id: environment_id,
            name: environment.name.clone(),
            acronym: environment.acronym.clone(),
            context: environment.context.clone(),
            is_default: environment.is_default,
        });
        let platform_id = |name: &str| {
            let found = catalogue.platforms.iter().find(|known| known.name == name);
            found.expect("a platform of the file").id
        };
        for (platform, config) in &environment.platforms {
            catalogue
                .environment_configurations
                .push(EnvironmentConfiguration {
                    id: id(),
                    environment_id,
                    platform_id: platform_id(platform),
                    service_id: None,
                    config: config.clone(),
                });
        }
        for (platform, services) in &environment.services {
            let platform_id = platform_id(platform);
            for (service, entries) in services {
                let service = catalogue
                    .services
                    .iter()
                    .find(|known| known.platform_id == platform_id && known.name == *service)
                    .expect("a service of the file");
                catalogue
                    .environment_configurations
                    .push(EnvironmentConfiguration {
                        id: id(),
                        environment_id,
                        platform_id,
                        service_id: Some(service.id),
                        config: Value::Array(entries.clone()),
                    });
            }
        }
    }
    Arc::new(catalogue)
}

fn data_product() -> DataProduct {
    DataProduct {
        id: Uuid::from_u128(7),
        name: "Sales orders".to_owned(),
        namespace: "sales-orders".to_owned(),
        domain: "sales".to_owned(),
    }
}

fn context(mapping: TechnicalMapping) -> HookContext {
    HookContext {
        data_product: Some(data_product()),
        technical_mapping: mapping,
        ..HookContext::default()
    }
}

/// What the fields accept of `input`, with defaults filled in.
fn parsed(plugin: &Loaded, input: Value) -> Map {
    parse_values(&plugin.definition().fields, &map(input), &Vec::new())
        .unwrap_or_else(|errors| panic!("the fields accept it: {errors:#?}"))
}

async fn normalized(
    plugin: &Loaded,
    mapping: TechnicalMapping,
    input: Value,
) -> Result<Map, NormalizeError> {
    let call = HookCall {
        values: parsed(plugin, input),
        context: context(mapping),
        reader: reader(&Arc::default()),
    };
    plugin.normalize(call).await
}

async fn rendered(plugin: &Loaded, template: &str, input: Value) -> Result<String, HookError> {
    rendered_in(plugin, template, input, None).await
}

async fn rendered_in(
    plugin: &Loaded,
    template: &str,
    input: Value,
    entry: Option<Value>,
) -> Result<String, HookError> {
    let values = parsed(plugin, input);
    let filled = Template::parse(template)
        .fill(|name| values.get(name).and_then(text_of))
        .text;
    let environment = default_catalogue().environments[0].clone();
    let call = RenderCall {
        values,
        filled,
        context: HookContext {
            environment: entry.is_some().then_some(environment),
            entry,
            template: Some(template.to_owned()),
            ..context(TechnicalMapping::Default)
        },
    };
    let mut answers = plugin.render(vec![call]).await;
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

async fn url(
    plugin: &Loaded,
    catalogue: &Arc<Catalogue>,
    environment: Option<&str>,
) -> Result<String, UrlError> {
    url_for(plugin, catalogue, environment, data_product()).await
}

async fn url_for(
    plugin: &Loaded,
    catalogue: &Arc<Catalogue>,
    environment: Option<&str>,
    data_product: DataProduct,
) -> Result<String, UrlError> {
    let call = HookCall {
        values: Map::new(),
        context: HookContext {
            data_product: Some(data_product),
            environment: environment.map(|name| {
                catalogue
                    .environment(name)
                    .expect("an environment of the catalogue")
                    .clone()
            }),
            ..HookContext::default()
        },
        reader: reader(catalogue),
    };
    plugin.url(call).await
}

#[tokio::test]
async fn platform_metadata() {
    let mut lines = String::new();
    for (folder, name) in shipped() {
        let plugin = load_with(folder, json!({})).await;
        let definition = plugin.definition();
        let platform = &definition.platform;
        assert_eq!(definition.name.as_str(), *name);
        assert_eq!(definition.version, "1.0.0");
        let range = definition
            .requires
            .as_ref()
            .expect("it says what it works with");
        assert_eq!(range.to_string(), ">=0.1, <2");
        assert!(definition.fields.is_empty() || !definition.examples.is_empty());
        let yes = |answer: bool| if answer { "yes" } else { "no" };
        let aliases: Vec<&str> = definition.aliases.iter().map(PluginName::as_str).collect();
        lines += &format!(
            "{name} ({}): {} | {} | {} | parent {} | environments {} | in form {} | shareable {} | {} | {} | {}\n",
            aliases.join(", "),
            platform.display_name,
            platform.icon_name,
            platform.platform_key,
            platform
                .parent_platform
                .as_ref()
                .map_or("–", |key| key.as_str()),
            yes(platform.has_environments),
            yes(platform.show_in_form),
            yes(platform.shareable),
            platform.result_label,
            platform.detailed_name,
            platform.result_tooltip,
        );
    }
    assert_snapshot!(lines, @r#"
    SnowflakeDataOutput (SnowflakeTechnicalAssetConfiguration): Snowflake | snowflake-logo.svg | snowflake | parent – | environments yes | in form yes | shareable yes | Resulting table | Schema | The table you can access through this technical asset
    DatabricksDataOutput (DatabricksTechnicalAssetConfiguration): Databricks | databricks-logo.svg | databricks | parent – | environments yes | in form yes | shareable yes | Resulting table | Schema | The table you can access through this technical asset
    GlueDataOutput (GlueTechnicalAssetConfiguration): Glue | glue-logo.svg | glue | parent aws | environments yes | in form yes | shareable yes | Resulting table | Database | The table you can access through this technical asset
    RedshiftDataOutput (RedshiftTechnicalAssetConfiguration): Redshift | aws-redshift-logo.svg | redshift | parent aws | environments yes | in form yes | shareable yes | Resulting table | Schema | The table you can access through this technical asset
    S3DataOutput (S3TechnicalAssetConfiguration): S3 | s3-logo.svg | s3 | parent aws | environments yes | in form yes | shareable yes | Resulting path | Path | The path you can access through this technical asset
    PostgreSQLDataOutput (PostgreSQLTechnicalAssetConfiguration): PostgreSQL | postgresql-logo.svg | postgresql | parent – | environments yes | in form yes | shareable yes | Resulting table | Schema | The table you can access through this technical asset
    AzureBlobDataOutput (AzureBlobTechnicalAssetConfiguration): Blob | azure-storage-account-logo.svg | azureblob | parent azure | environments yes | in form yes | shareable yes | Resulting path | Path | The path you can access through this technical asset
    OSISemanticModelDataOutput (OSISemanticModelTechnicalAssetConfiguration): OSI | osi-logo.svg | osi | parent – | environments yes | in form yes | shareable yes | Resulting model | Model | The yaml file you can access through this technical asset
    ParameterStoreDataOutput (ParameterStoreTechnicalAssetConfiguration): Parameter Store | parameter-store-logo.svg | parameterstore | parent aws | environments yes | in form yes | shareable no | Resulting parameter | Parameter | The parameter you can access through this technical asset
    ConveyorPlugin (): Conveyor | conveyor-logo.svg | conveyor | parent – | environments no | in form no | shareable yes | Resulting output | Conveyor | The output you can access through this technical asset
    AgnoPlugin (): Agno | agno-logo.svg | agno | parent – | environments no | in form no | shareable yes | Resulting output | Agno Agent | The output you can access through this technical asset
    GitHubPlugin (): GitHub | github-logo.svg | github | parent – | environments no | in form no | shareable yes | Resulting output | GitHub | The output you can access through this technical asset
    GoogleBigQueryDataOutput (GoogleBigQueryTechnicalAssetConfiguration): BigQuery | bigquery-logo.svg | bigquery | parent – | environments yes | in form yes | shareable yes | Resulting table | Dataset | The table you can access through this technical asset
    KafkaTopicDataOutput (KafkaTopicTechnicalAssetConfiguration): Kafka | kafka-logo.svg | kafka | parent – | environments yes | in form yes | shareable yes | Resulting topic | Topic | The topic you can access through this technical asset
    IcebergTableDataOutput (IcebergTableTechnicalAssetConfiguration): Iceberg | iceberg-logo.svg | iceberg | parent – | environments yes | in form yes | shareable yes | Resulting table | Namespace | The table you can access through this technical asset
    "#);
}

fn outline_of(field: &Field) -> String {
    let mut text = field.name.as_str().to_owned();
    match &field.kind {
        FieldKind::String { .. } => {}
        FieldKind::Enum { values } => text += &format!(" one of {}", values.join("|")),
        other => text += &format!(" {}", other.word()),
    }
    match (&field.default, field.required) {
        (Some(default), _) => text += &format!(" = {default}"),
        (None, true) => text += " req",
        (None, false) => text += " optional",
    }
    text
}

#[tokio::test]
async fn fields_and_tables() {
    let mut lines = String::new();
    for (folder, name) in shipped() {
        let plugin = load_with(folder, json!({})).await;
        let definition = plugin.definition();
        let fields: Vec<String> = definition.fields.iter().map(outline_of).collect();
        let entry = match &definition.environment_entry {
            EnvironmentEntry::None => "no entry",
            EnvironmentEntry::First => "the first entry",
            EnvironmentEntry::Identifier(field) => field,
        };
        let table = definition
            .table
            .as_ref()
            .map_or("no table", |table| table.as_str());
        let fields = if fields.is_empty() {
            "no fields".to_owned()
        } else {
            fields.join("; ")
        };
        lines += &format!("{name}: {table}, {entry}: {fields}\n");
    }
    assert_snapshot!(lines, @r#"
    SnowflakeDataOutput: snowflake_data_output_configurations, database: database req; schema = ""; table = "*"; bucket_identifier = ""; database_path = ""; table_path = ""; access_granularity one of schema|table req
    DatabricksDataOutput: databricks_data_output_configurations, catalog: catalog req; schema = ""; table = "*"; bucket_identifier = ""; catalog_path = ""; table_path = ""; access_granularity one of schema|table req
    GlueDataOutput: glue_data_output_configurations, database: database req; database_suffix = ""; table = "*"; bucket_identifier = ""; database_path = ""; table_path = ""; access_granularity one of schema|table req
    RedshiftDataOutput: redshift_data_output_configurations, database: database req; schema = ""; table = "*"; bucket_identifier = ""; database_path = ""; table_path = ""; access_granularity one of schema|table req
    S3DataOutput: s3_data_output_configurations, bucket: bucket req; suffix = ""; path req
    PostgreSQLDataOutput: postgresql_data_output_configurations, database: database req; schema = ""; table = "*"; access_granularity one of schema|table req
    AzureBlobDataOutput: azure_blob_data_output_configurations, the first entry: domain = ""; container_name req; path = ""
    OSISemanticModelDataOutput: osi_semantic_model_data_output_configurations, no entry: model_name = ""; location = ""
    ParameterStoreDataOutput: parameter_store_data_output_configurations, no entry: prefix = ""; parameter_name req
    ConveyorPlugin: no table, no entry: no fields
    AgnoPlugin: no table, no entry: no fields
    GitHubPlugin: no table, no entry: no fields
    GoogleBigQueryDataOutput: google_bigquery_data_output_configurations, project: project req; dataset req; table = "*"; access_granularity one of dataset|table req
    KafkaTopicDataOutput: kafka_topic_data_output_configurations, cluster: cluster req; topic req; partitions = "3"; cleanup_policy one of delete|compact|compact,delete = "delete"; retention = "7d"; value_format one of avro|json_schema|protobuf|none = "avro"; subject = ""
    IcebergTableDataOutput: iceberg_table_data_output_configurations, catalog: catalog req; catalog_type one of rest|glue|hive = "rest"; namespace req; table = "*"; location = ""; format_version one of 1|2|3 = "2"; access_granularity one of namespace|table req
    "#);
}

#[tokio::test]
async fn a_written_migration_makes_the_table_that_the_fields_want() {
    for (folder, name) in shipped() {
        let plugin = load_with(folder, json!({})).await;
        let definition = plugin.definition();
        let Some(table) = &definition.table else {
            assert!(definition.migrations.is_empty(), "{name}");
            continue;
        };
        let plan = plan(definition, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(plan.pending.len(), 1, "{name}: nothing is left to derive");
        let step = &plan.pending[0];
        assert_eq!(step.origin, Origin::Written);
        assert!(step.expands, "{name}");
        assert_eq!(step.migration.id.as_str(), "0001_create_table");
        assert_eq!(
            definition.latest_migration_path(),
            Some("migrations/0001_create_table.lua")
        );
        let columns = std::iter::once(Column::id())
            .chain(definition.fields.iter().map(Column::of))
            .collect();
        let table = table.clone();
        assert_eq!(
            step.migration.up,
            [Operation::CreateTable { table, columns }],
            "{name}"
        );
    }
}

#[tokio::test]
async fn icons_are_small_and_harmless() {
    for (folder, name) in shipped() {
        let plugin = load_with(folder, json!({})).await;
        let path = folder_of(folder).join(&plugin.definition().platform.icon_name);
        let icon = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(icon.len() < 2000, "{name}");
        assert!(icon.starts_with("<svg xmlns="), "{name}");
        assert!(icon.contains("viewBox=\"0 0 24 24\""), "{name}");
        for harm in ["<script", "href", "url(", "<image", "<foreign", "onload"] {
            assert!(!icon.contains(harm), "{name}: {harm}");
        }
    }
}

/// Each element on a line of its own, as it goes over the wire, without its nulls.
async fn outline_of_form(name: &str) -> String {
    fn without_nulls(value: Value) -> Value {
        match value {
            Value::Object(entries) => entries
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect::<Map>()
                .into(),
            other => other,
        }
    }
    let form = load(name)
        .await
        .ui_metadata(reader(&default_catalogue()))
        .await
        .expect("a form");
    assert!(!form.not_configured, "{name}");
    form.elements
        .iter()
        .map(|element| {
            let wire = serde_json::to_value(element).expect("an element is JSON");
            format!("{}\n", without_nulls(wire))
        })
        .collect()
}

#[tokio::test]
async fn forms() {
    assert_snapshot!(outline_of_form("SnowflakeDataOutput").await, @r#"
    {"label":"Database","type":"select","required":true,"name":"database","select":{"max_count":1,"options":[{"label":"analytics","value":"analytics"},{"label":"staging","value":"staging"}]},"use_namespace_when_not_source_aligned":true}
    {"label":"Schema","type":"string","required":true,"name":"schema","tooltip":"The name of the schema to give write access to. Defaults to data product namespace","string":{}}
    {"label":"Access granularity","type":"radio","required":true,"name":"access_granularity","tooltip":"Give write access to the entire schema or a single table","radio":{"max_count":1,"initial_value":"schema","options":[{"label":"Schema level","value":"schema"},{"label":"Table level","value":"table"}]}}
    {"label":"Table","type":"string","required":true,"name":"table","tooltip":"The name of the table to give write access to","string":{"initial_value":"*"},"depends_on":[{"field_name":"access_granularity","value":"table"}]}
    "#);
    assert_snapshot!(outline_of_form("DatabricksDataOutput").await, @r#"
    {"label":"Catalog","type":"select","required":true,"name":"catalog","select":{"max_count":1,"options":[{"label":"clean","value":"clean"},{"label":"master","value":"master"}]},"use_namespace_when_not_source_aligned":true}
    {"label":"Schema","type":"string","required":true,"name":"schema","tooltip":"The name of the schema to give write access to. Defaults to data product namespace","string":{}}
    {"label":"Access granularity","type":"radio","required":true,"name":"access_granularity","tooltip":"Give write access to the entire schema or a single table","radio":{"max_count":1,"initial_value":"schema","options":[{"label":"Schema level","value":"schema"},{"label":"Table level","value":"table"}]}}
    {"label":"Table","type":"string","required":true,"name":"table","tooltip":"The name of the table to give write access to","string":{"initial_value":"*"},"depends_on":[{"field_name":"access_granularity","value":"table"}]}
    "#);
    assert_snapshot!(outline_of_form("GlueDataOutput").await, @r#"
    {"label":"Database","type":"select","required":true,"name":"database","select":{"max_count":1,"options":[{"label":"clean","value":"clean"},{"label":"master","value":"master"}]},"use_namespace_when_not_source_aligned":true}
    {"label":"Database suffix","type":"string","required":true,"name":"database_suffix","tooltip":"The name of the database to give write access to. Defaults to data product namespace","string":{}}
    {"label":"Access granularity","type":"radio","required":true,"name":"access_granularity","tooltip":"Give write access to the entire schema or a single table","radio":{"max_count":1,"initial_value":"schema","options":[{"label":"Schema level","value":"schema"},{"label":"Table level","value":"table"}]}}
    {"label":"Table","type":"string","required":true,"name":"table","tooltip":"The name of the table to give write access to","string":{"initial_value":"*"},"depends_on":[{"field_name":"access_granularity","value":"table"}]}
    "#);
    assert_snapshot!(outline_of_form("RedshiftDataOutput").await, @r#"
    {"label":"Database","type":"select","required":true,"name":"database","select":{"max_count":1,"options":[]},"use_namespace_when_not_source_aligned":true}
    {"label":"Schema","type":"string","required":true,"name":"schema","tooltip":"The name of the schema to give write access to. Defaults to data product namespace","string":{}}
    {"label":"Access granularity","type":"radio","required":true,"name":"access_granularity","tooltip":"Give write access to the entire schema or a single table","radio":{"max_count":1,"initial_value":"schema","options":[{"label":"Schema level","value":"schema"},{"label":"Table level","value":"table"}]}}
    {"label":"Table","type":"string","required":true,"name":"table","tooltip":"The name of the table to give write access to","string":{"initial_value":"*"},"depends_on":[{"field_name":"access_granularity","value":"table"}]}
    "#);
    assert_snapshot!(outline_of_form("S3DataOutput").await, @r#"
    {"label":"Bucket","type":"select","required":true,"name":"bucket","select":{"max_count":1,"options":[{"label":"datalake","value":"datalake"},{"label":"ingress","value":"ingress"},{"label":"egress","value":"egress"}]}}
    {"label":"Suffix","type":"string","required":true,"name":"suffix","hidden":true,"string":{"initial_value":""},"use_namespace_when_not_source_aligned":true}
    {"label":"Path","type":"string","required":true,"name":"path","tooltip":"The name of the path to give write access to","string":{}}
    "#);
    assert_snapshot!(outline_of_form("PostgreSQLDataOutput").await, @r#"
    {"label":"Database","type":"select","required":true,"name":"database","select":{"max_count":1,"options":[{"label":"warehouse","value":"warehouse"}]},"use_namespace_when_not_source_aligned":true}
    {"label":"Schema","type":"string","required":true,"name":"schema","tooltip":"The name of the schema to give write access to. Defaults to data product namespace","string":{}}
    {"label":"Access granularity","type":"radio","required":true,"name":"access_granularity","tooltip":"Give write access to the entire schema or a single table","radio":{"max_count":1,"initial_value":"schema","options":[{"label":"Schema level","value":"schema"},{"label":"Table level","value":"table"}]}}
    {"label":"Table","type":"string","required":true,"name":"table","tooltip":"The name of the table to give write access to","string":{"initial_value":"*"},"depends_on":[{"field_name":"access_granularity","value":"table"}]}
    "#);
    assert_snapshot!(outline_of_form("AzureBlobDataOutput").await, @r#"
    {"label":"domain","type":"string","required":false,"name":"domain","hidden":true,"string":{"initial_value":""}}
    {"label":"Container","type":"string","required":true,"name":"container_name","string":{"initial_value":""}}
    {"label":"Path","type":"string","required":false,"name":"path","tooltip":"The name of the path to give write access to","string":{"initial_value":""}}
    "#);
    assert_snapshot!(outline_of_form("OSISemanticModelDataOutput").await, @r#"
    {"label":"Model Name","type":"string","required":true,"name":"model_name","string":{}}
    {"label":"Location","type":"string","required":true,"name":"location","string":{}}
    "#);
    assert_snapshot!(outline_of_form("ParameterStoreDataOutput").await, @r#"
    {"label":"Prefix","type":"string","required":true,"name":"prefix","hidden":true,"string":{"initial_value":""},"use_namespace_when_not_source_aligned":true}
    {"label":"Parameter name","type":"string","required":true,"name":"parameter_name","tooltip":"The name of the parameter to give access to. Use letters, numbers, '_', '.' and '-', and '/' to nest it deeper","string":{}}
    "#);
    for name in ["ConveyorPlugin", "AgnoPlugin", "GitHubPlugin"] {
        assert_eq!(outline_of_form(name).await, "", "{name} has no form");
    }
}

#[tokio::test]
async fn a_form_needs_the_options_it_offers_and_nothing_else() {
    let nothing = Arc::new(Catalogue::default());
    let mut without_options = CatalogueFile::default();
    without_options.platforms.push(
        serde_json::from_value(json!({
            "name": "Snowflake",
            "service": [{ "name": "Snowflake", "result_string_template": "{database}" }],
        }))
        .expect("a platform"),
    );
    let without_options = catalogue_of(&without_options);
    for (folder, name) in shipped() {
        let plugin = load_with(folder, json!({})).await;
        let needs_options = plugin.definition().fields.iter().any(|field| {
            ["database", "catalog", "bucket", "project", "cluster"].contains(&field.name.as_str())
        });
        for catalogue in [&nothing, &without_options] {
            let form = plugin.ui_metadata(reader(catalogue)).await.expect("a form");
            assert_eq!(form.not_configured, needs_options, "{name}");
            assert!(!needs_options || form.elements.is_empty(), "{name}");
        }
    }
}

#[tokio::test]
async fn what_is_stored() {
    use TechnicalMapping::{Custom, Default};
    // The table family: paths are named like what they hold before the granularity decides over the table.
    for (name, database, path) in [
        ("SnowflakeDataOutput", "database", "database_path"),
        ("DatabricksDataOutput", "catalog", "catalog_path"),
        ("GlueDataOutput", "database", "database_path"),
        ("RedshiftDataOutput", "database", "database_path"),
    ] {
        let plugin = load(name).await;
        for (input, table, database_path, table_path) in [
            (json!({ "access_granularity": "schema" }), "*", "db", "*"),
            (
                json!({ "access_granularity": "schema", "table": "zzz" }),
                "*",
                "db",
                "zzz",
            ),
            (
                json!({ "access_granularity": "table", "table": "zzz" }),
                "zzz",
                "db",
                "zzz",
            ),
            (
                json!({ "access_granularity": "table", "table": "zzz", path: "p", "table_path": "q" }),
                "zzz",
                "p",
                "q",
            ),
        ] {
            let mut input = map(input);
            input.insert(database.to_owned(), json!("db"));
            for mapping in [Default, Custom] {
                let stored = normalized(&plugin, mapping, input.clone().into())
                    .await
                    .expect("stored");
                assert_eq!(stored["table"], table, "{name} {input:?}");
                assert_eq!(stored[path], database_path, "{name} {input:?}");
                assert_eq!(stored["table_path"], table_path, "{name} {input:?}");
                assert_eq!(stored[database], "db", "{name}");
                assert_eq!(stored["bucket_identifier"], "", "{name}");
                assert_eq!(stored.len(), 7, "{name}");
            }
        }
    }
    let cases = [
        (
            "PostgreSQLDataOutput",
            Default,
            json!({ "database": "db", "table": "zzz", "access_granularity": "schema" }),
            json!({ "database": "db", "schema": "", "table": "*", "access_granularity": "schema" }),
        ),
        (
            "PostgreSQLDataOutput",
            Default,
            json!({ "database": "db", "table": "zzz", "access_granularity": "table" }),
            json!({ "database": "db", "schema": "", "table": "zzz", "access_granularity": "table" }),
        ),
        (
            "S3DataOutput",
            Default,
            json!({ "bucket": "datalake", "path": "/a//b/" }),
            json!({ "bucket": "datalake", "suffix": "", "path": "/a//b/" }),
        ),
        (
            "AzureBlobDataOutput",
            Default,
            json!({ "domain": "typed", "container_name": "c" }),
            json!({ "domain": "sales", "container_name": "c", "path": "" }),
        ),
        (
            "AzureBlobDataOutput",
            Custom,
            json!({ "domain": "typed", "container_name": "c" }),
            json!({ "domain": "typed", "container_name": "c", "path": "" }),
        ),
        (
            "OSISemanticModelDataOutput",
            Default,
            json!({}),
            json!({ "model_name": "", "location": "" }),
        ),
        (
            "ParameterStoreDataOutput",
            Default,
            json!({ "prefix": "sales", "parameter_name": "/a//b_c.d-e/" }),
            json!({ "prefix": "sales", "parameter_name": "/a//b_c.d-e/" }),
        ),
    ];
    for (name, mapping, input, wanted) in cases {
        let stored = normalized(&load(name).await, mapping, input)
            .await
            .expect("stored");
        assert_eq!(Value::Object(stored), wanted, "{name}");
    }
}

#[tokio::test]
async fn a_parameter_name_that_aws_would_refuse_is_refused_under_both_mappings() {
    let plugin = load("ParameterStoreDataOutput").await;
    let levels = |count: usize| vec!["l"; count].join("/");
    let not = |list: &str| {
        Some(format!(
            "Parameter names can only contain letters, numbers, '_', '.', '-' and '/', not: {list}"
        ))
    };
    let empty = || Some("The parameter name can't be empty".to_owned());
    let deep = || {
        Some("A parameter name can have at most 15 levels, including the environment".to_owned())
    };
    let long = || Some("The parameter name is too long".to_owned());
    let cases = [
        ("", "token".to_owned(), None),
        ("sales", "a/b".to_owned(), None),
        ("sales", String::new(), empty()),
        ("sales", "//".to_owned(), empty()),
        // The first failure wins: an empty name before a wrong prefix, a wrong level before too many, depth before length.
        ("s p", "/".to_owned(), empty()),
        ("s p", "a".to_owned(), not("s p")),
        ("sales", "a b/ok/ü/c".to_owned(), not("a b, ü")),
        ("s p", levels(20), not("s p")),
        ("", levels(14), None),
        ("", levels(15), deep()),
        ("/s/", levels(13), None),
        ("/s/", levels(14), deep()),
        ("s", format!("{}/{}", levels(14), "x".repeat(1000)), deep()),
        ("", "x".repeat(911), None),
        ("", "x".repeat(912), long()),
        ("s", "x".repeat(909), None),
        ("s", "x".repeat(910), long()),
    ];
    for (prefix, name, wanted) in cases {
        for mapping in [TechnicalMapping::Default, TechnicalMapping::Custom] {
            let input = json!({ "prefix": prefix, "parameter_name": name });
            let problem = match normalized(&plugin, mapping, input).await {
                Ok(_) => None,
                Err(NormalizeError::Rejected(errors)) => {
                    assert_eq!(errors.len(), 1, "{errors:?}");
                    assert_eq!(errors[0].field.as_deref(), Some("parameter_name"));
                    Some(errors[0].message.clone())
                }
                Err(NormalizeError::Hook(error)) => panic!("{error:?}"),
            };
            assert_eq!(problem, wanted, "{prefix:?} {name:?}");
        }
    }
}

#[tokio::test]
async fn what_is_refused() {
    for (name, database) in [
        ("SnowflakeDataOutput", "database"),
        ("DatabricksDataOutput", "catalog"),
        ("GlueDataOutput", "database"),
        ("RedshiftDataOutput", "database"),
        ("PostgreSQLDataOutput", "database"),
    ] {
        let plugin = load(name).await;
        for (value, right) in [
            ("sales-orders", true),
            ("sales-orders-raw", true),
            ("sales", false),
            ("", false),
            ("x-sales-orders", false),
            ("salesXorders", false),
        ] {
            let values = parsed(
                &plugin,
                json!({ database: value, "access_granularity": "schema" }),
            );
            let call = HookCall {
                values: values.clone(),
                context: context(TechnicalMapping::Default),
                reader: reader(&Arc::default()),
            };
            let errors = plugin.validate(call).await.expect("an answer");
            let errors: Vec<(Option<&str>, &str)> = errors
                .iter()
                .map(|FieldError { field, message }| (field.as_deref(), message.as_str()))
                .collect();
            let message = format!("Invalid {database} specified");
            let wanted = [(Some(database), message.as_str())];
            assert_eq!(
                errors,
                if right { &[][..] } else { &wanted[..] },
                "{name} {value}"
            );
            // A dry run may have no data product, and then there is no namespace to hold it against.
            let call = HookCall {
                values,
                context: HookContext::default(),
                reader: reader(&Arc::default()),
            };
            assert!(plugin.validate(call).await.expect("an answer").is_empty());
        }
    }
    for name in [
        "S3DataOutput",
        "AzureBlobDataOutput",
        "OSISemanticModelDataOutput",
        "ParameterStoreDataOutput",
    ] {
        assert!(!load(name).await.definition().hooks.validate, "{name}");
    }
}

#[tokio::test]
async fn access_paths() {
    let cases = [
        (
            "SnowflakeDataOutput",
            "{database}.{schema}.{table}",
            json!({ "database": "sales-orders", "schema": "a-b_", "access_granularity": "schema" }),
            "sales_orders.a_b_.*",
        ),
        (
            "SnowflakeDataOutput",
            "x-{database}",
            json!({ "database": "--", "access_granularity": "schema" }),
            "x___",
        ),
        (
            "DatabricksDataOutput",
            "{catalog}.{schema}.{table}",
            json!({ "catalog": "a-b_", "access_granularity": "schema" }),
            "a-b_..*",
        ),
        (
            "GlueDataOutput",
            "{database}__{database_suffix}.{table}",
            json!({ "database": "db", "access_granularity": "schema" }),
            "db.*",
        ),
        (
            "GlueDataOutput",
            "{database}__{database_suffix}.{table}",
            json!({ "database": "db_", "database_suffix": "_s_", "table": "_t__", "access_granularity": "table" }),
            "db____s._t",
        ),
        (
            "RedshiftDataOutput",
            "{database}__{schema}.{table}",
            json!({ "database": "db", "access_granularity": "schema" }),
            "db.*",
        ),
        (
            "RedshiftDataOutput",
            "{database}.{schema}.{table}",
            json!({ "database": "_", "schema": "a_.b_", "access_granularity": "schema" }),
            ".a.b.*",
        ),
        (
            "PostgreSQLDataOutput",
            "{database}.{schema}.{table}",
            json!({ "database": "db__", "schema": "", "access_granularity": "schema" }),
            "db..*",
        ),
        (
            "S3DataOutput",
            "{bucket}/{suffix}/{path}",
            json!({ "bucket": "datalake", "path": "/a//b/" }),
            "datalake/a/b",
        ),
        (
            "S3DataOutput",
            "{bucket}/{suffix}/{path}",
            json!({ "bucket": "datalake", "suffix": "sales", "path": "a" }),
            "datalake/sales/a",
        ),
        (
            "OSISemanticModelDataOutput",
            "{model_name}",
            json!({ "model_name": "a//b__-" }),
            "a//b__-",
        ),
        (
            "ParameterStoreDataOutput",
            "/{prefix}/{parameter_name}",
            json!({ "parameter_name": "/a//b/" }),
            "/a/b",
        ),
        (
            "ParameterStoreDataOutput",
            "{prefix}/{parameter_name}",
            json!({ "prefix": "sales", "parameter_name": "a" }),
            "/sales/a",
        ),
        (
            "AzureBlobDataOutput",
            "platform_provided_storage_account/{container_name}/{path}",
            json!({ "container_name": "c", "path": "/a//" }),
            "platform_provided_storage_account/c//a//",
        ),
    ];
    for (name, template, input, wanted) in cases {
        let text = rendered(&load(name).await, template, input.clone())
            .await
            .expect("a text");
        assert_eq!(text, wanted, "{name} {template} {input}");
    }
}

#[tokio::test]
async fn the_storage_account_of_a_domain() {
    let plugin = load("AzureBlobDataOutput").await;
    let template = "https://{storage_account}.blob.core.windows.net/{container_name}/{path}";
    let input = json!({ "domain": "sales", "container_name": "c", "path": "a//b" });
    let account = async |accounts: Value| {
        let entry = json!({ "identifier": "storage", "storage_account_names": accounts });
        rendered_in(&plugin, template, input.clone(), Some(entry)).await
    };
    for (accounts, wanted) in [
        (json!({ "sales": "one", "default": "two" }), "one"),
        (json!({ "default": "two" }), "two"),
        (json!({ "default": "100%1" }), "100%1"),
    ] {
        assert_eq!(
            account(accounts).await.expect("a text"),
            format!("https://{wanted}.blob.core.windows.net/c/a//b")
        );
    }
    for accounts in [
        json!({}),
        json!({ "marketing": "three" }),
        json!({ "marketing": "three", "default": "two" }),
        Value::Null,
    ] {
        let Err(HookError::Raised(report)) = account(accounts.clone()).await else {
            panic!("{accounts} has no account for sales");
        };
        assert!(
            report
                .message
                .contains("No storage account is configured for domain 'sales'"),
            "{report:?}"
        );
    }
    assert!(rendered(&plugin, template, input.clone()).await.is_err());
    assert_eq!(plugin.definition().placeholders, ["storage_account"]);
}

const ENVIRONMENT_REQUIRED: &str =
    "Environment is required to get the URL for … technical asset configurations";

#[tokio::test]
async fn links() {
    let catalogue = default_catalogue();
    let role = "https://signin.aws.amazon.com/switchrole?account=111111111111&roleName=sales-orders-dev\
                &displayName=sales-orders-dev";
    for (name, environment, wanted) in [
        (
            "SnowflakeDataOutput",
            Some("development"),
            "https://app.snowflake.com/example/development",
        ),
        (
            "DatabricksDataOutput",
            Some("production"),
            "https://sales.cloud.databricks.com",
        ),
        ("GlueDataOutput", Some("development"), role),
        ("S3DataOutput", Some("development"), role),
        ("ParameterStoreDataOutput", Some("development"), role),
        ("PostgreSQLDataOutput", None, ""),
        ("OSISemanticModelDataOutput", None, ""),
        ("AzureBlobDataOutput", None, "https://portal.azure.com/"),
        (
            "ConveyorPlugin",
            None,
            "https://app.conveyordata.com/projects/sales-orders",
        ),
        (
            "AgnoPlugin",
            None,
            "https://os.agno.com/chat?type=agent&id=sales-orders-agent",
        ),
    ] {
        let link = url(&load(name).await, &catalogue, environment)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(link, wanted, "{name}");
    }
    assert!(matches!(
        url(&load("RedshiftDataOutput").await, &catalogue, None).await,
        Err(UrlError::Missing)
    ));
    for (name, what) in [
        ("SnowflakeDataOutput", "Snowflake"),
        ("DatabricksDataOutput", "Databricks"),
        ("GlueDataOutput", "Glue"),
        ("S3DataOutput", "S3"),
        ("ParameterStoreDataOutput", "Parameter Store"),
    ] {
        let Err(UrlError::BadRequest(message)) = url(&load(name).await, &catalogue, None).await
        else {
            panic!("{name} needs an environment");
        };
        assert_eq!(message, ENVIRONMENT_REQUIRED.replace('…', what));
    }
}

#[tokio::test]
async fn a_link_whose_data_the_catalogue_lacks_names_it() {
    let mut bare = CatalogueFile::default();
    bare.environments.push(
        serde_json::from_value(json!({ "name": "bare", "acronym": "b" })).expect("an environment"),
    );
    let bare = catalogue_of(&bare);
    for (name, wanted) in [
        (
            "SnowflakeDataOutput",
            "login_url missing from Snowflake configuration",
        ),
        (
            "DatabricksDataOutput",
            "Workspace not configured for domain sales",
        ),
        (
            "GlueDataOutput",
            "No AWS role in the context of environment bare",
        ),
        (
            "GitHubPlugin",
            "github_org missing from the settings of GitHubPlugin",
        ),
    ] {
        match url(&load(name).await, &bare, Some("bare")).await {
            Err(UrlError::NotFound(message)) => assert_eq!(message, wanted),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn links_are_encoded() {
    let catalogue = default_catalogue();
    let odd = || DataProduct {
        namespace: "a+b=c,d@e".to_owned(),
        ..data_product()
    };
    for (name, settings, wanted) in [
        (
            "glue",
            json!({}),
            "https://signin.aws.amazon.com/switchrole?account=111111111111&roleName=a%2Bb%3Dc%2Cd%40e-dev\
             &displayName=a%2Bb%3Dc%2Cd%40e-dev",
        ),
        (
            "agno",
            json!({}),
            "https://os.agno.com/chat?type=agent&id=a%2Bb%3Dc%2Cd%40e-agent",
        ),
        (
            "github",
            json!({ "github_org": "example" }),
            "https://github.com/example/a%2Bb%3Dc%2Cd%40e",
        ),
    ] {
        let plugin = load_with(name, settings).await;
        let link = url_for(&plugin, &catalogue, Some("development"), odd()).await;
        assert_eq!(link.expect("a link"), wanted);
    }
}

/// A template names fields of its plugin, or what the plugin and the environments bring.
#[tokio::test]
async fn the_default_catalogue_fits_the_plugins() {
    let catalogue = default_catalogue();
    for (folder, name) in SHIPPED {
        let plugin = load_with(folder, json!({})).await;
        let definition = plugin.definition();
        if definition.fields.is_empty() {
            continue;
        }
        let service = catalogue
            .service_of(&definition.platform.platform_key)
            .unwrap_or_else(|| panic!("{name} has a service"));
        let is_field = |placeholder: &str| {
            definition
                .fields
                .iter()
                .any(|field| field.name.as_str() == placeholder)
        };
        for placeholder in Template::parse(&service.result_string_template).placeholders() {
            assert!(is_field(placeholder), "{name}: {placeholder}");
        }
        let mut entries = catalogue
            .environments
            .iter()
            .filter_map(|environment| {
                catalogue
                    .service_configuration(environment.id, &definition.platform.platform_key)?
                    .as_array()
            })
            .flatten()
            .peekable();
        assert_eq!(
            entries.peek().is_some(),
            definition.environment_entry != EnvironmentEntry::None,
            "{name}"
        );
        for entry in entries {
            assert!(entry["identifier"].is_string(), "{name}");
            for placeholder in Template::parse(&service.technical_info_template).placeholders() {
                assert!(
                    is_field(placeholder)
                        || entry.get(placeholder).is_some()
                        || definition.placeholders.iter().any(|own| own == placeholder),
                    "{name}: {placeholder}"
                );
            }
        }
    }
}

/// The catalogue file that a plugin brings, with what it says of an environment in comments.
fn own_catalogue(folder: &str) -> Arc<Catalogue> {
    let path = folder_of(folder).join("catalogue.toml");
    let mut text = fs::read_to_string(&path).expect("a catalogue of its own");
    let commented: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.starts_with('[') || line.contains(" = "))
        .map(str::to_owned)
        .collect();
    text += "\n[[environment]]\nname = \"development\"\nacronym = \"dev\"\n";
    text += &commented.join("\n");
    let file: CatalogueFile =
        toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    catalogue_of(&file)
}

#[tokio::test]
async fn a_catalogue_of_its_own_fits_its_plugin() {
    for (folder, name) in WITH_CATALOGUE {
        let plugin = load_with(folder, json!({})).await;
        let definition = plugin.definition();
        let catalogue = own_catalogue(folder);
        let key = &definition.platform.platform_key;
        let service = catalogue.service_of(key).expect(name);
        let environment = catalogue.environment("development").expect("it is there");
        let entries = catalogue.service_configuration(environment.id, key);
        let entry = &entries.expect("entries")[0];
        let options = catalogue.platform_options(key).expect("options");
        assert_eq!(entry["identifier"], json!(options[0]), "{name}");
        for template in [
            &service.result_string_template,
            &service.technical_info_template,
        ] {
            for placeholder in Template::parse(template).placeholders() {
                let is_field = definition
                    .fields
                    .iter()
                    .any(|field| field.name.as_str() == placeholder);
                assert!(
                    is_field || entry.get(placeholder).is_some(),
                    "{name}: {placeholder}"
                );
            }
        }
        let form = plugin
            .ui_metadata(reader(&catalogue))
            .await
            .expect("a form");
        assert!(!form.not_configured, "{name}");
        let link = url(&plugin, &catalogue, Some("development"))
            .await
            .expect(name);
        assert!(
            link.starts_with("https://") && !link.contains('{'),
            "{link}"
        );
    }
}

/// What an example shows is stored and gets an access path.
#[tokio::test]
async fn examples_are_right_all_the_way() {
    let default = default_catalogue();
    for (folder, name) in shipped() {
        let plugin = load_with(folder, json!({})).await;
        let catalogue = match WITH_CATALOGUE.iter().any(|(own, _)| own == folder) {
            true => own_catalogue(folder),
            false => default.clone(),
        };
        let definition = plugin.definition();
        for example in &definition.examples {
            let stored = normalized(&plugin, TechnicalMapping::Custom, example.clone().into())
                .await
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
            let service = catalogue
                .service_of(&definition.platform.platform_key)
                .expect("a service");
            let path = rendered(&plugin, &service.result_string_template, stored.into())
                .await
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert!(!path.is_empty() && !path.contains('{'), "{name}: {path}");
        }
    }
}

//! `POST /plugins/render_technical_asset_access_path`, and the errors of a configuration's content.

use serde_json::{Value, json};

use crate::harness::{Server, for_each_database};

const RENDER: &str = "plugins/render_technical_asset_access_path";

#[tokio::test]
async fn each_shipped_plugin_renders_by_its_rules() {
    for_each_database(async |database| {
    let server = Server::start(|options| {
 options.database(database);
        options.env(
            "ENABLED_PLUGINS",
            "SnowflakeDataOutput,DatabricksDataOutput,GlueDataOutput,RedshiftDataOutput,PostgreSQLDataOutput,\
             AzureBlobDataOutput,OSISemanticModelDataOutput,ParameterStoreDataOutput,S3DataOutput",
        );
    });
    let snowflake = |database: &str, schema: &str, table: &str, granularity: &str| {
        json!({
            "configuration_type": "SnowflakeDataOutput", "database": database, "schema": schema, "table": table,
            "access_granularity": granularity,
        })
    };
    let redshift = |database: &str, schema: &str, granularity: &str| {
        json!({
            "configuration_type": "RedshiftDataOutput", "database": database, "schema": schema, "table": "t",
            "access_granularity": granularity,
        })
    };
    for (platform, service, configuration, path) in [
        // Every `-` of the whole result becomes `_`, the template's own too.
        (
            "Snowflake",
            "Snowflake",
            snowflake("sales-dwh", "or-ders", "x-y", "table"),
            "sales_dwh.or_ders.x_y",
        ),
        // With the granularity `schema` the table is `*`, whatever was typed.
        (
            "Snowflake",
            "Snowflake",
            snowflake("sales", "orders", "zzz", "schema"),
            "sales.orders.*",
        ),
        (
            "Snowflake",
            "Snowflake",
            snowflake("sales", "", "t", "table"),
            "sales..t",
        ),
        // The rules of who may write where need a data product, so they do not apply here.
        (
            "Snowflake",
            "Snowflake",
            snowflake("anything", "s", "t", "table"),
            "anything.s.t",
        ),
        (
            "Databricks",
            "Databricks",
            json!({
                "configuration_type": "DatabricksDataOutput", "catalog": "cat-a", "schema": "s_",
                "access_granularity": "schema",
            }),
            "cat-a.s_.*",
        ),
        (
            "AWS",
            "Glue",
            json!({ "configuration_type": "GlueDataOutput", "database": "db", "access_granularity": "schema" }),
            "db.*",
        ),
        (
            "AWS",
            "Glue",
            json!({
                "configuration_type": "GlueDataOutput", "database": "db", "database_suffix": "x__", "table": "t_",
                "access_granularity": "table",
            }),
            "db__x.t",
        ),
        ("AWS", "Redshift", redshift("db_", "", "schema"), "db.*"),
        (
            "AWS",
            "Redshift",
            redshift("db", "orders", "table"),
            "db__orders.t",
        ),
        (
            "AWS",
            "S3",
            json!({ "configuration_type": "S3DataOutput", "bucket": "datalake", "path": "/a//b/" }),
            "datalake/a/b",
        ),
        (
            "AWS",
            "S3",
            json!({ "configuration_type": "S3DataOutput", "bucket": "b", "suffix": "sales/", "path": "a" }),
            "b/sales/a",
        ),
        (
            "PostgreSQL",
            "PostgreSQL",
            json!({
                "configuration_type": "PostgreSQLDataOutput", "database": "warehouse_", "schema": "orders__",
                "table": "zzz", "access_granularity": "schema",
            }),
            "warehouse.orders.*",
        ),
        (
            "Azure",
            "azureblob",
            json!({
                "configuration_type": "AzureBlobDataOutput", "domain": "sales", "container_name": "c", "path": "a//b/",
            }),
            "platform_provided_storage_account/c/a//b/",
        ),
        (
            "OSI",
            "OSI",
            json!({ "configuration_type": "OSISemanticModelDataOutput", "model_name": "m", "location": "l" }),
            "m",
        ),
        (
            "AWS",
            "ParameterStore",
            json!({ "configuration_type": "ParameterStoreDataOutput", "parameter_name": "/a//b/" }),
            "/a/b",
        ),
        (
            "AWS",
            "ParameterStore",
            json!({ "configuration_type": "ParameterStoreDataOutput", "prefix": "sales", "parameter_name": "a" }),
            "/sales/a",
        ),
    ] {
        let answer = server
            .render(platform, service, configuration.clone())
            .await
            .is(200);
        assert_eq!(
            answer.json(),
            json!({ "technical_asset_access_path": path }),
            "{configuration}"
        );
    }
}).await;
}

#[tokio::test]
async fn the_tag_is_the_type_else_the_name_and_an_alias_does() {
    for_each_database(async |database| {
    let server = Server::on(database);
    for tag in [
        json!({ "configuration_type": "SnowflakeDataOutput" }),
        json!({ "configuration_type": "SnowflakeTechnicalAssetConfiguration" }),
        json!({ "name": "SnowflakeDataOutput" }),
        json!({ "name": "SnowflakeTechnicalAssetConfiguration" }),
        json!({ "configuration_type": "SnowflakeDataOutput", "name": "anything" }),
    ] {
        let mut configuration = json!({ "database": "d", "schema": "s", "access_granularity": "schema", "unknown": [1] });
        for (key, value) in tag.as_object().expect("an object") {
            configuration[key] = value.clone();
        }
        let answer = server
            .render("Snowflake", "Snowflake", configuration)
            .await
            .is(200)
            .json();
        assert_eq!(answer["technical_asset_access_path"], "d.s.*", "{tag}");
    }
}).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_configuration_is_said_in_the_words_of_the_origin() {
    for_each_database(async |database| {
    let server = Server::on(database);
    let tags =
        "'DatabricksDataOutput', 'GlueDataOutput', 'RedshiftDataOutput', 'SnowflakeDataOutput'";
    let at = |key: &str| json!(["body", "configuration", "SnowflakeDataOutput", key]);
    let with = |rest: Value| {
        let mut configuration = json!({ "configuration_type": "SnowflakeDataOutput" });
        for (key, value) in rest.as_object().expect("an object") {
            configuration[key] = value.clone();
        }
        configuration
    };
    let no_database = with(json!({ "access_granularity": "schema" }));
    let number = with(json!({ "database": 5, "access_granularity": "schema" }));
    let column = with(json!({ "database": "d", "access_granularity": "column" }));
    let unknown = json!({ "configuration_type": "S3DataOutput", "bucket": "b" });
    let untagged = json!({ "database": "d" });
    let numbered = json!({ "configuration_type": 3 });
    let nothing = with(json!({}));
    let null = with(json!({ "database": null, "access_granularity": "schema" }));
    for (configuration, errors) in [
        (
            &no_database,
            json!([{ "type": "missing", "loc": at("database"), "msg": "Field required", "input": no_database }]),
        ),
        (
            &number,
            json!([{
                "type": "string_type", "loc": at("database"), "msg": "Input should be a valid string", "input": 5,
            }]),
        ),
        (
            &null,
            json!([{
                "type": "string_type", "loc": at("database"), "msg": "Input should be a valid string", "input": null,
            }]),
        ),
        (
            &column,
            json!([{
                "type": "enum", "loc": at("access_granularity"), "msg": "Input should be 'schema' or 'table'",
                "input": "column", "ctx": { "expected": "'schema' or 'table'" },
            }]),
        ),
        (
            &nothing,
            json!([
                { "type": "missing", "loc": at("database"), "msg": "Field required", "input": nothing },
                { "type": "missing", "loc": at("access_granularity"), "msg": "Field required", "input": nothing },
            ]),
        ),
        (
            &unknown,
            json!([{
                "type": "union_tag_invalid", "loc": ["body", "configuration"],
                "msg": format!(
                    "Input tag 'S3DataOutput' found using 'configuration_type' does not match any of the expected tags: {tags}"
                ),
                "input": unknown,
                "ctx": { "discriminator": "'configuration_type'", "tag": "S3DataOutput", "expected_tags": tags },
            }]),
        ),
        (
            &untagged,
            json!([{
                "type": "union_tag_not_found", "loc": ["body", "configuration"],
                "msg": "Unable to extract tag using discriminator 'configuration_type'", "input": untagged,
                "ctx": { "discriminator": "'configuration_type'" },
            }]),
        ),
    ] {
        let detail = server
            .render("Snowflake", "Snowflake", configuration.clone())
            .await
            .error(422);
        assert_eq!(detail, errors, "{configuration}");
    }
    let detail = server
        .render("Snowflake", "Snowflake", numbered)
        .await
        .error(422);
    assert_eq!(detail[0]["type"], "union_tag_invalid", "{detail}");
}).await;
}

#[tokio::test]
async fn a_body_that_lacks_what_rendering_needs_is_told_so() {
    for_each_database(async |database| {
    let server = Server::on(database);
    let (platform, service) = server.service("Snowflake", "Snowflake").await;
    let (aws, _) = server.service("AWS", "Glue").await;
    let configuration = json!({ "configuration_type": "SnowflakeDataOutput", "database": "d", "access_granularity": "schema" });
    let detail = server.post(RENDER, &json!({})).await.error(422);
    let missing: Vec<&Value> = detail
        .as_array()
        .expect("a list")
        .iter()
        .map(|error| &error["loc"][1])
        .collect();
    assert_eq!(missing, ["platform_id", "service_id", "configuration"]);
    for (key, wrong) in [
        ("platform_id", json!("x")),
        ("service_id", json!(1)),
        ("configuration", json!([])),
    ] {
        let mut body = json!({ "platform_id": platform, "service_id": service, "configuration": configuration });
        body[key] = wrong;
        let detail = server.post(RENDER, &body).await.error(422);
        assert_eq!(detail[0]["loc"], json!(["body", key]), "{detail}");
    }
    for (platform, service) in [
        (aws.as_str(), service.as_str()),
        (&platform, "00000000-0000-4000-8000-000000000000"),
        ("00000000-0000-4000-8000-000000000000", &service),
    ] {
        let body = json!({ "platform_id": platform, "service_id": service, "configuration": configuration });
        let detail = server.post(RENDER, &body).await.error(404);
        assert_eq!(
            detail,
            "Template not found for the given platform and service"
        );
    }
}).await;
}

#[tokio::test]
async fn a_template_that_names_a_field_the_plugin_lacks_is_told_which() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let (platform, service) = server.service("Snowflake", "Snowflake").await;
        let path = format!("configuration/platforms/{platform}/services/{service}");
        let configuration =
            json!({ "configuration_type": "SnowflakeDataOutput", "database": "d", "access_granularity": "schema" });
        for (template, status, says) in [
            ("{database}/{warehouse}", 422, "warehouse"),
            ("{database}/{ nope }/{{}}/{}", 200, "d/{ nope }/{{}}/{}"),
            ("plain", 200, "plain"),
            ("{database.__class__}", 200, "{database.__class__}"),
        ] {
            let body = json!({
                "name": "Snowflake", "result_string_template": template, "technical_info_template": template,
            });
            server.put(&path, &body).await.is(200);
            let answer = server.render("Snowflake", "Snowflake", configuration.clone()).await.is(status).json();
            if status == 422 {
                let text = answer["detail"][0].to_string();
                assert!(text.contains(says), "{template}: {text}");
                assert_eq!(answer["detail"][0]["type"], "value_error");
            } else {
                assert_eq!(answer["technical_asset_access_path"], says, "{template}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_value_that_looks_like_a_placeholder_is_text() {
    for_each_database(async |database| {
    let server = Server::on(database);
    let configuration = json!({
        "configuration_type": "DatabricksDataOutput", "catalog": "{schema}", "schema": "{table}", "table": "%1{0}",
        "access_granularity": "table",
    });
    let answer = server
        .render("Databricks", "Databricks", configuration)
        .await
        .is(200)
        .json();
    assert_eq!(
        answer["technical_asset_access_path"],
        "{schema}.{table}.%1{0}"
    );
}).await;
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_stored() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let sales = server.data_product("sales", "sales").await;
        let configuration = json!({ "database": "sales-dwh", "table": "zzz", "access_granularity": "schema" });
        let body = json!({ "data_product_id": sales, "name": "n", "configuration": configuration });
        let run = server.post("plugins/SnowflakeDataOutput/validate", &body).await.is(200).json();
        let stored = json!({
            "configuration_type": "SnowflakeDataOutput", "database": "sales-dwh", "schema": "", "table": "*",
            "bucket_identifier": "", "database_path": "sales-dwh", "table_path": "zzz",
            "access_granularity": "schema",
        });
        let expected =
            json!({ "valid": true, "errors": [], "configuration": stored, "access_path": "sales_dwh..*" });
        assert_eq!(run, expected);
        // Without a data product, its rules cannot be broken, and are not asked.
        for mapping in ["custom", "default"] {
            let body = json!({ "configuration": configuration, "technical_mapping": mapping });
            let run = server.post("plugins/SnowflakeDataOutput/validate", &body).await.is(200).json();
            assert_eq!(run["valid"], true, "{run}");
        }
        let hr = server.data_product("hr", "hr").await;
        let body = json!({ "data_product_id": hr, "name": "n", "configuration": configuration });
        let run = server.post("plugins/SnowflakeDataOutput/validate", &body).await.is(200).json();
        assert_eq!(run["valid"], false);
        assert_eq!(run["configuration"], Value::Null);
        assert_eq!(run["access_path"], Value::Null);
        assert_eq!(
            run["errors"],
            json!([{
                "type": "value_error", "loc": ["body", "configuration", "SnowflakeDataOutput", "database"],
                "msg": "Invalid database specified", "input": "sales-dwh",
            }])
        );
        // What was sent is repeated as in a 422: without what is named like a secret.
        let configuration = json!({ "database": "sales", "db_password": "hunter2" });
        let body = json!({ "data_product_id": sales, "name": "n", "configuration": configuration });
        let run = server.post("plugins/SnowflakeDataOutput/validate", &body).await.is(200);
        let errors = run.json()["errors"].clone();
        assert_eq!(errors[0]["input"]["db_password"], "", "{errors}");
        assert!(!run.text().contains("hunter2"), "{errors}");
        server.post("plugins/Nope/validate", &body).await.error(404);
        let all = server.get("configurations").await.is(200).json();
        assert_eq!(all["configurations"], json!([]), "a dry run stores nothing");
    })
    .await;
}

/// A plugin's catalogue file with what it has for environments in comments, as that of the development environment.
fn with_environment(plugin: &str) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join("lua-plugins").join(plugin).join("catalogue.toml");
    let text = std::fs::read_to_string(&file).expect("a catalogue file");
    let (services, environment) = text
        .split_once("# Each environment")
        .expect("what environments say");
    let is_toml = |line: &&str| line.starts_with('[') || line.contains(" = ");
    let lines: Vec<&str> = environment
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(is_toml)
        .collect();
    format!(
        "{services}\n[[environment]]\nname = \"development\"\nacronym = \"dev\"\n{}\n",
        lines.join("\n")
    )
}

#[tokio::test]
async fn the_catalogue_that_a_plugin_brings_says_where_its_data_is() {
    for_each_database(async |database| {
    let server = Server::start(|options| {
        options.database(database).env(
            "ENABLED_PLUGINS",
            "GoogleBigQueryDataOutput,KafkaTopicDataOutput,IcebergTableDataOutput",
        );
    });
    let product = server.data_product("sales-eu", "sales-eu").await;
    for (folder, plugin, configuration, path, info, link) in [
        (
            "iceberg",
            "IcebergTableDataOutput",
            json!({ "catalog": "lake", "namespace": "sales_eu.orders", "table": "lines", "access_granularity": "table" }),
            "lake.sales_eu.orders.lines",
            "type=rest; uri=https://lake.dev.example.com/catalog; warehouse=s3://example-lake-dev; table=sales_eu.orders.lines",
            "https://lake.example.com/namespaces/sales_eu",
        ),
        (
            "kafka",
            "KafkaTopicDataOutput",
            json!({ "cluster": "events", "topic": "sales-eu.orders" }),
            "events/sales-eu.orders",
            "kafka.dev.example.com:9092/sales-eu.orders",
            "https://kafka.example.com/topics?search=sales-eu",
        ),
        (
            "bigquery",
            "GoogleBigQueryDataOutput",
            json!({ "project": "example-data-eu", "dataset": "sales_eu", "access_granularity": "dataset" }),
            "example-data-eu.sales_eu.*",
            "example-data-eu-dev.sales_eu.*",
            "https://console.cloud.google.com/bigquery?project=example-sales-eu-dev&p=example-sales-eu-dev&d=sales_eu&page=dataset",
        ),
    ] {
        server.folder.write("own.toml", with_environment(folder));
        server
            .run(&["catalogue", "apply", "own.toml", "--yes"])
            .well();
        // The running server notices the new catalogue.
        server
            .until(&format!("plugins/{plugin}/form"), 200, |form| {
                form["not_configured"] == false
            })
            .await;
        let made = server
            .configure(plugin, &product, folder, configuration)
            .await
            .is(201)
            .json();
        assert_eq!(made["access_path"], path);
        let here: Vec<&Value> = made["technical_info"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|entry| entry["environment"] == "development")
            .map(|entry| &entry["info"])
            .collect();
        assert_eq!(here, [info], "{made:#}");
        let asked = format!("plugins/{folder}/url?id={product}&environment=development");
        assert_eq!(server.get(&asked).await.is(200).json()["url"], link);
    }
    })
    .await;
}

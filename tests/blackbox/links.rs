//! `GET /plugins/{platform_key}/url`.

use serde_json::{Value, json};

use crate::harness::{Server, for_each_database};

const ALL: &str = "SnowflakeDataOutput,DatabricksDataOutput,GlueDataOutput,RedshiftDataOutput,PostgreSQLDataOutput,\
                   AzureBlobDataOutput,OSISemanticModelDataOutput,ParameterStoreDataOutput,ConveyorPlugin,AgnoPlugin,\
                   GitHubPlugin,S3DataOutput";

#[tokio::test]
async fn each_shipped_plugin_has_its_link() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database).env("ENABLED_PLUGINS", ALL);
            options.env("PATCHBAY_PLUGINS__GITHUBPLUGIN__GITHUB_ORG", "example-org");
        });
        let sales = server.data_product("sales", "sales").await;
        for (key, environment, url) in [
            (
                "snowflake",
                "development",
                "https://app.snowflake.com/example/development",
            ),
            (
                "snowflake",
                "production",
                "https://app.snowflake.com/example/production",
            ),
            (
                "SnowflakeDataOutput",
                "production",
                "https://app.snowflake.com/example/production",
            ),
            (
                "SnowflakeTechnicalAssetConfiguration",
                "production",
                "https://app.snowflake.com/example/production",
            ),
            (
                "databricks",
                "development",
                "https://sales-dev.cloud.databricks.com",
            ),
            (
                "databricks",
                "production",
                "https://sales.cloud.databricks.com",
            ),
            ("postgresql", "", ""),
            ("osi", "", ""),
            ("azureblob", "", "https://portal.azure.com/"),
            (
                "agno",
                "",
                "https://os.agno.com/chat?type=agent&id=sales-agent",
            ),
            ("github", "", "https://github.com/example-org/sales"),
        ] {
            let path = format!("plugins/{key}/url?id={sales}&environment={environment}");
            let found = server.get(&path).await.is(200).json();
            assert_eq!(found, json!({ "url": url }), "{path}");
        }
        // `aws` is nobody's platform key: the first plugin below it answers.
        for key in ["glue", "s3", "parameterstore", "aws"] {
            let path = format!("plugins/{key}/url?id={sales}&environment=development");
            let found = server.get(&path).await.is(200).json();
            let url = found["url"].as_str().expect("a link");
            assert!(
                url.starts_with("https://signin.aws.amazon.com/switchrole?"),
                "{key}: {url}"
            );
            assert!(url.contains("account=111111111111"), "{key}: {url}");
            assert!(url.contains("roleName=sales-dev"), "{key}: {url}");
            assert!(!url.contains("{{}}"), "{key}: {url}");
        }
        let conveyor = server
            .get(&format!("plugins/conveyor/url?id={sales}"))
            .await
            .is(200)
            .json();
        assert!(
            conveyor["url"]
                .as_str()
                .is_some_and(|url| url.ends_with("/sales")),
            "{conveyor}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_link_that_cannot_be_says_why() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database).env("ENABLED_PLUGINS", ALL);
        });
        let sales = server.data_product("sales", "sales").await;
        let hr = server.data_product("hr", "hr").await;
        let required = |what: &str| {
            format!(
                "Environment is required to get the URL for {what} technical asset configurations"
            )
        };
        for (key, query, status, detail) in [
            (
                "nope",
                format!("id={sales}"),
                404,
                "Plugin 'nope' not found".to_owned(),
            ),
            (
                "Snowflake",
                format!("id={sales}"),
                404,
                "Plugin 'Snowflake' not found".to_owned(),
            ),
            (
                "redshift",
                format!("id={sales}&environment=development"),
                501,
                "Plugin 'redshift' does not implement URL retrieval".to_owned(),
            ),
            ("glue", format!("id={sales}"), 400, required("Glue")),
            ("s3", format!("id={sales}"), 400, required("S3")),
            (
                "parameterstore",
                format!("id={sales}&environment="),
                400,
                required("Parameter Store"),
            ),
            (
                "snowflake",
                format!("id={sales}"),
                400,
                required("Snowflake"),
            ),
            (
                "databricks",
                format!("id={hr}&environment=development"),
                404,
                "Workspace not configured for domain hr".to_owned(),
            ),
            (
                "snowflake",
                format!("id={sales}&environment=nowhere"),
                404,
                "Environment 'nowhere' not found".to_owned(),
            ),
            (
                "snowflake",
                "id=00000000-0000-4000-8000-000000000000&environment=development".to_owned(),
                404,
                "Data product not found".to_owned(),
            ),
        ] {
            let answer = server.get(&format!("plugins/{key}/url?{query}")).await;
            assert_eq!(answer.error(status), detail, "{key} {query}");
        }
        // Catalogue data, or a setting, that is missing is named.
        let github = server
            .get(&format!("plugins/github/url?id={sales}"))
            .await
            .error(404);
        assert!(
            github
                .as_str()
                .is_some_and(|detail| detail.contains("github_org")),
            "{github}"
        );
        for (query, kind) in [
            ("", "missing"),
            ("id=nope", "value_error"),
            ("id=", "value_error"),
        ] {
            let detail = server
                .get(&format!("plugins/snowflake/url?{query}"))
                .await
                .error(422);
            assert_eq!(detail[0]["loc"], json!(["query", "id"]), "{query}");
            assert_eq!(detail[0]["type"], kind, "{query}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_link_follows_the_catalogue() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let sales = server.data_product("sales", "sales").await;
        let development = server.environment("development").await;
        let (snowflake, _) = server.service("Snowflake", "Snowflake").await;
        let path = format!("configuration/environments/{development}/platforms/{snowflake}/config");
        let kept = server.get(&path).await.is(200).json();
        let id = kept["id"].as_str().expect("an id");
        let write = format!("configuration/environments/configs/{id}");
        let link = format!("plugins/snowflake/url?id={sales}&environment=development");
        for (config, status, answer) in [
            (
                json!({ "login_url": "https://elsewhere.example" }),
                200,
                "https://elsewhere.example",
            ),
            (
                json!({}),
                404,
                "login_url missing from Snowflake configuration",
            ),
        ] {
            let mut body = kept.clone();
            body["config"] = config;
            put_environment_configuration(&server, &write, &body).await;
            let found = server.get(&link).await.is(status).json();
            let found = if status == 200 {
                &found["url"]
            } else {
                &found["detail"]
            };
            assert_eq!(found, answer);
        }
    })
    .await;
}

/// Writes an environment configuration as a read gave it.
async fn put_environment_configuration(server: &Server, path: &str, read: &Value) {
    let id = |key: &str| match &read[key] {
        Value::Object(thing) => thing["id"].clone(),
        other => other.clone(),
    };
    let body = json!({
        "environment_id": id("environment"), "platform_id": id("platform"), "service_id": id("service"),
        "config": read["config"],
    });
    server.put(path, &body).await.is(200);
}

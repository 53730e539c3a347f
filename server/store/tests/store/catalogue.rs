//! The catalogue: written thing by thing, applied from a file, and never telling a secret.

use patchbay_plugin::catalogue::{CatalogueFile, EnvironmentEntry, PlatformEntry, ServiceEntry};
use patchbay_store::{
    EnvironmentConfigurationDraft, EnvironmentDraft, ServiceDraft, Store, StoreError, What,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixtures::{draft, install, on_each_database, product, simple};

fn service_draft(name: &str) -> ServiceDraft {
    ServiceDraft {
        name: name.to_owned(),
        result_string_template: "{a}".to_owned(),
        technical_info_template: "{b}".to_owned(),
    }
}

fn environment_draft(name: &str, is_default: bool) -> EnvironmentDraft {
    EnvironmentDraft {
        name: name.to_owned(),
        acronym: name[..3].to_owned(),
        context: "arn:{{}}".to_owned(),
        is_default,
    }
}

/// A platform with a service, its ids.
async fn aws(store: &Store) -> (Uuid, Uuid) {
    let platform = store
        .create_platform("AWS".to_owned())
        .await
        .expect("a platform");
    let service = store
        .create_service(platform.id, service_draft("Glue"))
        .await
        .expect("a service");
    (platform.id, service.id)
}

#[test]
fn every_write_makes_a_new_snapshot() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let before = store.catalogue();
        let (platform, service) = aws(store).await;
        let options = store
            .create_service_configuration(platform, service, vec!["clean".to_owned()])
            .await
            .expect("options");
        let after = store.catalogue();
        assert!(after.version > before.version && before.platforms.is_empty());
        assert_eq!(store.catalogue_version(), after.version);
        assert_eq!(after.service_configurations, std::slice::from_ref(&options));
        assert_eq!(
            after.service(platform, service).expect("a service").name,
            "Glue"
        );

        store
            .update_platform(platform, "Cloud".to_owned())
            .await
            .expect("renamed");
        store
            .update_service(platform, service, service_draft("Athena"))
            .await
            .expect("renamed");
        let none: Vec<String> = Vec::new();
        store
            .update_service_configuration(options.id, none.clone())
            .await
            .expect("emptied");
        let after = store.catalogue();
        assert_eq!(after.platforms[0].name, "Cloud");
        assert_eq!(after.services[0].name, "Athena");
        assert_eq!(after.service_configurations[0].config, none);
        store
            .delete_service_configuration(options.id)
            .await
            .expect("deleted");
        assert!(store.catalogue().service_configurations.is_empty());
    });
}

#[test]
fn names_are_unique_and_what_is_named_must_be_there() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let (platform, service) = aws(store).await;
        let taken = |what, key, value: &str| StoreError::Duplicate {
            what,
            key,
            value: value.to_owned(),
        };
        assert_eq!(
            store.create_platform("AWS".to_owned()).await,
            Err(taken(What::Platform, "name", "AWS"))
        );
        assert_eq!(
            store.create_service(platform, service_draft("Glue")).await,
            Err(taken(What::Service, "name", "Glue"))
        );
        let other = store
            .create_platform("Azure".to_owned())
            .await
            .expect("a platform");
        store
            .create_service(other.id, service_draft("Glue"))
            .await
            .expect("another platform's");
        assert_eq!(
            store.update_platform(other.id, "AWS".to_owned()).await,
            Err(taken(What::Platform, "name", "AWS"))
        );
        let nil = Uuid::nil();
        let missing = |what| Err(StoreError::NotFound(what));
        assert_eq!(
            store.create_service(nil, service_draft("X")).await,
            missing(What::Platform).map(|()| unreachable!())
        );
        assert_eq!(
            store
                .update_service(other.id, service, service_draft("X"))
                .await
                .map(|_| ()),
            missing(What::Service),
            "a service is found only by its own platform"
        );
        assert_eq!(
            store.delete_service(other.id, service).await,
            missing(What::Service)
        );
        assert_eq!(
            store.update_platform(nil, "X".to_owned()).await.map(|_| ()),
            missing(What::Platform)
        );
        assert_eq!(store.delete_platform(nil).await, missing(What::Platform));
        assert_eq!(
            store
                .create_service_configuration(other.id, service, vec![])
                .await
                .map(|_| ()),
            missing(What::Service)
        );
        assert_eq!(
            store.delete_service_configuration(nil).await,
            missing(What::ServiceConfiguration)
        );
        assert_eq!(
            store.delete_environment(nil).await,
            missing(What::Environment)
        );
        assert_eq!(
            store.delete_environment_configuration(nil).await,
            missing(What::EnvironmentConfiguration)
        );
        store
            .create_service_configuration(platform, service, vec![])
            .await
            .expect("options");
        assert!(matches!(
            store
                .create_service_configuration(platform, service, vec![])
                .await,
            Err(StoreError::Duplicate {
                what: What::ServiceConfiguration,
                ..
            })
        ));
    });
}

#[test]
fn one_environment_at_most_is_the_default() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let defaults = || -> Vec<String> {
            let catalogue = store.catalogue();
            let defaults = catalogue.environments.iter().filter(|one| one.is_default);
            defaults.map(|one| one.name.clone()).collect()
        };
        let first = store
            .create_environment(environment_draft("development", true))
            .await
            .expect("one");
        assert_eq!(defaults(), ["development"]);
        store
            .create_environment(environment_draft("production", true))
            .await
            .expect("two");
        assert_eq!(defaults(), ["production"]);
        store
            .update_environment(first.id, environment_draft("development", true))
            .await
            .expect("back");
        assert_eq!(defaults(), ["development"]);
        assert!(matches!(
            store
                .create_environment(environment_draft("production", false))
                .await,
            Err(StoreError::Duplicate {
                what: What::Environment,
                key: "name",
                ..
            })
        ));
    });
}

#[test]
fn a_secret_is_stored_and_never_told() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let (platform, service) = aws(store).await;
        let environment = store
            .create_environment(environment_draft("development", true))
            .await
            .expect("an environment");
        let draft = |service_id, config| EnvironmentConfigurationDraft {
            platform_id: platform,
            service_id,
            config,
        };
        let entry = |password: Value| json!([{"identifier": "a", "admin_pwd": password}]);
        let made = store
            .create_environment_configuration(
                environment.id,
                draft(Some(service), entry(json!("hush"))),
            )
            .await
            .expect("a configuration");
        assert_eq!(made.config, entry(json!("")));
        let seen = |config: &Value| assert!(!config.to_string().contains("hush"), "{config}");
        seen(&store.catalogue().environment_configurations[0].config);
        seen(
            &store
                .catalogue_out()
                .await
                .expect("out")
                .environment_configurations[0]
                .config,
        );
        assert_eq!(
            store
                .catalogue_out()
                .await
                .expect("out")
                .environment_configurations[0]
                .config,
            entry(json!(""))
        );
        let stored = || fresh.text("SELECT CAST(config AS text) FROM environment_configurations");
        assert!(stored().await.contains("hush"));
        let changed = store
            .update_environment_configuration(made.id, entry(json!("")))
            .await
            .expect("kept");
        assert_eq!(changed.config, entry(json!("")));
        assert!(stored().await.contains("hush"), "blank keeps it");
        store
            .update_environment_configuration(made.id, entry(json!(null)))
            .await
            .expect("cleared");
        assert!(!stored().await.contains("hush"), "null clears it");

        let again = store
            .create_environment_configuration(environment.id, draft(Some(service), json!([])))
            .await;
        assert!(
            matches!(again, Err(StoreError::Duplicate { key: "service", .. })),
            "{again:?}"
        );
        for wrong in [
            draft(None, json!([])),
            draft(Some(service), json!({})),
            draft(None, json!("x")),
        ] {
            let error = store
                .create_environment_configuration(environment.id, wrong)
                .await;
            assert!(matches!(error, Err(StoreError::Invalid(_))), "{error:?}");
        }
        for (environment, platform_id, service_id, what) in [
            (Uuid::nil(), platform, None, What::Environment),
            (environment.id, Uuid::nil(), None, What::Platform),
            (environment.id, platform, Some(Uuid::nil()), What::Service),
        ] {
            let config = if service_id.is_some() {
                json!([])
            } else {
                json!({})
            };
            let draft = EnvironmentConfigurationDraft {
                platform_id,
                service_id,
                config,
            };
            assert_eq!(
                store
                    .create_environment_configuration(environment, draft)
                    .await
                    .map(|_| ()),
                Err(StoreError::NotFound(what))
            );
        }
    });
}

#[test]
fn what_configurations_refer_to_stays_and_the_rest_goes_along() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let (platform, service) = aws(store).await;
        store
            .create_service_configuration(platform, service, vec![])
            .await
            .expect("options");
        let environment = store
            .create_environment(environment_draft("development", true))
            .await
            .expect("an environment");
        for (service_id, config) in [(None, json!({})), (Some(service), json!([]))] {
            let draft = EnvironmentConfigurationDraft {
                platform_id: platform,
                service_id,
                config,
            };
            store
                .create_environment_configuration(environment.id, draft)
                .await
                .expect("made");
        }
        let table = install(store, &simple("FileDataOutput")).await;
        let owner = product(store, "sales").await;
        let mut used = draft(owner.id, "orders", json!({"path": "x"}));
        // By its service alone, so that the platform is in use by way of it.
        used.service_id = Some(service);
        let made = store
            .create_configuration(&table, used, "ann")
            .await
            .expect("created");

        let in_use = |what: &str| {
            Err(StoreError::Conflict(format!(
                "{what} is referred to by 1 configuration"
            )))
        };
        assert_eq!(store.delete_platform(platform).await, in_use("Platform"));
        assert_eq!(
            store.delete_service(platform, service).await,
            in_use("Platform service")
        );
        store
            .delete_configuration(made.id, None, "ann")
            .await
            .expect("deleted");
        store
            .delete_platform(platform)
            .await
            .expect("deleted with all that is its own");
        let left = store.catalogue();
        assert!(left.services.is_empty() && left.service_configurations.is_empty());
        assert!(left.environment_configurations.is_empty());
        store
            .delete_environment(environment.id)
            .await
            .expect("deleted");
        assert!(store.catalogue().environments.is_empty());
    });
}

fn file() -> CatalogueFile {
    CatalogueFile {
        platforms: vec![PlatformEntry {
            name: "AWS".to_owned(),
            services: vec![ServiceEntry {
                name: "Glue".to_owned(),
                result_string_template: "{database}".to_owned(),
                technical_info_template: None,
                options: Some(vec!["clean".to_owned()]),
            }],
        }],
        environments: vec![EnvironmentEntry {
            name: "development".to_owned(),
            acronym: "dev".to_owned(),
            context: String::new(),
            is_default: true,
            platforms: [(
                "AWS".to_owned(),
                json!({"region": "eu", "admin_pwd": "hush"}),
            )]
            .into(),
            services: [(
                "AWS".to_owned(),
                [("Glue".to_owned(), vec![json!({"identifier": "clean"})])].into(),
            )]
            .into(),
        }],
    }
}

#[test]
fn a_file_is_shown_applied_and_then_changes_nothing() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let mut file = file();
        let planned = store.plan_catalogue(&file).await.expect("a plan");
        let shown: Vec<String> = planned.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "+ platform AWS",
                "+ service AWS / Glue",
                "+ options of AWS / Glue: [\"clean\"]",
                "+ environment development",
                "+ configuration of AWS in development",
                "+ configuration of AWS / Glue in development",
            ]
        );
        assert!(
            store.catalogue().platforms.is_empty(),
            "planning writes nothing"
        );
        assert_eq!(store.apply_catalogue_if_empty(&file).await, Ok(planned));
        assert_eq!(store.plan_catalogue(&file).await, Ok(vec![]));
        let version = store.catalogue_version();
        assert_eq!(store.apply_catalogue(&file).await, Ok(vec![]));
        assert_eq!(store.catalogue_version(), version, "nothing was written");

        // A blank secret in the file keeps the one that is stored.
        file.environments[0].platforms =
            [("AWS".to_owned(), json!({"region": "us", "admin_pwd": ""}))].into();
        file.environments[0].acronym = "d".to_owned();
        file.platforms[0].services[0].options = Some(vec![]);
        file.platforms[0].services[0].result_string_template = "{x}".to_owned();
        assert_eq!(store.apply_catalogue_if_empty(&file).await, Ok(vec![]));
        let applied = store.apply_catalogue(&file).await.expect("applied");
        let shown: Vec<String> = applied.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "~ service AWS / Glue: result_string_template, technical_info_template",
                "~ options of AWS / Glue: [\"clean\"] → []",
                "~ environment development: acronym",
                "~ configuration of AWS in development",
            ]
        );
        let hushed = fresh
            .number("SELECT count(*) FROM environment_configurations WHERE CAST(config AS text) LIKE '%us%hush%'")
            .await;
        assert_eq!(hushed, 1);
    });
}

#[test]
fn a_wrong_file_writes_nothing() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let mut unknown = file();
        unknown.environments[0].platforms = [("Azure".to_owned(), json!({}))].into();
        let mut twice = file();
        twice.platforms.push(twice.platforms[0].clone());
        let mut defaults = file();
        let mut second = defaults.environments[0].clone();
        second.name = "production".to_owned();
        defaults.environments.push(second);
        for wrong in [unknown, twice, defaults] {
            let error = store.apply_catalogue(&wrong).await;
            assert!(matches!(error, Err(StoreError::Invalid(_))), "{error:?}");
            assert!(
                store
                    .catalogue_out()
                    .await
                    .expect("out")
                    .platforms
                    .is_empty()
            );
        }
    });
}

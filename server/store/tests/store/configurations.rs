//! Configurations: written, read, listed, and remembered.

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use patchbay_plugin::configuration::{Action, MAX_HOOK_ROWS, TechnicalMapping};
use patchbay_store::{ConfigurationQuery, DataProductDraft, StoreError, What};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixtures::{
    checked, draft, everything, install, map, on_each_database, product, simple,
};

#[test]
fn a_configuration_is_read_back_as_it_was_written() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let table = install(store, &everything()).await;
        let product = product(store, "sales").await;
        let extra: Value =
            serde_json::from_str(r#"{"z": 1, "a": [null, 1.50, "é"]}"#).expect("JSON");
        let values = json!({
            "database": "d'w\"h", "schema": "", "days": 9_007_199_254_740_991_i64, "share": 0.25, "open": true,
            "granularity": "table", "tags": ["a", "b"], "extra": extra,
        });
        let mut wanted = draft(product.id, "orders", values.clone());
        wanted.description = Some("what was ordered".to_owned());
        wanted.technical_mapping = TechnicalMapping::Custom;
        let created = store
            .create_configuration(&table, wanted, "ann")
            .await
            .expect("created");
        assert_eq!(created.revision, 1);
        assert_eq!(created.plugin, "EverythingDataOutput");
        let read = store.configuration(created.id).await.expect("read");
        assert_eq!(read.as_ref(), Some(&created));
        // The bytes of a JSON field are kept: the order of keys, and how a number is written.
        let text = serde_json::to_string(&created.values["extra"]).expect("JSON");
        assert_eq!(text, r#"{"z":1,"a":[null,1.50,"é"]}"#);
        assert_eq!(map(values), created.values);

        let absent = json!({"database": "x", "schema": "", "days": null, "share": 5, "open": false,
            "granularity": "schema", "tags": null, "extra": null});
        let created = store
            .create_configuration(&table, draft(product.id, "empty", absent.clone()), "ann")
            .await
            .expect("created");
        assert_eq!(created.values, map(absent));
        let read = store.configuration(created.id).await.expect("read");
        assert_eq!(read, Some(created));
        assert_eq!(store.configuration(Uuid::nil()).await, Ok(None));
    });
}

#[test]
fn what_a_configuration_refers_to_must_be_there_and_its_name_be_free() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let table = install(store, &simple("FileDataOutput")).await;
        let product = product(store, "sales").await;
        let good = || draft(product.id, "orders", json!({"path": "x"}));
        store
            .create_configuration(&table, good(), "ann")
            .await
            .expect("created");
        assert_eq!(
            store.create_configuration(&table, good(), "ann").await,
            Err(StoreError::Duplicate {
                what: What::Configuration,
                key: "name",
                value: "orders".to_owned()
            })
        );
        let nowhere = Some(Uuid::nil());
        for (what, draft) in [
            (
                What::DataProduct,
                draft(Uuid::nil(), "a", json!({"path": "x"})),
            ),
            (What::Platform, {
                let mut draft = draft(product.id, "b", json!({"path": "x"}));
                draft.platform_id = nowhere;
                draft
            }),
            (What::Service, {
                let mut draft = draft(product.id, "c", json!({"path": "x"}));
                draft.service_id = nowhere;
                draft
            }),
        ] {
            assert_eq!(
                store.create_configuration(&table, draft, "ann").await,
                Err(StoreError::NotFound(what))
            );
        }
        for bad in [
            draft(product.id, "nul\0", json!({"path": "x"})),
            draft(product.id, "nul", json!({"path": "x\0"})),
            draft(product.id, "type", json!({"path": 5})),
        ] {
            let error = store.create_configuration(&table, bad, "ann").await;
            assert!(matches!(error, Err(StoreError::Invalid(_))), "{error:?}");
        }
        // A rule of the table itself: what the database says of it names the table, and is for the log alone.
        let none = draft(product.id, "none", json!({"path": null}));
        let error = store.create_configuration(&table, none, "ann").await;
        let error = error.expect_err("a column that takes no null");
        assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
        assert_eq!(
            error.to_string(),
            "a rule of the plugin's table does not allow these values"
        );
        assert!(error.detail().contains("path"), "{}", error.detail());
        let page = store
            .configurations(ConfigurationQuery {
                limit: 10,
                ..ConfigurationQuery::default()
            })
            .await
            .expect("a page");
        assert_eq!(page.items.len(), 1, "what failed has left nothing");
    });
}

#[test]
fn a_history_says_who_changed_what_and_outlives_the_configuration() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let table = install(store, &simple("FileDataOutput")).await;
        let product = product(store, "sales").await;
        let created = store
            .create_configuration(
                &table,
                draft(product.id, "orders", json!({"path": "x"})),
                "ann",
            )
            .await
            .expect("created");
        let (id, counter) = (created.id, store.row_counter("FileDataOutput"));

        // What changes nothing writes nothing.
        let same = draft(product.id, "orders", json!({"path": "x"}));
        let unchanged = store
            .update_configuration(&table, id, Some(1), same, "bob")
            .await;
        assert_eq!(unchanged, Ok(created.clone()));
        assert_eq!(store.row_counter("FileDataOutput"), counter);

        let changed = draft(product.id, "Orders", json!({"path": "y"}));
        let updated = store
            .update_configuration(&table, id, Some(1), changed, "bob")
            .await
            .expect("updated");
        assert_eq!(
            (updated.revision, updated.created_at),
            (2, created.created_at)
        );
        assert_eq!(store.configuration(id).await, Ok(Some(updated.clone())));
        assert!(store.row_counter("FileDataOutput") > counter);

        let late = draft(product.id, "late", json!({"path": "z"}));
        assert_eq!(
            store
                .update_configuration(&table, id, Some(1), late.clone(), "eve")
                .await,
            Err(StoreError::Stale { current: 2 })
        );
        assert_eq!(
            store
                .update_configuration(&table, Uuid::nil(), None, late, "eve")
                .await,
            Err(StoreError::NotFound(What::Configuration))
        );
        assert_eq!(
            store.delete_configuration(id, Some(1), "eve").await,
            Err(StoreError::Stale { current: 2 })
        );
        store
            .delete_configuration(id, Some(2), "cid")
            .await
            .expect("deleted");
        assert_eq!(store.configuration(id).await, Ok(None));
        assert_eq!(
            store.delete_configuration(id, None, "cid").await,
            Err(StoreError::NotFound(What::Configuration))
        );
        let rows = fresh
            .number("SELECT count(*) FROM file_data_output_configurations")
            .await;
        assert_eq!(rows, 0, "the plugin's row goes with the base");

        let history = store.revisions(id).await.expect("a history");
        let told: Vec<_> = history
            .iter()
            .map(|revision| {
                (
                    revision.revision,
                    revision.action,
                    revision.changed_by.as_str(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (1, Action::Create, "ann"),
                (2, Action::Update, "bob"),
                (3, Action::Delete, "cid")
            ]
        );
        assert_eq!(
            history[1].changes,
            map(json!({
                "name": {"from": "orders", "to": "Orders"},
                "configuration.path": {"from": "x", "to": "y"},
            }))
        );
        assert_eq!(
            history[2].changes["configuration.path"],
            json!({"from": "y", "to": null})
        );
        assert_eq!(store.revisions(Uuid::nil()).await, Ok(Vec::new()));
    });
}

#[test]
fn pages_go_over_ties_and_filters() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let file = install(store, &simple("FileDataOutput")).await;
        let all = install(store, &everything()).await;
        let (sales, hr) = (product(store, "sales").await, product(store, "hr").await);
        let full = || {
            checked(
                &everything(),
                json!({"database": "x", "granularity": "table"}),
            )
        };
        let mut made = Vec::new();
        for number in 0..7 {
            let owner = if number % 2 == 0 { &sales } else { &hr };
            let created = match number % 3 {
                0 => {
                    store
                        .create_configuration(
                            &all,
                            draft(owner.id, &format!("É 100%_{number}"), full()),
                            "ann",
                        )
                        .await
                }
                _ => {
                    let draft = draft(
                        owner.id,
                        &format!("file!{number}"),
                        json!({"path": number.to_string()}),
                    );
                    store.create_configuration(&file, draft, "ann").await
                }
            };
            made.push(created.expect("created"));
        }
        // All at one moment: only the id tells their order.
        fresh
            .run("UPDATE data_output_configurations SET created_at = '2026-01-01T00:00:00.000000Z'")
            .await;
        let mut newest_first: Vec<Uuid> = made.iter().map(|made| made.id).collect();
        newest_first.sort();
        newest_first.reverse();

        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let query = ConfigurationQuery {
                limit: 2,
                cursor,
                ..ConfigurationQuery::default()
            };
            let page = store.configurations(query).await.expect("a page");
            assert!(page.items.len() <= 2);
            seen.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(
            seen.iter().map(|seen| seen.id).collect::<Vec<_>>(),
            newest_first
        );
        for seen in &seen {
            let made = made.iter().find(|made| made.id == seen.id).expect("made");
            assert_eq!(seen.values, made.values);
        }
        let exported: Vec<_> = store.export().try_collect().await.expect("an export");
        assert_eq!(exported, seen);

        let found = async |query: ConfigurationQuery| {
            let page = store
                .configurations(ConfigurationQuery { limit: 50, ..query })
                .await
                .expect("a page");
            let mut names: Vec<String> = page.items.into_iter().map(|found| found.name).collect();
            names.sort();
            names
        };
        let query = ConfigurationQuery::default;
        assert_eq!(
            found(ConfigurationQuery {
                q: Some("é 100%_".into()),
                ..query()
            })
            .await,
            ["É 100%_0", "É 100%_3", "É 100%_6"]
        );
        assert_eq!(
            found(ConfigurationQuery {
                q: Some("%".into()),
                data_product_id: Some(sales.id),
                ..query()
            })
            .await
            .len(),
            2
        );
        assert_eq!(
            found(ConfigurationQuery {
                q: Some("E!1".into()),
                ..query()
            })
            .await,
            ["file!1"]
        );
        assert_eq!(
            found(ConfigurationQuery {
                plugin: Some("FileDataOutput".into()),
                data_product_id: Some(hr.id),
                ..query()
            })
            .await,
            ["file!1", "file!5"]
        );
        assert!(
            found(ConfigurationQuery {
                plugin: Some("Nobody".into()),
                ..query()
            })
            .await
            .is_empty()
        );
        let error = store
            .configurations(ConfigurationQuery {
                cursor: Some("x".into()),
                ..query()
            })
            .await;
        assert!(matches!(error, Err(StoreError::Invalid(_))), "{error:?}");
    });
}

#[test]
fn a_plugin_finds_its_own_rows_by_their_values() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let table = install(store, &everything()).await;
        let (sales, hr) = (product(store, "sales").await, product(store, "hr").await);
        for (owner, days) in [(&sales, json!(3)), (&sales, json!(null)), (&hr, json!(3))] {
            let values =
                json!({"database": "x", "granularity": "table", "open": true, "days": days});
            let values = checked(&everything(), values);
            let name = format!("{} {days}", owner.namespace);
            store
                .create_configuration(&table, draft(owner.id, &name, values), "ann")
                .await
                .expect("created");
        }
        let rows = async |product, values| {
            let rows = store.plugin_rows(&table, product, map(values), 10).await?;
            let name =
                |row: &patchbay_plugin::Map| row["name"].as_str().expect("a name").to_owned();
            Ok::<_, StoreError>(rows.iter().map(name).collect::<Vec<_>>())
        };
        let names = rows(None, json!({"days": 3, "open": true}))
            .await
            .expect("rows");
        assert_eq!(names, ["hr 3", "sales 3"]);
        let names = rows(Some(sales.id), json!({"days": null}))
            .await
            .expect("rows");
        assert_eq!(names, ["sales null"]);
        for wrong in [
            json!({"nope": 1}),
            json!({"extra": 1}),
            json!({"days": "3"}),
        ] {
            let error = rows(None, wrong).await;
            assert!(matches!(error, Err(StoreError::Invalid(_))), "{error:?}");
        }
    });
}

#[test]
fn data_products_are_unique_by_namespace_and_kept_in_memory_until_one_is_written() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let named = |name: &str, namespace: &str| DataProductDraft {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            domain: "d".to_owned(),
        };
        let id = Uuid::now_v7();
        let sales = store
            .create_data_product(Some(id), named("Sales", "sales"))
            .await
            .expect("created");
        assert_eq!(sales.id, id);
        for (id, draft) in [
            (None, named("Other", "sales")),
            (Some(id), named("Other", "other")),
        ] {
            let error = store.create_data_product(id, draft).await;
            assert!(
                matches!(error, Err(StoreError::Duplicate { .. })),
                "{error:?}"
            );
        }
        let error = store
            .create_data_product(None, named("Bad", "No Way"))
            .await;
        assert!(matches!(error, Err(StoreError::Invalid(_))), "{error:?}");

        let kept = store.data_product(id).await.expect("read").expect("there");
        assert_eq!(kept, sales);
        store
            .update_data_product(id, named("Sales 2", "sales"))
            .await
            .expect("updated");
        let read = store.data_product(id).await.expect("read").expect("there");
        assert_eq!(read.name, "Sales 2");

        for namespace in ["a", "b", "c"] {
            product(store, namespace).await;
        }
        let first = store.data_products(3, None).await.expect("a page");
        let namespaces: Vec<_> = first
            .items
            .iter()
            .map(|product| product.namespace.as_str())
            .collect();
        assert_eq!(namespaces, ["a", "b", "c"]);
        let rest = store
            .data_products(3, first.next_cursor.as_deref())
            .await
            .expect("a page");
        assert_eq!((rest.items.len(), rest.next_cursor), (1, None));

        let table = install(store, &simple("FileDataOutput")).await;
        let used = draft(id, "orders", json!({"path": "x"}));
        let used = store
            .create_configuration(&table, used, "ann")
            .await
            .expect("created");
        assert_eq!(
            store.delete_data_product(id).await,
            Err(StoreError::Conflict(
                "Data product is referred to by 1 configuration".to_owned()
            ))
        );
        store
            .delete_configuration(used.id, None, "ann")
            .await
            .expect("deleted");
        store.delete_data_product(id).await.expect("deleted");
        assert_eq!(store.data_product(id).await, Ok(None));
        assert_eq!(
            store.delete_data_product(id).await,
            Err(StoreError::NotFound(What::DataProduct))
        );
    });
}

#[test]
fn a_hook_reads_as_many_rows_as_it_is_promised() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let table = install(store, &simple("ManyDataOutput")).await;
        let owner = product(store, "sales").await;
        let writes = (0..=MAX_HOOK_ROWS).map(|number| {
            let values = json!({"path": number.to_string()});
            store.create_configuration(&table, draft(owner.id, &number.to_string(), values), "ann")
        });
        for created in join_all(writes).await {
            created.expect("created");
        }
        for (asked, given) in [(600, 600), (MAX_HOOK_ROWS, MAX_HOOK_ROWS)] {
            let rows = store.plugin_rows(&table, None, map(json!({})), asked).await;
            assert_eq!(rows.expect("rows").len(), given);
        }
    });
}

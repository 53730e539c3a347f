//! Other processes on the same database, groups of writes, and what is left after an end of whatever kind.

use std::fs;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use patchbay_store::{ConfigurationQuery, DatabaseUrl, Store, StoreError, StoreSettings, What};
use patchbay_test_cluster::Cluster;
use serde_json::json;
use uuid::Uuid;

use crate::fixtures::{draft, eventually, install, on_each_database, on_sqlite, product, simple};

#[test]
fn a_write_of_another_process_is_noticed() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let (mut changes, rows) = (store.changes(), store.row_counter("Any"));
        let version = store.catalogue_version();
        changes.mark_unchanged();
        let other = fresh.open_beside().await;
        other
            .create_platform("AWS".to_owned())
            .await
            .expect("written");
        tokio::time::timeout(Duration::from_secs(10), changes.changed())
            .await
            .expect("in time")
            .expect("a change");
        let catalogue = store.catalogue();
        assert_eq!(catalogue.platforms.len(), 1);
        assert!(catalogue.version > version);
        // A file does not say what was written.
        assert_eq!(store.row_counter("Any") > rows, fresh.is_sqlite());
        // Its own writes are nobody else's.
        let seen = *changes.borrow_and_update();
        store
            .create_platform("Azure".to_owned())
            .await
            .expect("written");
        store.health().await.expect("healthy");
        assert_eq!(*changes.borrow(), seen);
        other.close().await;
    });
}

#[test]
fn a_foreign_write_is_seen_by_the_very_next_write() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let owner = product(store, "sales").await;
        assert_eq!(
            store
                .data_product(owner.id)
                .await
                .expect("read")
                .expect("there")
                .name,
            owner.name
        );
        let other = fresh.open_beside().await;
        other.delete_data_product(owner.id).await.expect("deleted");
        let table = install(store, &simple("FileDataOutput")).await;
        assert_eq!(
            store
                .create_configuration(&table, draft(owner.id, "a", json!({"path": "x"})), "ann")
                .await,
            Err(StoreError::NotFound(What::DataProduct))
        );
        eventually("what was kept is forgotten", async || {
            store.data_product(owner.id).await == Ok(None)
        })
        .await;
    });
}

#[test]
fn a_second_server_is_refused_until_the_first_is_gone() {
    on_sqlite(async |fresh| {
        let error = Store::open(fresh.settings.clone())
            .await
            .err()
            .expect("refused");
        let StoreError::LockedByServer { path, pid } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(
            path.file_name().and_then(|name| name.to_str()),
            Some("patchbay.db.lock")
        );
        assert_eq!(*pid, Some(std::process::id()));
        assert!(error.to_string().contains("patchbay.db.lock"), "{error}");
        fresh.store.close().await;
        Store::open(fresh.settings.clone())
            .await
            .expect("the lock is free");
    });
}

#[test]
fn several_processes_may_make_a_new_database_at_once() {
    on_each_database(async |fresh| {
        let url = match fresh.is_sqlite() {
            true => DatabaseUrl::Sqlite(fresh.aside("new.db")),
            false => DatabaseUrl::parse(&Cluster::shared().database().await).expect("a URL"),
        };
        let settings = StoreSettings {
            url,
            busy_timeout: Duration::from_secs(30),
            ..fresh.beside()
        };
        let opened = join_all((0..6).map(|_| Store::open(settings.clone()))).await;
        for store in opened {
            store.expect("a store").health().await.expect("healthy");
        }
    });
}

#[test]
fn a_job_that_fails_does_not_undo_its_neighbours() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let table = install(store, &simple("FileDataOutput")).await;
        let owner = product(store, "sales").await;
        // On SQLite a foreign transaction holds the writer back, so that all of these wait and share one commit.
        let patient = StoreSettings {
            busy_timeout: Duration::from_secs(30),
            ..fresh.beside()
        };
        let patient = Store::open(patient).await.expect("a store");
        let holder = fresh.is_sqlite().then(|| fresh.raw());
        if let Some(holder) = &holder {
            holder.execute_batch("BEGIN IMMEDIATE").expect("a lock");
        }
        let writes = (0..40).map(|number| {
            let (store, table) = (patient.clone(), table.clone());
            let (owner, name) = match number % 4 {
                1 => (owner.id, "same".to_owned()),
                2 => (Uuid::nil(), format!("nobody's {number}")),
                3 => (owner.id, format!("half {number}")),
                _ => (owner.id, format!("good {number}")),
            };
            // The plugin's row refuses null, after the base row has been written.
            let path = if number % 4 == 3 {
                json!(null)
            } else {
                json!("x")
            };
            async move {
                let draft = draft(owner, &name, json!({"path": path}));
                store.create_configuration(&table, draft, "ann").await
            }
        });
        let (answers, ()) = tokio::join!(join_all(writes), async {
            if let Some(holder) = &holder {
                holder.execute_batch("COMMIT").expect("the lock is let go");
            }
        });
        let count = |wanted: fn(&StoreError) -> bool| {
            answers
                .iter()
                .filter(|answer| answer.as_ref().is_err_and(wanted))
                .count()
        };
        assert_eq!(
            count(|error| matches!(error, StoreError::Duplicate { .. })),
            9
        );
        assert_eq!(
            count(|error| matches!(error, StoreError::NotFound(What::DataProduct))),
            10
        );
        assert_eq!(count(|error| matches!(error, StoreError::Refused(_))), 10);
        let good: Vec<_> = answers.into_iter().flatten().collect();
        assert_eq!(good.len(), 11);
        let exported: Vec<_> = store.export().try_collect().await.expect("an export");
        assert_eq!(exported.len(), good.len(), "what failed has left nothing");
        for made in good {
            assert_eq!(store.configuration(made.id).await, Ok(Some(made.clone())));
            assert_eq!(store.revisions(made.id).await.expect("a history").len(), 1);
        }
    });
}

#[test]
fn what_was_answered_is_there_after_a_crash() {
    on_sqlite(async |fresh| {
        let store = &fresh.store;
        let table = install(store, &simple("FileDataOutput")).await;
        let owner = product(store, "sales").await;
        let made = store
            .create_configuration(&table, draft(owner.id, "a", json!({"path": "x"})), "ann")
            .await
            .expect("created");
        // The files at this instant are what a killed process leaves.
        let crashed = fresh.aside("crashed.db");
        for end in ["", "-wal"] {
            let from = format!("{}{end}", fresh.path().display());
            fs::copy(from, format!("{}{end}", crashed.display())).expect("a copy");
        }
        let settings = StoreSettings {
            url: DatabaseUrl::Sqlite(crashed),
            ..fresh.settings.clone()
        };
        let reopened = Store::open(settings).await.expect("it opens");
        assert_eq!(reopened.configuration(made.id).await, Ok(Some(made)));
    });
}

#[test]
fn a_store_that_is_dropped_or_closed_finishes_what_it_took() {
    on_each_database(async |fresh| {
        let store = fresh.store.clone();
        let owner = product(&store, "sales").await;
        let table = install(&store, &simple("FileDataOutput")).await;
        let writes = (0..20).map(|number| {
            let draft = draft(owner.id, &format!("n{number}"), json!({"path": "x"}));
            store.create_configuration(&table, draft, "ann")
        });
        let (answers, ()) = tokio::join!(join_all(writes), store.close());
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(store.health().await, Err(StoreError::Closed));
        if fresh.is_sqlite() {
            let log = fresh.aside("data/patchbay.db-wal");
            assert!(!log.exists(), "the log is emptied");
        }

        let again = Store::open(fresh.settings.clone()).await.expect("a store");
        let page = again
            .configurations(ConfigurationQuery {
                limit: 50,
                ..ConfigurationQuery::default()
            })
            .await
            .expect("a page");
        assert_eq!(page.items.len(), 20);
    });
}

/// The futures of a server's handlers move between threads.
#[test]
fn every_call_can_be_awaited_on_any_thread() {
    fn is_send<T: Send>(_: T) {}
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let table = install(store, &simple("FileDataOutput")).await;
        let draft = || draft(Uuid::nil(), "x", json!({"path": "x"}));
        is_send(store.create_configuration(&table, draft(), "x"));
        is_send(store.update_configuration(&table, Uuid::nil(), None, draft(), "x"));
        is_send(store.delete_configuration(Uuid::nil(), None, "x"));
        is_send(store.configurations(ConfigurationQuery::default()));
        is_send(store.health());
        is_send(store.export());
    });
}

//! Several servers on one Postgres: what one writes the others see, and what they do at once is right.

use std::time::Duration;

use futures_util::future::join_all;
use patchbay_plugin::catalogue::{CatalogueFile, EnvironmentEntry, PlatformEntry};
use patchbay_plugin::migration::{Column, ColumnType, Operation};
use patchbay_plugin::name::TableName;
use patchbay_store::{
    Applying, ConfigurationQuery, DataProductDraft, EnvironmentDraft, Store, StoreError,
    StoreSettings, What,
};
use serde_json::json;

use crate::fixtures::{
    Fresh, definition, draft, eventually, install, map, migration, on_postgres, planned, product,
    simple,
};

/// Everything that another server committed before this call has been noticed by the time it returns.
async fn noticed(store: &Store, other: &Store) {
    let version = store.catalogue_version();
    let name = format!("marker {version} {}", uuid::Uuid::new_v4());
    other.create_platform(name.clone()).await.expect("a marker");
    eventually("the other's write is seen", async || {
        let catalogue = store.catalogue();
        catalogue
            .platforms
            .iter()
            .any(|platform| platform.name == name)
    })
    .await;
}

#[test]
fn what_one_server_writes_the_others_see() {
    on_postgres(async |fresh| {
        let (store, other) = (&fresh.store, fresh.open_beside().await);
        let mut changes = store.changes();
        let version = store.catalogue_version();
        changes.mark_unchanged();
        noticed(store, &other).await;
        assert!(store.catalogue_version() > version);
        eventually("the change is told", async || {
            changes.has_changed().expect("an open store")
        })
        .await;

        // A table that another server makes.
        changes.mark_unchanged();
        let counter = || store.row_counter("FileDataOutput");
        let before = counter();
        let table = install(&other, &simple("FileDataOutput")).await;
        eventually("the table is seen", async || counter() > before).await;
        eventually("and told", async || {
            changes.has_changed().expect("an open store")
        })
        .await;

        // Rows move the counter of their plugin, and nothing else.
        let owner = product(&other, "sales").await;
        noticed(store, &other).await;
        changes.mark_unchanged();
        let (before, others, version) = (
            counter(),
            store.row_counter("Other"),
            store.catalogue_version(),
        );
        let made = other
            .create_configuration(&table, draft(owner.id, "a", json!({"path": "x"})), "ann")
            .await
            .expect("created");
        eventually("the row is seen", async || counter() > before).await;
        assert_eq!(store.row_counter("Other"), others);
        assert_eq!(store.catalogue_version(), version);
        assert!(!changes.has_changed().expect("an open store"));
        assert_eq!(store.configuration(made.id).await, Ok(Some(made)));

        // A data product that is kept in memory is forgotten.
        let kept = store.data_product(owner.id).await.expect("read");
        assert_eq!(kept.as_ref(), Some(&owner));
        let draft = DataProductDraft {
            name: "Renamed".to_owned(),
            namespace: owner.namespace.clone(),
            domain: owner.domain.clone(),
        };
        let renamed = other.update_data_product(owner.id, draft).await;
        let renamed = Some(renamed.expect("renamed"));
        eventually("the new name is seen", async || {
            store.data_product(owner.id).await == Ok(renamed.clone())
        })
        .await;
    });
}

#[test]
fn a_servers_own_writes_move_its_counters_once() {
    on_postgres(async |fresh| {
        let (store, other) = (&fresh.store, fresh.open_beside().await);
        let table = install(store, &simple("FileDataOutput")).await;
        let owner = product(store, "sales").await;
        noticed(store, &other).await;
        let mut changes = store.changes();
        changes.mark_unchanged();
        let before = store.row_counter("FileDataOutput");
        for number in 0..20 {
            let draft = draft(owner.id, &format!("n{number}"), json!({"path": "x"}));
            store
                .create_configuration(&table, draft, "ann")
                .await
                .expect("created");
        }
        store
            .create_platform("AWS".to_owned())
            .await
            .expect("a platform");
        assert!(!changes.has_changed().expect("an open store"));
        // Notices come in the order of commits, so our own have been back when this one is seen.
        noticed(store, &other).await;
        assert_eq!(store.row_counter("FileDataOutput"), before + 20);
    });
}

#[test]
fn who_is_healthy_has_heard_of_everything_that_was_answered() {
    on_postgres(async |fresh| {
        let (store, other) = (&fresh.store, fresh.open_beside().await);
        let table = install(&other, &simple("FileDataOutput")).await;
        let owner = product(&other, "sales").await;
        store.health().await.expect("healthy");
        let before = store.row_counter("FileDataOutput");
        for number in 1..=50 {
            let draft = draft(owner.id, &format!("n{number}"), json!({"path": "x"}));
            let made = other.create_configuration(&table, draft, "ann").await;
            made.expect("created");
            store.health().await.expect("healthy");
            assert_eq!(store.row_counter("FileDataOutput"), before + number);
            let made = other.create_platform(format!("p{number}")).await;
            made.expect("created");
            store.health().await.expect("healthy");
            assert_eq!(store.catalogue().platforms.len() as u64, number);
        }
    });
}

#[test]
fn servers_that_start_at_once_fill_the_catalogue_once() {
    on_postgres(async |fresh| {
        let file = CatalogueFile {
            platforms: vec![PlatformEntry {
                name: "AWS".to_owned(),
                services: Vec::new(),
            }],
            environments: vec![EnvironmentEntry {
                name: "development".to_owned(),
                acronym: "dev".to_owned(),
                context: String::new(),
                is_default: true,
                platforms: Default::default(),
                services: Default::default(),
            }],
        };
        let mut stores = vec![fresh.store.clone()];
        for _ in 0..3 {
            stores.push(fresh.open_beside().await);
        }
        let applied = join_all(
            stores
                .iter()
                .map(|store| store.apply_catalogue_if_empty(&file)),
        )
        .await;
        let done = applied
            .into_iter()
            .map(|applied| applied.expect("applied"))
            .filter(|changes| !changes.is_empty());
        assert_eq!(done.count(), 1);
        for store in &stores {
            eventually("all see it", async || {
                let catalogue = store.catalogue();
                catalogue.platforms.len() == 1 && catalogue.environments.len() == 1
            })
            .await;
        }
    });
}

#[test]
fn two_servers_that_each_make_a_default_environment_leave_one() {
    on_postgres(async |fresh| {
        let (store, other) = (&fresh.store, fresh.open_beside().await);
        for round in 0..5 {
            let draft = |name: &str| EnvironmentDraft {
                name: format!("{name} {round}"),
                acronym: "x".to_owned(),
                context: String::new(),
                is_default: true,
            };
            let (one, two) = tokio::join!(
                store.create_environment(draft("one")),
                other.create_environment(draft("two"))
            );
            one.expect("made");
            two.expect("made");
            let defaults = fresh.number("SELECT count(*) FROM environments WHERE is_default");
            assert_eq!(defaults.await, 1);
        }
    });
}

#[test]
fn a_migration_that_several_servers_run_is_run_once() {
    on_postgres(async |fresh| {
        let mut stores = vec![fresh.store.clone()];
        for _ in 0..3 {
            stores.push(fresh.open_beside().await);
        }
        let definition = simple("FileDataOutput");
        let plan = planned(&fresh.store, &definition).await;
        let answers = join_all(
            stores
                .iter()
                .map(|store| store.migrate(&definition, &plan, "test")),
        )
        .await;
        let done = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(done, 1, "{answers:?}");
        for answer in answers.into_iter().filter(Result::is_err) {
            assert_eq!(answer, Err(StoreError::HeadMoved), "it is done already");
        }
        for store in &stores {
            assert!(planned(store, &definition).await.pending.is_empty());
            store
                .record_definition(&definition, Applying::default())
                .await
                .expect("it is recorded");
        }
        // A definition without a table is recorded by all of them at once.
        let tile = crate::fixtures::definition("TileDataOutput", json!([]), vec![]);
        let answers = join_all(
            stores
                .iter()
                .map(|store| store.record_definition(&tile, Applying::default())),
        )
        .await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        let applied = fresh.store.applied_definitions().await.expect("read");
        assert_eq!(applied["TileDataOutput"].revision, 1);
    });
}

/// The second version of the plugin, with one more column.
fn second() -> patchbay_plugin::definition::Definition {
    let fields = json!([
        {"type": "string", "name": "path", "required": true},
        {"type": "integer", "name": "days", "default": 7},
    ]);
    definition("FileDataOutput", fields, vec![])
}

#[test]
fn a_migration_waits_for_writes_and_says_who_is_in_its_way() {
    on_postgres(async |fresh| {
        let store = &fresh.store;
        let table = install(store, &simple("FileDataOutput")).await;
        let owner = product(store, "sales").await;
        // A write of another program, which has checked the head and is not done.
        let writer = fresh.client().await;
        writer
            .batch_execute("BEGIN; SELECT head FROM applied_definitions FOR SHARE")
            .await
            .expect("a write");
        let named = StoreSettings {
            server_name: Some("the first".to_owned()),
            ..fresh.beside()
        };
        let first = Store::open(named).await.expect("a store");
        let hasty = StoreSettings {
            busy_timeout: Duration::from_millis(100),
            ..fresh.beside()
        };
        let hasty = Store::open(hasty).await.expect("a store");
        let plan = planned(store, &second()).await;
        let error = hasty.migrate(&second(), &plan, "test").await;
        assert_eq!(error, Err(StoreError::Locked));

        let migrating = {
            let (first, plan) = (first.clone(), plan.clone());
            tokio::spawn(async move { first.migrate(&second(), &plan, "test").await })
        };
        let waiting = "SELECT count(*) FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name = 'patchbay the first' AND wait_event_type = 'Lock'";
        eventually("the first waits", async || fresh.number(waiting).await == 1).await;
        let error = hasty.migrate(&second(), &plan, "test").await;
        let Err(StoreError::LockedBy { what, holder }) = &error else {
            panic!("{error:?}")
        };
        assert_eq!(what, "the plugin FileDataOutput is being migrated");
        assert!(holder.contains("patchbay the first"), "{holder}");

        writer.batch_execute("COMMIT").await.expect("done");
        migrating.await.expect("a task").expect("migrated");
        let late = draft(owner.id, "late", json!({"path": "x"}));
        assert_eq!(
            store.create_configuration(&table, late, "ann").await,
            Err(StoreError::HeadMoved)
        );
    });
}

#[test]
fn a_migration_whose_server_dies_leaves_nothing() {
    on_postgres(async |fresh| {
        let store = &fresh.store;
        install(store, &simple("FileDataOutput")).await;
        let before = fresh.shape().await;
        // It hangs at its last statement, with everything done but the definition.
        let holder = fresh.client().await;
        holder
            .batch_execute("BEGIN; LOCK TABLE plugin_migrations IN EXCLUSIVE MODE")
            .await
            .expect("a lock");
        let plan = planned(store, &second()).await;
        let dying = fresh.open_beside().await;
        let task = tokio::spawn({
            let plan = plan.clone();
            async move { dying.migrate(&second(), &plan, "test").await }
        });
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted \
             AND relation = 'plugin_migrations'::regclass";
        eventually("it hangs", async || fresh.number(waiting).await == 1).await;
        let killed = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE NOT granted \
             AND relation = 'plugin_migrations'::regclass";
        // As often as it comes back.
        eventually("it gives up", async || {
            fresh.number(killed).await;
            task.is_finished()
        })
        .await;
        let error = task.await.expect("a task").expect_err("it was killed");
        assert!(error.is_unavailable(), "{error:?}");
        holder.batch_execute("COMMIT").await.expect("let go");
        assert_eq!(fresh.shape().await, before);
        store
            .migrate(&second(), &plan, "test")
            .await
            .expect("another server does it");
    });
}

#[test]
fn a_core_schema_that_another_server_changes_is_waited_for() {
    on_postgres(async |fresh| {
        let url = patchbay_test_cluster::Cluster::shared().database().await;
        let mut holder = url.parse::<tokio_postgres::Config>().expect("a URL");
        holder.application_name("patchbay the first");
        let (holder, connection) = holder
            .connect(tokio_postgres::NoTls)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        // What a server holds while it brings the schema up to date.
        holder
            .batch_execute("SELECT pg_advisory_lock(x'50617463'::integer, 1)")
            .await
            .expect("a lock");
        let settings = StoreSettings {
            url: patchbay_store::DatabaseUrl::parse(&url).expect("a URL"),
            start_timeout: Duration::from_millis(200),
            ..fresh.beside()
        };
        let error = Store::open(settings.clone()).await.err().expect("refused");
        let words = error.to_string();
        assert!(
            words.contains("by patchbay the first (from 127.0.0.1"),
            "{words}"
        );
        let patient = StoreSettings {
            start_timeout: Duration::from_secs(30),
            ..settings
        };
        let opening = tokio::spawn(Store::open(patient));
        drop(holder);
        let store = opening.await.expect("a task").expect("it has waited");
        store.health().await.expect("healthy");
    });
}

#[test]
fn a_newer_core_schema_is_read_and_not_written() {
    on_postgres(async |fresh| {
        let store = &fresh.store;
        product(store, "sales").await;
        fresh
            .run("INSERT INTO refinery_schema_history VALUES (9999, 'later', '2026-01-01T00:00:00Z', '1'); NOTIFY patchbay, 'schema'")
            .await;
        let newer =
            |error: &StoreError| matches!(error, StoreError::NewerSchema { found: 9999, .. });
        eventually("it is noticed", async || {
            let written = store.create_platform("AWS".to_owned()).await;
            written.as_ref().is_err_and(newer)
        })
        .await;
        assert!(store.health().await.is_err_and(|error| newer(&error)));
        let products = store.data_products(10, None).await.expect("it is read");
        assert_eq!(products.items.len(), 1);
        let error = Store::open(fresh.beside()).await.err().expect("refused");
        assert!(newer(&error), "{error:?}");
        let words = error.to_string();
        assert!(
            words.contains("postgres://127.0.0.1") && words.contains("9999"),
            "{words}"
        );
    });
}

#[test]
fn changes_of_one_configuration_by_several_servers_are_all_kept() {
    on_postgres(async |fresh| {
        let (store, other) = (&fresh.store, fresh.open_beside().await);
        let table = install(store, &simple("FileDataOutput")).await;
        let owner = product(store, "sales").await;
        let made = store
            .create_configuration(&table, draft(owner.id, "a", json!({"path": "x"})), "ann")
            .await
            .expect("created");
        let change = |number: usize, expected: Option<i64>| {
            let store = [store, &other][number % 2];
            let draft = draft(
                owner.id,
                "a",
                json!({"path": format!("{expected:?} {number}")}),
            );
            store.update_configuration(&table, made.id, expected, draft, "bob")
        };
        let answers = join_all((0..10).map(|number| change(number, Some(1)))).await;
        let changed = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(changed, 1, "one had the right revision: {answers:?}");
        for error in answers.into_iter().filter_map(Result::err) {
            assert_eq!(error, StoreError::Stale { current: 2 });
        }
        for answer in join_all((0..10).map(|number| change(number, None))).await {
            answer.expect("changed");
        }
        let revisions = store.revisions(made.id).await.expect("a history");
        let numbers: Vec<i64> = revisions.iter().map(|one| one.revision).collect();
        assert_eq!(numbers, (1..=12).collect::<Vec<i64>>());
        // Each says what it found.
        for pair in revisions.windows(2) {
            let (from, to) = (
                &pair[1].changes["configuration.path"]["from"],
                &pair[0].changes["configuration.path"]["to"],
            );
            assert_eq!(from, to);
        }
    });
}

#[test]
fn a_write_that_is_given_up_for_anothers_sake_is_run_again() {
    on_postgres(async |fresh| {
        let store = &fresh.store;
        let table = install(store, &simple("FileDataOutput")).await;
        let owner = product(store, "sales").await;
        let made = store
            .create_configuration(&table, draft(owner.id, "a", json!({"path": "x"})), "ann")
            .await
            .expect("created");
        // Another program, which is the more patient, takes the same locks the other way round.
        let other = fresh.client().await;
        other
            .batch_execute(
                "BEGIN; SET LOCAL deadlock_timeout = '30s'; LOCK TABLE configuration_revisions IN EXCLUSIVE MODE",
            )
            .await
            .expect("a lock");
        let changing = {
            let (store, table) = (store.clone(), table.clone());
            let draft = draft(owner.id, "a", json!({"path": "y"}));
            tokio::spawn(async move {
                store
                    .update_configuration(&table, made.id, Some(1), draft, "bob")
                    .await
            })
        };
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted \
             AND relation = 'configuration_revisions'::regclass";
        eventually("the write waits", async || fresh.number(waiting).await == 1).await;
        other
            .batch_execute("SELECT id FROM data_output_configurations FOR UPDATE; COMMIT")
            .await
            .expect("the other wins");
        let changed = changing.await.expect("a task").expect("changed");
        assert_eq!(changed.revision, 2);
        let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        eventually("there was a deadlock", async || {
            fresh.number(deadlocks).await == 1
        })
        .await;
    });
}

#[test]
fn a_name_is_given_once() {
    on_postgres(async |fresh| {
        let (store, other) = (&fresh.store, fresh.open_beside().await);
        let table = install(store, &simple("FileDataOutput")).await;
        let owner = product(store, "sales").await;
        let answers = join_all((0..12).map(|number| {
            let store = if number % 2 == 0 { store } else { &other };
            let draft = draft(owner.id, "same", json!({"path": "x"}));
            store.create_configuration(&table, draft, "ann")
        }))
        .await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        for error in answers.into_iter().filter_map(Result::err) {
            assert!(
                matches!(
                    &error,
                    StoreError::Duplicate {
                        what: What::Configuration,
                        ..
                    }
                ),
                "{error:?}"
            );
        }
    });
}

#[test]
fn what_is_deleted_while_it_is_used_for_the_first_time_is_either() {
    on_postgres(async |fresh: Fresh| {
        let (store, other) = (&fresh.store, fresh.open_beside().await);
        let table = install(store, &simple("FileDataOutput")).await;
        let (mut kept, mut gone) = (0, 0);
        for round in 0..30 {
            let owner = product(store, &format!("p{round}")).await;
            let platform = store
                .create_platform(format!("p{round}"))
                .await
                .expect("a platform");
            let mut draft = draft(owner.id, "a", json!({"path": "x"}));
            draft.platform_id = Some(platform.id);
            let (made, deleted, without) = tokio::join!(
                store.create_configuration(&table, draft, "ann"),
                other.delete_data_product(owner.id),
                other.delete_platform(platform.id),
            );
            match made {
                Ok(_) => {
                    kept += 1;
                    let in_use = |what: &str| {
                        Err(StoreError::Conflict(format!(
                            "{what} is referred to by 1 configuration"
                        )))
                    };
                    assert_eq!(deleted, in_use("Data product"));
                    assert_eq!(without, in_use("Platform"));
                }
                Err(StoreError::NotFound(What::DataProduct | What::Platform)) => {
                    gone += 1;
                    assert!(deleted.is_ok() || without.is_ok());
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(kept + gone, 30);
    });
}

#[test]
fn statements_that_were_prepared_before_a_table_changed_are_made_anew() {
    on_postgres(async |fresh| {
        let (store, other) = (&fresh.store, fresh.open_beside().await);
        let fields = |kind: &str| json!([{"type": kind, "name": "path"}]);
        let first = definition("FileDataOutput", fields("string"), vec![]);
        let table = install(store, &first).await;
        let owner = product(store, "sales").await;
        store
            .create_configuration(&table, draft(owner.id, "a", json!({"path": "12"})), "ann")
            .await
            .expect("created");
        // Several connections of both prepare what reads and writes the table.
        for server in [store, &other] {
            let reads = (0..6).map(|_| async {
                let query = ConfigurationQuery {
                    limit: 10,
                    ..ConfigurationQuery::default()
                };
                server.configurations(query).await
            });
            for page in join_all(reads).await {
                assert_eq!(page.expect("a page").items[0].values["path"], json!("12"));
            }
            let found = server.plugin_rows(&table, None, map(json!({"path": "12"})), 5);
            assert_eq!(found.await.expect("rows").len(), 1);
        }
        let alter = Operation::AlterColumn {
            table: TableName::parse("file_data_output_configurations").expect("a name"),
            column: Column {
                name: "path".to_owned(),
                kind: ColumnType::Integer,
                nullable: true,
                default: None,
                primary_key: false,
                references: None,
            },
        };
        let second = definition(
            "FileDataOutput",
            fields("integer"),
            vec![
                store.history(&first.name).await.expect("a history")[0]
                    .migration
                    .clone(),
                migration("0002_number", vec![alter]),
            ],
        );
        let table = install(store, &second).await;
        for server in [&other, store] {
            for number in 0..8 {
                let name = format!("{number} {}", uuid::Uuid::new_v4());
                let made = server
                    .create_configuration(&table, draft(owner.id, &name, json!({"path": 3})), "ann")
                    .await
                    .expect("created");
                assert_eq!(server.configuration(made.id).await, Ok(Some(made)));
                let found = server.plugin_rows(&table, None, map(json!({"path": 12})), 5);
                assert_eq!(found.await.expect("rows").len(), 1);
            }
        }
    });
}

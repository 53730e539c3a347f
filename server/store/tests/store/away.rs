//! A Postgres that is unreachable, slow, full, held, stopped or killed: a clear error, no acknowledged write lost, and
//! work again when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use patchbay_store::{DatabaseUrl, Store, StoreError, StoreSettings};
use patchbay_test_cluster::{Cluster, GUARDED_PASSWORD, Proxy};
use serde_json::json;
use uuid::Uuid;

use crate::fixtures::{
    Fresh, draft, eventually, install, on_own_cluster, on_postgres, product, simple,
};

/// The settings of one who does not wait long.
fn hasty(fresh: &Fresh) -> StoreSettings {
    StoreSettings {
        busy_timeout: Duration::from_millis(100),
        start_timeout: Duration::from_millis(300),
        connect_timeout: Duration::from_secs(1),
        ..fresh.beside()
    }
}

/// Why a database of this URL is not opened.
async fn refused(fresh: &Fresh, url: &str) -> String {
    let settings = StoreSettings {
        url: DatabaseUrl::parse(url).expect("a URL"),
        ..hasty(fresh)
    };
    let error = Store::open(settings).await.err().expect("refused");
    assert!(matches!(error, StoreError::CannotOpen(_)), "{error:?}");
    error.to_string()
}

#[test]
fn what_cannot_be_opened_is_refused_with_the_reason() {
    on_postgres(async |fresh| {
        let cluster = Cluster::shared();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = closed.local_addr().expect("an address").port();
        // Somebody who takes connections and says nothing.
        let silent = refused(&fresh, &format!("postgres://me:hush@127.0.0.1:{port}/db")).await;
        assert!(silent.contains("no answer within 1 s"), "{silent}");
        drop(closed);
        let unreachable = refused(&fresh, &format!("postgres://me:hush@127.0.0.1:{port}/db")).await;
        assert!(unreachable.contains("refused"), "{unreachable}");
        assert!(
            unreachable.contains("check that Postgres runs there"),
            "{unreachable}"
        );

        let wrong = cluster.guarded(&fresh.url(), "hush").await;
        let wrong = refused(&fresh, &wrong).await;
        assert!(
            wrong.contains("28P01") && wrong.contains("check the user and the password"),
            "{wrong}"
        );
        let right = StoreSettings {
            url: DatabaseUrl::parse(&cluster.guarded(&fresh.url(), GUARDED_PASSWORD).await)
                .expect("a URL"),
            ..fresh.beside()
        };
        // It gets in, and is told what it may not do there.
        let error = Store::open(right).await.err().expect("no rights");
        assert!(error.to_string().contains("permission denied"), "{error}");

        let latin = fresh.client().await;
        latin
            .batch_execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
            .await
            .expect("a database");
        let latin = refused(&fresh, &cluster.url("latin")).await;
        assert!(
            latin.contains("create it with the encoding UTF8"),
            "{latin}"
        );
        let missing = refused(&fresh, &cluster.url("nowhere")).await;
        assert!(missing.contains("create the database first"), "{missing}");
        let plain = refused(&fresh, &format!("{}?sslmode=require", fresh.url())).await;
        assert!(
            plain.contains("TLS") && plain.contains("sslmode"),
            "{plain}"
        );
        for message in [silent, unreachable, wrong, missing, plain] {
            assert!(
                message.contains("postgres://127.0.0.1") && !message.contains("hush"),
                "{message}"
            );
        }
    });
}

#[test]
fn a_server_waits_at_its_start_for_a_database_that_comes() {
    on_own_cluster(async |fresh, cluster| {
        fresh.store.close().await;
        cluster.stop();
        let opening = tokio::spawn(Store::open(fresh.beside()));
        let starting = tokio::task::spawn_blocking(move || cluster.run());
        let store = opening.await.expect("a task").expect("a store");
        store.health().await.expect("healthy");
        starting.await.expect("a task");
    });
}

#[test]
fn who_asks_needs_no_sockets_of_its_own() {
    on_postgres(async |fresh| {
        // A connection has to be made anew while a thread waits that has none of what that needs, as a Lua thread does
        // whose hook reads rows.
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()";
        fresh.run(others).await;
        let store = fresh.store.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let reads = (0..8).map(|_| store.data_product(Uuid::nil()));
                let writes = (0..8).map(|number| store.create_platform(format!("p{number}")));
                (join_all(reads).await, join_all(writes).await)
            })
        });
        let (read, written) = asked.await.expect("a thread");
        for found in read {
            assert!(
                matches!(found, Ok(None) | Err(StoreError::NotFound(_))),
                "{found:?}"
            );
        }
        for platform in written {
            platform.expect("written");
        }
    });
}

#[test]
fn what_somebody_holds_is_said_to_be_locked_and_reading_goes_on() {
    on_postgres(async |fresh| {
        let store = Store::open(hasty(&fresh)).await.expect("a store");
        let owner = product(&store, "sales").await;
        let holder = fresh.client().await;
        holder
            .batch_execute("BEGIN; LOCK TABLE platforms IN EXCLUSIVE MODE")
            .await
            .expect("a lock");
        let writes = join_all((0..20).map(|number| store.create_platform(format!("p{number}"))));
        let reads = async {
            let mut read = Vec::new();
            for _ in 0..20 {
                let products = store.data_products(10, None).await;
                read.push(products.map(|page| page.items.len()));
            }
            read
        };
        let (writes, reads) = tokio::join!(writes, reads);
        assert!(writes.contains(&Err(StoreError::Busy)), "{writes:?}");
        for write in writes {
            let error = write.expect_err("it is held");
            assert!(
                matches!(
                    error,
                    StoreError::Locked | StoreError::LockedBy { .. } | StoreError::Busy
                ),
                "{error:?}"
            );
            assert!(error.is_unavailable());
        }
        assert!(reads.into_iter().all(|read| read == Ok(1)));
        holder.batch_execute("COMMIT").await.expect("let go");
        store
            .create_platform("AWS".to_owned())
            .await
            .expect("written");
        assert!(store.data_product(owner.id).await.expect("read").is_some());
    });
}

#[test]
fn a_server_hears_of_others_though_all_its_connections_are_busy() {
    on_postgres(async |fresh| {
        let settings = StoreSettings {
            pool: 2,
            busy_timeout: Duration::from_millis(500),
            ..fresh.beside()
        };
        let busy = Store::open(settings).await.expect("a store");
        let holder = fresh.client().await;
        holder
            .batch_execute("BEGIN; LOCK TABLE data_products IN ACCESS EXCLUSIVE MODE")
            .await
            .expect("a lock");
        let stop = AtomicBool::new(false);
        // Twice as many as there are connections, again and again.
        let crowd = join_all((0..4).map(|_| async {
            while !stop.load(Ordering::Relaxed) {
                let error = busy.data_products(10, None).await.expect_err("it is held");
                assert!(error.is_unavailable(), "{error:?}");
            }
        }));
        let heard = async {
            for number in 0..5 {
                let name = format!("p{number}");
                fresh.store.create_platform(name).await.expect("written");
                eventually("it is heard", async || {
                    busy.catalogue().platforms.len() == number + 1
                })
                .await;
            }
            stop.store(true, Ordering::Relaxed);
        };
        tokio::join!(crowd, heard);
        holder.batch_execute("COMMIT").await.expect("let go");
        busy.health().await.expect("healthy");
    });
}

#[test]
fn a_statement_that_takes_too_long_is_cancelled() {
    on_postgres(async |fresh| {
        let settings = StoreSettings {
            statement_timeout: Duration::from_millis(200),
            busy_timeout: Duration::from_secs(30),
            ..fresh.beside()
        };
        let store = Store::open(settings).await.expect("a store");
        let holder = fresh.client().await;
        holder
            .batch_execute("BEGIN; LOCK TABLE data_products IN EXCLUSIVE MODE")
            .await
            .expect("a lock");
        let draft = patchbay_store::DataProductDraft {
            name: "Sales".to_owned(),
            namespace: "sales".to_owned(),
            domain: "sales".to_owned(),
        };
        let error = store.create_data_product(None, draft.clone()).await;
        let error = error.expect_err("it takes too long");
        assert!(
            error.is_unavailable() && error.detail().contains("statement timeout"),
            "{error:?}"
        );
        assert_eq!(error.to_string(), "the database is away");
        holder.batch_execute("COMMIT").await.expect("let go");
        store
            .create_data_product(None, draft)
            .await
            .expect("written");
    });
}

#[test]
fn a_database_that_only_reads_says_so() {
    on_postgres(async |fresh| {
        let name = fresh.text("SELECT current_database()::text").await;
        fresh
            .run(&format!(
                "ALTER DATABASE {name} SET default_transaction_read_only = on"
            ))
            .await;
        let store = fresh.open_beside().await;
        assert_eq!(
            store.create_platform("AWS".to_owned()).await,
            Err(StoreError::ReadOnly)
        );
        assert_eq!(store.health().await, Err(StoreError::ReadOnly));
        store.catalogue_out().await.expect("reading goes on");
    });
}

#[test]
fn a_full_disk_is_said_to_be_full() {
    on_postgres(async |fresh| {
        // What Postgres raises when it cannot make a file longer, at the place where it would.
        fresh
            .run(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'could not extend file \"/secret/path\"'; END $$; \
                 CREATE TRIGGER full_disk BEFORE INSERT ON platforms EXECUTE FUNCTION full_disk()",
            )
            .await;
        let error = fresh.store.create_platform("AWS".to_owned()).await;
        assert_eq!(error, Err(StoreError::Full));
    });
}

#[test]
fn a_server_without_connections_left_says_what_to_do() {
    on_own_cluster(async |fresh, cluster| {
        fresh.store.close().await;
        cluster.configure("max_connections = 8\nsuperuser_reserved_connections = 0");
        cluster.restart();
        let store = fresh.open_beside().await;
        store.health().await.expect("healthy");
        let mut crowd = Vec::new();
        while crowd.len() < 20 {
            let url = cluster.url("postgres");
            match tokio_postgres::connect(&url, tokio_postgres::NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    crowd.push(client);
                }
                Err(_) => break,
            }
        }
        // More at once than the connections that it has.
        let answers = join_all((0..16).map(|_| store.data_products(10, None))).await;
        let error = answers
            .into_iter()
            .find_map(Result::err)
            .expect("none left");
        assert!(
            error.detail().contains("raise its max_connections"),
            "{error:?}"
        );
        drop(crowd);
        eventually("it works again", async || store.health().await.is_ok()).await;
    });
}

#[test]
fn what_was_missed_while_nothing_was_heard_is_made_up_for() {
    on_postgres(async |fresh| {
        let (store, other) = (&fresh.store, fresh.open_beside().await);
        let mut changes = store.changes();
        let (rows, version) = (store.row_counter("Any"), store.catalogue_version());
        changes.mark_unchanged();
        let listeners = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = current_database() AND (query LIKE 'LISTEN%' OR query = '')";
        // While the listener is away somebody writes without telling anybody.
        let quiet = fresh.client().await;
        quiet
            .batch_execute(
                "BEGIN; INSERT INTO platforms VALUES ('00000000-0000-7000-8000-000000000001', 'quiet')",
            )
            .await
            .expect("a row");
        eventually("a listener is killed", async || {
            fresh.number(listeners).await;
            store.health().await.is_err()
        })
        .await;
        quiet.batch_execute("COMMIT").await.expect("written");
        eventually("it is healthy", async || store.health().await.is_ok()).await;
        let catalogue = store.catalogue();
        assert_eq!(
            catalogue.platforms.len(),
            1,
            "healthy, so nothing is missing"
        );
        assert!(catalogue.version > version && store.row_counter("Any") > rows);
        assert!(changes.has_changed().expect("an open store"));
        eventually("the other too", async || other.health().await.is_ok()).await;
        other
            .create_platform("AWS".to_owned())
            .await
            .expect("written");
        eventually("it hears again", async || {
            store.catalogue().platforms.len() == 2
        })
        .await;
    });
}

/// Creates configurations from several callers until told to stop. Gives the names that were acknowledged.
async fn keep_writing(
    store: &Store,
    table: &patchbay_store::PluginTable,
    owner: Uuid,
    stop: &Arc<AtomicBool>,
    written: &Arc<AtomicUsize>,
) -> Vec<(Uuid, String)> {
    let callers = (0..6).map(|caller| {
        let (store, table) = (store.clone(), table.clone());
        let (stop, written) = (Arc::clone(stop), Arc::clone(written));
        tokio::spawn(async move {
            let mut kept = Vec::new();
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let name = format!("{caller} {number}");
                let draft = draft(owner, &name, json!({"path": name}));
                match store.create_configuration(&table, draft, "ann").await {
                    Ok(made) => {
                        written.fetch_add(1, Ordering::Relaxed);
                        kept.push((made.id, name));
                    }
                    Err(error) => {
                        assert!(error.is_unavailable(), "{error:?}");
                        tokio::task::yield_now().await;
                    }
                }
            }
            kept
        })
    });
    let mut kept = Vec::new();
    for caller in join_all(callers).await {
        kept.extend(caller.expect("a caller"));
    }
    kept
}

/// Every acknowledged write is there, and every write is whole.
async fn check_kept(fresh: &Fresh, store: &Store, kept: &[(Uuid, String)]) {
    for (id, name) in kept {
        let found = store.configuration(*id).await.expect("read");
        let found = found.unwrap_or_else(|| panic!("{name} is lost"));
        assert_eq!((&found.name, &found.values["path"]), (name, &json!(name)));
    }
    let halves = "SELECT count(*) FROM data_output_configurations base \
         FULL JOIN file_data_output_configurations own ON own.id = base.id \
         FULL JOIN configuration_revisions told ON told.configuration_id = base.id \
         WHERE base.id IS NULL OR own.id IS NULL OR told.configuration_id IS NULL";
    assert_eq!(fresh.number(halves).await, 0);
}

#[test]
fn no_acknowledged_write_is_lost_when_connections_are_killed() {
    on_postgres(async |fresh| {
        let store = &fresh.store;
        let table = install(store, &simple("FileDataOutput")).await;
        let owner = product(store, "sales").await;
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let killing = async {
            for _ in 0..40 {
                let before = written.load(Ordering::Relaxed);
                eventually("something is written", async || {
                    written.load(Ordering::Relaxed) > before + 3
                })
                .await;
                Cluster::shared().kill_backends(&fresh.url()).await;
            }
            stop.store(true, Ordering::Relaxed);
        };
        let (kept, ()) = tokio::join!(
            keep_writing(store, &table, owner.id, &stop, &written),
            killing
        );
        eventually("it is healthy", async || store.health().await.is_ok()).await;
        check_kept(&fresh, store, &kept).await;
        assert!(kept.len() > 100);
    });
}

#[test]
fn no_acknowledged_write_is_lost_when_the_server_is_killed() {
    on_own_cluster(async |fresh, cluster| {
        let store = &fresh.store;
        // Postgres itself must keep what it has acknowledged.
        cluster.configure("synchronous_commit = on");
        cluster.reload();
        let table = install(store, &simple("FileDataOutput")).await;
        let owner = product(store, "sales").await;
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let killing = async {
            for round in 0..4 {
                let before = written.load(Ordering::Relaxed);
                eventually("something is written", async || {
                    written.load(Ordering::Relaxed) > before + 20
                })
                .await;
                let cluster = Arc::clone(&cluster);
                let restart = tokio::task::spawn_blocking(move || {
                    match round % 2 {
                        0 => cluster.stop(),
                        _ => cluster.stop_politely(),
                    }
                    cluster.run();
                });
                restart.await.expect("a restart");
                let back = Instant::now();
                eventually("it is healthy", async || store.health().await.is_ok()).await;
                assert!(
                    back.elapsed() < Duration::from_secs(5),
                    "{:?}",
                    back.elapsed()
                );
            }
            stop.store(true, Ordering::Relaxed);
        };
        let (kept, ()) = tokio::join!(
            keep_writing(store, &table, owner.id, &stop, &written),
            killing
        );
        check_kept(&fresh, store, &kept).await;
        assert!(kept.len() > 80);
    });
}

#[test]
fn a_database_that_hangs_is_away_and_comes_back() {
    on_own_cluster(async |fresh, cluster| {
        let settings = StoreSettings {
            statement_timeout: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(1),
            ..fresh.beside()
        };
        let store = Store::open(settings).await.expect("a store");
        let owner = product(&store, "sales").await;
        store.data_product(owner.id).await.expect("kept in memory");
        cluster.pause();
        let error = store.create_platform("AWS".to_owned()).await;
        let error = error.expect_err("nobody answers");
        assert!(matches!(error, StoreError::Away(_)), "{error:?}");
        eventually("it is noticed", async || store.health().await.is_err()).await;
        // What is in memory is still served.
        let kept = store.data_product(owner.id).await.expect("kept");
        assert_eq!(kept.map(|kept| kept.id), Some(owner.id));
        cluster.resume();
        let back = Instant::now();
        eventually("it is healthy", async || store.health().await.is_ok()).await;
        assert!(
            back.elapsed() < Duration::from_secs(5),
            "{:?}",
            back.elapsed()
        );
        store
            .create_platform("Azure".to_owned())
            .await
            .expect("written");
    });
}

#[test]
fn a_commit_whose_answer_is_lost_is_no_success_and_is_seen_all_the_same() {
    on_postgres(async |fresh| {
        let cluster = Cluster::shared();
        let proxy = Proxy::before(cluster.port()).await;
        let settings = StoreSettings {
            url: DatabaseUrl::parse(&proxy.url(&fresh.url(), cluster.port())).expect("a URL"),
            ..fresh.beside()
        };
        let store = Store::open(settings).await.expect("a store");
        let table = install(&store, &simple("FileDataOutput")).await;
        let owner = product(&store, "sales").await;
        for round in 0..5 {
            let (rows, name) = (store.row_counter("FileDataOutput"), format!("p{round}"));
            proxy.cut_after("pg_notify");
            let error = store.create_platform(name.clone()).await;
            let error = error.expect_err("the answer is lost");
            assert!(
                error.is_unavailable() && error.detail().contains("may or may not have happened"),
                "{error:?}"
            );
            eventually("the platform is seen", async || {
                let catalogue = store.catalogue();
                catalogue.platforms.iter().any(|one| one.name == name)
            })
            .await;
            proxy.cut_after("pg_notify");
            let lost = draft(owner.id, &name, json!({"path": "x"}));
            let error = store.create_configuration(&table, lost, "ann").await;
            assert!(error.expect_err("the answer is lost").is_unavailable());
            eventually("the row is counted", async || {
                store.row_counter("FileDataOutput") > rows
            })
            .await;
        }
        // What is lost before its commit is run again on another connection.
        proxy.cut_after("run again");
        let again = draft(owner.id, "run again", json!({"path": "x"}));
        let again = store.create_configuration(&table, again, "ann").await;
        let again = again.expect("created");
        assert_eq!(store.revisions(again.id).await.expect("read").len(), 1);
    });
}

#[test]
fn a_wire_that_falls_silent_is_noticed_and_nothing_is_missed_after_it() {
    on_postgres(async |fresh| {
        let cluster = Cluster::shared();
        let proxy = Proxy::before(cluster.port()).await;
        let settings = StoreSettings {
            url: DatabaseUrl::parse(&proxy.url(&fresh.url(), cluster.port())).expect("a URL"),
            statement_timeout: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(1),
            ..fresh.beside()
        };
        let store = Store::open(settings).await.expect("a store");
        proxy.silence();
        // Somebody else writes on, and this server does not hear it.
        let made = fresh.store.create_platform("AWS".to_owned()).await;
        made.expect("written");
        let error = store.data_products(10, None).await;
        assert!(matches!(error, Err(StoreError::Away(_))), "{error:?}");
        eventually("it is noticed", async || store.health().await.is_err()).await;
        assert!(store.catalogue().platforms.is_empty());
        proxy.cut();
        proxy.heal();
        let back = Instant::now();
        eventually("it is healthy", async || store.health().await.is_ok()).await;
        assert!(
            back.elapsed() < Duration::from_secs(5),
            "{:?}",
            back.elapsed()
        );
        assert_eq!(store.catalogue().platforms.len(), 1);
    });
}

#[test]
fn a_caller_who_goes_away_leaves_no_transaction_behind() {
    on_postgres(async |fresh| {
        let settings = StoreSettings {
            pool: 2,
            ..fresh.beside()
        };
        let store = Store::open(settings).await.expect("a store");
        for number in 0..30 {
            // Dropped when it has been polled once.
            let call = store.create_platform(format!("p{number}"));
            let _gone = futures_util::FutureExt::now_or_never(call);
        }
        let open = "SELECT count(*) FROM pg_stat_activity \
             WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
        eventually("all were finished", async || {
            fresh.number("SELECT count(*) FROM platforms").await == 30
        })
        .await;
        eventually("none is left open", async || fresh.number(open).await == 0).await;
        store.health().await.expect("healthy");
    });
}

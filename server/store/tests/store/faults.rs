//! A database that is locked, full, read-only, gone, or none at all: a clear error, and nothing lost.

use std::fs;

use patchbay_store::{DatabaseUrl, Store, StoreError, StoreSettings};
use serde_json::json;

use crate::fixtures::{Fresh, draft, install, on_sqlite, product, simple};

#[test]
fn a_locked_database_is_said_to_be_locked_and_works_again_later() {
    on_sqlite(async |fresh| {
        let holder = fresh.raw();
        holder.execute_batch("BEGIN IMMEDIATE").expect("a lock");
        assert_eq!(
            fresh.store.create_platform("AWS".to_owned()).await,
            Err(StoreError::Locked)
        );
        assert_eq!(fresh.store.health().await, Err(StoreError::Locked));
        fresh.store.catalogue_out().await.expect("reading goes on");
        holder.execute_batch("COMMIT").expect("let go");
        fresh
            .store
            .create_platform("AWS".to_owned())
            .await
            .expect("written");
        fresh.store.health().await.expect("healthy");
    });
}

#[test]
fn a_full_database_refuses_writes_and_keeps_what_it_has() {
    on_sqlite(async |fresh| {
        let table = install(&fresh.store, &simple("FileDataOutput")).await;
        let owner = product(&fresh.store, "sales").await;
        fresh.store.close().await;
        let pages: u32 = fresh
            .raw()
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .expect("a count");
        let small = StoreSettings {
            page_limit: Some(pages + 1),
            ..fresh.settings.clone()
        };
        let store = Store::open(small).await.expect("a store");
        let with =
            |name: &str, length: usize| draft(owner.id, name, json!({"path": "x".repeat(length)}));
        let kept = store
            .create_configuration(&table, with("small", 1), "ann")
            .await
            .expect("it fits");
        let error = store
            .create_configuration(&table, with("large", 100_000), "ann")
            .await
            .expect_err("it does not fit");
        assert_eq!(error, StoreError::Full);
        assert!(error.is_unavailable());
        assert_eq!(store.configuration(kept.id).await, Ok(Some(kept.clone())));
        let again = store
            .update_configuration(&table, kept.id, None, with("small", 2), "ann")
            .await
            .expect("what fits is still written");
        assert_eq!(again.revision, 2);
    });
}

#[cfg(unix)]
#[test]
fn a_file_that_was_replaced_or_deleted_takes_no_more_writes() {
    on_sqlite(async |fresh| {
        let store = &fresh.store;
        let (path, aside) = (fresh.path(), fresh.aside("aside.db"));
        fs::rename(&path, &aside).expect("moved away");
        assert_eq!(
            store.create_platform("AWS".to_owned()).await,
            Err(StoreError::Missing)
        );
        assert_eq!(store.health().await, Err(StoreError::Missing));
        fs::copy(&aside, &path).expect("another file of that name");
        assert_eq!(
            store.create_platform("AWS".to_owned()).await,
            Err(StoreError::Missing)
        );
        assert_eq!(store.catalogue_out().await, Err(StoreError::Missing));
        fs::rename(&aside, &path).expect("moved back");
        store
            .create_platform("AWS".to_owned())
            .await
            .expect("it is the file again");
        store.health().await.expect("healthy");
    });
}

async fn refused(fresh: &Fresh, path: std::path::PathBuf) -> String {
    let settings = StoreSettings {
        url: DatabaseUrl::Sqlite(path.clone()),
        ..fresh.beside()
    };
    let error = Store::open(settings).await.err().expect("refused");
    assert!(matches!(error, StoreError::CannotOpen(_)), "{error:?}");
    let message = error.to_string();
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    assert!(message.contains(name), "{message}");
    message
}

#[test]
fn what_is_no_database_is_refused_with_the_reason() {
    on_sqlite(async |fresh| {
        let folder = fresh.aside("folder");
        fs::create_dir(&folder).expect("a folder");
        let message = refused(&fresh, folder).await;
        assert!(message.contains("it is a folder"), "{message}");

        let text = fresh.aside("notes.txt");
        fs::write(
            &text,
            "this is not a database, and long enough to be sure of it\n".repeat(20),
        )
        .expect("a file");
        let message = refused(&fresh, text.clone()).await;
        assert!(message.contains("a file of another kind"), "{message}");
        let unchanged = fs::read_to_string(&text).expect("a file");
        assert!(unchanged.starts_with("this is not"), "it is left as it is");

        let message = refused(&fresh, text.join("below.db")).await;
        assert!(message.contains("cannot create the folder"), "{message}");
    });
}

/// Root may write anything, so as root the test runs itself as nobody.
#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_written_is_refused_with_the_reason() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;

    const NOBODY: u32 = 65_534;
    let folder = tempfile::tempdir().expect("a folder");
    if fs::metadata(folder.path()).expect("metadata").uid() == 0 {
        // A copy, because nobody may not see the one in the build folder.
        let own = folder.path().join("test");
        fs::copy(std::env::current_exe().expect("a path"), &own).expect("a copy");
        for path in [folder.path(), &own] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
        }
        let output = std::process::Command::new(own)
            .args([
                "--exact",
                "faults::a_file_that_cannot_be_written_is_refused_with_the_reason",
            ])
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    }
    on_sqlite(async |fresh| {
        fresh.store.close().await;
        let (file, folder) = (fresh.path(), fresh.aside("data"));
        let allow = |path: &std::path::Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
        };
        allow(&file, 0o444);
        let message = refused(&fresh, file.clone()).await;
        assert!(message.contains("cannot be written"), "{message}");
        allow(&file, 0o644);
        allow(&folder, 0o555);
        let message = refused(&fresh, file.clone()).await;
        assert!(
            message.contains("this user cannot") || message.contains("cannot be written"),
            "{message}"
        );
        let message = refused(&fresh, folder.join("new.db")).await;
        assert!(
            message.contains("cannot open or create the file"),
            "{message}"
        );
        allow(&folder, 0o755);
        Store::open(fresh.settings.clone())
            .await
            .expect("it opens again");
    });
}

#[test]
fn a_damaged_database_is_away_and_hurts_only_what_it_must() {
    on_sqlite(async |fresh| {
        let table = install(&fresh.store, &simple("FileDataOutput")).await;
        let owner = product(&fresh.store, "sales").await;
        fresh.store.close().await;
        let mut bytes = fs::read(fresh.path()).expect("the file");
        for byte in &mut bytes[4096..] {
            *byte = 0x5a;
        }
        fs::write(fresh.path(), bytes).expect("damage");
        let opened = Store::open(fresh.settings.clone()).await;
        let error = match opened {
            Err(error) => error,
            Ok(store) => store
                .create_configuration(&table, draft(owner.id, "a", json!({"path": "x"})), "ann")
                .await
                .expect_err("damaged"),
        };
        assert!(
            matches!(error, StoreError::CannotOpen(_) | StoreError::Away(_)),
            "{error:?}"
        );
        if let StoreError::Away(_) = &error {
            assert_eq!(error.to_string(), "the database is away");
        }
    });
}

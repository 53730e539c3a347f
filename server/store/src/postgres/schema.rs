//! The core schema: which version the database has, and how it gets the one that we know. One server brings it up to
//! date; the others wait for it.

use std::path::PathBuf;

use tokio_postgres::Client;

use super::fault::words;
use super::session::{HOLDER, LOCKS, SCHEMA_LOCK, named};
use super::target::Target;
use crate::error::StoreError;
use crate::settings::StoreSettings;

mod embedded {
    refinery::embed_migrations!("../../migrations/postgres");
}

/// Runs the core migrations that the database lacks, in one transaction. A database of a newer Patchbay is refused.
pub(super) async fn bring_up_to_date(
    target: &Target,
    settings: &StoreSettings,
) -> Result<(), StoreError> {
    let mut client = target.connect_patiently(settings.start_timeout).await?;
    let cannot = |error: tokio_postgres::Error| {
        StoreError::CannotOpen(format!(
            "cannot bring the core schema of the database {} up to date: {}",
            target.shown,
            words(&error)
        ))
    };
    if !is_behind(target, &client).await? {
        return Ok(());
    }
    let patience = settings.start_timeout.as_millis();
    client
        .batch_execute(&format!(
            "SET lock_timeout = {patience}; SET statement_timeout = 0"
        ))
        .await
        .map_err(cannot)?;
    let taken = client
        .query("SELECT pg_advisory_lock($1, $2)", &[&LOCKS, &SCHEMA_LOCK])
        .await;
    if let Err(error) = taken {
        if error.code() != Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE) {
            return Err(cannot(error));
        }
        let numbers: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
            [&i64::from(LOCKS), &i64::from(SCHEMA_LOCK)];
        let holder = client.query(HOLDER, &numbers).await.map_err(cannot)?;
        return Err(StoreError::CannotOpen(format!(
            "the core schema of the database {} is being brought up to date by {}, for longer than {} s; wait for it, or end it if it hangs",
            target.shown,
            named(&holder),
            settings.start_timeout.as_secs()
        )));
    }
    // Who held the lock before us may have done it.
    if !is_behind(target, &client).await? {
        return Ok(());
    }
    embedded::migrations::runner()
        .set_grouped(true)
        .run_async(&mut client)
        .await
        .map_err(|error| {
            StoreError::CannotOpen(format!(
                "cannot bring the core schema of the database {} up to date: {error}",
                target.shown
            ))
        })?;
    // The servers that run an older Patchbay stop writing.
    let told = format!("SELECT pg_notify('{}', 'schema')", super::listen::CHANNEL);
    client.batch_execute(&told).await.map_err(cannot)
    // The connection ends here, and the lock with it.
}

/// The newest version that we know.
fn known() -> i64 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(|migration| i64::from(migration.version()))
        .max()
        .unwrap_or(0)
}

async fn is_behind(target: &Target, client: &Client) -> Result<bool, StoreError> {
    let found = version(client).await.map_err(|error| {
        StoreError::CannotOpen(format!(
            "cannot read the core schema of the database {}: {}",
            target.shown,
            words(&error)
        ))
    })?;
    match newer(target, found) {
        Some(error) => Err(error),
        None => Ok(found < known()),
    }
}

/// The versions that the database has, and that we know. A newer one is refused.
pub(super) async fn versions(
    target: &Target,
    settings: &StoreSettings,
) -> Result<(i64, i64), StoreError> {
    let client = target.connect_patiently(settings.start_timeout).await?;
    let found = version(&client)
        .await
        .map_err(|error| StoreError::Away(words(&error)))?;
    match newer(target, found) {
        Some(error) => Err(error),
        None => Ok((found, known())),
    }
}

/// That a database is too new for us, if it is.
pub(super) fn newer(target: &Target, found: i64) -> Option<StoreError> {
    let known = known();
    (found > known).then(|| StoreError::NewerSchema {
        path: PathBuf::from(&target.shown),
        found,
        known,
    })
}

/// The version of the core schema in the database; 0 for a new one.
pub(super) async fn version(client: &Client) -> Result<i64, tokio_postgres::Error> {
    let there = client
        .query_one(
            "SELECT to_regclass('refinery_schema_history') IS NOT NULL",
            &[],
        )
        .await?;
    if !there.get::<_, bool>(0) {
        return Ok(0);
    }
    let newest = client
        .query_one(
            "SELECT coalesce(max(version), 0)::bigint FROM refinery_schema_history",
            &[],
        )
        .await?;
    Ok(newest.get(0))
}

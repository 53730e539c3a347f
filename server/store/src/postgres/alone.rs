//! One connection for a copy, without a pool and without listening.

use super::engine::pool;
use super::schema;
use super::session::PostgresSession;
use super::target::{Target, away};
use crate::error::StoreError;
use crate::session::Session;
use crate::settings::StoreSettings;
use deadpool_postgres::PoolError;

/// Brings the core schema up to date.
pub(crate) async fn bring_up_to_date(
    url: &str,
    settings: &StoreSettings,
) -> Result<(), StoreError> {
    schema::bring_up_to_date(&Target::parse(url, settings)?, settings).await
}

/// The versions of the core schema that the database has, and that we know.
pub(crate) async fn versions(
    url: &str,
    settings: &StoreSettings,
) -> Result<(i64, i64), StoreError> {
    schema::versions(&Target::parse(url, settings)?, settings).await
}

/// Opens the connection. It ends when the session is dropped, and its locks with it.
pub(crate) async fn open_alone(url: &str, settings: &StoreSettings) -> Result<Session, StoreError> {
    let target = Target::parse(url, settings)?;
    let cannot = |why: String| {
        StoreError::CannotOpen(format!("cannot open the database {}: {why}", target.shown))
    };
    let pool = pool(&target, settings, 1).map_err(cannot)?;
    let client = pool.get().await.map_err(|error| match error {
        PoolError::Backend(error) => cannot(away(&error).detail()),
        other => cannot(other.to_string()),
    })?;
    let session = PostgresSession::new(client, settings.statement_timeout, false);
    Ok(Session::Postgres(session))
}

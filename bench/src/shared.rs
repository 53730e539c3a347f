//! What the measurements on Postgres have in common: a cluster as Postgres comes, servers on it, and a configuration.

use std::path::Path;

use anyhow::{Context, Result};
use patchbay_test_cluster::{Cluster, Durability};
use tokio::runtime::Runtime;

use crate::Plan;
use crate::server::Running;

/// A cluster with every commit on the disk.
pub(crate) fn cluster() -> Cluster {
    Cluster::start(Durability::Full)
}

/// A server on a database of Postgres, in a folder of its own.
pub(crate) fn serve(plan: &Plan, folder: &Path, url: &str) -> Result<Running> {
    std::fs::create_dir_all(folder)?;
    plan.program
        .serve(folder, &[("PATCHBAY_DATABASE_URL", url)])
}

/// Runs statements on a database of Postgres.
pub(crate) fn execute(runtime: &Runtime, url: &str, sql: &str) -> Result<()> {
    runtime.block_on(async {
        let client = patchbay_test_cluster::connect(url).await;
        client.batch_execute(sql).await.context("the statements")
    })
}

/// The texts in the first column of what a statement answers.
pub(crate) fn texts(runtime: &Runtime, url: &str, sql: &str) -> Result<Vec<String>> {
    runtime.block_on(async {
        let client = patchbay_test_cluster::connect(url).await;
        let rows = client.query(sql, &[]).await.context("a statement")?;
        let texts = rows.iter().map(|row| row.try_get(0));
        texts.collect::<Result<_, _>>().context("texts")
    })
}

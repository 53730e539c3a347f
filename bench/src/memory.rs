//! Resident memory of a server that has nothing to do.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;

use crate::Plan;
use crate::report::Report;
use crate::wire::{Connection, get};

const TARGET_MIB: f64 = 25.0;
/// Longer than an idle plugin's memory is kept by default.
const IDLE: Duration = Duration::from_secs(35);

pub(crate) fn run(plan: &Plan, runtime: &Runtime, report: &mut Report) -> Result<()> {
    eprintln!("memory (takes {} s)", IDLE.as_secs());
    let folder = tempfile::tempdir()?;
    let server = plan.program.serve(folder.path(), &[])?;
    let started = server.memory()?;
    runtime.block_on(async {
        let mut connection = Connection::open(server.address).await?;
        let list = connection.json(&get("/api/v2/plugins/")).await?;
        for plugin in list["plugins"].as_array().context("no list of plugins")? {
            let name = plugin["plugin"].as_str().context("no name")?;
            connection
                .json(&get(&format!("/api/v2/plugins/{name}/form")))
                .await?;
        }
        anyhow::Ok(())
    })?;
    let asked = server.memory()?;
    std::thread::sleep(IDLE);
    let idle = server.memory()?;
    for (what, measured) in [
        ("resident memory, started", started),
        ("resident memory, each form asked for once", asked),
        ("resident memory, then idle", idle),
    ] {
        report.at_most(what, measured, TARGET_MIB, "MiB");
    }
    server.stop()
}

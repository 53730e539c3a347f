//! Resident memory of a server that has nothing to do.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;

use crate::report::Report;
use crate::wire::{Connection, get};
use crate::{Plan, samples};

const TARGET_MIB: f64 = 25.0;
/// Longer than an idle plugin's memory is kept by default.
const IDLE: Duration = Duration::from_secs(35);

/// How many plugins are installed, and what each may add when nothing happens.
const INSTALLED: usize = 1_000;
const TARGET_KIB: f64 = 40.0;
/// How many plugins are on by default.
const DEFAULT: usize = 4;

/// What 1,000 plugins that are installed add to a server, once their memory was given back.
pub(crate) fn installed(
    plan: &Plan,
    runtime: &Runtime,
    count: usize,
    report: &mut Report,
) -> Result<()> {
    eprintln!(
        "memory of {count} installed plugins (takes {} s)",
        2 * IDLE.as_secs()
    );
    let weigh = |installed: usize| {
        let folder = tempfile::tempdir()?;
        samples::install(&plan.program, folder.path(), installed)?;
        let server = plan.program.serve(folder.path(), &[])?;
        let plugins = runtime.block_on(async {
            let mut connection = Connection::open(server.address).await?;
            let list = connection.json(&get("/api/v2/plugins/")).await?;
            anyhow::Ok(list["plugins"].as_array().map_or(0, Vec::len))
        })?;
        ensure!(
            plugins == installed + DEFAULT,
            "it answers with {plugins} plugins instead of {}",
            installed + DEFAULT
        );
        std::thread::sleep(IDLE);
        let weight = server.memory()?;
        server.stop()?;
        anyhow::Ok(weight)
    };
    let (none, all) = (weigh(0)?, weigh(count)?);
    report.at_most(
        format!("what one of {count} installed plugins adds when idle"),
        (all - none) * 1024.0 / count as f64,
        TARGET_KIB,
        "KiB",
    );
    Ok(())
}

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
    server.stop()?;
    installed(plan, runtime, INSTALLED, report)
}

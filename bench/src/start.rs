//! From starting the program to its first answer with the plugins.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;

use crate::report::{Report, median, millis};
use crate::wire::{Connection, get};
use crate::{Plan, samples};

const MANY: usize = 1_000;
/// How many plugins are on by default.
const DEFAULT: usize = 4;

/// One way to start.
#[derive(Debug)]
struct Case {
    what: &'static str,
    generated: usize,
    /// Whether they are installed as packages, rather than lying in the plugin path.
    installed: bool,
    /// Whether the database is there already.
    existing: bool,
    runs: usize,
    target_ms: f64,
}

const CASES: &[Case] = &[
    Case {
        what: "start to first answer, existing database",
        generated: 0,
        installed: false,
        existing: true,
        runs: 15,
        target_ms: 100.0,
    },
    Case {
        what: "start to first answer, new database",
        generated: 0,
        installed: false,
        existing: false,
        runs: 9,
        target_ms: 300.0,
    },
    Case {
        what: "start with 1,000 plugins more, existing database",
        generated: MANY,
        installed: false,
        existing: true,
        runs: 5,
        target_ms: 2_000.0,
    },
    Case {
        what: "start with 1,000 plugins more, new database",
        generated: MANY,
        installed: false,
        existing: false,
        runs: 3,
        target_ms: 2_000.0,
    },
    Case {
        what: "start with 1,000 plugins installed, existing database",
        generated: MANY,
        installed: true,
        existing: true,
        runs: 5,
        target_ms: 2_000.0,
    },
    Case {
        what: "start with 1,000 plugins installed, new database",
        generated: MANY,
        installed: true,
        existing: false,
        runs: 3,
        target_ms: 2_000.0,
    },
];

pub(crate) fn run(plan: &Plan, runtime: &Runtime, report: &mut Report) -> Result<()> {
    eprintln!("start");
    for case in CASES {
        let mut times = Vec::with_capacity(case.runs);
        let kept = folder(plan, case)?;
        if case.existing {
            start(plan, runtime, kept.path(), case)?;
        }
        for _ in 0..case.runs {
            let time = if case.existing {
                start(plan, runtime, kept.path(), case)?
            } else {
                start(plan, runtime, folder(plan, case)?.path(), case)?
            };
            times.push(millis(time));
        }
        report.at_most(case.what, median(times), case.target_ms, "ms");
    }
    Ok(())
}

fn folder(plan: &Plan, case: &Case) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    if case.installed {
        samples::install(&plan.program, folder.path(), case.generated)?;
    } else if case.generated > 0 {
        samples::write(&folder.path().join("lua-plugins"), case.generated)?;
    }
    Ok(folder)
}

/// Starts the server, and stops it once it has answered with all plugins.
fn start(plan: &Plan, runtime: &Runtime, folder: &Path, case: &Case) -> Result<Duration> {
    let began = Instant::now();
    let server = plan.program.serve(folder, &[])?;
    let (took, plugins) = runtime.block_on(async {
        let mut connection = Connection::open(server.address).await?;
        let list = connection.json(&get("/api/v2/plugins/")).await;
        let took = began.elapsed();
        let list = list?;
        let plugins = list["plugins"].as_array().context("no list of plugins")?;
        anyhow::Ok((took, plugins.len()))
    })?;
    ensure!(
        plugins == case.generated + DEFAULT,
        "it answers with {plugins} plugins instead of {}",
        case.generated + DEFAULT
    );
    server.stop()?;
    Ok(took)
}

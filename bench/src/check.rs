//! How long `patchbay plugin check` takes for one plugin, from the start of the program to its end.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::Plan;
use crate::report::{Report, median, millis};

/// The plugins that are checked: one with modules and migrations, and the one with the longest form.
const PLUGINS: &[&str] = &["snowflake", "iceberg"];
/// How often each is checked.
const RUNS: usize = 25;
const TARGET_MS: f64 = 50.0;

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    eprintln!("check");
    let plugins = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../lua-plugins"));
    let folder = tempfile::tempdir()?;
    for plugin in PLUGINS {
        let path = plugins.join(plugin).display().to_string();
        let mut times = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            let began = Instant::now();
            let (succeeded, said) =
                plan.program
                    .run(folder.path(), &["plugin", "check", &path], &[])?;
            times.push(millis(began.elapsed()));
            ensure!(
                succeeded && said.contains("0 failed"),
                "{plugin} is not right: {said}"
            );
        }
        report.at_most(format!("check of {plugin}"), median(times), TARGET_MS, "ms");
    }
    ensure!(
        std::fs::read_dir(folder.path())?.next().is_none(),
        "a check leaves nothing behind"
    );
    Ok(())
}

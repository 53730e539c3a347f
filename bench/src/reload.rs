//! From saving a plugin, one of many, to the first answer that shows it, while forms are asked for.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::runtime::Runtime;

use crate::load::{Requests, Until, closed_loop};
use crate::report::{Report, millis, percentile};
use crate::wire::{Connection, get};
use crate::{Plan, samples};

const PLUGINS: usize = 200;
const CHANGES: usize = 200;
const CONNECTIONS: usize = 8;
/// Past this a change counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

const TARGET_P50_MS: f64 = 60.0;
const TARGET_P99_MS: f64 = 150.0;

/// How a file is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Save {
    /// Into the file itself, as `cp` and some editors do: for an instant it is empty.
    InPlace,
    /// Into another file that then takes its name, as most editors do.
    ByRename,
}

pub(crate) fn run(plan: &Plan, runtime: &Runtime, report: &mut Report) -> Result<()> {
    eprintln!("reload");
    let folder = tempfile::tempdir()?;
    let plugins = folder.path().join("lua-plugins");
    samples::write(&plugins, PLUGINS)?;
    let server = plan.program.serve(folder.path(), &[])?;
    let address = server.address;

    let calm = runtime.block_on(changes(address, &plugins, "calm", CHANGES / 2))?;

    let done = Rc::new(Cell::new(false));
    let (times, load) = runtime.block_on(async {
        let mut requests = |connection: usize| -> Requests {
            // Each connection asks for all forms, beginning somewhere else.
            let forms: Vec<Vec<u8>> = (0..PLUGINS)
                .map(|number| get(&samples::form_path(number)))
                .collect();
            let mut place = connection * PLUGINS / CONNECTIONS;
            Box::new(move |buffer| {
                buffer.extend_from_slice(&forms[place % PLUGINS]);
                place += 1;
            })
        };
        let until = Until::Told(Rc::clone(&done));
        let load = closed_loop(address, CONNECTIONS, until, 200, &mut requests);
        let changing = async {
            let times = changes(address, &plugins, "loaded", CHANGES).await;
            done.set(true);
            times
        };
        tokio::join!(changing, load)
    });
    let (times, load) = (times?, load?);

    let all = sorted(&times, |_| true);
    report.at_most(
        format!("save to served, among {PLUGINS} plugins, under load, p50"),
        millis(percentile(&all, 50.0)),
        TARGET_P50_MS,
        "ms",
    );
    report.at_most(
        "save to served, under load, p99",
        millis(percentile(&all, 99.0)),
        TARGET_P99_MS,
        "ms",
    );
    report.none("requests that failed meanwhile", load.failed);
    if let Some(failure) = load.failure {
        report.note("  the first of them", failure);
    }
    for (what, save) in [("in place", Save::InPlace), ("by rename", Save::ByRename)] {
        let times = sorted(&times, |kind| kind == save);
        report.note(format!("  saved {what}, under load"), summary(&times));
    }
    report.note("  without load", summary(&sorted(&calm, |_| true)));
    report.note(
        format!("  the load: {CONNECTIONS} connections"),
        format!(
            "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
            load.rate,
            millis(load.p50),
            millis(load.p99)
        ),
    );
    server.stop()
}

/// Saves plugins, one after the other, and gives how long each took to be served. The clock starts before the first
/// byte is written.
async fn changes(
    address: SocketAddr,
    plugins: &Path,
    word: &str,
    count: usize,
) -> Result<Vec<(Save, Duration)>> {
    let mut connection = Connection::open(address).await?;
    let mut times = Vec::with_capacity(count);
    for change in 0..count {
        let number = change * 7 % PLUGINS;
        let label = format!("Name, {word} {change}");
        let text = samples::text(number, &label);
        let shown = format!("\"label\":\"{label}\"");
        let file = plugins.join(samples::file_name(number));
        let request = get(&samples::form_path(number));
        let save = if change % 2 == 0 {
            Save::InPlace
        } else {
            Save::ByRename
        };
        let began = Instant::now();
        match save {
            Save::InPlace => std::fs::write(&file, text)?,
            Save::ByRename => {
                let aside = file.with_extension("lua.new");
                std::fs::write(&aside, text)?;
                std::fs::rename(&aside, &file)?;
            }
        }
        loop {
            let answer = connection.exchange(&request).await?;
            let then = began.elapsed();
            ensure!(answer.status == 200, "a form answered {}", answer.status);
            if contains(answer.body, shown.as_bytes()) {
                times.push((save, then));
                break;
            }
            ensure!(
                then < PATIENCE,
                "a change of {} was never served",
                file.display()
            );
        }
        // Pauses of different lengths, so that no rhythm forms with the one in which the server looks for changes.
        tokio::time::sleep(Duration::from_millis(10 + change as u64 * 13 % 60)).await;
    }
    Ok(times)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn sorted(times: &[(Save, Duration)], wanted: impl Fn(Save) -> bool) -> Vec<Duration> {
    let mut times: Vec<Duration> = times
        .iter()
        .filter(|(save, _)| wanted(*save))
        .map(|(_, time)| *time)
        .collect();
    times.sort_unstable();
    times
}

fn summary(times: &[Duration]) -> String {
    format!(
        "p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        millis(percentile(times, 50.0)),
        millis(percentile(times, 99.0)),
        millis(percentile(times, 100.0))
    )
}

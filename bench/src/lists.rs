//! Kept answers, warm, against a bare axum handler that returns the same bytes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;

use crate::load::{Outcome, Until, closed_loop, wrk};
use crate::report::{Report, median, millis};
use crate::server::Running;
use crate::wire::{Connection, get};
use crate::{Generator, Plan, bare};

const CONNECTIONS: usize = 32;

/// What is asked for, and the least ratio.
const PATHS: &[(&str, &str)] = &[
    ("GET /plugins/", "/api/v2/plugins/"),
    (
        "GET /plugins/{plugin}/form",
        "/api/v2/plugins/SnowflakeDataOutput/form",
    ),
];
const TARGET: f64 = 0.8;

pub(crate) fn run(plan: &Plan, runtime: &Runtime, report: &mut Report) -> Result<()> {
    eprintln!("lists");
    let folder = tempfile::tempdir()?;
    let server = plan.program.serve(folder.path(), &[])?;
    for (what, path) in PATHS {
        let body = runtime.block_on(async {
            let mut connection = Connection::open(server.address).await?;
            let answer = connection.exchange(&get(path)).await?;
            ensure!(answer.status == 200, "{path} answered {}", answer.status);
            let kind = answer.header("content-type").context("no content-type")?;
            ensure!(kind == "application/json", "{path} is {kind}");
            Ok(answer.body.to_vec())
        })?;
        let file = folder.path().join("body.json");
        std::fs::write(&file, &body)?;
        let bare = bare::start(&file)?;
        let measure = |address| measure_get(plan, runtime, address, path);
        // Not counted: the first answers fill caches and wake threads.
        measure(bare.address)?;
        measure(server.address)?;
        let before = (server.processor_time(), bare.processor_time());
        let mut ratios = Vec::new();
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for round in 0..plan.rounds {
            // Each round begins with the other side, so that a drift of the machine favours neither.
            let (our, their) = if round % 2 == 0 {
                let our = measure(server.address)?;
                (our, measure(bare.address)?)
            } else {
                let their = measure(bare.address)?;
                (measure(server.address)?, their)
            };
            ratios.push(our.rate / their.rate);
            ours.push(our);
            theirs.push(their);
        }
        report.ratio(
            format!("{what} against a bare axum handler"),
            median(ratios),
            TARGET,
        );
        report.note(format!("{what}, {} bytes", body.len()), summary(&ours));
        report.note("  bare axum handler", summary(&theirs));
        if let (Some(our), Some(their)) = (
            each(&server, before.0, &ours),
            each(&bare, before.1, &theirs),
        ) {
            report.note(
                "  processor time of one request, and of a bare one",
                format!("{our:.1} µs, {their:.1} µs"),
            );
        }
        report.note(
            "  resident memory after it",
            format!("{:.1} MiB", server.memory()?),
        );
    }
    server.stop()
}

/// Loads a server with GETs of one path.
pub(crate) fn measure_get(
    plan: &Plan,
    runtime: &Runtime,
    address: SocketAddr,
    path: &str,
) -> Result<Outcome> {
    let outcome = match plan.with {
        Generator::Own => {
            let request = get(path);
            runtime.block_on(closed_loop(
                address,
                CONNECTIONS,
                Until::Over(plan.slice),
                200,
                &mut |_| {
                    let request = request.clone();
                    Box::new(move |buffer| buffer.extend_from_slice(&request))
                },
            ))?
        }
        Generator::Wrk => wrk(address, CONNECTIONS, plan.slice, path)?,
    };
    ensure!(
        outcome.failed == 0,
        "{} requests failed, the first with {}",
        outcome.failed,
        outcome.failure.unwrap_or_default()
    );
    Ok(outcome)
}

/// The processor time of one request, in microseconds; the machine's other work hardly shows in it.
fn each(server: &Running, before: Option<Duration>, outcomes: &[Outcome]) -> Option<f64> {
    let took = server.processor_time()?.checked_sub(before?)?;
    let requests: u64 = outcomes.iter().map(|outcome| outcome.answered).sum();
    Some(took.as_secs_f64() * 1e6 / requests as f64)
}

/// Rate and latencies, each the median of the rounds.
fn summary(outcomes: &[Outcome]) -> String {
    let of = |what: fn(&Outcome) -> f64| median(outcomes.iter().map(what).collect());
    format!(
        "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
        of(|outcome| outcome.rate),
        of(|outcome| millis(outcome.p50)),
        of(|outcome| millis(outcome.p99))
    )
}

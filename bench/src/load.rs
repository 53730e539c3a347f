//! The load generator: a number of connections, each of which sends its next request as soon as it has its answer.

use std::cell::Cell;
use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::Barrier;
use tokio::task::LocalSet;

use crate::report::percentile;
use crate::wire::Connection;

/// What a load was answered with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// Answers with the wanted status.
    pub(crate) answered: u64,
    /// The same a second.
    pub(crate) rate: f64,
    /// The time that half of the answers took at most.
    pub(crate) p50: Duration,
    /// The time that 99 of 100 answers took at most.
    pub(crate) p99: Duration,
    /// Requests that got another status, or no answer.
    pub(crate) failed: u64,
    /// What the first failure was.
    pub(crate) failure: Option<String>,
}

/// How long a load goes on.
#[derive(Debug, Clone)]
pub(crate) enum Until {
    /// For a time.
    Over(Duration),
    /// Until it is told to stop.
    Told(Rc<Cell<bool>>),
}

impl Until {
    fn is_over(&self, since: Duration) -> bool {
        match self {
            Until::Over(time) => since >= *time,
            Until::Told(told) => told.get(),
        }
    }
}

/// The requests of one connection: writes the next one into an empty buffer.
pub(crate) type Requests = Box<dyn FnMut(&mut Vec<u8>)>;

/// Loads a server. `requests` is called once for each connection. `wanted` is the status of a good answer.
///
/// # Errors
/// When it cannot connect; what fails later is counted.
pub(crate) async fn closed_loop(
    address: SocketAddr,
    connections: usize,
    until: Until,
    wanted: u16,
    requests: &mut dyn FnMut(usize) -> Requests,
) -> Result<Outcome> {
    let local = LocalSet::new();
    // All begin together, once all are connected.
    let start = Rc::new(Barrier::new(connections));
    let mut tasks = Vec::new();
    for number in 0..connections {
        let mut connection = Connection::open(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        let mut next = requests(number);
        let start = Rc::clone(&start);
        let until = until.clone();
        tasks.push(local.spawn_local(async move {
            let mut request = Vec::new();
            let mut latencies = Vec::new();
            let mut failures = Vec::new();
            start.wait().await;
            let began = Instant::now();
            let mut now = began;
            while !until.is_over(now - began) {
                request.clear();
                next(&mut request);
                let failure = match connection.exchange(&request).await {
                    Ok(answer) if answer.status == wanted => None,
                    Ok(answer) => Some(format!(
                        "{} {}",
                        answer.status,
                        String::from_utf8_lossy(answer.body)
                    )),
                    Err(error) => Some(error.to_string()),
                };
                let then = Instant::now();
                match failure {
                    None => latencies.push(then - now),
                    Some(failure) => {
                        failures.push(failure);
                        // The old connection may be broken; without a new one there is nothing left to measure.
                        match Connection::open(address).await {
                            Ok(new) => connection = new,
                            Err(_) => break,
                        }
                    }
                }
                now = then;
            }
            (latencies, failures, began.elapsed())
        }));
    }
    let mut latencies = Vec::new();
    let mut failures = Vec::new();
    let mut took = Duration::ZERO;
    local
        .run_until(async {
            for task in tasks {
                let (more, failed, time) = task.await?;
                latencies.extend(more);
                failures.extend(failed);
                took = took.max(time);
            }
            anyhow::Ok(())
        })
        .await?;
    latencies.sort_unstable();
    Ok(Outcome {
        answered: latencies.len() as u64,
        rate: latencies.len() as f64 / took.as_secs_f64(),
        p50: percentile(&latencies, 50.0),
        p99: percentile(&latencies, 99.0),
        failed: failures.len() as u64,
        failure: failures.into_iter().next(),
    })
}

/// The same for GETs of one path, by `wrk`.
///
/// # Errors
/// When `wrk` is not there, or what it prints cannot be read.
pub(crate) fn wrk(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    path: &str,
) -> Result<Outcome> {
    let output = Command::new("wrk")
        .args(["-t1", "--latency"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{}s", time.as_secs()))
        .arg(format!("http://{address}{path}"))
        .output()
        .context("cannot run wrk")?;
    ensure!(output.status.success(), "wrk failed");
    let text = String::from_utf8_lossy(&output.stdout);
    let after = |word: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(word))
            .map(str::trim)
    };
    if let Some(errors) = after("Non-2xx or 3xx responses:").or_else(|| after("Socket errors:")) {
        bail!("wrk met errors: {errors}");
    }
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .context("wrk printed no number of requests")?;
    let found = |word: &str| after(word).with_context(|| format!("wrk printed no {word}"));
    Ok(Outcome {
        answered: requests.0.parse()?,
        rate: found("Requests/sec:")?.parse()?,
        p50: duration(found("50%")?)?,
        p99: duration(found("99%")?)?,
        failed: 0,
        failure: None,
    })
}

/// A duration as `wrk` writes it.
fn duration(text: &str) -> Result<Duration> {
    let digits = text
        .find(|letter: char| letter.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => bail!("no duration: {text}"),
    };
    Ok(Duration::from_secs_f64(number.parse::<f64>()? * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_wrk_are_read() {
        assert_eq!(
            duration("612.00us").expect("it is one"),
            Duration::from_micros(612)
        );
        assert_eq!(
            duration("1.25ms").expect("it is one"),
            Duration::from_micros(1250)
        );
        assert!(duration("soon").is_err());
    }
}

//! `cargo run --release -p bench -- NAME`: measures the whole server, the real program over real sockets, and prints each
//! figure beside its target.
//!
//! | module | holds |
//! |---|---|
//! | [`lists`], [`reload`], [`start`], [`memory`], [`create`], [`check`] | one group of figures each |
//! | [`postgres`], [`pages`], [`cluster`] | the same, on a Postgres that is started for it |
//! | [`rows`] | how fast the rows of a plugin are checked before its next version takes its place |
//! | [`shared`] | what those have in common |
//! | [`load`] | the closed-loop load generator, and `wrk` in its place |
//! | [`wire`] | one keep-alive connection that speaks just enough HTTP/1.1 |
//! | [`server`] | the programs under measurement: started in a folder of their own, stopped, weighed |
//! | [`bare`] | the baseline of `lists`: an axum handler that returns fixed bytes |
//! | [`samples`] | generated plugins |
//! | [`report`] | medians, percentiles and the table |
//!
//! A figure that is compared with a baseline is measured in turn with it, in the same run, several times over; what
//! counts is the median of the rounds' ratios, because a machine's noise moves both sides of one round. The load
//! generator shares the machine with what it measures, on both sides alike. A missed target is printed, and is no
//! failure: this program ends non-zero only when it could not measure.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it talks to a terminal, and has no log"
)]

mod bare;
mod check;
mod cluster;
mod create;
mod lists;
mod load;
mod memory;
mod pages;
mod postgres;
mod reload;
mod report;
mod rows;
mod samples;
mod server;
mod shared;
mod start;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::report::Report;
use crate::server::Program;

/// Measures the whole server against named baselines.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Command {
    #[command(subcommand)]
    name: Name,
    /// How many times both sides of a comparison are measured
    #[arg(long, global = true, default_value_t = 15)]
    rounds: usize,
    /// How long one side of one round is measured, in seconds
    #[arg(long, global = true, default_value_t = 1)]
    seconds: u64,
    /// Which load generator `lists` uses
    #[arg(long, global = true, value_enum, default_value_t = Generator::Own)]
    with: Generator,
    /// The program to measure; built from this repository when left out
    #[arg(long, global = true, value_name = "PATH")]
    server: Option<PathBuf>,
}

/// What makes the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Generator {
    /// The one in this program
    Own,
    /// `wrk`, which must be installed
    Wrk,
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
enum Name {
    /// All of them, one after the other
    All,
    /// Kept answers against a bare axum handler that returns the same bytes
    Lists,
    /// From saving a plugin, among 200, to its first new answer, under load
    Reload,
    /// From starting the program to its first answer
    Start,
    /// Resident memory of a server that has nothing to do
    Memory,
    /// Creating configurations against a plain loop of the same inserts
    Create,
    /// Checking one plugin on the command line, from the start of the program to its end
    Check,
    /// Creating configurations on Postgres against pgbench, and forms there against forms on SQLite
    Postgres,
    /// Pages of configurations among a million against a thousand, on both databases
    Pages,
    /// How soon three servers on one database show what one has written
    Cluster,
    /// How many stored rows a second are checked before another version of their plugin takes its place
    Rows,
    /// The baseline of `lists`: serves the bytes of a file until it is killed
    #[command(hide = true)]
    BareAxum {
        /// The file whose bytes are the answer
        body: PathBuf,
    },
}

/// What every measurement is told.
#[derive(Debug)]
struct Plan {
    program: Program,
    rounds: usize,
    slice: Duration,
    with: Generator,
}

fn main() -> Result<()> {
    let command = Command::parse();
    if let Name::BareAxum { body } = &command.name {
        return bare::run(body);
    }
    let plan = Plan {
        program: Program::find(command.server)?,
        rounds: command.rounds.max(1),
        slice: Duration::from_secs(command.seconds.max(1)),
        with: command.with,
    };
    // One thread makes the load, so that it takes no more than one core from what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut report = Report::default();
    let wanted = |name: Name| command.name == name || command.name == Name::All;
    if wanted(Name::Memory) {
        memory::run(&plan, &runtime, &mut report)?;
    }
    if wanted(Name::Start) {
        start::run(&plan, &runtime, &mut report)?;
    }
    if wanted(Name::Lists) {
        lists::run(&plan, &runtime, &mut report)?;
    }
    if wanted(Name::Reload) {
        reload::run(&plan, &runtime, &mut report)?;
    }
    if wanted(Name::Create) {
        create::run(&plan, &runtime, &mut report)?;
    }
    if wanted(Name::Check) {
        check::run(&plan, &mut report)?;
    }
    if wanted(Name::Postgres) {
        postgres::run(&plan, &runtime, &mut report)?;
    }
    if wanted(Name::Pages) {
        pages::run(&plan, &runtime, &mut report)?;
    }
    if wanted(Name::Cluster) {
        cluster::run(&plan, &runtime, &mut report)?;
    }
    if wanted(Name::Rows) {
        rows::run(&plan, &runtime, &mut report)?;
    }
    report.print();
    if command.name == Name::All {
        println!("\nHooks against the bare call: cargo bench -p patchbay-lua --bench hooks");
    }
    Ok(())
}

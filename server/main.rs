//! Patchbay, the program: one verb a file, and wiring only. What the verbs do is in the crates below.

mod cli;
mod embedded;
mod settings;
mod telemetry;
mod visible;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}

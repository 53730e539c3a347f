//! The verbs of the command line.

mod catalogue;
mod db;
mod diagnostics;
mod doctor;
mod health;
mod leftovers;
mod package;
mod plugin;
mod plugin_check;
mod plugin_dev;
mod plugin_migrate;
mod plugin_new;
mod plugin_test;
mod plugin_types;
mod serve;
mod who;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::settings::{Flags, Settings};
use crate::visible::{visible, visible_json};

#[cfg(test)]
pub(crate) use serve::http_settings;

/// Learns new kinds of data output from plugins written in Lua, and serves their forms and configurations over REST.
#[derive(Debug, Parser)]
#[command(name = "patchbay", version)]
struct Command {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// Flags that every verb takes.
#[derive(Debug, Args)]
struct Common {
    /// A settings file; what it does not set keeps its default
    #[arg(long, global = true, env = "PATCHBAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the database is, such as sqlite://data/patchbay.db
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// A folder of plugins, or of one plugin; may be repeated
    #[arg(long = "plugin-path", global = true, value_name = "PATH")]
    plugin_paths: Vec<PathBuf>,
    /// What is logged: error, warn, info, debug or trace
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve the REST API (the default)
    Serve(serve::Serve),
    /// Work with plugins and the packages that they ship in
    #[command(subcommand)]
    Plugin(plugin::Plugin),
    /// Work with the catalogue of platforms and environments
    #[command(subcommand)]
    Catalogue(catalogue::Catalogue),
    /// Work with whole databases
    #[command(subcommand)]
    Db(db::Db),
    /// Ask a running server whether it is healthy
    Health(health::Health),
    /// Say what is wrong with this installation, and what to do
    Doctor(doctor::Doctor),
    /// Print completions for a shell, as in `patchbay completions bash > /etc/bash_completion.d/patchbay`
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Common {
    fn settings(&self, listen: Option<String>, insecure: bool) -> anyhow::Result<Settings> {
        Settings::read(self.config.as_deref(), &self.flags(listen, insecure))
    }

    fn flags(&self, listen: Option<String>, insecure: bool) -> Flags {
        Flags {
            listen,
            database_url: self.database_url.clone(),
            plugin_paths: self.plugin_paths.clone(),
            insecure: insecure.then_some(true),
            log: self.log.clone(),
        }
    }
}

/// Runs the verb that the command line names.
pub(crate) fn run() -> ExitCode {
    let command = Command::parse();
    let verb = command
        .verb
        .unwrap_or_else(|| Verb::Serve(serve::Serve::default()));
    let result = match verb {
        Verb::Serve(verb) => verb.run(&command.common),
        Verb::Plugin(verb) => verb.run(&command.common),
        Verb::Catalogue(verb) => verb.run(&command.common),
        Verb::Db(verb) => verb.run(&command.common),
        Verb::Health(verb) => verb.run(&command.common),
        Verb::Doctor(verb) => verb.run(&command.common),
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Command::command(), "patchbay", &mut text);
            say(format_args!(
                "{}",
                String::from_utf8_lossy(&text).trim_end()
            ));
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

/// Says on standard error why nothing came of it.
#[expect(
    clippy::print_stderr,
    reason = "the command line speaks to the terminal"
)]
fn complain(error: &anyhow::Error) {
    eprintln!("patchbay: {}", visible(&format!("{error:#}"), LINES));
}

/// Prints one line on standard error that is no reason to fail.
fn warn(line: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let line = line.to_string();
    let _ = writeln!(
        std::io::stderr().lock(),
        "warning: {}",
        visible(&line, LINES)
    );
}

/// What ends a line or moves along it, and may be in what is printed.
const LINES: &[char] = &['\n', '\t'];

/// Prints one line on standard output, with nothing in it that a plugin's text would do to the terminal.
fn say(line: std::fmt::Arguments<'_>) {
    print(&visible(&line.to_string(), LINES));
}

/// Prints a text that goes into a file as it is: only on a terminal nothing in it acts.
fn say_text(text: &str) {
    match std::io::stdout().is_terminal() {
        true => print(&visible(text, LINES)),
        false => print(text),
    }
}

/// Prints a document.
fn say_json(document: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&visible_json(&serde_json::to_string_pretty(document)?));
    Ok(())
}

/// Prints on standard output. A closed pipe, as in `patchbay … | head`, is no error.
fn print(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Runs a future on a runtime of its own.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

//! `patchbay catalogue …`

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use patchbay_store::Store;

use super::{Common, block_on, say};
use crate::embedded;

/// Work with the catalogue of platforms and environments
#[derive(Debug, Subcommand)]
pub(super) enum Catalogue {
    /// Apply a catalogue file to the database, after showing the difference
    Apply {
        /// The file; the default catalogue when left out
        file: Option<PathBuf>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Show the difference only
        #[arg(long, conflicts_with = "yes")]
        dry_run: bool,
    },
}

impl Catalogue {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let Catalogue::Apply { file, yes, dry_run } = self;
        let settings = common.settings(None, false)?;
        let file = embedded::catalogue(file.as_deref())?;
        block_on(async {
            // A running server notices the write, so it need not be stopped.
            let store = Store::open(settings.store(false)?).await?;
            let changes = store.plan_catalogue(&file).await?;
            for change in &changes {
                say(format_args!("{change}"));
            }
            if changes.is_empty() {
                say(format_args!("nothing to change"));
            } else if !dry_run && (yes || confirmed(changes.len())?) {
                let applied = store.apply_catalogue(&file).await?;
                say(format_args!("{} changes applied", applied.len()));
            }
            store.close().await;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Asks on the terminal.
fn confirmed(changes: usize) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("not applied: say --yes to apply without being asked");
    }
    write!(std::io::stdout(), "Apply {changes} changes? [y/N] ")?;
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

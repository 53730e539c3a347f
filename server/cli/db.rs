//! `patchbay db …`

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use patchbay_store::{CopyEvent, DatabaseUrl, StoreSettings, copy};

use super::{Common, block_on, say};

/// How often a line says how far it is, where there is no terminal.
const EVERY: Duration = Duration::from_secs(5);

/// Work with whole databases
#[derive(Debug, Subcommand)]
pub(super) enum Db {
    /// Copy everything into an empty database, of the same kind or the other one
    ///
    /// The source is read as it is at one moment, and may be served meanwhile. A copy that was interrupted goes on when it
    /// is started again. At the end the rows of both are compared; until then no server opens the target.
    Copy {
        /// The database that is read, such as sqlite://data/patchbay.db
        #[arg(long, value_name = "URL")]
        from: String,
        /// The empty database that is written, such as postgres://user@host/patchbay
        #[arg(long, value_name = "URL")]
        to: String,
        /// How many rows are committed at once, at most
        #[arg(long, value_name = "ROWS", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..))]
        batch: u16,
    },
}

impl Db {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let Db::Copy { from, to, batch } = self;
        let settings = common.settings(None, false)?;
        let end = |flag: &'static str, url: &str| -> anyhow::Result<StoreSettings> {
            Ok(StoreSettings {
                url: DatabaseUrl::parse(url).context(flag)?,
                ..settings.store(false)?
            })
        };
        let (from, to) = (end("--from", &from)?, end("--to", &to)?);
        block_on(async {
            let mut shown = Shown::new();
            let copied = copy(from, to, usize::from(batch), move |event| shown.tell(event)).await?;
            let mut rows = 0;
            for (table, count, hash) in &copied.tables {
                say(format_args!("{table}: {count} rows, {hash}"));
                rows += count;
            }
            say(format_args!(
                "{rows} rows in {} tables are copied; counts and hashes agree",
                copied.tables.len()
            ));
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// How far it is: a bar on a terminal, else lines.
struct Shown {
    bar: Option<ProgressBar>,
    said: Instant,
}

impl Shown {
    fn new() -> Shown {
        let style = "{msg:32} {wide_bar} {pos}/{len} rows, {per_sec}, {eta}";
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            match ProgressStyle::with_template(style) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Shown {
            bar,
            said: Instant::now(),
        }
    }

    fn tell(&mut self, event: CopyEvent) {
        match (&self.bar, event) {
            (Some(bar), CopyEvent::Note(text)) => bar.println(text),
            (None, CopyEvent::Note(text)) => say(format_args!("{text}")),
            (Some(bar), CopyEvent::Table { table, .. }) => bar.set_message(table),
            (None, CopyEvent::Table { table, rows }) => {
                say(format_args!("copying {table}, {rows} rows"));
            }
            (
                Some(bar),
                CopyEvent::Rows {
                    checking,
                    done,
                    total,
                },
            ) => {
                bar.set_length(total);
                bar.set_position(done);
                if checking {
                    bar.set_message("comparing");
                }
                if checking && done == total {
                    bar.finish_and_clear();
                }
            }
            (
                None,
                CopyEvent::Rows {
                    checking,
                    done,
                    total,
                },
            ) => {
                if self.said.elapsed() >= EVERY {
                    self.said = Instant::now();
                    let what = if checking { "compared" } else { "copied" };
                    say(format_args!("{done} of {total} rows are {what}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{FromArgMatches, Subcommand};

    use super::*;

    #[test]
    fn a_batch_of_no_rows_is_refused() {
        let parse = |batch: &str| {
            let command = Db::augment_subcommands(clap::Command::new("db"));
            let words = ["db", "copy", "--from", "a", "--to", "b", "--batch", batch];
            command
                .try_get_matches_from(words)
                .and_then(|matches| Db::from_arg_matches(&matches))
        };
        assert!(parse("1").is_ok());
        let error = parse("0").expect_err("a refusal").to_string();
        assert!(error.contains("0 is not in 1.."), "{error}");
    }
}

//! The log: by tracing, to standard error or a file, pretty, as text or as JSON.

use std::io::{IsTerminal, Write};

use anyhow::{Context, bail};
use patchbay_plugin::name::nearest;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::settings::{LogFormat, Settings};
use crate::visible::visible;

/// The levels that a filter may name.
const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

/// Reads a filter: a level, or levels by part, as in `info,patchbay_store=debug`. A lone word that is no level would
/// silence everything but the part of that name, which nobody means.
fn filter(text: &str) -> anyhow::Result<EnvFilter> {
    let lone = text
        .split(',')
        .map(str::trim)
        .find(|part| !part.contains(['=', '[']) && !LEVELS.contains(&part.to_lowercase().as_str()));
    if let Some(word) = lone {
        let near = nearest(word, LEVELS.iter().copied());
        let meant = near
            .map(|near| format!(" (did you mean {near}?)"))
            .unwrap_or_default();
        bail!(
            "`log`: expected one of {}, found {word:?}{meant}",
            LEVELS.join(", ")
        );
    }
    // Two libraries tell of every step that they take; what matters of it we say ourselves.
    let quieted = [("refinery_core", "warn"), ("notify", "error")]
        .iter()
        .filter(|(part, _)| !text.contains(part))
        .fold(text.to_owned(), |text, (part, level)| {
            format!("{text},{part}={level}")
        });
    EnvFilter::try_new(quieted).with_context(|| format!("`log`: {text:?} is no filter"))
}

/// How many lines may wait for the thread that writes them. Room for each is taken at the start; enough for the lines about
/// a few thousand plugins.
const WAITING_LINES: usize = 8192;

/// Starts the log. What is logged is written by a thread of its own, until the guard is dropped.
///
/// # Errors
/// When the filter cannot be read or the file cannot be opened.
pub(crate) fn start(settings: &Settings) -> anyhow::Result<WorkerGuard> {
    let filter = filter(&settings.log)?;
    let (writer, guard, terminal) = match &settings.log_file {
        Some(path) => {
            if let Some(folder) = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty())
            {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("the log file {}", path.display()))?;
            }
            let file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("the log file {}", path.display()))?;
            let (writer, guard) = background(file);
            (writer, guard, false)
        }
        None => {
            let (writer, guard) = background(std::io::stderr());
            (writer, guard, std::io::stderr().is_terminal())
        }
    };
    let one_line = match settings.log_format {
        LogFormat::Text => true,
        LogFormat::Auto => !terminal,
        LogFormat::Json | LogFormat::Pretty => false,
    };
    let writer = match one_line {
        true => BoxMakeWriter::new(move || OneLine(writer.clone())),
        false => BoxMakeWriter::new(writer),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(terminal);
    match settings.log_format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Pretty => builder.pretty().init(),
        LogFormat::Auto if terminal => builder.pretty().init(),
        LogFormat::Auto | LogFormat::Text => builder.init(),
    }
    Ok(guard)
}

/// A writer that hands its lines to a thread of its own.
fn background(to: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES)
        .finish(to)
}

/// Writes each event as one line: a newline or escape that came with a request or a plugin's text is written as it would
/// be in a string, so that nobody writes lines of the log but the server. So is what would make a line read otherwise.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let (line, end) = match event.strip_suffix(b"\n") {
            Some(line) => (line, "\n"),
            None => (event, ""),
        };
        if line
            .iter()
            .any(|byte| byte.is_ascii_control() || !byte.is_ascii())
        {
            let line = String::from_utf8_lossy(line);
            self.0.write_all(visible(&line, &[]).as_bytes())?;
            self.0.write_all(end.as_bytes())?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_it_says() {
        let mut log = OneLine(Vec::new());
        let event = b"INFO not found: x\nPlugin registry: forged\x1b[2J\n";
        assert_eq!(log.write(event).expect("written"), event.len());
        assert_eq!(
            log.0,
            b"INFO not found: x\\nPlugin registry: forged\\u{1b}[2J\n"
        );
        let mut log = OneLine(Vec::new());
        log.write_all("é \u{202e}gnp.exe\u{9b}\n".as_bytes())
            .expect("written");
        assert_eq!(log.0, "é \\u{202e}gnp.exe\\u{9b}\n".as_bytes());
    }

    #[test]
    fn a_filter_that_means_nothing_is_refused() {
        assert!(filter("info,patchbay_store=debug").is_ok());
        let error = filter("inof").expect_err("no level").to_string();
        assert!(error.contains("did you mean info?"), "{error}");
    }
}

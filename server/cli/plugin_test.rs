//! `patchbay plugin test`: the specs beside plugins, run in the sandbox.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use patchbay_lua::{Failure, Sandbox, Snapshots, Spec, SpecOptions, SpecReport, TestReport};
use patchbay_registry::{SpecFolder, find_specs, read_spec};
use serde::Serialize;

use super::{say, say_json};
use crate::embedded;
use crate::settings::Settings;

/// The folder beside a spec in which its snapshots lie.
const SNAPSHOTS: &str = "__snapshots__";

/// What is tested, and how.
#[derive(Debug, Args)]
pub(super) struct Test {
    /// Folders of plugins, plugins or specs; the configured plugin paths when none is named
    paths: Vec<PathBuf>,
    /// Write snapshots as they are found, rather than comparing them
    #[arg(long)]
    update: bool,
    /// Run only the tests whose full name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// The report as a whole.
#[derive(Serialize)]
struct Summary {
    passed: usize,
    failed: usize,
    duration_ms: f64,
    /// Plugins without a spec.
    untested: Vec<String>,
    specs: Vec<SpecReport>,
}

impl Test {
    /// All specs of a plugin, told as on a terminal.
    pub(super) fn of(path: PathBuf) -> Test {
        Test {
            paths: vec![path],
            update: false,
            filter: None,
            json: false,
        }
    }

    pub(super) async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let libraries = settings.registry().plugin_paths;
        let paths = match self.paths.is_empty() {
            true => libraries.clone(),
            false => self.paths.clone(),
        };
        let folders = find_specs(embedded::plugins(), &libraries, &paths)
            .map_err(|reason| anyhow!("{reason}"))?;
        let options = SpecOptions {
            update: self.update,
            filter: self.filter.clone(),
        };
        let began = Instant::now();
        let sandbox = Sandbox::new(settings.limits());
        let mut summary = Summary {
            passed: 0,
            failed: 0,
            duration_ms: 0.0,
            untested: Vec::new(),
            specs: Vec::new(),
        };
        for folder in folders {
            if folder.specs.is_empty() {
                summary.untested.push(folder.plugin);
                continue;
            }
            for path in &folder.specs {
                let report = run_spec(&sandbox, &folder, path, &options).await?;
                if !self.json {
                    print_spec(&report);
                }
                let failed = report.tests.iter().filter(|test| test.failure.is_some());
                let failed = failed.count();
                summary.passed += report.tests.len() - failed;
                summary.failed += failed + report.errors.len();
                summary.specs.push(report);
            }
        }
        summary.duration_ms = (began.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        if self.json {
            say_json(&summary)?;
        } else {
            print_summary(&summary, began.elapsed());
        }
        let nothing_ran = summary.passed == 0 && self.filter.is_some();
        Ok(match summary.failed == 0 && !nothing_ran {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

async fn run_spec(
    sandbox: &Sandbox,
    folder: &SpecFolder,
    path: &Path,
    options: &SpecOptions,
) -> anyhow::Result<SpecReport> {
    let shown = path.display();
    let plugin = match &folder.source {
        Ok(source) => source.clone(),
        Err(reason) => return Err(anyhow!("{}: {reason}", folder.plugin)),
    };
    let file = path
        .file_name()
        .and_then(|name| name.to_str())
        .with_context(|| format!("{shown}: its name is no UTF-8"))?
        .to_owned();
    let kept = snapshots_of(path, &file);
    let snapshots = match read_snapshots(&kept).with_context(|| kept.display().to_string())? {
        Some(text) => {
            Snapshots::parse(&text).map_err(|reason| anyhow!("{}: {reason}", kept.display()))?
        }
        None => Snapshots::default(),
    };
    let spec = Spec {
        plugin,
        file,
        text: read_spec(path).map_err(|reason| anyhow!("{shown}: {reason}"))?,
        snapshots,
    };
    let report = sandbox.test(spec, options).await;
    if let Some(snapshots) = &report.snapshots {
        write_snapshots(&kept, snapshots).with_context(|| kept.display().to_string())?;
    }
    Ok(report)
}

/// Where the snapshots of a spec lie: `__snapshots__/snowflake_spec.json` beside `snowflake_spec.lua`.
fn snapshots_of(path: &Path, file: &str) -> PathBuf {
    let stem = file.strip_suffix(".lua").unwrap_or(file);
    path.with_file_name(SNAPSHOTS).join(format!("{stem}.json"))
}

/// The most bytes that a file of snapshots may have.
const MAX_SNAPSHOTS: u64 = 16 * 1024 * 1024;

/// The text of a file of snapshots, if there is one. Whoever tries a plugin of somebody else's need not fear where a link in it
/// leads: what is read here is written again.
fn read_snapshots(path: &Path) -> anyhow::Result<Option<String>> {
    let kind = |path: &Path| match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let folder = path.parent().unwrap_or(path);
    if kind(folder)?.is_some_and(|folder| !folder.is_dir()) {
        bail!(
            "{SNAPSHOTS} is no folder but a link or a file; snapshots are kept beside their spec only"
        );
    }
    let Some(file) = kind(path)? else {
        return Ok(None);
    };
    if !file.is_file() {
        bail!("it is no plain file; snapshots are kept beside their spec only");
    }
    if file.len() > MAX_SNAPSHOTS {
        bail!("it is larger than {MAX_SNAPSHOTS} bytes");
    }
    Ok(Some(fs::read_to_string(path)?))
}

fn write_snapshots(path: &Path, snapshots: &Snapshots) -> anyhow::Result<()> {
    if snapshots.is_empty() {
        return Ok(fs::remove_file(path)?);
    }
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    let mut aside = tempfile::NamedTempFile::new_in(folder)?;
    aside.write_all(snapshots.to_text().as_bytes())?;
    aside.persist(path)?;
    Ok(())
}

fn print_spec(report: &SpecReport) {
    match &report.plugin {
        Some(plugin) => say(format_args!("{plugin}  {}", report.file)),
        None => say(format_args!("{}", report.file)),
    }
    let mut groups: &[String] = &[];
    for test in &report.tests {
        let Some((name, around)) = test.names.split_last() else {
            continue;
        };
        if around != groups {
            let shared = around
                .iter()
                .zip(groups)
                .take_while(|(one, other)| one == other);
            let shared = shared.count();
            for (depth, group) in around.iter().enumerate().skip(shared) {
                say(format_args!("  {:indent$}{group}", "", indent = depth * 2));
            }
            groups = around;
        }
        print_test(test, name, around.len());
    }
    for error in &report.errors {
        say(format_args!("  FAILED  {error}"));
    }
    for line in &report.printed {
        say(format_args!("  | {line}"));
    }
    for name in &report.obsolete_snapshots {
        say(format_args!(
            "  no test asks for the snapshot {name:?} any more; --update drops it"
        ));
    }
    say(format_args!(""));
}

fn print_test(test: &TestReport, name: &str, depth: usize) {
    let mark = match test.failure {
        None => "ok    ",
        Some(_) => "FAILED",
    };
    say(format_args!(
        "  {:indent$}{mark}  {name}  ({})",
        "",
        shown_time(test.duration),
        indent = depth * 2
    ));
    if let Some(failure) = &test.failure {
        print_failure(failure, 2 + depth * 2 + 8);
    }
}

fn print_failure(failure: &Failure, indent: usize) {
    let put = |line: &str| say(format_args!("{:indent$}{line}", ""));
    match (&failure.file, failure.line) {
        (Some(file), Some(line)) => put(&format!("{file}:{line}: {}", failure.message)),
        (Some(file), None) => put(&format!("{file}: {}", failure.message)),
        _ => put(&failure.message),
    }
    if let (Some(line), Some(text)) = (failure.line, &failure.source_line) {
        put(&format!("{line} | {}", text.trim_end()));
    }
    if let Some(diff) = &failure.diff {
        put("- expected  + found");
        diff.lines().for_each(put);
        return;
    }
    for (word, value) in [("expected", &failure.expected), ("found", &failure.found)] {
        if let Some(value) = value {
            put(&format!("{:<10}{value}", format!("{word}:")));
        }
    }
}

fn print_summary(summary: &Summary, took: Duration) {
    for plugin in &summary.untested {
        say(format_args!("no spec  {plugin}"));
    }
    let count = |count: usize, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    };
    say(format_args!(
        "{} in {}: {} passed, {} failed  ({})",
        count(summary.passed + summary.failed, "test"),
        count(summary.specs.len(), "spec"),
        summary.passed,
        summary.failed,
        shown_time(took)
    ));
}

fn shown_time(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1e3;
    match milliseconds {
        short if short < 10.0 => format!("{short:.1} ms"),
        long if long < 1000.0 => format!("{long:.0} ms"),
        longer => format!("{:.2} s", longer / 1e3),
    }
}

//! Specs: Luau files that test a plugin, in the sandbox that plugins run in.
//!
//! | module | holds |
//! |---|---|
//! | `host`, `records` | what a spec can reach besides the API of plugins, and the tables that it takes and gives |
//! | `ask` | what a spec asks of the plugin under test |
//! | `judge` | what an expectation comes to |
//! | `world` | the world around a plugin under test: a fake catalogue, a data product, rows |
//! | `compare` | what an expectation compares, and how a difference is shown |
//! | `snapshots` | the snapshots of one spec |
//!
//! # The life of a spec
//! The plugin is loaded as a server loads it → the spec's file is run once for the names of its tests → for each test it
//! is run again, from the start, then every `before_each`, then the test: so no test sees what another did → what the
//! test asks of the plugin goes to the plugin's own VM and back, through the checks that a server applies. A test has the
//! limits of a hook: one that does not end is stopped, and the next begins on a new VM.

mod ask;
mod compare;
mod host;
mod judge;
mod records;
mod snapshots;
mod world;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use patchbay_plugin::Map;
use patchbay_plugin::definition::Definition;
use patchbay_plugin::field::{Field, parse_values};
use patchbay_plugin::name::nearest;
use patchbay_plugin::validation::{Loc, LocStep, ValidationError};
use serde::Serialize;

use crate::error::{HookError, LoadError, Report, Stage};
use crate::plugin::Plugin;
use crate::queue::{Refused, Reply, Request, Shared, lock};
use crate::sandbox::Sandbox;
use crate::source::{Files, Source};

pub use host::SPEC_API;
pub(crate) use host::{SpecApi, install, printing};
pub use records::SPEC_RECORDS;
use snapshots::Book;
pub use snapshots::Snapshots;

/// How many lines of one spec are kept of what it prints.
const MAX_LINES: usize = 1000;

/// A spec, and the plugin that it tests.
pub struct Spec {
    /// The plugin.
    pub plugin: Source,
    /// The spec's file name, such as `snowflake_spec.lua`; it lies beside the plugin.
    pub file: String,
    /// The spec's text.
    pub text: Arc<str>,
    /// The snapshots that it had.
    pub snapshots: Snapshots,
}

/// How specs are run.
#[derive(Clone, Debug, Default)]
pub struct SpecOptions {
    /// Whether snapshots are written as they are found, rather than compared.
    pub update: bool,
    /// Only tests whose full name holds this text.
    pub filter: Option<String>,
}

/// What became of a spec.
#[derive(Debug, Serialize)]
pub struct SpecReport {
    /// The plugin's name, once it was loaded.
    pub plugin: Option<String>,
    /// The spec's file, as messages name it.
    pub file: String,
    /// Its tests, in the order in which they are written.
    pub tests: Vec<TestReport>,
    /// Why none of them ran: the plugin does not load, or the spec's file does not run to its end.
    pub errors: Vec<Report>,
    /// The names of snapshots that no test asked for any more.
    pub obsolete_snapshots: Vec<String>,
    /// What the spec printed.
    pub printed: Vec<String>,
    /// The snapshots as they are to be stored; none when nothing about them changed.
    #[serde(skip)]
    pub snapshots: Option<Snapshots>,
}

impl SpecReport {
    /// Whether everything is as expected.
    pub fn passed(&self) -> bool {
        self.errors.is_empty() && self.tests.iter().all(|test| test.failure.is_none())
    }
}

/// What became of one test.
#[derive(Debug, Serialize)]
pub struct TestReport {
    /// Its name, with those of the groups around it first.
    pub names: Vec<String>,
    /// The line on which it begins.
    pub line: Option<u32>,
    /// How long it took, in milliseconds.
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// What is wrong; none when it passed.
    pub failure: Option<Failure>,
}

fn milliseconds<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

/// Why a test failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What is wrong, in one sentence.
    pub message: String,
    /// The file, as messages name it.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<u32>,
    /// The text of that line.
    pub source_line: Option<String>,
    /// What was expected, as an author would write it.
    pub expected: Option<String>,
    /// What was found, as an author would write it.
    pub found: Option<String>,
    /// The lines in which they differ: `-` expected, `+` found.
    pub diff: Option<String>,
}

impl Failure {
    fn of(report: Report) -> Failure {
        let mut message = report.message;
        if let Some(path) = report.path {
            message = format!("{path}: {message}");
        }
        if let Some(help) = report.help {
            message = format!("{message} ({help})");
        }
        Failure {
            message,
            file: report.file,
            line: report.line,
            source_line: None,
            expected: None,
            found: None,
            diff: None,
        }
    }
}

/// What is asked of a spec.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SpecRun {
    /// The names of its tests.
    List,
    /// The test of that place, counted from 1.
    Test(usize),
}

/// What running a spec came to.
pub(crate) enum SpecReply {
    Tests(Vec<TestName>),
    Passed,
    Failed(Failure),
}

/// A test as the spec's file declares it.
#[derive(Clone, Debug)]
pub(crate) struct TestName {
    pub(crate) names: Vec<String>,
    pub(crate) line: Option<u32>,
}

/// What the functions of a spec work with. Lives as long as the spec runs, across its VMs.
pub(crate) struct SpecHost {
    sandbox: Sandbox,
    source: Source,
    plugin: Plugin,
    /// The plugin with other settings than none, as tests asked for it.
    with_settings: Mutex<Vec<(Map, Plugin)>>,
    book: Mutex<Book>,
    printed: Mutex<Vec<String>>,
}

impl SpecHost {
    /// Keeps what the spec printed.
    pub(crate) fn say(&self, line: String) {
        let mut printed = lock(&self.printed);
        if printed.len() < MAX_LINES {
            printed.push(line);
        }
    }

    fn definition(&self) -> &Arc<Definition> {
        self.plugin.definition()
    }

    /// The plugin with these settings, checked as the operator's are.
    async fn plugin(&self, settings: &Map) -> Result<Plugin, String> {
        if settings.is_empty() {
            return Ok(self.plugin.clone());
        }
        let known = lock(&self.with_settings)
            .iter()
            .find(|(known, _)| known == settings)
            .map(|(_, plugin)| plugin.clone());
        if let Some(plugin) = known {
            return Ok(plugin);
        }
        let plugin = load(&self.sandbox, self.source.clone(), settings)
            .await
            .map_err(|error| error.to_string())?;
        lock(&self.with_settings).push((settings.clone(), plugin.clone()));
        Ok(plugin)
    }
}

async fn load(sandbox: &Sandbox, source: Source, settings: &Map) -> Result<Plugin, LoadError> {
    let settings = settings.clone();
    sandbox
        .load(
            source,
            Arc::new(move |_, fields| checked_settings(fields, &settings)),
        )
        .await
}

/// Settings as the registry hands them to a plugin: none that it does not declare, each of its type, defaults filled in,
/// and none missed.
fn checked_settings(fields: &[Field], settings: &Map) -> Result<Map, Vec<String>> {
    let names = || fields.iter().map(|field| field.name.as_str());
    let mut mistakes: Vec<String> = settings
        .keys()
        .filter(|key| !names().any(|name| name == key.as_str()))
        .map(|key| match nearest(key, names()) {
            Some(near) => {
                format!("settings.{key} is no setting of the plugin (did you mean `{near}`?)")
            }
            None => format!("settings.{key} is no setting of the plugin"),
        })
        .collect();
    let optional: Vec<Field> = fields
        .iter()
        .cloned()
        .map(|field| Field {
            required: false,
            ..field
        })
        .collect();
    match parse_values(&optional, settings, &Loc::new()) {
        Ok(values) if mistakes.is_empty() => Ok(values),
        Ok(_) => Err(mistakes),
        Err(errors) => {
            mistakes.extend(
                errors
                    .iter()
                    .map(|error| format!("settings.{}: {}", place_of(error), error.msg)),
            );
            Err(mistakes)
        }
    }
}

/// Where in a configuration an error is: `tags.2`.
fn place_of(error: &ValidationError) -> String {
    let steps: Vec<String> = error
        .loc
        .iter()
        .map(|step| match step {
            LocStep::Key(key) => key.clone(),
            LocStep::Index(index) => (index + 1).to_string(),
        })
        .collect();
    steps.join(".")
}

impl Sandbox {
    /// Runs a spec. What is wrong with it, with its plugin or with a test is in the report.
    pub async fn test(&self, spec: Spec, options: &SpecOptions) -> SpecReport {
        let source = spec_source(&spec);
        let mut report = SpecReport {
            plugin: None,
            file: source.shown(&source.entry),
            tests: Vec::new(),
            errors: Vec::new(),
            obsolete_snapshots: Vec::new(),
            printed: Vec::new(),
            snapshots: None,
        };
        let plugin = match load(self, spec.plugin.clone(), &Map::new()).await {
            Ok(plugin) => plugin,
            Err(error) => {
                report.errors = error.reports;
                return report;
            }
        };
        report.plugin = Some(plugin.definition().name.to_string());
        if let Some(misfit) = plugin.definition().incompatibility() {
            report.errors.push(plugin.misfit(&misfit).await);
            return report;
        }
        let host = Arc::new(SpecHost {
            sandbox: self.clone(),
            source: spec.plugin,
            plugin,
            with_settings: Mutex::default(),
            book: Mutex::new(Book::new(spec.snapshots, options.update)),
            printed: Mutex::default(),
        });
        let Some(running) = self.host_spec(source, host.clone()) else {
            report.errors.push(Report::new(
                Stage::Load,
                "there is no Lua thread to run it on",
            ));
            return report;
        };
        match running.ask(SpecRun::List).await {
            Ok(SpecReply::Tests(tests)) if tests.is_empty() => {
                let error = Report::new(Stage::Load, "it has no test: it(\"…\", function() … end)");
                report.errors.push(error.in_file(report.file.clone()));
            }
            Ok(SpecReply::Tests(tests)) => {
                report.tests = running.run(tests, options.filter.as_deref()).await;
            }
            Ok(SpecReply::Failed(failure)) => {
                let mut error = Report::new(Stage::Load, failure.message);
                (error.file, error.line) = (failure.file, failure.line);
                report.errors.push(error);
            }
            Ok(SpecReply::Passed) => {}
            Err(error) => report.errors = reports_of(&error),
        }
        let all_ran = report.passed() && options.filter.is_none();
        let book = std::mem::take(&mut *lock(&host.book));
        (report.snapshots, report.obsolete_snapshots) = book.close(all_ran);
        report.printed = std::mem::take(&mut *lock(&host.printed));
        report
    }

    fn host_spec(&self, source: Source, host: Arc<SpecHost>) -> Option<Running> {
        let shared = Shared::for_spec(Arc::new(source), self.threads.limits.clone(), host);
        self.threads.host(&shared).then_some(Running(shared))
    }
}

/// What is loaded as a spec: the plugin's files beside its own, so that it can test modules too.
fn spec_source(spec: &Spec) -> Source {
    let mut files: Files = match spec.plugin.single_file {
        true => Files::new(),
        false => spec.plugin.files.as_ref().clone(),
    };
    files.insert(spec.file.clone(), spec.text.clone());
    Source {
        entry: spec.file.clone(),
        files: Arc::new(files),
        ..spec.plugin.clone()
    }
}

fn reports_of(error: &HookError) -> Vec<Report> {
    match error.reports() {
        [] => vec![Report::new(Stage::Load, error.to_string())],
        reports => reports.to_vec(),
    }
}

/// A spec on its Lua thread, which lets it go when this is dropped.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Running {
    async fn ask(&self, run: SpecRun) -> Result<SpecReply, HookError> {
        match self.0.ask(Request::Spec(run)).await {
            Reply::Spec(reply) => Ok(reply),
            Reply::Refused(Refused::Error(error)) => Err(error),
            _ => Err(HookError::Closed),
        }
    }

    async fn run(&self, tests: Vec<TestName>, filter: Option<&str>) -> Vec<TestReport> {
        let mut reports = Vec::new();
        for (place, test) in tests.into_iter().enumerate() {
            if filter.is_some_and(|filter| !test.names.join(" ").contains(filter)) {
                continue;
            }
            let began = Instant::now();
            let failure = match self.ask(SpecRun::Test(place + 1)).await {
                Ok(SpecReply::Failed(failure)) => Some(failure),
                Ok(SpecReply::Passed | SpecReply::Tests(_)) => None,
                Err(error) => reports_of(&error).into_iter().next().map(Failure::of),
            };
            reports.push(TestReport {
                names: test.names,
                line: test.line,
                duration: began.elapsed(),
                failure: failure.map(|failure| self.with_source_line(failure)),
            });
        }
        reports
    }

    fn with_source_line(&self, failure: Failure) -> Failure {
        let source = &self.0.source;
        let line = failure.line.and_then(|line| {
            let (_, text) = source
                .files
                .iter()
                .find(|(file, _)| Some(source.shown(file)) == failure.file)?;
            text.lines().nth(line.checked_sub(1)? as usize)
        });
        Failure {
            source_line: line.map(str::to_owned),
            ..failure
        }
    }
}

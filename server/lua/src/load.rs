//! Loading a plugin: its files are run once, and what they return is checked.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use mlua::{Table, Value};
use patchbay_plugin::definition::{Definition, Incompatibility};
use patchbay_plugin::term::{Mistake, Path};
use semver::VersionReq;

use crate::clock;
use crate::error::{Report, Stage};
use crate::explain::explain;
use crate::limits::Limits;
use crate::log::PluginLog;
use crate::migrations::{inline_of, read_migrations};
use crate::running::{Over, Running};
use crate::source::{MAX_FILE, Source};
use crate::spec::SpecHost;
use crate::values::{AnswerReader, Trail, kind};
use crate::vm::{HookArity, Stop, Vm};

/// What loading found.
pub(crate) struct Loaded {
    pub(crate) definition: Arc<Definition>,
    pub(crate) libs: BTreeSet<String>,
    /// Whether the files' top level took less than a slice.
    pub(crate) quick: bool,
    pub(crate) arity: HookArity,
}

/// What loading found to be wrong.
pub(crate) struct Failed {
    /// The version that the plugin says it has, where it came that far.
    pub(crate) version: Option<String>,
    /// That it is for another Patchbay, so that the mistakes may be none.
    pub(crate) misfit: Option<Incompatibility>,
    pub(crate) mistakes: Vec<Unplaced>,
}

impl From<Vec<Unplaced>> for Failed {
    fn from(mistakes: Vec<Unplaced>) -> Failed {
        Failed {
            version: None,
            misfit: None,
            mistakes,
        }
    }
}

/// A report whose line is still to be found: the sandbox parses the source for it, away from the Lua threads.
#[derive(Debug)]
pub(crate) struct Unplaced {
    pub(crate) report: Report,
    /// The file, as a key of [`Source::files`], and the path inside what it returns.
    pub(crate) place: Option<(String, Path, bool)>,
}

impl From<Report> for Unplaced {
    fn from(report: Report) -> Unplaced {
        Unplaced {
            report,
            place: None,
        }
    }
}

impl Unplaced {
    pub(crate) fn in_file(stage: Stage, mistake: Mistake, file: &str, source: &Source) -> Unplaced {
        Unplaced {
            report: Report::of(stage, &mistake).in_file(source.shown(file)),
            place: Some((file.to_owned(), mistake.path, mistake.at_key)),
        }
    }
}

/// Checks what can be checked before any code runs.
pub(crate) fn check_source(source: &Source) -> Result<(), Report> {
    let entry = &source.entry;
    let report = |message: String| Report::new(Stage::Read, message).in_file(source.shown(entry));
    if let Some(reason) = source.refused.get(entry) {
        return Err(report(reason.clone()));
    }
    match source.files.get(entry) {
        None => Err(report("the file is not there".to_owned())),
        Some(text) if text.len() > MAX_FILE => {
            Err(report(format!("the file is larger than {MAX_FILE} bytes")))
        }
        Some(_) => Ok(()),
    }
}

/// Builds a VM, or says why the plugin's main file cannot be compiled.
pub(crate) fn build(
    source: &Arc<Source>,
    limits: &Limits,
    log: &Rc<PluginLog>,
    spec: Option<&Arc<SpecHost>>,
) -> Result<Rc<Vm>, Report> {
    Vm::build(source, limits, log, spec)
        .map(Rc::new)
        .map_err(|error| raised(&error, source))
}

/// Runs the plugin's files and reads its definition and migrations. The VM is given back when it is fit for calls.
pub(crate) async fn open(vm: &Vm, running: &Running, source: &Source) -> Result<Loaded, Failed> {
    match read(vm, running, source).await {
        Ok(read) => read,
        Err(stop) => Err(vec![stopped(stop, vm, source).into()].into()),
    }
}

async fn read(vm: &Vm, running: &Running, source: &Source) -> Result<Result<Loaded, Failed>, Stop> {
    let before = clock::thread();
    let returned = vm.open(running).await?;
    let quick = clock::thread().saturating_sub(before) < vm.limits.slice;
    let marked = match &returned {
        Value::Table(table) => table
            .metatable()
            .is_some_and(|meta| meta == vm.api.plugin_meta),
        _ => false,
    };
    let Value::Table(definition) = &returned else {
        return Ok(Err(vec![no_plugin(kind(&returned), source)].into()));
    };
    if !marked {
        let found = "a table that patchbay.plugin did not mark";
        return Ok(Err(vec![no_plugin(found, source)].into()));
    }
    let version = definition
        .raw_get::<Option<String>>("version")
        .ok()
        .flatten();
    let misfit = misfit_of(definition);
    let failed = |mistakes| Failed {
        version: version.clone(),
        misfit: misfit.clone(),
        mistakes,
    };
    let inline = inline_of(definition);
    let arity = HookArity::of(definition);
    let found = read_migrations(vm, running, source, inline).await?;
    let mut mistakes = found.mistakes;
    let mut reader = AnswerReader::default();
    let term = reader.term(&returned, &Trail::ROOT);
    let here = |mistake| Unplaced::in_file(Stage::Definition, mistake, &source.entry, source);
    let unreadable = reader.into_mistakes();
    if !unreadable.is_empty() {
        mistakes.extend(unreadable.into_iter().map(here));
        return Ok(Err(failed(mistakes)));
    }
    Ok(match Definition::read(term, found.migrations) {
        Ok(definition) if mistakes.is_empty() => Ok(Loaded {
            definition: Arc::new(definition),
            libs: vm.modules.libs(),
            quick,
            arity,
        }),
        Ok(_) => Err(failed(mistakes)),
        Err(more) => {
            let mut all: Vec<Unplaced> = more.into_iter().map(here).collect();
            all.append(&mut mistakes);
            Err(failed(all))
        }
    })
}

/// Why a definition does not fit this Patchbay, as far as it says so in what it returned.
fn misfit_of(definition: &Table) -> Option<Incompatibility> {
    let api = definition.raw_get::<Option<i64>>("api").ok().flatten();
    let requires = definition.raw_get::<Option<String>>("requires");
    let requires = requires.ok().flatten();
    let requires = requires.and_then(|text| VersionReq::parse(&text).ok());
    Incompatibility::of(api, requires.as_ref())
}

fn no_plugin(found: &str, source: &Source) -> Unplaced {
    let mistake = Mistake {
        path: Path::default(),
        expected: "a plugin: return patchbay.plugin { name = …, fields = … }".to_owned(),
        found: found.to_owned(),
        help: None,
        at_key: false,
    };
    Unplaced::in_file(Stage::Definition, mistake, &source.entry, source)
}

/// The report of an error that the files raised.
pub(crate) fn raised(error: &mlua::Error, source: &Source) -> Report {
    let mut root = error;
    while let mlua::Error::CallbackError { cause, .. } = root {
        root = cause;
    }
    let stage = match root {
        mlua::Error::SyntaxError { .. } => Stage::Parse,
        _ => Stage::Load,
    };
    let explained = explain(error, source);
    Report::new(stage, explained.message)
        .in_file(
            explained
                .file
                .unwrap_or_else(|| source.shown(&source.entry)),
        )
        .at_line(explained.line)
}

fn stopped(stop: Stop, vm: &Vm, source: &Source) -> Report {
    let report = match stop {
        Stop::Raised(error) => return raised(&error, source),
        Stop::Memory => Report::new(Stage::Load, over_memory(&vm.limits)),
        Stop::Over(over) => Report::new(Stage::Load, over_time(over, &vm.limits)),
    };
    report.in_file(source.shown(&source.entry))
}

/// What to say of a call that ran too long.
pub(crate) fn over_time(over: Over, limits: &Limits) -> String {
    match over {
        Over::Load => format!(
            "the top level of its files ran longer than {} ms",
            limits.load_deadline.as_millis()
        ),
        Over::Deadline => format!("it ran longer than {} ms", limits.deadline.as_millis()),
        Over::Wall => format!("it waited longer than {} ms", limits.wall.as_millis()),
    }
}

/// What to say of a call that needed too much memory.
pub(crate) fn over_memory(limits: &Limits) -> String {
    format!("it needed more than {} KiB of memory", limits.memory / 1024)
}

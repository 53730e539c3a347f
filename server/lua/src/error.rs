//! What can go wrong, in the words of a plugin's author.

use std::fmt;

use patchbay_plugin::definition::Incompatibility;
use patchbay_plugin::term::{Mistake, shortened};
use serde::Serialize;

/// One thing that is wrong with a plugin, and where.
///
/// Shown as `lua-plugins/x/plugin.lua:12:3: fields[2].default: expected …, found … (what to do)`. Never holds a Lua
/// stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was being done.
    pub stage: Stage,
    /// The hook that was called.
    pub hook: Option<&'static str>,
    /// What is wrong, in one line where possible.
    pub message: String,
    /// The file, as messages name it.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<u32>,
    /// The column, from 1, in characters.
    pub column: Option<u32>,
    /// Where the place ends, and the text of its first line.
    pub span: Option<Box<Span>>,
    /// The path inside the returned table, such as `fields[2].default`.
    pub path: Option<String>,
    /// What would have been right.
    pub expected: Option<String>,
    /// What is there.
    pub found: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

/// What else is known of a place in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Where it ends: the line, and the column just after it, from 1, in characters.
    pub end: Option<(u32, u32)>,
    /// The text of its first line, as it was read.
    pub source_line: Option<String>,
}

/// What was being done when something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading the files.
    Read,
    /// Compiling a file.
    Parse,
    /// Comparing the plugin API that it is written for with the one that is spoken.
    Api,
    /// Comparing the Patchbay that it requires with this one.
    Requires,
    /// Running the files' top level.
    Load,
    /// Checking the definition.
    Definition,
    /// Checking the operator's settings.
    Settings,
    /// Running and checking the written migrations.
    Migration,
    /// Calling a hook.
    Hook,
}

impl Stage {
    /// The stage as answers name it.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Read => "read",
            Stage::Parse => "parse",
            Stage::Api => "api",
            Stage::Requires => "requires",
            Stage::Load => "load",
            Stage::Definition => "definition",
            Stage::Settings => "settings",
            Stage::Migration => "migration",
            Stage::Hook => "hook",
        }
    }
}

/// The longest message of a plugin's code that is passed on, in characters. It goes to logs, and to whoever asks how the
/// plugin stands.
pub(crate) const MAX_MESSAGE: usize = 2_000;

impl Report {
    pub(crate) fn new(stage: Stage, message: impl Into<String>) -> Report {
        Report {
            stage,
            hook: None,
            message: shortened(message, MAX_MESSAGE),
            file: None,
            line: None,
            column: None,
            span: None,
            path: None,
            expected: None,
            found: None,
            help: None,
        }
    }

    pub(crate) fn of(stage: Stage, mistake: &Mistake) -> Report {
        let path = mistake.path.to_string();
        Report {
            path: (!path.is_empty()).then_some(path),
            expected: Some(mistake.expected.clone()),
            found: Some(mistake.found.clone()),
            help: mistake.help.clone(),
            ..Report::new(
                stage,
                format!("expected {}, found {}", mistake.expected, mistake.found),
            )
        }
    }

    /// That the plugin does not fit this Patchbay.
    pub(crate) fn incompatible(reason: &Incompatibility) -> Report {
        let stage = match reason.key {
            "api" => Stage::Api,
            _ => Stage::Requires,
        };
        Report {
            path: Some(reason.key.to_owned()),
            expected: Some(reason.expected.clone()),
            found: Some(reason.found.clone()),
            help: Some(reason.help.clone()),
            ..Report::new(stage, reason.message.clone())
        }
    }

    pub(crate) fn in_file(mut self, file: impl Into<String>) -> Report {
        self.file = Some(file.into());
        self
    }

    pub(crate) fn at_line(mut self, line: Option<u32>) -> Report {
        self.line = line;
        self
    }

    /// What is known of the place, to be filled in.
    pub(crate) fn span_mut(&mut self) -> &mut Span {
        self.span.get_or_insert_default()
    }

    pub(crate) fn in_hook(mut self, hook: Option<&'static str>) -> Report {
        self.hook = hook;
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            f.write_str(file)?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
                if let Some(column) = self.column {
                    write!(f, ":{column}")?;
                }
            }
            f.write_str(": ")?;
        }
        if let Some(hook) = self.hook {
            write!(f, "{hook}: ")?;
        }
        if let Some(path) = &self.path {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// Why a plugin could not be loaded: all its mistakes at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct LoadError {
    /// The version that the plugin says it has, where it came that far.
    pub version: Option<String>,
    /// The mistakes; never empty.
    pub reports: Vec<Report>,
}

impl LoadError {
    /// Whether the plugin is for another Patchbay, so that nothing else about it counts.
    pub fn is_incompatible(&self) -> bool {
        let first = self.reports.first().map(|report| report.stage);
        matches!(first, Some(Stage::Api | Stage::Requires))
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_lines(f, &self.reports)
    }
}

fn write_lines(f: &mut fmt::Formatter<'_>, reports: &[Report]) -> fmt::Result {
    for (place, report) in reports.iter().enumerate() {
        if place > 0 {
            f.write_str("\n")?;
        }
        write!(f, "{report}")?;
    }
    Ok(())
}

/// Why a hook gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// It raised an error.
    #[error("{0}")]
    Raised(Report),
    /// It ran, or waited, longer than it may.
    #[error("{0}")]
    Deadline(Report),
    /// It needed more memory than it may have.
    #[error("{0}")]
    Memory(Report),
    /// It did not stop when it was told to. Its thread was replaced, and the plugin answers nothing until that thread
    /// has ended.
    #[error("{0}")]
    Stuck(Report),
    /// It returned something that is no answer.
    #[error("{}", Lines(.0))]
    Nonsense(Vec<Report>),
    /// The plugin's rows, which it asked for, cannot be read at the moment.
    #[error("the plugin's rows cannot be read: {0}")]
    Unavailable(String),
    /// Too many calls of the plugin wait already.
    #[error("too many calls of this plugin are waiting")]
    Busy,
    /// The sandbox has been closed.
    #[error("the sandbox has been closed")]
    Closed,
}

struct Lines<'a>(&'a [Report]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_lines(f, self.0)
    }
}

impl HookError {
    /// What there is to say about it; nothing where the plugin is not at fault.
    pub fn reports(&self) -> &[Report] {
        match self {
            HookError::Raised(report)
            | HookError::Deadline(report)
            | HookError::Memory(report)
            | HookError::Stuck(report) => std::slice::from_ref(report),
            HookError::Nonsense(reports) => reports,
            HookError::Unavailable(_) | HookError::Busy | HookError::Closed => &[],
        }
    }

    pub(crate) fn reports_mut(&mut self) -> &mut [Report] {
        match self {
            HookError::Raised(report)
            | HookError::Deadline(report)
            | HookError::Memory(report)
            | HookError::Stuck(report) => std::slice::from_mut(report),
            HookError::Nonsense(reports) => reports,
            HookError::Unavailable(_) | HookError::Busy | HookError::Closed => &mut [],
        }
    }
}

/// Why `normalize` gave no values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NormalizeError {
    /// The hook returned `nil` and errors: the configuration is wrong, the plugin is not.
    #[error("the configuration was rejected")]
    Rejected(Vec<FieldError>),
    /// The hook failed.
    #[error(transparent)]
    Hook(#[from] HookError),
}

/// Why `url` gave no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The plugin has no such hook.
    #[error("the plugin has no url hook")]
    Missing,
    /// The hook returned `nil, patchbay.not_found "…"`.
    #[error("{0}")]
    NotFound(String),
    /// The hook returned `nil, patchbay.bad_request "…"`.
    #[error("{0}")]
    BadRequest(String),
    /// The hook failed.
    #[error(transparent)]
    Hook(#[from] HookError),
}

/// What a plugin says is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field, where it is one.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
}

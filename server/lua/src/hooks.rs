//! Each hook: what it is given, and what its answer must be.

use std::rc::Rc;
use std::sync::Arc;

use mlua::Value;
use patchbay_plugin::Map;
use patchbay_plugin::field::Field;
use patchbay_plugin::form::{read_form, unexplained};
use patchbay_plugin::name::nearest;
use patchbay_plugin::term::{Mistake, Mistakes, Path, TableReader, Term, shortened};

use crate::call::{CatalogueReader, Form, HookCall, HookContext, Reads, RenderCall};
use crate::db::is_not_configured;
use crate::error::{FieldError, MAX_MESSAGE};
use crate::running::Running;
use crate::values::{AnswerReader, Trail, kind, same_entries};
use crate::vm::{Facts, Stop, Vm};

/// Why a hook gave no answer, before it is put into words.
pub(crate) enum Failure {
    /// Its code stopped.
    Stopped(Stop),
    /// What it returned is no answer.
    Nonsense(Vec<Mistake>),
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Failure {
        Failure::Stopped(stop)
    }
}

/// What `ui_metadata` answered, as plain data. It is checked by whoever asked, so that the Lua thread is free for the
/// next call.
pub(crate) struct RawForm {
    /// None when the catalogue lacks what the form needs.
    elements: Option<Term>,
    reads: Reads,
}

impl RawForm {
    /// What the elements lack for whoever fills them in.
    pub(crate) fn unexplained(&self, fields: &[Field]) -> Vec<Mistake> {
        self.elements
            .as_ref()
            .map(|term| unexplained(term, fields))
            .unwrap_or_default()
    }

    /// Checks the elements against the plugin's fields.
    pub(crate) fn read(self, fields: &[Field]) -> Result<Form, Vec<Mistake>> {
        Ok(Form {
            not_configured: self.elements.is_none(),
            elements: match self.elements {
                Some(term) => read_form(term, fields)?,
                None => Vec::new(),
            },
            reads: self.reads,
        })
    }
}

/// What `normalize` made of a configuration.
pub(crate) enum Normalised {
    /// Nothing else.
    Same,
    /// This.
    To(Map),
}

/// What `url` answered.
pub(crate) enum Link {
    /// The link.
    To(String),
    /// Something is not there.
    NotFound(String),
    /// The request lacks something.
    BadRequest(String),
}

impl Vm {
    /// `ui_metadata(db)`
    pub(crate) async fn form(
        &self,
        running: &Rc<Running>,
        facts: &Facts,
    ) -> Result<RawForm, Failure> {
        let db = self.guard(running, || self.db(running, facts))?;
        let answer = match self.call(running, "ui_metadata", db).await {
            Ok((answer, _)) => Some(answer),
            Err(Stop::Raised(error)) if is_not_configured(&error) => None,
            Err(stop) => return Err(stop.into()),
        };
        Ok(RawForm {
            elements: answer
                .map(|answer| {
                    self.unlimited(|| read(|reader| Some(reader.term(&answer, &Trail::ROOT))))
                })
                .transpose()?,
            reads: running.reads.get(),
        })
    }

    /// `normalize(configuration, context, db)`
    pub(crate) async fn normalize(
        &self,
        running: &Rc<Running>,
        facts: &Facts,
        values: &Map,
        context: &HookContext,
    ) -> Result<Result<Normalised, Vec<FieldError>>, Failure> {
        let arguments = self.guard(running, || {
            self.hook_arguments(running, facts, facts.arity.normalize, values, context)
        })?;
        let (answer, errors) = self.call(running, "normalize", arguments).await?;
        self.unlimited(|| {
            if let Value::Table(table) = &answer
                && same_entries(table, values)
            {
                return Ok(Ok(Normalised::Same));
            }
            configuration_or_errors(&answer, &errors, values, facts)
                .map(|answered| answered.map(Normalised::To))
        })
    }

    /// `upgrade(configuration, from_version)`
    pub(crate) async fn upgrade(
        &self,
        running: &Rc<Running>,
        facts: &Facts,
        values: &Map,
        from_version: &str,
    ) -> Result<Result<Map, Vec<FieldError>>, Failure> {
        let arguments = self.guard(running, || {
            let version = Value::String(self.lua.create_string(from_version)?);
            Ok((self.configuration(values)?, version))
        })?;
        let (answer, errors) = self.call(running, "upgrade", arguments).await?;
        self.unlimited(|| configuration_or_errors(&answer, &errors, values, facts))
    }

    /// `validate(configuration, context, db)`
    pub(crate) async fn validate(
        &self,
        running: &Rc<Running>,
        facts: &Facts,
        values: &Map,
        context: &HookContext,
    ) -> Result<Vec<FieldError>, Failure> {
        let arguments = self.guard(running, || {
            self.hook_arguments(running, facts, facts.arity.validate, values, context)
        })?;
        let (answer, _) = self.call(running, "validate", arguments).await?;
        self.unlimited(|| field_errors(&answer, facts))
    }

    /// `render(configuration, filled, context)`
    pub(crate) async fn render(
        &self,
        running: &Rc<Running>,
        facts: &Facts,
        call: &RenderCall,
    ) -> Result<String, Failure> {
        let arguments = self.guard(running, || {
            let values = self.configuration(&call.values)?;
            let filled = Value::String(self.lua.create_string(&call.filled)?);
            Ok((values, filled, self.context(&call.context, facts)?))
        })?;
        let (answer, _) = self.call(running, "render", arguments).await?;
        self.unlimited(|| text(&answer, "the finished text"))
    }

    /// `url(context, db)`
    pub(crate) async fn url(
        &self,
        running: &Rc<Running>,
        facts: &Facts,
        call: &HookCall,
    ) -> Result<Link, Failure> {
        const EXPECTED: &str =
            "a link (a text), or nil and patchbay.not_found \"…\" or patchbay.bad_request \"…\"";
        let arguments = self.guard(running, || {
            let context = self.context(&call.context, facts)?;
            Ok((context, self.db(running, facts)?))
        })?;
        let (answer, refusal) = self.call(running, "url", arguments).await?;
        if !answer.is_nil() {
            let link = text(&answer, EXPECTED)?;
            return match is_link(&link) {
                true => Ok(Link::To(link)),
                false => Err(nonsense(
                    "a link that begins with https:// or http://, or \"\" for none",
                    &format!("{:?}", link.chars().take(100).collect::<String>()),
                )),
            };
        }
        let refused = read(|reader| Some(reader.term(&refusal, &Trail::ROOT)))?;
        let found = refused.kind();
        if let Term::Table(entries) = refused
            && let [(_, Term::String(kind)), (_, Term::String(message))] = entries.as_slice()
        {
            match kind.as_str() {
                "not_found" => return Ok(Link::NotFound(shortened(message, MAX_MESSAGE))),
                "bad_request" => return Ok(Link::BadRequest(shortened(message, MAX_MESSAGE))),
                _ => {}
            }
        }
        Err(nonsense(EXPECTED, &format!("nil and {found}")))
    }

    /// Configuration, context and `db`, as many of them as the hook takes.
    fn hook_arguments(
        &self,
        running: &Rc<Running>,
        facts: &Facts,
        arity: usize,
        values: &Map,
        context: &HookContext,
    ) -> mlua::Result<(Value, Value, Value)> {
        let context = match arity {
            0 | 1 => Value::Nil,
            _ => self.context(context, facts)?,
        };
        let db = match arity {
            0..=2 => Value::Nil,
            _ => self.db(running, facts)?,
        };
        Ok((self.configuration(values)?, context, db))
    }

    /// Builds what a call is given.
    fn guard<T>(
        &self,
        running: &Running,
        build: impl FnOnce() -> mlua::Result<T>,
    ) -> Result<T, Stop> {
        self.unlimited(build)
            .map_err(|error| Stop::of(error, running))
    }
}

/// The reader that a hook's call brings; `render` has none.
pub(crate) fn reader_of(call: &HookCall) -> Option<Arc<dyn CatalogueReader>> {
    Some(call.reader.clone())
}

fn read<T>(take: impl FnOnce(&mut AnswerReader) -> Option<T>) -> Result<T, Failure> {
    let mut reader = AnswerReader::default();
    let taken = take(&mut reader);
    let mistakes = reader.into_mistakes();
    match taken {
        Some(value) if mistakes.is_empty() => Ok(value),
        _ => Err(Failure::Nonsense(mistakes)),
    }
}

/// Reads what `normalize` and `upgrade` return: the configuration, or nil and errors.
fn configuration_or_errors(
    answer: &Value,
    errors: &Value,
    values: &Map,
    facts: &Facts,
) -> Result<Result<Map, Vec<FieldError>>, Failure> {
    if answer.is_nil() && !errors.is_nil() {
        let errors = field_errors(errors, facts)?;
        if !errors.is_empty() {
            return Ok(Err(errors));
        }
    }
    read(|reader| reader.configuration(answer, values)).map(Ok)
}

fn nonsense(expected: &str, found: &str) -> Failure {
    Failure::Nonsense(vec![Mistake {
        path: Path::default(),
        expected: expected.to_owned(),
        found: found.to_owned(),
        help: None,
        at_key: false,
    }])
}

fn text(answer: &Value, expected: &str) -> Result<String, Failure> {
    match answer {
        Value::String(text) => read(|reader| reader.text(text, &Trail::ROOT)),
        other => Err(nonsense(expected, kind(other))),
    }
}

/// Whether a page may send people there. Any other scheme could be a script, which would run as the page.
fn is_link(text: &str) -> bool {
    let begins = |scheme: &str| {
        text.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    text.is_empty() || begins("https://") || begins("http://")
}

/// How many errors of one answer are told; a person who mends these finds the rest with the next answer.
const MAX_ERRORS: usize = 100;

/// Reads errors: nothing, a text, one error, or a list of these.
fn field_errors(answer: &Value, facts: &Facts) -> Result<Vec<FieldError>, Failure> {
    const EXPECTED: &str =
        "a list of errors, such as { { field = \"database\", message = \"…\" } }, or nothing";
    let term = read(|reader| Some(reader.term(answer, &Trail::ROOT)))?;
    let mut mistakes = Mistakes::default();
    let mut errors = Vec::new();
    match term {
        Term::Nil | Term::Null => {}
        Term::List(items) => {
            let left_out = items.len().saturating_sub(MAX_ERRORS);
            for (place, item) in items.into_iter().take(MAX_ERRORS).enumerate() {
                let path = Path::default().index(place + 1);
                errors.extend(field_error(item, path, facts, &mut mistakes));
            }
            if left_out > 0 {
                errors.push(FieldError {
                    field: None,
                    message: format!("{left_out} more errors are left out"),
                });
            }
        }
        one @ (Term::String(_) | Term::Table(_)) => {
            errors.extend(field_error(one, Path::default(), facts, &mut mistakes));
        }
        other => mistakes.add(Path::default(), EXPECTED, other.found()),
    }
    mistakes
        .into_result(Some(errors))
        .map_err(Failure::Nonsense)
}

fn field_error(
    term: Term,
    path: Path,
    facts: &Facts,
    mistakes: &mut Mistakes,
) -> Option<FieldError> {
    if let Term::String(message) = term {
        return Some(FieldError {
            field: None,
            message: shortened(message, MAX_MESSAGE),
        });
    }
    let mut table = TableReader::open(
        term,
        path,
        "an error: { field = \"…\", message = \"…\" }, or a text",
        mistakes,
    )?;
    let field = table.string("field", mistakes);
    let message = table.required_string("message", mistakes);
    let field_path = table.path_of("field");
    table.finish(mistakes);
    if let Some(field) = &field {
        let names = || {
            facts
                .definition
                .fields
                .iter()
                .map(|known| known.name.as_str())
        };
        if !names().any(|known| known == field) {
            let found = format!("{field:?}");
            const EXPECTED: &str = "the name of one of the plugin's fields";
            match nearest(field, names()) {
                Some(near) => mistakes.add_with_help(
                    field_path,
                    EXPECTED,
                    found,
                    format!("did you mean `{near}`?"),
                ),
                None => mistakes.add(field_path, EXPECTED, found),
            }
        }
    }
    Some(FieldError {
        field,
        message: shortened(message?, MAX_MESSAGE),
    })
}

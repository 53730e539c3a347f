//! What an expectation comes to: nothing, or a failure that is raised.

use mlua::{Lua, Value};
use patchbay_plugin::term::Term;

use super::compare::{contains, difference, equal, has_function, shown};
use super::snapshots::Kept;
use super::{Failure, SpecHost};
use crate::api::raised;
use crate::explain::explain;
use crate::queue::lock;
use crate::require::Modules;
use crate::running::place_of;
use crate::values::{AnswerReader, Trail, kind};

/// A failed expectation. Raised, so that the test ends there.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
struct Judged(Failure);

/// What the plugin under test could not answer. Raised, and an expectation may catch it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unanswered(pub(super) Failure);

pub(super) fn failure_of(error: &mlua::Error) -> Option<&Failure> {
    match error {
        mlua::Error::ExternalError(error) => error
            .downcast_ref::<Judged>()
            .map(|judged| &judged.0)
            .or_else(|| error.downcast_ref::<Unanswered>().map(|asked| &asked.0)),
        mlua::Error::CallbackError { cause, .. } => failure_of(cause),
        _ => None,
    }
}

fn is_judged(error: &mlua::Error) -> bool {
    match error {
        mlua::Error::ExternalError(error) => error.is::<Judged>(),
        mlua::Error::CallbackError { cause, .. } => is_judged(cause),
        _ => false,
    }
}

/// A failure at the line of the spec that runs now.
pub(super) fn failure(lua: &Lua, message: String) -> Failure {
    let (file, line) = place_of(lua).unzip();
    Failure {
        message,
        file,
        line,
        source_line: None,
        expected: None,
        found: None,
        diff: None,
    }
}

fn failed(failure: Failure) -> mlua::Error {
    mlua::Error::external(Judged(failure))
}

/// A failure that shows what was expected beside what was found.
fn differing(lua: &Lua, message: String, expected: String, found: String) -> mlua::Error {
    failed(Failure {
        diff: difference(&expected, &found),
        expected: Some(expected),
        found: Some(found),
        ..failure(lua, message)
    })
}

/// A value as plain data, or why it is none.
fn term_of(value: &Value, what: &str) -> mlua::Result<Term> {
    let mut reader = AnswerReader::default();
    let term = reader.term(value, &Trail::ROOT);
    match reader.into_mistakes().first() {
        None => Ok(term),
        Some(mistake) => Err(raised(format!(
            "{what} cannot be compared: {mistake}; to_be compares values that are no plain data"
        ))),
    }
}

/// A value for a message, whatever it is.
fn shown_value(value: &Value) -> String {
    let mut reader = AnswerReader::default();
    let term = reader.term(value, &Trail::ROOT);
    match reader.into_mistakes().is_empty() {
        true => shown(&term),
        false => kind(value).to_owned(),
    }
}

pub(super) fn judge(
    lua: &Lua,
    (matcher, negated, found, expected): (String, bool, Value, Value),
) -> mlua::Result<()> {
    let never = if negated { "never " } else { "" };
    let (holds, message) = match matcher.as_str() {
        "to_be" => {
            let same = found == expected;
            let both_tables = found.is_table() && expected.is_table();
            let hint = match both_tables && !same {
                true => {
                    "; tables are only the same when they are one, to_equal compares what they hold"
                }
                false => "",
            };
            (
                same,
                format!("it should {never}be the expected value{hint}"),
            )
        }
        "to_contain" => {
            let whole = term_of(&found, "what was found")?;
            let part = term_of(&expected, "what is expected")?;
            let Some(holds) = contains(&whole, &part) else {
                return Err(raised(format!(
                    "to_contain looks for a text in a text, for an item in a list or for entries in a table, not for {} in {}",
                    part.kind(),
                    whole.kind(),
                )));
            };
            (holds, format!("it should {never}contain what is expected"))
        }
        _ => {
            let one = term_of(&found, "what was found")?;
            let other = term_of(&expected, "what is expected")?;
            if has_function(&one) || has_function(&other) {
                return Err(raised(
                    "functions cannot be compared with to_equal; to_be tells whether two are the same",
                ));
            }
            (
                equal(&one, &other),
                format!("it should {never}equal what is expected"),
            )
        }
    };
    if holds != negated {
        return Ok(());
    }
    Err(differing(
        lua,
        message,
        shown_value(&expected),
        shown_value(&found),
    ))
}

pub(super) fn judge_match(
    lua: &Lua,
    (negated, found, pattern, matched): (bool, Value, String, bool),
) -> mlua::Result<()> {
    if matched != negated {
        return Ok(());
    }
    let never = if negated { "never " } else { "" };
    let message = format!("it should {never}match the pattern");
    Err(differing(
        lua,
        message,
        format!("{pattern:?}"),
        shown_value(&found),
    ))
}

pub(super) fn judge_failure(
    lua: &Lua,
    modules: &Modules,
    (negated, ended, raised, wanted): (bool, bool, Value, Option<String>),
) -> mlua::Result<()> {
    if ended {
        return match negated {
            true => Ok(()),
            false => Err(failed(failure(
                lua,
                "it should fail, and did not".to_owned(),
            ))),
        };
    }
    let message = match &raised {
        // What the function itself expected in vain is not what it was expected to fail with.
        Value::Error(error) if is_judged(error) => return Err(error.as_ref().clone()),
        Value::Error(error) => match failure_of(error) {
            Some(failure) => failure.message.clone(),
            None => explain(error, modules.source()).message,
        },
        Value::String(text) => {
            let error = mlua::Error::RuntimeError(text.to_string_lossy());
            explain(&error, modules.source()).message
        }
        other => shown_value(other),
    };
    let fits = wanted
        .as_ref()
        .is_none_or(|wanted| message.contains(wanted.as_str()));
    match (negated, fits) {
        (false, true) | (true, false) => Ok(()),
        (true, true) => Err(failed(failure(
            lua,
            format!("it should not fail, and did: {message}"),
        ))),
        (false, false) => Err(differing(
            lua,
            "it should fail with the expected message".to_owned(),
            wanted
                .map(|wanted| format!("{wanted:?}"))
                .unwrap_or_default(),
            format!("{message:?}"),
        )),
    }
}

pub(super) fn judge_snapshot(
    lua: &Lua,
    spec: &SpecHost,
    (name, found): (String, Value),
) -> mlua::Result<()> {
    let term = term_of(&found, "what was found")?;
    if has_function(&term) {
        return Err(raised("a snapshot holds plain data, and no function"));
    }
    let kept = lock(&spec.book).look(&name, &term);
    match kept {
        Kept::Same => Ok(()),
        Kept::Missing => Err(failed(failure(
            lua,
            format!("there is no snapshot {name:?} yet; run the tests with --update to write it"),
        ))),
        Kept::Differs(known) => Err(differing(
            lua,
            format!(
                "it should match the snapshot {name:?}; if it is right as it is now, run the tests with --update"
            ),
            shown(&known),
            shown(&term),
        )),
    }
}

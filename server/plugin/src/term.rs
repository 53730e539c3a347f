//! What a Lua file or hook returned, as plain data, and the reader that checks it.
//!
//! A [`Term`] is a tree without code: functions are only marked as present. A [`TableReader`] takes a table apart key
//! by key; each mistake is kept with its path in a [`Mistakes`] list, so that all mistakes of a file come at once.

use std::fmt;

use serde_json::{Number, Value};

use crate::Map;
use crate::name::nearest;

/// A value that came out of Lua.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// `nil`. Only ever the whole of an answer: a nil in a table is an absent key.
    Nil,
    /// `true` or `false`.
    Boolean(bool),
    /// A number with an integral value within ±(2^53−1).
    Integer(i64),
    /// Any other finite number.
    Number(f64),
    /// A string; always UTF-8 and without NUL.
    String(String),
    /// A table with the keys 1 to n. An empty table is an empty list, and reads as an empty table too.
    List(Vec<Term>),
    /// A table with text keys, ordered by key because Lua has no order.
    Table(Vec<(String, Term)>),
    /// A function, whose code stays in the sandbox.
    Function,
    /// The marker for JSON `null`, `patchbay.null`.
    Null,
}

impl Term {
    /// What an author would call this: "a string", "nothing", …
    pub fn kind(&self) -> &'static str {
        match self {
            Term::Nil => "nothing",
            Term::Boolean(_) => "a boolean",
            Term::Integer(_) => "an integer",
            Term::Number(_) => "a number",
            Term::String(_) => "a string",
            Term::List(items) if items.is_empty() => "an empty table",
            Term::List(_) => "a list",
            Term::Table(_) => "a table",
            Term::Function => "a function",
            Term::Null => "patchbay.null",
        }
    }

    /// What was found, short enough for a message: the kind, and a scalar's value.
    pub fn found(&self) -> String {
        match self {
            Term::Boolean(value) => value.to_string(),
            Term::Integer(value) => value.to_string(),
            Term::Number(value) => value.to_string(),
            Term::String(text) => {
                let mut shown: String = text.chars().take(60).collect();
                if shown.len() < text.len() {
                    shown.push('…');
                }
                format!("{shown:?}")
            }
            other => other.kind().to_owned(),
        }
    }

    /// The term of plain JSON. A number that is neither an exact integer nor finite becomes null.
    pub fn from_json(value: Value) -> Term {
        match value {
            Value::Null => Term::Null,
            Value::Bool(value) => Term::Boolean(value),
            Value::Number(number) => match number.as_i64() {
                Some(integer) => Term::Integer(integer),
                None => number.as_f64().map_or(Term::Null, Term::Number),
            },
            Value::String(text) => Term::String(text),
            Value::Array(items) => Term::List(items.into_iter().map(Term::from_json).collect()),
            Value::Object(entries) => Term::Table(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, Term::from_json(value)))
                    .collect(),
            ),
        }
    }

    /// The JSON of plain data; a function has none and becomes null.
    pub fn into_json(self) -> Value {
        match self {
            Term::Nil | Term::Null | Term::Function => Value::Null,
            Term::Boolean(value) => Value::Bool(value),
            Term::Integer(value) => Value::Number(value.into()),
            Term::Number(value) => Number::from_f64(value).map_or(Value::Null, Value::Number),
            Term::String(text) => Value::String(text),
            Term::List(items) => Value::Array(items.into_iter().map(Term::into_json).collect()),
            Term::Table(entries) => Value::Object(
                entries
                    .into_iter()
                    .map(|(key, term)| (key, term.into_json()))
                    .collect::<Map>(),
            ),
        }
    }
}

/// One step of a path into a term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A key of a table.
    Key(String),
    /// A place in a list, counted from 1 as Lua does.
    Index(usize),
}

/// Where in a definition something is: `fields[2].default`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(pub Vec<Step>);

impl Step {
    /// A key, shortened where it is longer than anyone would write.
    pub fn key(key: &str) -> Step {
        Step::Key(match key.char_indices().nth(MAX_KEY) {
            Some((end, _)) => format!("{}…", &key[..end]),
            None => key.to_owned(),
        })
    }
}

impl Path {
    /// The path one key further.
    pub fn key(&self, key: &str) -> Path {
        let mut steps = self.0.clone();
        steps.push(Step::key(key));
        Path(steps)
    }

    /// The path one place further; `index` counts from 1.
    pub fn index(&self, index: usize) -> Path {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Path(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if place == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The longest key that a path shows, in characters. A plugin may make keys of megabytes, and a mistake for each.
const MAX_KEY: usize = 100;
/// The longest text in a mistake, in characters.
pub const MAX_WORDS: usize = 500;

/// How many mistakes are noted at once: an author mends these, and sees the next ones then.
const MAX_MISTAKES: usize = 200;

/// The text, and `…` in the place of all that is past so many characters.
pub fn shortened(text: impl Into<String>, characters: usize) -> String {
    let mut text = text.into();
    if let Some((end, _)) = text.char_indices().nth(characters) {
        text.truncate(end);
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

/// One thing that is wrong in a definition, a form or another answer of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where, inside the returned table.
    pub path: Path,
    /// What would have been right.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// What to do, where there is more to say than the expectation.
    pub help: Option<String>,
    /// Whether the mistake is the key at the end of `path` itself rather than its value.
    pub at_key: bool,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.0.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "expected {}, found {}", self.expected, self.found)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    fn note(&mut self, mistake: Mistake) {
        if self.0.len() < MAX_MISTAKES {
            self.0.push(mistake);
        }
    }

    /// Notes a mistake in the value at `path`.
    pub fn add(&mut self, path: Path, expected: impl Into<String>, found: impl Into<String>) {
        self.note(Mistake {
            path,
            expected: shortened(expected, MAX_WORDS),
            found: shortened(found, MAX_WORDS),
            help: None,
            at_key: false,
        });
    }

    /// Notes a mistake in the value at `path`, and what to do about it.
    pub fn add_with_help(
        &mut self,
        path: Path,
        expected: impl Into<String>,
        found: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.note(Mistake {
            path,
            expected: shortened(expected, MAX_WORDS),
            found: shortened(found, MAX_WORDS),
            help: Some(shortened(help, MAX_WORDS)),
            at_key: false,
        });
    }

    /// Notes a mistake in the key at the end of `path` rather than in its value.
    pub fn add_at_key(
        &mut self,
        path: Path,
        expected: impl Into<String>,
        found: impl Into<String>,
        help: Option<String>,
    ) {
        self.note(Mistake {
            path,
            expected: shortened(expected, MAX_WORDS),
            found: shortened(found, MAX_WORDS),
            help: help.map(|help| shortened(help, MAX_WORDS)),
            at_key: true,
        });
    }

    /// Notes a key that nothing reads, with the nearest right one.
    fn add_unknown_key(&mut self, path: Path, key: &str, known: &[&str]) {
        let help =
            nearest(key, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        let mut sorted = known.to_vec();
        sorted.sort_unstable();
        self.note(Mistake {
            path,
            expected: format!("one of the keys {}", sorted.join(", ")),
            found: format!("`{key}`"),
            help: help.map(|help| shortened(help, MAX_WORDS)),
            at_key: true,
        });
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many mistakes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The mistakes, in the order in which they were noted.
    pub fn into_list(self) -> Vec<Mistake> {
        self.0
    }

    /// The value when nothing is wrong, else every mistake.
    ///
    /// # Errors
    /// Every mistake that was noted.
    pub fn into_result<T>(self, value: Option<T>) -> Result<T, Vec<Mistake>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}

/// Takes a table apart: each key is taken at most once, and what is left at the end is unknown.
pub struct TableReader {
    path: Path,
    entries: Vec<(String, Option<Term>)>,
    known: Vec<&'static str>,
}

impl TableReader {
    /// Opens `term` as a table with text keys; notes a mistake and gives none when it is something else.
    pub fn open(
        term: Term,
        path: Path,
        expected: &str,
        mistakes: &mut Mistakes,
    ) -> Option<TableReader> {
        let entries = match term {
            Term::Table(entries) => entries
                .into_iter()
                .map(|(key, term)| (key, Some(term)))
                .collect(),
            Term::List(items) if items.is_empty() => Vec::new(),
            other => {
                mistakes.add(path, expected, other.found());
                return None;
            }
        };
        Some(TableReader {
            path,
            entries,
            // Room for the keys of an element of a form, the table that is read most often.
            known: Vec::with_capacity(24),
        })
    }

    /// The path of the table itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a key in it.
    pub fn path_of(&self, key: &str) -> Path {
        self.path.key(key)
    }

    /// Whether the key is there and has not been taken.
    pub fn has(&self, key: &str) -> bool {
        self.entries
            .iter()
            .any(|(name, term)| name == key && term.is_some())
    }

    /// What is at `key`, which stays to be taken.
    pub(crate) fn peek(&self, key: &str) -> Option<&Term> {
        let found = self.entries.iter().find(|(name, _)| name == key);
        found.and_then(|(_, term)| term.as_ref())
    }

    /// Takes whatever is at `key`.
    pub fn take(&mut self, key: &'static str) -> Option<Term> {
        self.known.push(key);
        self.entries
            .iter_mut()
            .find(|(name, _)| name == key)
            .and_then(|(_, term)| term.take())
    }

    /// Takes a string.
    pub fn string(&mut self, key: &'static str, mistakes: &mut Mistakes) -> Option<String> {
        self.typed(key, "a string", mistakes, |term| match term {
            Term::String(text) => Ok(text),
            other => Err(other),
        })
    }

    /// Takes a string that must be there.
    pub fn required_string(
        &mut self,
        key: &'static str,
        mistakes: &mut Mistakes,
    ) -> Option<String> {
        if !self.has(key) {
            self.known.push(key);
            mistakes.add(self.path_of(key), "a string", "nothing");
            return None;
        }
        self.string(key, mistakes)
    }

    /// Takes a boolean.
    pub fn boolean(&mut self, key: &'static str, mistakes: &mut Mistakes) -> Option<bool> {
        self.typed(key, "true or false", mistakes, |term| match term {
            Term::Boolean(value) => Ok(value),
            other => Err(other),
        })
    }

    /// Takes an integer.
    pub fn integer(&mut self, key: &'static str, mistakes: &mut Mistakes) -> Option<i64> {
        self.typed(key, "an integer", mistakes, |term| match term {
            Term::Integer(value) => Ok(value),
            other => Err(other),
        })
    }

    /// Takes a count: an integer of zero or more.
    pub fn count(&mut self, key: &'static str, mistakes: &mut Mistakes) -> Option<u32> {
        self.typed(
            key,
            "an integer of 0 or more",
            mistakes,
            |term| match term {
                Term::Integer(value) => u32::try_from(value).map_err(|_| Term::Integer(value)),
                other => Err(other),
            },
        )
    }

    /// Takes a number, integral or not.
    pub fn number(&mut self, key: &'static str, mistakes: &mut Mistakes) -> Option<f64> {
        self.typed(key, "a number", mistakes, |term| match term {
            Term::Integer(value) => Ok(value as f64),
            Term::Number(value) => Ok(value),
            other => Err(other),
        })
    }

    /// Takes a list.
    pub fn list(
        &mut self,
        key: &'static str,
        expected: &str,
        mistakes: &mut Mistakes,
    ) -> Option<Vec<Term>> {
        self.typed(key, expected, mistakes, |term| match term {
            Term::List(items) => Ok(items),
            other => Err(other),
        })
    }

    /// Takes a list of strings.
    pub fn strings(&mut self, key: &'static str, mistakes: &mut Mistakes) -> Option<Vec<String>> {
        let items = self.list(key, "a list of strings", mistakes)?;
        let path = self.path_of(key);
        let mut strings = Vec::with_capacity(items.len());
        for (place, item) in items.into_iter().enumerate() {
            match item {
                Term::String(text) => strings.push(text),
                other => mistakes.add(path.index(place + 1), "a string", other.found()),
            }
        }
        Some(strings)
    }

    /// Takes a function, and says whether it is there.
    pub fn function(&mut self, key: &'static str, mistakes: &mut Mistakes) -> bool {
        self.typed(key, "a function", mistakes, |term| match term {
            Term::Function => Ok(()),
            other => Err(other),
        })
        .is_some()
    }

    /// Takes a string and parses it into one of the types of [`crate::name`].
    pub fn name<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, crate::name::NameError>,
        mistakes: &mut Mistakes,
    ) -> Option<T> {
        let text = self.string(key, mistakes)?;
        match parse(&text) {
            Ok(name) => Some(name),
            Err(error) => {
                mistakes.add(self.path_of(key), error.expected, format!("{text:?}"));
                None
            }
        }
    }

    /// Everything that has not been taken, for tables that allow keys of their own.
    pub fn rest(self) -> Vec<(String, Term)> {
        self.entries
            .into_iter()
            .filter_map(|(key, term)| term.map(|term| (key, term)))
            .collect()
    }

    /// Ends the reading: what has not been taken is an unknown key.
    pub fn finish(self, mistakes: &mut Mistakes) {
        for (key, term) in &self.entries {
            if term.is_some() {
                mistakes.add_unknown_key(self.path.key(key), key, &self.known);
            }
        }
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        mistakes: &mut Mistakes,
        convert: impl FnOnce(Term) -> Result<T, Term>,
    ) -> Option<T> {
        match convert(self.take(key)?) {
            Ok(value) => Some(value),
            Err(other) => {
                mistakes.add(self.path_of(key), expected, other.found());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_come_at_once_with_the_nearest_key() {
        let mut mistakes = Mistakes::default();
        let term = Term::Table(vec![
            ("name".into(), Term::Integer(5)),
            ("requred".into(), Term::Boolean(true)),
        ]);
        let mut table =
            TableReader::open(term, Path::default(), "a table", &mut mistakes).expect("a table");
        table.string("name", &mut mistakes);
        table.boolean("required", &mut mistakes);
        table.finish(&mut mistakes);
        let messages: Vec<String> = mistakes
            .into_result(Some(()))
            .expect_err("two mistakes")
            .iter()
            .map(Mistake::to_string)
            .collect();
        assert_eq!(
            messages,
            [
                "name: expected a string, found 5",
                "requred: expected one of the keys name, required, found `requred` (did you mean `required`?)"
            ]
        );
    }
}

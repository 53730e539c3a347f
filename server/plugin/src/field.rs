//! Fields: what a configuration of a plugin consists of, and what values each accepts.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use regex::Regex;
use serde::Serialize;
use serde_json::{Value, json};

use crate::Map;
use crate::form::MAX_OPTIONS;
use crate::name::FieldName;
use crate::term::{Mistakes, Path, TableReader, Term};
use crate::validation::{Loc, LocStep, ValidationError, at};
use crate::visibility::{Dependency, dependencies, dependencies_hold};

/// The largest integer that Lua, JSON clients and both databases hold exactly.
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

/// How many errors of one request repeat what was sent.
pub const MAX_INPUTS: usize = 20;

/// How many errors of one configuration are told; of the others only how many there are.
pub const MAX_ERRORS: usize = 100;

/// The errors of one configuration. Those that are too many are never made, since each is larger than what it is about.
#[derive(Default)]
struct Errors {
    told: Vec<ValidationError>,
    more: usize,
}

impl Errors {
    fn add(&mut self, error: impl FnOnce() -> ValidationError) {
        match self.told.len() < MAX_ERRORS {
            true => self.told.push(error()),
            false => self.more += 1,
        }
    }

    fn finish(mut self, loc: &Loc) -> Vec<ValidationError> {
        if self.more > 0 {
            self.told
                .push(ValidationError::more(loc.clone(), self.more));
        }
        self.told
    }
}

/// One field of a configuration; also one column of the plugin's table.
///
/// Serialised, it is the table that `field.<kind>` builds, so that a stored definition is read back by [`Field::read`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    /// Its name, and its column's.
    pub name: FieldName,
    /// The values it accepts.
    #[serde(flatten)]
    pub kind: FieldKind,
    /// Whether a configuration must bring it, as long as `depends_on` holds.
    pub required: bool,
    /// What it is when the configuration does not bring it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// What the other fields must be for `required` to count. All must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    /// What it is called where a form derived from the fields shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What it is for; a derived form shows it as the tooltip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// The kinds of fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum FieldKind {
    /// Text. `min` and `max` count characters.
    String {
        /// A pattern that some part of the text must match; anchor it to match the whole.
        #[serde(skip_serializing_if = "Option::is_none")]
        pattern: Option<Pattern>,
        /// The least number of characters.
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<u32>,
        /// The greatest number of characters.
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<u32>,
    },
    /// An integer within ±(2^53−1).
    Integer {
        /// The least value.
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<i64>,
        /// The greatest value.
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<i64>,
    },
    /// A finite number.
    Number {
        /// The least value.
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<f64>,
        /// The greatest value.
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<f64>,
    },
    /// True or false.
    Boolean,
    /// One of a closed list of texts.
    Enum {
        /// The texts, in the order in which an error lists them.
        values: Vec<String>,
    },
    /// A list of scalars of one kind.
    List {
        /// What its items are.
        of: ItemKind,
        /// The least number of items.
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<u32>,
        /// The greatest number of items.
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<u32>,
    },
    /// Any JSON.
    Json,
}

/// What the items of a list field are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemKind {
    /// Texts.
    String,
    /// Integers within ±(2^53−1).
    Integer,
    /// Finite numbers.
    Number,
    /// Booleans.
    Boolean,
}

/// A checked regular expression. Matching is linear in the text, whatever the pattern.
#[derive(Clone, Serialize)]
#[serde(into = "String")]
pub struct Pattern(Arc<Regex>);

impl Pattern {
    /// Compiles the pattern, or says what is wrong with it.
    ///
    /// # Errors
    /// What the regular expression breaks, in the words of the `regex` crate, or that it is too large.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        regex::RegexBuilder::new(text)
            .size_limit(256 * 1024)
            .build()
            .map(|regex| Pattern(Arc::new(regex)))
            .map_err(|error| error.to_string())
    }

    /// Whether some part of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.as_str().to_owned()
    }
}

/// The kinds that `field.<kind>` builds, for messages and the Lua API.
pub const FIELD_KINDS: &[&str] = &[
    "string", "integer", "number", "boolean", "enum", "list", "json",
];

impl FieldKind {
    /// The word of `field.<kind>`.
    pub fn word(&self) -> &'static str {
        match self {
            FieldKind::String { .. } => "string",
            FieldKind::Integer { .. } => "integer",
            FieldKind::Number { .. } => "number",
            FieldKind::Boolean => "boolean",
            FieldKind::Enum { .. } => "enum",
            FieldKind::List { .. } => "list",
            FieldKind::Json => "json",
        }
    }

    /// Checks one value. Gives it as it is stored, or adds to `errors`.
    fn check(&self, value: &Value, loc: &dyn Fn() -> Loc, errors: &mut Errors) -> Option<Value> {
        let wrong = |wanted: &str| ValidationError::wrong_type(wanted, loc(), value.clone());
        let broken = |msg: String| ValidationError::value(loc(), msg, value.clone());
        match self {
            FieldKind::String { pattern, min, max } => {
                let Value::String(text) = value else {
                    errors.add(|| wrong("string"));
                    return None;
                };
                let length = text.chars().count();
                if text.contains('\0') {
                    errors.add(|| ValidationError::has_nul(loc(), value.clone()));
                } else if min.is_some_and(|min| length < min as usize) {
                    errors.add(|| {
                        broken(format!(
                            "Should have at least {} characters",
                            min.unwrap_or(0)
                        ))
                    });
                } else if max.is_some_and(|max| length > max as usize) {
                    errors.add(|| {
                        broken(format!(
                            "Should have at most {} characters",
                            max.unwrap_or(0)
                        ))
                    });
                } else if let Some(pattern) =
                    pattern.as_ref().filter(|pattern| !pattern.is_match(text))
                {
                    errors.add(|| broken(format!("Should match the pattern {}", pattern.as_str())));
                } else {
                    return Some(value.clone());
                }
                None
            }
            FieldKind::Integer { min, max } => {
                let Some(number) = integer_of(value) else {
                    errors.add(|| wrong("integer"));
                    return None;
                };
                if number.abs() > MAX_INTEGER {
                    errors.add(|| broken(format!("Should be within ±{MAX_INTEGER}")));
                } else if min.is_some_and(|min| number < min) {
                    errors.add(|| broken(format!("Should be at least {}", min.unwrap_or(0))));
                } else if max.is_some_and(|max| number > max) {
                    errors.add(|| broken(format!("Should be at most {}", max.unwrap_or(0))));
                } else {
                    return Some(Value::from(number));
                }
                None
            }
            FieldKind::Number { min, max } => {
                let Some(number) = value
                    .as_f64()
                    .filter(|number| value.is_number() && number.is_finite())
                else {
                    errors.add(|| wrong("number"));
                    return None;
                };
                if min.is_some_and(|min| number < min) {
                    errors.add(|| broken(format!("Should be at least {}", min.unwrap_or(0.0))));
                } else if max.is_some_and(|max| number > max) {
                    errors.add(|| broken(format!("Should be at most {}", max.unwrap_or(0.0))));
                } else {
                    return Some(value.clone());
                }
                None
            }
            FieldKind::Boolean => {
                if value.is_boolean() {
                    return Some(value.clone());
                }
                errors.add(|| wrong("boolean"));
                None
            }
            FieldKind::Enum { values } => {
                if value
                    .as_str()
                    .is_some_and(|text| values.iter().any(|allowed| allowed == text))
                {
                    return Some(value.clone());
                }
                errors.add(|| ValidationError::not_in_enum(values, loc(), value.clone()));
                None
            }
            FieldKind::List { of, min, max } => {
                let Value::Array(items) = value else {
                    errors.add(|| wrong("list"));
                    return None;
                };
                if min.is_some_and(|min| items.len() < min as usize) {
                    errors
                        .add(|| broken(format!("Should have at least {} items", min.unwrap_or(0))));
                    return None;
                }
                if max.is_some_and(|max| items.len() > max as usize) {
                    errors
                        .add(|| broken(format!("Should have at most {} items", max.unwrap_or(0))));
                    return None;
                }
                let item = of.as_field();
                let checked: Vec<Value> = items
                    .iter()
                    .enumerate()
                    .filter_map(|(place, value)| item.check(value, &|| at(&loc(), place), errors))
                    .collect();
                (checked.len() == items.len()).then_some(Value::Array(checked))
            }
            FieldKind::Json => {
                if contains_nul(value) {
                    errors.add(|| ValidationError::has_nul(loc(), value.clone()));
                    return None;
                }
                Some(value.clone())
            }
        }
    }
}

impl ItemKind {
    fn as_field(self) -> FieldKind {
        match self {
            ItemKind::String => FieldKind::String {
                pattern: None,
                min: None,
                max: None,
            },
            ItemKind::Integer => FieldKind::Integer {
                min: None,
                max: None,
            },
            ItemKind::Number => FieldKind::Number {
                min: None,
                max: None,
            },
            ItemKind::Boolean => FieldKind::Boolean,
        }
    }
}

/// The integer that a JSON number is, also when it is written as `5.0`.
fn integer_of(value: &Value) -> Option<i64> {
    let Value::Number(number) = value else {
        return None;
    };
    if let Some(integer) = number.as_i64() {
        return Some(integer);
    }
    let float = number.as_f64()?;
    (float.fract() == 0.0 && float.abs() <= MAX_INTEGER as f64).then_some(float as i64)
}

/// Whether a text or key anywhere in `value` holds the one character that Postgres cannot store.
pub fn contains_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(contains_nul),
        Value::Object(entries) => entries
            .iter()
            .any(|(key, value)| key.contains('\0') || contains_nul(value)),
        _ => false,
    }
}

impl Field {
    /// Whether its column may be null: a field that may be left out and has no default, or that is only required at
    /// times.
    pub fn is_nullable(&self) -> bool {
        match &self.default {
            Some(default) => default.is_null(),
            None => !self.required || !self.depends_on.is_empty(),
        }
    }

    /// Reads what `field.<kind> "name" {…}` built. Notes every mistake.
    pub fn read(term: Term, path: Path, mistakes: &mut Mistakes) -> Option<Field> {
        let expected = "a field, such as field.string \"database\" { required = true }";
        let mut table = TableReader::open(term, path, expected, mistakes)?;
        let before = mistakes.len();
        let kind_word = table.take("type");
        let Some(Term::String(kind_word)) = kind_word else {
            mistakes.add(
                table.path().clone(),
                expected,
                "a table that no `field` function built",
            );
            return None;
        };
        let name = table.name("name", FieldName::parse, mistakes);
        let required = table.boolean("required", mistakes);
        let default = table.take("default");
        let depends_on = match table.take("depends_on") {
            Some(term) => dependencies(term, table.path_of("depends_on"), mistakes),
            None => Vec::new(),
        };
        let label = table.string("label", mistakes);
        let description = table.string("description", mistakes);
        let kind = match kind_word.as_str() {
            "string" => FieldKind::String {
                pattern: read_pattern(&mut table, mistakes),
                min: table.count("min", mistakes),
                max: table.count("max", mistakes),
            },
            "integer" => FieldKind::Integer {
                min: table.integer("min", mistakes),
                max: table.integer("max", mistakes),
            },
            "number" => FieldKind::Number {
                min: table.number("min", mistakes),
                max: table.number("max", mistakes),
            },
            "boolean" => FieldKind::Boolean,
            "enum" => FieldKind::Enum {
                values: read_enum_values(&mut table, mistakes),
            },
            "list" => FieldKind::List {
                of: read_item_kind(&mut table, mistakes),
                min: table.count("min", mistakes),
                max: table.count("max", mistakes),
            },
            "json" => FieldKind::Json,
            other => {
                mistakes.add(
                    table.path().clone(),
                    format!("a field of one of the kinds {}", FIELD_KINDS.join(", ")),
                    format!("{other:?}"),
                );
                return None;
            }
        };
        check_order(&kind, &table, mistakes);
        let path = table.path().clone();
        table.finish(mistakes);

        let mut field = Field {
            name: name?,
            kind,
            required: required.unwrap_or(false),
            default: None,
            depends_on,
            label,
            description,
        };
        if let Some(default) = default {
            if field.required {
                mistakes.add_with_help(
                    path.key("default"),
                    "no default on a required field",
                    default.found(),
                    "a required field is always brought; drop `required` or `default`",
                );
            }
            let found = default.found();
            let value = default.into_json();
            if !value.is_null() {
                let mut errors = Errors::default();
                if field.kind.check(&value, &Loc::new, &mut errors).is_none() {
                    let message = errors
                        .told
                        .first()
                        .map(|error| error.msg.clone())
                        .unwrap_or_default();
                    mistakes.add_with_help(
                        path.key("default"),
                        format!(
                            "a value that the field itself accepts ({})",
                            field.kind.word()
                        ),
                        found,
                        message,
                    );
                }
            }
            field.default = Some(value);
        }
        (mistakes.len() == before).then_some(field)
    }
}

fn read_pattern(table: &mut TableReader, mistakes: &mut Mistakes) -> Option<Pattern> {
    let text = table.string("pattern", mistakes)?;
    match Pattern::parse(&text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let last = error
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned();
            mistakes.add_with_help(
                table.path_of("pattern"),
                "a regular expression (not a Lua pattern), such as \"^[a-z]+$\"",
                format!("{text:?}"),
                last,
            );
            None
        }
    }
}

fn read_enum_values(table: &mut TableReader, mistakes: &mut Mistakes) -> Vec<String> {
    let has_values = table.has("values");
    let values = table.strings("values", mistakes).unwrap_or_default();
    let path = table.path_of("values");
    if !has_values {
        mistakes.add(
            path,
            "the list of allowed texts, such as { \"schema\", \"table\" }",
            "nothing",
        );
    } else if values.is_empty() {
        mistakes.add(path, "at least one allowed text", "an empty list");
    } else if values.len() > MAX_OPTIONS {
        mistakes.add(
            path,
            format!("at most {MAX_OPTIONS} texts"),
            format!("{} texts", values.len()),
        );
    } else if let Some(twice) = first_repeated(&values) {
        mistakes.add(path, "each text once", format!("{twice:?} twice"));
    }
    values
}

fn read_item_kind(table: &mut TableReader, mistakes: &mut Mistakes) -> ItemKind {
    match table.string("of", mistakes).as_deref() {
        None | Some("string") => ItemKind::String,
        Some("integer") => ItemKind::Integer,
        Some("number") => ItemKind::Number,
        Some("boolean") => ItemKind::Boolean,
        Some(other) => {
            mistakes.add(
                table.path_of("of"),
                "\"string\", \"integer\", \"number\" or \"boolean\"",
                format!("{other:?}"),
            );
            ItemKind::String
        }
    }
}

fn check_order(kind: &FieldKind, table: &TableReader, mistakes: &mut Mistakes) {
    let reversed = match kind {
        FieldKind::String { min, max, .. } | FieldKind::List { min, max, .. } => {
            matches!((min, max), (Some(min), Some(max)) if min > max)
        }
        FieldKind::Integer { min, max } => {
            matches!((min, max), (Some(min), Some(max)) if min > max)
        }
        FieldKind::Number { min, max } => matches!((min, max), (Some(min), Some(max)) if min > max),
        _ => false,
    };
    if reversed {
        mistakes.add(
            table.path_of("min"),
            "a `min` that is at most `max`",
            "a greater one",
        );
    }
}

/// The first text that stands in the list a second time.
pub(crate) fn first_repeated(values: &[String]) -> Option<&str> {
    let mut seen = HashSet::with_capacity(values.len());
    values
        .iter()
        .map(String::as_str)
        .find(|value| !seen.insert(*value))
}

/// The stored value of `field` when the input does not bring it, or the error.
fn absent(field: &Field, input: &Map, loc: &[LocStep], errors: &mut Errors) -> Option<Value> {
    if let Some(default) = &field.default {
        return Some(default.clone());
    }
    if field.required && dependencies_hold(&field.depends_on, input) {
        // Each error repeats the whole input; past a few that only makes the answer large.
        let repeats = errors.told.len() < MAX_INPUTS;
        errors.add(|| {
            let whole = match repeats {
                true => Value::Object(input.clone()),
                false => Value::Null,
            };
            ValidationError::missing(at(loc, field.name.as_str()), whole)
        });
        return None;
    }
    Some(Value::Null)
}

/// Checks the values a client sent against the fields and fills in defaults.
///
/// `loc` is the path of the configuration itself, with the plugin's name. Keys that are no fields are ignored, as in the
/// origin. The result holds exactly the fields, in their order. Past [`MAX_ERRORS`], one last error counts the others.
///
/// # Errors
/// Every value that its field does not accept, and every required one that is missing.
pub fn parse_values(fields: &[Field], input: &Map, loc: &Loc) -> Result<Map, Vec<ValidationError>> {
    let mut errors = Errors::default();
    let mut values = Map::new();
    for field in fields {
        let name = field.name.as_str();
        let value = match input.get(name) {
            None => absent(field, input, loc, &mut errors),
            Some(Value::Null)
                if field.is_nullable()
                    && field.kind != FieldKind::Json
                    && !demanded(field, input) =>
            {
                Some(Value::Null)
            }
            Some(value) => field.kind.check(value, &|| at(loc, name), &mut errors),
        };
        if let Some(value) = value {
            values.insert(name.to_owned(), value);
        }
    }
    let errors = errors.finish(loc);
    match errors.is_empty() {
        true => Ok(values),
        false => Err(errors),
    }
}

/// How many bytes values take in memory, about.
pub fn weight_of(values: &Map) -> usize {
    fn of(value: &Value) -> usize {
        const NODE: usize = size_of::<Value>();
        NODE + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(of).sum(),
            Value::Object(entries) => weight_of(entries),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
    }
    values
        .iter()
        .map(|(key, value)| key.len() + of(value))
        .sum()
}

/// Whether a field must have a value in this input.
fn demanded(field: &Field, input: &Map) -> bool {
    field.required && dependencies_hold(&field.depends_on, input)
}

/// The JSON Schema of one field's value.
pub(crate) fn json_schema(field: &Field) -> Value {
    let mut schema = match &field.kind {
        FieldKind::String { pattern, min, max } => {
            let mut schema = json!({ "type": "string" });
            set(
                &mut schema,
                "pattern",
                pattern.as_ref().map(|pattern| json!(pattern.as_str())),
            );
            set(&mut schema, "minLength", min.map(|min| json!(min)));
            set(&mut schema, "maxLength", max.map(|max| json!(max)));
            schema
        }
        FieldKind::Integer { min, max } => {
            let mut schema = json!({ "type": "integer" });
            set(
                &mut schema,
                "minimum",
                Some(json!(min.unwrap_or(-MAX_INTEGER))),
            );
            set(
                &mut schema,
                "maximum",
                Some(json!(max.unwrap_or(MAX_INTEGER))),
            );
            schema
        }
        FieldKind::Number { min, max } => {
            let mut schema = json!({ "type": "number" });
            set(&mut schema, "minimum", min.map(|min| json!(min)));
            set(&mut schema, "maximum", max.map(|max| json!(max)));
            schema
        }
        FieldKind::Boolean => json!({ "type": "boolean" }),
        FieldKind::Enum { values } => json!({ "enum": values }),
        FieldKind::List { of, min, max } => {
            let item = match of {
                ItemKind::String => "string",
                ItemKind::Integer => "integer",
                ItemKind::Number => "number",
                ItemKind::Boolean => "boolean",
            };
            let mut schema = json!({ "type": "array", "items": { "type": item } });
            set(&mut schema, "minItems", min.map(|min| json!(min)));
            set(&mut schema, "maxItems", max.map(|max| json!(max)));
            schema
        }
        FieldKind::Json => json!({}),
    };
    if field.is_nullable() && field.kind != FieldKind::Json {
        schema = json!({ "anyOf": [schema, { "type": "null" }] });
    }
    set(
        &mut schema,
        "title",
        field.label.as_ref().map(|label| json!(label)),
    );
    set(
        &mut schema,
        "description",
        field.description.as_ref().map(|text| json!(text)),
    );
    set(&mut schema, "default", field.default.clone());
    schema
}

fn set(schema: &mut Value, key: &str, value: Option<Value>) {
    if let (Value::Object(entries), Some(value)) = (schema, value) {
        entries.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(entries: Vec<(&str, Term)>) -> Result<Field, Vec<String>> {
        let mut mistakes = Mistakes::default();
        let term = Term::Table(
            entries
                .into_iter()
                .map(|(key, term)| (key.to_owned(), term))
                .collect(),
        );
        let read = Field::read(term, Path::default().key("fields").index(1), &mut mistakes);
        mistakes
            .into_result(read)
            .map_err(|list| list.iter().map(ToString::to_string).collect())
    }

    fn text(value: &str) -> Term {
        Term::String(value.to_owned())
    }

    #[test]
    fn a_field_reports_all_its_mistakes() {
        let mistakes = field(vec![
            ("type", text("integer")),
            ("name", text("Count")),
            ("default", text("x")),
            ("min", Term::Integer(3)),
            ("max", Term::Integer(2)),
            ("requried", Term::Boolean(true)),
        ])
        .expect_err("mistakes");
        assert_eq!(mistakes.len(), 3, "{mistakes:#?}");
        assert!(
            mistakes
                .iter()
                .any(|text| text.contains("did you mean `required`?")),
            "{mistakes:#?}"
        );
    }

    #[test]
    fn many_errors_are_counted_and_not_told() {
        let fields: Vec<Field> = ["list", "integer"]
            .map(|kind| field(vec![("type", text(kind)), ("name", text(kind))]).expect("a field"))
            .into();
        let loc: Loc = vec!["body".into()];
        let parse = |items: usize| {
            let input = json!({ "list": vec![1; items], "integer": "x" });
            let errors = parse_values(&fields, input.as_object().expect("an object"), &loc)
                .expect_err("errors");
            let last = errors.last().expect("an error").clone();
            (errors.len(), last.loc, last.msg)
        };
        let (count, at_last, msg) = parse(MAX_ERRORS - 1);
        assert_eq!(count, MAX_ERRORS);
        assert_eq!(at_last, at(&loc, "integer"));
        assert_eq!(msg, "Input should be a valid integer");
        assert_eq!(
            parse(MAX_ERRORS),
            (
                MAX_ERRORS + 1,
                loc.clone(),
                "1 more error is left out".to_owned()
            )
        );
        assert_eq!(
            parse(200_000),
            (
                MAX_ERRORS + 1,
                loc.clone(),
                "199901 more errors are left out".to_owned()
            )
        );
    }

    #[test]
    fn values_are_strict_and_defaults_filled_in() {
        let fields = vec![
            field(vec![
                ("type", text("string")),
                ("name", text("database")),
                ("required", Term::Boolean(true)),
            ])
            .expect("a field"),
            field(vec![
                ("type", text("string")),
                ("name", text("schema")),
                ("default", text("")),
            ])
            .expect("a field"),
            field(vec![("type", text("integer")), ("name", text("days"))]).expect("a field"),
        ];
        let loc: Loc = vec!["body".into()];
        let parse = |value: Value| {
            let Value::Object(input) = value else {
                panic!("an object")
            };
            parse_values(&fields, &input, &loc)
        };
        assert_eq!(
            parse(json!({"database": "x", "extra": 1})).map(Value::Object),
            Ok(json!({"database": "x", "schema": "", "days": null}))
        );
        let kinds = |value: Value| -> Vec<String> {
            parse(value)
                .expect_err("errors")
                .into_iter()
                .map(|error| error.kind)
                .collect()
        };
        assert_eq!(kinds(json!({})), ["missing"]);
        assert_eq!(
            kinds(json!({"database": 5, "schema": null, "days": 1.5})),
            ["string_type", "string_type", "int_type"]
        );
        assert_eq!(
            kinds(json!({"database": "a\u{0}b", "days": 9007199254740992_i64})),
            ["value_error", "value_error"]
        );
    }

    #[test]
    fn an_unmet_dependency_lifts_required_only() {
        let mut dependent = field(vec![
            ("type", text("string")),
            ("name", text("table")),
            ("required", Term::Boolean(true)),
            (
                "depends_on",
                Term::Table(vec![("granularity".into(), text("table"))]),
            ),
        ])
        .expect("a field");
        assert!(dependent.is_nullable());
        dependent.label = None;
        let loc: Loc = vec![];
        let parse = |value: Value| {
            let Value::Object(input) = value else {
                panic!("an object")
            };
            parse_values(std::slice::from_ref(&dependent), &input, &loc)
        };
        assert!(parse(json!({"granularity": "schema"})).is_ok());
        assert!(parse(json!({"granularity": "table"})).is_err());
        assert_eq!(
            parse(json!({"granularity": "schema", "table": "kept"})).map(Value::Object),
            Ok(json!({"table": "kept"}))
        );
    }
}

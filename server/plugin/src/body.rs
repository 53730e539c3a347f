//! The body of a request, read key by key. All that is wrong is reported at once, in the shape of [`ValidationError`].

use serde_json::Value;
use uuid::Uuid;

use crate::Map;
use crate::field::contains_nul;
use crate::validation::{Invalid, Loc, ValidationError, at};

/// A JSON object that a client sent. Keys that nobody asks for are ignored.
///
/// What is read gives none where something is wrong, which [`finish`](BodyReader::finish) then reports. A null is a value
/// of the wrong type, except to the readers of what need not be there.
#[derive(Debug)]
pub struct BodyReader<'a> {
    keys: &'a Map,
    errors: Vec<ValidationError>,
}

impl<'a> BodyReader<'a> {
    /// Opens a body.
    ///
    /// # Errors
    /// When it is no object.
    pub fn open(body: &'a Value) -> Result<Self, Invalid> {
        match body {
            Value::Object(keys) => Ok(Self {
                keys,
                errors: Vec::new(),
            }),
            other => Err(Invalid(vec![ValidationError::wrong_type(
                "dictionary",
                vec!["body".into()],
                other.clone(),
            )])),
        }
    }

    /// Where a key is.
    pub fn loc(key: &str) -> Loc {
        at(&["body".into()], key)
    }

    /// What stands under a key; none when that is null.
    pub fn given(&self, key: &str) -> Option<&'a Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    /// Whether a key is there and not null.
    pub fn has(&self, key: &str) -> bool {
        self.given(key).is_some()
    }

    /// Reports a key that is not there or null.
    pub fn require(&mut self, key: &str) {
        if !self.has(key) {
            self.report(self.missing(key));
        }
    }

    fn missing(&self, key: &str) -> ValidationError {
        ValidationError::missing(Self::loc(key), Value::Object(self.keys.clone()))
    }

    /// Reads a key; one that is missing takes the default, or is an error when there is none.
    fn read<T>(
        &mut self,
        key: &str,
        wanted: &str,
        default: Option<T>,
        take: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let error = match (self.keys.get(key), default) {
            (Some(value), _) => match take(value) {
                Some(taken) => return Some(taken),
                None => ValidationError::wrong_type(wanted, Self::loc(key), value.clone()),
            },
            (None, Some(default)) => return Some(default),
            (None, None) => self.missing(key),
        };
        self.report(error);
        None
    }

    /// Lets pass what a database can store as text, which a NUL is not.
    fn storable<T>(&mut self, key: &str, taken: T) -> Option<T> {
        let value = self.keys.get(key).filter(|value| contains_nul(value));
        let Some(value) = value else {
            return Some(taken);
        };
        self.report(ValidationError::has_nul(Self::loc(key), value.clone()));
        None
    }

    /// A text that has to be there.
    pub fn string(&mut self, key: &str) -> Option<String> {
        self.string_or(key, None)
    }

    /// A text with a default.
    pub fn string_or(&mut self, key: &str, default: Option<&str>) -> Option<String> {
        let default = default.map(str::to_owned);
        let text = self.read(key, "string", default, |value| {
            value.as_str().map(str::to_owned)
        })?;
        self.storable(key, text)
    }

    /// A text that has to be there and to hold more than blanks.
    pub fn name(&mut self, key: &str) -> Option<String> {
        let text = self.string(key)?;
        if text.trim().is_empty() {
            self.refuse(key, "Input should not be empty");
            return None;
        }
        Some(text)
    }

    /// A text of at most `max` characters, which may be null or not there.
    pub fn optional_string(&mut self, key: &str, max: usize) -> Option<String> {
        self.given(key)?;
        let text = self.string(key)?;
        if text.chars().count() > max {
            self.report(ValidationError::too_long(
                Self::loc(key),
                max,
                text.as_str().into(),
            ));
            return None;
        }
        Some(text)
    }

    /// A word of a closed list; the default when it is null or not there.
    pub fn word_or<T>(
        &mut self,
        key: &str,
        words: &[&str],
        default: T,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let Some(value) = self.given(key) else {
            return Some(default);
        };
        let word = value.as_str().and_then(parse);
        if word.is_none() {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            let error = ValidationError::not_in_enum(&words, Self::loc(key), value.clone());
            self.report(error);
        }
        word
    }

    /// A boolean with a default.
    pub fn boolean_or(&mut self, key: &str, default: bool) -> Option<bool> {
        self.read(key, "boolean", Some(default), Value::as_bool)
    }

    /// An id that has to be there.
    pub fn uuid(&mut self, key: &str) -> Option<Uuid> {
        let text = self.read(key, "string", None, Value::as_str)?;
        let id = Uuid::parse_str(text).ok();
        if id.is_none() {
            self.report(ValidationError::no_uuid(Self::loc(key), text));
        }
        id
    }

    /// An id, which may be null or not there.
    pub fn optional_uuid(&mut self, key: &str) -> Option<Uuid> {
        self.given(key)?;
        self.uuid(key)
    }

    /// A list of texts that has to be there.
    pub fn strings(&mut self, key: &str) -> Option<Vec<String>> {
        let items = self.list(key)?;
        let loc = Self::loc(key);
        let mut texts = Vec::with_capacity(items.len());
        for (place, item) in items.iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text.clone()),
                other => self.report(ValidationError::wrong_type(
                    "string",
                    at(&loc, place),
                    other.clone(),
                )),
            }
        }
        Some(texts)
    }

    /// A list of objects that has to be there, each with a text under `inner`.
    pub fn entries(&mut self, key: &str, inner: &str) -> Option<Vec<Value>> {
        let items = self.list(key)?;
        let loc = Self::loc(key);
        for (place, item) in items.iter().enumerate() {
            let here = at(&loc, place);
            let error = match item.get(inner) {
                _ if !item.is_object() => {
                    ValidationError::wrong_type("dictionary", here, item.clone())
                }
                None => ValidationError::missing(at(&here, inner), item.clone()),
                Some(Value::String(_)) => continue,
                Some(other) => {
                    ValidationError::wrong_type("string", at(&here, inner), other.clone())
                }
            };
            self.report(error);
        }
        Some(items.clone())
    }

    fn list(&mut self, key: &str) -> Option<&'a Vec<Value>> {
        let items = self.read(key, "list", None, Value::as_array)?;
        self.storable(key, items)
    }

    /// An object that has to be there.
    pub fn object(&mut self, key: &str) -> Option<Map> {
        let object = self.read(key, "dictionary", None, Value::as_object)?;
        self.storable(key, object.clone())
    }

    /// An object, which may be null or not there, and whose values others check: the fields of a plugin their own.
    pub fn optional_object(&mut self, key: &str) -> Option<Map> {
        self.given(key)?;
        self.read(key, "dictionary", None, |value| value.as_object().cloned())
    }

    /// Reports that what stands under a key breaks a rule.
    pub fn refuse(&mut self, key: &str, message: &str) {
        let input = self.keys.get(key).cloned().unwrap_or(Value::Null);
        self.report(ValidationError::value(Self::loc(key), message, input));
    }

    /// Reports something that is wrong.
    pub fn report(&mut self, error: ValidationError) {
        self.errors.push(error);
    }

    /// Ends reading.
    ///
    /// # Errors
    /// With all that was wrong, in the order in which it was read.
    pub fn finish(self) -> Result<(), Invalid> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(Invalid(self.errors))
        }
    }
}

/// What [`BodyReader::finish`] has let pass is there.
pub fn checked<T>(value: Option<T>) -> T {
    value.unwrap_or_else(|| unreachable!("a body without errors has every value"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is wrong, as `kind loc: message`.
    fn wrong(body: BodyReader<'_>) -> Vec<String> {
        let Err(Invalid(errors)) = body.finish() else {
            return Vec::new();
        };
        errors
            .iter()
            .map(|error| format!("{} {}: {}", error.kind, json!(error.loc), error.msg))
            .collect()
    }

    #[test]
    fn a_body_reports_all_that_is_wrong() {
        let body = json!({
            "number": 1, "blank": " ", "id": "nope", "list": ["a", 1], "nul": "a\u{0}", "flag": "yes", "null": null,
            "entries": [{"identifier": "a"}, {}, 3, {"identifier": 1}], "nuls": ["a\u{0}"],
        });
        let mut body = BodyReader::open(&body).expect("an object");
        body.string("number");
        body.string("null");
        body.name("blank");
        body.uuid("id");
        body.strings("list");
        body.string("nul");
        body.strings("nuls");
        body.boolean_or("flag", false);
        body.entries("entries", "identifier");
        body.object("gone");
        assert_eq!(body.string_or("absent", Some("x")).as_deref(), Some("x"));
        assert_eq!(body.optional_uuid("absent"), None);
        assert_eq!(
            wrong(body),
            [
                r#"string_type ["body","number"]: Input should be a valid string"#,
                r#"string_type ["body","null"]: Input should be a valid string"#,
                r#"value_error ["body","blank"]: Input should not be empty"#,
                r#"value_error ["body","id"]: Input should be a valid UUID"#,
                r#"string_type ["body","list",1]: Input should be a valid string"#,
                r#"value_error ["body","nul"]: A text cannot contain the NUL character"#,
                r#"value_error ["body","nuls"]: A text cannot contain the NUL character"#,
                r#"bool_type ["body","flag"]: Input should be a valid boolean"#,
                r#"missing ["body","entries",1,"identifier"]: Field required"#,
                r#"dict_type ["body","entries",2]: Input should be a valid dictionary"#,
                r#"string_type ["body","entries",3,"identifier"]: Input should be a valid string"#,
                r#"missing ["body","gone"]: Field required"#,
            ]
        );
        assert!(BodyReader::open(&json!([])).is_err());
    }

    #[test]
    fn what_need_not_be_there_may_be_null() {
        let body = json!({
            "null": null, "long": "äöü", "id": 1, "word": "third", "object": [], "values": {"a": "\u{0}"},
        });
        let mut body = BodyReader::open(&body).expect("an object");
        for key in ["null", "absent"] {
            assert!(!body.has(key));
            assert_eq!(body.optional_string(key, 3), None);
            assert_eq!(body.optional_uuid(key), None);
            assert_eq!(body.optional_object(key), None);
            assert_eq!(body.word_or(key, &["first"], 1, |_| None), Some(1));
        }
        assert_eq!(body.optional_string("long", 3).as_deref(), Some("äöü"));
        assert!(body.optional_object("values").is_some());
        body.optional_string("long", 2);
        body.optional_uuid("id");
        body.word_or("word", &["first", "second"], 1, |_| None);
        body.optional_object("object");
        body.require("null");
        body.require("absent");
        body.require("long");
        assert_eq!(
            wrong(body),
            [
                r#"value_error ["body","long"]: Should have at most 2 characters"#,
                r#"string_type ["body","id"]: Input should be a valid string"#,
                r#"enum ["body","word"]: Input should be 'first' or 'second'"#,
                r#"dict_type ["body","object"]: Input should be a valid dictionary"#,
                r#"missing ["body","null"]: Field required"#,
                r#"missing ["body","absent"]: Field required"#,
            ]
        );
    }

    #[test]
    fn a_missing_key_repeats_the_whole_body() {
        let body = json!({"a": 1});
        let mut reader = BodyReader::open(&body).expect("an object");
        reader.string("b");
        let Err(Invalid(errors)) = reader.finish() else {
            panic!("an error");
        };
        assert_eq!(errors[0].input, body);
    }
}

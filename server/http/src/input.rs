//! What a request says, read part by part. All that is wrong is reported at once, in the shape of [`ValidationError`].

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use patchbay_plugin::Map;
use patchbay_plugin::field::contains_nul;
use patchbay_plugin::validation::{Loc, ValidationError, at};
use serde_json::Value;
use uuid::Uuid;

use crate::error::ApiError;

/// How many items a page has, when the request does not say.
const DEFAULT_LIMIT: usize = 50;
/// How many items a page has at most.
const MAX_LIMIT: usize = 200;

/// The longest text of a query, in characters; nothing that is searched for is longer.
const MAX_QUERY_TEXT: usize = 255;

const NUL: &str = "A text cannot contain the NUL character";
const NOT_A_UUID: &str = "Input should be a valid UUID";

/// An id in a path; a text that is none is a 422.
pub(crate) fn id_in_path(name: &str, text: &str) -> Result<Uuid, ApiError> {
    Uuid::parse_str(text).map_err(|_| {
        ApiError::invalid(vec![ValidationError::value(
            vec!["path".into(), name.into()],
            NOT_A_UUID,
            text.into(),
        )])
    })
}

/// The query of a request. A key that stands there twice counts as its last value.
pub(crate) struct QueryReader {
    pairs: Vec<(String, String)>,
    errors: Vec<ValidationError>,
}

impl<S: Sync> FromRequestParts<S> for QueryReader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::try_from_uri(&parts.uri).map_err(|_| {
            ApiError::new(
                axum::http::StatusCode::BAD_REQUEST,
                "The query does not parse",
            )
        })?;
        Ok(Self {
            pairs,
            errors: Vec::new(),
        })
    }
}

impl QueryReader {
    /// A text; none when it is not there.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A text that is more than blanks, of a length that something stored can have.
    pub(crate) fn filled(&mut self, name: &str) -> Option<String> {
        let text = self
            .text(name)
            .filter(|text| !text.trim().is_empty())?
            .to_owned();
        if text.contains('\0') {
            self.wrong(ValidationError::value, name, NUL, text);
            return None;
        }
        if text.chars().count() > MAX_QUERY_TEXT {
            let message = format!("Should have at most {MAX_QUERY_TEXT} characters");
            self.wrong(ValidationError::value, name, &message, text);
            return None;
        }
        Some(text)
    }

    /// An id; none when it is not there.
    pub(crate) fn uuid(&mut self, name: &str) -> Option<Uuid> {
        let text = self.text(name)?.to_owned();
        let id = Uuid::parse_str(&text).ok();
        if id.is_none() {
            self.wrong(ValidationError::value, name, NOT_A_UUID, text);
        }
        id
    }

    /// How many items the page has.
    pub(crate) fn limit(&mut self) -> usize {
        let Some(text) = self.text("limit").map(str::to_owned) else {
            return DEFAULT_LIMIT;
        };
        match text.parse::<i64>() {
            Ok(limit) if (1..=MAX_LIMIT as i64).contains(&limit) => {
                return usize::try_from(limit).unwrap_or(DEFAULT_LIMIT);
            }
            Ok(_) => {
                let rule = format!("Input should be between 1 and {MAX_LIMIT}");
                self.wrong(ValidationError::value, "limit", &rule, text);
            }
            Err(_) => {
                let loc = vec!["query".into(), "limit".into()];
                let error = ValidationError::wrong_type("integer", loc, text.into());
                self.errors.push(error);
            }
        }
        DEFAULT_LIMIT
    }

    fn wrong(
        &mut self,
        make: fn(Loc, String, Value) -> ValidationError,
        name: &str,
        message: &str,
        text: String,
    ) {
        let loc = vec!["query".into(), name.into()];
        self.errors.push(make(loc, message.to_owned(), text.into()));
    }

    /// Fails when anything was wrong.
    pub(crate) fn finish(&self) -> Result<(), ApiError> {
        finish(self.errors.clone())
    }
}

/// A JSON object of a request's body. Keys that nobody asks for are ignored.
pub(crate) struct BodyReader {
    whole: Value,
    errors: Vec<ValidationError>,
}

impl BodyReader {
    /// Opens a body; one that is no object is a 422.
    pub(crate) fn open(body: Value) -> Result<Self, ApiError> {
        if body.is_object() {
            return Ok(Self {
                whole: body,
                errors: Vec::new(),
            });
        }
        let error = ValidationError::wrong_type("dictionary", vec!["body".into()], body);
        Err(ApiError::invalid(vec![error]))
    }

    fn loc(name: &str) -> Loc {
        at(&["body".into()], name)
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.whole.get(name)
    }

    /// Whether a key is there and not null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| !value.is_null())
    }

    /// Reads a key; one that is missing takes the default, or is an error when there is none.
    fn read<T>(
        &mut self,
        name: &str,
        wanted: &str,
        default: Option<T>,
        take: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let error = match (self.value(name), default) {
            (Some(value), _) if !value.is_string() && contains_nul(value) => {
                ValidationError::value(Self::loc(name), NUL, value.clone())
            }
            (Some(value), _) => match take(value) {
                Some(taken) => return Some(taken),
                None => ValidationError::wrong_type(wanted, Self::loc(name), value.clone()),
            },
            (None, Some(default)) => return Some(default),
            (None, None) => ValidationError::missing(Self::loc(name), self.whole.clone()),
        };
        self.errors.push(error);
        None
    }

    /// A text that has to be there.
    pub(crate) fn string(&mut self, name: &str) -> Option<String> {
        self.string_or(name, None)
    }

    /// A text with a default.
    pub(crate) fn string_or(&mut self, name: &str, default: Option<&str>) -> Option<String> {
        let default = default.map(str::to_owned);
        let text = self.read(name, "string", default, |value| {
            value.as_str().map(str::to_owned)
        })?;
        // Neither database stores it in text.
        if text.contains('\0') {
            self.refuse(name, NUL);
            return None;
        }
        Some(text)
    }

    /// A text that has to be there and to hold more than blanks.
    pub(crate) fn name(&mut self, name: &str) -> Option<String> {
        let text = self.string(name)?;
        if text.trim().is_empty() {
            self.refuse(name, "Input should not be empty");
            return None;
        }
        Some(text)
    }

    /// A boolean with a default.
    pub(crate) fn boolean_or(&mut self, name: &str, default: bool) -> Option<bool> {
        self.read(name, "boolean", Some(default), Value::as_bool)
    }

    /// An id that has to be there.
    pub(crate) fn uuid(&mut self, name: &str) -> Option<Uuid> {
        let text = self.string(name)?;
        let id = Uuid::parse_str(&text).ok();
        if id.is_none() {
            self.refuse(name, NOT_A_UUID);
        }
        id
    }

    /// An id, which may be null or not there.
    pub(crate) fn optional_uuid(&mut self, name: &str) -> Option<Uuid> {
        if self.has(name) {
            self.uuid(name)
        } else {
            None
        }
    }

    /// A list of texts that has to be there.
    pub(crate) fn strings(&mut self, name: &str) -> Option<Vec<String>> {
        let items = self.read(name, "list", None, |value| value.as_array().cloned())?;
        let loc = Self::loc(name);
        let mut texts = Vec::with_capacity(items.len());
        for (place, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text),
                other => {
                    let error = ValidationError::wrong_type("string", at(&loc, place), other);
                    self.errors.push(error);
                }
            }
        }
        Some(texts)
    }

    /// An object that has to be there.
    pub(crate) fn object(&mut self, name: &str) -> Option<Map> {
        self.read(name, "dictionary", None, |value| value.as_object().cloned())
    }

    /// A list of objects that has to be there, each with a text under `key`.
    pub(crate) fn entries(&mut self, name: &str, key: &str) -> Option<Vec<Value>> {
        let items = self.read(name, "list", None, |value| value.as_array().cloned())?;
        let loc = Self::loc(name);
        for (place, item) in items.iter().enumerate() {
            let here = at(&loc, place);
            let error = match item.get(key) {
                _ if !item.is_object() => {
                    ValidationError::wrong_type("dictionary", here, item.clone())
                }
                None => ValidationError::missing(at(&here, key), item.clone()),
                Some(Value::String(_)) => continue,
                Some(other) => ValidationError::wrong_type("string", at(&here, key), other.clone()),
            };
            self.errors.push(error);
        }
        Some(items)
    }

    /// Reports that what stands under a key breaks a rule.
    pub(crate) fn refuse(&mut self, name: &str, message: &str) {
        let input = self.value(name).cloned().unwrap_or(Value::Null);
        let error = ValidationError::value(Self::loc(name), message, input);
        self.errors.push(error);
    }

    /// Fails when anything was wrong.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        finish(self.errors)
    }
}

/// What [`BodyReader::finish`] has let pass is there.
pub(crate) fn checked<T>(value: Option<T>) -> T {
    value.unwrap_or_else(|| unreachable!("a body without errors has every value"))
}

fn finish(errors: Vec<ValidationError>) -> Result<(), ApiError> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(errors))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use serde_json::json;

    use super::*;

    async fn query(text: &str) -> QueryReader {
        let request = Request::builder().uri(format!("/x?{text}"));
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        QueryReader::from_request_parts(&mut parts, &())
            .await
            .expect("a query")
    }

    #[tokio::test]
    async fn a_limit_is_a_number_in_its_range() {
        for (text, limit, wrong) in [
            ("", 50, ""),
            ("limit=1", 1, ""),
            ("limit=200", 200, ""),
            ("limit=0", 50, r#"value_error at ["query","limit"]"#),
            ("limit=201", 50, r#"value_error at ["query","limit"]"#),
            ("limit=-1", 50, r#"value_error at ["query","limit"]"#),
            ("limit=x", 50, r#"int_type at ["query","limit"]"#),
            ("limit=", 50, r#"int_type at ["query","limit"]"#),
            ("limit=1.5", 50, r#"int_type at ["query","limit"]"#),
        ] {
            let mut query = query(text).await;
            assert_eq!(query.limit(), limit, "{text}");
            let found = query
                .finish()
                .err()
                .map(|error| error.for_the_log().into_owned());
            assert_eq!(found.unwrap_or_default(), wrong, "{text}");
        }
    }

    #[tokio::test]
    async fn a_query_has_ids_and_texts() {
        let mut query = query("id=nope&q=a%20b&blank=+").await;
        assert_eq!(query.uuid("id"), None);
        assert_eq!(query.filled("q").as_deref(), Some("a b"));
        assert_eq!(query.filled("blank"), None);
        assert!(query.finish().is_err());
    }

    #[test]
    fn a_body_reports_all_that_is_wrong() {
        let body = json!({
            "number": 1, "blank": " ", "id": "nope", "list": ["a", 1], "nul": "a\u{0}", "flag": "yes",
            "entries": [{"identifier": "a"}, {}, 3, {"identifier": 1}],
        });
        let mut body = BodyReader::open(body).expect("an object");
        body.string("number");
        body.name("blank");
        body.uuid("id");
        body.strings("list");
        body.string("nul");
        body.boolean_or("flag", false);
        body.entries("entries", "identifier");
        body.object("gone");
        assert_eq!(body.string_or("absent", Some("x")).as_deref(), Some("x"));
        assert_eq!(body.optional_uuid("absent"), None);
        let found = body
            .finish()
            .expect_err("errors")
            .for_the_log()
            .into_owned();
        assert_eq!(
            found.split(", ").collect::<Vec<_>>(),
            [
                r#"string_type at ["body","number"]"#,
                r#"value_error at ["body","blank"]"#,
                r#"value_error at ["body","id"]"#,
                r#"string_type at ["body","list",1]"#,
                r#"value_error at ["body","nul"]"#,
                r#"bool_type at ["body","flag"]"#,
                r#"missing at ["body","entries",1,"identifier"]"#,
                r#"dict_type at ["body","entries",2]"#,
                r#"string_type at ["body","entries",3,"identifier"]"#,
                r#"missing at ["body","gone"]"#,
            ]
        );
        assert!(BodyReader::open(json!([])).is_err());
    }
}

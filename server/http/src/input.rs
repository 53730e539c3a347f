//! What a path and a query say, read part by part. All that is wrong with a query is reported at once, in the shape of
//! [`ValidationError`].

use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::StatusCode;
use axum::http::request::Parts;
use patchbay_plugin::validation::{Loc, ValidationError};
use uuid::Uuid;

use crate::error::ApiError;

/// How many items a page has, when the request does not say.
const DEFAULT_LIMIT: usize = 50;
/// How many items a page has at most.
const MAX_LIMIT: usize = 200;

/// The longest text of a query, in characters; nothing that is searched for is longer.
const MAX_QUERY_TEXT: usize = 255;

/// The ids in a path, one or a tuple in the path's order; a text that is none is a 422.
pub(crate) struct PathIds<T>(pub(crate) T);

/// What the ids of a path are taken as.
pub(crate) trait Ids: Sized {
    /// None when the path has not as many.
    fn from_ids(ids: &[Uuid]) -> Option<Self>;
}

impl Ids for Uuid {
    fn from_ids(ids: &[Uuid]) -> Option<Self> {
        <[Uuid; 1]>::try_from(ids).ok().map(|[id]| id)
    }
}

impl Ids for (Uuid, Uuid) {
    fn from_ids(ids: &[Uuid]) -> Option<Self> {
        <[Uuid; 2]>::try_from(ids).ok().map(Self::from)
    }
}

impl Ids for (Uuid, Uuid, Uuid) {
    fn from_ids(ids: &[Uuid]) -> Option<Self> {
        <[Uuid; 3]>::try_from(ids).ok().map(Self::from)
    }
}

impl<S: Send + Sync, T: Ids> FromRequestParts<S> for PathIds<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "Bad Request"))?;
        let mut ids = Vec::new();
        for (name, text) in &params {
            let id = Uuid::parse_str(text).map_err(|_| {
                let loc = vec!["path".into(), name.into()];
                ApiError::invalid(vec![ValidationError::no_uuid(loc, text)])
            })?;
            ids.push(id);
        }
        T::from_ids(&ids)
            .map(Self)
            .ok_or_else(|| ApiError::internal("a path has other ids than its handler takes"))
    }
}

/// The query of a request. A key that stands there twice counts as its last value.
pub(crate) struct QueryReader {
    pairs: Vec<(String, String)>,
    errors: Vec<ValidationError>,
}

impl<S: Sync> FromRequestParts<S> for QueryReader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::try_from_uri(&parts.uri)
            .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "The query does not parse"))?;
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
            let error = ValidationError::has_nul(Self::loc(name), text.into());
            self.errors.push(error);
            return None;
        }
        if text.chars().count() > MAX_QUERY_TEXT {
            let error = ValidationError::too_long(Self::loc(name), MAX_QUERY_TEXT, text.into());
            self.errors.push(error);
            return None;
        }
        Some(text)
    }

    /// An id; none when it is not there.
    pub(crate) fn uuid(&mut self, name: &str) -> Option<Uuid> {
        let text = self.text(name)?;
        let id = Uuid::parse_str(text).ok();
        if id.is_none() {
            let error = ValidationError::no_uuid(Self::loc(name), text);
            self.errors.push(error);
        }
        id
    }

    /// How many items the page has.
    pub(crate) fn limit(&mut self) -> usize {
        let Some(text) = self.text("limit") else {
            return DEFAULT_LIMIT;
        };
        let error = match text.parse::<i64>() {
            Ok(limit) if (1..=MAX_LIMIT as i64).contains(&limit) => {
                return usize::try_from(limit).unwrap_or(DEFAULT_LIMIT);
            }
            Ok(_) => {
                let rule = format!("Input should be between 1 and {MAX_LIMIT}");
                ValidationError::value(Self::loc("limit"), rule, text.into())
            }
            Err(_) => ValidationError::wrong_type("integer", Self::loc("limit"), text.into()),
        };
        self.errors.push(error);
        DEFAULT_LIMIT
    }

    fn loc(name: &str) -> Loc {
        vec!["query".into(), name.into()]
    }

    /// Fails when anything was wrong.
    pub(crate) fn finish(&self) -> Result<(), ApiError> {
        if self.errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(self.errors.clone()))
    }
}

/// 422 for a cursor that no list gave out.
pub(crate) fn bad_cursor(message: String, cursor: Option<String>) -> ApiError {
    let error = ValidationError::value(QueryReader::loc("cursor"), message, cursor.into());
    ApiError::invalid(vec![error])
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

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
}

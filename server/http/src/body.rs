//! Bodies: JSON in and JSON out.

use std::error::Error;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError};
use patchbay_plugin::validation::ValidationError;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::etag;

/// The body of a request as JSON: 415 when it is something else or compressed, 413 past the limit, 422 `missing` when there is none
/// and `json_invalid`, with the offset, when it does not parse. What it says is for others to check.
pub(crate) struct JsonBody(pub(crate) Value);

impl<S: Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        if !parts.headers.get(CONTENT_TYPE).is_some_and(is_json) {
            return Err(ApiError::not_json());
        }
        let is_plain = |encoding: &HeaderValue| {
            let encoding = encoding.as_bytes().trim_ascii();
            encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity")
        };
        if !parts.headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
            return Err(ApiError::encoded());
        }
        let bytes = body.collect().await.map_err(unreadable)?.to_bytes();
        parse(&bytes).map(Self)
    }
}

/// Whether a content type is JSON: `application/json`, or `application/…+json`, with or without parameters.
pub(crate) fn is_json(content_type: &HeaderValue) -> bool {
    let Ok(text) = content_type.to_str() else {
        return false;
    };
    let essence = text.split(';').next().unwrap_or_default().trim().as_bytes();
    let starts = |start: &[u8]| {
        essence.len() > start.len() && essence[..start.len()].eq_ignore_ascii_case(start)
    };
    // RFC 8259: JSON is UTF-8, whatever else may be written there.
    let is_utf8 = text.split(';').skip(1).all(|parameter| {
        let Some((name, value)) = parameter.split_once('=') else {
            return true;
        };
        !name.trim().eq_ignore_ascii_case("charset")
            || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    if !is_utf8 {
        return false;
    }
    essence.eq_ignore_ascii_case(b"application/json")
        || (starts(b"application/")
            && essence.len() > 5
            && essence[essence.len() - 5..].eq_ignore_ascii_case(b"+json"))
}

/// Why a body could not be read to its end: it is past the limit, which a layer watches, or the client went away.
fn unreadable(error: axum::Error) -> ApiError {
    let mut source: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(error) = source {
        if error.is::<LengthLimitError>() {
            return ApiError::too_large();
        }
        source = error.source();
    }
    ApiError::new(StatusCode::BAD_REQUEST, "The body ended before its end")
}

fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    if bytes.is_empty() {
        let missing = ValidationError::missing(vec!["body".into()], Value::Null);
        return Err(ApiError::invalid(vec![missing]));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let reason = text.strip_suffix(&place).unwrap_or(&text);
        ApiError::invalid(vec![ValidationError {
            ctx: Some(json!({ "error": reason })),
            ..ValidationError::new(
                "json_invalid",
                vec!["body".into(), offset(bytes, &error).into()],
                "JSON decode error",
                json!({}),
            )
        }])
    })
}

/// Where in the body an error is, in bytes from 0.
fn offset(bytes: &[u8], error: &serde_json::Error) -> usize {
    if error.is_eof() {
        return bytes.len();
    }
    let before = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum::<usize>();
    (before + error.column().saturating_sub(1)).min(bytes.len())
}

/// A JSON answer that is not for keeping.
pub(crate) fn answer<T: Serialize>(status: StatusCode, value: &T) -> Result<Response, ApiError> {
    Ok(json(status, encode(value)?))
}

/// Encoded JSON that is not for keeping.
pub(crate) fn json(status: StatusCode, bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 201 with `Location`.
pub(crate) fn created<T: Serialize>(location: &str, value: &T) -> Result<Response, ApiError> {
    let mut response = answer(StatusCode::CREATED, value)?;
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// A JSON answer with the ETag of its body, or 304 when the client has it.
pub(crate) fn cacheable<T: Serialize>(
    request: &HeaderMap,
    value: &T,
) -> Result<Response, ApiError> {
    let bytes = encode(value)?;
    let etag = etag::of_body(&bytes);
    Ok(conditional(request, "application/json", bytes, etag))
}

/// An answer with an ETag, or 304 when the client has it.
pub(crate) fn conditional(
    request: &HeaderMap,
    content_type: &'static str,
    bytes: Bytes,
    etag: HeaderValue,
) -> Response {
    let mut response = if etag::is_current(request, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = Response::new(Body::from(bytes));
        let content_type = HeaderValue::from_static(content_type);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ETAG, etag);
    response
}

/// A value as JSON.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, ApiError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| ApiError::internal(format!("an answer does not serialise: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(error: ApiError) -> String {
        error.for_the_log().into_owned()
    }

    #[test]
    fn bad_json_says_where() {
        for (text, place) in [
            (&b"{\"a\": }"[..], 6),
            (b"{\n  \"a\": nul\n}", 13),
            (b"{", 1),
            (b"[1] x", 4),
            (b"\xff", 0),
        ] {
            let error = parse(text).expect_err("bad");
            assert_eq!(
                detail(error),
                format!("json_invalid at [\"body\",{place}]"),
                "{}",
                String::from_utf8_lossy(text)
            );
        }
        assert_eq!(
            detail(parse(b"").expect_err("empty")),
            "missing at [\"body\"]"
        );
        let deep = "[".repeat(100_000);
        assert!(detail(parse(deep.as_bytes()).expect_err("deep")).starts_with("json_invalid"));
    }

    #[test]
    fn a_client_that_has_it_gets_a_304() {
        let mut request = HeaderMap::new();
        let first = cacheable(&request, &json!({"a": 1})).expect("an answer");
        assert_eq!(first.status(), 200);
        request.insert("if-none-match", first.headers()[ETAG].clone());
        let second = cacheable(&request, &json!({"a": 1})).expect("an answer");
        assert_eq!(second.status(), 304);
        assert_eq!(second.headers()[ETAG], first.headers()[ETAG]);
        assert_eq!(
            cacheable(&request, &json!({"a": 2}))
                .expect("an answer")
                .status(),
            200
        );
    }
}

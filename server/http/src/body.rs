//! Bodies: JSON in and JSON out.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, EXPECT, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use patchbay_plugin::validation::ValidationError;
use serde::Serialize;
use serde_json::{Value, json};

use crate::App;
use crate::door::is_json;
use crate::error::ApiError;
use crate::etag;

/// How much of a body past the limit is still read, so that the client gets to read the answer: a connection that is
/// closed on unread bytes is reset, and the answer is lost with it.
pub(crate) const DRAIN_LIMIT: usize = 16 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// The body of a request as JSON: 415 when it is something else, 413 past the limit, 422 `missing` when there is none
/// and `json_invalid`, with the offset, when it does not parse. What it says is for others to check.
pub(crate) struct JsonBody(pub(crate) Value);

impl FromRequest<App> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        if !parts.headers.get(CONTENT_TYPE).is_some_and(is_json) {
            return Err(ApiError::not_json());
        }
        let bytes = read(&parts.headers, body, app.settings().body_limit).await?;
        parse(&bytes).map(Self)
    }
}

async fn read(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let announced: Option<usize> = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length| length > limit) {
        // A client that asks first has sent nothing yet.
        if !headers.contains_key(EXPECT) {
            drain(body).await;
        }
        return Err(ApiError::too_large(limit));
    }
    let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "The body ended before its end"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > limit {
            drain(body).await;
            return Err(ApiError::too_large(limit));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

async fn drain(mut body: Body) {
    let all = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > DRAIN_LIMIT {
                break;
            }
        }
    };
    // Running out of time is as good as being done: the answer follows either way.
    let _ = tokio::time::timeout(DRAIN_TIME, all).await;
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
    let mut response = Response::new(Body::from(encode(value)?));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
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

    #[tokio::test]
    async fn a_body_past_the_limit_is_refused_whether_announced_or_not() {
        let announced = |length: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(
                CONTENT_LENGTH,
                HeaderValue::from_str(length).expect("a value"),
            );
            headers
        };
        for headers in [HeaderMap::new(), announced("11")] {
            let error = read(&headers, Body::from("12345678901"), 10)
                .await
                .expect_err("long");
            assert_eq!(error.status(), 413);
        }
        for headers in [HeaderMap::new(), announced("10")] {
            let bytes = read(&headers, Body::from("1234567890"), 10)
                .await
                .expect("fits");
            assert_eq!(&bytes[..], b"1234567890");
        }
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

//! Errors as they leave: one envelope, `{"correlation_id", "detail"}`, and one line of the log.
//!
//! A handler returns an [`ApiError`]; it becomes a response without a body that carries the error. The boundary
//! ([`enveloped`]) knows the request's id, writes the body, and leaves the error on the response for the one line that
//! is logged about the request. Responses that other layers make (a timeout, an unknown route) get their envelope there
//! too, by their status.
//!
//! A 5xx body holds a fixed text and nothing else; what happened is in the log, under the request's id. The exception is
//! 501, which says what the plugin does not do.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use patchbay_plugin::validation::{Invalid, ValidationError, told};
use patchbay_registry::RequestError;
use patchbay_store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Envelope {
    /// The request's id, as in `x-request-id`.
    pub(crate) correlation_id: String,
    /// What is wrong.
    pub(crate) detail: Detail,
}

/// What is wrong: a sentence, or for 422 a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Detail {
    /// A sentence.
    #[schema(value_type = String)]
    Text(Cow<'static, str>),
    /// One entry for each thing that is wrong in the request.
    #[schema(value_type = Vec<ValidationError>)]
    Invalid(Arc<[ValidationError]>),
}

/// An error on its way out.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    status: StatusCode,
    detail: Detail,
    /// What the log says and the client does not see.
    cause: Option<Arc<str>>,
}

impl ApiError {
    /// An error that says to the client what is wrong.
    pub(crate) fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            detail: Detail::Text(text.into()),
            cause: None,
        }
    }

    /// 404.
    pub(crate) fn not_found(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// 412.
    pub(crate) fn stale(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, text)
    }

    /// 413.
    pub(crate) fn too_large() -> Self {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        Self::new(status, fixed_text(status))
    }

    /// 415.
    pub(crate) fn not_json() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "The body has to be JSON: send content-type: application/json",
        )
    }

    /// 415 too.
    pub(crate) fn encoded() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "The body has to be plain JSON: send it without content-encoding",
        )
    }

    /// 422. What was sent is repeated as far as it [may be](told).
    pub(crate) fn invalid(errors: Vec<ValidationError>) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            detail: Detail::Invalid(told(errors).into()),
            cause: None,
        }
    }

    /// A status whose text is fixed; the cause is for the log.
    pub(crate) fn fixed(status: StatusCode, cause: impl Into<Arc<str>>) -> Self {
        Self {
            status,
            detail: Detail::Text(fixed_text(status).into()),
            cause: Some(cause.into()),
        }
    }

    /// 500; the cause is for the log.
    pub(crate) fn internal(cause: impl Into<Arc<str>>) -> Self {
        Self::fixed(StatusCode::INTERNAL_SERVER_ERROR, cause)
    }

    /// 503; the cause is for the log.
    pub(crate) fn unavailable(cause: impl Into<Arc<str>>) -> Self {
        Self::fixed(StatusCode::SERVICE_UNAVAILABLE, cause)
    }

    /// 503 of a server that is not ready, with the reason in a few words; the cause is for the log.
    pub(crate) fn unready(reason: &'static str, cause: impl Into<Arc<str>>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, reason)
        }
    }

    /// The status.
    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// What the log says: the cause, else what the client reads.
    pub(crate) fn for_the_log(&self) -> Cow<'_, str> {
        match (&self.cause, &self.detail) {
            (Some(cause), _) => Cow::Borrowed(cause),
            (None, Detail::Text(text)) => Cow::Borrowed(text),
            // The input may hold what a log should not, so only places and rules are named.
            (None, Detail::Invalid(errors)) => errors
                .iter()
                .map(|error| {
                    let loc = serde_json::to_string(&error.loc).unwrap_or_default();
                    format!("{} at {loc}", error.kind)
                })
                .collect::<Vec<_>>()
                .join(", ")
                .into(),
        }
    }
}

/// The text for a status that no handler explained.
fn fixed_text(status: StatusCode) -> &'static str {
    match status {
        StatusCode::INTERNAL_SERVER_ERROR => "Something went wrong",
        StatusCode::SERVICE_UNAVAILABLE => "Not available at the moment, try again",
        StatusCode::GATEWAY_TIMEOUT => "Took too long",
        StatusCode::PAYLOAD_TOO_LARGE => "The body is too large",
        status if status.is_server_error() => "Something went wrong",
        status => status.canonical_reason().unwrap_or("Bad Request"),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::BadRequest(text) => Self::new(StatusCode::BAD_REQUEST, text),
            RequestError::NotFound(text) => Self::not_found(text),
            RequestError::Conflict(text) => Self::new(StatusCode::CONFLICT, text),
            RequestError::Stale(text) => Self::stale(text),
            RequestError::Invalid(errors) => Self::invalid(errors),
            RequestError::Refused(cause) => Self {
                cause: Some(cause.into()),
                ..Self::new(
                    StatusCode::BAD_REQUEST,
                    "A rule of the plugin's table does not allow these values",
                )
            },
            RequestError::NotImplemented(text) => Self::new(StatusCode::NOT_IMPLEMENTED, text),
            RequestError::Busy => Self::unavailable("too many calls of the plugin are waiting"),
            RequestError::Deadline(cause) => Self::fixed(StatusCode::GATEWAY_TIMEOUT, cause),
            RequestError::Unavailable(cause) => Self::unavailable(cause),
            RequestError::ReadOnly(reason) => Self::new(StatusCode::SERVICE_UNAVAILABLE, reason),
            RequestError::Internal(cause) => Self::internal(cause),
        }
    }
}

impl From<Invalid> for ApiError {
    fn from(Invalid(errors): Invalid) -> Self {
        Self::invalid(errors)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        RequestError::from(error).into()
    }
}

/// The response with its envelope, when it is an error; else as it is.
///
/// The error stays on the response, as an extension, for the line of the log.
pub(crate) fn enveloped(response: Response, id: &HeaderValue) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    let error = parts.extensions.remove::<ApiError>().unwrap_or_else(|| {
        let error = ApiError::new(status, fixed_text(status));
        if status == StatusCode::GATEWAY_TIMEOUT {
            ApiError::fixed(status, "the request ran past the request timeout")
        } else {
            error
        }
    });
    let envelope = Envelope {
        correlation_id: id.to_str().unwrap_or_default().to_owned(),
        detail: error.detail.clone(),
    };
    // The body changes, so nothing that described the old one may stay.
    for header in [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_TYPE, ETAG] {
        parts.headers.remove(header);
    }
    parts.extensions.insert(error);
    let body = Json(envelope).into_response();
    if let Some(content_type) = body.headers().get(CONTENT_TYPE) {
        parts.headers.insert(CONTENT_TYPE, content_type.clone());
    }
    Response::from_parts(parts, body.into_body())
}

/// What a panic becomes.
pub(crate) fn panicked(panic: Box<dyn std::any::Any + Send + 'static>) -> Response<Body> {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    ApiError::internal(format!("a handler panicked: {text}")).into_response()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    async fn bytes(response: Response) -> Bytes {
        let body = response.into_body().collect().await;
        body.expect("a body").to_bytes()
    }

    async fn body(response: Response) -> Value {
        serde_json::from_slice(&bytes(response).await).expect("json")
    }

    #[tokio::test]
    async fn each_error_has_its_status_and_says_no_more_than_it_may() {
        let secret = || "SELECT * FROM t at /srv/x.lua:3".to_owned();
        for (error, status, detail) in [
            (RequestError::BadRequest("b".into()), 400, "b"),
            (
                RequestError::NotFound("Plugin 'x' not found".into()),
                404,
                "Plugin 'x' not found",
            ),
            (RequestError::Conflict("c".into()), 409, "c"),
            (RequestError::Stale("s".into()), 412, "s"),
            (
                RequestError::Refused(secret()),
                400,
                "A rule of the plugin's table does not allow these values",
            ),
            (RequestError::NotImplemented("n".into()), 501, "n"),
            (
                RequestError::Busy,
                503,
                "Not available at the moment, try again",
            ),
            (
                RequestError::Unavailable(secret()),
                503,
                "Not available at the moment, try again",
            ),
            (RequestError::Deadline(secret()), 504, "Took too long"),
            (
                RequestError::Internal(secret()),
                500,
                "Something went wrong",
            ),
        ] {
            let what = error.to_string();
            let id = HeaderValue::from_static("abc");
            let response = enveloped(ApiError::from(error).into_response(), &id);
            assert_eq!(response.status(), status, "{what}");
            assert_eq!(
                response.headers().contains_key(RETRY_AFTER),
                status == 503,
                "{what}"
            );
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
            assert_eq!(
                body(response).await,
                json!({"correlation_id": "abc", "detail": detail})
            );
        }
    }

    #[tokio::test]
    async fn a_database_that_cannot_now_is_a_503_that_says_no_more() {
        for error in [
            StoreError::HeadMoved,
            StoreError::Locked,
            StoreError::Busy,
            StoreError::ReadOnly,
            StoreError::Full,
            StoreError::Missing,
            StoreError::Away("SELECT at /srv".to_owned()),
            StoreError::Closed,
        ] {
            let cause = error.detail();
            let error = ApiError::from(error);
            assert_eq!(error.for_the_log(), cause);
            let response = enveloped(error.into_response(), &HeaderValue::from_static("i"));
            assert_eq!(response.status(), 503, "{cause}");
            assert_eq!(response.headers()[RETRY_AFTER], "1", "{cause}");
            assert_eq!(
                body(response).await["detail"],
                "Not available at the moment, try again",
                "{cause}"
            );
        }
    }

    #[tokio::test]
    async fn errors_of_input_are_a_list() {
        let wrong = ValidationError::missing(vec!["body".into(), "name".into()], json!({}));
        let error = ApiError::from(RequestError::Invalid(vec![wrong]));
        assert_eq!(error.for_the_log(), r#"missing at ["body","name"]"#);
        let response = enveloped(error.into_response(), &HeaderValue::from_static("i"));
        assert_eq!(response.status(), 422);
        assert_eq!(
            body(response).await["detail"],
            json!([{"type": "missing", "loc": ["body", "name"], "msg": "Field required", "input": {}}])
        );
    }

    #[tokio::test]
    async fn a_bare_status_gets_its_fixed_text() {
        for (status, detail) in [
            (404, "Not Found"),
            (405, "Method Not Allowed"),
            (413, "The body is too large"),
            (500, "Something went wrong"),
            (502, "Something went wrong"),
            (504, "Took too long"),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let bare = (status, [("allow", "GET")], "whatever a layer said").into_response();
            let response = enveloped(bare, &HeaderValue::from_static("i"));
            assert_eq!(response.headers()["allow"], "GET");
            assert_eq!(body(response).await["detail"], detail);
        }
    }

    #[tokio::test]
    async fn what_is_no_error_passes_untouched() {
        let response = enveloped("fine".into_response(), &HeaderValue::from_static("i"));
        assert_eq!(bytes(response).await, "fine");
    }

    #[test]
    fn a_panic_is_a_500_whose_message_goes_to_the_log() {
        let response = panicked(Box::new("boom"));
        let error = response.extensions().get::<ApiError>().expect("the error");
        assert_eq!(error.status(), 500);
        assert_eq!(error.for_the_log(), "a handler panicked: boom");
    }

    #[test]
    fn an_answer_does_not_repeat_a_large_body_with_each_error() {
        let loc = || vec!["body".into(), "a".into()];
        let input = Value::String("x".repeat(50_000));
        let errors = (0..1000)
            .map(|_| ValidationError::value(loc(), "m", input.clone()))
            .collect();
        let ApiError {
            detail: Detail::Invalid(errors),
            ..
        } = ApiError::invalid(errors)
        else {
            panic!("a 422");
        };
        assert_eq!(errors[0].input, input);
        assert!(errors[1..].iter().all(|error| error.input.is_null()));
    }
}

//! What is logged about a request: one line, when its answer is ready.
//!
//! It is at `debug` when the request went well, at `info` when the client is at fault, at `warn` for what passes (501,
//! 503, 504) and at `error` for a 500. The line stands in the request's span, which carries the id, method and path, as
//! do all lines of the log that the request causes. `patchbay_http=info` hides the lines of requests that went well,
//! `patchbay_http=warn` those of clients' faults too. Kept answers are counted and not logged.

use std::time::Duration;

use axum::http::{HeaderValue, Method, Uri};
use axum::response::Response;
use tracing::Span;

use crate::error::ApiError;

/// How much of a path the log shows, in bytes. That of every route is shorter.
const MAX_PATH: usize = 1024;

/// The span of a request.
pub(crate) fn span(id: Option<&HeaderValue>, method: &Method, uri: &Uri) -> Span {
    tracing::info_span!(
        "request",
        id = id.and_then(|id| id.to_str().ok()).unwrap_or_default(),
        %method,
        path = shown(uri.path()),
    )
}

fn shown(path: &str) -> &str {
    &path[..path.floor_char_boundary(MAX_PATH)]
}

/// The one line about a request.
pub(crate) fn answered(response: &Response, took: Option<Duration>) {
    let status = response.status().as_u16();
    let ms = took.map(|took| took.as_micros() as f64 / 1000.0);
    let Some(error) = response.extensions().get::<ApiError>() else {
        tracing::debug!(status, ms, "answered");
        return;
    };
    let detail = error.for_the_log();
    match status {
        501 | 503 | 504 => tracing::warn!(status, ms, %detail, "not answered"),
        500.. => tracing::error!(status, ms, %detail, "failed"),
        _ => tracing::info!(status, ms, %detail, "refused"),
    }
}

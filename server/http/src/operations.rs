//! Operations: health, figures and the OpenAPI document.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use patchbay_store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::App;
use crate::body::{answer, encode};
use crate::error::ApiError;
use crate::kept::{Key, Kind};
use crate::openapi;

/// How the server is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`.
    status: &'static str,
}

/// Whether the process answers.
#[utoipa::path(
    get, path = "/healthz", tag = "operations", operation_id = "get_health",
    responses((status = 200, description = "It does", body = Health)),
)]
pub(crate) async fn healthz() -> Result<Response, ApiError> {
    answer(StatusCode::OK, &Health { status: "ok" })
}

/// Whether requests can be answered: the database is read, and could be written.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", operation_id = "get_readiness",
    responses(
        (status = 200, description = "They can", body = Health),
        (status = 503, description = "They cannot; `detail` is the reason, in a few words", body = crate::error::Envelope),
    ),
)]
pub(crate) async fn readyz(State(app): State<App>) -> Result<Response, ApiError> {
    match app.store().health().await {
        Ok(()) => answer(StatusCode::OK, &Health { status: "ok" }),
        Err(error) => Err(ApiError::unready(reason(&error), error.detail())),
    }
}

fn reason(error: &StoreError) -> &'static str {
    match error {
        StoreError::Locked | StoreError::LockedBy { .. } => "database locked",
        StoreError::NewerSchema { .. } => "database newer than this server",
        StoreError::Busy => "database busy",
        StoreError::ReadOnly => "database not writable",
        StoreError::Full => "database full",
        StoreError::Missing => "database missing",
        StoreError::Closed => "shutting down",
        _ => "database away",
    }
}

/// The figures of the server, in the OpenMetrics text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operations", operation_id = "get_metrics",
    responses((
        status = 200, description = "The figures", body = String,
        content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8",
    )),
)]
pub(crate) async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    let text = app
        .metrics()
        .text()
        .map_err(|_| ApiError::internal("the figures do not encode"))?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok((
        [(CONTENT_TYPE, HeaderValue::from_static(content_type))],
        text,
    )
        .into_response())
}

/// This document.
#[utoipa::path(
    get, path = "/api/openapi.json", tag = "operations", operation_id = "get_openapi",
    responses((status = 200, description = "The OpenAPI document", body = Object)),
)]
pub(crate) async fn openapi(
    State(app): State<App>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    // The document is the same for ever; kept like the others it is computed once for each stamp, which is as rare.
    let compute = async || encode(&openapi::document());
    app.answer_kept(&Key::of(Kind::OpenApi), &request, compute)
        .await
}

//! `/configurations`: stored configurations, their history and their export.

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, LOCATION};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use patchbay_plugin::configuration::TechnicalMapping;
use patchbay_registry::wire::{self, ConfigurationView};
use patchbay_registry::{ConfigurationQuery, RequestError};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::App;
use crate::body::{JsonBody, cacheable, conditional, encode, json};
use crate::door::Caller;
use crate::error::ApiError;
use crate::etag;
use crate::input::{PathIds, QueryReader, bad_cursor};

/// A configuration to be stored.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the shape of a body, for the document; the registry reads the JSON itself"
)]
pub(crate) struct ConfigurationBody {
    /// Who owns it.
    data_product_id: Uuid,
    /// Unique in the data product.
    name: String,
    /// Free text.
    description: Option<String>,
    /// How its names come about; `default` when left out.
    #[schema(default = "default", required = false)]
    technical_mapping: TechnicalMapping,
    /// The platform it is for.
    platform_id: Option<Uuid>,
    /// The platform service it is for.
    service_id: Option<Uuid>,
    /// The values of the plugin's fields.
    #[schema(value_type = Object)]
    configuration: Value,
}

/// Stores a new configuration of a plugin.
#[utoipa::path(
    post, path = "/api/v2/plugins/{plugin}/configurations", tag = "configurations",
    operation_id = "create_configuration",
    params(("plugin" = String, Path, description = "The plugin's name or one of its aliases")),
    request_body = ConfigurationBody,
    responses(
        (status = 201, description = "What was stored", body = ConfigurationView, headers(
            ("Location" = String, description = "Its path"),
            ("ETag" = String, description = "Its revision, and the hash of the answer"),
        )),
        (status = 409, response = crate::openapi::Conflict),
    ),
)]
pub(crate) async fn create(
    State(app): State<App>,
    Path(plugin): Path<String>,
    Extension(Caller(by)): Extension<Caller>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let view = app.registry().create(&plugin, body, &by).await?;
    let location = format!("/api/v2/configurations/{}", view.id);
    let mut response = written(StatusCode::CREATED, &view)?;
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// A page of one plugin's configurations, newest first.
#[utoipa::path(
    get, path = "/api/v2/plugins/{plugin}/configurations", tag = "configurations",
    operation_id = "get_plugin_configurations",
    params(
        ("plugin" = String, Path, description = "The plugin's name or one of its aliases"),
        ("data_product_id" = Option<Uuid>, Query, description = "Only those of this data product"),
        ("q" = Option<String>, Query, description = "Only those whose name contains this"),
        crate::openapi::Paging,
    ),
    responses((status = 200, description = "The page", body = wire::ConfigurationPage)),
)]
pub(crate) async fn list_of_plugin(
    State(app): State<App>,
    Path(plugin): Path<String>,
    query: QueryReader,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    let query = read_query(query)?;
    let cursor = query.cursor.clone();
    let page = app.registry().plugin_configurations(&plugin, query).await;
    cacheable(
        &request,
        &page.map_err(|error| of_the_cursor(error, cursor))?,
    )
}

/// A page of all configurations, newest first.
#[utoipa::path(
    get, path = "/api/v2/configurations", tag = "configurations", operation_id = "get_configurations",
    params(
        ("plugin" = Option<String>, Query, description = "Only those of this plugin, by name or alias"),
        ("data_product_id" = Option<Uuid>, Query, description = "Only those of this data product"),
        ("q" = Option<String>, Query, description = "Only those whose name contains this"),
        crate::openapi::Paging,
    ),
    responses((status = 200, description = "The page", body = wire::ConfigurationPage)),
)]
pub(crate) async fn list(
    State(app): State<App>,
    query: QueryReader,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    let query = read_query(query)?;
    let cursor = query.cursor.clone();
    let page = app.registry().configurations(query).await;
    cacheable(
        &request,
        &page.map_err(|error| of_the_cursor(error, cursor))?,
    )
}

fn read_query(mut query: QueryReader) -> Result<ConfigurationQuery, ApiError> {
    let read = ConfigurationQuery {
        plugin: query.filled("plugin"),
        data_product_id: query.uuid("data_product_id"),
        q: query.filled("q"),
        limit: query.limit(),
        cursor: query.filled("cursor"),
    };
    query.finish()?;
    Ok(read)
}

/// The only thing about a list that can be wrong once its query is read is the cursor.
fn of_the_cursor(error: RequestError, cursor: Option<String>) -> ApiError {
    match error {
        RequestError::BadRequest(message) => bad_cursor(message, cursor),
        other => other.into(),
    }
}

/// One configuration, whatever became of its plugin.
#[utoipa::path(
    get, path = "/api/v2/configurations/{id}", tag = "configurations", operation_id = "get_configuration",
    params(("id" = Uuid, Path, description = "The configuration's id")),
    responses(
        (status = 200, description = "The configuration", body = ConfigurationView, headers(
            ("ETag" = String, description = "Its revision, and the hash of the answer"),
        )),
    ),
)]
pub(crate) async fn get(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    let view = app.registry().configuration(id).await?;
    let bytes = encode(&view)?;
    let etag = etag::of_configuration(view.revision, &bytes);
    Ok(conditional(&request, "application/json", bytes, etag))
}

/// Replaces a configuration.
#[utoipa::path(
    put, path = "/api/v2/configurations/{id}", tag = "configurations", operation_id = "replace_configuration",
    params(
        ("id" = Uuid, Path, description = "The configuration's id"),
        crate::openapi::IfMatch,
    ),
    request_body = ConfigurationBody,
    responses(
        (status = 200, description = "What was stored", body = ConfigurationView, headers(
            ("ETag" = String, description = "Its revision, and the hash of the answer"),
        )),
        (status = 409, response = crate::openapi::Conflict),
        (status = 412, response = crate::openapi::Stale),
    ),
)]
pub(crate) async fn replace(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    Extension(Caller(by)): Extension<Caller>,
    request: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let if_match = etag::revision(&request)?;
    written(
        StatusCode::OK,
        &app.registry().replace(id, body, if_match, &by).await?,
    )
}

/// Changes parts of a configuration: keys that are left out stay as they are.
#[utoipa::path(
    patch, path = "/api/v2/configurations/{id}", tag = "configurations", operation_id = "update_configuration",
    params(
        ("id" = Uuid, Path, description = "The configuration's id"),
        crate::openapi::IfMatch,
    ),
    request_body(content = Object, description = "Any of the keys that replacing it takes"),
    responses(
        (status = 200, description = "What was stored", body = ConfigurationView, headers(
            ("ETag" = String, description = "Its revision, and the hash of the answer"),
        )),
        (status = 409, response = crate::openapi::Conflict),
        (status = 412, response = crate::openapi::Stale),
    ),
)]
pub(crate) async fn patch(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    Extension(Caller(by)): Extension<Caller>,
    request: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let if_match = etag::revision(&request)?;
    written(
        StatusCode::OK,
        &app.registry().patch(id, body, if_match, &by).await?,
    )
}

fn written(status: StatusCode, view: &ConfigurationView) -> Result<Response, ApiError> {
    let bytes = encode(view)?;
    let etag = etag::of_configuration(view.revision, &bytes);
    let mut response = json(status, bytes);
    response.headers_mut().insert(ETAG, etag);
    Ok(response)
}

/// Deletes a configuration. Its history stays.
#[utoipa::path(
    delete, path = "/api/v2/configurations/{id}", tag = "configurations", operation_id = "delete_configuration",
    params(
        ("id" = Uuid, Path, description = "The configuration's id"),
        crate::openapi::IfMatch,
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 412, response = crate::openapi::Stale),
    ),
)]
pub(crate) async fn delete(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    Extension(Caller(by)): Extension<Caller>,
    request: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let if_match = etag::revision(&request)?;
    app.registry().delete(id, if_match, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The revisions of a configuration, newest first; they stay after it was deleted.
#[utoipa::path(
    get, path = "/api/v2/configurations/{id}/history", tag = "configurations",
    operation_id = "get_configuration_history",
    params(("id" = Uuid, Path, description = "The configuration's id")),
    responses((status = 200, description = "The revisions", body = wire::History)),
)]
pub(crate) async fn history(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    cacheable(&request, &app.registry().history(id).await?)
}

/// All configurations, one JSON object a line, as they are read.
#[utoipa::path(
    get, path = "/api/v2/configurations/export", tag = "configurations", operation_id = "export_configurations",
    responses((
        status = 200, description = "A ConfigurationView on each line; a connection that is cut off means that some are missing",
        body = String, content_type = "application/x-ndjson",
    )),
)]
pub(crate) async fn export(State(app): State<App>) -> Result<Response, ApiError> {
    let mut views = Box::pin(app.registry().export());
    // The first one is read before the head is sent, so that a database that is away is a 503 and not a broken stream.
    let first = match views.next().await {
        Some(first) => Some(line(first)?),
        None => None,
    };
    let headers = [
        (
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-ndjson"),
        ),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let lines = stream::iter(first.map(Ok)).chain(lines(views));
    Ok((headers, Body::from_stream(lines)).into_response())
}

fn line(view: Result<ConfigurationView, RequestError>) -> Result<Bytes, ApiError> {
    let mut text = Vec::from(encode(&view?)?);
    text.push(b'\n');
    Ok(text.into())
}

/// The lines of an export. The head is sent by now, so an error can only cut the connection off; that it does, and the
/// client sees a body without an end.
fn lines(
    views: impl Stream<Item = Result<ConfigurationView, RequestError>> + Send,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    let span = tracing::Span::current();
    views.map(move |view| {
        line(view).map_err(|error| {
            span.in_scope(|| {
                tracing::error!(detail = %error.for_the_log(), "an export was cut off");
            });
            std::io::Error::other("the export was cut off")
        })
    })
}

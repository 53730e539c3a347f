//! `/plugins`: the list, forms, tiles, links, access paths, and what operators ask about plugins.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use patchbay_plugin::configuration::TechnicalMapping;
use patchbay_plugin::platform::PluginMeta;
use patchbay_registry::wire;
use serde_json::Value;
use tracing::Instrument;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::App;
use crate::body::{JsonBody, answer, cacheable, conditional, encode};
use crate::error::ApiError;
use crate::etag;
use crate::input::QueryReader;
use crate::kept::{Key, Kind};

/// What an access path is rendered from.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the shape of a body, for the document; the registry reads the JSON itself"
)]
pub(crate) struct RenderBody {
    /// The platform.
    platform_id: Uuid,
    /// Its service, whose template is filled.
    service_id: Uuid,
    /// `configuration_type` and the values of the plugin's fields.
    #[schema(value_type = Object)]
    configuration: Value,
}

/// A configuration to be tried. It is as for creating one, of which a dry run needs less. Without a data product the
/// plugin's `validate` is not asked.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the shape of a body, for the document; the registry reads the JSON itself"
)]
pub(crate) struct DryRunBody {
    /// Who would own it.
    data_product_id: Option<Uuid>,
    /// What it would be called.
    name: Option<String>,
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

/// Every enabled plugin with its form, ordered by platform key.
#[utoipa::path(
    get, path = "/api/v2/plugins", tag = "plugins", operation_id = "get_plugins",
    responses((status = 200, description = "The plugins", body = wire::PluginList)),
)]
pub(crate) async fn list(State(app): State<App>, request: HeaderMap) -> Result<Response, ApiError> {
    let compute = async || encode(&app.registry().list().await);
    app.answer_kept(&Key::of(Kind::List), &request, compute)
        .await
}

/// The tiles of the enabled plugins, two deep.
#[utoipa::path(
    get, path = "/api/v2/plugins/platform-tiles", tag = "plugins", operation_id = "get_platform_tiles",
    responses((status = 200, description = "The tiles", body = wire::PlatformTiles)),
)]
pub(crate) async fn tiles(
    State(app): State<App>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    let compute = async || encode(&app.registry().platform_tiles().await);
    app.answer_kept(&Key::of(Kind::Tiles), &request, compute)
        .await
}

/// The form of one plugin.
#[utoipa::path(
    get, path = "/api/v2/plugins/{plugin}/form", tag = "plugins", operation_id = "get_plugin_form",
    params(("plugin" = String, Path, description = "The plugin's name or one of its aliases, case-sensitive")),
    responses((status = 200, description = "The form", body = PluginMeta)),
)]
pub(crate) async fn form(
    State(app): State<App>,
    Path(plugin): Path<String>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    let compute = async || encode(&app.registry().form(&plugin).await?);
    app.answer_kept(&Key::form(plugin.as_str()), &request, compute)
        .await
}

/// The link of a platform for a data product.
#[utoipa::path(
    get, path = "/api/v2/plugins/{plugin}/url", tag = "plugins", operation_id = "get_plugin_url",
    params(
        ("plugin" = String, Path, description = "A platform key, a parent platform's key, or a plugin's name"),
        ("id" = Uuid, Query, description = "A data product's id"),
        ("environment" = Option<String>, Query, description = "An environment's name, where the link depends on one"),
    ),
    responses(
        (status = 200, description = "The link", body = wire::PluginUrl),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 501, response = crate::openapi::NotImplemented),
    ),
)]
pub(crate) async fn url(
    State(app): State<App>,
    Path(plugin): Path<String>,
    query: QueryReader,
) -> Result<Response, ApiError> {
    let url = app
        .registry()
        .url(&plugin, query.text("id"), query.text("environment"))
        .await?;
    answer(StatusCode::OK, &url)
}

/// The access path that a configuration would have.
#[utoipa::path(
    post, path = "/api/v2/plugins/render_technical_asset_access_path", tag = "plugins",
    operation_id = "render_technical_asset_access_path",
    request_body = RenderBody,
    responses(
        (status = 200, description = "The access path", body = wire::AccessPath),
        (status = 404, response = crate::openapi::NotFound),
    ),
)]
pub(crate) async fn render(
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    answer(
        StatusCode::OK,
        &app.registry().render_access_path(body).await?,
    )
}

/// All about one plugin.
#[utoipa::path(
    get, path = "/api/v2/plugins/{plugin}", tag = "plugins", operation_id = "get_plugin",
    params(("plugin" = String, Path, description = "The plugin's name or one of its aliases")),
    responses((status = 200, description = "The plugin", body = wire::PluginDetails)),
)]
pub(crate) async fn details(
    State(app): State<App>,
    Path(plugin): Path<String>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    cacheable(&request, &app.registry().details(&plugin).await?)
}

/// Every plugin found, the failed and disabled ones too, in short.
#[utoipa::path(
    get, path = "/api/v2/plugins/status", tag = "plugins", operation_id = "get_plugins_status",
    responses((status = 200, description = "The plugins", body = wire::PluginStatuses)),
)]
pub(crate) async fn status(
    State(app): State<App>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    cacheable(&request, &app.registry().statuses().await)
}

/// The migrations of every plugin, applied and pending.
#[utoipa::path(
    get, path = "/api/v2/plugins/migrations", tag = "plugins", operation_id = "get_plugins_migrations",
    responses((status = 200, description = "The migrations, by plugin", body = wire::PluginMigrations)),
)]
pub(crate) async fn migrations(
    State(app): State<App>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    cacheable(&request, &app.registry().migrations().await?)
}

/// The JSON Schema (2020-12) of a plugin's configuration.
#[utoipa::path(
    get, path = "/api/v2/plugins/{plugin}/schema", tag = "plugins", operation_id = "get_plugin_schema",
    params(("plugin" = String, Path, description = "The plugin's name or one of its aliases")),
    responses((status = 200, description = "The schema", body = Object)),
)]
pub(crate) async fn schema(
    State(app): State<App>,
    Path(plugin): Path<String>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    cacheable(&request, &app.registry().schema(&plugin)?)
}

/// The icon of a plugin.
#[utoipa::path(
    get, path = "/api/v2/plugins/{plugin}/icon", tag = "plugins", operation_id = "get_plugin_icon",
    params(("plugin" = String, Path, description = "The plugin's name or one of its aliases")),
    responses((status = 200, description = "The icon", body = String, content_type = "image/svg+xml")),
)]
pub(crate) async fn icon(
    State(app): State<App>,
    Path(plugin): Path<String>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    let icon = Bytes::from_owner(app.registry().icon(&plugin)?);
    let etag = etag::of_body(&icon);
    let mut response = conditional(&request, "image/svg+xml", icon, etag);
    // An SVG is a document that can run scripts when it is opened by itself.
    response.headers_mut().insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'; style-src 'unsafe-inline'"),
    );
    Ok(response)
}

/// A dry run: whether a configuration could be stored, and how.
#[utoipa::path(
    post, path = "/api/v2/plugins/{plugin}/validate", tag = "plugins", operation_id = "validate_configuration",
    params(("plugin" = String, Path, description = "The plugin's name or one of its aliases")),
    request_body = DryRunBody,
    responses(
        (status = 200, description = "What was found", body = wire::DryRun),
        (status = 409, response = crate::openapi::Conflict),
    ),
)]
pub(crate) async fn validate(
    State(app): State<App>,
    Path(plugin): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    answer(
        StatusCode::OK,
        &app.registry().validate(&plugin, body).await?,
    )
}

/// Reads the plugin paths again.
#[utoipa::path(
    post, path = "/api/v2/plugins/reload", tag = "plugins", operation_id = "reload_plugins",
    params((
        "force" = Option<String>, Query,
        description = "A plugin whose newest version is to serve although it would refuse stored configurations",
    )),
    responses((status = 200, description = "What it did", body = wire::ReloadSummary)),
)]
pub(crate) async fn reload(
    State(app): State<App>,
    mut query: QueryReader,
) -> Result<Response, ApiError> {
    let force = query.filled("force");
    query.finish()?;
    // A reload that has begun is brought to its end, even when the client does not wait for it.
    let reload = async move {
        match force {
            None => Ok(app.registry().reload().await),
            Some(plugin) => app.registry().reload_forced(&plugin).await,
        }
    };
    let summary = tokio::spawn(reload.in_current_span()).await;
    let summary = summary.map_err(|error| ApiError::internal(format!("reloading: {error}")))??;
    answer(StatusCode::OK, &summary)
}

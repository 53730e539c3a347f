//! `/configuration/platforms`: platforms, their services, and the services' options.
//!
//! Reads come from the snapshot, which holds every write that was acknowledged here. The path of a service answers a
//! read with the service's options, as in the origin, and a write changes the service itself.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use patchbay_plugin::body::{BodyReader, checked};
use patchbay_plugin::catalogue::ServiceConfiguration;
use patchbay_store::{ServiceDraft, StoreError, What};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::App;
use crate::body::{JsonBody, answer, cacheable, created};
use crate::catalogue_views::{
    PlatformServiceConfigurations, PlatformServices, PlatformView, Platforms,
    ServiceConfigurationView, ServiceView, Views,
};
use crate::error::ApiError;
use crate::input::PathIds;
use crate::openapi::{Conflict, NotFound};

/// Where platforms are.
const PLATFORMS: &str = "/api/v2/configuration/platforms";

/// A platform to be stored.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of a body, for the document")]
pub(crate) struct PlatformBody {
    /// Unique.
    name: String,
}

/// A service to be stored.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of a body, for the document")]
pub(crate) struct ServiceBody {
    /// Unique in the platform; in lower case it is the platform key of the plugins it belongs to.
    name: String,
    /// The template of an access path.
    result_string_template: String,
    /// The template of the technical info; the access path's when left out.
    technical_info_template: Option<String>,
}

/// Options to be stored.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of a body, for the document")]
pub(crate) struct ServiceConfigurationBody {
    /// The platform.
    platform_id: Uuid,
    /// The service; each has at most one list of options.
    service_id: Uuid,
    /// The options, in order.
    config: Vec<String>,
}

/// Options that replace others.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of a body, for the document")]
pub(crate) struct OptionsBody {
    /// The options, in order.
    config: Vec<String>,
}

/// All platforms, by name.
#[utoipa::path(
    get, path = "/api/v2/configuration/platforms", tag = "catalogue", operation_id = "get_platforms",
    responses((status = 200, description = "The platforms", body = Platforms)),
)]
pub(crate) async fn list(State(app): State<App>, request: HeaderMap) -> Result<Response, ApiError> {
    cacheable(&request, &Views(&app.store().catalogue()).platforms())
}

/// Creates a platform.
#[utoipa::path(
    post, path = "/api/v2/configuration/platforms", tag = "catalogue", operation_id = "create_platform",
    request_body = PlatformBody,
    responses(
        (status = 201, description = "What was stored", body = PlatformView),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn create(
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let platform = app.store().create_platform(read_platform(body)?).await?;
    created(
        &format!("{PLATFORMS}/{}", platform.id),
        &PlatformView::from(&platform),
    )
}

/// One platform.
#[utoipa::path(
    get, path = "/api/v2/configuration/platforms/{id}", tag = "catalogue", operation_id = "get_platform",
    params(("id" = Uuid, Path, description = "The platform's id")),
    responses((status = 200, description = "The platform", body = PlatformView)),
)]
pub(crate) async fn get(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    let view = Views(&app.store().catalogue()).platform(id);
    cacheable(&request, &view.ok_or(StoreError::NotFound(What::Platform))?)
}

/// Replaces a platform.
#[utoipa::path(
    put, path = "/api/v2/configuration/platforms/{id}", tag = "catalogue", operation_id = "replace_platform",
    params(("id" = Uuid, Path, description = "The platform's id")),
    request_body = PlatformBody,
    responses(
        (status = 200, description = "What was stored", body = PlatformView),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn replace(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let platform = app
        .store()
        .update_platform(id, read_platform(body)?)
        .await?;
    answer(StatusCode::OK, &PlatformView::from(&platform))
}

/// Deletes a platform, unless configurations refer to it.
#[utoipa::path(
    delete, path = "/api/v2/configuration/platforms/{id}", tag = "catalogue", operation_id = "delete_platform",
    params(("id" = Uuid, Path, description = "The platform's id")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn delete(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
) -> Result<StatusCode, ApiError> {
    app.store().delete_platform(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn read_platform(body: Value) -> Result<String, ApiError> {
    let mut body = BodyReader::open(&body)?;
    let name = body.name("name");
    body.finish()?;
    Ok(checked(name))
}

/// The services of a platform.
#[utoipa::path(
    get, path = "/api/v2/configuration/platforms/{id}/services", tag = "catalogue",
    operation_id = "get_platform_services",
    params(("id" = Uuid, Path, description = "The platform's id")),
    responses((status = 200, description = "The services", body = PlatformServices)),
)]
pub(crate) async fn list_services(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    let catalogue = app.store().catalogue();
    let views = Views(&catalogue);
    views
        .platform(id)
        .ok_or(StoreError::NotFound(What::Platform))?;
    cacheable(&request, &views.services(id))
}

/// Creates a service of a platform.
#[utoipa::path(
    post, path = "/api/v2/configuration/platforms/{id}/services", tag = "catalogue",
    operation_id = "create_platform_service",
    params(("id" = Uuid, Path, description = "The platform's id")),
    request_body = ServiceBody,
    responses(
        (status = 201, description = "What was stored", body = ServiceView),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn create_service(
    State(app): State<App>,
    PathIds(platform_id): PathIds<Uuid>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let service = app
        .store()
        .create_service(platform_id, read_service(body)?)
        .await?;
    let view = Views(&app.store().catalogue()).service(&service);
    let location = format!("{PLATFORMS}/{platform_id}/services/{}", service.id);
    created(
        &location,
        &view.ok_or(StoreError::NotFound(What::Platform))?,
    )
}

/// The options of a service.
#[utoipa::path(
    get, path = "/api/v2/configuration/platforms/{id}/services/{service_id}", tag = "catalogue",
    operation_id = "get_platform_service_config",
    params(
        ("id" = Uuid, Path, description = "The platform's id"),
        ("service_id" = Uuid, Path, description = "The service's id"),
    ),
    responses((status = 200, description = "The options", body = ServiceConfigurationView)),
)]
pub(crate) async fn get_service(
    State(app): State<App>,
    PathIds((id, service_id)): PathIds<(Uuid, Uuid)>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    options(&app, &request, |found| {
        found.platform_id == id && found.service_id == service_id
    })
}

/// Replaces a service, with its templates.
#[utoipa::path(
    put, path = "/api/v2/configuration/platforms/{id}/services/{service_id}", tag = "catalogue",
    operation_id = "replace_platform_service",
    params(
        ("id" = Uuid, Path, description = "The platform's id"),
        ("service_id" = Uuid, Path, description = "The service's id"),
    ),
    request_body = ServiceBody,
    responses(
        (status = 200, description = "What was stored", body = ServiceView),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn replace_service(
    State(app): State<App>,
    PathIds((id, service_id)): PathIds<(Uuid, Uuid)>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let service = app
        .store()
        .update_service(id, service_id, read_service(body)?)
        .await?;
    let view = Views(&app.store().catalogue()).service(&service);
    answer(
        StatusCode::OK,
        &view.ok_or(StoreError::NotFound(What::Service))?,
    )
}

/// Deletes a service with its options, unless configurations refer to it.
#[utoipa::path(
    delete, path = "/api/v2/configuration/platforms/{id}/services/{service_id}", tag = "catalogue",
    operation_id = "delete_platform_service",
    params(
        ("id" = Uuid, Path, description = "The platform's id"),
        ("service_id" = Uuid, Path, description = "The service's id"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn delete_service(
    State(app): State<App>,
    PathIds((id, service_id)): PathIds<(Uuid, Uuid)>,
) -> Result<StatusCode, ApiError> {
    app.store().delete_service(id, service_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn read_service(body: Value) -> Result<ServiceDraft, ApiError> {
    let mut body = BodyReader::open(&body)?;
    let name = body.name("name");
    let result = body.string("result_string_template");
    let technical = body.string_or("technical_info_template", result.as_deref().or(Some("")));
    body.finish()?;
    Ok(ServiceDraft {
        name: checked(name),
        result_string_template: checked(result),
        technical_info_template: checked(technical),
    })
}

/// The options of every service that has some.
#[utoipa::path(
    get, path = "/api/v2/configuration/platforms/configs", tag = "catalogue",
    operation_id = "get_platform_service_configs",
    responses((status = 200, description = "The options", body = PlatformServiceConfigurations)),
)]
pub(crate) async fn list_configs(
    State(app): State<App>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    cacheable(
        &request,
        &Views(&app.store().catalogue()).service_configurations(),
    )
}

/// Gives a service its options.
#[utoipa::path(
    post, path = "/api/v2/configuration/platforms/configs", tag = "catalogue",
    operation_id = "create_platform_service_config",
    request_body = ServiceConfigurationBody,
    responses(
        (status = 201, description = "What was stored", body = ServiceConfigurationView),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn create_config(
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let mut body = BodyReader::open(&body)?;
    let (platform_id, service_id) = (body.uuid("platform_id"), body.uuid("service_id"));
    let config = body.strings("config");
    body.finish()?;
    let stored = app
        .store()
        .create_service_configuration(checked(platform_id), checked(service_id), checked(config))
        .await?;
    let view = Views(&app.store().catalogue()).service_configuration(&stored);
    let location = format!("{PLATFORMS}/configs/{}", stored.id);
    created(&location, &view.ok_or(StoreError::NotFound(What::Service))?)
}

/// The options of a service, by their own id.
#[utoipa::path(
    get, path = "/api/v2/configuration/platforms/configs/{id}", tag = "catalogue",
    operation_id = "get_platform_service_config_by_id",
    params(("id" = Uuid, Path, description = "The id of the options")),
    responses((status = 200, description = "The options", body = ServiceConfigurationView)),
)]
pub(crate) async fn get_config(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    options(&app, &request, |found| found.id == id)
}

/// Replaces the options of a service.
#[utoipa::path(
    put, path = "/api/v2/configuration/platforms/configs/{id}", tag = "catalogue",
    operation_id = "replace_platform_service_config",
    params(("id" = Uuid, Path, description = "The id of the options")),
    request_body = OptionsBody,
    responses((status = 200, description = "What was stored", body = ServiceConfigurationView)),
)]
pub(crate) async fn replace_config(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let mut body = BodyReader::open(&body)?;
    let config = body.strings("config");
    body.finish()?;
    let stored = app
        .store()
        .update_service_configuration(id, checked(config))
        .await?;
    let view = Views(&app.store().catalogue()).service_configuration(&stored);
    answer(
        StatusCode::OK,
        &view.ok_or(StoreError::NotFound(What::ServiceConfiguration))?,
    )
}

/// Takes a service's options away: forms that need them become `not_configured`.
#[utoipa::path(
    delete, path = "/api/v2/configuration/platforms/configs/{id}", tag = "catalogue",
    operation_id = "delete_platform_service_config",
    params(("id" = Uuid, Path, description = "The id of the options")),
    responses((status = 204, description = "They are gone")),
)]
pub(crate) async fn delete_config(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
) -> Result<StatusCode, ApiError> {
    app.store().delete_service_configuration(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn options(
    app: &App,
    request: &HeaderMap,
    wanted: impl Fn(&ServiceConfiguration) -> bool,
) -> Result<Response, ApiError> {
    let catalogue = app.store().catalogue();
    let found = catalogue
        .service_configurations
        .iter()
        .find(|found| wanted(found));
    let view = found.and_then(|found| Views(&catalogue).service_configuration(found));
    cacheable(
        request,
        &view.ok_or(StoreError::NotFound(What::ServiceConfiguration))?,
    )
}

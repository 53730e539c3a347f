//! `/configuration/environments`: environments, and what platforms and services are in them.
//!
//! What a platform or service is in an environment may hold secrets. They go out as `""`, which the snapshot cannot say
//! because it does not have them, so these reads go to the database.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use patchbay_plugin::body::{BodyReader, checked};
use patchbay_plugin::catalogue::EnvironmentConfiguration;
use patchbay_store::{EnvironmentConfigurationDraft, EnvironmentDraft, StoreError, What};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::App;
use crate::body::{JsonBody, answer, cacheable, created};
use crate::catalogue_views::{
    EnvironmentConfigs, EnvironmentConfigurationView, EnvironmentView, Environments, Views,
};
use crate::error::ApiError;
use crate::input::PathIds;
use crate::openapi::Conflict;

/// Where environments are.
const ENVIRONMENTS: &str = "/api/v2/configuration/environments";

/// An environment to be stored.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of a body, for the document")]
pub(crate) struct EnvironmentBody {
    /// Unique.
    name: String,
    /// A short name, as in `prd`.
    acronym: String,
    /// What identifies it on the platform, such as a role's ARN with `{{}}` for the namespace.
    #[schema(default = "", required = false)]
    context: String,
    /// Whether it is the default; then no other is any more.
    #[schema(default = false, required = false)]
    is_default: bool,
}

/// What a platform or service is in an environment, to be stored.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of a body, for the document")]
pub(crate) struct EnvironmentConfigurationBody {
    /// The platform.
    platform_id: Uuid,
    /// The service; null or left out for the platform's own.
    service_id: Option<Uuid>,
    /// An object for a platform; for a service a list of entries, each with an `identifier`.
    config: Value,
}

/// What replaces it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of a body, for the document")]
pub(crate) struct EnvironmentConfigBody {
    /// Of the same shape as before. A secret sent as `""` keeps what is stored, null clears it.
    config: Value,
}

/// All environments, by name.
#[utoipa::path(
    get, path = "/api/v2/configuration/environments", tag = "catalogue", operation_id = "get_environments",
    responses((status = 200, description = "The environments", body = Environments)),
)]
pub(crate) async fn list(State(app): State<App>, request: HeaderMap) -> Result<Response, ApiError> {
    cacheable(&request, &Views(&app.store().catalogue()).environments())
}

/// Creates an environment.
#[utoipa::path(
    post, path = "/api/v2/configuration/environments", tag = "catalogue", operation_id = "create_environment",
    request_body = EnvironmentBody,
    responses(
        (status = 201, description = "What was stored", body = EnvironmentView),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn create(
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let environment = app
        .store()
        .create_environment(read_environment(body)?)
        .await?;
    let location = format!("{ENVIRONMENTS}/{}", environment.id);
    created(&location, &EnvironmentView::from(&environment))
}

/// One environment.
#[utoipa::path(
    get, path = "/api/v2/configuration/environments/{id}", tag = "catalogue", operation_id = "get_environment",
    params(("id" = Uuid, Path, description = "The environment's id")),
    responses((status = 200, description = "The environment", body = EnvironmentView)),
)]
pub(crate) async fn get(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    let view = Views(&app.store().catalogue()).environment(id);
    cacheable(
        &request,
        &view.ok_or(StoreError::NotFound(What::Environment))?,
    )
}

/// Replaces an environment.
#[utoipa::path(
    put, path = "/api/v2/configuration/environments/{id}", tag = "catalogue", operation_id = "replace_environment",
    params(("id" = Uuid, Path, description = "The environment's id")),
    request_body = EnvironmentBody,
    responses(
        (status = 200, description = "What was stored", body = EnvironmentView),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn replace(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let environment = app
        .store()
        .update_environment(id, read_environment(body)?)
        .await?;
    answer(StatusCode::OK, &EnvironmentView::from(&environment))
}

/// Deletes an environment, with what platforms and services are in it.
#[utoipa::path(
    delete, path = "/api/v2/configuration/environments/{id}", tag = "catalogue", operation_id = "delete_environment",
    params(("id" = Uuid, Path, description = "The environment's id")),
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn delete(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
) -> Result<StatusCode, ApiError> {
    app.store().delete_environment(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn read_environment(body: Value) -> Result<EnvironmentDraft, ApiError> {
    let mut body = BodyReader::open(&body)?;
    let name = body.name("name");
    let acronym = body.name("acronym");
    let context = body.string_or("context", Some(""));
    let is_default = body.boolean_or("is_default", false);
    body.finish()?;
    Ok(EnvironmentDraft {
        name: checked(name),
        acronym: checked(acronym),
        context: checked(context),
        is_default: checked(is_default),
    })
}

/// What services are in an environment.
#[utoipa::path(
    get, path = "/api/v2/configuration/environments/{id}/configs", tag = "catalogue",
    operation_id = "get_environment_configs",
    params(("id" = Uuid, Path, description = "The environment's id")),
    responses((status = 200, description = "One for each service", body = EnvironmentConfigs)),
)]
pub(crate) async fn list_configs(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    let catalogue = app.store().catalogue_out().await?;
    let views = Views(&catalogue);
    views
        .environment(id)
        .ok_or(StoreError::NotFound(What::Environment))?;
    cacheable(
        &request,
        &views.environment_configurations(|configuration| configuration.environment_id == id),
    )
}

/// Says what a platform or service is in an environment.
#[utoipa::path(
    post, path = "/api/v2/configuration/environments/{id}/configs", tag = "catalogue",
    operation_id = "create_environment_config",
    params(("id" = Uuid, Path, description = "The environment's id")),
    request_body = EnvironmentConfigurationBody,
    responses(
        (status = 201, description = "What was stored", body = EnvironmentConfigurationView),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn create_config(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let mut body = BodyReader::open(&body)?;
    let platform_id = body.uuid("platform_id");
    let is_of_a_service = body.has("service_id");
    let service_id = body.optional_uuid("service_id");
    let config = read_config(&mut body, is_of_a_service);
    body.finish()?;
    let draft = EnvironmentConfigurationDraft {
        platform_id: checked(platform_id),
        service_id,
        config: checked(config),
    };
    let stored = app
        .store()
        .create_environment_configuration(id, draft)
        .await?;
    let location = format!("{ENVIRONMENTS}/configs/{}", stored.id);
    created(&location, &view(&app, &stored)?)
}

/// What a platform or service is in an environment, by its own id.
#[utoipa::path(
    get, path = "/api/v2/configuration/environments/configs/{id}", tag = "catalogue",
    operation_id = "get_environment_config_by_id",
    params(("id" = Uuid, Path, description = "The configuration's id")),
    responses((status = 200, description = "What it is", body = EnvironmentConfigurationView)),
)]
pub(crate) async fn get_config(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    one(&app, &request, |configuration| configuration.id == id).await
}

/// Replaces what a platform or service is in an environment.
#[utoipa::path(
    put, path = "/api/v2/configuration/environments/configs/{id}", tag = "catalogue",
    operation_id = "replace_environment_config",
    params(("id" = Uuid, Path, description = "The configuration's id")),
    request_body = EnvironmentConfigBody,
    responses((status = 200, description = "What was stored", body = EnvironmentConfigurationView)),
)]
pub(crate) async fn replace_config(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let catalogue = app.store().catalogue();
    let stored = catalogue
        .environment_configurations
        .iter()
        .find(|stored| stored.id == id);
    let stored = stored.ok_or(StoreError::NotFound(What::EnvironmentConfiguration))?;
    let mut body = BodyReader::open(&body)?;
    let config = read_config(&mut body, stored.service_id.is_some());
    body.finish()?;
    let stored = app
        .store()
        .update_environment_configuration(id, checked(config))
        .await?;
    answer(StatusCode::OK, &view(&app, &stored)?)
}

/// Takes away what a platform or service is in an environment.
#[utoipa::path(
    delete, path = "/api/v2/configuration/environments/configs/{id}", tag = "catalogue",
    operation_id = "delete_environment_config",
    params(("id" = Uuid, Path, description = "The configuration's id")),
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn delete_config(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
) -> Result<StatusCode, ApiError> {
    app.store().delete_environment_configuration(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An object for a platform; for a service a list of entries, each with an `identifier`.
fn read_config(body: &mut BodyReader<'_>, is_of_a_service: bool) -> Option<Value> {
    if is_of_a_service {
        body.entries("config", "identifier").map(Value::Array)
    } else {
        body.object("config").map(Value::Object)
    }
}

fn view(
    app: &App,
    stored: &EnvironmentConfiguration,
) -> Result<EnvironmentConfigurationView, ApiError> {
    let view = Views(&app.store().catalogue()).environment_configuration(stored);
    Ok(view.ok_or(StoreError::NotFound(What::EnvironmentConfiguration))?)
}

/// What a service is in every environment.
#[utoipa::path(
    get, path = "/api/v2/configuration/environments/platforms/{platform_id}/services/{service_id}/config",
    tag = "catalogue", operation_id = "get_service_environment_configs",
    params(
        ("platform_id" = Uuid, Path, description = "The platform's id"),
        ("service_id" = Uuid, Path, description = "The service's id"),
    ),
    responses((status = 200, description = "One for each environment", body = EnvironmentConfigs)),
)]
pub(crate) async fn list_of_service(
    State(app): State<App>,
    PathIds((platform_id, service_id)): PathIds<(Uuid, Uuid)>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    let catalogue = app.store().catalogue_out().await?;
    let service = catalogue.service(platform_id, service_id);
    service.ok_or(StoreError::NotFound(What::Service))?;
    cacheable(
        &request,
        &Views(&catalogue).environment_configurations(|configuration| {
            configuration.platform_id == platform_id && configuration.service_id == Some(service_id)
        }),
    )
}

/// What a platform is in an environment.
#[utoipa::path(
    get, path = "/api/v2/configuration/environments/{id}/platforms/{platform_id}/config",
    tag = "catalogue", operation_id = "get_environment_platform_config",
    params(
        ("id" = Uuid, Path, description = "The environment's id"),
        ("platform_id" = Uuid, Path, description = "The platform's id"),
    ),
    responses((status = 200, description = "What it is", body = EnvironmentConfigurationView)),
)]
pub(crate) async fn of_platform(
    State(app): State<App>,
    PathIds((id, platform_id)): PathIds<(Uuid, Uuid)>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    one(&app, &request, |configuration| {
        configuration.environment_id == id
            && configuration.platform_id == platform_id
            && configuration.service_id.is_none()
    })
    .await
}

/// What a service is in an environment.
#[utoipa::path(
    get, path = "/api/v2/configuration/environments/{id}/platforms/{platform_id}/services/{service_id}/config",
    tag = "catalogue", operation_id = "get_environment_service_config",
    params(
        ("id" = Uuid, Path, description = "The environment's id"),
        ("platform_id" = Uuid, Path, description = "The platform's id"),
        ("service_id" = Uuid, Path, description = "The service's id"),
    ),
    responses((status = 200, description = "What it is", body = EnvironmentConfigurationView)),
)]
pub(crate) async fn of_service(
    State(app): State<App>,
    PathIds((id, platform_id, service_id)): PathIds<(Uuid, Uuid, Uuid)>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    one(&app, &request, |configuration| {
        configuration.environment_id == id
            && configuration.platform_id == platform_id
            && configuration.service_id == Some(service_id)
    })
    .await
}

async fn one(
    app: &App,
    request: &HeaderMap,
    wanted: impl Fn(&EnvironmentConfiguration) -> bool,
) -> Result<Response, ApiError> {
    let catalogue = app.store().catalogue_out().await?;
    let found = catalogue
        .environment_configurations
        .iter()
        .find(|found| wanted(found));
    let view = found.and_then(|found| Views(&catalogue).environment_configuration(found));
    cacheable(
        request,
        &view.ok_or(StoreError::NotFound(What::EnvironmentConfiguration))?,
    )
}

//! Every route.

use axum::Router;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::{
    App, cluster, configurations, data_products, environments, openapi, operations, platforms,
    plugins,
};

/// Every route. Paths stand at the handlers, where the OpenAPI document takes them from too, and have no trailing slash:
/// `front` takes that off. What no route takes is a 404, or a 405 with `Allow`; both get their envelope at the boundary.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::base())
        // Plugins
        .routes(routes!(plugins::list))
        .routes(routes!(plugins::tiles))
        .routes(routes!(plugins::status))
        .routes(routes!(plugins::migrations))
        .routes(routes!(plugins::reload))
        .routes(routes!(plugins::render))
        .routes(routes!(plugins::details))
        .routes(routes!(plugins::form))
        .routes(routes!(plugins::url))
        .routes(routes!(plugins::schema))
        .routes(routes!(plugins::icon))
        .routes(routes!(plugins::validate))
        // Configurations
        .routes(routes!(
            configurations::list_of_plugin,
            configurations::create
        ))
        .routes(routes!(configurations::list))
        .routes(routes!(configurations::export))
        .routes(routes!(
            configurations::get,
            configurations::replace,
            configurations::patch,
            configurations::delete
        ))
        .routes(routes!(configurations::history))
        // The catalogue
        .routes(routes!(platforms::list, platforms::create))
        .routes(routes!(platforms::list_configs, platforms::create_config))
        .routes(routes!(
            platforms::get_config,
            platforms::replace_config,
            platforms::delete_config
        ))
        .routes(routes!(
            platforms::get,
            platforms::replace,
            platforms::delete
        ))
        .routes(routes!(platforms::list_services, platforms::create_service))
        .routes(routes!(
            platforms::get_service,
            platforms::replace_service,
            platforms::delete_service
        ))
        .routes(routes!(environments::list, environments::create))
        .routes(routes!(
            environments::get_config,
            environments::replace_config,
            environments::delete_config
        ))
        .routes(routes!(environments::list_of_service))
        .routes(routes!(
            environments::get,
            environments::replace,
            environments::delete
        ))
        .routes(routes!(
            environments::list_configs,
            environments::create_config
        ))
        .routes(routes!(environments::of_platform))
        .routes(routes!(environments::of_service))
        // Data products
        .routes(routes!(data_products::list, data_products::create))
        .routes(routes!(
            data_products::get,
            data_products::replace,
            data_products::delete
        ))
        // Operations
        .routes(routes!(cluster::get))
        .routes(routes!(operations::healthz))
        .routes(routes!(operations::readyz))
        .routes(routes!(operations::metrics))
        .routes(routes!(operations::openapi))
}

/// The routes, ready to serve.
pub(crate) fn service(app: &App) -> Router {
    router().with_state(app.clone()).into()
}

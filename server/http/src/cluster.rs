//! The cluster: the servers on one database.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use patchbay_registry::wire;

use crate::App;
use crate::body::answer;
use crate::error::ApiError;

/// The servers on one database, the generations of plugins that they serve, how far each is behind, and why.
#[utoipa::path(
    get, path = "/api/v2/cluster", tag = "operations", operation_id = "get_cluster",
    responses((status = 200, description = "The cluster", body = wire::ClusterView)),
)]
pub(crate) async fn get(State(app): State<App>) -> Result<Response, ApiError> {
    answer(StatusCode::OK, &app.registry().cluster().await?)
}

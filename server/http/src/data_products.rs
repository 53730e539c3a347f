//! `/data_products`: the owners of configurations.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use patchbay_plugin::body::{BodyReader, checked};
use patchbay_plugin::configuration::{DataProduct, is_namespace};
use patchbay_store::{DataProductDraft, StoreError, What};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::App;
use crate::body::{JsonBody, answer, cacheable, created};
use crate::error::ApiError;
use crate::input::{PathIds, QueryReader, bad_cursor};
use crate::openapi::{Conflict, Paging};

/// A new data product.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of a body, for the document")]
pub(crate) struct NewDataProductBody {
    /// Its id elsewhere; a new one when left out.
    id: Option<Uuid>,
    /// What users call it.
    name: String,
    /// Unique.
    #[schema(pattern = "^[a-z0-9+=,.@_-]{1,64}$")]
    namespace: String,
    /// The business domain it is part of.
    domain: String,
}

/// What replaces a data product. Its id stays.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of a body, for the document")]
pub(crate) struct DataProductBody {
    /// What users call it.
    name: String,
    /// Unique.
    #[schema(pattern = "^[a-z0-9+=,.@_-]{1,64}$")]
    namespace: String,
    /// The business domain it is part of.
    domain: String,
}

/// A page of data products, by namespace.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DataProductPage {
    data_products: Vec<DataProduct>,
    /// What to send as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
}

/// A page of data products, by namespace.
#[utoipa::path(
    get, path = "/api/v2/data_products", tag = "data products", operation_id = "get_data_products",
    params(Paging),
    responses((status = 200, description = "The page", body = DataProductPage)),
)]
pub(crate) async fn list(
    State(app): State<App>,
    mut query: QueryReader,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    let (limit, cursor) = (query.limit(), query.filled("cursor"));
    query.finish()?;
    let page = app.store().data_products(limit, cursor.as_deref()).await;
    let page = page.map_err(|error| match error {
        StoreError::Invalid(message) => bad_cursor(message, cursor),
        other => other.into(),
    })?;
    cacheable(
        &request,
        &DataProductPage {
            data_products: page.items,
            next_cursor: page.next_cursor,
        },
    )
}

/// Creates a data product.
#[utoipa::path(
    post, path = "/api/v2/data_products", tag = "data products", operation_id = "create_data_product",
    request_body = NewDataProductBody,
    responses(
        (status = 201, description = "What was stored", body = DataProduct),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn create(
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let mut body = BodyReader::open(&body)?;
    let id = body.optional_uuid("id");
    let draft = read_draft(body)?;
    let product = app.store().create_data_product(id, draft).await?;
    created(&format!("/api/v2/data_products/{}", product.id), &product)
}

/// One data product.
#[utoipa::path(
    get, path = "/api/v2/data_products/{id}", tag = "data products", operation_id = "get_data_product",
    params(("id" = Uuid, Path, description = "The data product's id")),
    responses((status = 200, description = "The data product", body = DataProduct)),
)]
pub(crate) async fn get(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    let product = app.store().data_product(id).await?;
    let product = product.ok_or(StoreError::NotFound(What::DataProduct))?;
    cacheable(&request, &product)
}

/// Replaces a data product.
#[utoipa::path(
    put, path = "/api/v2/data_products/{id}", tag = "data products", operation_id = "replace_data_product",
    params(("id" = Uuid, Path, description = "The data product's id")),
    request_body = DataProductBody,
    responses(
        (status = 200, description = "What was stored", body = DataProduct),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn replace(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let draft = read_draft(BodyReader::open(&body)?)?;
    answer(
        StatusCode::OK,
        &app.store().update_data_product(id, draft).await?,
    )
}

/// Deletes a data product, unless it has configurations.
#[utoipa::path(
    delete, path = "/api/v2/data_products/{id}", tag = "data products", operation_id = "delete_data_product",
    params(("id" = Uuid, Path, description = "The data product's id")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn delete(
    State(app): State<App>,
    PathIds(id): PathIds<Uuid>,
) -> Result<StatusCode, ApiError> {
    app.store().delete_data_product(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn read_draft(mut body: BodyReader<'_>) -> Result<DataProductDraft, ApiError> {
    let name = body.name("name");
    let namespace = body.string("namespace");
    if namespace
        .as_deref()
        .is_some_and(|namespace| !is_namespace(namespace))
    {
        body.refuse("namespace", "Input should match ^[a-z0-9+=,.@_-]{1,64}$");
    }
    let domain = body.string("domain");
    body.finish()?;
    Ok(DataProductDraft {
        name: checked(name),
        namespace: checked(namespace),
        domain: checked(domain),
    })
}

//! Every layer between the outermost service and the router, from the outside in.

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION,
    RETRY_AFTER,
};
use axum::http::{HeaderName, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tower::ServiceBuilder;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::RequestId;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;

use crate::App;
use crate::door::ANY_ORIGIN;
use crate::error::{enveloped, panicked};
use crate::etag;
use crate::front::Front;
use crate::log;
use crate::request_id::X_REQUEST_ID;

/// The whole service: every layer around the routes.
pub(crate) fn service(routes: Router, app: &App) -> Front {
    let settings = app.settings();
    let layers = ServiceBuilder::new()
        // The span of the request, and its one line.
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(request_span)
                .on_request(())
                .on_response(|response: &Response, took: Duration, _: &Span| {
                    log::answered(response, Some(took));
                })
                .on_body_chunk(())
                .on_eos(())
                .on_failure(()),
        )
        // Errors get their envelope, and everything is counted.
        .layer(from_fn_with_state(app.clone(), boundary))
        // Foreign pages that the operator listed.
        .layer(option_layer(cors(app)))
        // gzip, for what is not kept compressed.
        .map_response(with_weak_etag)
        .layer(CompressionLayer::new())
        // 504 past the request timeout, which is over the head of an answer, not its body.
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            settings.request_timeout,
        ))
        // 500 when a handler panics.
        .layer(CatchPanicLayer::custom(panicked))
        // 413 past the limit, whether the length was announced or shows while the body is read.
        .layer(RequestBodyLimitLayer::new(settings.body_limit));
    Front::new(app.clone(), routes.layer(layers))
}

fn request_span(request: &Request) -> Span {
    let id = request.extensions().get::<RequestId>();
    let id = id.map(RequestId::header_value);
    log::span(id, request.method(), request.uri())
}

async fn boundary(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let in_flight = app.metrics().begin();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let id = request.extensions().get::<RequestId>().cloned();
    let response = next.run(request).await;
    let response = match id {
        Some(id) => enveloped(response, id.header_value()),
        None => response,
    };
    let route = route.as_ref().map(MatchedPath::as_str);
    app.metrics()
        .answered(&method, route, response.status(), Some(began.elapsed()));
    drop(in_flight);
    response
}

fn cors(app: &App) -> Option<CorsLayer> {
    let origins = &app.settings().cors_origins;
    if origins.is_empty() {
        return None;
    }
    let origins = if origins.iter().any(|origin| origin == ANY_ORIGIN) {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().cloned())
    };
    let x_key = HeaderName::from_static("x-key");
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            IF_MATCH,
            IF_NONE_MATCH,
            X_REQUEST_ID,
            x_key,
        ])
        .expose_headers([ETAG, LOCATION, RETRY_AFTER, X_REQUEST_ID])
        .max_age(Duration::from_secs(600));
    Some(layer)
}

/// A compressed body is another representation than the one whose ETag it has.
fn with_weak_etag<B>(mut response: axum::http::Response<B>) -> axum::http::Response<B> {
    if response.headers().contains_key(CONTENT_ENCODING)
        && let Some(etag) = response.headers().get(ETAG)
    {
        let etag = etag::weak(etag);
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

//! What stands before everything else, for each request: its id, the length of its head, the door, the kept answers, and
//! the trailing slash; and what follows it: the rest of its body, and the id on its answer.
//!
//! A kept answer leaves from here, before the router, the span, the timeout and the compression have cost anything.
//! Requests of foreign pages (with an `Origin`) go the long way, because their answers need CORS headers.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::Either;
use http_body_util::{Either as EitherBody, Full};
use tower::ServiceExt;
use tower_http::request_id::RequestId;

use crate::App;
use crate::error::{ApiError, enveloped};
use crate::kept::Key;
use crate::log;
use crate::path;
use crate::request_id::X_REQUEST_ID;
use crate::unread::Unread;

/// The longest path and query of a request, in bytes. No route needs a quarter of it.
const MAX_TARGET: usize = 8 * 1024;
/// How much the headers of a request hold at most, in bytes of names and values.
const MAX_HEADERS: usize = 64 * 1024;

/// The body of a response: a kept one, or what the router made.
pub(crate) type FrontBody = EitherBody<Full<Bytes>, Body>;

type FrontResult = Result<axum::http::Response<FrontBody>, Infallible>;

/// The answer to a request: at hand, or on its way.
pub(crate) type FrontFuture =
    Either<Ready<FrontResult>, Pin<Box<dyn Future<Output = FrontResult> + Send>>>;

/// The outermost service.
#[derive(Clone)]
pub(crate) struct Front {
    app: App,
    inner: Router,
}

impl Front {
    /// Stands before a router whose layers are in place.
    pub(crate) fn new(app: App, inner: Router) -> Self {
        Self { app, inner }
    }

    /// Answers a request. `body` turns its body into one that the router takes, when it gets that far.
    pub(crate) fn answer<B>(
        &self,
        request: axum::http::Request<B>,
        body: impl FnOnce(B) -> Body,
    ) -> FrontFuture {
        let (mut parts, rest) = request.into_parts();
        let id = self.app.ids().of(&parts.headers);
        let short = path::trimmed(parts.uri.path());
        let is_open = matches!(short, "/healthz" | "/readyz");
        let checked = check_length(&parts).and_then(|()| {
            let door = self.app.door();
            match is_open {
                true => Ok(()),
                false => Ok(door.check(&parts.method, &parts.uri, &parts.headers)?),
            }
        });
        if let Err(error) = checked {
            let response = self.refused(&parts, error, &id);
            let (_, unread) = Unread::split(&parts.headers, body(rest));
            return match unread {
                None => Either::Left(ready(Ok(response))),
                Some(unread) => Either::Right(Box::pin(async move {
                    unread.read_off().await;
                    Ok(response)
                })),
            };
        }
        if parts.method == Method::GET
            && let Some(key) = Key::of_path(short)
            && !parts.headers.contains_key(ORIGIN)
            && let Some(entry) = self.app.kept(&key)
            && let Some(response) = entry.at_once::<Full<Bytes>>(&parts.headers)
        {
            let mut response = response.map(EitherBody::Left);
            let headers = response.headers_mut();
            headers.insert(X_REQUEST_ID, id);
            if !self.app.settings().cors_origins.is_empty() {
                // A cache must not give this answer to a foreign page, whose own would have CORS headers.
                headers.append(VARY, HeaderValue::from_static("origin"));
            }
            self.app.metrics().hit(key.kind, response.status());
            return Either::Left(ready(Ok(response)));
        }
        path::normalise(&mut parts.uri);
        parts.extensions.insert(RequestId::new(id.clone()));
        parts.extensions.insert(self.app.door().caller().clone());
        let (body, unread) = Unread::split(&parts.headers, body(rest));
        let request = Request::from_parts(parts, body);
        let answer = self.inner.clone().oneshot(request);
        Either::Right(Box::pin(async move {
            let response = answer.await?;
            if let Some(unread) = unread {
                unread.read_off().await;
            }
            Ok(finished(response, id))
        }))
    }

    fn refused(
        &self,
        parts: &Parts,
        error: ApiError,
        id: &HeaderValue,
    ) -> axum::http::Response<FrontBody> {
        let response = enveloped(error.into_response(), id);
        log::span(Some(id), &parts.method, &parts.uri).in_scope(|| log::answered(&response, None));
        self.app
            .metrics()
            .answered(&parts.method, None, response.status(), None);
        finished(response, id.clone())
    }
}

/// Refuses a head that is longer than it may be. Far beyond that hyper has refused it already, without an envelope.
fn check_length(parts: &Parts) -> Result<(), ApiError> {
    let target = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    if target.len() > MAX_TARGET {
        return Err(ApiError::new(
            StatusCode::URI_TOO_LONG,
            "The path and query are too long",
        ));
    }
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    if parts.headers.iter().map(size).sum::<usize>() > MAX_HEADERS {
        return Err(ApiError::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "The headers are too large",
        ));
    }
    Ok(())
}

fn finished(mut response: Response, id: HeaderValue) -> axum::http::Response<FrontBody> {
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, id);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.map(EitherBody::Right)
}

//! One answer that is kept, plain and compressed.

use std::io::Write;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::OnceCell;

use crate::error::ApiError;
use crate::etag;

/// Smaller bodies do not gain from compression.
const MIN_GZIP: usize = 1024;
/// Larger bodies are compressed aside, so that they hold up no other request.
const MAX_INLINE_GZIP: usize = 32 * 1024;

/// An answer that is kept.
#[derive(Debug)]
pub(crate) struct Entry<S> {
    pub(super) stamp: S,
    pub(super) body: Bytes,
    etag: HeaderValue,
    gzip_etag: HeaderValue,
    gzip: OnceCell<Bytes>,
}

impl<S: Copy + Eq> Entry<S> {
    /// An answer that is right while the stamp is.
    pub(super) fn new(stamp: S, body: Bytes) -> Self {
        let etag = etag::of_body(&body);
        Self {
            stamp,
            gzip_etag: etag::weak(&etag),
            etag,
            body,
            gzip: OnceCell::new(),
        }
    }

    /// The response, when it can be made at once; none when its compressed body is still to be made.
    pub(crate) fn at_once<B: From<Bytes>>(&self, request: &HeaderMap) -> Option<Response<B>> {
        if !self.wants_gzip(request) {
            return Some(self.respond(request, &self.body, None));
        }
        let gzip = self.gzip.get()?;
        Some(self.respond(request, gzip, Some(&self.gzip_etag)))
    }

    /// The response; compresses the body when it has to and nobody has yet.
    pub(crate) async fn response(&self, request: &HeaderMap) -> Result<Response<Body>, ApiError> {
        if self.wants_gzip(request) {
            self.gzip
                .get_or_try_init(|| compressed(self.body.clone()))
                .await?;
        }
        self.at_once(request)
            .ok_or_else(|| ApiError::internal("a kept answer has no compressed body"))
    }

    fn wants_gzip(&self, request: &HeaderMap) -> bool {
        self.body.len() >= MIN_GZIP && accepts_gzip(request)
    }

    fn respond<B: From<Bytes>>(
        &self,
        request: &HeaderMap,
        body: &Bytes,
        gzip_etag: Option<&HeaderValue>,
    ) -> Response<B> {
        let etag = gzip_etag.unwrap_or(&self.etag);
        let is_current = etag::is_current(request, etag);
        let mut response = Response::new(B::from(if is_current {
            Bytes::new()
        } else {
            body.clone()
        }));
        let mut headers = HeaderMap::with_capacity(8);
        if is_current {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if gzip_etag.is_some() {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        headers.insert(ETAG, etag.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        *response.headers_mut() = headers;
        response
    }
}

async fn compressed(body: Bytes) -> Result<Bytes, ApiError> {
    let is_small = body.len() <= MAX_INLINE_GZIP;
    let compress = move || {
        let mut encoder =
            GzEncoder::new(Vec::with_capacity(body.len() / 3), Compression::default());
        encoder.write_all(&body)?;
        encoder.finish().map(Bytes::from)
    };
    let compressed: std::io::Result<Bytes> = if is_small {
        compress()
    } else {
        tokio::task::spawn_blocking(compress)
            .await
            .map_err(|error| ApiError::internal(format!("compressing failed: {error}")))?
    };
    compressed.map_err(|error| ApiError::internal(format!("compressing failed: {error}")))
}

/// Whether a request takes gzip: named, or by `*`, and not with a weight of zero.
fn accepts_gzip(request: &HeaderMap) -> bool {
    let mut by_star = false;
    for line in request.get_all(ACCEPT_ENCODING) {
        let Ok(line) = line.to_str() else {
            continue;
        };
        for coding in line.split(',') {
            let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
            let name = name.trim();
            let is_wanted = parameters
                .trim()
                .strip_prefix("q=")
                .is_none_or(|weight| weight.trim().parse::<f32>().is_ok_and(|q| q > 0.0));
            if name.eq_ignore_ascii_case("gzip") {
                return is_wanted;
            }
            by_star |= name == "*" && is_wanted;
        }
    }
    by_star
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    type Bodied = Response<Full<Bytes>>;

    fn accepting(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn gzip_is_taken_when_it_is_named_or_starred_and_weighs_something() {
        for (value, accepts) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5, br", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip;q=0.0, *", false),
            ("*;q=0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(accepts_gzip(&accepting(value)), accepts, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn a_compressed_body_is_made_once_and_has_a_weak_etag() {
        for size in [MIN_GZIP, MAX_INLINE_GZIP + 1] {
            let entry = Entry::new(1, Bytes::from("x".repeat(size)));
            let plain: Bodied = entry.at_once(&HeaderMap::new()).expect("at once");
            assert!(!plain.headers().contains_key(CONTENT_ENCODING));
            let gzip = accepting("gzip");
            assert!(entry.at_once::<Full<Bytes>>(&gzip).is_none());
            let packed = entry.response(&gzip).await.expect("a response");
            assert_eq!(packed.headers()[CONTENT_ENCODING], "gzip");
            assert_eq!(packed.headers()[ETAG], etag::weak(&plain.headers()[ETAG]));
            assert!(entry.gzip.get().expect("made").len() < size / 4);
            assert!(entry.at_once::<Full<Bytes>>(&gzip).is_some());
            let mut request = accepting("gzip");
            request.insert("if-none-match", plain.headers()[ETAG].clone());
            let current: Bodied = entry.at_once(&request).expect("at once");
            assert_eq!(current.status(), 304);
        }
        let small = Entry::new(1, Bytes::from("{}"));
        let plain: Bodied = small.at_once(&accepting("gzip")).expect("at once");
        assert!(!plain.headers().contains_key(CONTENT_ENCODING));
    }
}

//! What a handler left unread of a request's body.
//!
//! A connection that is closed on unread bytes is reset, and the answer is lost with it before the client has seen it:
//! a client that sent too much would learn nothing. So the rest is read, within bounds, before the answer goes out.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// How much is read of what a handler left.
const LIMIT: usize = 16 * 1024 * 1024;
/// How long that may take.
const TIME: Duration = Duration::from_secs(2);

/// A body that a handler reads, of which another handle can read the rest.
#[derive(Clone)]
pub(crate) struct Unread {
    body: Arc<Mutex<Body>>,
    /// Whether the client sends only when the body is asked for, and it has not been.
    waits: Arc<AtomicBool>,
}

impl Unread {
    /// The body of a request with these headers, for its handler, and the handle on what the handler leaves; none when
    /// there is no body.
    pub(crate) fn split(headers: &HeaderMap, body: Body) -> (Body, Option<Unread>) {
        let is_empty = !headers.contains_key(TRANSFER_ENCODING)
            && headers
                .get(CONTENT_LENGTH)
                .is_none_or(|length| length.as_bytes() == b"0");
        if is_empty {
            return (body, None);
        }
        let unread = Unread {
            body: Arc::new(Mutex::new(body)),
            waits: Arc::new(AtomicBool::new(headers.contains_key(EXPECT))),
        };
        (Body::new(unread.clone()), Some(unread))
    }

    /// Reads the rest, within bounds.
    pub(crate) async fn read_off(mut self) {
        if self.waits.load(Ordering::Relaxed) {
            return;
        }
        let all = async {
            let mut seen = 0;
            while let Some(Ok(frame)) = self.frame().await {
                seen += frame.data_ref().map_or(0, Bytes::len);
                if seen > LIMIT {
                    break;
                }
            }
        };
        // Running out of time is as good as being done: the answer follows either way.
        let _ = tokio::time::timeout(TIME, all).await;
    }
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.waits.store(false, Ordering::Relaxed);
        let mut body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use futures_util::{FutureExt, stream};

    use super::*;

    fn headers(name: axum::http::HeaderName, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        headers
    }

    /// A body of 1 KiB pieces that counts those that were taken.
    fn counted(pieces: usize, taken: &Arc<Mutex<usize>>) -> Body {
        let taken = Arc::clone(taken);
        Body::from_stream(stream::iter((0..pieces).map(move |_| {
            *taken.lock().expect("a count") += 1;
            Ok::<_, std::io::Error>(Bytes::from(vec![0; 1024]))
        })))
    }

    #[tokio::test]
    async fn what_a_handler_leaves_is_read_within_bounds() {
        let chunked = || headers(TRANSFER_ENCODING, "chunked");
        for (pieces, read) in [(3, 3), (20_000, LIMIT / 1024 + 1)] {
            let taken = Arc::new(Mutex::new(0));
            let (mut body, unread) = Unread::split(&chunked(), counted(pieces, &taken));
            body.frame().await.expect("a frame").expect("data");
            drop(body);
            unread.expect("a body").read_off().await;
            let taken = *taken.lock().expect("a count");
            assert!((read..=read + 1).contains(&taken), "{taken} of {pieces}");
        }
    }

    #[test]
    fn a_client_that_waits_to_be_asked_is_not_asked() {
        let taken = Arc::new(Mutex::new(0));
        let mut headers = headers(EXPECT, "100-continue");
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("3072"));
        let (body, unread) = Unread::split(&headers, counted(3, &taken));
        drop(body);
        unread
            .expect("a body")
            .read_off()
            .now_or_never()
            .expect("at once");
        assert_eq!(*taken.lock().expect("a count"), 0);
    }

    #[test]
    fn without_a_body_there_is_nothing_to_read() {
        for headers in [HeaderMap::new(), headers(CONTENT_LENGTH, "0")] {
            assert!(Unread::split(&headers, Body::empty()).1.is_none());
        }
    }
}

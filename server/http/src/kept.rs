//! Answers that are kept encoded, by key, so that a warm read costs little more than sending the bytes.
//!
//! An answer is kept under the registry's stamp, taken *before* it is computed: a change in between gives the entry a
//! stamp that is no longer current, so it is never served after the change. A stampede computes once, because whoever
//! asks for the same key at the same stamp waits for the one who came first. Errors are shared by those who waited, and
//! kept for nobody.
//!
//! Only keys that were answered are kept, so unknown names leave nothing behind, and their number is bounded.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::ArcSwapOption;
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
use crate::path;

/// The prefix of all paths under which plugins are.
const PLUGINS: &str = "/api/v2/plugins";
/// How many forms are kept at most, counting each name and alias under which one was asked for.
const MAX_FORMS: usize = 4096;
/// Smaller bodies do not gain from compression.
const MIN_GZIP: usize = 1024;
/// Larger bodies are compressed aside, so that they hold up no other request.
const MAX_INLINE_GZIP: usize = 32 * 1024;

/// What kind of answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The list of plugins.
    List,
    /// The platform tiles.
    Tiles,
    /// The OpenAPI document.
    OpenApi,
    /// The form of a plugin.
    Form,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Kind; 4] = [Kind::List, Kind::Tiles, Kind::OpenApi, Kind::Form];

    /// The route that answers it.
    pub(crate) fn route(self) -> &'static str {
        match self {
            Kind::List => "/api/v2/plugins",
            Kind::Tiles => "/api/v2/plugins/platform-tiles",
            Kind::OpenApi => "/api/openapi.json",
            Kind::Form => "/api/v2/plugins/{plugin}/form",
        }
    }
}

/// Under what an answer is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key<'a> {
    pub(crate) kind: Kind,
    /// The plugin's name or alias, for a form; else empty.
    name: Cow<'a, str>,
}

impl<'a> Key<'a> {
    /// The key of an answer that needs no name.
    pub(crate) fn of(kind: Kind) -> Key<'static> {
        Key {
            kind,
            name: Cow::Borrowed(""),
        }
    }

    /// The key of a plugin's form, by name or alias.
    pub(crate) fn form(name: impl Into<Cow<'a, str>>) -> Self {
        Self {
            kind: Kind::Form,
            name: name.into(),
        }
    }

    /// The key of a path without its trailing slash, when its answer is one that is kept. The name is decoded as the
    /// router decodes it.
    pub(crate) fn of_path(path: &'a str) -> Option<Self> {
        let Some(rest) = path.strip_prefix(PLUGINS) else {
            return (path == Kind::OpenApi.route()).then(|| Key::of(Kind::OpenApi));
        };
        match rest {
            "" => Some(Key::of(Kind::List)),
            "/platform-tiles" => Some(Key::of(Kind::Tiles)),
            _ => {
                let name = rest.strip_prefix('/')?.strip_suffix("/form")?;
                if name.is_empty() || name.contains('/') {
                    return None;
                }
                path::decoded(name).map(Key::form)
            }
        }
    }

    fn owned(&self) -> Key<'static> {
        Key {
            kind: self.kind,
            name: Cow::Owned(self.name.clone().into_owned()),
        }
    }
}

/// An answer that is kept.
#[derive(Debug)]
pub(crate) struct Entry<S> {
    stamp: S,
    body: Bytes,
    etag: HeaderValue,
    gzip_etag: HeaderValue,
    gzip: OnceCell<Bytes>,
}

impl<S: Copy + Eq> Entry<S> {
    fn new(stamp: S, body: Bytes) -> Self {
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

/// The kept answers. `S` is the stamp.
#[derive(Debug)]
pub(crate) struct Kept<S> {
    /// Those without a name, by the number of their kind.
    single: [ArcSwapOption<Entry<S>>; 3],
    forms: RwLock<HashMap<Box<str>, Arc<Entry<S>>>>,
    flights: Mutex<HashMap<Key<'static>, Arc<Flight<S>>>>,
}

/// One computation under way, and those who wait for it.
#[derive(Debug)]
struct Flight<S> {
    stamp: S,
    outcome: OnceCell<Result<Arc<Entry<S>>, ApiError>>,
}

/// A place among those who wait. The last to leave takes the flight off the board, however it leaves: its client may
/// have gone away.
struct Seat<'a, S> {
    kept: &'a Kept<S>,
    key: Key<'static>,
    flight: Arc<Flight<S>>,
}

impl<S> Drop for Seat<'_, S> {
    fn drop(&mut self) {
        let mut flights = self
            .kept
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_mine = flights
            .get(&self.key)
            .is_some_and(|flight| Arc::ptr_eq(flight, &self.flight));
        // The board and this seat hold it, and nobody can take a seat while the board is locked.
        if is_mine && Arc::strong_count(&self.flight) == 2 {
            flights.remove(&self.key);
        }
    }
}

impl<S: Copy + Eq> Kept<S> {
    /// No answers yet.
    pub(crate) fn new() -> Self {
        Self {
            single: Default::default(),
            forms: RwLock::default(),
            flights: Mutex::default(),
        }
    }

    /// The answer of a key, if one is kept that is valid under a stamp.
    pub(crate) fn find(&self, key: &Key<'_>, stamp: S) -> Option<Arc<Entry<S>>> {
        let entry = match self.single.get(key.kind as usize) {
            Some(slot) => slot.load_full(),
            None => {
                let forms = self.forms.read().unwrap_or_else(PoisonError::into_inner);
                forms.get(&*key.name).cloned()
            }
        };
        entry.filter(|entry| entry.stamp == stamp)
    }

    /// The answer of a key: the kept one, else what `compute` gives, which is called by one of all who ask meanwhile.
    pub(crate) async fn answer(
        &self,
        key: &Key<'_>,
        stamp: S,
        compute: impl AsyncFnOnce() -> Result<Bytes, ApiError>,
    ) -> Result<Arc<Entry<S>>, ApiError> {
        if let Some(entry) = self.find(key, stamp) {
            return Ok(entry);
        }
        let seat = self.board(key, stamp);
        let land = || async {
            // The flight before this one may have landed between the look and the seat.
            if let Some(entry) = self.find(key, stamp) {
                return Ok(entry);
            }
            let entry = Arc::new(Entry::new(stamp, compute().await?));
            self.keep(key, &entry);
            Ok(entry)
        };
        seat.flight.outcome.get_or_init(land).await.clone()
    }

    fn board(&self, key: &Key<'_>, stamp: S) -> Seat<'_, S> {
        let key = key.owned();
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let flight = match flights.get(&key) {
            Some(flight) if flight.stamp == stamp => Arc::clone(flight),
            // What the other computes is not valid for this request any more.
            _ => {
                let flight = Arc::new(Flight {
                    stamp,
                    outcome: OnceCell::new(),
                });
                flights.insert(key.clone(), Arc::clone(&flight));
                flight
            }
        };
        Seat {
            kept: self,
            key,
            flight,
        }
    }

    fn keep(&self, key: &Key<'_>, entry: &Arc<Entry<S>>) {
        if let Some(slot) = self.single.get(key.kind as usize) {
            slot.store(Some(Arc::clone(entry)));
            return;
        }
        let mut forms = self.forms.write().unwrap_or_else(PoisonError::into_inner);
        if forms.len() >= MAX_FORMS && !forms.contains_key(&*key.name) {
            forms.retain(|_, other| other.stamp == entry.stamp);
            if forms.len() >= MAX_FORMS {
                return;
            }
        }
        forms.insert(key.name.as_ref().into(), Arc::clone(entry));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use http_body_util::Full;
    use tokio::sync::Notify;

    use super::*;

    type Bodied = Response<Full<Bytes>>;

    fn computed(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn accepting(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn a_key_is_the_path_with_its_name_decoded() {
        for (path, key) in [
            ("/api/v2/plugins", Some(Key::of(Kind::List))),
            ("/api/v2/plugins/platform-tiles", Some(Key::of(Kind::Tiles))),
            ("/api/openapi.json", Some(Key::of(Kind::OpenApi))),
            (
                "/api/v2/plugins/Snowflake/form",
                Some(Key::form("Snowflake")),
            ),
            (
                "/api/v2/plugins/Snow%66lake/form",
                Some(Key::form("Snowflake")),
            ),
            ("/api/v2/plugins/%ff/form", None),
            ("/api/v2/plugins/a/b/form", None),
            ("/api/v2/plugins//form", None),
            ("/api/v2/plugins/form", None),
            ("/api/v2/plugins/status", None),
            ("/api/v2/pluginsX", None),
            ("/api/v2/%70lugins", None),
            ("/", None),
        ] {
            assert_eq!(Key::of_path(path), key, "{path}");
        }
        for kind in Kind::ALL {
            assert_eq!(Kind::ALL[kind as usize], kind);
        }
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
    async fn an_answer_is_valid_while_its_stamp_is() {
        let kept = Kept::new();
        let key = Key::form("A");
        kept.answer(&key, 1, || async { Ok(computed("one")) })
            .await
            .expect("kept");
        assert!(kept.find(&key, 1).is_some());
        assert!(kept.find(&key, 2).is_none());
        assert!(kept.find(&Key::form("a"), 1).is_none());
        let entry = kept
            .answer(&key, 2, || async { Ok(computed("two")) })
            .await
            .expect("kept");
        assert_eq!(entry.body, "two");
        let again = kept
            .answer(&key, 2, || async { Ok(computed("three")) })
            .await
            .expect("kept");
        assert_eq!(again.body, "two");
    }

    #[tokio::test]
    async fn an_error_is_not_kept() {
        let kept = Kept::new();
        let failing = Key::form("gone");
        let error = kept
            .answer(&failing, 1, || async { Err(ApiError::not_found("gone")) })
            .await;
        assert_eq!(error.expect_err("an error").status(), 404);
        assert!(kept.find(&failing, 1).is_none());
        assert!(kept.forms.read().expect("a map").is_empty());
        assert!(kept.flights.lock().expect("a board").is_empty());
    }

    #[tokio::test]
    async fn a_stampede_computes_once_and_a_leader_who_leaves_is_replaced() {
        let kept = Kept::new();
        let key = Key::form("A");
        let (calls, gate) = (AtomicUsize::new(0), Notify::new());
        let ask = || {
            kept.answer(&key, 1, || async {
                calls.fetch_add(1, Ordering::SeqCst);
                gate.notified().await;
                Ok(computed("x"))
            })
        };
        let mut leader = Box::pin(ask());
        assert!((&mut leader).now_or_never().is_none());
        let mut others: Vec<_> = (0..20).map(|_| Box::pin(ask())).collect();
        for other in &mut others {
            assert!(other.now_or_never().is_none());
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        drop(leader);
        gate.notify_one();
        for other in others {
            assert_eq!(other.await.expect("kept").body, "x");
        }
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        assert!(kept.flights.lock().expect("a board").is_empty());
    }

    #[tokio::test]
    async fn the_number_of_forms_is_bounded() {
        let kept = Kept::new();
        for number in 0..MAX_FORMS + 10 {
            let key = Key::form(number.to_string());
            kept.answer(&key, 1, || async { Ok(computed("x")) })
                .await
                .expect("kept");
        }
        assert_eq!(kept.forms.read().expect("a map").len(), MAX_FORMS);
        let key = Key::form("newer");
        kept.answer(&key, 2, || async { Ok(computed("x")) })
            .await
            .expect("kept");
        assert_eq!(kept.forms.read().expect("a map").len(), 1);
    }

    #[tokio::test]
    async fn a_compressed_body_is_made_once_and_has_a_weak_etag() {
        for size in [MIN_GZIP, MAX_INLINE_GZIP + 1] {
            let entry = Entry::new(1, computed(&"x".repeat(size)));
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
        let small = Entry::new(1, computed("{}"));
        let plain: Bodied = small.at_once(&accepting("gzip")).expect("at once");
        assert!(!plain.headers().contains_key(CONTENT_ENCODING));
    }
}

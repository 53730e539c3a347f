//! Who may come in. The door is checked once for each request, before anything else looks at it, and allocates nothing.
//!
//! Without a token only loopback is served, and a browser on the same machine must not become a way in for a foreign
//! page. So then:
//! - `Host` has to be a loopback name, or a page could reach the server under its own name by rebinding it;
//! - an `Origin` has to be the server itself or one of the listed origins;
//! - headers of a proxy are refused, because behind one every request looks local;
//! - a write that has a body, or says that it has a type, has to be JSON: a form cannot send that.
//!
//! With a token the token is all that counts. `/healthz` and `/readyz` tell nothing and stay open either way.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, FORWARDED, HOST,
    ORIGIN, TRANSFER_ENCODING, VIA,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::body::is_json;
use crate::error::ApiError;
use crate::loopback::{is_loopback_name, is_own_origin};

/// Stands among the listed origins for any. Without a token it lists none: every page of the web would be let in.
pub(crate) const ANY_ORIGIN: &str = "*";

/// A token of the API and the name under which the history shows its writes.
#[derive(Clone)]
pub struct ApiToken {
    name: String,
    digest: [u8; 32],
}

impl ApiToken {
    /// A token by its name and secret. Only a digest of the secret is kept.
    pub fn new(name: impl Into<String>, secret: &str) -> Self {
        Self {
            name: name.into(),
            digest: Sha256::digest(secret).into(),
        }
    }

    fn is(&self, sent: &[u8]) -> bool {
        // Digests are as long as each other, so not even the length of the secret shows in the time this takes.
        let sent: [u8; 32] = Sha256::digest(sent).into();
        self.digest.ct_eq(&sent).into()
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiToken")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why the server does not listen on an address.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error(
    "{address} can be reached from other machines, and no token is set: set PATCHBAY_API_TOKEN, listen on 127.0.0.1, or \
     say --insecure to serve everyone who can reach it"
)]
pub struct ListenRefused {
    /// The address.
    pub address: SocketAddr,
}

/// Who sent a request, as the history names them: the token's name, else `local`.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Arc<str>);

/// The door.
#[derive(Debug)]
pub(crate) struct Door {
    mode: Mode,
    /// Foreign origins that may call, as written in `Origin`.
    origins: Vec<HeaderValue>,
    caller: Caller,
}

#[derive(Debug)]
enum Mode {
    Loopback,
    Token(ApiToken),
    Open,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No token, or a wrong one.
    Token,
    /// `Host` is no loopback name.
    Host,
    /// A foreign page asks.
    Origin,
    /// It came through a proxy.
    Forwarded,
    /// A write that is not JSON.
    NotJson,
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let (status, text) = match refusal {
            Refusal::Token => (
                StatusCode::UNAUTHORIZED,
                "Not authenticated: send the token as a bearer token or in x-key",
            ),
            Refusal::Host => (
                StatusCode::FORBIDDEN,
                "Not allowed: without a token only loopback is served, and Host is no loopback name",
            ),
            Refusal::Origin => (
                StatusCode::FORBIDDEN,
                "Not allowed: the origin is neither this server nor a listed one",
            ),
            Refusal::Forwarded => (
                StatusCode::FORBIDDEN,
                "Not allowed: without a token, requests through a proxy are refused",
            ),
            Refusal::NotJson => return ApiError::not_json(),
        };
        ApiError::new(status, text)
    }
}

impl Door {
    /// A door with a token, without one, or (`insecure`, when there is no token) open.
    pub(crate) fn new(token: Option<ApiToken>, insecure: bool, origins: Vec<HeaderValue>) -> Self {
        let name = token.as_ref().map_or("local", |token| &token.name).into();
        let mode = match token {
            Some(token) => Mode::Token(token),
            None if insecure => Mode::Open,
            None => Mode::Loopback,
        };
        Self {
            mode,
            origins,
            caller: Caller(name),
        }
    }

    /// Whether the server may listen there: anywhere with a token or when told to, else on loopback only.
    pub(crate) fn may_listen(&self, address: SocketAddr) -> Result<(), ListenRefused> {
        match self.mode {
            Mode::Loopback if !address.ip().to_canonical().is_loopback() => {
                Err(ListenRefused { address })
            }
            _ => Ok(()),
        }
    }

    /// Who the requests that pass are from.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether an `Origin` is a listed one.
    fn lists(&self, origin: &HeaderValue) -> bool {
        let lists_any = !matches!(self.mode, Mode::Loopback);
        self.origins
            .iter()
            .any(|listed| listed == origin || (lists_any && listed == ANY_ORIGIN))
    }

    /// Whether a request may come in.
    pub(crate) fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        match &self.mode {
            Mode::Open => Ok(()),
            Mode::Token(token) => {
                // A browser asks without the token whether it may send it; the answer tells nothing.
                let authenticated = self.is_preflight(method, headers)
                    || sent_token(headers).is_some_and(|sent| token.is(sent));
                authenticated.then_some(()).ok_or(Refusal::Token)
            }
            Mode::Loopback => self.check_loopback(method, uri, headers),
        }
    }

    fn is_preflight(&self, method: &Method, headers: &HeaderMap) -> bool {
        *method == Method::OPTIONS
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
            && headers.get(ORIGIN).is_some_and(|origin| self.lists(origin))
    }

    fn check_loopback(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let host = single(headers, HOST.as_str()).ok_or(Refusal::Host)?;
        if !is_loopback_name(host) || uri.host().is_some_and(|name| !is_loopback_name(name)) {
            return Err(Refusal::Host);
        }
        for origin in headers.get_all(ORIGIN) {
            if !self.lists(origin) && !is_own_origin(origin, host) {
                return Err(Refusal::Origin);
            }
        }
        if headers.keys().any(|name| {
            name == FORWARDED
                || name == VIA
                || name.as_str() == "x-real-ip"
                || name.as_str().starts_with("x-forwarded-")
        }) {
            return Err(Refusal::Forwarded);
        }
        if is_write(method) && !is_json_or_nothing(headers) {
            return Err(Refusal::NotJson);
        }
        Ok(())
    }
}

fn is_write(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether the content is JSON, or there is none.
fn is_json_or_nothing(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    match types.next() {
        Some(content_type) => is_json(content_type) && types.next().is_none(),
        None => {
            !headers.contains_key(TRANSFER_ENCODING)
                && headers
                    .get(CONTENT_LENGTH)
                    .is_none_or(|length| length.as_bytes() == b"0")
        }
    }
}

fn sent_token(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get("x-key") {
        return Some(key.as_bytes());
    }
    let (scheme, token) = headers
        .get(AUTHORIZATION)?
        .as_bytes()
        .split_at_checked("bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_str(value).expect("a value");
                (axum::http::HeaderName::from_static(name), value)
            })
            .fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            })
    }

    fn check(
        door: &Door,
        method: Method,
        uri: &str,
        pairs: &[(&'static str, &str)],
    ) -> Option<Refusal> {
        door.check(&method, &uri.parse().expect("a uri"), &headers(pairs))
            .err()
    }

    #[test]
    fn without_a_token_only_loopback_comes_in() {
        let listed = HeaderValue::from_static("https://portal.example.com");
        let door = Door::new(None, false, vec![listed]);
        let local = ("host", "127.0.0.1:8080");
        for (pairs, refusal) in [
            (&[local][..], None),
            (&[("host", "localhost")], None),
            (&[], Some(Refusal::Host)),
            (&[("host", "evil.example")], Some(Refusal::Host)),
            (&[local, ("host", "localhost")], Some(Refusal::Host)),
            (&[local, ("origin", "http://127.0.0.1:8080")], None),
            (&[local, ("origin", "https://portal.example.com")], None),
            (
                &[local, ("origin", "https://portal.example.com:1")],
                Some(Refusal::Origin),
            ),
            (
                &[local, ("origin", "http://localhost:3000")],
                Some(Refusal::Origin),
            ),
            (
                &[local, ("origin", "https://evil.example")],
                Some(Refusal::Origin),
            ),
            (&[local, ("origin", "null")], Some(Refusal::Origin)),
            (
                &[
                    local,
                    ("origin", "http://127.0.0.1:8080"),
                    ("origin", "null"),
                ],
                Some(Refusal::Origin),
            ),
            (
                &[local, ("forwarded", "for=1.2.3.4")],
                Some(Refusal::Forwarded),
            ),
            (
                &[local, ("x-forwarded-for", "1.2.3.4")],
                Some(Refusal::Forwarded),
            ),
            (
                &[local, ("x-forwarded-prefix", "/x")],
                Some(Refusal::Forwarded),
            ),
            (&[local, ("x-real-ip", "1.2.3.4")], Some(Refusal::Forwarded)),
            (&[local, ("via", "1.1 proxy")], Some(Refusal::Forwarded)),
        ] {
            assert_eq!(
                check(&door, Method::GET, "/api/v2/plugins", pairs),
                refusal,
                "{pairs:?}"
            );
        }
        assert_eq!(
            check(&door, Method::GET, "http://evil.example/", &[local]),
            Some(Refusal::Host)
        );
    }

    #[test]
    fn without_a_token_writes_are_json() {
        let door = Door::new(None, false, Vec::new());
        let local = ("host", "localhost");
        for (pairs, refusal) in [
            (
                &[
                    ("content-type", "application/json"),
                    ("content-length", "2"),
                ][..],
                None,
            ),
            (&[("content-type", "Application/JSON; charset=utf-8")], None),
            (&[("content-type", "application/merge-patch+json")], None),
            (&[("content-type", "text/plain")], Some(Refusal::NotJson)),
            (
                &[("content-type", "application/json; charset=utf-16")],
                Some(Refusal::NotJson),
            ),
            (
                &[("content-type", "application/x-www-form-urlencoded")],
                Some(Refusal::NotJson),
            ),
            (
                &[("content-type", "application/jsonx")],
                Some(Refusal::NotJson),
            ),
            (&[("content-length", "2")], Some(Refusal::NotJson)),
            (&[("transfer-encoding", "chunked")], Some(Refusal::NotJson)),
            (&[("content-length", "0")], None),
            (&[], None),
        ] {
            let mut all = vec![local];
            all.extend_from_slice(pairs);
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                assert_eq!(check(&door, method, "/", &all), refusal, "{pairs:?}");
            }
            assert_eq!(check(&door, Method::GET, "/", &all), None);
        }
    }

    #[test]
    fn with_a_token_only_the_token_counts() {
        let listed = HeaderValue::from_static("https://portal.example.com");
        let door = Door::new(Some(ApiToken::new("ci", "s3cret")), true, vec![listed]);
        for (pairs, passes) in [
            (&[("authorization", "Bearer s3cret")][..], true),
            (&[("authorization", "bearer s3cret")], true),
            (&[("x-key", "s3cret")], true),
            (&[("x-key", "s3cret"), ("x-forwarded-for", "1.2.3.4")], true),
            (&[("x-key", "s3cre")], false),
            (&[("x-key", "s3cretx")], false),
            (&[("x-key", "")], false),
            (&[("authorization", "Basic s3cret")], false),
            (&[("authorization", "s3cret")], false),
            (&[("authorization", "Bearer")], false),
            (&[("host", "localhost")], false),
        ] {
            let refusal = check(&door, Method::GET, "/", pairs);
            assert_eq!(refusal, (!passes).then_some(Refusal::Token), "{pairs:?}");
        }
        let preflight = [
            ("origin", "https://portal.example.com"),
            ("access-control-request-method", "PUT"),
        ];
        assert_eq!(check(&door, Method::OPTIONS, "/", &preflight), None);
        assert_eq!(
            check(&door, Method::GET, "/", &preflight),
            Some(Refusal::Token)
        );
        assert_eq!(&*door.caller().0, "ci");
        assert!(!format!("{door:?}").contains("s3cret"));
    }

    #[test]
    fn any_origin_is_listed_only_with_a_token() {
        let any = || vec![HeaderValue::from_static(ANY_ORIGIN)];
        let origin = ("origin", "https://evil.example");
        let shut = Door::new(None, false, any());
        let local = [("host", "localhost"), origin];
        assert_eq!(
            check(&shut, Method::GET, "/", &local),
            Some(Refusal::Origin)
        );
        let token = Door::new(Some(ApiToken::new("t", "x")), false, any());
        let preflight = [origin, ("access-control-request-method", "PUT")];
        assert_eq!(check(&token, Method::OPTIONS, "/", &preflight), None);
    }

    #[test]
    fn insecure_lets_everyone_in_and_listens_anywhere() {
        let open = Door::new(None, true, Vec::new());
        assert_eq!(
            check(&open, Method::POST, "/", &[("host", "evil.example")]),
            None
        );
        let everywhere: SocketAddr = "0.0.0.0:8080".parse().expect("an address");
        assert_eq!(open.may_listen(everywhere), Ok(()));
        let shut = Door::new(None, false, Vec::new());
        assert!(shut.may_listen(everywhere).is_err());
        assert!(
            shut.may_listen("[::1]:0".parse().expect("an address"))
                .is_ok()
        );
        let token = Door::new(Some(ApiToken::new("t", "x")), false, Vec::new());
        assert!(token.may_listen(everywhere).is_ok());
    }
}

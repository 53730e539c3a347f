//! Request ids: one on every response, and in every line of the log about its request.
//!
//! An id is a random prefix for each process and a counter, so that making one costs no randomness per request.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header that carries the id, in requests and responses.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Makes ids.
#[derive(Debug)]
pub(crate) struct Ids {
    prefix: [u8; 8],
    next: AtomicU64,
}

impl Ids {
    /// A new source, with a prefix of its own.
    pub(crate) fn new() -> Self {
        let random = Uuid::new_v4();
        let mut prefix = [0; 8];
        for (place, byte) in prefix.chunks_exact_mut(2).zip(random.as_bytes()) {
            place.copy_from_slice(&hex(*byte));
        }
        Self {
            prefix,
            next: AtomicU64::new(1),
        }
    }

    /// The id of a request: its own when it brought one that is fit to be repeated, else a new one.
    pub(crate) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(&X_REQUEST_ID) {
            Some(sent) if is_fit(sent.as_bytes()) => sent.clone(),
            _ => self.make(),
        }
    }

    fn make(&self) -> HeaderValue {
        // Six bytes of counter last for centuries at any rate that a server reaches.
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut text = [b'-'; 21];
        text[..8].copy_from_slice(&self.prefix);
        for (place, byte) in text[9..].chunks_exact_mut(2).zip(&number[2..]) {
            place.copy_from_slice(&hex(*byte));
        }
        HeaderValue::from_bytes(&text)
            .unwrap_or_else(|_| unreachable!("hex digits and a dash are a header value"))
    }
}

/// Whether a client's id may be repeated in headers, bodies and logs: `[A-Za-z0-9._-]{1,128}`.
fn is_fit(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

fn hex(byte: u8) -> [u8; 2] {
    [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incoming_id_is_honoured_only_when_it_is_fit() {
        let ids = Ids::new();
        for (sent, honoured) in [
            ("abc.DEF_1-2", true),
            (&"a".repeat(128), true),
            (&"a".repeat(129), false),
            ("", false),
            ("two words", false),
            ("a/b", false),
            ("<script>", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, HeaderValue::from_str(sent).expect("a value"));
            assert_eq!(ids.of(&headers) == sent, honoured, "{sent}");
        }
    }

    #[test]
    fn made_ids_differ_and_are_fit_themselves() {
        let ids = Ids::new();
        let (one, two) = (ids.of(&HeaderMap::new()), ids.of(&HeaderMap::new()));
        assert_ne!(one, two);
        assert_eq!(one.len(), 21);
        assert!(is_fit(one.as_bytes()) && is_fit(two.as_bytes()));
        assert!(one.to_str().expect("text").ends_with("-000000000001"));
        assert_ne!(
            Ids::new().of(&HeaderMap::new()).as_bytes()[..8],
            one.as_bytes()[..8]
        );
    }
}

//! ETags and the conditions that carry them.
//!
//! An ETag is the first half of the body's SHA-256. A stored configuration's begins with its revision, so that `If-Match`
//! can name that alone and be written by hand; the hash follows, because its access path changes with the catalogue and
//! its plugin though its revision does not. A compressed body is another representation, so its ETag is weak; a comparison for `If-None-Match`
//! does not mind.

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

use crate::error::ApiError;

/// The ETag of a body.
pub(crate) fn of_body(body: &[u8]) -> HeaderValue {
    let mut text = String::with_capacity(34);
    text.push('"');
    push_hash(&mut text, body);
    text.push('"');
    value(&text)
}

/// The ETag of a stored configuration: `"<revision>-<hash of the body>"`.
pub(crate) fn of_configuration(revision: i64, body: &[u8]) -> HeaderValue {
    let mut text = format!("\"{revision}-");
    push_hash(&mut text, body);
    text.push('"');
    value(&text)
}

fn push_hash(text: &mut String, body: &[u8]) {
    for byte in &Sha256::digest(body)[..16] {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
}

/// The same ETag for another encoding of the same body.
pub(crate) fn weak(etag: &HeaderValue) -> HeaderValue {
    let mut text = Vec::with_capacity(etag.len() + 2);
    if !etag.as_bytes().starts_with(b"W/") {
        text.extend_from_slice(b"W/");
    }
    text.extend_from_slice(etag.as_bytes());
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| etag.clone())
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text)
        .unwrap_or_else(|_| unreachable!("digits in quotes are a header value"))
}

/// Whether the client has this already, by its `If-None-Match`: weak comparison, lists and `*`.
pub(crate) fn is_current(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let etag = opaque(etag.as_bytes());
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|candidate| candidate == b"*" || opaque(candidate) == etag)
}

/// The revision that `If-Match` names; none when there is no such header, or `*`, which any revision matches.
///
/// `W/` is let pass, because a server or proxy that compressed the answer weakened its ETag, and the revision is the
/// same. A list, or something that is no revision, cannot match and is a 412.
pub(crate) fn revision(headers: &HeaderMap) -> Result<Option<i64>, ApiError> {
    let mut lines = headers.get_all(IF_MATCH).iter();
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    let line = line.as_bytes().trim_ascii();
    if line == b"*" && lines.next().is_none() {
        return Ok(None);
    }
    let revision = opaque(line)
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
        .and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.split('-').next()?.parse().ok());
    match (revision, lines.next()) {
        (Some(revision), None) => Ok(Some(revision)),
        _ => Err(ApiError::stale(
            "If-Match has to be the ETag of the configuration, such as \"1\", or *",
        )),
    }
}

fn opaque(etag: &[u8]) -> &[u8] {
    etag.strip_prefix(b"W/").unwrap_or(etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: axum::http::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn the_same_body_has_the_same_etag() {
        let etag = of_body(b"{}");
        assert_eq!(etag, of_body(b"{}"));
        assert_ne!(etag, of_body(b"[]"));
        assert_eq!(etag.len(), 34);
        assert_eq!(weak(&etag), format!("W/{}", etag.to_str().expect("text")));
        assert_eq!(weak(&weak(&etag)), weak(&etag));
    }

    #[test]
    fn if_none_match_takes_lists_weak_ones_and_the_star() {
        let etag = HeaderValue::from_static("\"abc\"");
        for (lines, current) in [
            (&["\"abc\""][..], true),
            (&["W/\"abc\""], true),
            (&["\"x\", W/\"abc\" ,\"y\""], true),
            (&["\"x\"", "\"abc\""], true),
            (&["*"], true),
            (&["abc"], false),
            (&["\"ab\""], false),
            (&[""], false),
            (&[], false),
        ] {
            assert_eq!(
                is_current(&headers(IF_NONE_MATCH, lines), &etag),
                current,
                "{lines:?}"
            );
        }
    }

    #[test]
    fn if_match_names_a_revision() {
        for (lines, wanted) in [
            (&[][..], Some(None)),
            (&["*"], Some(None)),
            (&["\"7\""], Some(Some(7))),
            (&["W/\"7\""], Some(Some(7))),
            (&["\"7-0af3\""], Some(Some(7))),
            (&["7"], None),
            (&["\"x\""], None),
            (&["\"1\", \"2\""], None),
            (&["\"1\"", "\"2\""], None),
        ] {
            assert_eq!(
                revision(&headers(IF_MATCH, lines)).ok(),
                wanted,
                "{lines:?}"
            );
        }
    }
}

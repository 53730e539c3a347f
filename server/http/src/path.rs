//! Paths: each answers with and without its trailing slash, by rewriting, because clients of the origin do not follow a
//! redirect.

use std::borrow::Cow;

use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;

/// The path without its one trailing slash; `/` stays.
pub(crate) fn trimmed(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some("") | None => path,
        Some(trimmed) => trimmed,
    }
}

/// Takes the trailing slash off a request's path. Costs nothing when there is none.
pub(crate) fn normalise(uri: &mut Uri) {
    let path = uri.path();
    let short = trimmed(path);
    if short.len() == path.len() {
        return;
    }
    let rewritten = match uri.query() {
        Some(query) => format!("{short}?{query}"),
        None => short.to_owned(),
    };
    // A path that starts with two slashes could be read as an authority; such a one is left alone and is a 404.
    let Ok(path_and_query) = PathAndQuery::try_from(rewritten) else {
        return;
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query);
    if let Ok(rewritten) = Uri::from_parts(parts) {
        *uri = rewritten;
    }
}

/// One segment of a path as the router would hand it out; none when it is no UTF-8.
pub(crate) fn decoded(segment: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(segment).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trailing_slash_is_taken_off() {
        for (from, to) in [
            ("/", "/"),
            ("/healthz", "/healthz"),
            ("/healthz/", "/healthz"),
            ("/api/v2/plugins/?a=b/", "/api/v2/plugins?a=b/"),
            ("/api/v2/plugins//", "/api/v2/plugins/"),
            ("/api/v2/plugins/a%2F/", "/api/v2/plugins/a%2F"),
            ("http://localhost/healthz/", "http://localhost/healthz"),
        ] {
            let mut uri: Uri = from.parse().expect("a uri");
            normalise(&mut uri);
            assert_eq!(uri.to_string(), to, "{from}");
        }
    }

    #[test]
    fn segments_decode_as_the_router_decodes_them() {
        assert_eq!(decoded("Snow%66lake").as_deref(), Some("Snowflake"));
        assert_eq!(decoded("a+b").as_deref(), Some("a+b"));
        assert_eq!(decoded("%ff"), None);
    }
}

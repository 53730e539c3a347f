//! By which names a client on this machine calls the server.

use std::net::IpAddr;

use axum::http::HeaderValue;

/// Whether an authority, with or without a port, names this machine: `localhost`, a name under it, or a loopback address.
pub(crate) fn is_loopback_name(authority: &str) -> bool {
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, rest)) => (name, rest),
            None => return false,
        },
        None => match authority.find(':') {
            Some(colon) => authority.split_at(colon),
            None => (authority, ""),
        },
    };
    let port_is_one = match port.strip_prefix(':') {
        Some("") => true,
        Some(digits) => {
            digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
        }
        None => port.is_empty(),
    };
    if !port_is_one {
        return false;
    }
    if let Ok(address) = name.parse::<IpAddr>() {
        return address.is_loopback() && (address.is_ipv6() == authority.starts_with('['));
    }
    let is_name = name.split('.').all(|label| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    });
    let under_localhost = name
        .len()
        .checked_sub(".localhost".len())
        .and_then(|start| name.get(start..))
        .is_some_and(|ending| ending.eq_ignore_ascii_case(".localhost"));
    is_name
        && !authority.starts_with('[')
        && (name.eq_ignore_ascii_case("localhost") || under_localhost)
}

/// Whether an origin is the server itself, by the name that the client called it.
pub(crate) fn is_own_origin(origin: &HeaderValue, host: &str) -> bool {
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
        .is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_and_names_under_localhost_are_of_this_machine() {
        for (authority, is_one) in [
            ("127.0.0.1:8080", true),
            ("localhost", true),
            ("LOCALHOST:1", true),
            ("app.localhost:8080", true),
            ("[::1]:8080", true),
            ("127.9.9.9", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("evillocalhost", false),
            ("127.0.0.1.evil.example", false),
            ("127.0.0.1:80@evil.example", false),
            ("192.168.0.1", false),
            ("[::2]", false),
            ("::1", false),
            ("[::1", false),
            ("", false),
        ] {
            assert_eq!(is_loopback_name(authority), is_one, "{authority}");
        }
    }
}

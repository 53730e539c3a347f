//! What holds for every response.

use std::time::Duration;

use axum::Router;
use axum::http::HeaderValue;
use axum::routing::get;
use serde_json::json;

use super::fixture;
use crate::{ApiToken, HttpSettings};

#[tokio::test]
async fn every_response_has_an_id_and_every_error_the_envelope() {
    let server = fixture(HttpSettings {
        body_limit: 100,
        ..HttpSettings::default()
    })
    .await;
    let long = json!("x".repeat(101));
    let plain = ("content-type", "text/plain");
    let evil = ("host", "evil.example");
    let long_query = format!("/api/v2/configurations?q={}", "x".repeat(8 * 1024));
    let cookie = "x".repeat(65 * 1024);
    for (method, path, headers, body, status, detail) in [
        ("GET", "/nope", &[][..], None, 404, "Not Found"),
        ("GET", "//", &[], None, 404, "Not Found"),
        ("GET", "/api/v2/plugins/%ff", &[], None, 400, "Bad Request"),
        ("DELETE", "/healthz", &[], None, 405, "Method Not Allowed"),
        (
            "PATCH",
            "/api/v2/plugins/",
            &[],
            Some(json!({})),
            405,
            "Method Not Allowed",
        ),
        (
            "GET",
            "/api/v2/plugins/x/form",
            &[],
            None,
            404,
            "Plugin 'x' not found",
        ),
        (
            "POST",
            "/api/v2/data_products",
            &[],
            Some(long),
            413,
            "The body is too large",
        ),
        (
            "POST",
            "/api/v2/data_products",
            &[plain],
            Some(json!({})),
            415,
            "The body has to be JSON: send content-type: application/json",
        ),
        (
            "POST",
            "/api/v2/data_products",
            &[],
            None,
            415,
            "The body has to be JSON: send content-type: application/json",
        ),
        (
            "POST",
            "/api/v2/data_products",
            &[("content-encoding", "gzip")],
            Some(json!({})),
            415,
            "The body has to be plain JSON: send it without content-encoding",
        ),
        (
            "GET",
            "/api/v2/plugins",
            &[evil],
            None,
            403,
            "Not allowed: without a token only loopback is served, and Host is no loopback name",
        ),
        (
            "GET",
            &long_query,
            &[],
            None,
            414,
            "The path and query are too long",
        ),
        (
            "GET",
            "/healthz",
            &[("cookie", &cookie)],
            None,
            431,
            "The headers are too large",
        ),
    ] {
        let answer = server.ask(method, path, headers, body.clone()).await;
        assert_eq!(answer.status, status, "{method} {path}");
        let id = answer.header("x-request-id");
        assert_eq!(
            answer.json(),
            json!({"correlation_id": id, "detail": detail}),
            "{method} {path}"
        );
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");

        let mut named = headers.to_vec();
        named.push(("x-request-id", "mine-1"));
        let answer = server.ask(method, path, &named, body).await;
        assert_eq!(answer.header("x-request-id"), "mine-1");
        assert_eq!(answer.json()["correlation_id"], "mine-1");
    }
    assert_eq!(
        server
            .ask("DELETE", "/healthz", &[], None)
            .await
            .header("allow"),
        "GET,HEAD"
    );
    for path in ["/healthz", "/api/v2/plugins", "/api/v2/plugins/status"] {
        let bad = [("x-request-id", "not fit")];
        let answer = server.ask("GET", path, &bad, None).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-request-id").len(), 21);
    }
}

#[tokio::test]
async fn a_path_answers_with_and_without_its_trailing_slash() {
    let server = fixture(HttpSettings::default()).await;
    for path in [
        "/healthz",
        "/readyz",
        "/api/openapi.json",
        "/api/v2/plugins",
        "/api/v2/plugins/Pigeon",
        "/api/v2/plugins/Pigeon/form",
        "/api/v2/plugins/platform-tiles",
        "/api/v2/configurations",
        "/api/v2/configuration/platforms",
        "/api/v2/data_products",
    ] {
        let without = server.get(path).await;
        let with = server.get(&format!("{path}/")).await;
        assert_eq!(without.status, 200, "{path}");
        assert_eq!(
            (with.status, &with.body),
            (without.status, &without.body),
            "{path}"
        );
    }
}

#[tokio::test]
async fn panics_and_slow_handlers_tell_nothing() {
    let routes = Router::new()
        .route(
            "/panic",
            get(async || -> &'static str { panic!("a secret") }),
        )
        .route("/slow", get(std::future::pending::<&'static str>));
    let server = fixture(HttpSettings {
        request_timeout: Duration::from_millis(20),
        ..HttpSettings::default()
    })
    .await
    .with_routes(routes);
    for (path, status, detail) in [
        ("/panic", 500, "Something went wrong"),
        ("/slow", 504, "Took too long"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, status);
        let id = answer.header("x-request-id");
        assert_eq!(
            answer.json(),
            json!({"correlation_id": id, "detail": detail})
        );
    }
}

#[tokio::test]
async fn a_token_is_asked_for_everywhere_but_at_the_health_checks() {
    let server = fixture(HttpSettings {
        token: Some(ApiToken::new("ci", "s3cret")),
        ..HttpSettings::default()
    })
    .await;
    for path in ["/healthz", "/readyz/"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    for path in ["/metrics", "/api/openapi.json", "/api/v2/plugins", "/nope"] {
        let refused = server.get(path).await;
        assert_eq!(refused.status, 401, "{path}");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
        let header = [("authorization", "Bearer s3cret")];
        assert_ne!(
            server.ask("GET", path, &header, None).await.status,
            401,
            "{path}"
        );
    }
}

#[tokio::test]
async fn listed_origins_may_call_and_others_may_not() {
    let server = fixture(HttpSettings {
        cors_origins: vec![HeaderValue::from_static("https://portal.example.com")],
        ..HttpSettings::default()
    })
    .await;
    let portal = ("origin", "https://portal.example.com");
    let answer = server.ask("GET", "/api/v2/plugins", &[portal], None).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), portal.1);
    let preflight = [portal, ("access-control-request-method", "PUT")];
    let answer = server
        .ask("OPTIONS", "/api/v2/data_products", &preflight, None)
        .await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("access-control-allow-methods")
            .contains("PUT")
    );
    let error = server.ask("GET", "/nope", &[portal], None).await;
    assert_eq!(error.status, 404);
    assert_eq!(error.header("access-control-allow-origin"), portal.1);
    let own = server.ask("GET", "/api/v2/plugins", &[], None).await;
    let varies: Vec<_> = own.headers.get_all("vary").iter().collect();
    assert_eq!(
        varies,
        ["accept-encoding", "origin"],
        "kept, and not for foreign pages"
    );
    let evil = [("origin", "https://evil.example")];
    assert_eq!(
        server
            .ask("GET", "/api/v2/plugins", &evil, None)
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn answers_are_compressed_when_the_client_takes_it() {
    let server = fixture(HttpSettings::default()).await;
    let gzip = [("accept-encoding", "gzip")];
    let plain = server.get("/api/v2/plugins/Pigeon").await;
    let packed = server
        .ask("GET", "/api/v2/plugins/Pigeon", &gzip, None)
        .await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert_eq!(packed.header("etag"), format!("W/{}", plain.header("etag")));
    let known = [("if-none-match", packed.header("etag"))];
    let answer = server
        .ask("GET", "/api/v2/plugins/Pigeon", &known, None)
        .await;
    assert_eq!(answer.status, 304);
    assert!(answer.body.is_empty());
}

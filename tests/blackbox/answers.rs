//! What answers have in common: paths, request ids, the envelope of errors, ETags, compression.

use std::io::Read;

use reqwest::Method;
use serde_json::json;

use crate::harness::{Server, for_each_database};

#[tokio::test]
async fn a_path_answers_with_and_without_its_trailing_slash() {
    for_each_database(async |database| {
        let server = Server::on(database);
        for path in [
            "plugins",
            "plugins/SnowflakeDataOutput",
            "plugins/SnowflakeDataOutput/form",
            "plugins/SnowflakeDataOutput/schema",
            "plugins/SnowflakeDataOutput/icon",
            "plugins/SnowflakeDataOutput/configurations",
            "plugins/platform-tiles",
            "plugins/status",
            "plugins/migrations",
            "configurations",
            "configurations/export",
            "configuration/platforms",
            "configuration/platforms/configs",
            "configuration/environments",
            "data_products",
            "/healthz",
            "/readyz",
            "/api/openapi.json",
        ] {
            let without = server.get(path).await.is(200);
            let with = server.get(&format!("{path}/")).await.is(200);
            assert_eq!(with.text(), without.text(), "{path}");
        }
        let product = json!({ "name": "n", "namespace": "n", "domain": "d" });
        server.post("data_products/", &product).await.is(201);
        server.post("data_products//", &product).await.error(404);
    })
    .await;
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_every_error_its_envelope() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.env("PATCHBAY_BODY_LIMIT", "1000");
        });
        for path in [
            "plugins",
            "plugins/SnowflakeDataOutput/form",
            "/healthz",
            "data_products",
        ] {
            let made = server.get(path).await.is(200);
            let made = made.header("x-request-id").to_owned();
            assert!((1..=128).contains(&made.len()), "{made:?}");
            for sent in ["abc.DEF_1-2", &"a".repeat(128)] {
                let answer = server.get_with(path, ("x-request-id", sent)).await.is(200);
                assert_eq!(answer.header("x-request-id"), sent);
            }
            for sent in ["two words", "a/b", "<script>", &"a".repeat(129), ""] {
                let answer = server.get_with(path, ("x-request-id", sent)).await.is(200);
                assert_ne!(answer.header("x-request-id"), sent);
                assert_ne!(answer.header("x-request-id"), made);
            }
        }
        let error = server
            .get_with("plugins/Nope/form", ("x-request-id", "mine"))
            .await;
        assert_eq!(error.header("x-request-id"), "mine");
        assert_eq!(error.error(404), "Plugin 'Nope' not found");
    })
    .await;
}

#[tokio::test]
async fn wrong_requests_are_told_what_is_wrong() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            options.env("PATCHBAY_BODY_LIMIT", "1000");
        });
        for path in [
            "/",
            "/nope",
            "/api/v2",
            "/api/v2/nope",
            "nope",
            "plugins/a/b/c",
            "//plugins",
        ] {
            assert_eq!(server.get(path).await.error(404), "Not Found", "{path}");
        }
        for (method, path) in [
            (Method::DELETE, "plugins"),
            (Method::POST, "plugins/SnowflakeDataOutput/form"),
            (Method::GET, "plugins/reload"),
            (Method::GET, "plugins/render_technical_asset_access_path"),
            (Method::PATCH, "/healthz"),
        ] {
            let answer = server.send(method.clone(), path, |request| request).await;
            assert_eq!(answer.error(405), "Method Not Allowed", "{method} {path}");
        }
        let render = "plugins/render_technical_asset_access_path";
        let post = async |content_type: &str, body: String| {
            server
                .send(Method::POST, render, |request| {
                    request.header("content-type", content_type).body(body)
                })
                .await
        };
        for content_type in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
        ] {
            post(content_type, "{}".into()).await.error(415);
        }
        post("application/json", format!("\"{}\"", "x".repeat(2000)))
            .await
            .error(413);
        for (body, offset) in [
            ("{\"a\": }", 6),
            ("{", 1),
            ("nope", 1),
            ("{\n\"a\": 1,}", 9),
            ("{\"a\": nul}", 9),
            ("{} {}", 3),
        ] {
            let detail = post("application/json", body.into()).await.error(422);
            let [error] = detail.as_array().expect("a list").as_slice() else {
                panic!("{detail}")
            };
            assert_eq!(error["type"], "json_invalid", "{body}: {error}");
            assert_eq!(error["loc"], json!(["body", offset]), "{body}: {error}");
            assert!(
                error["msg"].is_string() && error.get("input").is_some(),
                "{error}"
            );
        }
        for body in ["[]", "1", "\"a\"", "null"] {
            let detail = post("application/json", body.into()).await.error(422);
            assert_eq!(detail[0]["loc"], json!(["body"]), "{body}: {detail}");
        }
        post("application/json", String::new()).await.error(422);
        for body in [
            "[".repeat(900),
            format!("{}1{}", "[".repeat(400), "]".repeat(400)),
            r#"{"a": NaN}"#.to_owned(),
            r#"{"a": "\ud800"}"#.to_owned(),
            "{\"a\": \"tab\there\"}".to_owned(),
            "\u{feff}{}".to_owned(),
            "{} {}".to_owned(),
        ] {
            let detail = post("application/json", body.clone()).await.error(422);
            assert_eq!(detail[0]["type"], "json_invalid", "{body}: {detail}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_can_be_kept_has_an_etag() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let id = server.data_product("sales", "sales").await;
        for path in [
            "plugins",
            "plugins/",
            "plugins/SnowflakeDataOutput",
            "plugins/SnowflakeDataOutput/form",
            "plugins/SnowflakeDataOutput/schema",
            "plugins/SnowflakeDataOutput/icon",
            "plugins/SnowflakeDataOutput/configurations",
            "plugins/platform-tiles",
            "plugins/status",
            "plugins/migrations",
            "configurations",
            "configuration/platforms",
            "configuration/environments",
            "data_products",
            &format!("data_products/{id}"),
            "/api/openapi.json",
        ] {
            let first = server.get(path).await.is(200);
            let etag = first.header("etag").to_owned();
            let again = server.get(path).await.is(200);
            assert_eq!(again.header("etag"), etag, "{path}");
            for matching in [
                etag.clone(),
                format!("W/{etag}"),
                format!("\"other\", {etag}"),
                "*".into(),
            ] {
                let kept = server
                    .get_with(path, ("if-none-match", &matching))
                    .await
                    .is(304);
                assert!(kept.body.is_empty(), "{path}");
                assert_eq!(kept.header("etag"), etag, "{path}");
                assert!(kept.headers.contains_key("x-request-id"));
            }
            let other = server
                .get_with(path, ("if-none-match", "\"other\""))
                .await
                .is(200);
            assert_eq!(other.text(), first.text(), "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_head_is_a_get_without_its_body() {
    for_each_database(async |database| {
        let server = Server::on(database);
        for (path, status) in [
            ("plugins", 200),
            ("plugins/SnowflakeDataOutput", 200),
            ("/healthz", 200),
            ("nope", 404),
        ] {
            let got = server.get(path).await.is(status);
            let head = server
                .send(Method::HEAD, path, |request| request)
                .await
                .is(status);
            assert!(head.body.is_empty(), "{path}");
            for header in ["content-type", "etag"] {
                assert_eq!(
                    head.headers.get(header),
                    got.headers.get(header),
                    "{path} {header}"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_etag_changes_with_the_body() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let before = server
            .get("data_products")
            .await
            .is(200)
            .header("etag")
            .to_owned();
        server.data_product("sales", "sales").await;
        let now = server
            .get_with("data_products", ("if-none-match", &before))
            .await
            .is(200);
        assert_ne!(now.header("etag"), before);
    })
    .await;
}

#[tokio::test]
async fn answers_are_compressed_for_who_takes_it() {
    for_each_database(async |database| {
        let server = Server::on(database);
        for path in [
            "plugins",
            "plugins/SnowflakeDataOutput/form",
            "plugins/SnowflakeDataOutput",
            "/api/openapi.json",
        ] {
            let plain = server.get(path).await.is(200);
            assert!(!plain.headers.contains_key("content-encoding"), "{path}");
            assert!(
                plain
                    .header("vary")
                    .to_lowercase()
                    .contains("accept-encoding"),
                "{path}"
            );
            let packed = server
                .get_with(path, ("accept-encoding", "gzip"))
                .await
                .is(200);
            assert_eq!(packed.header("content-encoding"), "gzip", "{path}");
            assert!(packed.body.len() < plain.body.len(), "{path}");
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&packed.body[..])
                .read_to_end(&mut unpacked)
                .expect("gzip");
            assert_eq!(unpacked, plain.body, "{path}");
            let refused = server
                .get_with(path, ("accept-encoding", "gzip;q=0, br"))
                .await
                .is(200);
            assert!(!refused.headers.contains_key("content-encoding"), "{path}");
        }
        // Errors keep their envelope, and what describes their body is true.
        let error = server
            .get_with("plugins/Nope/form", ("accept-encoding", "gzip"))
            .await;
        assert_eq!(error.status, 404);
    })
    .await;
}

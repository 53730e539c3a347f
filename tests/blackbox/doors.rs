//! Who gets in.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Answer, Folder, Server, run_with};

#[tokio::test]
async fn elsewhere_than_on_loopback_it_does_not_listen_without_a_token() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let folder = Folder::new();
        let complaint = run_with(&folder, |options| {
            options.env("PATCHBAY_LISTEN", address);
        })
        .badly();
        assert!(complaint.contains(address), "{complaint}");
        assert!(
            complaint.contains("PATCHBAY_API_TOKEN") && complaint.contains("--insecure"),
            "{complaint}"
        );
        assert!(!folder.path("data").exists(), "nothing was begun");
    }
    let empty = run_with(&Folder::new(), |options| {
        options
            .env("PATCHBAY_LISTEN", "127.0.0.1:0")
            .env("PATCHBAY_API_TOKEN", "  ");
    });
    assert!(empty.badly().contains("api_token"));
}

#[tokio::test]
async fn told_to_be_insecure_it_serves_everyone() {
    for how in ["flag", "variable"] {
        let server = Server::start(|options| {
            options.env("PATCHBAY_LISTEN", "0.0.0.0:0");
            match how {
                "flag" => options.arg("serve").arg("--insecure"),
                _ => options.env("PATCHBAY_INSECURE", "true"),
            };
        });
        server
            .get_with("plugins", ("host", "patchbay.example.com"))
            .await
            .is(200);
        server
            .get_with("plugins", ("x-forwarded-for", "1.2.3.4"))
            .await
            .is(200);
    }
}

#[tokio::test]
async fn a_token_is_asked_of_everyone_and_health_is_open() {
    let server = Server::start(|options| {
        options
            .env("PATCHBAY_LISTEN", "0.0.0.0:0")
            .env("PATCHBAY_API_TOKEN", "correct horse");
        options.env("PATCHBAY_TOKEN_NAME", "portal");
    });
    for path in ["/healthz", "/readyz", "/healthz/"] {
        server.get(path).await.is(200);
    }
    for path in [
        "plugins",
        "plugins/",
        "/api/openapi.json",
        "/metrics",
        "data_products",
        "nope",
        "/nope",
        "plugins/SnowflakeDataOutput/form",
    ] {
        let refused = server.get(path).await;
        assert!(refused.header("www-authenticate").starts_with("Bearer"));
        refused.error(401);
    }
    for (name, value) in [
        ("authorization", "Bearer wrong"),
        ("authorization", "Bearer correct horse2"),
        ("authorization", "Bearer correct hors"),
        ("authorization", "Basic correct horse"),
        ("authorization", "correct horse"),
        ("authorization", "Bearer "),
        ("x-key", "wrong"),
        ("x-key", ""),
        ("cookie", "token=correct horse"),
    ] {
        server.get_with("plugins", (name, value)).await.error(401);
    }
    for (name, value) in [
        ("authorization", "Bearer correct horse"),
        ("authorization", "bearer correct horse"),
        ("x-key", "correct horse"),
    ] {
        server.get_with("plugins", (name, value)).await.is(200);
    }
    let key = ("x-key", "correct horse");
    // With a token, a name and a proxy of one's own are fine.
    let proxied = server
        .send(Method::GET, "plugins", |request| {
            request
                .header(key.0, key.1)
                .header("host", "patchbay.example.com")
                .header("x-forwarded-for", "1.2.3.4")
        })
        .await;
    proxied.is(200);
    let post = async |path: &str, body: serde_json::Value| {
        server
            .send(Method::POST, path, |request| {
                request.header(key.0, key.1).json(&body)
            })
            .await
    };
    let product = json!({ "name": "sales", "namespace": "sales", "domain": "sales" });
    server.post("data_products", &product).await.error(401);
    let product = post("data_products", product).await.is(201).json();
    let configuration = json!({ "database": "sales", "access_granularity": "schema" });
    let body =
        json!({ "data_product_id": product["id"], "name": "n", "configuration": configuration });
    let created = post("plugins/SnowflakeDataOutput/configurations", body)
        .await
        .is(201)
        .json();
    let path = format!(
        "configurations/{}/history",
        created["id"].as_str().expect("an id")
    );
    let history = server.get_with(&path, key).await.is(200).json();
    assert_eq!(history["history"][0]["changed_by"], "portal");
    let log = server.logged();
    assert!(!log.contains("correct horse"), "{log}");
}

async fn get(server: &Server, headers: &[(&str, &str)]) -> Answer {
    server
        .send(Method::GET, "plugins", |request| {
            headers.iter().fold(request, |request, (name, value)| {
                request.header(*name, *value)
            })
        })
        .await
}

#[tokio::test]
async fn without_a_token_no_foreign_page_gets_in() {
    let server = Server::start(|options| {
        options.env("PATCHBAY_CORS_ORIGINS", "https://portal.example.com");
    });
    let port = server
        .address
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    let own = format!("http://{}", server.address);
    let by_name = format!("localhost:{port}");
    for headers in [
        &[("host", by_name.as_str())][..],
        &[("host", "localhost")],
        &[("host", "[::1]:80")],
        &[("origin", own.as_str())],
        &[("origin", "https://portal.example.com")],
    ] {
        get(&server, headers).await.is(200);
    }
    for headers in [
        &[("host", "evil.example")][..],
        &[("host", "localhost.evil.example")],
        &[("host", "127.0.0.1.evil.example")],
        &[("host", "192.168.1.1")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://localhost:3000")],
        &[("forwarded", "for=1.2.3.4")],
        &[("x-forwarded-for", "127.0.0.1")],
        &[("x-forwarded-host", "localhost")],
        &[("x-real-ip", "127.0.0.1")],
    ] {
        get(&server, headers).await.error(403);
    }
    // What a form of a foreign page can send without asking is no JSON.
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ] {
        let body = json!({ "name": "n", "namespace": "n", "domain": "d" }).to_string();
        let answer = server
            .send(Method::POST, "data_products", |request| {
                request.header("content-type", content_type).body(body)
            })
            .await;
        answer.error(415);
    }
    let untyped = server
        .send(Method::POST, "data_products", |request| request.body("{}"))
        .await;
    untyped.error(415);
    let list = server.get("data_products").await.is(200).json();
    assert_eq!(list["data_products"], json!([]), "nothing was written");
    // Health tells nothing and is open.
    server
        .get_with("/healthz", ("host", "evil.example"))
        .await
        .is(200);
}

#[tokio::test]
async fn listed_origins_may_ask_from_a_browser_and_others_may_not() {
    let server = Server::start(|options| {
        options.env("PATCHBAY_CORS_ORIGINS", "https://portal.example.com");
        options.env("PATCHBAY_API_TOKEN", "token");
    });
    let preflight = async |origin: &str| {
        server
            .send(Method::OPTIONS, "data_products", |request| {
                request
                    .header("origin", origin)
                    .header("access-control-request-method", "POST")
                    .header("access-control-request-headers", "x-key,content-type")
            })
            .await
    };
    let allowed = preflight("https://portal.example.com").await.is(200);
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        "https://portal.example.com"
    );
    assert!(
        allowed
            .header("access-control-allow-methods")
            .contains("POST")
    );
    assert!(
        allowed
            .header("access-control-allow-headers")
            .contains("x-key")
    );
    let refused = preflight("https://evil.example").await;
    assert!(!refused.headers.contains_key("access-control-allow-origin"));
    for path in ["plugins", "data_products"] {
        let answer = server
            .send(Method::GET, path, |request| {
                request
                    .header("origin", "https://portal.example.com")
                    .header("x-key", "token")
            })
            .await
            .is(200);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            "https://portal.example.com",
            "{path}"
        );
    }
}

//! Kept answers, seen from outside.

use super::fixture;
use crate::HttpSettings;

#[tokio::test]
async fn a_warm_read_is_answered_from_the_kept_answers() {
    let server = fixture(HttpSettings::default()).await;
    for path in [
        "/api/v2/plugins",
        "/api/v2/plugins/platform-tiles",
        "/api/v2/plugins/Pigeon/form",
        "/api/v2/plugins/Dove/form",
        "/api/openapi.json",
    ] {
        let before = server.figure("patchbay_http_kept_hits_total").await;
        let cold = server.get(path).await;
        let warm = server.get(path).await;
        let again = server.get(&format!("{path}/")).await;
        assert_eq!(cold.status, 200, "{path}");
        assert_eq!(cold.body, warm.body);
        assert_eq!(cold.body, again.body);
        for header in [
            "content-type",
            "etag",
            "cache-control",
            "vary",
            "x-content-type-options",
        ] {
            assert_ne!(cold.header(header), "", "{path} {header}");
            assert_eq!(cold.header(header), warm.header(header), "{path}");
        }
        let after = server.figure("patchbay_http_kept_hits_total").await;
        assert_eq!(after - before, 2.0, "{path}");

        let known = [("if-none-match", cold.header("etag"))];
        let current = server.ask("GET", path, &known, None).await;
        assert_eq!(current.status, 304);
        assert!(current.body.is_empty());
        let head = server.ask("HEAD", path, &[], None).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    }
}

#[tokio::test]
async fn the_door_stands_before_the_kept_answers() {
    let server = fixture(HttpSettings::default()).await;
    assert_eq!(server.get("/api/v2/plugins").await.status, 200);
    let evil = [("host", "evil.example")];
    assert_eq!(
        server
            .ask("GET", "/api/v2/plugins", &evil, None)
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn a_change_is_seen_at_once() {
    let server = fixture(HttpSettings::default()).await;
    let before = server.get("/api/v2/plugins/Pigeon/form").await;
    assert_eq!(before.json()["display_name"], "Pigeon");
    let file = server.plugins().join("pigeon.lua");
    let changed = super::PLUGIN.replace(
        "aliases =",
        "platform = { display_name = \"Homing pigeon\" }, aliases =",
    );
    std::fs::write(file, changed).expect("written");
    let reloaded = server
        .ask("POST", "/api/v2/plugins/reload", &[], None)
        .await;
    assert_eq!(
        reloaded.json()["changed"],
        serde_json::json!(["Pigeon"]),
        "{reloaded:?}"
    );
    let after = server.get("/api/v2/plugins/Pigeon/form").await;
    assert_eq!(after.json()["display_name"], "Homing pigeon");
    assert_ne!(before.header("etag"), after.header("etag"));
}

#[tokio::test]
async fn unknown_names_leave_nothing_behind() {
    let server = fixture(HttpSettings::default()).await;
    let before = server.figure("patchbay_http_kept_hits_total").await;
    for _ in 0..3 {
        let answer = server.get("/api/v2/plugins/Nobody/form").await;
        assert_eq!(answer.detail(), "Plugin 'Nobody' not found");
    }
    assert_eq!(server.figure("patchbay_http_kept_hits_total").await, before);
}

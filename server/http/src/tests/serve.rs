//! Over a socket: the server starts where it may, answers, and lets requests end when it is told to stop.

use std::io::ErrorKind;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::fixture;
use crate::{HttpSettings, serve};

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("text");
    text
}

#[tokio::test]
async fn a_request_under_way_ends_before_the_server_does() {
    let server = fixture(HttpSettings::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    let stop = Arc::new(Notify::new());
    let told = Arc::clone(&stop);
    let serving = tokio::spawn(serve(listener, server.app.clone(), async move {
        told.notified().await;
    }));

    let mut idle = TcpStream::connect(address).await.expect("a connection");
    let mut slow = TcpStream::connect(address).await.expect("a connection");
    let head = "POST /api/v2/data_products HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let body = r#"{"name": "n", "namespace": "n", "domain": "d"}"#;
    let expecting = format!(
        "{head}expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    slow.write_all(expecting.as_bytes()).await.expect("sent");
    // The server asks for the body, so the request is under way.
    let mut asked = [0; 25];
    slow.read_exact(&mut asked).await.expect("an answer");
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stop.notify_one();
    // A connection without a request is closed soon.
    assert_eq!(read_to_end(&mut idle).await, "");
    slow.write_all(body.as_bytes()).await.expect("sent");
    let answer = read_to_end(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    serving.await.expect("no panic").expect("served");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn without_a_token_it_does_not_listen_for_others() {
    let server = fixture(HttpSettings::default()).await;
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("a socket");
    let refused = serve(listener, server.app.clone(), std::future::pending()).await;
    let error = refused.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("PATCHBAY_API_TOKEN"));
}

#[tokio::test]
async fn what_is_too_long_has_the_envelope_as_far_as_it_is_read() {
    let server = fixture(HttpSettings::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(serve(listener, server.app.clone(), async move {
        stopped.await.expect("told");
    }));
    let long_path = |length| format!("GET /{} HTTP/1.1\r\n", "x".repeat(length));
    let headers = |count: usize, size: usize| -> String {
        let line = |number| format!("x-{number}: {}\r\n", "x".repeat(size));
        (0..count).map(line).collect()
    };
    for (head, status, is_enveloped) in [
        (long_path(8 * 1024), "414 URI Too Long", true),
        (long_path(60_000), "414 URI Too Long", true),
        // Longer than hyper hands on.
        (long_path(66_000), "414 URI Too Long", false),
        (
            format!("GET / HTTP/1.1\r\n{}", headers(65, 1024)),
            "431 Request Header Fields Too Large",
            true,
        ),
        // More than hyper hands on.
        (
            format!("GET / HTTP/1.1\r\n{}", headers(101, 1)),
            "431 Request Header Fields Too Large",
            false,
        ),
    ] {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let request = format!("{head}host: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let answer = read_to_end(&mut stream).await;
        let (first, _) = answer.split_once("\r\n").expect("a head");
        assert_eq!(first, format!("HTTP/1.1 {status}"));
        assert_eq!(answer.contains(r#"{"correlation_id":"#), is_enveloped);
    }
    stop.send(()).expect("serving");
    serving.await.expect("no panic").expect("served");
}

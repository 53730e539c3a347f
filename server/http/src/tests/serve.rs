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
    // A connection without a request is closed at once.
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

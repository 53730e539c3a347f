//! Connections: accepting them, and letting the requests on them end when the server shuts down.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, Connection};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::App;
use crate::front::{Front, FrontBody, FrontFuture};
use crate::layers;
use crate::routes;

/// How long a client may take to send the head of a request, and how long it may keep a connection idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection may be silent when the server stops and nothing has been asked on it yet.
const FIRST_REQUEST: Duration = Duration::from_millis(250);
/// How long to wait before accepting again when that failed for a reason that passes, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `shutdown` is done, then lets the requests under way end: no new ones are taken, and what is not done
/// after the drain time of the settings is cut off.
///
/// # Errors
/// When the listener has no address, or the door forbids to listen there ([`crate::ListenRefused`]).
pub async fn serve(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    app.may_listen(listener.local_addr()?)
        .map_err(|refused| io::Error::new(io::ErrorKind::PermissionDenied, refused))?;
    let drain = app.settings().drain;
    let front = layers::service(routes::service(&app), &app);
    let stopping = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    // What hyper does not hand on, it refuses by itself with a bare status: 400 for what is no HTTP, 414 for a path of 64
    // KiB, 431 for more than 100 headers or some 400 KiB of them. What is too long for us is far below that and is refused
    // by `front`, with the envelope; to send one here too, the bytes would have to be read before hyper does.
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    let answer = |stream| {
        let begun = Arc::new(Notify::new());
        let requests = Requests(front.clone(), Arc::clone(&begun));
        let connection = http.serve_connection(TokioIo::new(stream), requests);
        answer(connection, begun, stopping.subscribe())
    };
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            stream = accept(&listener) => {
                connections.spawn(answer(stream));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    // Those whom the system has let in already would be cut off with the listener.
    let listener = listener.into_std()?;
    while let Ok((stream, _)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            connections.spawn(answer(stream));
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, all_ended).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests were still under way at the end of the drain time and are cut off"
        );
    }
    connections.shutdown().await;
    Ok(())
}

/// Answers the requests of a connection until it ends, or until the server stops and the request under way is answered.
async fn answer(
    connection: Connection<TokioIo<TcpStream>, Requests>,
    begun: Arc<Notify>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        // The sender is there for as long as the connection is.
        _ = stopping.wait_for(|stopping| *stopping) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            // Who has come just before has not yet said what he wants.
            let first = tokio::time::timeout(FIRST_REQUEST, begun.notified());
            tokio::select! {
                ended = &mut connection => ended,
                _ = first => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers must not wait for more to send; a socket that refuses the option still works.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted, trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether the error is that of the one connection, which was gone before it was accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// The requests of one connection, and the word that the first of them has begun.
struct Requests(Front, Arc<Notify>);

impl Service<hyper::Request<Incoming>> for Requests {
    type Response = hyper::Response<FrontBody>;
    type Error = Infallible;
    type Future = FrontFuture;

    fn call(&self, request: hyper::Request<Incoming>) -> FrontFuture {
        self.1.notify_one();
        self.0.answer(request, Body::new)
    }
}

//! The baseline of `lists`: an axum server that does nothing but return fixed bytes, in a process of its own.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use axum::serve::ListenerExt;
use bytes::Bytes;

use crate::server::Running;

/// Starts it with the bytes of a file.
///
/// # Errors
/// When it does not start.
pub(crate) fn start(body: &Path) -> Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bare-axum").arg(body);
    Running::spawn(command)
}

/// What the process does.
///
/// # Errors
/// When the file cannot be read or nothing can be listened on.
pub(crate) fn run(body: &Path) -> Result<()> {
    let body = Bytes::from(std::fs::read(body)?);
    // The runtime that `#[tokio::main]` makes, as anyone would.
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let answer = get(move || {
                let body = body.clone();
                async move {
                    (
                        [(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
                        body,
                    )
                }
            });
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            println!("listening on http://{}", listener.local_addr()?);
            std::io::stdout().flush()?;
            // Without Nagle, which would only hold the baseline back; failing to switch it off is no reason to stop.
            let listener = listener.tap_io(|stream| {
                let _ = stream.set_nodelay(true);
            });
            axum::serve(listener, Router::new().route("/{*path}", answer)).await?;
            Ok(())
        })
}

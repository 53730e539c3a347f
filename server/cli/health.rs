//! `patchbay health`: what a container asks of the server beside it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::{Common, say};

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ask a running server whether it is healthy
#[derive(Debug, Args)]
pub(super) struct Health {
    /// The server's address; by default the one that it is told to listen on
    #[arg(long, value_name = "ADDRESS")]
    address: Option<SocketAddr>,
}

impl Health {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let mut address = match self.address {
            Some(address) => address,
            None => common.settings(None, false)?.listen,
        };
        if address.ip().is_unspecified() {
            // A server that listens everywhere is reached from the same machine by loopback.
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let status = ask(address).with_context(|| format!("no answer from {address}"))?;
        if status != "200" {
            bail!("the server at {address} answers {status}");
        }
        say(format_args!("healthy"));
        Ok(ExitCode::SUCCESS)
    }
}

/// One GET is not worth an HTTP client: the first line of the answer says all.
fn ask(address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    answer
        .split(' ')
        .nth(1)
        .map(str::to_owned)
        .context("the answer is no HTTP")
}

//! One keep-alive connection that speaks just enough HTTP/1.1: requests are written as given, answers are read by their
//! content-length. Cheap, because it shares the machine with what it measures.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::net::TcpStream;

/// How much room a connection has for its answer at first, in bytes.
const ROOM: usize = 64 * 1024;

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, in the buffer of its connection.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    /// The status.
    pub(crate) status: u16,
    /// The status line and the headers.
    pub(crate) head: &'a str,
    /// The body.
    pub(crate) body: &'a [u8],
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Whatever connecting gives.
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            buffer: vec![0; ROOM],
        })
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When the connection breaks, or the answer has no content-length or is no HTTP/1.1.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        let mut sent = 0;
        while sent < request.len() {
            match self.stream.try_write(&request[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.writable().await?;
                }
                Err(error) => return Err(error),
            }
        }
        let mut filled = 0;
        let mut head: Option<Head> = None;
        loop {
            let whole = match &head {
                Some(head) => head.end + head.length,
                None => match Head::find(&self.buffer[..filled])? {
                    Some(found) => {
                        let whole = found.end + found.length;
                        head = Some(found);
                        whole
                    }
                    None => filled + 1,
                },
            };
            if filled >= whole {
                break;
            }
            if self.buffer.len() < whole {
                self.buffer.resize(whole.max(self.buffer.len() * 2), 0);
            }
            self.stream.readable().await?;
            match self.stream.try_read(&mut self.buffer[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        let head = head.ok_or_else(|| nonsense("no head"))?;
        let (text, rest) = self.buffer[..filled].split_at(head.end);
        Ok(Answer {
            status: head.status,
            head: std::str::from_utf8(text).map_err(|_| nonsense("the head is no text"))?,
            body: &rest[..head.length],
        })
    }

    /// Asks for a path and reads the JSON of the answer.
    ///
    /// # Errors
    /// When it is not a 2xx with JSON.
    pub(crate) async fn json(&mut self, request: &[u8]) -> Result<Value> {
        let answer = self.exchange(request).await?;
        ensure!(
            (200..300).contains(&answer.status),
            "{} answered {}: {}",
            String::from_utf8_lossy(request)
                .lines()
                .next()
                .unwrap_or_default(),
            answer.status,
            String::from_utf8_lossy(answer.body)
        );
        serde_json::from_slice(answer.body).context("the answer is no JSON")
    }
}

impl Answer<'_> {
    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What must be known of a head to read the rest.
#[derive(Debug)]
struct Head {
    status: u16,
    end: usize,
    length: usize,
}

impl Head {
    fn find(bytes: &[u8]) -> io::Result<Option<Head>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let mut lines = bytes[..end].split(|byte| *byte == b'\n');
        let status = lines
            .next()
            .and_then(|line| std::str::from_utf8(line).ok())
            .and_then(|line| line.strip_prefix("HTTP/1.1 "))
            .and_then(|line| line.get(..3))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| nonsense("the answer is no HTTP/1.1"))?;
        const NAME: &[u8] = b"content-length:";
        let length = lines
            .find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
            .and_then(|line| std::str::from_utf8(&line[NAME.len()..]).ok())
            .and_then(|value| value.trim().parse().ok());
        let length = match length {
            Some(length) => length,
            None if matches!(status, 204 | 304) => 0,
            None => return Err(nonsense("the answer has no content-length")),
        };
        Ok(Some(Head {
            status,
            end: end + 4,
            length,
        }))
    }
}

fn nonsense(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A GET, encoded.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

/// A PUT of JSON, encoded.
pub(crate) fn put(path: &str, body: &str) -> Vec<u8> {
    with_body("PUT", path, body)
}

/// A POST of JSON, encoded.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    with_body("POST", path, body)
}

fn with_body(method: &str, path: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

//! A wire between a server and its database that can be cut, or fall silent.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What goes through.
#[derive(Debug, Clone, Copy, Default)]
struct Wire {
    /// Nothing does, though connections stay: nobody is told.
    silent: bool,
    /// No connection is taken.
    closed: bool,
    /// How often all connections have been ended. One that began before the last time has ended.
    cuts: u64,
}

struct State {
    wire: watch::Sender<Wire>,
    /// A connection on which a client sends this ends once it has been passed on; then it is forgotten.
    last_words: Mutex<Option<Vec<u8>>>,
}

/// A port on 127.0.0.1 behind which a cluster answers. It ends when it is dropped.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Stands before a port on 127.0.0.1.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn before(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("its address").port();
        let state = Arc::new(State {
            wire: watch::Sender::new(Wire::default()),
            last_words: Mutex::new(None),
        });
        let accepting = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(connect(client, port, Arc::clone(&state)));
                }
            }
        });
        Proxy {
            port: own,
            state,
            accepting,
        }
    }

    /// A URL of the cluster by way of this.
    pub fn url(&self, url: &str, port: u16) -> String {
        url.replace(&format!(":{port}/"), &format!(":{}/", self.port))
    }

    /// Lets nothing through, and ends no connection.
    pub fn silence(&self) {
        self.state.wire.send_modify(|wire| wire.silent = true);
    }

    /// Ends all connections, and takes no new ones.
    pub fn cut(&self) {
        self.state.wire.send_modify(|wire| {
            wire.closed = true;
            wire.cuts += 1;
        });
    }

    /// Lets everything through again.
    pub fn heal(&self) {
        self.state.wire.send_modify(|wire| {
            wire.silent = false;
            wire.closed = false;
        });
    }

    /// Ends the next connection on which a client sends these bytes, right after they have been passed on.
    pub fn cut_after(&self, words: &str) {
        let mut last_words = self
            .state
            .last_words
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last_words = Some(words.as_bytes().to_vec());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn connect(client: TcpStream, port: u16, state: Arc<State>) {
    let at_first = *state.wire.borrow();
    if at_first.closed {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // When one ends, the other is dropped, and the connections with them.
    tokio::select! {
        _ = pass(from_client, to_server, &state, at_first.cuts, true) => {}
        _ = pass(from_server, to_client, &state, at_first.cuts, false) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    cuts: u64,
    is_client: bool,
) -> io::Result<()> {
    let mut wire = state.wire.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read?,
            _ = wire.wait_for(|wire| wire.cuts != cuts) => return Ok(()),
        };
        if read == 0 {
            return Ok(());
        }
        // The sender is the state's, so it is there.
        let open = wire
            .wait_for(|wire| !wire.silent || wire.cuts != cuts)
            .await;
        if open.is_ok_and(|wire| wire.cuts != cuts) {
            return Ok(());
        }
        let bytes = &buffer[..read];
        to.write_all(bytes).await?;
        if is_client && is_last(bytes, state) {
            return Ok(());
        }
    }
}

fn is_last(bytes: &[u8], state: &State) -> bool {
    let mut last_words = state
        .last_words
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let found = last_words
        .as_ref()
        .is_some_and(|words| bytes.windows(words.len()).any(|part| part == words));
    if found {
        *last_words = None;
    }
    found
}

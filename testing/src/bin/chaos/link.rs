//! One connection of one client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use testing::websocket::{Options, Socket, connect};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::client_state::ClientState;
use crate::history::What;
use crate::reader::{Incoming, ReadState, Reader};

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const WRITE_WITHIN: Duration = Duration::from_secs(2);
/// How long an abandoned connection is still read.
const AFTERLIFE: Duration = Duration::from_secs(10);

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) conn: u64,
    pub(crate) node: usize,
    client_state: Arc<ClientState>,
    sink: SplitSink<Socket, Message>,
    pub(crate) heard: mpsc::UnboundedReceiver<Incoming>,
    reader: Option<JoinHandle<()>>,
    read_state: Arc<ReadState>,
}

impl Link {
    /// Connects to a node; `None` if that fails.
    pub(crate) async fn open(
        client_state: &Arc<ClientState>,
        node: usize,
        front: SocketAddr,
    ) -> Option<Self> {
        Self::open_with(client_state, node, front, None).await
    }

    /// The same with a small receive buffer, for a client that will not read.
    pub(crate) async fn open_with(
        client_state: &Arc<ClientState>,
        node: usize,
        front: SocketAddr,
        receive_buffer: Option<u32>,
    ) -> Option<Self> {
        let opening = async {
            let options = Options {
                receive_buffer,
                ..Options::default()
            };
            Some(connect(front, "/", options).await.ok()?.0)
        };
        let socket = timeout(CONNECT_WITHIN, opening).await.ok()??;
        let (sink, stream) = socket.split();
        let (sender, heard) = mpsc::unbounded_channel();
        let read_state = Arc::new(ReadState::new());
        let conn = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let reader = Reader {
            client_state: Arc::clone(client_state),
            conn,
            node,
            read_state: Arc::clone(&read_state),
            sender,
        };
        Some(Self {
            conn,
            node,
            client_state: Arc::clone(client_state),
            sink,
            heard,
            reader: Some(tokio::spawn(reader.listen(stream))),
            read_state,
        })
    }

    pub(crate) fn note(&self, what: What) {
        let life = self.client_state.memory().life;
        self.client_state
            .history
            .note(&self.client_state.name, self.conn, life, what);
    }

    pub(crate) async fn send_json(&mut self, message: &Value) -> bool {
        self.send(Message::text(message.to_string())).await
    }

    /// Sends a frame; false if it cannot be sent in time.
    pub(crate) async fn send(&mut self, message: Message) -> bool {
        matches!(
            timeout(WRITE_WITHIN, self.sink.send(message)).await,
            Ok(Ok(()))
        )
    }

    /// Logs in; the reply, `None` if none comes or the connection ends.
    pub(crate) async fn login(&mut self, request: &Value, within: Duration) -> Option<Value> {
        if !self.send_json(request).await {
            return None;
        }
        self.answer(within, |said| said["type"] == "login").await
    }

    /// The next message of this kind; skips others.
    pub(crate) async fn answer(
        &mut self,
        within: Duration,
        is_meant: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        let waiting = async {
            loop {
                match self.heard.recv().await? {
                    Incoming::Message(said) if is_meant(&said) => return Some(said),
                    Incoming::Message(_) => {}
                    Incoming::Closed(_) => return None,
                }
            }
        };
        timeout(within, waiting).await.ok()?
    }

    pub(crate) fn silent_for(&self) -> Duration {
        self.read_state.silent_for()
    }

    /// Abandons the connection without closing it. It is not read until [`linger`](Self::linger): messages would
    /// count for the new
    /// connection, and a pong would confirm them.
    pub(crate) fn retire(&self) {
        self.read_state.retired.store(true, Ordering::Relaxed);
        self.stop_reading(true);
        self.note(What::Abandoned);
    }

    /// Reads an abandoned connection for a while, after another has replaced it. Messages are recorded as late.
    pub(crate) fn linger(mut self) {
        self.stop_reading(false);
        if let Some(reader) = self.reader.take() {
            tokio::spawn(async move {
                let abort = reader.abort_handle();
                if timeout(AFTERLIFE, reader).await.is_err() {
                    abort.abort();
                }
                drop(self);
            });
        }
    }

    /// Closes, and waits for the answering close frame.
    pub(crate) async fn close(mut self) {
        let _ = self.send(Message::Close(None)).await;
        let _ = self.is_closed(Duration::from_secs(2)).await;
    }

    /// Stops reading, and so answering pings, or starts again.
    pub(crate) fn stop_reading(&self, stop: bool) {
        self.read_state.stopped.send_replace(stop);
    }

    /// The close code; `None` if the connection is not closed in this time.
    pub(crate) async fn is_closed(&mut self, within: Duration) -> Option<Option<u16>> {
        let closing = async {
            loop {
                match self.heard.recv().await {
                    Some(Incoming::Message(_)) => {}
                    Some(Incoming::Closed(code)) => return code,
                    None => return None,
                }
            }
        };
        timeout(within, closing).await.ok()
    }
}

/// Breaks the connection without a close frame.
impl Drop for Link {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

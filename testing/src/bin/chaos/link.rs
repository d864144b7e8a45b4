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

use crate::diary::Diary;
use crate::history::What;
use crate::listener::{Ear, Heard, Listener};

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const WRITE_WITHIN: Duration = Duration::from_secs(2);
/// How long an abandoned connection is still read.
const AFTERLIFE: Duration = Duration::from_secs(10);

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) conn: u64,
    pub(crate) node: usize,
    diary: Arc<Diary>,
    sink: SplitSink<Socket, Message>,
    pub(crate) heard: mpsc::UnboundedReceiver<Heard>,
    reader: Option<JoinHandle<()>>,
    ear: Arc<Ear>,
}

impl Link {
    /// Connects to a node; `None` if that fails.
    pub(crate) async fn open(diary: &Arc<Diary>, node: usize, door: SocketAddr) -> Option<Self> {
        Self::open_with(diary, node, door, None).await
    }

    /// The same with a small receive buffer, for a client that will not read.
    pub(crate) async fn open_with(
        diary: &Arc<Diary>,
        node: usize,
        door: SocketAddr,
        receive_buffer: Option<u32>,
    ) -> Option<Self> {
        let opening = async {
            let options = Options {
                receive_buffer,
                ..Options::default()
            };
            Some(connect(door, "/", options).await.ok()?.0)
        };
        let socket = timeout(CONNECT_WITHIN, opening).await.ok()??;
        let (sink, stream) = socket.split();
        let (sender, heard) = mpsc::unbounded_channel();
        let ear = Arc::new(Ear::new());
        let conn = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let listener = Listener {
            diary: Arc::clone(diary),
            conn,
            node,
            ear: Arc::clone(&ear),
            sender,
        };
        Some(Self {
            conn,
            node,
            diary: Arc::clone(diary),
            sink,
            heard,
            reader: Some(tokio::spawn(listener.listen(stream))),
            ear,
        })
    }

    pub(crate) fn note(&self, what: What) {
        let life = self.diary.memory().life;
        self.diary
            .history
            .note(&self.diary.name, self.conn, life, what);
    }

    pub(crate) async fn say(&mut self, message: &Value) -> bool {
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
        if !self.say(request).await {
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
                    Heard::Said(said) if is_meant(&said) => return Some(said),
                    Heard::Said(_) => {}
                    Heard::Closed(_) => return None,
                }
            }
        };
        timeout(within, waiting).await.ok()?
    }

    pub(crate) fn silent_for(&self) -> Duration {
        self.ear.silent_for()
    }

    /// Abandons the connection without closing it. It is not read until [`lingers`](Self::lingers): messages would
    /// count for the new
    /// connection, and a pong would confirm them.
    pub(crate) fn retire(&self) {
        self.ear.retired.store(true, Ordering::Relaxed);
        self.goes_deaf(true);
        self.note(What::Abandoned);
    }

    /// Reads an abandoned connection for a while, after another has replaced it. Messages are recorded as late.
    pub(crate) fn lingers(mut self) {
        self.goes_deaf(false);
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
    pub(crate) fn goes_deaf(&self, deaf: bool) {
        self.ear.deaf.send_replace(deaf);
    }

    /// The close code; `None` if the connection is not closed in this time.
    pub(crate) async fn is_closed(&mut self, within: Duration) -> Option<Option<u16>> {
        let closing = async {
            loop {
                match self.heard.recv().await {
                    Some(Heard::Said(_)) => {}
                    Some(Heard::Closed(code)) => return code,
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

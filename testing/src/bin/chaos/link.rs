//! One connection of one client, from the client's side.

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
/// How long a connection that was given up is still listened to.
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
    /// Connects to the door of a node; nothing if it does not let us in.
    pub(crate) async fn open(diary: &Arc<Diary>, node: usize, door: SocketAddr) -> Option<Self> {
        Self::open_with(diary, node, door, None).await
    }

    /// The same with a small receive buffer, for one who will not read.
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

    /// False if it cannot be sent, or not in time.
    pub(crate) async fn send(&mut self, message: Message) -> bool {
        matches!(
            timeout(WRITE_WITHIN, self.sink.send(message)).await,
            Ok(Ok(()))
        )
    }

    /// Logs in and waits for the answer; nothing if none comes, or the connection ends.
    pub(crate) async fn login(&mut self, request: &Value, within: Duration) -> Option<Value> {
        if !self.say(request).await {
            return None;
        }
        self.answer(within, |said| said["type"] == "login").await
    }

    /// The next message of this kind; others are passed over.
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

    /// Gives the connection up without closing it. It is not read until [`lingers`](Self::lingers): what would come counts for another connection,
    /// and a pong would confirm it.
    pub(crate) fn retire(&self) {
        self.ear.retired.store(true, Ordering::Relaxed);
        self.goes_deaf(true);
        self.note(What::Abandoned);
    }

    /// Another connection has taken its place: listens how it ends, for a while. What comes is written down as late.
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

    /// Says goodbye, and waits for the answer.
    pub(crate) async fn close(mut self) {
        let _ = self.send(Message::Close(None)).await;
        let _ = self.is_closed(Duration::from_secs(2)).await;
    }

    /// Stops to read, and so to answer pings; or begins again.
    pub(crate) fn goes_deaf(&self, deaf: bool) {
        self.ear.deaf.send_replace(deaf);
    }

    /// The code that the connection was closed with; nothing if it was not in this time.
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

/// Without a goodbye the connection just ends.
impl Drop for Link {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

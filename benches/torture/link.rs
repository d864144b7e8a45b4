//! One connection of one client: what comes is written down the moment it comes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::history::{History, Receipt, What};

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const WRITE_WITHIN: Duration = Duration::from_secs(2);
/// How long a connection that was given up is still listened to.
const AFTERLIFE: Duration = Duration::from_secs(10);

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// What a client remembers across its connections.
#[derive(Debug)]
pub(crate) struct Diary {
    pub(crate) history: Arc<History>,
    pub(crate) name: Arc<str>,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) secret: Option<String>,
    pub(crate) last: Option<String>,
    pub(crate) life: u32,
    /// When anything came last, on a connection that was logged in.
    pub(crate) heard: Option<Instant>,
}

impl Diary {
    pub(crate) fn new(history: &Arc<History>, name: &str) -> Arc<Self> {
        Arc::new(Self {
            history: Arc::clone(history),
            name: name.into(),
            memory: Mutex::default(),
        })
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) enum Heard {
    Said(Value),
    Closed(Option<u16>),
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) conn: u64,
    pub(crate) node: usize,
    diary: Arc<Diary>,
    sink: SplitSink<WebSocketStream<TcpStream>, Message>,
    pub(crate) heard: mpsc::UnboundedReceiver<Heard>,
    reader: Option<JoinHandle<()>>,
    ear: Arc<Ear>,
}

#[derive(Debug)]
struct Ear {
    /// Given up for another connection.
    retired: AtomicBool,
    logged_in: AtomicBool,
    heard: Mutex<Instant>,
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
            let socket = TcpSocket::new_v4().ok()?;
            if let Some(bytes) = receive_buffer {
                socket.set_recv_buffer_size(bytes).ok()?;
            }
            let stream = socket.connect(door).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let url = format!("ws://{door}/");
            let (socket, _) = tokio_tungstenite::client_async(url, stream).await.ok()?;
            Some(socket)
        };
        let socket = timeout(CONNECT_WITHIN, opening).await.ok()??;
        let (sink, stream) = socket.split();
        let (sender, heard) = mpsc::unbounded_channel();
        let ear = Arc::new(Ear {
            retired: AtomicBool::new(false),
            logged_in: AtomicBool::new(false),
            heard: Mutex::new(Instant::now()),
        });
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
        self.ear
            .heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }

    /// From now on another connection counts. What comes here is written down as late.
    pub(crate) fn retire(&self) {
        self.ear.retired.store(true, Ordering::Relaxed);
    }

    /// Gives the connection up without closing it, and goes on listening for a while.
    pub(crate) fn abandon(mut self) {
        self.retire();
        self.note(What::Abandoned);
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
        let goodbye =
            async { while !matches!(self.heard.recv().await, Some(Heard::Closed(_)) | None) {} };
        let _ = timeout(Duration::from_secs(2), goodbye).await;
    }

    /// Stops to read, and so to answer pings, but stays connected while the value lives.
    pub(crate) fn goes_deaf(mut self) -> impl Sized {
        if let Some(reader) = self.reader.take() {
            reader.abort();
        }
        self
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

struct Listener {
    diary: Arc<Diary>,
    conn: u64,
    node: usize,
    ear: Arc<Ear>,
    sender: mpsc::UnboundedSender<Heard>,
}

impl Listener {
    async fn listen(self, mut stream: SplitStream<WebSocketStream<TcpStream>>) {
        let code = loop {
            let next = stream.next().await;
            *self
                .ear
                .heard
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Instant::now();
            match next {
                Some(Ok(Message::Text(text))) => {
                    let said: Value = serde_json::from_str(&text).unwrap_or_else(|_| {
                        self.note(What::Wrong(11, format!("not JSON: {text}")));
                        json!({})
                    });
                    self.write_down(&said);
                    let _ = self.sender.send(Heard::Said(said));
                }
                Some(Ok(Message::Close(frame))) => break frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break None,
            }
            if self.ear.logged_in.load(Ordering::Relaxed) && !self.retired() {
                self.diary.memory().heard = Some(Instant::now());
            }
        };
        self.note(What::Closed { code });
        let _ = self.sender.send(Heard::Closed(code));
        // Answers the close.
        let rest = async { while let Some(Ok(_)) = stream.next().await {} };
        let _ = timeout(Duration::from_secs(2), rest).await;
    }

    fn retired(&self) -> bool {
        self.ear.retired.load(Ordering::Relaxed)
    }

    fn note(&self, what: What) {
        let life = self.diary.memory().life;
        self.diary
            .history
            .note(&self.diary.name, self.conn, life, what);
    }

    fn write_down(&self, said: &Value) {
        let text = |field: &str| said[field].as_str().unwrap_or_default().to_owned();
        let id = said["id"].as_str().map(str::to_owned);
        match said["type"].as_str().unwrap_or_default() {
            "login" if said["success"] == true => self.logged_in(said),
            kind @ ("message" | "candidate" | "offer" | "answer") => {
                self.remember(said);
                let receipt = receipt(said, kind);
                self.note(if self.retired() {
                    What::Late(receipt)
                } else {
                    What::Received(receipt)
                });
            }
            "leave" if !self.retired() => {
                self.remember(said);
                self.note(What::Left {
                    from: text("name"),
                    reason: text("reason"),
                });
            }
            "ack" => {
                let outcome = Ok(text("status"));
                if let Some(id) = id {
                    self.note(What::Answered { id, outcome });
                }
            }
            "error" => {
                let outcome = Err(text("code"));
                if let Some(id) = id {
                    self.note(What::Answered { id, outcome });
                }
            }
            "presence" => {
                for (name, here) in said["users"].as_object().into_iter().flatten() {
                    self.note(What::Presence {
                        name: name.clone(),
                        here: here == true,
                    });
                }
            }
            "status" => self.note(What::Status {
                fabric: text("fabric"),
                missed: said["missed"] == true,
            }),
            "goaway" => self.note(What::GoAway),
            _ => {}
        }
    }

    fn remember(&self, said: &Value) {
        if let (Some(seq), false) = (said["seq"].as_str(), self.retired()) {
            self.diary.memory().last = Some(seq.to_owned());
        }
    }

    fn logged_in(&self, said: &Value) {
        let resumed = said["resumed"] == true;
        let resumable = said["resume"].is_string();
        {
            let mut memory = self.diary.memory();
            memory.secret = said["resume"].as_str().map(str::to_owned);
            if !resumed {
                memory.last = None;
                memory.life += 1;
            }
        }
        self.ear.logged_in.store(true, Ordering::Relaxed);
        self.note(What::LoggedIn {
            node: self.node,
            resumed,
            resumable,
        });
    }
}

fn receipt(said: &Value, kind: &str) -> Receipt {
    let body = &said[kind];
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    Receipt {
        name: said["name"].as_str().unwrap_or_default().to_owned(),
        from: text("from"),
        to: text("to"),
        id: text("id"),
        from_life: body["life"]
            .as_u64()
            .and_then(|life| u32::try_from(life).ok())
            .unwrap_or_default(),
        n: body["n"].as_u64().unwrap_or_default(),
        kind: kind.to_owned(),
        seq: said["seq"].as_str().map(str::to_owned),
    }
}

//! Reads one connection and records each message when it arrives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::SplitStream;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::diary::Diary;
use crate::history::{Receipt, What};

#[derive(Debug)]
pub(crate) enum Heard {
    Said(Value),
    Closed(Option<u16>),
}

/// What a connection shares with the task that reads it.
#[derive(Debug)]
pub(crate) struct Ear {
    /// The client has abandoned it for another connection.
    pub(crate) retired: AtomicBool,
    logged_in: AtomicBool,
    heard: Mutex<Instant>,
    /// Whether reading is stopped.
    pub(crate) deaf: watch::Sender<bool>,
}

impl Ear {
    pub(crate) fn new() -> Self {
        Self {
            retired: AtomicBool::new(false),
            logged_in: AtomicBool::new(false),
            heard: Mutex::new(Instant::now()),
            deaf: watch::Sender::new(false),
        }
    }

    pub(crate) fn silent_for(&self) -> Duration {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }

    fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

pub(crate) struct Listener {
    pub(crate) diary: Arc<Diary>,
    pub(crate) conn: u64,
    pub(crate) node: usize,
    pub(crate) ear: Arc<Ear>,
    pub(crate) sender: mpsc::UnboundedSender<Heard>,
}

impl Listener {
    pub(crate) async fn listen(self, mut stream: SplitStream<WebSocketStream<TcpStream>>) {
        let mut deaf = self.ear.deaf.subscribe();
        let code = loop {
            let _ = deaf.wait_for(|deaf| !deaf).await;
            let next = tokio::select! {
                // `biased`: after a stop not one more frame is read.
                biased;
                _ = deaf.wait_for(|deaf| *deaf) => continue,
                next = stream.next() => next,
            };
            self.ear.heard();
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
        // tungstenite sends the answering close frame on the next read.
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
                broker: text("broker"),
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

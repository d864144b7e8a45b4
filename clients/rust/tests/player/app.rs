//! An app over the client, in a task of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use switchboard_client::{
    CallState, Calls, Connected, Description, Error, Event, Message, Options, Peer, PeerError,
    Session,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{Played, WITHIN};

/// What a transcript has the app do, in order.
enum Order {
    Call(String),
    Accept(String),
    HangUp(String),
}

/// What the app has seen.
#[derive(Default)]
struct Seen {
    states: Mutex<HashMap<String, String>>,
    reasons: Mutex<HashMap<String, String>>,
    unconnectable: AtomicBool,
}

pub struct App {
    opened: Option<oneshot::Receiver<Result<Session, Error>>>,
    session: Option<Session>,
    orders: mpsc::UnboundedSender<Order>,
    messages: mpsc::UnboundedReceiver<Message>,
    ended: oneshot::Receiver<Error>,
    answers: Vec<JoinHandle<Result<String, Error>>>,
    seen: Arc<Seen>,
}

impl App {
    pub fn start(urls: [String; 2]) -> Self {
        let (opened_to, opened) = oneshot::channel();
        let (orders, ordered) = mpsc::unbounded_channel();
        let (given, messages) = mpsc::unbounded_channel();
        let (ended_to, ended) = oneshot::channel();
        let seen = Arc::<Seen>::default();
        tokio::spawn(run(
            urls,
            opened_to,
            ordered,
            given,
            ended_to,
            Arc::clone(&seen),
        ));
        Self {
            opened: Some(opened),
            session: None,
            orders,
            messages,
            ended,
            answers: Vec::new(),
            seen,
        }
    }

    pub async fn is_open(&mut self) -> Played {
        if let Some(opened) = self.opened.take() {
            let opened = timeout(WITHIN, opened)
                .await
                .map_err(|_| "it is not open")?;
            self.session = Some(opened.unwrap().map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    pub async fn step(&mut self, kind: &str, what: &Value) -> Played {
        let name = what
            .as_str()
            .or(what[0].as_str())
            .unwrap_or_default()
            .to_owned();
        match kind {
            "send" => {
                self.is_open().await?;
                let sent = self
                    .session
                    .as_ref()
                    .unwrap()
                    .signal("message", &name, what[1].clone());
                self.answers.push(tokio::spawn(sent));
            }
            "answers" => {
                let number = usize::try_from(what[0].as_u64().unwrap()).unwrap();
                let answer = timeout(WITHIN, &mut self.answers[number - 1]).await;
                let told = match answer.map_err(|_| "it is not answered")?.unwrap() {
                    Ok(status) => status,
                    Err(error) => error.code,
                };
                return same(&json!(told), &what[1]);
            }
            "emits" => return self.emits(what).await,
            "refused" => {
                let opened = self.opened.take().unwrap();
                let refused = timeout(WITHIN, opened)
                    .await
                    .map_err(|_| "it is not")?
                    .unwrap();
                return same(&json!(refused.err().map(|error| error.code)), what);
            }
            "ended" => {
                let ended = timeout(WITHIN, &mut self.ended)
                    .await
                    .map_err(|_| "it has not")?;
                return same(&json!(ended.unwrap().code), what);
            }
            "close" => {
                let session = self.session.clone().unwrap();
                tokio::spawn(async move { session.close().await });
            }
            "call" => drop(self.orders.send(Order::Call(name))),
            "accept" => drop(self.orders.send(Order::Accept(name))),
            "hangup" => drop(self.orders.send(Order::HangUp(name))),
            "unconnectable" => self.seen.unconnectable.store(true, Relaxed),
            "reason" => {
                let reason = self.seen.reasons.lock().unwrap().get(&name).cloned();
                return same(&json!(reason), &what[1]);
            }
            "state" => return self.is_in_state(&name, &what[1]).await,
            _ => return Err("there is no such step".to_owned()),
        }
        Ok(())
    }

    async fn emits(&mut self, expected: &Value) -> Played {
        let message = timeout(WITHIN, self.messages.recv()).await;
        let message = message.ok().flatten().ok_or("it was given nothing")?;
        let heard = json!({
            "type": message.kind, "name": message.name, "message": message.body, "resumed": message.resumed,
        });
        let fields = expected.as_object().unwrap().iter();
        let mut wrong =
            fields.filter(|(key, value)| heard.get(*key).unwrap_or(&Value::Null) != *value);
        match wrong.next() {
            None => Ok(()),
            Some((key, _)) => Err(format!("{key} is another: {heard}")),
        }
    }

    async fn is_in_state(&self, name: &str, expected: &Value) -> Played {
        let is_so = async {
            while self
                .seen
                .states
                .lock()
                .unwrap()
                .get(name)
                .map(String::as_str)
                != expected.as_str()
            {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let reached = timeout(WITHIN, is_so).await;
        reached.map_err(|_| format!("it is {:?}", self.seen.states.lock().unwrap().get(name)))
    }
}

fn same(heard: &Value, expected: &Value) -> Played {
    if heard == expected {
        Ok(())
    } else {
        Err(format!("it was {heard}"))
    }
}

async fn run(
    urls: [String; 2],
    opened: oneshot::Sender<Result<Session, Error>>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    messages: mpsc::UnboundedSender<Message>,
    ended: oneshot::Sender<Error>,
    seen: Arc<Seen>,
) {
    let options = Options {
        reconnect_min: Duration::from_millis(10),
        reconnect_max: Duration::from_millis(20),
        ..Options::default()
    };
    let (session, inbox) = match Session::open(&[&urls[0], &urls[1]], "alice", options).await {
        Ok(open) => open,
        Err(error) => return drop(opened.send(Err(error))),
    };
    drop(opened.send(Ok(session.clone())));
    let peers = Arc::clone(&seen);
    let new_peer = move |_: &str, connected| -> Result<FakePeer, PeerError> {
        Ok(FakePeer::new(connected, Arc::clone(&peers)))
    };
    let mut calls = Calls::new(session, inbox, new_peer);
    let mut names = Vec::new();
    loop {
        let events = tokio::select! {
            happening = calls.wait() => match happening {
                Ok(happening) => calls.handle(happening).await,
                Err(error) => return drop(ended.send(error)),
            },
            Some(order) = orders.recv() => {
                match order {
                    Order::Call(name) => {
                        drop(calls.call(&name).await);
                        names.push(name);
                    }
                    Order::Accept(name) => drop(calls.accept(&name).await),
                    Order::HangUp(name) => calls.hang_up(&name),
                }
                Vec::new()
            }
        };
        for event in events {
            match event {
                Event::Ringing(name) => names.push(name),
                Event::Ended(name, reason) => {
                    drop(seen.reasons.lock().unwrap().insert(name, reason));
                }
                Event::Message(message) => drop(messages.send(message)),
                Event::Connected(_) => {}
            }
        }
        let mut states = seen.states.lock().unwrap();
        for name in &names {
            let state = match calls.state(name) {
                Some(CallState::Ringing) => "ringing",
                Some(CallState::Calling) => "calling",
                Some(CallState::Connecting) => "connecting",
                Some(CallState::Connected) => "connected",
                None => "ended",
            };
            states.insert(name.clone(), state.to_owned());
        }
    }
}

/// Is connected once it has both descriptions.
struct FakePeer {
    connected: Connected,
    seen: Arc<Seen>,
    id: u64,
    version: u64,
}

static PEERS: AtomicU64 = AtomicU64::new(1);

impl FakePeer {
    fn new(connected: Connected, seen: Arc<Seen>) -> Self {
        Self {
            connected,
            seen,
            id: PEERS.fetch_add(1, Relaxed),
            version: 0,
        }
    }

    fn describe(&mut self, kind: &str) -> Description {
        self.version += 1;
        let (id, version) = (self.id, self.version);
        Description {
            kind: kind.to_owned(),
            sdp: format!("o=alice {id} {version}\r\na=ice-ufrag:{id}.{version}\r\n"),
            ..Description::default()
        }
    }
}

impl Peer for FakePeer {
    async fn offer(&mut self) -> Result<Description, PeerError> {
        Ok(self.describe("offer"))
    }

    async fn answer(&mut self, _: &Description) -> Result<Description, PeerError> {
        if !self.seen.unconnectable.load(Relaxed) {
            self.connected.tell();
        }
        Ok(self.describe("answer"))
    }

    async fn accept(&mut self, _: &Description) -> Result<(), PeerError> {
        self.connected.tell();
        Ok(())
    }

    async fn candidate(&mut self, _: &Value) {}
}

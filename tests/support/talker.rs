//! One side of a call that goes on whatever happens: numbered signals, each repeated until it is acknowledged; a lost connection is resumed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::eventually;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// When something that was not answered is said again.
const UNANSWERED: Duration = Duration::from_secs(3);
/// The longest pause before another try to connect.
const PAUSE_MS: u64 = 150;

/// The endpoints of the nodes that live.
pub type Endpoints = Arc<Mutex<Vec<SocketAddr>>>;

/// What a talker is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Talk,
    /// Say nothing new.
    Rest,
    /// Lose the connection, and do not come back until told.
    Away,
    /// Close for good.
    Close,
}

/// What happened to a talker.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Up to here its signals were acknowledged.
    pub acked: u64,
    /// How many it has said.
    pub said: u64,
    /// The numbers it heard, and the longest time between two.
    pub heard: Vec<u64>,
    pub longest_silence: Duration,
    heard_at: Option<Instant>,
    pub leaves: Vec<Value>,
    pub resumes: usize,
    /// Logins that were refused for good.
    pub refused: Vec<Value>,
    pub missed: usize,
    pub statuses: usize,
    /// How often it could not connect or was put off.
    pub put_off: usize,
    /// Upgrades that were refused or broke off.
    pub failed_upgrades: usize,
    /// How its connections ended, by close code; `None` without one.
    pub closes: Vec<Option<u16>>,
    /// Where it is connected.
    pub at: Option<SocketAddr>,
    over: bool,
}

#[derive(Debug)]
pub struct Talker {
    pub name: String,
    log: Arc<Mutex<Log>>,
    order: watch::Sender<Order>,
    task: JoinHandle<()>,
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Talker {
    /// Logs in at one of the endpoints and talks to its peer, if `calls` after an offer, every so often.
    pub fn start(
        endpoints: &Endpoints,
        name: &str,
        peer: &str,
        calls: bool,
        every: Duration,
    ) -> Self {
        let log = Arc::<Mutex<Log>>::default();
        let (order, orders) = watch::channel(Order::Talk);
        let life = Life {
            endpoints: Arc::clone(endpoints),
            name: name.to_owned(),
            peer: peer.to_owned(),
            every,
            log: Arc::clone(&log),
            orders,
            secret: None,
            last: None,
            begins: calls,
            open: None,
            next_at: Instant::now(),
        };
        Self {
            name: name.to_owned(),
            log,
            order,
            task: tokio::spawn(life.live()),
        }
    }

    pub fn log(&self) -> Log {
        self.log.lock().unwrap().clone()
    }

    /// Says nothing new.
    pub fn stops_talking(&self) {
        self.order.send_replace(Order::Rest);
    }

    /// Waits until everything that was said is acknowledged, and says nothing new.
    pub async fn rests(&self) {
        self.stops_talking();
        eventually(&format!("{} is acknowledged", self.name), async || {
            let log = self.log.lock().unwrap();
            (log.acked == log.said && log.at.is_some()).then_some(())
        })
        .await;
    }

    pub fn talks(&self) {
        self.order.send_replace(Order::Talk);
    }

    /// Loses its connection, and does not come back until it [talks](Self::talks) again.
    pub async fn goes_away(&self) {
        self.order.send_replace(Order::Away);
        eventually("it is away", async || {
            self.log.lock().unwrap().at.is_none().then_some(())
        })
        .await;
    }

    pub fn begins_to_close(&self) {
        self.order.send_replace(Order::Close);
    }

    /// Closes for good.
    pub async fn closes(&self) {
        self.begins_to_close();
        eventually("it has closed", async || {
            self.log.lock().unwrap().over.then_some(())
        })
        .await;
    }

    /// Waits until it has heard this number.
    pub async fn hears(&self, number: u64) {
        eventually(&format!("{} hears {number}", self.name), async || {
            let log = self.log.lock().unwrap();
            (log.heard.last().copied().unwrap_or_default() >= number).then_some(())
        })
        .await;
    }
}

/// A signal that is not acknowledged yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    number: u64,
    say_at: Instant,
}

struct Life {
    endpoints: Endpoints,
    name: String,
    peer: String,
    every: Duration,
    log: Arc<Mutex<Log>>,
    orders: watch::Receiver<Order>,
    secret: Option<String>,
    last: Option<String>,
    /// The first signal is an offer.
    begins: bool,
    open: Option<Open>,
    next_at: Instant,
}

enum End {
    Over,
    Lost,
}

impl Life {
    async fn live(mut self) {
        loop {
            let back = self.orders.wait_for(|order| *order != Order::Away).await;
            if back.map(drop).is_err() {
                return;
            }
            if let Some((socket, door)) = self.enter().await {
                self.log.lock().unwrap().at = Some(door);
                let end = self.talk(socket).await;
                self.log.lock().unwrap().at = None;
                if let End::Over = end {
                    break;
                }
            } else if !self.log.lock().unwrap().refused.is_empty() {
                break;
            }
            self.log.lock().unwrap().put_off += 1;
            sleep(Duration::from_millis(rand::random_range(0..PAUSE_MS))).await;
        }
        self.log.lock().unwrap().over = true;
    }

    /// Connects somewhere and logs in or resumes.
    async fn enter(&mut self) -> Option<(Socket, SocketAddr)> {
        let door = {
            let endpoints = self.endpoints.lock().unwrap();
            endpoints[rand::random_range(0..endpoints.len())]
        };
        let connecting = connect_async_with_config(format!("ws://{door}/"), None, true);
        let connected = timeout(UNANSWERED, connecting).await.ok()?;
        if connected.is_err() {
            self.log.lock().unwrap().failed_upgrades += 1;
        }
        let (mut socket, _) = connected.ok()?;
        let mut login = json!({"type": "login", "name": self.name});
        match &self.secret {
            None => login["resumable"] = true.into(),
            Some(secret) => login["resume"] = secret.as_str().into(),
        }
        if let Some(last) = &self.last {
            login["last"] = last.as_str().into();
        }
        socket.send(Message::text(login.to_string())).await.ok()?;
        loop {
            let message = timeout(UNANSWERED, socket.next()).await.ok()??.ok()?;
            let Message::Text(text) = message else {
                continue;
            };
            let reply: Value = serde_json::from_str(&text).unwrap();
            if reply["type"] != "login" {
                continue;
            }
            if reply["success"] == true {
                if self.secret.is_some() {
                    assert_eq!(reply["resumed"], true, "{reply}");
                    self.log.lock().unwrap().resumes += 1;
                }
                self.secret = reply["resume"].as_str().map(str::to_owned);
                // Whatever was not acknowledged is said again, at once.
                if let Some(open) = &mut self.open {
                    open.say_at = Instant::now();
                }
                return Some((socket, door));
            }
            let again = ["unavailable", "draining"];
            if !again.iter().any(|code| reply["code"] == *code) {
                self.log.lock().unwrap().refused.push(reply);
            }
            return None;
        }
    }

    async fn talk(&mut self, mut socket: Socket) -> End {
        loop {
            let order = *self.orders.borrow_and_update();
            if order == Order::Close {
                let _ = socket.close(None).await;
                while let Ok(Some(Ok(_))) = timeout(UNANSWERED, socket.next()).await {}
                return End::Over;
            }
            if order == Order::Away {
                return End::Lost;
            }
            if self.open.is_none() && order == Order::Talk && Instant::now() >= self.next_at {
                let mut log = self.log.lock().unwrap();
                log.said += 1;
                self.open = Some(Open {
                    number: log.said,
                    say_at: Instant::now(),
                });
                self.next_at = Instant::now() + self.every;
            }
            if let Some(open) = &mut self.open
                && Instant::now() >= open.say_at
            {
                open.say_at = Instant::now() + UNANSWERED;
                let (number, kind) = (
                    open.number,
                    if self.begins && open.number == 1 {
                        "offer"
                    } else {
                        "candidate"
                    },
                );
                let text = json!({"type": kind, "name": self.peer, kind: number, "id": number});
                if socket.send(Message::text(text.to_string())).await.is_err() {
                    return End::Lost;
                }
            }
            let wake = match (&self.open, order) {
                (Some(open), _) => open.say_at,
                (None, Order::Talk) => self.next_at,
                _ => Instant::now() + UNANSWERED,
            };
            tokio::select! {
                () = tokio::time::sleep_until(wake) => {}
                _ = self.orders.changed() => {}
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => self.hear(&serde_json::from_str(&text).unwrap()),
                    Some(Ok(Message::Close(frame))) => {
                        let code = frame.map(|frame| frame.code.into());
                        self.log.lock().unwrap().closes.push(code);
                        while let Ok(Some(Ok(_))) = timeout(UNANSWERED, socket.next()).await {}
                        return End::Lost;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => {
                        self.log.lock().unwrap().closes.push(None);
                        return End::Lost;
                    }
                },
            }
        }
    }

    fn hear(&mut self, message: &Value) {
        let mut log = self.log.lock().unwrap();
        if let Some(seq) = message["seq"].as_str() {
            self.last = Some(seq.to_owned());
        }
        let is_open = |open: &Open| message["id"] == open.number;
        match message["type"].as_str().unwrap() {
            "ack" if self.open.as_ref().is_some_and(is_open) => {
                log.acked = self.open.take().map_or(0, |open| open.number);
            }
            "error" => {
                if let Some(open) = self.open.as_mut().filter(|open| is_open(open)) {
                    log.put_off += 1;
                    let pause = message["retry_after_ms"].as_u64().unwrap_or(300).min(300);
                    open.say_at = Instant::now() + Duration::from_millis(pause);
                }
            }
            kind @ ("offer" | "candidate") => {
                assert_eq!(message["name"], self.peer.as_str());
                log.heard.push(message[kind].as_u64().unwrap());
                if let Some(before) = log.heard_at.replace(Instant::now()) {
                    log.longest_silence = log.longest_silence.max(before.elapsed());
                }
            }
            "leave" => log.leaves.push(message.clone()),
            "status" if message["missed"] == true => log.missed += 1,
            "status" => log.statuses += 1,
            _ => {}
        }
    }
}

/// What was said on one side was heard on the other at most once, and in order.
pub fn assert_in_order(sender: &Talker, receiver: &Talker) {
    let heard = receiver.log().heard;
    for pair in heard.windows(2) {
        let (earlier, later) = (pair[0], pair[1]);
        assert!(
            earlier < later,
            "{} heard {later} of {} after {earlier}",
            receiver.name,
            sender.name
        );
    }
}

/// What was said on one side was heard on the other: all of it, once, in order.
pub fn assert_heard(sender: &Talker, receiver: &Talker) {
    let (sent, heard) = (sender.log(), receiver.log().heard);
    let expected: Vec<u64> = (1..=sent.said).collect();
    if heard != expected {
        let at = heard
            .iter()
            .zip(&expected)
            .position(|(heard, expected)| heard != expected)
            .unwrap_or(heard.len().min(expected.len()));
        panic!(
            "{} said {}, {}, resumed {} times, heard {} of them: from the {at}th on {:?}",
            sender.name,
            sent.said,
            receiver.name,
            receiver.log().resumes,
            heard.len(),
            &heard[at..heard.len().min(at + 8)]
        );
    }
}

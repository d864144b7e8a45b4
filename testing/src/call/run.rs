//! The task behind one side of a call.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Endpoints, Log, Order};
use crate::websocket::{Options, Socket, connect};

/// A signal without an outcome is sent again after this time.
const REPEAT_AFTER: Duration = Duration::from_secs(3);
/// The longest pause before the next attempt to connect.
const PAUSE_MS: u64 = 150;
/// The longest pause before a refused signal is sent again.
const LONGEST_RETRY_MS: u64 = 300;

/// A signal that is not acknowledged yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    number: u64,
    send_at: Instant,
}

pub(super) struct Run {
    pub(super) endpoints: Endpoints,
    pub(super) name: String,
    pub(super) peer: String,
    pub(super) every: Duration,
    pub(super) log: Arc<Mutex<Log>>,
    pub(super) orders: watch::Receiver<Order>,
    pub(super) secret: Option<String>,
    pub(super) last: Option<String>,
    pub(super) is_caller: bool,
    pub(super) pending: Option<Pending>,
    pub(super) next_at: Instant,
}

enum End {
    Closed,
    Lost,
}

impl Run {
    pub(super) async fn run(mut self) {
        loop {
            let orders = &mut self.orders;
            let may_connect = orders.wait_for(|order| *order != Order::Disconnect).await;
            if may_connect.map(drop).is_err() {
                return;
            }
            if let Some((socket, address)) = self.enter().await {
                self.log.lock().unwrap().at = Some(address);
                let end = self.converse(socket).await;
                self.log.lock().unwrap().at = None;
                if let End::Closed = end {
                    break;
                }
            } else if !self.log.lock().unwrap().refused.is_empty() {
                break;
            }
            self.log.lock().unwrap().retries += 1;
            sleep(Duration::from_millis(rand::random_range(0..PAUSE_MS))).await;
        }
        self.log.lock().unwrap().is_over = true;
    }

    /// Connects to a random endpoint and logs in or resumes.
    async fn enter(&mut self) -> Option<(Socket, SocketAddr)> {
        let address = {
            let endpoints = self.endpoints.lock().unwrap();
            endpoints[rand::random_range(0..endpoints.len())]
        };
        let connecting = connect(address, "/", Options::default());
        let connected = timeout(REPEAT_AFTER, connecting).await.ok()?;
        if connected.is_err() {
            self.log.lock().unwrap().failed_upgrades += 1;
        }
        let (mut socket, _) = connected.ok()?;
        let login = self.login().to_string();
        socket.send(Message::text(login)).await.ok()?;
        loop {
            let message = timeout(REPEAT_AFTER, socket.next()).await.ok()??.ok()?;
            let Message::Text(text) = message else {
                continue;
            };
            let reply: Value = serde_json::from_str(&text).unwrap();
            if reply["type"] == "login" {
                return self.logged_in(reply).then_some((socket, address));
            }
        }
    }

    fn login(&self) -> Value {
        let mut login = json!({"type": "login", "name": self.name});
        match &self.secret {
            None => login["resumable"] = true.into(),
            Some(secret) => login["resume"] = secret.as_str().into(),
        }
        if let Some(last) = &self.last {
            login["last"] = last.as_str().into();
        }
        login
    }

    /// Takes the reply to a login; whether it succeeded.
    fn logged_in(&mut self, reply: Value) -> bool {
        if reply["success"] != true {
            let may_retry = ["unavailable", "draining"];
            if !may_retry.iter().any(|code| reply["code"] == *code) {
                self.log.lock().unwrap().refused.push(reply);
            }
            return false;
        }
        if self.secret.is_some() {
            assert_eq!(reply["resumed"], true, "{reply}");
            self.log.lock().unwrap().resumes += 1;
        }
        self.secret = reply["resume"].as_str().map(str::to_owned);
        // Its outcome may have been lost with the old connection.
        if let Some(pending) = &mut self.pending {
            pending.send_at = Instant::now();
        }
        true
    }

    /// Sends and receives until the connection ends or an order ends it.
    async fn converse(&mut self, mut socket: Socket) -> End {
        loop {
            let order = *self.orders.borrow_and_update();
            if order == Order::Close {
                let _ = socket.close(None).await;
                while let Ok(Some(Ok(_))) = timeout(REPEAT_AFTER, socket.next()).await {}
                return End::Closed;
            }
            if order == Order::Disconnect || self.send_due(&mut socket, order).await.is_err() {
                return End::Lost;
            }
            let wake = match (&self.pending, order) {
                (Some(pending), _) => pending.send_at,
                (None, Order::Send) => self.next_at,
                _ => Instant::now() + REPEAT_AFTER,
            };
            tokio::select! {
                () = tokio::time::sleep_until(wake) => {}
                _ = self.orders.changed() => {}
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => self.receive(&serde_json::from_str(&text).unwrap()),
                    Some(Ok(Message::Close(frame))) => {
                        let code = frame.map(|frame| frame.code.into());
                        self.log.lock().unwrap().closes.push(code);
                        while let Ok(Some(Ok(_))) = timeout(REPEAT_AFTER, socket.next()).await {}
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

    /// Sends the pending signal if it is due; begins the next one if there is none.
    async fn send_due(&mut self, socket: &mut Socket, order: Order) -> Result<(), Error> {
        let now = Instant::now();
        if self.pending.is_none() && order == Order::Send && now >= self.next_at {
            let mut log = self.log.lock().unwrap();
            log.sent += 1;
            self.pending = Some(Pending {
                number: log.sent,
                send_at: now,
            });
            self.next_at = now + self.every;
        }
        let Some(pending) = self.pending.as_mut().filter(|it| now >= it.send_at) else {
            return Ok(());
        };
        pending.send_at = now + REPEAT_AFTER;
        let number = pending.number;
        let is_offer = self.is_caller && number == 1;
        let kind = if is_offer { "offer" } else { "candidate" };
        let signal = json!({"type": kind, "name": self.peer, kind: number, "id": number});
        socket.send(Message::text(signal.to_string())).await
    }

    fn receive(&mut self, message: &Value) {
        let mut log = self.log.lock().unwrap();
        if let Some(seq) = message["seq"].as_str() {
            self.last = Some(seq.to_owned());
        }
        let is_outcome = |pending: &Pending| message["id"] == pending.number;
        match message["type"].as_str().unwrap() {
            "ack" if self.pending.as_ref().is_some_and(is_outcome) => {
                log.acked = self.pending.take().map_or(0, |pending| pending.number);
            }
            "error" => {
                if let Some(pending) = self.pending.as_mut().filter(|it| is_outcome(it)) {
                    log.retries += 1;
                    let pause = message["retry_after_ms"].as_u64();
                    let pause = pause.unwrap_or(LONGEST_RETRY_MS).min(LONGEST_RETRY_MS);
                    pending.send_at = Instant::now() + Duration::from_millis(pause);
                }
            }
            kind @ ("offer" | "candidate") => {
                assert_eq!(message["name"], self.peer.as_str());
                log.received.push(message[kind].as_u64().unwrap());
                if let Some(before) = log.received_at.replace(Instant::now()) {
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

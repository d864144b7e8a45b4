//! Two users in a call that outlives nodes: `make demo-call`, and then kill one.
//!
//! Both users log in with resumable sessions, call each other, and then send each other a number each second, in a
//! candidate. They print what they receive. After a lost connection they resume on whichever node the load balancer
//! picks, and nothing is lost or repeated: the last lines say so. The file also shows how little code a client needs to
//! resume.
//!
//! `cargo run --example demo-call -- [URL] [SECONDS]`: without SECONDS, until Ctrl-C.

#![allow(clippy::print_stdout)]

use std::process::ExitCode;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long an answer may take before the connection counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to go on trying to come in at all, and to come back.
const GIVE_UP: [Duration; 2] = [Duration::from_secs(15), Duration::from_mins(1)];

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .unwrap_or_else(|| "ws://localhost:9090".to_owned());
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok());
    let (stop, stopped) = watch::channel(false);
    let begun = Instant::now();
    let ((said_one, ends_one), (said_other, ends_other)) =
        (watch::channel(None), watch::channel(None));
    let client = |name, peer, calls, ends, peer_ends| Client {
        url: url.clone(),
        name,
        peer,
        calls,
        ends,
        peer_ends,
        begun,
        stopped: stopped.clone(),
        node: "nowhere".to_owned(),
        secret: None,
        last: None,
        said: 0,
        open: None,
        is_refused: false,
        heard: Vec::new(),
        resumes: 0,
    };
    let ending = async {
        match seconds {
            Some(seconds) => sleep(Duration::from_secs(seconds)).await,
            None => drop(tokio::signal::ctrl_c().await),
        }
        stop.send_replace(true);
    };
    let (one, other, ()) = tokio::join!(
        client("UserA", "UserB", true, said_one, ends_other).lives(),
        client("UserB", "UserA", false, said_other, ends_one).lives(),
        ending
    );
    match (one, other) {
        (Ok(one), Ok(other)) => {
            let fine = [other.has_heard(&one), one.has_heard(&other)];
            ExitCode::from(u8::from(fine.contains(&false)))
        }
        (one, other) => {
            for trouble in [one.err(), other.err()].into_iter().flatten() {
                eprintln!("{trouble}");
            }
            ExitCode::FAILURE
        }
    }
}

struct Client {
    url: String,
    name: &'static str,
    peer: &'static str,
    /// Whether this side offers.
    calls: bool,
    /// How many signals there will have been, when it has stopped.
    ends: watch::Sender<Option<u64>>,
    peer_ends: watch::Receiver<Option<u64>>,
    begun: Instant,
    stopped: watch::Receiver<bool>,
    /// Which node it is at.
    node: String,
    /// What resumes the session, and the last signal that was heard in it.
    secret: Option<String>,
    last: Option<String>,
    /// How many signals it has sent. The last stays open until its outcome is known: after a refusal or a resume it is
    /// sent again under the same id, and delivered once.
    said: u64,
    open: Option<Value>,
    is_refused: bool,
    heard: Vec<u64>,
    resumes: usize,
}

impl Client {
    /// Talks, and comes back after every loss, until it is stopped.
    async fn lives(mut self) -> Result<Self, String> {
        let mut lost_at = Instant::now();
        let mut told = String::new();
        loop {
            match self.enters().await {
                Ok(socket) => {
                    told.clear();
                    if self.talks(socket).await {
                        return Ok(self);
                    }
                    lost_at = Instant::now();
                }
                Err(why) => {
                    if lost_at.elapsed() > GIVE_UP[usize::from(self.secret.is_some())] {
                        return Err(format!(
                            "{} cannot come in at {}: {why}",
                            self.name, self.url
                        ));
                    }
                    if told != why {
                        self.tells(&format!("cannot come in: {why}"));
                        told = why;
                    }
                }
            }
            // At random, so that the clients of a node which dies do not come back all at once.
            sleep(Duration::from_millis(rand::random_range(0..300))).await;
        }
    }

    /// Connects, and logs in or resumes.
    async fn enters(&mut self) -> Result<Socket, String> {
        let connecting = connect_async_with_config(&self.url, None, true);
        let (mut socket, _) = timeout(PATIENCE, connecting)
            .await
            .map_err(|_| "no answer")?
            .map_err(|error| error.to_string())?;
        let mut login = json!({"type": "login", "name": self.name});
        match &self.secret {
            None => login["resumable"] = true.into(),
            Some(secret) => login["resume"] = secret.as_str().into(),
        }
        if let Some(last) = &self.last {
            login["last"] = last.as_str().into();
        }
        says(&mut socket, &login)
            .await
            .ok_or("the connection is lost")?;
        let reply = loop {
            let message = timeout(PATIENCE, hears(&mut socket)).await;
            let message = message.ok().flatten().ok_or("no reply to the login")?;
            if message["type"] == "login" {
                break message;
            }
        };
        if reply["success"] != true {
            let pause = reply["retry_after_ms"].as_u64().unwrap_or(500);
            sleep(Duration::from_millis(pause.min(2000))).await;
            return Err(format!("{}: {}", reply["code"], reply["message"]));
        }
        self.node = text(&reply["node"]);
        self.secret = reply["resume"].as_str().map(str::to_owned);
        if reply["resumed"] == true {
            self.resumes += 1;
            self.tells("is back: its session is resumed");
            if let Some(signal) = &self.open {
                says(&mut socket, signal)
                    .await
                    .ok_or("the connection is lost")?;
            }
        } else {
            self.tells("has logged in");
        }
        Ok(socket)
    }

    /// Says and hears until the connection is lost; true if it ended as it should.
    async fn talks(&mut self, mut socket: Socket) -> bool {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_over() {
            tokio::select! {
                _ = second.tick() => {
                    if self.says_something(&mut socket).await.is_none() {
                        break;
                    }
                }
                message = hears(&mut socket) => match message {
                    Some(message) => self.understands(&message),
                    None => break,
                },
            }
        }
        if self.is_over() {
            let _ = socket.close(None).await;
            return true;
        }
        self.tells("has lost its connection");
        false
    }

    /// It has stopped, so has the other, and each has heard all.
    fn is_over(&self) -> bool {
        let heard = u64::try_from(self.heard.len()).unwrap_or(u64::MAX);
        self.open.is_none()
            && self.ends.borrow().is_some()
            && self.peer_ends.borrow().is_some_and(|said| heard >= said)
    }

    /// Something new, or again what was refused.
    async fn says_something(&mut self, socket: &mut Socket) -> Option<()> {
        if let Some(signal) = &self.open {
            if std::mem::take(&mut self.is_refused) {
                says(socket, signal).await?;
            }
            return Some(());
        }
        if *self.stopped.borrow() {
            self.ends.send_replace(Some(self.said));
            return Some(());
        }
        // The one who is called answers first.
        if !self.calls && self.heard.is_empty() {
            return Some(());
        }
        self.said += 1;
        let kind = match (self.said, self.calls) {
            (1, true) => "offer",
            (1, false) => "answer",
            _ => "candidate",
        };
        let signal =
            json!({"type": kind, "name": self.peer, kind: {"number": self.said}, "id": self.said});
        self.open = Some(signal.clone());
        says(socket, &signal).await
    }

    /// Takes in what was heard.
    fn understands(&mut self, message: &Value) {
        if let Some(seq) = message["seq"].as_str() {
            self.last = Some(seq.to_owned());
        }
        match message["type"].as_str().unwrap_or_default() {
            kind @ ("offer" | "answer" | "candidate") => {
                let number = message[kind]["number"].as_u64().unwrap_or_default();
                self.heard.push(number);
                self.tells(&format!("hears {kind} {number} of {}", self.peer));
            }
            "ack" if message["id"] == self.said => self.open = None,
            "error" => {
                self.tells(&format!(
                    "is told {}: {}",
                    message["code"], message["message"]
                ));
                self.is_refused = true;
            }
            "goaway" => self.tells(&format!(
                "is asked to go elsewhere within {} ms",
                message["reconnect_in_ms"]
            )),
            "leave" => self.tells(&format!(
                "hears that {} has left: {}",
                self.peer, message["reason"]
            )),
            "status" => {
                let missed = if message["missed"] == true {
                    ", and that something may have been lost"
                } else {
                    ""
                };
                self.tells(&format!(
                    "hears that Redis is {}{missed}",
                    message["fabric"]
                ));
            }
            _ => {}
        }
    }

    /// Whether it heard all that the other said, once and in order; says so.
    fn has_heard(&self, other: &Self) -> bool {
        let fine = (1..=other.said).eq(self.heard.iter().copied());
        let verdict = if fine {
            "all of it, once and in order"
        } else {
            "NOT ALL OF IT, ONCE AND IN ORDER"
        };
        println!(
            "{} said {} signals; {}, who resumed {} times, heard {}: {verdict}",
            other.name,
            other.said,
            self.name,
            self.resumes,
            self.heard.len()
        );
        fine
    }

    fn tells(&self, what: &str) {
        let seconds = self.begun.elapsed().as_secs_f32();
        println!("{seconds:6.1} s  {} at {}  {what}", self.name, self.node);
    }
}

async fn says(socket: &mut Socket, message: &Value) -> Option<()> {
    socket.send(Message::text(message.to_string())).await.ok()
}

/// The next message; `None` when the connection is lost.
async fn hears(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.next().await?.ok()? {
            Message::Text(text) => return serde_json::from_str(&text).ok(),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

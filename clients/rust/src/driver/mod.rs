//! The task of a session: it owns the connection, and replaces it when it is lost.

mod heard;

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_tungstenite::tungstenite::Message as Received;

use crate::liveness::{Liveness, Pulse};
use crate::outbox::Outbox;
use crate::request::{Request, Status, Taken};
use crate::session::{Options, closed};
use crate::socket::{Reader, Writer, dial};
use crate::wire::{Error, Heartbeat, Message};

/// The server has given the name to somebody else.
const NAME_LOST: u16 = 4001;
const DRAINING: u16 = 1012;
/// A close code of ours, which leaves the session as it is.
const GIVEN_UP: u16 = 4900;
/// A connection of this age was a good one: the waits begin anew.
const STABLE: Duration = Duration::from_secs(5);
/// What the app has taken is confirmed after so many messages or bytes, and with each ping.
const CONFIRM_MESSAGES: usize = 32;
const CONFIRM_BYTES: usize = 128 << 10;

#[derive(Debug)]
pub(crate) struct Driver {
    urls: Vec<String>,
    name: String,
    options: Options,
    requests: mpsc::Receiver<Request>,
    inbox: mpsc::Sender<Message>,
    taken: watch::Receiver<Taken>,
    status: watch::Sender<Status>,
    outbox: Outbox,
    /// What waits for room in the inbox. Nothing is read meanwhile.
    given: VecDeque<Message>,
    /// What resumes the session, and the last `seq` that arrived in it.
    secret: Option<String>,
    heard: Option<String>,
    /// How many sessions there were before this one.
    generation: u64,
    /// What the server was told of.
    confirmed: Taken,
    beat: Heartbeat,
    is_busy: bool,
    /// Whether the session was ever logged in.
    is_known: bool,
}

/// One connection.
struct Link {
    writer: Writer,
    liveness: Liveness,
    /// When to log in again after a refusal.
    login_at: Option<Instant>,
}

/// What ends a connection.
enum End {
    /// The server closed it, or it broke.
    Closed(Option<u16>),
    /// We close it.
    Close(u16),
}

impl Driver {
    pub(crate) fn new(
        urls: Vec<String>,
        name: String,
        options: Options,
        requests: mpsc::Receiver<Request>,
        inbox: mpsc::Sender<Message>,
        taken: watch::Receiver<Taken>,
        status: watch::Sender<Status>,
    ) -> Self {
        Self {
            urls,
            name,
            options,
            requests,
            inbox,
            taken,
            status,
            outbox: Outbox::new(Instant::now()),
            given: VecDeque::new(),
            secret: None,
            heard: None,
            generation: 0,
            confirmed: Taken::default(),
            beat: Heartbeat::default(),
            is_busy: false,
            is_known: false,
        }
    }

    /// Runs until the session ends.
    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        for url in self.urls.clone().into_iter().cycle() {
            let begun = Instant::now();
            let code = match self.meanwhile(dial(url)).await {
                Some(Some((writer, reader))) => self.converse(writer, reader).await,
                Some(None) => None,
                None => return,
            };
            let was_in = self.status.borrow().node.is_some();
            self.status.send_modify(|status| status.node = None);
            self.outbox.lost();
            if let Some(reason) = code.and_then(stops) {
                self.end(Error::new(reason, "the server closed the connection"));
            }
            if self.has_ended() {
                return;
            }
            if code == Some(NAME_LOST) {
                self.lose();
            }
            let was_good = was_in && begun.elapsed() > STABLE;
            failures = if was_good { 0 } else { failures + 1 };
            let pause = if was_in && code == Some(DRAINING) {
                Duration::ZERO
            } else {
                self.pause(failures)
            };
            if self.meanwhile(sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// A random time, so that the clients of a node that died do not come back in one moment.
    fn pause(&self, failures: i32) -> Duration {
        let limit = self.options.reconnect_min.as_secs_f64() * 2_f64.powi(failures.min(30));
        let limit = limit.min(self.options.reconnect_max.as_secs_f64());
        Duration::from_secs_f64(limit * rand::random::<f64>())
    }

    /// Waits for something without a connection. `None` if the session ends first.
    async fn meanwhile<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        loop {
            self.deliver();
            tokio::select! {
                output = &mut future => return Some(output),
                request = self.requests.recv() => if self.take(request) { return None },
            }
        }
    }

    /// Takes a request. True if it ends the session.
    fn take(&mut self, request: Option<Request>) -> bool {
        match request {
            Some(Request::Send {
                name,
                message,
                answer,
            }) => self.outbox.add(name, message, answer),
            Some(Request::Busy(is_busy)) => self.is_busy = is_busy,
            Some(Request::Close) | None => self.end(closed()),
        }
        self.has_ended()
    }

    fn end(&mut self, why: Error) {
        self.outbox.fail(&why);
        self.status.send_modify(|status| status.ended = Some(why));
    }

    fn has_ended(&self) -> bool {
        self.status.borrow().ended.is_some()
    }

    /// The session is lost, and another one will have its name.
    fn lose(&mut self) {
        self.generation += 1;
        self.secret = None;
        self.heard = None;
        self.confirmed = Taken::default();
        self.outbox.forget();
        self.give(Message {
            kind: "missed".to_owned(),
            ..Message::default()
        });
    }

    fn give(&mut self, message: Message) {
        self.given.push_back(message);
        self.deliver();
    }

    /// Hands messages to the app while there is room for them.
    fn deliver(&mut self) {
        while let Some(message) = self.given.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(message)) = self.inbox.try_send(message) {
                self.given.push_front(message);
                return;
            }
        }
    }

    /// Logs in, sends and receives until the connection ends: its close code.
    async fn converse(&mut self, writer: Writer, mut reader: Reader) -> Option<u16> {
        let mut link = Link {
            writer,
            liveness: Liveness::new(Instant::now()),
            login_at: None,
        };
        self.log_in(&mut link);
        loop {
            match self.step(&mut link, &mut reader).await {
                Ok(()) => {}
                Err(End::Closed(code)) => return code,
                Err(End::Close(code)) => {
                    link.writer.close(&mut reader, code).await;
                    return None;
                }
            }
        }
    }

    async fn step(&mut self, link: &mut Link, reader: &mut Reader) -> Result<(), End> {
        self.deliver();
        let now = Instant::now();
        let is_full = !self.given.is_empty();
        if is_full {
            link.liveness.heard(now);
        }
        let pumped = self.outbox.pump(now);
        for text in pumped.texts {
            link.writer.push(text);
        }
        let is_busy = self.is_busy || self.outbox.is_waiting();
        let pulse_at = match link.liveness.pulse(self.beat, is_busy, now) {
            Pulse::Wait(at) => at,
            Pulse::Ping => {
                link.writer.say(&self.unconfirmed("ping"));
                link.liveness.pinged(now);
                return Ok(());
            }
            Pulse::Dead => return Err(End::Closed(None)),
        };
        let times = [Some(pulse_at), pumped.next_at, link.login_at];
        let next_at = times.into_iter().flatten().min().unwrap_or(pulse_at);
        tokio::select! {
            received = reader.next(), if !is_full => {
                link.liveness.heard(Instant::now());
                return match received {
                    Some(Ok(Received::Text(text))) => self.hear(link, &text),
                    Some(Ok(Received::Close(frame))) => Err(End::Closed(frame.map(|frame| frame.code.into()))),
                    Some(Ok(_)) => Ok(()),
                    Some(Err(_)) | None => Err(End::Closed(None)),
                };
            }
            () = room(&self.inbox), if is_full => {}
            request = self.requests.recv() => if self.take(request) {
                return Err(End::Close(1000));
            },
            Ok(()) = self.taken.changed() => self.confirm(link),
            written = link.writer.write() => return written.map_err(|_| End::Closed(None)),
            () = sleep_until(next_at) => {
                if link.login_at.take_if(|at| *at <= next_at).is_some() {
                    self.log_in(link);
                }
            }
        }
        Ok(())
    }

    fn log_in(&mut self, link: &mut Link) {
        let mut login = json!({"type": "login", "name": self.name, "resumable": true});
        if let Some(token) = &self.options.token {
            login["token"] = token().into();
        }
        if let Some(secret) = &self.secret {
            login["resume"] = secret.as_str().into();
        }
        if let Some(heard) = self.heard.as_ref().filter(|_| self.secret.is_some()) {
            login["last"] = heard.as_str().into();
        }
        link.writer.say(&login);
    }

    /// Tells the server what the app has taken, if that is much.
    fn confirm(&mut self, link: &mut Link) {
        let taken = self.taken.borrow_and_update().clone();
        let is_much = taken.generation == self.generation
            && (taken.messages >= self.confirmed.messages + CONFIRM_MESSAGES
                || taken.bytes >= self.confirmed.bytes + CONFIRM_BYTES);
        if is_much {
            link.writer.say(&self.unconfirmed("ack"));
        }
    }

    /// A message of this type, with what the app has taken since the last one.
    fn unconfirmed(&mut self, kind: &str) -> Value {
        let taken = self.taken.borrow().clone();
        let mut message = json!({"type": kind});
        if taken.generation == self.generation && taken.messages > self.confirmed.messages {
            message["seq"] = taken.seq.as_str().into();
            self.confirmed = taken;
        }
        message
    }
}

/// Waits until the app has taken a message.
async fn room(inbox: &mpsc::Sender<Message>) {
    drop(inbox.reserve().await);
}

/// What a close code means after which no other connection helps. After any other a new one resumes the session.
fn stops(code: u16) -> Option<&'static str> {
    match code {
        1000 => Some("closed"),
        1009 => Some("too_large"),
        4000 => Some("replaced"),
        4003 => Some("forbidden"),
        4005 => Some("kicked"),
        4009 => Some("not_logged_in"),
        _ => None,
    }
}

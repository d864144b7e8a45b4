//! What the server has not acknowledged: it is kept, sent again after a loss, and in order for each receiver.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::entry::{Answer, Entry};
use crate::wire::{Error, Frame, Limits};

/// The server remembers the outcomes of 256 requests.
const UNDER_WAY: usize = 200;
/// How many may wait.
const WAITING: usize = 1000;
/// Of what the server allows a second, this share is used, in bursts of so many.
const SHARE: f64 = 0.8;
const BURST: f64 = 64.0;
/// Until the server tells its own limits.
const PER_SECOND: f64 = 200.0;
const FRAME_BYTES: usize = 65_536;

/// How long to wait after a refusal that does not say so.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Outbox {
    /// In the order in which they were added.
    entries: VecDeque<Entry>,
    ids: u64,
    is_open: bool,
    /// To whom something was refused, and until when nothing is sent there.
    refused: HashMap<Option<String>, Instant>,
    /// Nothing is sent to anybody before this.
    not_before: Option<Instant>,
    /// Signals a second; `None` is no limit.
    rate: Option<f64>,
    tokens: f64,
    filled_at: Instant,
    frame_bytes: usize,
}

/// What may be sent now, and when to ask again.
#[derive(Debug, Default)]
pub(crate) struct Pumped {
    pub(crate) texts: Vec<String>,
    pub(crate) next_at: Option<Instant>,
}

impl Outbox {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            entries: VecDeque::new(),
            ids: 0,
            is_open: false,
            refused: HashMap::new(),
            not_before: None,
            rate: Some(PER_SECOND * SHARE),
            tokens: BURST,
            filled_at: now,
            frame_bytes: FRAME_BYTES,
        }
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_waiting(&self) -> bool {
        self.entries.iter().any(|entry| entry.is_sent)
    }

    /// Keeps a request until it is answered. `name` is its receiver.
    pub(crate) fn add(&mut self, name: Option<String>, mut message: Value, answer: Answer) {
        self.entries
            .retain(|entry| entry.is_tried || !entry.is_withdrawn());
        let id = self.ids + 1;
        message["id"] = json!(id);
        let text = message.to_string();
        let refusal = if text.len() > self.frame_bytes {
            Some((
                "too_large",
                "the message has more bytes than the server takes",
            ))
        } else if self.entries.len() >= WAITING {
            Some(("overloaded", "too much waits to be sent"))
        } else {
            None
        };
        let entry = Entry::new(id, name, text, answer);
        if let Some((code, why)) = refusal {
            entry.finish(Err(Error::new(code, why)));
        } else {
            self.ids = id;
            self.entries.push_back(entry);
        }
    }

    /// The session is logged in.
    pub(crate) fn opened(&mut self, limits: Limits, now: Instant) {
        self.is_open = true;
        self.refused.clear();
        self.not_before = None;
        self.rate = match limits.signals_per_second {
            Some(0.0) => None,
            Some(rate) => Some(rate * SHARE),
            None => Some(PER_SECOND * SHARE),
        };
        self.frame_bytes = limits.frame_bytes.unwrap_or(FRAME_BYTES);
        self.tokens = BURST;
        self.filled_at = now;
    }

    /// The connection is lost: what was under way goes again, over the next one.
    pub(crate) fn lost(&mut self) {
        self.is_open = false;
        for entry in &mut self.entries {
            entry.is_sent = false;
        }
    }

    /// The session is lost: under another one the server would not recognise a repetition.
    pub(crate) fn forget(&mut self) {
        let unknown = Error::new("unavailable", "whether it was delivered is not known");
        for entry in self.take(|entry| entry.is_tried) {
            entry.finish(Err(unknown.clone()));
        }
    }

    /// The session has ended.
    pub(crate) fn fail(&mut self, why: &Error) {
        self.lost();
        for entry in self.take(|_| true) {
            entry.finish(Err(why.clone()));
        }
    }

    /// An answer of the server.
    pub(crate) fn settle(&mut self, reply: Frame, now: Instant) {
        let id = reply.id.as_ref().and_then(Value::as_u64);
        let Some(place) = self.entries.iter().position(|entry| Some(entry.id) == id) else {
            return;
        };
        let code = reply.code.as_deref().filter(|_| reply.kind == "error");
        let Some("unavailable" | "inbox_full" | "rate_limited") = code else {
            let outcome = if reply.kind == "error" {
                Err(reply.error())
            } else {
                Ok(reply)
            };
            if let Some(entry) = self.entries.remove(place) {
                entry.finish(outcome);
            }
            return;
        };
        // Worth another try with the same id.
        let entry = &mut self.entries[place];
        entry.is_sent = false;
        let until = now + reply.retry_after().unwrap_or(RETRY);
        if code == Some("rate_limited") {
            // It is about this client; the others are about one receiver.
            self.not_before = self.not_before.max(Some(until));
            self.tokens = 0.0;
        }
        let refused = self.refused.entry(entry.name.clone()).or_insert(until);
        *refused = until.max(*refused);
    }

    /// Takes what may be sent now.
    pub(crate) fn pump(&mut self, now: Instant) -> Pumped {
        let mut pumped = Pumped::default();
        if !self.is_open {
            return pumped;
        }
        pumped.next_at = self.not_before.filter(|at| now < *at);
        if pumped.next_at.is_some() {
            return pumped;
        }
        let mut under_way = HashMap::<Option<String>, usize>::new();
        for entry in self.entries.iter().filter(|entry| entry.is_sent) {
            *under_way.entry(entry.name.clone()).or_default() += 1;
        }
        let mut flying: usize = under_way.values().sum();
        for place in 0..self.entries.len() {
            let name = &self.entries[place].name;
            if self.entries[place].is_sent {
                continue;
            }
            if flying >= UNDER_WAY {
                break;
            }
            // After a refusal everything that was under way to that receiver is answered first, and then repeated in
            // order: until the first is repeated, the server refuses what follows.
            if let Some(until) = self.refused.get(name).copied() {
                if under_way.get(name).is_some_and(|count| *count > 0) {
                    continue;
                }
                if now < until {
                    pumped.waits(until);
                    continue;
                }
                self.refused.remove(name);
            }
            if let Some(at) = self.paced(now) {
                pumped.waits(at);
                break;
            }
            let entry = &mut self.entries[place];
            entry.is_sent = true;
            entry.is_tried = true;
            flying += 1;
            *under_way.entry(entry.name.clone()).or_default() += 1;
            pumped.texts.push(entry.text.clone());
        }
        pumped
    }

    /// Takes a token, or says when there is one.
    fn paced(&mut self, now: Instant) -> Option<Instant> {
        let rate = self.rate?;
        let since = now.saturating_duration_since(self.filled_at);
        self.tokens = BURST.min(self.tokens + since.as_secs_f64() * rate);
        self.filled_at = now;
        if self.tokens < 1.0 {
            return Some(now + Duration::from_secs_f64((1.0 - self.tokens) / rate));
        }
        self.tokens -= 1.0;
        None
    }

    fn take(&mut self, is_meant: impl Fn(&Entry) -> bool) -> VecDeque<Entry> {
        let (taken, kept) = self.entries.drain(..).partition(|entry| is_meant(entry));
        self.entries = kept;
        taken
    }
}

impl Pumped {
    fn waits(&mut self, until: Instant) {
        self.next_at = Some(self.next_at.map_or(until, |at| at.min(until)));
    }
}

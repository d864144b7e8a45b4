//! The signals of a caller. A resumable caller has one pending signal at a time and repeats it until its outcome is
//! known; a plain one sends several at once and repeats none.

use std::time::{Duration, Instant};

use rand::Rng as _;
use serde_json::{Value, json};

use crate::caller::{Caller, Signal};
use crate::history::What;
use crate::link::Link;
use crate::stage::Act;

/// The average interval between signals.
const PACE: Duration = Duration::from_millis(50);
/// How long the outcome of a signal may take before it is repeated.
const OUTCOME_WITHIN: Duration = Duration::from_secs(3);
/// How long an offer waits for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How many signals a plain caller sends at once, as browsers send candidates: parked ones must keep this order.
const AT_ONCE: u64 = 3;

impl Caller {
    pub(crate) fn hear(&mut self, said: &Value) {
        let from_peer = said["name"] == self.part.peer.as_str();
        match said["type"].as_str().unwrap_or_default() {
            "offer" if from_peer => {
                self.owes_answer = true;
                self.in_call = false;
            }
            "answer" if from_peer => {
                self.in_call = self.part.calls;
                self.offered_at = None;
            }
            "leave" if from_peer => {
                self.in_call = false;
                self.owes_answer = false;
                self.offered_at = None;
            }
            // The offer may have been lost; no answer will come then.
            "status" if said["missed"] == true => self.offered_at = None,
            "ack" => self.settled(said, None),
            "error" => self.settled(said, said["code"].as_str()),
            _ => {}
        }
    }

    fn settled(&mut self, said: &Value, refused: Option<&str>) {
        let Some(signal) = &mut self.under_way else {
            return;
        };
        if said["id"] != signal.id.as_str() {
            return;
        }
        let rest = said["retry_after_ms"].as_u64().unwrap_or(200).min(1000);
        let rest = Duration::from_millis(rest);
        let may_pass = ["unavailable", "inbox_full", "rate_limited"];
        match refused {
            Some(code) if self.part.resumable && may_pass.contains(&code) => {
                signal.repeat_at = Some(Instant::now() + rest);
            }
            Some(_) => {
                if signal.kind == "offer" {
                    self.offered_at = None;
                }
                self.under_way = None;
                self.next_at = Instant::now() + rest;
            }
            None => {
                if signal.kind == "answer" {
                    self.owes_answer = false;
                    self.in_call = true;
                }
                self.under_way = None;
            }
        }
    }

    pub(crate) fn wake_at(&self) -> Instant {
        let silence = Instant::now() + Duration::from_millis(500);
        let next = match &self.under_way {
            Some(signal) => signal.repeat_at.unwrap_or(signal.sent_at + OUTCOME_WITHIN),
            None => self.next_at,
        };
        next.min(silence)
    }

    /// Sends what is due; false if the connection is broken.
    pub(crate) async fn speak(&mut self, link: &mut Link) -> bool {
        let now = Instant::now();
        if let Some(signal) = &mut self.under_way {
            let due = signal.repeat_at.unwrap_or(signal.sent_at + OUTCOME_WITHIN);
            if now < due {
                return true;
            }
            if !self.part.resumable {
                // A repetition by a plain sender could arrive twice.
                self.under_way = None;
                return true;
            }
            signal.sent_at = now;
            signal.repeat_at = None;
            return self.send(link).await;
        }
        if now < self.next_at || self.parted {
            return true;
        }
        self.next_at = now + PACE.mul_f32(self.dice.random_range(0.7..1.3));
        let Some(kind) = self.next_kind() else {
            return true;
        };
        // A resumable caller waits for the outcome before the next signal, or a repetition would change the order.
        let starts_call = ["offer", "answer"].contains(&kind);
        let count = if self.part.resumable || starts_call {
            1
        } else {
            AT_ONCE
        };
        for _ in 0..count {
            self.n += 1;
            let life = self.diary.memory().life;
            self.under_way = Some(Signal {
                id: format!("{}.{life}.{}", self.part.name, self.n),
                n: self.n,
                kind,
                repeat_at: None,
                sent_at: now,
            });
            if !self.send(link).await {
                return false;
            }
        }
        true
    }

    fn next_kind(&mut self) -> Option<&'static str> {
        if self.owes_answer {
            return Some("answer");
        }
        let waits = self
            .offered_at
            .is_some_and(|at| at.elapsed() < ANSWER_WITHIN);
        if self.part.calls && !self.in_call && !waits && self.stage.act() <= Act::Calm {
            self.offered_at = Some(Instant::now());
            return Some("offer");
        }
        if self.stage.act() != Act::Storm {
            return None;
        }
        Some(if self.n.is_multiple_of(2) {
            "candidate"
        } else {
            "message"
        })
    }

    async fn send(&mut self, link: &mut Link) -> bool {
        let Some(signal) = self.under_way.clone() else {
            return true;
        };
        let body = json!({
            "id": signal.id, "from": self.part.name, "to": self.part.peer, "n": signal.n,
            "life": self.diary.memory().life,
            "padding": "x".repeat(self.dice.random_range(0..400)),
        });
        let message = json!({"type": signal.kind, "name": self.part.peer, (signal.kind): body, "id": signal.id});
        link.note(What::Sent {
            id: signal.id,
            kind: signal.kind,
            to: self.part.peer.clone(),
        });
        link.say(&message).await
    }
}

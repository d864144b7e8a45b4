//! What a session has sent, and what becomes of it: outcomes in the order of sending, and some words that are sent until they arrive.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::notice::Notice;
use super::trace::Traced;
use super::{Effect, State};
use crate::broker::{Envelope, Payload, SendOptions};
use crate::bugs::{self, Bug};
use crate::model::{
    Body, Correlation, Event, IfAbsent, Refusal, SessionId, Signal, SignalKind, TraceContext,
    UserName,
};
use crate::telemetry::SignalOutcome;

/// How many sends of one session may wait for the broker; until one is known, the session hears nothing more.
const IN_FLIGHT: usize = 32;
/// How long to rest before a word is sent again that must arrive.
pub(in crate::session) const RETRY_NOTICE: Duration = Duration::from_millis(250);
/// How long a node may take to subscribe anew.
const SUBSCRIBES_WITHIN: Duration = Duration::from_secs(2);
/// When a signal may be repeated whose outcome is unknown, or for which there was no room.
pub(in crate::session) const RETRY_SEND: Duration = Duration::from_secs(1);

/// What one session has sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Counts what was sent; goes on where an earlier connection of the session cannot have come to.
    n: u64,
    /// What was sent and whose outcome is not known, in order.
    pub(super) pending: VecDeque<Pending>,
    /// Words whose outcome is unknown: they are sent again until it is known.
    pub(super) unsure: Vec<Notice>,
    pub(super) retry_at: Option<Instant>,
}

#[derive(Debug)]
pub(super) enum Pending {
    Signal(Outgoing),
    Notice {
        notice: Notice,
        id: Option<Correlation>,
    },
    /// Known without sending anything.
    Told(Event),
}

/// A signal of ours, until its outcome is known.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) to: UserName,
    pub(super) kind: SignalKind,
    pub(super) n: u64,
    /// It is an offer or an answer.
    pub(super) starts_call: bool,
    pub(super) id: Option<Correlation>,
    pub(super) if_absent: IfAbsent,
    pub(super) traced: Option<Box<Traced>>,
    /// What it says, if it may have to be sent again: of a session that waits for users who are not here.
    pub(super) body: Option<Body>,
    /// It has waited: what became of it then is not counted.
    pub(super) has_waited: bool,
}

impl Outbox {
    /// The outbox of a session that was resumed so often.
    pub(super) fn of(generation: u32) -> Self {
        Self {
            n: u64::from(generation) << 32,
            ..Self::default()
        }
    }

    /// Whether as many sends wait for their outcome as may, with so many that wait for one of them.
    pub(super) fn is_busy(&self, lined_up: usize) -> bool {
        self.pending.len() + lined_up >= IN_FLIGHT
    }

    /// Whether everything is known.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.unsure.is_empty()
    }

    /// Whether nothing is on its way.
    pub(super) fn is_quiet(&self) -> bool {
        self.pending.is_empty()
    }

    /// Forgets the words to those who were not found, of a store that knows everybody.
    pub(super) fn give_up_on_absent(&mut self) {
        let is_absent = |notice: &mut Notice| notice.absent_since.is_some();
        for notice in self.unsure.extract_if(.., is_absent) {
            notice.ends(SignalOutcome::Absent, None);
        }
    }

    /// Forgets the words to plain users whose nodes have not listened for a while: a node that is dead never does, and one that listens again lets its sessions
    /// ask each call peer whether it still has the call.
    pub(super) fn give_up_on_unheard(&mut self, now: Instant) {
        let is_over = |since: Instant| now - since > SUBSCRIBES_WITHIN;
        for notice in self
            .unsure
            .extract_if(.., |notice| notice.unheard_since.is_some_and(is_over))
        {
            notice.ends(SignalOutcome::Unavailable, None);
        }
    }

    /// Whether a word to this user may still be under way.
    pub(super) fn owes(&self, to: &UserName) -> bool {
        let unknown = |notice: &Notice| notice.to == *to && notice.absent_since.is_none();
        self.unsure.iter().any(unknown)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.n += 1;
        self.n
    }
}

impl State {
    /// Sends a signal to another user. Its outcome is told in the order of sending.
    pub(super) fn send(
        &mut self,
        to: UserName,
        signal: Signal,
        trace: Option<TraceContext>,
        id: Option<Correlation>,
        if_absent: IfAbsent,
    ) {
        let kind = signal.kind;
        if self.outbox.owes(&to) {
            self.count(kind, SignalOutcome::Unavailable);
            // It must not overtake the leave.
            let retry_after = RETRY_SEND;
            return self.tell_in_order(Event::Refused {
                refusal: Refusal::Unavailable { retry_after },
                id,
                name: Some(to),
            });
        }
        let starts_call = signal.kind.starts_call();
        if starts_call && !self.calls.has_room(&to) {
            let too_many = Refusal::TooMany("At most 512 calls at once: leave some");
            if let Some(event) = self.refused(to, id, too_many) {
                self.tell_in_order(event);
            }
            return;
        }
        let n = self.outbox.next();
        if starts_call {
            self.calls.start(&to, n);
            self.save_try(&to);
        }
        let traced = self.trace_send(&to, &signal, n, trace);
        let mut sent = Outgoing {
            to,
            kind,
            n,
            starts_call,
            id,
            if_absent,
            traced,
            body: None,
            has_waited: false,
        };
        if self.is_patient() {
            sent.body = Some(signal.body);
            self.line_up(sent);
        } else {
            self.post(sent, signal, None);
        }
    }

    /// Puts a signal on its way that may have to be sent again.
    pub(super) fn transmit(&mut self, sent: Outgoing, only: Option<SessionId>) {
        if let Some(body) = sent.body.clone() {
            let kind = sent.kind;
            self.post(sent, Signal { kind, body }, only);
        }
    }

    fn post(&mut self, sent: Outgoing, signal: Signal, only: Option<SessionId>) {
        let is_timed = sent.traced.as_ref().is_some_and(|traced| traced.is_built());
        // A span is exported when its signal is answered: later, it would be missing from a call whose callee has not answered yet.
        let is_quiet = sent.id.is_none() && !sent.starts_call && sent.body.is_none() && !is_timed;
        let id = sent.id.clone();
        let envelope = Envelope {
            from: Arc::clone(&self.sender),
            n: sent.n,
            // A plain session cannot come back to repeat itself.
            idempotency_key: id
                .filter(|_| self.record.is_some() && !bugs::has(Bug::RepeatsDelivered)),
            trace: sent.traced.as_ref().map(|traced| traced.context),
            payload: Payload::Signal(signal),
        };
        let to = self.address_of(&sent.to);
        // While the guard holds nobody knows who died: the script finds whoever has the name by now.
        let is_to_peer = only.is_none()
            && sent.kind != SignalKind::Offer
            && envelope.idempotency_key.is_none()
            && self.moment.guard.is_none();
        let options = SendOptions {
            only,
            always: false,
            direct: self.calls.plain_peer(&sent.to).filter(|_| is_to_peer),
        };
        self.effects.push(Effect::Send {
            to,
            options,
            envelope: Box::new(envelope),
            is_quiet,
            is_timed,
        });
        self.outbox.pending.push_back(Pending::Signal(sent));
    }

    /// Sends a word until it has arrived.
    pub(super) fn send_notice(&mut self, notice: Notice, id: Option<Correlation>) {
        let traced = notice.traced.as_ref();
        let is_timed = traced.is_some_and(|traced| traced.is_built());
        let envelope = Envelope {
            from: Arc::clone(&notice.from),
            n: notice.n,
            idempotency_key: None,
            trace: traced.map(|traced| traced.context),
            payload: notice.payload.clone(),
        };
        let options = SendOptions {
            only: notice.only,
            always: true,
            direct: None,
        };
        self.effects.push(Effect::Send {
            to: self.address_of(&notice.to),
            options,
            envelope: Box::new(envelope),
            is_quiet: false,
            is_timed,
        });
        self.outbox
            .pending
            .push_back(Pending::Notice { notice, id });
    }

    /// Sends every unsure word again, under its old number: whoever had it drops the repetition.
    pub(super) fn retry(&mut self) {
        self.outbox.retry_at = None;
        for notice in std::mem::take(&mut self.outbox.unsure) {
            self.send_notice(notice, None);
        }
    }

    /// Tells the client something that must not overtake the outcomes before it.
    pub(super) fn tell_in_order(&mut self, event: Event) {
        if self.outbox.pending.is_empty() {
            self.tell(event);
        } else {
            self.outbox.pending.push_back(Pending::Told(event));
        }
    }
}

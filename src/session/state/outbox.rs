//! The outbox: sends whose outcome is not known, in order, and notices that are sent until they arrive.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::held_back::{HeldBack, Turn};
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

/// How many sends of one session may be in flight. A session at this limit reads no more frames.
const IN_FLIGHT: usize = 32;
/// The pause before a notice is sent again.
pub(in crate::session) const RETRY_NOTICE: Duration = Duration::from_millis(250);
/// How long a node may take to subscribe again.
const SUBSCRIBES_WITHIN: Duration = Duration::from_secs(2);
/// When the client should repeat a signal whose outcome is unknown, or that found no room.
pub(in crate::session) const RETRY_SEND: Duration = Duration::from_secs(1);

/// The receiver is not among those whom the token names.
const NOT_CALLABLE: Refusal = Refusal::Forbidden("Your token does not let you call this user");

/// What one session has sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The number of the last send. Its upper half is the generation, so that an earlier connection never used the same
    /// number.
    n: u64,
    /// Sends whose outcome is not known, in order.
    pub(super) pending: VecDeque<Pending>,
    /// Notices to send again: their outcome is unknown, or they did not arrive.
    pub(super) unsure: Vec<Notice>,
    pub(super) retry_at: Option<Instant>,
    pub(super) held_back: HeldBack,
    /// The `n` of a signal in flight whose outcome decides whether others may follow.
    pub(super) alone: Option<u64>,
}

#[derive(Debug)]
pub(super) enum Pending {
    Signal(Outgoing),
    Notice {
        notice: Notice,
        id: Option<Correlation>,
    },
    /// An event that must not overtake earlier outcomes.
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
    /// The body, if the signal may have to be sent again: in sessions with an offline queue.
    pub(super) body: Option<Body>,
    /// It has waited for an absent user, and was counted then. The final outcome is not counted.
    pub(super) has_waited: bool,
}

impl Outbox {
    /// The outbox of a session of this generation.
    pub(super) fn of(generation: u32) -> Self {
        Self {
            n: u64::from(generation) << 32,
            ..Self::default()
        }
    }

    /// Whether the limit of sends in flight is reached, counting `lined_up` signals that wait behind them.
    pub(super) fn is_busy(&self, lined_up: usize) -> bool {
        self.alone.is_some() || self.pending.len() + lined_up >= IN_FLIGHT
    }

    /// Whether no outcome is open and no notice must be sent again.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.unsure.is_empty()
    }

    /// Whether nothing is in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.pending.is_empty()
    }

    /// Drops the notices to plain users whose nodes do not listen and, if they are `absent` from a store that knows
    /// everybody, to users who were not found.
    pub(super) fn give_up(&mut self, absent: bool, now: Instant) {
        self.give_up_on_unheard(now);
        if absent {
            self.give_up_on_absent();
        }
    }

    fn give_up_on_absent(&mut self) {
        let is_absent = |notice: &mut Notice| notice.absent_since.is_some();
        for notice in self.unsure.extract_if(.., is_absent) {
            notice.ends(SignalOutcome::Absent, None);
        }
    }

    /// Drops the notices to plain users whose nodes have not been subscribed for a while. A dead node never subscribes
    /// again; a live one makes its sessions ask each call peer whether it still has the call.
    fn give_up_on_unheard(&mut self, now: Instant) {
        let is_over = |since: Instant| now - since > SUBSCRIBES_WITHIN;
        for notice in self
            .unsure
            .extract_if(.., |notice| notice.unheard_since.is_some_and(is_over))
        {
            notice.ends(SignalOutcome::Unavailable, None);
        }
    }

    /// Whether a notice to this user may still be under way.
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
    /// Sends a signal. Outcomes are reported in the order of sending.
    pub(super) fn send(
        &mut self,
        to: UserName,
        signal: Signal,
        trace: Option<TraceContext>,
        id: Option<Correlation>,
        if_absent: IfAbsent,
    ) {
        let kind = signal.kind;
        if !self.may_reach(&to) {
            return self.refuse_to_send(to, kind, id, NOT_CALLABLE);
        }
        if self.outbox.owes(&to) {
            // The signal must not overtake a `leave`.
            let retry_after = RETRY_SEND;
            let why = Refusal::Unavailable { retry_after };
            self.hold_back(&to, id.as_ref(), &why);
            return self.refuse_to_send(to, kind, id, why);
        }
        let turn = self.turn(&to, id.as_ref());
        if let Turn::Held(why) = turn {
            return self.refuse_to_send(to, kind, id, why);
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
            self.outbox.alone = (turn == Turn::Alone).then_some(n);
            self.post(sent, signal, None);
        }
    }

    fn refuse_to_send(
        &mut self,
        to: UserName,
        kind: SignalKind,
        id: Option<Correlation>,
        why: Refusal,
    ) {
        self.count(kind, SignalOutcome::of(&why));
        if let Some(event) = self.refused(to, id, why) {
            self.tell_in_order(event);
        }
    }

    /// Sends a signal of which a copy is kept.
    pub(super) fn transmit(&mut self, sent: Outgoing, only: Option<SessionId>) {
        if let Some(body) = sent.body.clone() {
            let kind = sent.kind;
            self.post(sent, Signal { kind, body }, only);
        }
    }

    fn post(&mut self, sent: Outgoing, signal: Signal, only: Option<SessionId>) {
        let is_timed = sent.traced.as_ref().is_some_and(|traced| traced.is_built());
        // Spans end when the outcome is handled: with a delay, they would be missing from a call that is not answered
        // yet.
        let is_quiet = sent.id.is_none() && !sent.starts_call && sent.body.is_none() && !is_timed;
        let id = sent.id.clone();
        let envelope = Envelope {
            from: Arc::clone(&self.sender),
            n: sent.n,
            // A plain session cannot resume, so it never repeats a signal.
            idempotency_key: id
                .filter(|_| self.record.is_some() && !bugs::has(Bug::RepeatsDelivered)),
            trace: sent.traced.as_ref().map(|traced| traced.context),
            payload: Payload::Signal(signal),
        };
        let to = self.address_of(&sent.to);
        // While the guard holds, the peer's node may be dead. The broker then looks the current holder up.
        let is_to_peer = only.is_none()
            && sent.kind != SignalKind::Offer
            && envelope.idempotency_key.is_none()
            && self.moment.guard.is_none();
        let options = SendOptions {
            only,
            always: false,
            in_call: self.calls.peer(&sent.to).is_some(),
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

    /// Sends a notice, until it has arrived.
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
            in_call: false,
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

    /// Sends every open notice again, under its old number, so that a receiver that has it drops the repetition.
    pub(super) fn retry(&mut self) {
        self.outbox.retry_at = None;
        for notice in std::mem::take(&mut self.outbox.unsure) {
            self.send_notice(notice, None);
        }
    }
}

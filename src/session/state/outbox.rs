//! What a session has sent, and what becomes of it: outcomes in the order of sending, and some words that are sent until they arrive.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::debug;

use super::trace::Traced;
use super::{Action, Effect, State, acknowledged};
use crate::broker::{Answer, Envelope, Outcome, Payload, SendOptions, Sender, Sent};
use crate::bugs::{self, Bug};
use crate::model::{
    AckStatus, Body, Correlation, Event, IfAbsent, LeaveReason, Refusal, SessionId, Signal,
    SignalKind, TraceContext, UserName,
};
use crate::telemetry::Fate;

/// How many sends of one session may wait for the broker; until one is known, the session hears nothing more.
const IN_FLIGHT: usize = 32;
/// How long to rest before a word is sent again that must arrive.
pub(in crate::session) const RETRY_NOTICE: Duration = Duration::from_millis(250);
/// How long a node may take to subscribe anew.
const SUBSCRIBES_WITHIN: Duration = Duration::from_secs(2);
/// When a signal may be repeated whose outcome is unknown, or for which there was no room.
const RETRY_SEND: Duration = Duration::from_secs(1);

/// What one session has sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Counts what was sent; goes on where an earlier connection of the session cannot have come to.
    n: u64,
    /// What was sent and whose outcome is not known, in order.
    pending: VecDeque<Pending>,
    /// Words whose outcome is unknown: they are sent again until it is known.
    unsure: Vec<Notice>,
    pub(super) retry_at: Option<Instant>,
}

#[derive(Debug)]
enum Pending {
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
    kind: SignalKind,
    pub(super) n: u64,
    /// It is an offer or an answer.
    pub(super) starts_call: bool,
    id: Option<Correlation>,
    pub(super) if_absent: IfAbsent,
    traced: Option<Box<Traced>>,
    /// What it says, if it may have to be sent again: of a session that waits for users who are not here.
    pub(super) body: Option<Body>,
    /// It has waited: what became of it then is not counted.
    pub(super) has_waited: bool,
}

/// A word that must arrive.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) to: UserName,
    pub(super) only: Option<SessionId>,
    pub(super) from: Arc<Sender>,
    pub(super) n: u64,
    pub(super) payload: Payload,
    traced: Option<Box<Traced>>,
    /// Since when nobody of that name was found.
    absent_since: Option<Instant>,
    /// Since when the node of a plain user does not listen.
    unheard_since: Option<Instant>,
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
            notice.ends(Fate::Absent, None);
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
            notice.ends(Fate::Unavailable, None);
        }
    }

    /// Whether a word to this user may still be under way.
    fn owes(&self, to: &UserName) -> bool {
        let unknown = |notice: &Notice| notice.to == *to && notice.absent_since.is_none();
        self.unsure.iter().any(unknown)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.n += 1;
        self.n
    }
}

impl Notice {
    pub(super) fn new(
        to: UserName,
        only: Option<SessionId>,
        from: Arc<Sender>,
        n: u64,
        payload: Payload,
    ) -> Self {
        Self {
            to,
            only,
            from,
            n,
            payload,
            traced: None,
            absent_since: None,
            unheard_since: None,
        }
    }

    /// The same, as part of a trace.
    pub(super) fn traced(self, traced: Option<Traced>) -> Self {
        let traced = traced.map(Box::new);
        Self { traced, ..self }
    }

    /// It is not sent again. Its span ends then, or now.
    fn ends(self, fate: Fate, at: Option<SystemTime>) {
        if let Some(traced) = self.traced {
            traced.ends(fate, at);
        }
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
            self.count(kind, Fate::Unavailable);
            // It must not overtake the leave.
            let retry_after = RETRY_SEND;
            return self.tell_in_order(Event::Refused {
                refusal: Refusal::Unavailable { retry_after },
                id,
                name: Some(to),
            });
        }
        let n = self.outbox.next();
        let starts_call = signal.kind.starts_call();
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

    /// Takes the outcome of the earliest send.
    pub(super) fn settle(&mut self, Answer { outcome, at }: Answer) {
        match self.outbox.pending.pop_front() {
            Some(Pending::Signal(sent)) => self.signal_settled(sent, &outcome, at),
            Some(Pending::Notice { notice, id }) => {
                let told = self.notice_settled(notice, id, &outcome, at);
                self.actions.extend(told.map(Action::Tell));
            }
            Some(Pending::Told(event)) => self.tell(event),
            None => debug!("An outcome came for nothing that was sent"),
        }
        while let Some(Pending::Told(_)) = self.outbox.pending.front() {
            if let Some(Pending::Told(event)) = self.outbox.pending.pop_front() {
                self.tell(event);
            }
        }
    }

    fn signal_settled(&mut self, sent: Outgoing, outcome: &Outcome, at: Option<SystemTime>) {
        let is_absent = matches!(outcome, Ok(Sent::Absent));
        let parked = if is_absent {
            self.park(sent)
        } else {
            Some(sent)
        };
        let Some(mut sent) = parked else { return };
        let told = if is_absent && sent.if_absent == IfAbsent::Forget {
            Ok(Fate::Absent)
        } else {
            self.outcome(&sent, outcome)
        };
        let fate = told.as_ref().map_or_else(Fate::of, |fate| *fate);
        self.tally(&mut sent, fate, at);
        if sent.body.is_some() {
            let reached = match outcome {
                Ok(Sent::To(holder)) => Some(holder),
                _ => None,
            };
            self.line_moves(&sent.to, reached, told.as_ref().err().cloned());
        }
        if let Err(refusal) = told {
            let told = self.refused(sent.to, sent.id, refusal);
            self.actions.extend(told.map(Action::Tell));
        }
    }

    /// What has become of a signal is counted, and ends its span.
    pub(super) fn tally(&mut self, sent: &mut Outgoing, fate: Fate, at: Option<SystemTime>) {
        if !sent.has_waited {
            self.count(sent.kind, fate);
            self.trace_outcome(&sent.to, sent.kind, fate, sent.traced.as_deref_mut(), at);
        }
    }

    /// What the outcome means for the call and, if there is one, for its id; or why the signal is refused.
    fn outcome(&mut self, sent: &Outgoing, outcome: &Outcome) -> Result<Fate, Refusal> {
        let retry_after = RETRY_SEND;
        let (to, n, starts_call) = (&sent.to, sent.n, sent.starts_call);
        match outcome {
            Ok(Sent::To(holder)) => {
                let flags = holder.flags;
                let lives = self.believes_in(&holder.node);
                if !lives && !flags.resumable {
                    // Somebody on a node that is known to be dead.
                    return Err(self.nobody(to, n, starts_call));
                }
                let known = self.calls.peer(to).cloned();
                if self.calls.reached(to, holder, n, starts_call) {
                    self.node.telemetry.metrics.left(LeaveReason::Lost);
                    self.tell_left(to, LeaveReason::Lost, None);
                }
                // A note of the try says the rest.
                let is_news = self.calls.peer(to) != known.as_ref();
                if starts_call && (is_news || self.is_patient()) {
                    self.save_call(to);
                }
                let status = if flags.detached || !lives {
                    AckStatus::Queued
                } else {
                    AckStatus::Delivered
                };
                let told = sent.id.clone().map(|id| acknowledged(id, status));
                self.actions.extend(told.map(Action::Tell));
                Ok(match status {
                    AckStatus::Queued => Fate::Queued,
                    AckStatus::Delivered => Fate::Delivered,
                })
            }
            Ok(Sent::NoSubscriber(holder)) if self.believes_in(&holder.node) => {
                self.has_failed(to, n, starts_call);
                Err(Refusal::Unavailable { retry_after })
            }
            // The same on a node that is known to be dead.
            Ok(Sent::Absent | Sent::NoSubscriber(_)) => Err(self.nobody(to, n, starts_call)),
            Ok(Sent::Full(_)) => {
                self.has_failed(to, n, starts_call);
                Err(Refusal::InboxFull { retry_after })
            }
            Err(_) => Err(Refusal::Unavailable { retry_after }),
        }
    }

    /// A call was tried, or failed. Who calls whoever may come notes a call when somebody has it: he may try a thousand that do not come.
    fn save_try(&mut self, to: &UserName) {
        if !self.is_patient() {
            self.save_call(to);
        }
    }

    /// A signal was not delivered: a call that it was to begin does not begin.
    fn has_failed(&mut self, to: &UserName, n: u64, starts_call: bool) {
        if starts_call {
            self.calls.failed(to, n);
            self.save_try(to);
        }
    }

    /// Nobody has the name.
    fn nobody(&mut self, to: &UserName, n: u64, starts_call: bool) -> Refusal {
        self.has_failed(to, n, starts_call);
        // A peer that is gone would have left our call: the broker may have forgotten it, or its leave.
        self.is_absent(to);
        let in_call = self.calls.get(to).map(|_| RETRY_SEND);
        match self.moment.guard.or(in_call) {
            None => Refusal::UserUnavailable,
            Some(retry_after) => Refusal::Unavailable { retry_after },
        }
    }

    /// A word counts as told when somebody has it, or when its receiver is surely gone: a broker that has just forgotten everybody finds nobody.
    fn notice_settled(
        &mut self,
        mut notice: Notice,
        id: Option<Correlation>,
        outcome: &Outcome,
        at: Option<SystemTime>,
    ) -> Option<Event> {
        let fate = match outcome {
            Ok(Sent::Absent) => Fate::Absent,
            Ok(_) => Fate::Delivered,
            Err(_) => Fate::Unavailable,
        };
        if let Payload::Leave { .. } = notice.payload {
            self.node.telemetry.metrics.leave_sent(fate);
        }
        let now = self.moment.now;
        let done = match outcome {
            Ok(Sent::To(_)) => true,
            Ok(Sent::NoSubscriber(holder)) if self.believes_in(&holder.node) => {
                notice.absent_since = None;
                notice.unheard_since.get_or_insert(now);
                false
            }
            Ok(Sent::Absent | Sent::NoSubscriber(_) | Sent::Full(_)) => {
                let since = *notice.absent_since.get_or_insert(now);
                let noticed = self.is_noticed_since(since);
                // What we say to ourselves has arrived when we have heard it.
                noticed && notice.to != self.lease.address.name
            }
            Err(error) => {
                debug!(%error, "The outcome of a leave is unknown: it is sent again");
                notice.absent_since = None;
                false
            }
        };
        if done {
            if notice.payload == Payload::Sync && matches!(outcome, Ok(Sent::Absent)) {
                match notice.only {
                    Some(session) => self.is_gone(&notice.to, session, LeaveReason::Lost),
                    // An earlier connection had called, and never knew whom.
                    None => self.calls.forget_unanswered(&notice.to),
                }
            }
            notice.ends(fate, at);
        } else {
            self.outbox.unsure.push(notice);
            self.outbox.retry_at.get_or_insert(now + RETRY_NOTICE);
        }
        let refusal = Refusal::Unavailable {
            retry_after: RETRY_SEND,
        };
        id.map(|id| match outcome {
            Ok(_) => acknowledged(id, AckStatus::Delivered),
            Err(_) => Event::Refused {
                refusal,
                id: Some(id),
                name: None,
            },
        })
    }

    /// Whether a store that had lost its data at this time would have been noticed by now, and was not.
    fn is_noticed_since(&self, time: Instant) -> bool {
        self.moment.guard.is_none() && self.moment.now - time > self.node.terms.longest_gap()
    }
}

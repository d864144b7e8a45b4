//! Handles the outcome of each send: an answer to the client, a call that begins or fails, a retry.

use std::time::SystemTime;

use tokio::time::Instant;
use tracing::debug;

use super::notice::Notice;
use super::outbox::{Outgoing, Pending, RETRY_NOTICE, RETRY_SEND};
use super::tell::acknowledged;
use super::{Action, State};
use crate::broker::{Answer, Outcome, Payload, Sent};
use crate::model::{AckStatus, Correlation, Event, IfAbsent, LeaveReason, Refusal, UserName};
use crate::telemetry::SignalOutcome;

/// The receiver's token names those who may call it.
const NOT_CALLABLE_BY_YOU: Refusal = Refusal::Forbidden("This user may not be called by you");

impl State {
    /// Handles the outcome of the earliest send.
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
        self.outbox.alone.take_if(|n| *n == sent.n);
        let is_absent = matches!(outcome, Ok(Sent::Absent));
        let parked = if is_absent {
            self.park(sent)
        } else {
            Some(sent)
        };
        let Some(mut sent) = parked else { return };
        let told = if is_absent && sent.if_absent == IfAbsent::Drop {
            Ok(SignalOutcome::Absent)
        } else {
            self.outcome(&sent, outcome)
        };
        let fate = told.as_ref().map_or_else(SignalOutcome::of, |fate| *fate);
        self.tally(&mut sent, fate, at);
        if sent.body.is_some() {
            let reached = match outcome {
                Ok(Sent::To(holder)) => Some(holder),
                _ => None,
            };
            self.line_moves(&sent.to, reached, told.as_ref().err().cloned());
        }
        if let Err(refusal) = told {
            self.hold_back_after(&sent.to, sent.id.as_ref(), sent.n, &refusal);
            let told = self.refused(sent.to, sent.id, refusal);
            self.actions.extend(told.map(Action::Tell));
        }
    }

    /// Counts the outcome of a signal, and ends its span.
    pub(super) fn tally(
        &mut self,
        sent: &mut Outgoing,
        fate: SignalOutcome,
        at: Option<SystemTime>,
    ) {
        if !sent.has_waited {
            self.count(sent.kind, fate);
            self.trace_outcome(&sent.to, sent.kind, fate, sent.traced.as_deref_mut(), at);
        }
    }

    /// Applies an outcome to the call, and acknowledges the signal. Returns why it is refused, if it is.
    fn outcome(&mut self, sent: &Outgoing, outcome: &Outcome) -> Result<SignalOutcome, Refusal> {
        let retry_after = RETRY_SEND;
        let (to, n, starts_call) = (&sent.to, sent.n, sent.starts_call);
        match outcome {
            Ok(Sent::To(holder)) => {
                let flags = holder.flags;
                let lives = self.believes_in(&holder.node);
                if !lives && !flags.resumable {
                    // A plain session on a dead node.
                    return Err(self.nobody(to, n, starts_call));
                }
                let known = self.calls.peer(to).cloned();
                let before = self.call_before(to);
                if self.calls.reached(to, holder, n, starts_call) {
                    self.call_is_over(to, before, LeaveReason::Lost);
                    self.node.telemetry.metrics.left(LeaveReason::Lost);
                    self.tell_left(to, LeaveReason::Lost, None);
                }
                if starts_call {
                    self.call_goes_on(to, sent.kind);
                }
                // The save of the attempt covers the other cases.
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
                    AckStatus::Queued => SignalOutcome::Queued,
                    AckStatus::Delivered => SignalOutcome::Delivered,
                })
            }
            Ok(Sent::NoSubscriber(holder)) if self.believes_in(&holder.node) => {
                self.has_failed(to, n, starts_call);
                Err(Refusal::Unavailable { retry_after })
            }
            // Including a plain session on a dead node.
            Ok(Sent::Absent | Sent::NoSubscriber(_)) => Err(self.nobody(to, n, starts_call)),
            Ok(Sent::NotCallable) => {
                self.has_failed(to, n, starts_call);
                Err(NOT_CALLABLE_BY_YOU)
            }
            Ok(Sent::Full(_)) => {
                self.has_failed(to, n, starts_call);
                Err(Refusal::InboxFull { retry_after })
            }
            Err(_) => Err(Refusal::Unavailable { retry_after }),
        }
    }

    /// Saves a call when its offer is sent or has failed. A session with an offline queue saves it only when somebody
    /// has the offer: it may call a thousand users who never come.
    pub(super) fn save_try(&mut self, to: &UserName) {
        if !self.is_patient() {
            self.save_call(to);
        }
    }

    /// A signal was not delivered. If it was to begin a call, the call does not begin.
    fn has_failed(&mut self, to: &UserName, n: u64, starts_call: bool) {
        if starts_call {
            self.calls.failed(to, n);
            self.save_try(to);
        }
    }

    /// Nobody holds the name.
    fn nobody(&mut self, to: &UserName, n: u64, starts_call: bool) -> Refusal {
        self.has_failed(to, n, starts_call);
        // A call peer does not leave without a `leave`, so the store may have lost it, or the `leave` was lost.
        self.is_absent(to);
        let in_call = self.calls.get(to).map(|_| RETRY_SEND);
        match self.moment.guard.or(in_call) {
            None => Refusal::UserUnavailable,
            Some(retry_after) => Refusal::Unavailable { retry_after },
        }
    }

    /// Handles the outcome of a notice. It is done when somebody has it or its receiver is surely gone: a store that
    /// has just lost its data finds nobody, so an absence must last before it counts.
    fn notice_settled(
        &mut self,
        mut notice: Notice,
        id: Option<Correlation>,
        outcome: &Outcome,
        at: Option<SystemTime>,
    ) -> Option<Event> {
        let fate = match outcome {
            Ok(Sent::Absent) => SignalOutcome::Absent,
            Ok(_) => SignalOutcome::Delivered,
            Err(_) => SignalOutcome::Unavailable,
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
            Ok(Sent::Absent | Sent::NoSubscriber(_) | Sent::Full(_) | Sent::NotCallable) => {
                let since = *notice.absent_since.get_or_insert(now);
                let noticed = self.is_noticed_since(since);
                // A notice to ourselves has arrived only when we have received it.
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
                    // An earlier connection had called, and never knew which session.
                    None => self.calls.forget_unanswered(&notice.to),
                }
            }
            if let (Payload::Leave { heard, .. }, Some(record)) =
                (&notice.payload, &mut self.record)
            {
                record.has_left(&notice.to, *heard);
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

    /// Whether a loss of data at this time would have been noticed by now, and was not.
    fn is_noticed_since(&self, time: Instant) -> bool {
        self.moment.guard.is_none() && self.moment.now - time > self.node.terms.longest_gap()
    }
}

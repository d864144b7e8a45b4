//! Handles received envelopes: a signal to pass on, a call that begins or ends, or nothing.

use std::sync::Arc;

use super::call::PeerLocation;
use super::call_changes::Ending;
use super::dedup::{HeardId, Hearing};
use super::notice::Notice;
use super::record::{Decision, Leaving};
use super::tell::left;
use super::{Action, State};
use crate::broker::{Entry, Envelope, Payload, Sender};
use crate::bugs::{self, Bug};
use crate::model::{
    CallNews, Event, LeaveReason, Offset, SessionId, Signal, TraceContext, UserName,
};

impl State {
    /// Delivers entries of the inbox that were read from where the session has read to.
    pub(super) fn deliver_entries(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            if let Some(entry) = self.catch_up.advance(entry) {
                self.deliver_entry(entry);
            }
        }
    }

    /// Handles the next inbox entry. An entry that an earlier connection decided about is told, or kept silent, as it
    /// was then.
    pub(super) fn deliver_entry(&mut self, entry: Entry) {
        let Some(record) = &mut self.record else {
            self.deliver(entry.envelope, None);
            return;
        };
        let Entry { id, envelope } = entry;
        let from = Arc::clone(&envelope.from);
        let repeatable = HeardId::of(&envelope);
        let (before, bytes) = (self.actions.len(), envelope.body_len());
        let decision = record.decision(id);
        if let (Some(heard), Decision::Tell) = (repeatable, decision) {
            self.dedup.heard_before(&from.address.name, heard);
        }
        let silent = match decision {
            Decision::None => !self.deliver(envelope, Some(id)),
            Decision::Silence => true,
            Decision::Tell => {
                self.actions.extend(told_again(id, envelope));
                false
            }
        };
        let Some(record) = &mut self.record else {
            return;
        };
        record.dealt(id, &from.address.name, repeatable, silent);
        record.weighs(bytes);
        if !record.is_unseen(id) {
            // The client saw it on an earlier connection. It was handled only for the state of our calls.
            self.actions.truncate(before);
            record.confirm(id);
        }
        // Not saved yet: the next connection handles entries again that are not in the record, with the same result.
        for name in self.dedup.forgotten.drain(..) {
            record.change(name);
        }
        if record.frees_silent() {
            self.save();
        }
    }

    /// Handles an envelope. True if the client is told of it.
    pub(super) fn deliver(&mut self, envelope: Envelope, seq: Option<Offset>) -> bool {
        let Envelope {
            from: sender,
            n,
            idempotency_key,
            trace,
            payload,
        } = envelope;
        let (session, at) = (sender.session, PeerLocation::from(&*sender));
        // The name suffices: addresses are always within the sender's realm.
        let from = &sender.address.name;
        match payload {
            Payload::Signal(signal) => {
                let calls = &self.calls;
                let in_call = |name: &UserName| calls.get(name).is_some();
                let key = idempotency_key.as_ref();
                match self.dedup.hears(&sender, n, key, in_call) {
                    Hearing::News => {
                        self.deliver_signal(&sender, n, trace, signal, seq);
                        true
                    }
                    Hearing::Repetition => {
                        self.deliver_again(from, at, n, signal.kind.starts_call());
                        false
                    }
                    Hearing::Overtaken => false,
                }
            }
            // A leave may arrive late, because it is sent again until it is received. The call knows which leave is
            // meant for it.
            Payload::Leave { reason, heard } => {
                let call = self.calls.trace(from);
                let before = self.call_before(from);
                let over = self.calls.end(from, session, n, heard) == Ending::Over;
                if over {
                    let before = before.map(|before| before.up_to(heard));
                    self.call_is_over(from, before, reason);
                    self.call_happens(from, CallNews::Started);
                    self.node.telemetry.metrics.left(reason);
                    self.tell_left(from, reason, seq);
                    let span = self.trace_left(&sender, trace, call, n, reason);
                    self.actions.extend(span.map(Action::EndSpan));
                }
                over
            }
            Payload::Sync => {
                if self.calls.moved(from, at) {
                    self.mark_one(from, "peer resumed", None);
                } else {
                    self.answer_that_it_is_over(from, session, n);
                }
                false
            }
        }
    }

    /// Delivers a signal for the first time.
    fn deliver_signal(
        &mut self,
        sender: &Sender,
        n: u64,
        trace: Option<TraceContext>,
        signal: Signal,
        seq: Option<Offset>,
    ) {
        let (from, at) = (&sender.address.name, PeerLocation::from(sender));
        let starts_call = signal.kind.starts_call();
        let before = self.call_before(from);
        if starts_call && self.calls.join(from, at.clone(), n) {
            self.call_is_over(from, before, LeaveReason::Lost);
            self.node.telemetry.metrics.left(LeaveReason::Lost);
            self.actions
                .push(Action::Tell(left(from, LeaveReason::Lost, None)));
        }
        self.calls.heard(from, at, n);
        if starts_call {
            self.call_goes_on(from, signal.kind);
        }
        let span = self.trace_heard(sender, trace, n, &signal);
        let from = if bugs::has(Bug::MislabelsSenders) {
            self.lease.address.name.clone()
        } else {
            from.clone()
        };
        self.actions
            .push(Action::Tell(Event::Signal { from, signal, seq }));
        self.actions.extend(span.map(Action::EndSpan));
        if starts_call && self.policy.confirms_calls {
            self.actions.push(Action::Ping);
        }
    }

    /// Handles a repeated signal. Its sender may believe that the signal began a call. If that call is over, our client
    /// was told before, and the sender is told now.
    fn deliver_again(&mut self, from: &UserName, at: PeerLocation, n: u64, starts_call: bool) {
        let session = at.session;
        let is_known = self
            .calls
            .get(from)
            .is_some_and(|call| call.may_be_with(session));
        if is_known {
            if starts_call {
                // A leave that was sent before this repetition and arrives later belongs to an earlier call.
                self.calls.join(from, at.clone(), n);
            }
            self.calls.heard(from, at, n);
        } else if starts_call {
            self.answer_that_it_is_over(from, session, n);
        }
    }

    /// Sends a `leave` to a session that believes in a call with us which does not exist.
    fn answer_that_it_is_over(&mut self, from: &UserName, session: SessionId, heard: u64) {
        let (n, reason) = (self.outbox.next(), LeaveReason::Lost);
        let (sender, payload) = (Arc::clone(&self.sender), Payload::Leave { reason, heard });
        let only = Some(session);
        let answer = Notice::new(from.clone(), only, sender, n, payload);
        self.send_notice(answer, None);
        // The next connection sends it again if its outcome is not known by then.
        if let Some(record) = &mut self.record {
            record.leaves(from.clone(), Leaving { only, heard });
            self.save_call(from);
        }
    }
}

/// The action by which an earlier connection told the client of this entry.
fn told_again(id: Offset, envelope: Envelope) -> Option<Action> {
    let (from, seq) = (envelope.from.address.name.clone(), Some(id));
    match envelope.payload {
        Payload::Signal(signal) => Some(Action::Tell(Event::Signal { from, signal, seq })),
        Payload::Leave { reason, .. } => Some(Action::Tell(left(&from, reason, seq))),
        Payload::Sync => None,
    }
}

//! What a session makes of an envelope, from its inbox or directly: something to tell, a call that begins or ends, or nothing.

use std::sync::Arc;

use super::call::PeerLocation;
use super::call_changes::Ending;
use super::dedup::{HeardId, Hearing};
use super::notice::Notice;
use super::record::Decision;
use super::tell::left;
use super::{Action, State};
use crate::broker::{Entry, Envelope, Payload};
use crate::bugs::{self, Bug};
use crate::model::{Event, LeaveReason, Offset, SessionId, UserName};

impl State {
    /// Hears an entry of the inbox, whose turn it is.
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
            // Its client has seen it: it was heard for the sake of our calls only.
            self.actions.truncate(before);
            record.confirm(id);
        }
        // No note yet: whoever resumes the session hears again what is not noted, and it means the same.
        for name in self.dedup.forgotten.drain(..) {
            record.change(name);
        }
    }

    /// Hears what somebody said. Whether the client is told of it.
    pub(super) fn deliver(&mut self, envelope: Envelope, seq: Option<Offset>) -> bool {
        let Envelope {
            from: sender,
            n,
            idempotency_key,
            trace,
            payload,
        } = envelope;
        let (session, at) = (sender.session, PeerLocation::from(&*sender));
        // No tenant reaches another: nobody addresses a realm but his own.
        let from = &sender.address.name;
        match payload {
            Payload::Signal(signal) => {
                let calls = &self.calls;
                let in_call = |name: &UserName| calls.get(name).is_some();
                let starts_call = signal.kind.starts_call();
                match self
                    .dedup
                    .hears(&sender, n, idempotency_key.as_ref(), in_call)
                {
                    Hearing::News => {}
                    Hearing::Repetition => {
                        self.deliver_again(from, at, n, starts_call);
                        return false;
                    }
                    Hearing::Overtaken => return false,
                }
                if starts_call && self.calls.join(from, at.clone(), n) {
                    self.node.telemetry.metrics.left(LeaveReason::Lost);
                    self.actions
                        .push(Action::Tell(left(from, LeaveReason::Lost, None)));
                }
                self.calls.heard(from, at, n);
                let span = self.trace_heard(&sender, trace, n, &signal);
                let from = if bugs::has(Bug::MislabelsSenders) {
                    &self.lease.address.name
                } else {
                    from
                };
                self.actions.push(Action::Tell(Event::Signal {
                    from: from.clone(),
                    signal,
                    seq,
                }));
                self.actions.extend(span.map(Action::EndSpan));
                if starts_call && self.policy.confirms_calls {
                    self.actions.push(Action::Ping);
                }
                true
            }
            // A leave may come late: it is sent again until somebody has it. The call itself knows whether it is meant.
            Payload::Leave { reason, heard } => {
                let call = self.calls.trace(from);
                let over = self.calls.end(from, session, n, heard) == Ending::Over;
                if over {
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

    /// Hears a signal that was heard before. Its sender may think that a call began by it; if that is over, its end was told before.
    fn deliver_again(&mut self, from: &UserName, at: PeerLocation, n: u64, starts_call: bool) {
        let session = at.session;
        let is_known = self
            .calls
            .get(from)
            .is_some_and(|call| call.may_be_with(session));
        if is_known {
            if starts_call {
                // A leave that was sent before, and comes late, is of an earlier call.
                self.calls.join(from, at.clone(), n);
            }
            self.calls.heard(from, at, n);
        } else if starts_call {
            self.answer_that_it_is_over(from, session, n);
        }
    }

    /// This session has no call with the one that said this as its `n`th, and thinks that there is one.
    fn answer_that_it_is_over(&mut self, from: &UserName, session: SessionId, heard: u64) {
        let (n, reason) = (self.outbox.next(), LeaveReason::Lost);
        let (sender, payload) = (Arc::clone(&self.sender), Payload::Leave { reason, heard });
        let answer = Notice::new(from.clone(), Some(session), sender, n, payload);
        self.send_notice(answer, None);
    }
}

/// What an earlier connection had told of this entry.
fn told_again(id: Offset, envelope: Envelope) -> Option<Action> {
    let (from, seq) = (envelope.from.address.name.clone(), Some(id));
    match envelope.payload {
        Payload::Signal(signal) => Some(Action::Tell(Event::Signal { from, signal, seq })),
        Payload::Leave { reason, .. } => Some(Action::Tell(left(&from, reason, seq))),
        Payload::Sync => None,
    }
}

//! What a session hears, from the inbox or directly, and what it makes of it: something to tell, a call that begins or ends, or nothing.

use std::sync::Arc;

use super::calls::{Ending, Place};
use super::heard::{HeardId, Hearing};
use super::memory::Decision;
use super::outbox::Notice;
use super::seat::{Seat, Turn, left};
use crate::bugs::{self, Bug};
use crate::fabric::{Entry, Envelope, Parcel};
use crate::model::{EntryId, Event, LeaveReason, SessionId, UserName};

impl Seat {
    /// Hears an entry of the inbox, whose turn it is.
    pub(super) fn hear_entry(&mut self, entry: Entry, turns: &mut Vec<Turn>) {
        let Some(memory) = &mut self.memory else {
            self.hear(entry.envelope, None, turns);
            return;
        };
        let Entry { id, envelope } = entry;
        let from = Arc::clone(&envelope.from);
        let repeatable = HeardId::of(&envelope);
        let before = turns.len();
        let decision = memory.decision(id);
        if let (Some(heard), Decision::Tell) = (repeatable, decision) {
            self.heard.heard_before(&from.address.name, heard);
        }
        let silent = match decision {
            Decision::None => !self.hear(envelope, Some(id), turns),
            Decision::Silence => true,
            Decision::Tell => {
                turns.extend(told_again(id, envelope));
                false
            }
        };
        let Some(memory) = &mut self.memory else {
            return;
        };
        memory.dealt(id, &from.address.name, repeatable, silent);
        if !memory.is_unseen(id) {
            // Its client has seen it: it was heard for the sake of our calls only.
            turns.truncate(before);
            memory.confirm(id);
        }
        // No note yet: whoever resumes the session hears again what is not noted, and it means the same.
        for name in self.heard.forgotten.drain(..) {
            memory.change(name);
        }
    }

    /// Hears what somebody said. Whether the client is told of it.
    pub(super) fn hear(
        &mut self,
        envelope: Envelope,
        seq: Option<EntryId>,
        turns: &mut Vec<Turn>,
    ) -> bool {
        let Envelope {
            from: sender,
            n,
            once,
            trace,
            parcel,
        } = envelope;
        let (session, at) = (sender.session, Place::from(&*sender));
        // No tenant reaches another: nobody addresses a realm but his own.
        let from = &sender.address.name;
        match parcel {
            Parcel::Signal(signal) => {
                let calls = &self.calls;
                let in_call = |name: &UserName| calls.get(name).is_some();
                let starts_call = signal.kind.starts_call();
                match self.heard.hears(&sender, n, once.as_ref(), in_call) {
                    Hearing::News => {}
                    Hearing::Repetition => {
                        self.hear_again(from, at, n, starts_call);
                        return false;
                    }
                    Hearing::Overtaken => return false,
                }
                if starts_call && self.calls.join(from, at.clone(), n) {
                    self.exchange.telemetry.metrics.left(LeaveReason::Lost);
                    turns.push(left(from, LeaveReason::Lost, None));
                }
                self.calls.heard(from, at, n);
                let span = self.trace_heard(&sender, trace, n, &signal);
                let from = if bugs::has(Bug::MislabelsSenders) {
                    &self.lease.address.name
                } else {
                    from
                };
                turns.push(Turn::Tell(Event::Signal {
                    from: from.clone(),
                    signal,
                    seq,
                }));
                turns.extend(span.map(Turn::Traced));
                if starts_call && self.manners.confirms_calls {
                    turns.push(Turn::Ask);
                }
                true
            }
            // A leave may come late: it is sent again until somebody has it. The call itself knows whether it is meant.
            Parcel::Leave { reason, heard } => {
                let call = self.calls.trace(from);
                let over = self.calls.end(from, session, n, heard) == Ending::Over;
                if over {
                    self.exchange.telemetry.metrics.left(reason);
                    turns.push(left(from, reason, seq));
                    let span = self.trace_left(&sender, trace, call, n, reason);
                    turns.extend(span.map(Turn::Traced));
                }
                over
            }
            Parcel::Sync => {
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
    fn hear_again(&mut self, from: &UserName, at: Place, n: u64, starts_call: bool) {
        let session = at.session;
        let is_known = self
            .calls
            .get(from)
            .is_some_and(|call| call.may_be_with(session));
        if is_known {
            self.calls.heard(from, at, n);
        } else if starts_call {
            self.answer_that_it_is_over(from, session, n);
        }
    }

    /// This session has no call with the one that said this as its `n`th, and thinks that there is one.
    fn answer_that_it_is_over(&mut self, from: &UserName, session: SessionId, heard: u64) {
        let (n, reason) = (self.outbox.next(), LeaveReason::Lost);
        let (sender, parcel) = (Arc::clone(&self.sender), Parcel::Leave { reason, heard });
        let answer = Notice::new(from.clone(), Some(session), sender, n, parcel);
        self.send_notice(answer, None);
    }
}

/// What an earlier connection had told of this entry.
fn told_again(id: EntryId, envelope: Envelope) -> Option<Turn> {
    let (from, seq) = (envelope.from.address.name.clone(), Some(id));
    match envelope.parcel {
        Parcel::Signal(signal) => Some(Turn::Tell(Event::Signal { from, signal, seq })),
        Parcel::Leave { reason, .. } => Some(left(&from, reason, seq)),
        Parcel::Sync => None,
    }
}

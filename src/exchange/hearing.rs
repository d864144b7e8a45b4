//! What a session hears, from the inbox or directly, and what it makes of it: something to tell, a call that begins or ends, or nothing.

use std::sync::Arc;

use super::calls::{Ending, Place};
use super::memory::Decision;
use super::outbox::Notice;
use super::seat::{Seat, Turn, left};
use crate::bugs::{self, Bug};
use crate::fabric::{Entry, Envelope, Parcel};
use crate::model::{EntryId, Event, LeaveReason, UserName};

impl Seat {
    /// Hears an entry of the inbox, whose turn it is.
    pub(super) fn hear_entry(&mut self, entry: Entry, turns: &mut Vec<Turn>) {
        let Some(memory) = &mut self.memory else {
            self.hear(entry.envelope, None, turns);
            return;
        };
        let Entry { id, envelope } = entry;
        let from = Arc::clone(&envelope.from);
        let before = turns.len();
        let silent = match memory.decision(id) {
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
        memory.dealt(id, &from.address.name, silent);
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
                if !self.heard.is_news(&sender, n, once.as_ref(), in_call) {
                    return false;
                }
                let starts_call = signal.kind.starts_call();
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
                    let (n_of_sync, n) = (n, self.outbox.next());
                    let parcel = Parcel::Leave {
                        reason: LeaveReason::Lost,
                        heard: n_of_sync,
                    };
                    let from = from.clone();
                    let answer =
                        Notice::new(from, Some(session), Arc::clone(&self.sender), n, parcel);
                    self.send_notice(answer, None);
                }
                false
            }
        }
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

//! Events for the client.

use super::outbox::Pending;
use super::{Action, State};
use crate::bugs::{self, Bug};
use crate::model::{AckStatus, Correlation, Event, LeaveReason, Offset, UserName};

impl State {
    /// Sends the client an event.
    pub(super) fn tell(&mut self, event: Event) {
        self.actions.push(Action::Tell(event));
    }

    /// Queues an event behind the outcomes that are not known yet.
    pub(super) fn tell_in_order(&mut self, event: Event) {
        if self.outbox.pending.is_empty() {
            self.tell(event);
        } else {
            self.outbox.pending.push_back(Pending::Told(event));
        }
    }

    /// Tells the client that signals to it may be lost.
    pub(super) fn tell_missed(&mut self) {
        if !bugs::has(Bug::MissedNotTold) {
            self.tell(Event::Status {
                reached: true,
                missed: true,
            });
        }
    }

    pub(super) fn tell_left(&mut self, peer: &UserName, reason: LeaveReason, seq: Option<Offset>) {
        self.tell(left(peer, reason, seq));
    }
}

/// The event for a call peer that has left.
pub(super) fn left(peer: &UserName, reason: LeaveReason, seq: Option<Offset>) -> Event {
    Event::Left {
        from: peer.clone(),
        reason,
        seq,
    }
}

/// The event for a send that was accepted.
pub(super) fn acknowledged(id: Correlation, status: AckStatus) -> Event {
    Event::Ack { id, status }
}

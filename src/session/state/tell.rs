//! What the client is told.

use super::{Action, State};
use crate::bugs::{self, Bug};
use crate::model::{AckStatus, Correlation, Event, LeaveReason, Offset, UserName};

impl State {
    /// Tells the client.
    pub(super) fn tell(&mut self, event: Event) {
        self.actions.push(Action::Tell(event));
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

/// A call peer has left.
pub(super) fn left(peer: &UserName, reason: LeaveReason, seq: Option<Offset>) -> Event {
    Event::Left {
        from: peer.clone(),
        reason,
        seq,
    }
}

/// A send was accepted.
pub(super) fn acknowledged(id: Correlation, status: AckStatus) -> Event {
    Event::Ack { id, status }
}

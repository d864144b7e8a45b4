//! How a call ends that its peer does not end: by us, or because the peer is gone.

use std::sync::Arc;

use super::lost::{Fate, LostPeer};
use super::outbox::Notice;
use super::seat::{Seat, Turn, left};
use crate::fabric::{Holder, Parcel, Sender};
use crate::model::{Correlation, LeaveReason, NodeId, UserName};

impl Seat {
    pub(super) fn leave_one(
        &mut self,
        peer: &UserName,
        reason: LeaveReason,
        id: Option<Correlation>,
    ) {
        let Some(call) = self.calls.remove(peer) else {
            return;
        };
        let n = self.outbox.next();
        let only = call.peer.map(|(session, _)| session);
        let parcel = Parcel::Leave {
            reason,
            heard: call.heard,
        };
        let leave = Notice::new(peer.clone(), only, Arc::clone(&self.sender), n, parcel);
        self.send_notice(leave, id);
        self.note_call(peer);
    }

    pub(super) fn node_lost(&mut self, node: &NodeId) {
        for peer in self.calls.on_node(node) {
            if let Some(session) = self.calls.session(&peer) {
                self.lost.miss(self.address_of(&peer), session, node);
            }
        }
    }

    pub(super) fn found(
        &mut self,
        peer: LostPeer,
        node_lives: bool,
        holder: Option<Holder>,
        turns: &mut Vec<Turn>,
    ) {
        let call = self
            .calls
            .get(peer.name())
            .and_then(|call| call.peer.as_ref());
        if call.is_none_or(|(session, node)| (*session, node) != (peer.session, &peer.node)) {
            // It is over, or goes on elsewhere: whoever said so has told us.
            return;
        }
        if self.exchange.hold.holds().is_some() {
            return self.lost.again(peer);
        }
        match peer.fate(node_lives, holder, self.grace()) {
            Fate::Back => {}
            Fate::Awaited(until) => self.lost.wait(peer, until),
            Fate::Moved(node) => {
                self.calls.moved(peer.name(), peer.session, &node);
                self.note_call(peer.name());
            }
            Fate::Gone(holder) => {
                if let Some(dead) = holder {
                    // Should it fail, the name runs out.
                    drop(self.exchange.fabric.free(&peer.address, &dead));
                }
                if self.memory.is_some() {
                    self.is_gone(peer.name(), LeaveReason::NodeLost);
                } else {
                    turns.push(left(peer.name(), LeaveReason::NodeLost, None));
                    self.leave_one(peer.name(), LeaveReason::Lost, None);
                }
            }
        }
    }

    /// This call peer is gone, which only we know: a resumable session tells itself by its own inbox, so that it is told once, whoever holds
    /// it then. Should the peer live after all, it is told that we have left.
    pub(super) fn is_gone(&mut self, peer: &UserName, reason: LeaveReason) {
        let Some(call) = self.calls.get(peer).cloned() else {
            return;
        };
        let Some((session, node)) = call.peer else {
            return;
        };
        self.calls.give_up(peer);
        let n = self.outbox.next();
        let parcel = Parcel::Leave {
            reason: LeaveReason::Lost,
            heard: call.heard,
        };
        let from = Arc::clone(&self.sender);
        self.send_notice(
            Notice::new(peer.clone(), Some(session), from, n, parcel),
            None,
        );
        let parcel = Parcel::Leave {
            reason,
            heard: call.renewed,
        };
        let its = Sender::new(self.address_of(peer), session, 0, node);
        let own = self.lease.address.name.clone();
        let n = call.heard.max(call.joined);
        let only = Some(self.lease.session);
        self.send_notice(Notice::new(own, only, Arc::new(its), n, parcel), None);
    }
}

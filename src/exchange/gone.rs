//! How a call ends that its peer does not end: by us, or because the peer is gone.

use std::sync::Arc;

use super::calls::{EVERYTHING, Place};
use super::lost::{Fate, LostPeer};
use super::outbox::Notice;
use super::seat::{Seat, Turn, left};
use crate::fabric::{Holder, Parcel, Sender};
use crate::model::{Correlation, EntryId, LeaveReason, NodeId, SessionId, UserName};

impl Seat {
    pub(super) fn leave_one(
        &mut self,
        peer: &UserName,
        reason: LeaveReason,
        id: Option<Correlation>,
    ) {
        let heard = self.calls.get(peer).map_or(0, |call| call.heard);
        self.leave_having_heard(peer, reason, id, heard);
    }

    /// The session ends: nothing that is under way to it begins a call any more.
    pub(super) fn leave_for_good(&mut self, peer: &UserName, reason: LeaveReason) {
        self.leave_having_heard(peer, reason, None, EVERYTHING);
    }

    fn leave_having_heard(
        &mut self,
        peer: &UserName,
        reason: LeaveReason,
        id: Option<Correlation>,
        heard: u64,
    ) {
        let Some(call) = self.calls.remove(peer) else {
            return;
        };
        let n = self.outbox.next();
        let only = call.peer.map(|peer| peer.session);
        let parcel = Parcel::Leave { reason, heard };
        let trace = self.trace_leave(peer, call.trace, reason, n);
        let leave = Notice::new(peer.clone(), only, Arc::clone(&self.sender), n, parcel);
        self.send_notice(leave.traced(trace), id);
        self.note_call(peer);
    }

    pub(super) fn node_lost(&mut self, node: &NodeId) {
        for peer in self.calls.on_node(node) {
            self.mark_one(&peer, "peer's node lost", None);
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
        if call.is_none_or(|at| (at.session, &at.node) != (peer.session, &peer.node)) {
            // It is over, or goes on elsewhere: whoever said so has told us.
            return;
        }
        if self.exchange.hold.holds().is_some() {
            return self.lost.again(peer);
        }
        let terms = self.exchange.terms;
        match peer.fate(node_lives, holder, terms) {
            Fate::Back => {}
            Fate::Awaited(until) => self.lost.wait(peer, until),
            Fate::Moved(to) => {
                self.mark_one(peer.name(), "peer resumed elsewhere", None);
                self.calls.moved(peer.name(), to);
                self.note_call(peer.name());
            }
            Fate::Gone(holder) => {
                if let Some(dead) = holder {
                    // Should it fail, the name runs out.
                    let fabric = &self.exchange.fabric;
                    drop(fabric.release(&peer.address, &dead, EntryId::default()));
                }
                let reason = if node_lives {
                    LeaveReason::Lost
                } else {
                    LeaveReason::NodeLost
                };
                if self.memory.is_some() {
                    self.is_gone(peer.name(), peer.session, reason);
                } else {
                    self.exchange.telemetry.metrics.left(reason);
                    self.mark_one(peer.name(), "peer gone", Some(reason.word()));
                    turns.push(left(peer.name(), reason, None));
                    self.leave_one(peer.name(), LeaveReason::Lost, None);
                }
            }
        }
    }

    /// Nobody has the name of this call peer any more, or somebody else: a store that has lost it may soon be told better.
    pub(super) fn is_absent(&mut self, peer: &UserName) {
        if let Some(Place { session, node, .. }) = self.calls.peer(peer).cloned() {
            self.lost.miss(self.address_of(peer), session, &node);
        }
    }

    /// This call peer is gone, which only we know: a resumable session tells itself by its own inbox, so that it is told once, whoever holds
    /// it then. Should the peer live after all, it is told that we have left.
    pub(super) fn is_gone(&mut self, peer: &UserName, session: SessionId, reason: LeaveReason) {
        let Some(call) = self.calls.get(peer).cloned() else {
            return;
        };
        let Some(at) = call.peer.filter(|at| at.session == session) else {
            return;
        };
        if call.given_up {
            return;
        }
        self.calls.give_up(peer);
        let trace = self.mark_one(peer, "peer gone", Some(reason.word()));
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
            heard: EVERYTHING,
        };
        let its = Sender::new(self.address_of(peer), session, at.attach, at.node);
        let own = self.lease.address.name.clone();
        let n = call.heard.max(call.joined);
        let only = Some(self.lease.session);
        let leave = Notice::new(own, only, Arc::new(its), n, parcel);
        self.send_notice(leave.traced(trace), None);
    }
}

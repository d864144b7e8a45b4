//! Ends calls from our side, or because the peer is gone.

use std::sync::Arc;

use super::call::{EVERYTHING, PeerLocation};
use super::lost_peers::{LostPeer, PeerFate};
use super::notice::Notice;
use super::record::Leaving;
use super::{Effect, FoundPeer, State};
use crate::broker::{Holder, Payload, Sender};
use crate::model::{CallNews, Correlation, LeaveReason, NodeId, SessionId, UserName};

impl State {
    /// Tells each call peer where this session is. A peer that does not have the call answers with a leave, which makes
    /// up for a leave that was lost.
    pub(super) fn sync_all(&mut self) {
        self.calls_are_here();
        for peer in self.calls.peers() {
            let only = self.calls.session(&peer);
            let n = self.outbox.next();
            let trace = self.mark_one(&peer, "resumed", None);
            let sync = Notice::new(peer, only, Arc::clone(&self.sender), n, Payload::Sync);
            self.send_notice(sync.traced(trace), None);
        }
    }

    pub(super) fn leave_one(
        &mut self,
        peer: &UserName,
        reason: LeaveReason,
        id: Option<Correlation>,
    ) {
        self.leave_having_heard(peer, reason, id, self.heard_from(peer));
    }

    /// The `n` of the last signal from this peer, in this call or before. A leave with a lower one would not end a call
    /// that the peer began.
    fn heard_from(&self, peer: &UserName) -> u64 {
        let call = self.calls.get(peer);
        let before = self.dedup.last(peer).filter(|(session, _)| {
            let with = call.and_then(|call| call.peer.as_ref());
            with.is_none_or(|with| with.session == *session)
        });
        let before = before.map_or(0, |(_, (_, n))| n);
        call.map_or(0, |call| call.heard).max(before)
    }

    /// Leaves a call because the session ends: no signal that is under way to it can begin a call.
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
        self.call_happened(peer, &call, CallNews::Ended(reason));
        let n = self.outbox.next();
        let only = call.peer.map(|peer| peer.session);
        let payload = Payload::Leave { reason, heard };
        let trace = self.trace_leave(peer, call.trace, reason, n);
        let leave = Notice::new(peer.clone(), only, Arc::clone(&self.sender), n, payload);
        self.send_notice(leave.traced(trace), id);
        if let Some(record) = &mut self.record {
            record.leaves(peer.clone(), Leaving { only, heard });
        }
        self.save_call(peer);
    }

    /// Sends the leaves again whose outcome an earlier connection did not know.
    pub(super) fn leave_again(&mut self) {
        let Some(record) = &mut self.record else {
            return;
        };
        for (peer, Leaving { only, heard }) in record.take_leaves() {
            let (n, reason) = (self.outbox.next(), LeaveReason::Hangup);
            let (sender, payload) = (Arc::clone(&self.sender), Payload::Leave { reason, heard });
            let leave = Notice::new(peer.clone(), only, sender, n, payload);
            self.send_notice(leave, None);
            if let Some(record) = &mut self.record {
                record.leaves(peer, Leaving { only, heard });
            }
        }
    }

    pub(super) fn node_lost(&mut self, node: &NodeId) {
        for peer in self.calls.on_node(node) {
            self.mark_one(&peer, "peer's node lost", None);
            if let Some(session) = self.calls.session(&peer) {
                self.miss(&peer, session, node);
            }
        }
    }

    /// It is known who holds the names of these lost peers.
    pub(super) fn peers_found(&mut self, found: Vec<FoundPeer>) {
        self.lost.found();
        for (peer, node_lives, holder) in found {
            self.found(peer, node_lives, holder);
        }
    }

    fn found(&mut self, peer: LostPeer, node_lives: bool, holder: Option<Holder>) {
        let call = self
            .calls
            .get(peer.name())
            .and_then(|call| call.peer.as_ref());
        if call.is_none_or(|at| (at.session, &at.node) != (peer.session, &peer.node)) {
            // The call is over, or the peer has told us that it is elsewhere.
            return;
        }
        if self.moment.guard.is_some() {
            return self.lost.again(peer, self.moment.now);
        }
        let terms = self.node.terms;
        match peer.fate(node_lives, holder, terms, self.moment.now) {
            PeerFate::Back => {}
            PeerFate::Awaited(until) => self.lost.wait(peer, until),
            PeerFate::Moved(to) => {
                self.mark_one(peer.name(), "peer resumed elsewhere", None);
                self.calls.moved(peer.name(), to);
                self.save_call(peer.name());
            }
            PeerFate::Gone(holder) => {
                if let Some(dead) = holder {
                    let release = Effect::Release(peer.address.clone(), dead);
                    self.effects.push(release);
                }
                let reason = if node_lives {
                    LeaveReason::Lost
                } else {
                    LeaveReason::NodeLost
                };
                if self.record.is_some() {
                    self.is_gone(peer.name(), peer.session, reason);
                } else {
                    self.node.telemetry.metrics.left(reason);
                    self.mark_one(peer.name(), "peer gone", Some(reason.as_str()));
                    self.tell_left(peer.name(), reason, None);
                    self.call_happens(peer.name(), CallNews::Ended(reason));
                    self.leave_one(peer.name(), LeaveReason::Lost, None);
                }
            }
        }
    }

    /// Handles a call peer whose name is free or held by another session. Waits before it believes so, because a store
    /// that lost the lease may get it back.
    pub(super) fn is_absent(&mut self, peer: &UserName) {
        if let Some(PeerLocation { session, node, .. }) = self.calls.peer(peer).cloned() {
            self.miss(peer, session, &node);
        }
    }

    fn miss(&mut self, peer: &UserName, session: SessionId, node: &NodeId) {
        let call = self.calls.get(peer);
        let may_be_idle = call.is_some_and(|call| call.heard == 0);
        let address = self.address_of(peer);
        self.lost
            .miss(address, session, node, may_be_idle, self.moment.now);
    }

    /// Handles a call peer that is gone without a `leave`. A resumable session sends that `leave` to its own inbox in
    /// the peer's name, so that the client is told exactly once, whichever connection holds the session then. The peer
    /// is sent a `leave` too, in case it is alive after all.
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
        let trace = self.mark_one(peer, "peer gone", Some(reason.as_str()));
        let n = self.outbox.next();
        let payload = Payload::Leave {
            reason: LeaveReason::Lost,
            heard: self.heard_from(peer),
        };
        let from = Arc::clone(&self.sender);
        self.send_notice(
            Notice::new(peer.clone(), Some(session), from, n, payload),
            None,
        );
        let payload = Payload::Leave {
            reason,
            heard: EVERYTHING,
        };
        let its = Sender::new(self.address_of(peer), session, at.generation, at.node);
        let own = self.lease.address.name.clone();
        let n = call.heard.max(call.joined);
        let only = Some(self.lease.session);
        let leave = Notice::new(own, only, Arc::new(its), n, payload);
        self.send_notice(leave.traced(trace), None);
    }
}

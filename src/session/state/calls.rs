//! The calls of one session. Each peer's session remembers its own side.

use std::collections::HashMap;
use std::sync::Arc;

use super::call::{Call, CallTrace, PeerLocation};
use crate::broker::{Flags, Holder};
use crate::model::{NodeId, PeerState, SessionId, UserName};
use crate::router::LocalNode;

/// How many calls a session may begin: each takes room here and in its record, and one `leave` ends them all. Half of
/// them may be with users who are waited for.
const CALLS: usize = 512;

/// The calls of one session.
#[derive(Debug)]
pub(super) struct Calls {
    owner: SessionId,
    generation: u32,
    pub(super) node: Arc<LocalNode>,
    pub(super) peers: HashMap<UserName, Call>,
}

impl Calls {
    /// No calls of a session of this generation.
    pub(super) fn new((owner, generation): (SessionId, u32), node: Arc<LocalNode>) -> Self {
        Self {
            owner,
            generation,
            node,
            peers: HashMap::new(),
        }
    }

    pub(super) fn get(&self, peer: &UserName) -> Option<&Call> {
        self.peers.get(peer)
    }

    /// Whether a call with this user may begin, or has begun.
    pub(super) fn has_room(&self, peer: &UserName) -> bool {
        self.peers.len() < CALLS || self.peers.contains_key(peer)
    }

    /// The trace of the call with this user.
    pub(super) fn trace(&self, peer: &UserName) -> Option<CallTrace> {
        self.peers.get(peer)?.trace
    }

    /// Changes the trace of the call with this user.
    pub(super) fn set_trace(&mut self, peer: &UserName, trace: CallTrace) {
        if let Some(call) = self.peers.get_mut(peer) {
            call.trace = Some(trace);
        }
    }

    /// The traces of all calls.
    pub(super) fn traces(&self) -> impl Iterator<Item = (&UserName, CallTrace)> {
        self.peers
            .iter()
            .filter_map(|(peer, call)| Some((peer, call.trace?)))
    }

    /// Records the state that the client reports for the call. False if there is no call, or the state was reported
    /// before.
    pub(super) fn reports(&mut self, peer: &UserName, state: PeerState) -> bool {
        let Some(call) = self.peers.get_mut(peer) else {
            return false;
        };
        let before = call.reported;
        call.reported |= 1 << state as u8;
        call.reported != before
    }

    /// The peer's session, if it is known.
    pub(super) fn session(&self, peer: &UserName) -> Option<SessionId> {
        Some(self.peer(peer)?.session)
    }

    /// The peer's session and node, if they are known.
    pub(super) fn peer(&self, peer: &UserName) -> Option<&PeerLocation> {
        self.peers.get(peer)?.peer.as_ref()
    }

    /// The peer as a holder, if it is known to be a plain session. A plain session never moves.
    pub(super) fn plain_peer(&self, peer: &UserName) -> Option<Holder> {
        let call = self.peers.get(peer).filter(|call| call.is_plain)?;
        let PeerLocation {
            session,
            generation,
            node,
        } = call.peer.clone()?;
        Some(Holder {
            callable_by: None,
            node,
            session,
            generation,
            flags: Flags::default(),
        })
    }

    /// Restores a call of a resumed session.
    pub(super) fn restore(&mut self, peer: &UserName, call: Call) {
        self.put(peer, call);
    }

    /// The call peers on this node.
    pub(super) fn on_node(&self, node: &NodeId) -> Vec<UserName> {
        let there =
            |call: &Call| !call.given_up && call.peer.as_ref().is_some_and(|at| at.node == *node);
        self.peers
            .iter()
            .filter(|(_, call)| there(call))
            .map(|(peer, _)| peer.clone())
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// All call peers.
    pub(super) fn peers(&self) -> Vec<UserName> {
        self.peers.keys().cloned().collect()
    }

    pub(super) fn remove(&mut self, peer: &UserName) -> Option<Call> {
        let call = self.peers.remove(peer)?;
        self.node.peers.hangs_up(self.owner(), peer);
        self.unbind(&call);
        Some(call)
    }

    pub(super) fn put(&mut self, peer: &UserName, call: Call) {
        if let Some(PeerLocation { node, .. }) = &call.peer
            && *node != self.node.id
        {
            self.node.peers.bind(node, self.owner);
        }
        let session = call.peer.as_ref().map(|at| at.session);
        self.node.peers.calls(self.owner(), peer, session);
        if let Some(before) = self.peers.insert(peer.clone(), call) {
            self.unbind(&before);
        }
    }

    pub(super) fn owner(&self) -> (SessionId, u32) {
        (self.owner, self.generation)
    }

    fn unbind(&self, call: &Call) {
        if let Some(PeerLocation { node, .. }) = &call.peer
            && *node != self.node.id
        {
            self.node.peers.unbind(node, self.owner);
        }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.node.peers.forget(self.owner());
        for call in self.peers.values() {
            self.unbind(call);
        }
    }
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;

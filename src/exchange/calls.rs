//! Who is in a call with whom, as one session remembers it; the other side remembers the same.
//!
//! A call is with a session, not with a name, so a late `leave` cannot end the next call with somebody of the same name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::nodes::NodeWatch;
use crate::model::{NodeId, SessionId, UserName};

impl Call {
    fn is_with_other_than(&self, session: SessionId) -> bool {
        self.peer
            .as_ref()
            .is_some_and(|(known, _)| *known != session)
    }
}

/// The calls of one session.
#[derive(Debug)]
pub(super) struct Calls {
    owner: SessionId,
    own_node: NodeId,
    watch: Arc<NodeWatch>,
    peers: HashMap<UserName, Call>,
}

/// One call, from one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    /// The peer's session and node; unknown until the outcome of the first offer.
    pub(super) peer: Option<(SessionId, NodeId)>,
    /// The `n` of our own signal that began this call; 0 if the peer's did.
    pub(super) since: u64,
    /// The `n` of our own latest offer or answer.
    pub(super) renewed: u64,
    /// The `n` of the last that was heard from the peer.
    pub(super) heard: u64,
    /// The `n` of the peer's latest offer or answer: a leave that is older is of an earlier call.
    pub(super) joined: u64,
    /// Our own node has found the peer gone; its leave is on the way to our inbox.
    pub(super) given_up: bool,
}

/// As it is noted: `SESSION NODE SINCE RENEWED HEARD JOINED`, with `-` for what is not known.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.peer {
            Some((session, node)) => write!(f, "{session} {node}")?,
            None => f.write_str("- -")?,
        }
        let Self {
            since,
            renewed,
            heard,
            joined,
            ..
        } = self;
        write!(f, " {since} {renewed} {heard} {joined}")
    }
}

impl Call {
    /// Reads the words of a note.
    pub(super) fn read<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let (session, node) = (words.next()?, words.next()?);
        let peer = match session {
            "-" => None,
            session => Some((session.parse().ok()?, NodeId::known(node))),
        };
        let mut number = || words.next()?.parse().ok();
        Some(Self {
            peer,
            since: number()?,
            renewed: number()?,
            heard: number()?,
            joined: number()?,
            given_up: false,
        })
    }
}

/// What a peer's `leave` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// No call of ours: an older one, another session's, or one that we left ourselves.
    NotOurs,
    /// The call is over.
    Over,
}

impl Calls {
    pub(super) fn new(owner: SessionId, own_node: NodeId, watch: Arc<NodeWatch>) -> Self {
        Self {
            owner,
            own_node,
            watch,
            peers: HashMap::new(),
        }
    }

    pub(super) fn get(&self, peer: &UserName) -> Option<&Call> {
        self.peers.get(peer)
    }

    /// The session that the call with this user is with, if it is known.
    pub(super) fn session(&self, peer: &UserName) -> Option<SessionId> {
        let (session, _) = self.peers.get(peer)?.peer.as_ref()?;
        Some(*session)
    }

    /// A call of a session that is resumed.
    pub(super) fn restore(&mut self, peer: &UserName, call: Call) {
        self.put(peer, call);
    }

    /// We send an offer or an answer. Returns the `n` of the one before.
    pub(super) fn start(&mut self, peer: &UserName, n: u64) -> u64 {
        let call = self.peers.entry(peer.clone());
        let call = call.or_insert_with(|| Call {
            since: n,
            ..Call::default()
        });
        std::mem::replace(&mut call.renewed, n)
    }

    /// Our offer or answer of that `n` was one that had been sent before, under another.
    pub(super) fn repeated(&mut self, peer: &UserName, n: u64, before: u64) {
        if let Some(call) = self.peers.get_mut(peer)
            && call.renewed == n
        {
            call.renewed = before;
            // A call that began with it began at the earlier `n`, which nobody knows any more.
            if call.since == n {
                call.since = 0;
            }
        }
    }

    /// The peer's session has been resumed on this node. False if we are in no call with it.
    pub(super) fn moved(&mut self, peer: &UserName, session: SessionId, node: &NodeId) -> bool {
        let known = self.peers.get(peer);
        let Some(call) = known.filter(|call| {
            call.peer
                .as_ref()
                .is_some_and(|(known, _)| *known == session)
        }) else {
            return false;
        };
        let call = Call {
            peer: Some((session, node.clone())),
            given_up: false,
            ..call.clone()
        };
        self.put(peer, call);
        true
    }

    /// Our own node has found the peer gone.
    pub(super) fn give_up(&mut self, peer: &UserName) {
        if let Some(call) = self.peers.get_mut(peer) {
            call.given_up = true;
        }
    }

    /// The peer's session sent an offer or an answer. True if a call with an earlier session of that name is over by this.
    pub(super) fn join(
        &mut self,
        peer: &UserName,
        session: SessionId,
        node: &NodeId,
        n: u64,
    ) -> bool {
        let before = self.peers.get(peer);
        let superseded = before.is_some_and(|call| call.is_with_other_than(session));
        // Ours may be under way to it: then it is one call, begun from both sides.
        let call = before.filter(|_| !superseded).cloned().unwrap_or_default();
        self.put(
            peer,
            Call {
                peer: Some((session, node.clone())),
                joined: n,
                given_up: false,
                ..call
            },
        );
        superseded
    }

    /// Something of ours reached this session. True if a call with an earlier session of that name is over by this.
    pub(super) fn reached(
        &mut self,
        peer: &UserName,
        session: SessionId,
        node: &NodeId,
        n: u64,
        starts: bool,
    ) -> bool {
        let Some(call) = self.peers.get(peer) else {
            return false;
        };
        let superseded = call.is_with_other_than(session);
        let with = Some((session, node.clone()));
        match (&call.peer, starts) {
            (Some(_), _) if !superseded => {}
            // Only what starts a call tells with whom: a candidate may have been sent before the call.
            (None, false) => {}
            (None, true) => {
                let call = Call {
                    peer: with,
                    ..call.clone()
                };
                self.put(peer, call);
            }
            (Some(_), true) => self.put(
                peer,
                Call {
                    peer: with,
                    since: n,
                    renewed: n,
                    ..Call::default()
                },
            ),
            (Some(_), false) => drop(self.remove(peer)),
        }
        superseded
    }

    /// Our offer or answer reached nobody.
    pub(super) fn failed(&mut self, peer: &UserName, n: u64) {
        if self
            .peers
            .get(peer)
            .is_some_and(|call| call.peer.is_none() && call.renewed == n)
        {
            self.remove(peer);
        }
    }

    /// Something was heard from this session of the peer.
    pub(super) fn heard(&mut self, peer: &UserName, session: SessionId, n: u64) {
        if let Some(call) = self.peers.get_mut(peer)
            && call
                .peer
                .as_ref()
                .is_none_or(|(known, _)| *known == session)
        {
            call.heard = n;
        }
    }

    /// A session of that name said as its `n`th that its call with us is over; the last that it heard from us was `heard`.
    pub(super) fn end(
        &mut self,
        peer: &UserName,
        session: SessionId,
        n: u64,
        heard: u64,
    ) -> Ending {
        let Some(call) = self.peers.get_mut(peer) else {
            return Ending::NotOurs;
        };
        if call.is_with_other_than(session) || heard < call.since || n < call.joined {
            return Ending::NotOurs;
        }
        if heard < call.renewed {
            // Our latest offer is still under way to it, and will begin the next call there.
            call.since = call.renewed;
        } else {
            self.remove(peer);
        }
        Ending::Over
    }

    /// Who is called on this node.
    pub(super) fn on_node(&self, node: &NodeId) -> Vec<UserName> {
        let there =
            |call: &Call| !call.given_up && call.peer.as_ref().is_some_and(|(_, at)| at == node);
        self.peers
            .iter()
            .filter(|(_, call)| there(call))
            .map(|(peer, _)| peer.clone())
            .collect()
    }

    /// Everybody who is in a call with us.
    pub(super) fn peers(&self) -> Vec<UserName> {
        self.peers.keys().cloned().collect()
    }

    pub(super) fn remove(&mut self, peer: &UserName) -> Option<Call> {
        let call = self.peers.remove(peer)?;
        self.unbind(&call);
        Some(call)
    }

    fn put(&mut self, peer: &UserName, call: Call) {
        if let Some((_, node)) = &call.peer
            && *node != self.own_node
        {
            self.watch.bind(node, self.owner);
        }
        if let Some(before) = self.peers.insert(peer.clone(), call) {
            self.unbind(&before);
        }
    }

    fn unbind(&self, call: &Call) {
        if let Some((_, node)) = &call.peer
            && *node != self.own_node
        {
            self.watch.unbind(node, self.owner);
        }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        for call in self.peers.values() {
            self.unbind(call);
        }
    }
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;

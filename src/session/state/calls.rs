//! Who is in a call with whom, as one session remembers it; the other side remembers the same.
//!
//! A call is with a session, not with a name, so a late `leave` cannot end the next call with somebody of the same name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::broker::{Flags, Holder, Sender};
use crate::model::{NodeId, PeerState, SessionId, TraceContext, UserName};
use crate::router::LocalNode;

/// What the leave of a session says that it has heard, which will hear nothing more: whatever is under way to it begins no call.
pub(super) const EVERYTHING: u64 = u64::MAX;

/// Where the peer of a call is. What tells of an earlier connection of its session may come later: the latest connection is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerLocation {
    pub(super) session: SessionId,
    /// How often the session had been resumed.
    pub(super) generation: u32,
    pub(super) node: NodeId,
}

impl From<&Holder> for PeerLocation {
    fn from(holder: &Holder) -> Self {
        Self {
            session: holder.session,
            generation: holder.generation,
            node: holder.node.clone(),
        }
    }
}

impl From<&Sender> for PeerLocation {
    fn from(sender: &Sender) -> Self {
        Self {
            session: sender.session,
            generation: sender.generation,
            node: sender.node.clone(),
        }
    }
}

impl Call {
    fn is_with(&self, session: SessionId) -> bool {
        self.peer
            .as_ref()
            .is_some_and(|peer| peer.session == session)
    }

    /// Whether it is with this session, or with one that is not known yet.
    pub(super) fn may_be_with(&self, session: SessionId) -> bool {
        !self.is_with_other_than(session)
    }

    fn is_with_other_than(&self, session: SessionId) -> bool {
        self.peer.is_some() && !self.is_with(session)
    }
}

/// The calls of one session.
#[derive(Debug)]
pub(super) struct Calls {
    owner: SessionId,
    node: Arc<LocalNode>,
    peers: HashMap<UserName, Call>,
}

/// One call, from one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    /// Unknown until the outcome of the first offer.
    pub(super) peer: Option<PeerLocation>,
    /// The peer is a plain session, as the outcome of a signal to it said.
    is_plain: bool,
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
    /// Its trace, if calls are traced.
    pub(super) trace: Option<CallTrace>,
    /// A bit for each state that the client has reported since the last offer or answer.
    reported: u8,
}

/// The trace of one call, from one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallTrace {
    /// What further spans are children of.
    pub(super) context: TraceContext,
    /// The peer is known to be in it too.
    pub(super) shared: bool,
    /// The client has told how it ended: another offer begins another.
    pub(super) ended: bool,
    /// A failure was told of a call whose spans are not built.
    pub(super) failed: bool,
}

impl CallTrace {
    /// One that this side begins, or has from its peer.
    pub(super) fn new(context: TraceContext, shared: bool) -> Self {
        Self {
            context,
            shared,
            ended: false,
            failed: false,
        }
    }
}

/// As it is noted: `SESSION ATTACH NODE SINCE RENEWED HEARD JOINED`, with `-` for what is not known, and a traceparent if there is one.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.peer {
            Some(peer) => write!(f, "{} {} {}", peer.session, peer.generation, peer.node)?,
            None => f.write_str("- 0 -")?,
        }
        let Self {
            since,
            renewed,
            heard,
            joined,
            ..
        } = self;
        write!(f, " {since} {renewed} {heard} {joined}")?;
        match &self.trace {
            Some(trace) => write!(f, " {}", trace.context),
            None => Ok(()),
        }
    }
}

impl Call {
    /// Reads the words of a note.
    pub(super) fn read<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let (session, generation, node) = (words.next()?, words.next()?, words.next()?);
        let peer = match session {
            "-" => None,
            session => Some(PeerLocation {
                session: session.parse().ok()?,
                generation: generation.parse().ok()?,
                node: NodeId::known(node),
            }),
        };
        let mut number = || words.next()?.parse().ok();
        Some(Self {
            peer,
            is_plain: false,
            since: number()?,
            renewed: number()?,
            heard: number()?,
            joined: number()?,
            given_up: false,
            trace: words
                .next()
                .and_then(|word| word.parse().ok())
                .map(|context| CallTrace::new(context, true)),
            reported: 0,
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
    pub(super) fn new(owner: SessionId, node: Arc<LocalNode>) -> Self {
        Self {
            owner,
            node,
            peers: HashMap::new(),
        }
    }

    pub(super) fn get(&self, peer: &UserName) -> Option<&Call> {
        self.peers.get(peer)
    }

    /// The trace of the call with this user.
    pub(super) fn trace(&self, peer: &UserName) -> Option<CallTrace> {
        self.peers.get(peer)?.trace
    }

    /// Changes it.
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

    /// The client reports that state of the call. False if there is no call, or it has said so already.
    pub(super) fn reports(&mut self, peer: &UserName, state: PeerState) -> bool {
        let Some(call) = self.peers.get_mut(peer) else {
            return false;
        };
        let before = call.reported;
        call.reported |= 1 << state as u8;
        call.reported != before
    }

    /// The session that the call with this user is with, if it is known.
    pub(super) fn session(&self, peer: &UserName) -> Option<SessionId> {
        Some(self.peer(peer)?.session)
    }

    /// Where the peer of this call is, if that is known.
    pub(super) fn peer(&self, peer: &UserName) -> Option<&PeerLocation> {
        self.peers.get(peer)?.peer.as_ref()
    }

    /// The peer as a holder, if it is known to be a plain session: it never moves.
    pub(super) fn plain_peer(&self, peer: &UserName) -> Option<Holder> {
        let call = self.peers.get(peer).filter(|call| call.is_plain)?;
        let PeerLocation {
            session,
            generation,
            node,
        } = call.peer.clone()?;
        Some(Holder {
            node,
            session,
            generation,
            flags: Flags::default(),
        })
    }

    /// A call of a session that is resumed.
    pub(super) fn restore(&mut self, peer: &UserName, call: Call) {
        self.put(peer, call);
    }

    /// We send an offer or an answer.
    pub(super) fn start(&mut self, peer: &UserName, n: u64) {
        let call = self.peers.entry(peer.clone());
        let nodes = &self.node.peers;
        let call = call.or_insert_with(|| {
            nodes.count(1, 0);
            Call {
                since: n,
                ..Call::default()
            }
        });
        call.reported = 0;
        call.renewed = n;
    }

    /// The peer's session has been resumed there. False if we are in no call with it.
    pub(super) fn moved(&mut self, peer: &UserName, to: PeerLocation) -> bool {
        match self.peers.get_mut(peer) {
            // It has our offer, whose outcome we do not know yet.
            Some(call) if call.peer.is_none() => {
                let call = Call {
                    peer: Some(to),
                    ..call.clone()
                };
                self.put(peer, call);
                true
            }
            Some(call) if call.is_with(to.session) => {
                call.given_up = false;
                self.seen(peer, to);
                true
            }
            _ => false,
        }
    }

    /// The peer's session was seen there: if that is its latest connection, it is there.
    fn seen(&mut self, peer: &UserName, at: PeerLocation) {
        let later =
            |known: &PeerLocation| known.session == at.session && known.generation < at.generation;
        if let Some(call) = self.peers.get(peer)
            && call.peer.as_ref().is_some_and(later)
        {
            let call = Call {
                peer: Some(at),
                ..call.clone()
            };
            self.put(peer, call);
        }
    }

    /// Our own node has found the peer gone.
    pub(super) fn give_up(&mut self, peer: &UserName) {
        if let Some(call) = self.peers.get_mut(peer) {
            call.given_up = true;
        }
    }

    /// The peer's session sent an offer or an answer. True if a call with an earlier session of that name is over by this.
    pub(super) fn join(&mut self, peer: &UserName, at: PeerLocation, n: u64) -> bool {
        let before = self.peers.get(peer);
        let superseded = before.is_some_and(|call| call.is_with_other_than(at.session));
        // Ours may be under way to it: then it is one call, begun from both sides.
        let call = before.filter(|_| !superseded).cloned().unwrap_or_default();
        let known = call
            .peer
            .clone()
            .filter(|known| known.generation > at.generation);
        self.put(
            peer,
            Call {
                peer: Some(known.unwrap_or(at)),
                joined: n,
                given_up: false,
                reported: 0,
                ..call
            },
        );
        superseded
    }

    /// Something of ours reached this session. True if a call with an earlier session of that name is over by this.
    pub(super) fn reached(
        &mut self,
        peer: &UserName,
        holder: &Holder,
        n: u64,
        starts: bool,
    ) -> bool {
        let at = PeerLocation::from(holder);
        let Some(call) = self.peers.get(peer) else {
            return false;
        };
        let superseded = call.is_with_other_than(at.session);
        match (&call.peer, starts) {
            (Some(_), _) if !superseded => self.seen(peer, at),
            // Only what starts a call tells with whom: a candidate may have been sent before the call.
            (None, false) => {}
            (None, true) => {
                let call = Call {
                    peer: Some(at),
                    ..call.clone()
                };
                self.put(peer, call);
            }
            (Some(_), true) => self.put(
                peer,
                Call {
                    peer: Some(at),
                    since: n,
                    renewed: n,
                    ..Call::default()
                },
            ),
            (Some(_), false) => drop(self.remove(peer)),
        }
        if let Some(call) = self.peers.get_mut(peer) {
            call.is_plain = !holder.flags.resumable && call.is_with(holder.session);
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

    /// What an earlier connection had offered reached nobody whom it knew.
    pub(super) fn forget_unanswered(&mut self, peer: &UserName) {
        if self.peers.get(peer).is_some_and(|call| call.peer.is_none()) {
            self.remove(peer);
        }
    }

    /// Something was heard from this session of the peer.
    pub(super) fn heard(&mut self, peer: &UserName, at: PeerLocation, n: u64) {
        if let Some(call) = self.peers.get_mut(peer)
            && !call.is_with_other_than(at.session)
        {
            call.heard = n;
            self.seen(peer, at);
        }
    }

    /// A session of that name said as its `n`th that its call with us is over; the last that it heard from us was `heard`, or
    /// [`EVERYTHING`] if it will hear nothing more.
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

    /// Everybody who is in a call with us.
    pub(super) fn peers(&self) -> Vec<UserName> {
        self.peers.keys().cloned().collect()
    }

    pub(super) fn remove(&mut self, peer: &UserName) -> Option<Call> {
        let call = self.peers.remove(peer)?;
        self.node.peers.count(0, 1);
        self.unbind(&call);
        Some(call)
    }

    fn put(&mut self, peer: &UserName, call: Call) {
        if let Some(PeerLocation { node, .. }) = &call.peer
            && *node != self.node.id
        {
            self.node.peers.bind(node, self.owner);
        }
        if let Some(before) = self.peers.insert(peer.clone(), call) {
            self.unbind(&before);
        } else {
            self.node.peers.count(1, 0);
        }
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
        self.node.peers.count(0, self.peers.len());
        for call in self.peers.values() {
            self.unbind(call);
        }
    }
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;

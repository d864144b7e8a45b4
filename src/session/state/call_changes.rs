//! Transitions of calls, by what is sent and received.

use super::call::{Call, PeerLocation};
use super::calls::Calls;
use crate::broker::Holder;
use crate::model::{SessionId, UserName};

/// The meaning of a peer's `leave`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It ends no call of ours: it belongs to an older call or to another session, or we have left already.
    NotOurs,
    /// It ends our call.
    Over,
}

impl Calls {
    /// We send an offer or an answer.
    pub(super) fn start(&mut self, peer: &UserName, n: u64) {
        let owner = self.owner();
        let call = self.peers.entry(peer.clone());
        let nodes = &self.node.peers;
        let call = call.or_insert_with(|| {
            nodes.calls(owner, peer, None);
            Call {
                since: n,
                ..Call::default()
            }
        });
        call.reported = 0;
        call.renewed = n;
    }

    /// The peer's session was resumed at `to`. False if we are in no call with it.
    pub(super) fn moved(&mut self, peer: &UserName, to: PeerLocation) -> bool {
        match self.peers.get_mut(peer) {
            // The peer has our offer, whose outcome we do not know yet.
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

    /// The peer's session was seen at `at`. Moves the call there unless a later generation is known.
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

    /// Marks the peer as gone.
    pub(super) fn give_up(&mut self, peer: &UserName) {
        if let Some(call) = self.peers.get_mut(peer) {
            call.given_up = true;
        }
    }

    /// The peer sent an offer or an answer. True if this ends a call with an earlier session of that name.
    pub(super) fn join(&mut self, peer: &UserName, at: PeerLocation, n: u64) -> bool {
        let before = self.peers.get(peer);
        let superseded = before.is_some_and(|call| call.is_with_other_than(at.session));
        // Our own offer may be under way to it: then both sides begin one call.
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

    /// A signal of ours reached this holder. True if this ends a call with an earlier session of that name.
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
            // Only an offer or an answer shows whom the call is with: a candidate may have been sent before the call.
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

    /// The offer of an earlier connection reached nobody that it knew.
    pub(super) fn forget_unanswered(&mut self, peer: &UserName) {
        if self.peers.get(peer).is_some_and(|call| call.peer.is_none()) {
            self.remove(peer);
        }
    }

    /// A signal from this session of the peer was received.
    pub(super) fn heard(&mut self, peer: &UserName, at: PeerLocation, n: u64) {
        if let Some(call) = self.peers.get_mut(peer)
            && !call.is_with_other_than(at.session)
        {
            call.heard = n;
            self.seen(peer, at);
        }
    }

    /// The peer's `leave` arrived, its `n`th message. `heard` is the `n` of the last message that it had received from
    /// us, or [`EVERYTHING`](super::call::EVERYTHING).
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
            // Our latest offer is still under way to the peer, and begins the next call there.
            call.since = call.renewed;
        } else {
            self.remove(peer);
        }
        Ending::Over
    }
}

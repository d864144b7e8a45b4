//! How calls begin, go on and end, by what is sent and heard.

use super::call::{Call, PeerLocation};
use super::calls::Calls;
use crate::broker::Holder;
use crate::model::{SessionId, UserName};

/// What a peer's `leave` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// No call of ours: an older one, another session's, or one that we left ourselves.
    NotOurs,
    /// The call is over.
    Over,
}

impl Calls {
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
    /// `EVERYTHING` if it will hear nothing more.
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
}

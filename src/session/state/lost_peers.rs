//! Call peers whose node died: who of them is gone, who went on elsewhere, and whom to wait for.
//!
//! Each node decides for its own sessions, by what it reads itself: so every peer hears exactly one `leave`, wherever it sits.

use std::time::Duration;

use tokio::time::Instant;

use super::call::PeerLocation;
use crate::broker::{Holder, Terms};
use crate::model::{Address, NodeId, SessionId, UserName};

/// When to ask again that could not be answered.
const AGAIN: Duration = Duration::from_millis(250);

/// The lost peers of one session.
#[derive(Debug, Default)]
pub(super) struct LostPeers {
    peers: Vec<LostPeer>,
    is_asking: bool,
}

/// A call peer whose node died.
#[derive(Clone, Debug)]
pub struct LostPeer {
    /// The user.
    pub(in crate::session) address: Address,
    /// The session that the call is with.
    pub(super) session: SessionId,
    /// Its node, which died, or is not known to have the session any more.
    pub(in crate::session) node: NodeId,
    /// When that was noticed.
    since: Instant,
    /// When to look for it.
    look_at: Instant,
}

/// What became of a lost peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerFate {
    /// It is where it was: its node was only frozen, or the store knows it again.
    Back,
    /// It was resumed there.
    Moved(PeerLocation),
    /// It may yet be resumed, until then.
    Awaited(Instant),
    /// It is gone; the holder's name can be freed, if it still has it.
    Gone(Option<Holder>),
}

impl LostPeer {
    /// What became of it, by what was read. The session of a dead node is awaited for the grace from when it was missed; a live node whose
    /// session the store does not know gets the time of a node lease to say that it has it.
    pub(super) fn fate(
        &self,
        node_lives: bool,
        holder: Option<Holder>,
        terms: Terms,
        now: Instant,
    ) -> PeerFate {
        let missing = now - self.since;
        match holder.filter(|holder| holder.session == self.session) {
            Some(holder) if holder.node != self.node => {
                PeerFate::Moved(PeerLocation::from(&holder))
            }
            Some(_) if node_lives => PeerFate::Back,
            None if node_lives && missing < terms.node_ttl => {
                PeerFate::Awaited(self.since + terms.node_ttl)
            }
            Some(holder) if holder.flags.resumable && missing < terms.grace => {
                PeerFate::Awaited(self.since + terms.grace)
            }
            holder => PeerFate::Gone(holder),
        }
    }

    /// The user's name.
    pub(super) fn name(&self) -> &UserName {
        &self.address.name
    }
}

impl LostPeers {
    /// The node of this call peer has died, or the store does not know the peer.
    pub(super) fn miss(
        &mut self,
        address: Address,
        session: SessionId,
        node: &NodeId,
        now: Instant,
    ) {
        let known = |peer: &LostPeer| peer.address == address && peer.node == *node;
        if !self.peers.iter().any(known) {
            self.peers.push(LostPeer {
                address,
                session,
                node: node.clone(),
                since: now,
                look_at: now,
            });
        }
    }

    /// It is awaited until then.
    pub(super) fn wait(&mut self, peer: LostPeer, look_at: Instant) {
        self.peers.push(LostPeer { look_at, ..peer });
    }

    /// It cannot be looked for, in a store that was told of nobody for a while: whoever is to be awaited is awaited from now on.
    pub(super) fn again(&mut self, peer: LostPeer, now: Instant) {
        self.wait(LostPeer { since: now, ..peer }, now + AGAIN);
    }

    /// When to look for the next, if none is being looked for.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let times = self.peers.iter().map(|peer| peer.look_at);
        times.min().filter(|_| !self.is_asking)
    }

    /// Those to look for now. Until they are [found](Self::found), no others are.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<LostPeer> {
        self.is_asking = true;
        self.peers
            .extract_if(.., |peer| peer.look_at <= now)
            .collect()
    }

    /// It is known what became of those that were looked for.
    pub(super) fn found(&mut self) {
        self.is_asking = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Flags;
    use crate::model::Realm;

    #[test]
    fn a_peer_is_gone_resumed_or_awaited() {
        let (dead, other) = (NodeId::known("dead"), NodeId::known("other"));
        let session = SessionId::random();
        let now = Instant::now();
        let peer = LostPeer {
            address: Address::new(Realm::default(), UserName::parse("a").unwrap()),
            session,
            node: dead.clone(),
            since: now,
            look_at: now,
        };
        let holder = |node: &NodeId, session, resumable| {
            Some(Holder {
                node: node.clone(),
                session,
                generation: 2,
                flags: Flags {
                    resumable,
                    detached: false,
                },
            })
        };
        let (grace, node_ttl) = (Duration::from_secs(10), Duration::from_secs(5));
        let terms = Terms {
            user_ttl: Duration::from_secs(30),
            node_ttl,
            challenge: Duration::from_secs(2),
            grace,
        };
        let after = |time, lives, holder| peer.fate(lives, holder, terms, now + time);
        let fate = |lives, holder| after(Duration::ZERO, lives, holder);
        let plain = holder(&dead, session, false);
        let resumable = holder(&dead, session, true);
        let stranger = holder(&other, SessionId::random(), true);
        assert_eq!(fate(true, plain.clone()), PeerFate::Back);
        assert_eq!(fate(false, plain.clone()), PeerFate::Gone(plain));
        assert_eq!(fate(false, None), PeerFate::Gone(None));
        assert_eq!(fate(false, stranger.clone()), PeerFate::Gone(None));
        let moved = PeerFate::Moved(PeerLocation {
            session,
            generation: 2,
            node: other.clone(),
        });
        let resumed = holder(&other, session, true);
        assert_eq!(fate(false, resumed.clone()), moved);
        assert_eq!(fate(true, resumed), moved);
        assert_eq!(
            fate(false, resumable.clone()),
            PeerFate::Awaited(now + grace)
        );
        // The store may have lost it, and be told of it again.
        assert_eq!(fate(true, None), PeerFate::Awaited(now + node_ttl));
        assert_eq!(
            fate(true, stranger.clone()),
            PeerFate::Awaited(now + node_ttl)
        );
        assert_eq!(after(node_ttl, true, None), PeerFate::Gone(None));
        assert_eq!(after(node_ttl, true, stranger), PeerFate::Gone(None));
        let gone = after(grace, false, resumable.clone());
        assert_eq!(gone, PeerFate::Gone(resumable));
    }
}

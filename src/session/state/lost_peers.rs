//! Call peers whose node died: which are gone, which were resumed elsewhere, and which may still come back.
//!
//! Each node decides this for its own sessions, by what it reads itself. So every peer gets exactly one `leave`, on
//! whichever node it is.

use std::time::Duration;

use tokio::time::Instant;

use super::call::PeerLocation;
use crate::broker::{Holder, Terms};
use crate::model::{Address, NodeId, SessionId, UserName};

/// The pause before a lookup that had no usable answer is repeated.
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
    /// Its node, which died or no longer has the session.
    pub(in crate::session) node: NodeId,
    /// When the loss was noticed.
    since: Instant,
    /// When to look the peer up.
    look_at: Instant,
    /// Its client may not know of the call, and may notice the loss late.
    may_be_idle: bool,
}

/// What became of a lost peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerFate {
    /// It is where it was: its node was only frozen, or the store has its lease again.
    Back,
    /// It was resumed on another node.
    Moved(PeerLocation),
    /// It may still be resumed until then.
    Awaited(Instant),
    /// It is gone. The holder's lease, if it is left, can be released.
    Gone(Option<Holder>),
}

impl LostPeer {
    /// Decides what became of the peer, by what was read. A session of a dead node may be resumed for the grace. If the
    /// node is alive but the store does not know the session, the node gets the time of a node lease to renew it.
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
            Some(holder) if holder.flags.resumable && missing < self.grace(terms) => {
                PeerFate::Awaited(self.since + self.grace(terms))
            }
            holder => PeerFate::Gone(holder),
        }
    }

    fn grace(&self, terms: Terms) -> Duration {
        if self.may_be_idle {
            terms.grace_if_idle()
        } else {
            terms.grace
        }
    }

    /// The user's name.
    pub(super) fn name(&self) -> &UserName {
        &self.address.name
    }
}

impl LostPeers {
    /// Adds a call peer whose node died, or that the store does not know.
    pub(super) fn miss(
        &mut self,
        address: Address,
        session: SessionId,
        node: &NodeId,
        may_be_idle: bool,
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
                may_be_idle,
            });
        }
    }

    /// Looks the peer up again at `look_at`.
    pub(super) fn wait(&mut self, peer: LostPeer, look_at: Instant) {
        self.peers.push(LostPeer { look_at, ..peer });
    }

    /// Looks the peer up again soon, because the expiry guard holds. The time to come back starts anew: nobody could
    /// resume meanwhile.
    pub(super) fn again(&mut self, peer: LostPeer, now: Instant) {
        self.wait(LostPeer { since: now, ..peer }, now + AGAIN);
    }

    /// When the next lookup is due, unless one is in flight.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let times = self.peers.iter().map(|peer| peer.look_at);
        times.min().filter(|_| !self.is_asking)
    }

    /// Takes the peers to look up now. No other lookup is due until [`found`](Self::found).
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<LostPeer> {
        self.is_asking = true;
        self.peers
            .extract_if(.., |peer| peer.look_at <= now)
            .collect()
    }

    /// The lookup in flight has been answered.
    pub(super) fn found(&mut self) {
        self.is_asking = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Flags;
    use crate::model::Realm;
    use crate::router::LocalNode;

    fn terms() -> Terms {
        Terms {
            user_ttl: Duration::from_secs(50),
            node_ttl: Duration::from_secs(5),
            challenge: Duration::from_secs(2),
            grace: Duration::from_secs(10),
        }
    }

    #[allow(clippy::unnecessary_wraps, reason = "as the store answers")]
    fn holder(node: &NodeId, session: SessionId, resumable: bool) -> Option<Holder> {
        let flags = Flags {
            resumable,
            detached: false,
        };
        Some(Holder {
            callable_by: None,
            node: node.clone(),
            session,
            generation: 2,
            flags,
        })
    }

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
            may_be_idle: false,
        };
        let terms = terms();
        let (grace, node_ttl) = (terms.grace, terms.node_ttl);
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
        // The store may have lost it and get it back.
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

    #[test]
    fn a_peer_that_may_be_idle_is_awaited_for_longer() {
        let (node, session) = (NodeId::known("dead"), SessionId::random());
        let (terms, now) = (LocalNode::for_tests("n").terms, Instant::now());
        let idle = LostPeer {
            address: Address::new(Realm::default(), UserName::parse("a").unwrap()),
            session,
            node: node.clone(),
            since: now,
            look_at: now,
            may_be_idle: true,
        };
        let flags = Flags {
            resumable: true,
            detached: false,
        };
        let holder = Holder {
            callable_by: None,
            node,
            session,
            generation: 2,
            flags,
        };
        let fate = idle.fate(false, Some(holder), terms, now + terms.grace);
        assert_eq!(fate, PeerFate::Awaited(now + terms.grace_if_idle()));
    }
}

//! Call peers whose node died: who of them is gone, who went on elsewhere, and whom to wait for.
//!
//! Each node decides for its own sessions, by what it reads itself: so every peer hears exactly one `leave`, wherever it sits.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use super::calls::Place;
use crate::fabric::{Fabric, FabricError, Holder, Terms};
use crate::model::{Address, NodeId, SessionId, UserName};

/// When to ask again that could not be answered.
const AGAIN: Duration = Duration::from_millis(250);

/// The lost peers of one session.
#[derive(Default)]
pub(super) struct LostPeers {
    peers: Vec<LostPeer>,
    asking: Option<BoxFuture<'static, Answer>>,
}

/// A call peer whose node died.
#[derive(Clone, Debug)]
pub struct LostPeer {
    /// The user.
    pub(super) address: Address,
    /// The session that the call is with.
    pub(super) session: SessionId,
    /// Its node, which died, or is not known to have the session any more.
    pub(super) node: NodeId,
    /// When that was noticed.
    since: Instant,
    /// When to look for it.
    look_at: Instant,
}

/// What was read about those whose time had come: for each, whether its node lives after all, and who has the name.
pub(super) type Answer = Vec<(LostPeer, bool, Option<Holder>)>;

/// What became of a lost peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is where it was: its node was only frozen, or the store knows it again.
    Back,
    /// It was resumed there.
    Moved(Place),
    /// It may yet be resumed, until then.
    Awaited(Instant),
    /// It is gone; the holder's name can be freed, if it still has it.
    Gone(Option<Holder>),
}

impl LostPeer {
    /// What became of it, by what was read. The session of a dead node is awaited for the grace from when it was missed; a live node whose
    /// session the store does not know gets the time of a node lease to say that it has it.
    pub(super) fn fate(&self, node_lives: bool, holder: Option<Holder>, terms: Terms) -> Fate {
        let missing = self.since.elapsed();
        match holder.filter(|holder| holder.session == self.session) {
            Some(holder) if holder.node != self.node => Fate::Moved(Place::from(&holder)),
            Some(_) if node_lives => Fate::Back,
            None if node_lives && missing < terms.node_ttl => {
                Fate::Awaited(self.since + terms.node_ttl)
            }
            Some(holder) if holder.flags.resumable && missing < terms.grace => {
                Fate::Awaited(self.since + terms.grace)
            }
            holder => Fate::Gone(holder),
        }
    }

    /// The user's name.
    pub(super) fn name(&self) -> &UserName {
        &self.address.name
    }
}

impl LostPeers {
    /// The node of this call peer has died, or the store does not know the peer.
    pub(super) fn miss(&mut self, address: Address, session: SessionId, node: &NodeId) {
        let known = |peer: &LostPeer| peer.address == address && peer.node == *node;
        if !self.peers.iter().any(known) {
            let now = Instant::now();
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
    pub(super) fn again(&mut self, peer: LostPeer) {
        let now = Instant::now();
        self.wait(LostPeer { since: now, ..peer }, now + AGAIN);
    }

    /// Waits until something was read about some of them; for ever if there are none. Can be given up.
    pub(super) async fn read(&mut self, fabric: &Arc<dyn Fabric>) -> Answer {
        if self.asking.is_none() {
            match self.peers.iter().map(|peer| peer.look_at).min() {
                Some(next) => sleep_until(next).await,
                None => return std::future::pending().await,
            }
            let now = Instant::now();
            let (due, later) = self.peers.drain(..).partition(|peer| peer.look_at <= now);
            self.peers = later;
            self.asking = Some(look_for(Arc::clone(fabric), due).boxed());
        }
        let answer = match &mut self.asking {
            Some(asking) => asking.await,
            None => return std::future::pending().await,
        };
        self.asking = None;
        answer
    }
}

async fn look_for(fabric: Arc<dyn Fabric>, peers: Vec<LostPeer>) -> Answer {
    let addresses: Vec<Address> = peers.iter().map(|peer| peer.address.clone()).collect();
    let nodes: Vec<NodeId> = peers.iter().map(|peer| peer.node.clone()).collect();
    loop {
        let read = async {
            let holders = fabric.holders(&addresses).await?;
            // Last: a store that had lost its data by then would have told nothing.
            let nodes = fabric.nodes(&nodes).await?;
            Ok::<_, FabricError>((holders, nodes))
        };
        // An outage is waited for: whoever is asked about is in a call with us until somebody knows better.
        let (holders, nodes) = match read.await {
            Ok((holders, nodes)) if nodes.intact => (holders, nodes),
            _ => {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let answers = peers.into_iter().zip(nodes.alive).zip(holders);
        return answers
            .map(|((peer, alive), holder)| (peer, alive, holder))
            .collect();
    }
}

impl std::fmt::Debug for LostPeers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LostPeers")
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Flags;
    use crate::model::Realm;

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_gone_resumed_or_awaited() {
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
                attach: 2,
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
        let fate = |lives, holder| peer.fate(lives, holder, terms);
        let plain = holder(&dead, session, false);
        let resumable = holder(&dead, session, true);
        let stranger = holder(&other, SessionId::random(), true);
        assert_eq!(fate(true, plain.clone()), Fate::Back);
        assert_eq!(fate(false, plain.clone()), Fate::Gone(plain));
        assert_eq!(fate(false, None), Fate::Gone(None));
        assert_eq!(fate(false, stranger.clone()), Fate::Gone(None));
        let moved = Fate::Moved(Place {
            session,
            attach: 2,
            node: other.clone(),
        });
        let resumed = holder(&other, session, true);
        assert_eq!(fate(false, resumed.clone()), moved);
        assert_eq!(fate(true, resumed), moved);
        assert_eq!(fate(false, resumable.clone()), Fate::Awaited(now + grace));
        // The store may have lost it, and be told of it again.
        assert_eq!(fate(true, None), Fate::Awaited(now + node_ttl));
        assert_eq!(fate(true, stranger.clone()), Fate::Awaited(now + node_ttl));
        tokio::time::advance(node_ttl).await;
        assert_eq!(fate(true, None), Fate::Gone(None));
        assert_eq!(fate(true, stranger), Fate::Gone(None));
        tokio::time::advance(grace).await;
        assert_eq!(fate(false, resumable.clone()), Fate::Gone(resumable));
    }
}

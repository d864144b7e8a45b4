//! Watches the other nodes that sessions of this node have to do with. The heartbeat reads their leases.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hashbrown::HashMap;
use tokio::time::Instant;

use crate::model::{NodeId, SessionId, UserName};

/// The nodes that call peers are on, and the nodes that signals were lately sent to.
#[derive(Debug, Default)]
pub struct NodeMonitor {
    /// Held for map operations only.
    nodes: Mutex<HashMap<NodeId, Known>>,
    /// The calls of each session of this node, by its generation too: two of its connections may be here for a moment.
    /// Held for map operations only.
    sides: Mutex<Sides>,
}

type Sides = HashMap<(SessionId, u32), HashMap<UserName, CallSide>>;

/// One side of a call, as the node of that side knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSide {
    /// The session of the call peer, once it is known.
    pub peer: Option<SessionId>,
    /// When the call began, or came to this node.
    pub since: SystemTime,
}

#[derive(Debug)]
struct Known {
    /// When the node was first seen dead, if it is.
    dead_since: Option<Instant>,
    named_at: Instant,
    /// How many call peers on that node each session has.
    calls: HashMap<SessionId, usize>,
}

impl NodeMonitor {
    /// Adds a call peer of `session` on `node`.
    pub fn bind(&self, node: &NodeId, session: SessionId) {
        let mut nodes = self.lock();
        *known(&mut nodes, node).calls.entry(session).or_default() += 1;
    }

    /// A session of this node is in a call with this user, of whom this session is known.
    pub fn calls(&self, session: (SessionId, u32), user: &UserName, peer: Option<SessionId>) {
        let mut sides = self.lock_sides();
        let calls = sides.entry(session).or_default();
        if let Some(side) = calls.get_mut(user) {
            side.peer = peer;
        } else {
            let since = SystemTime::now();
            calls.insert(user.clone(), CallSide { peer, since });
        }
    }

    /// A call of a session of this node is over.
    pub fn hangs_up(&self, session: (SessionId, u32), user: &UserName) {
        let mut sides = self.lock_sides();
        if let Some(calls) = sides.get_mut(&session) {
            calls.remove(user);
            if calls.is_empty() {
                sides.remove(&session);
            }
        }
    }

    /// All calls of a session of this node are over, or go on elsewhere.
    pub fn forget(&self, session: (SessionId, u32)) {
        self.lock_sides().remove(&session);
    }

    /// The number of call sides on this node.
    pub fn sides(&self) -> u64 {
        let sides = self.lock_sides();
        sides.values().map(|calls| calls.len() as u64).sum()
    }

    /// The number of calls of a session of this node.
    pub fn sides_of(&self, session: (SessionId, u32)) -> usize {
        self.lock_sides().get(&session).map_or(0, HashMap::len)
    }

    /// The call peers of a session of this node, and since when.
    pub fn peers_of(&self, session: (SessionId, u32)) -> Vec<(UserName, SystemTime)> {
        let sides = self.lock_sides();
        let calls = sides.get(&session).into_iter().flatten();
        calls
            .map(|(user, side)| (user.clone(), side.since))
            .collect()
    }

    /// Calls `with` on each call side of this node.
    pub fn each_side(&self, mut with: impl FnMut(SessionId, &UserName, &CallSide)) {
        for ((session, _), calls) in self.lock_sides().iter() {
            for (user, side) in calls {
                with(*session, user, side);
            }
        }
    }

    /// The nodes that are not known to be dead.
    pub fn living(&self) -> Vec<NodeId> {
        let nodes = self.lock();
        let living = nodes.iter().filter(|(_, known)| known.dead_since.is_none());
        living.map(|(node, _)| node.clone()).collect()
    }

    /// Removes a call peer of `session` on `node`.
    pub fn unbind(&self, node: &NodeId, session: SessionId) {
        let mut nodes = self.lock();
        let Some(Known {
            calls, named_at, ..
        }) = nodes.get_mut(node)
        else {
            return;
        };
        if let Some(count) = calls.get_mut(&session) {
            *count -= 1;
            if *count == 0 {
                calls.remove(&session);
                *named_at = Instant::now();
            }
        }
    }

    /// Records that a signal was sent to the node. True if the node is known to be dead.
    pub fn note(&self, node: &NodeId) -> bool {
        let mut nodes = self.lock();
        let known = match nodes.get_mut(node) {
            Some(known) => known,
            None => known(&mut nodes, node),
        };
        known.named_at = Instant::now();
        known.dead_since.is_some()
    }

    /// Records that the node's lease is missing. Returns for how long that has been known.
    pub fn dead_for(&self, node: &NodeId) -> Duration {
        let mut nodes = self.lock();
        let known = known(&mut nodes, node);
        known.named_at = Instant::now();
        known.dead_since.get_or_insert_with(Instant::now).elapsed()
    }

    /// The nodes whose leases to read. Forgets nodes without call peers that nothing was sent to for `remember`.
    pub fn watched(&self, remember: Duration) -> Vec<NodeId> {
        let mut nodes = self.lock();
        nodes.retain(|_, known| !known.calls.is_empty() || known.named_at.elapsed() < remember);
        nodes.keys().cloned().collect()
    }

    /// Records whether the node is alive. If it is dead, returns the sessions that have call peers there, and whether
    /// that it is dead was not known.
    pub fn found(&self, node: &NodeId, alive: bool) -> (Vec<SessionId>, bool) {
        let mut nodes = self.lock();
        let Some(known) = nodes.get_mut(node) else {
            return (Vec::new(), false);
        };
        if alive {
            known.dead_since = None;
            (Vec::new(), false)
        } else {
            let is_news = known.dead_since.is_none();
            known.dead_since.get_or_insert_with(Instant::now);
            (known.calls.keys().copied().collect(), is_news)
        }
    }

    fn lock_sides(&self) -> MutexGuard<'_, Sides> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Known>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn known<'a>(nodes: &'a mut HashMap<NodeId, Known>, node: &NodeId) -> &'a mut Known {
    if !nodes.contains_key(node) {
        let fresh = Known {
            dead_since: None,
            named_at: Instant::now(),
            calls: HashMap::new(),
        };
        nodes.insert(node.clone(), fresh);
    }
    nodes
        .get_mut(node)
        .unwrap_or_else(|| unreachable!("it was just inserted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_watched_as_long_as_it_matters() {
        let (watch, node, session) = (
            NodeMonitor::default(),
            NodeId::known("n"),
            SessionId::random(),
        );
        watch.bind(&node, session);
        watch.bind(&node, session);
        watch.unbind(&node, session);
        assert_eq!(watch.watched(Duration::ZERO), std::slice::from_ref(&node));
        assert_eq!(watch.found(&node, false), (vec![session], true));
        assert_eq!(watch.found(&node, false), (vec![session], false));
        assert!(watch.note(&node), "dead");
        assert_eq!(watch.found(&node, true), (vec![], false));
        assert!(!watch.note(&node), "it was only frozen");
        watch.unbind(&node, session);
        assert_eq!(
            watch.watched(Duration::from_mins(1)),
            std::slice::from_ref(&node)
        );
        assert!(watch.watched(Duration::ZERO).is_empty());
    }
}

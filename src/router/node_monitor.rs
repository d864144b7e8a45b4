//! Watches the other nodes that sessions of this node have to do with. The heartbeat reads their leases.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;

use crate::model::{NodeId, SessionId};

/// The nodes that call peers are on, and the nodes that signals were lately sent to.
#[derive(Debug, Default)]
pub struct NodeMonitor {
    /// Held for map operations only.
    nodes: Mutex<HashMap<NodeId, Known>>,
    /// Call sides of all sessions of this node.
    calls: AtomicU64,
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

    /// Adjusts the number of call sides on this node.
    pub fn count(&self, more: usize, less: usize) {
        self.calls.fetch_add(more as u64, Ordering::Relaxed);
        self.calls.fetch_sub(less as u64, Ordering::Relaxed);
    }

    /// The number of call sides on this node.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
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

    /// Records whether the node is alive. If it is dead, returns the sessions that have call peers there.
    pub fn found(&self, node: &NodeId, alive: bool) -> Vec<SessionId> {
        let mut nodes = self.lock();
        let Some(known) = nodes.get_mut(node) else {
            return Vec::new();
        };
        if alive {
            known.dead_since = None;
            Vec::new()
        } else {
            known.dead_since.get_or_insert_with(Instant::now);
            known.calls.keys().copied().collect()
        }
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
        assert_eq!(watch.found(&node, false), [session]);
        assert!(watch.note(&node), "dead");
        assert!(watch.found(&node, true).is_empty());
        assert!(!watch.note(&node), "it was only frozen");
        watch.unbind(&node, session);
        assert_eq!(
            watch.watched(Duration::from_mins(1)),
            std::slice::from_ref(&node)
        );
        assert!(watch.watched(Duration::ZERO).is_empty());
    }
}

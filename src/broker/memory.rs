//! The broker without a store: shared memory for the nodes of one process.
//!
//! A deployment without Redis connects one node, tests connect up to three. It keeps the promises that Redis keeps,
//! expiry included, so tests of everything above the broker run on it too.

mod callers;
mod events;
mod log;
mod name;
mod node;
mod revocations;
mod state;

use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::node::MemoryNode;
use self::state::{CONNECTION, Node, Shared};
use super::inbound::InboundQueue;
use super::{Connected, EventLog, QUESTIONS, StoreHealth, Terms};
use crate::model::NodeId;

/// The store. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryBroker {
    shared: Shared,
}

impl MemoryBroker {
    /// An empty store without nodes.
    pub fn new(terms: Terms) -> Self {
        Self {
            shared: Shared::new(terms),
        }
    }

    /// Connects a node.
    pub fn connect(&self, id: NodeId) -> Connected {
        let (inbound, inbox) = InboundQueue::new(Some(CONNECTION));
        let inbound = Arc::new(inbound);
        let (http, questions) = mpsc::channel(QUESTIONS);
        let (admin, admin_questions) = mpsc::channel(QUESTIONS);
        let node = Node {
            inbound: Arc::clone(&inbound),
            http,
            admin,
            until: Instant::now() + self.shared.terms.node_ttl,
        };
        let epoch = {
            let mut state = self.shared.lock();
            state.nodes.insert(id.clone(), node);
            state.epoch.subscribe()
        };
        let announcer = async move { inbound.announce().await }.boxed();
        let broker = Arc::new(MemoryNode {
            shared: self.shared.clone(),
            id,
        });
        Connected {
            events: Arc::clone(&broker) as Arc<dyn EventLog>,
            broker,
            inbox,
            questions,
            admin_questions,
            epoch,
            health: StoreHealth::good(),
            drivers: vec![("gap announcer", announcer)],
        }
    }

    /// Test fault: the node misses every push from here on.
    pub fn block_pushes(&self, node: &NodeId) {
        if let Some(node) = self.shared.lock().nodes.get(node) {
            node.inbound.close();
        }
    }

    /// Ends that fault: the node receives pushes again, behind a gap.
    pub async fn unblock_pushes(&self, node: &NodeId) {
        let inbound = self
            .shared
            .lock()
            .nodes
            .get(node)
            .map(|node| Arc::clone(&node.inbound));
        if let Some(inbound) = inbound {
            inbound.open(CONNECTION).await;
        }
    }

    /// Test fault: while the store is unreachable, every call times out at once.
    pub fn set_unreachable(&self, is_unreachable: bool) {
        self.shared.lock().is_unreachable = is_unreachable;
    }

    /// Test fault: the store loses all data, as by a FLUSHALL.
    pub fn flush(&self) {
        let mut state = self.shared.lock();
        state.names.clear();
        state.epoch.send_modify(|epoch| *epoch += 1);
        state.locators.clear();
        state.revocations.clear();
        state.callers.clear();
        let now = Instant::now();
        state.nodes.values_mut().for_each(|node| node.until = now);
    }
}

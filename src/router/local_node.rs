//! What the sessions of a node share: who the node is, its terms, its telemetry, and the nodes of their peers.

use super::{Facts, NodeMonitor};
use crate::broker::Terms;
use crate::model::NodeId;
use crate::telemetry::Telemetry;

/// What sessions need of their node.
#[derive(Debug)]
pub struct LocalNode {
    /// This node's id.
    pub id: NodeId,
    /// Lifetimes of leases and time-outs.
    pub terms: Terms,
    /// Metrics and traces.
    pub telemetry: Telemetry,
    /// The other nodes that sessions of this node have to do with.
    pub peers: NodeMonitor,
    /// Where sessions tell what happened to them.
    pub facts: Facts,
}

impl LocalNode {
    /// A node with the default terms and no telemetry.
    #[cfg(test)]
    pub(crate) fn for_tests(id: &str) -> Self {
        let second = std::time::Duration::from_secs(1);
        Self {
            id: NodeId::known(id),
            terms: Terms {
                user_ttl: 50 * second,
                node_ttl: 5 * second,
                challenge: 2 * second,
                grace: 10 * second,
            },
            telemetry: Telemetry::default(),
            peers: NodeMonitor::default(),
            facts: Facts::default(),
        }
    }
}

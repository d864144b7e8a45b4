//! The node as operators see it: the state behind the routes of the admin listener.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::drain::Phase;
use crate::router::Router;

/// The state behind the admin routes.
#[derive(Clone, Debug)]
pub struct NodeView {
    router: Arc<Router>,
    phase: Phase,
    broker: &'static str,
    started: Instant,
    stop: CancellationToken,
}

impl NodeView {
    /// Creates the state of a node that starts now. `broker` names the kind of broker.
    /// Cancelling `stop` drains the node.
    pub fn new(
        router: Arc<Router>,
        phase: Phase,
        broker: &'static str,
        stop: CancellationToken,
    ) -> Self {
        Self {
            router,
            phase,
            broker,
            started: Instant::now(),
            stop,
        }
    }

    pub(super) fn router(&self) -> &Router {
        &self.router
    }

    /// Asks the node to drain, as a signal does.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    pub(super) fn broker_kind(&self) -> &'static str {
        self.broker
    }

    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.phase.is_draining()
    }
}

//! How a node stops: Serving, then Draining until the last session is gone, then Stopped.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Where a node is on its way from start to stop. Clones are of the same node.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    draining: CancellationToken,
    sessions: TaskTracker,
}

impl Phase {
    /// Whether the node takes nobody new.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Cancelled when the node begins to drain.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Counts a session, until the token is dropped.
    pub fn track(&self) -> TaskTrackerToken {
        self.sessions.token()
    }

    /// How many sessions there are, logged in or not.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Tells every session to go, and waits until they have. False if some had not by the deadline.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.draining.cancel();
        self.sessions.close();
        timeout(deadline, self.sessions.wait()).await.is_ok()
    }
}

//! How a node stops: Serving, then Draining until the last session is gone, then Stopped.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How much time each session gets to itself: the nodes that take them over are not to be run down.
const DEPARTURE_INTERVAL: Duration = Duration::from_millis(5);

/// Where a node is on its way from start to stop. Clones are of the same node.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    draining: CancellationToken,
    sessions: TaskTracker,
    spread: Arc<OnceLock<Duration>>,
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

    /// When a session of a draining node is to go, each at a time of its own.
    pub fn departure_delay(&self) -> Duration {
        let spread = self.spread.get().copied().unwrap_or_default();
        spread.mul_f64(rand::random_range(0.0..1.0))
    }

    /// Counts a session, until the token is dropped.
    pub fn track(&self) -> TaskTrackerToken {
        self.sessions.token()
    }

    /// How many sessions there are, logged in or not.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Tells every session to go, spread over `window` or less if they are few, and waits until they have. False if some had not by the deadline.
    pub async fn drain(&self, window: Duration, deadline: Duration) -> bool {
        let sessions = u32::try_from(self.sessions()).unwrap_or(u32::MAX);
        // Set once: whoever drains again finds the node draining.
        let _ = self
            .spread
            .set(window.min(DEPARTURE_INTERVAL.saturating_mul(sessions)));
        self.draining.cancel();
        self.sessions.close();
        timeout(deadline, self.sessions.wait()).await.is_ok()
    }
}

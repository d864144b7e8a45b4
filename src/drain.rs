//! Draining: from running, through draining until the last session is gone, to stopped.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The interval between departures, so that the nodes that take the sessions over are not
/// overloaded.
const DEPARTURE_INTERVAL: Duration = Duration::from_millis(5);

/// The phase of a node. Clones belong to the same node.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    draining: CancellationToken,
    sessions: TaskTracker,
    spread: Arc<OnceLock<Duration>>,
}

impl Phase {
    /// Whether the node drains, and accepts no new sessions.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Cancelled when the node begins to drain.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// A random delay after which a session of a draining node leaves, within the spread of this
    /// drain.
    pub fn departure_delay(&self) -> Duration {
        let spread = self.spread.get().copied().unwrap_or_default();
        spread.mul_f64(rand::random_range(0.0..1.0))
    }

    /// Counts a session until the token is dropped.
    pub fn track(&self) -> TaskTrackerToken {
        self.sessions.token()
    }

    /// The number of sessions, logged in or not.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Asks all sessions to leave, spread over `window` or less if they are few, and waits for
    /// them. Returns false if some are left at the deadline.
    pub async fn drain(&self, window: Duration, deadline: Duration) -> bool {
        let sessions = u32::try_from(self.sessions()).unwrap_or(u32::MAX);
        // Only the first drain sets the spread; a second call finds the node draining.
        let _ = self
            .spread
            .set(window.min(DEPARTURE_INTERVAL.saturating_mul(sessions)));
        self.draining.cancel();
        self.sessions.close();
        timeout(deadline, self.sessions.wait()).await.is_ok()
    }
}

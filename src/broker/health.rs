//! Whether the store can be used.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A store that worked may fail for so long before its node counts as unusable: a failover is shorter.
const UNUSABLE_AFTER: Duration = Duration::from_secs(10);

/// What a node knows of the store's health. It changes with each probe.
pub type Health = watch::Receiver<StoreHealth>;

/// What the last probe of the store found. A probe tries everything that a node needs.
#[derive(Clone, Debug, Default)]
pub struct StoreHealth {
    /// What is wrong and what mends it, for the operator.
    pub trouble: Option<Arc<str>>,
    /// What does no harm yet but will, for the operator.
    pub warnings: Vec<Arc<str>>,
    /// When everything worked last. `None` if it never did.
    pub worked_at: Option<Instant>,
}

impl StoreHealth {
    /// The health of a store that needs no probe.
    pub fn good() -> Health {
        let health = Self {
            worked_at: Some(Instant::now()),
            ..Self::default()
        };
        watch::Sender::new(health).subscribe()
    }

    /// Whether sessions can be served.
    pub fn is_usable(&self) -> bool {
        let is_recent = |at: Instant| at.elapsed() < UNUSABLE_AFTER;
        self.worked_at.is_some()
            && (self.trouble.is_none() || self.worked_at.is_some_and(is_recent))
    }
}

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
    /// Since when something has been wrong.
    pub since: Option<Instant>,
    /// Whether everything has worked once.
    pub has_worked: bool,
}

impl StoreHealth {
    /// The health of a store that needs no probe.
    pub fn good() -> Health {
        let health = Self {
            has_worked: true,
            ..Self::default()
        };
        watch::Sender::new(health).subscribe()
    }

    /// Whether sessions can be served.
    pub fn is_usable(&self) -> bool {
        let is_recent = |since: Instant| since.elapsed() < UNUSABLE_AFTER;
        self.has_worked && self.since.is_none_or(is_recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_worked_may_fail_for_a_while() {
        let mut health = StoreHealth::default();
        assert!(!health.is_usable(), "it never worked");
        health.has_worked = true;
        // However long ago the last probe was, the time counts from the first trouble.
        tokio::time::advance(UNUSABLE_AFTER * 2).await;
        health.since = Some(Instant::now());
        assert!(health.is_usable());
        tokio::time::advance(UNUSABLE_AFTER).await;
        assert!(!health.is_usable());
        health.since = None;
        assert!(health.is_usable());
    }
}

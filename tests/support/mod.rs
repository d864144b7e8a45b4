//! What the suites share: clusters, processes and the people who talk through them.

// Each suite uses its own part of this.
#![allow(dead_code)]

pub mod cluster;
pub mod failover;
pub mod http;
pub mod peer;
pub mod peerjs;
pub mod process;
pub mod proxy;
pub mod roundrobin;
pub mod sse;
pub mod talker;
pub mod visitor;

use std::time::Duration;

/// How long anything may take that is not measured.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something is so. Polls: for what cannot be awaited, such as another process.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

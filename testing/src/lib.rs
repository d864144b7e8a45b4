//! The test kit that all suites share: server processes, in-process clusters, proxies and one client for each protocol.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`process`] | a child process that cannot outlive its test |
//! | [`redis_server`], [`node`] | a `redis-server` and a Switchboard node as processes |
//! | [`cluster`] | nodes inside the test's process, over memory or Redis |
//! | [`websocket`], [`http`], [`http_session`], [`peerjs`] | the clients |
//! | [`call`] | one side of a call that keeps going through faults, and counts what arrives |
//! | [`proxy`], [`round_robin`], [`failover`] | bad networks, a load balancer, a Redis primary with a replica |
//! | [`collector`] | an OTLP receiver that keeps what it gets |
//! | [`dns`] | a name server that fails in the ways of name servers |
//!
//! The functions panic when something is not as a test needs it: a failed expectation is a failed test. Those named
//! `try_…` return an error or
//! `None`.

// A test kit fails by panicking, and its items are documented where the name does not say it.
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    missing_debug_implementations,
    missing_docs
)]

pub mod call;
pub mod cluster;
pub mod collector;
pub mod dns;
pub mod failover;
pub mod http;
pub mod http_session;
pub mod node;
pub mod peerjs;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod redis_server;
pub mod round_robin;
mod signals;
mod tls_listener;
pub mod tokens;
pub mod websocket;

use std::time::Duration;

pub use cluster::Cluster;
pub use http_session::HttpSession;
pub use node::Node;
pub use process::Process;
pub use proxy::Proxy;
pub use redis_server::Redis;
pub use websocket::Client;

/// The longest wait for anything whose duration a test does not measure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls every 10 ms until `check` returns a value; panics with `what` after [`PATIENCE`].
///
/// For conditions that cannot be awaited, such as the state of another process.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

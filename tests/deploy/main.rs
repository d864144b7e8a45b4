//! The cluster that `deploy/` describes, as processes: HAProxy with the shipped configuration, three nodes, a Redis.

// The tests print what they measured; `make test` shows it.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod front;
mod haproxy;

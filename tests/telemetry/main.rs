//! What operators see: traces at an OTLP receiver, metrics in a real Prometheus, log lines, and that no secret is in
//! them.
//!
//! Faults are real: killed nodes, a frozen Redis, a collector that does not answer.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod away;
mod logs;
mod metrics;
mod prometheus;
mod rules;
mod setup;
mod tls;
mod traces;

//! What operators see: traces at a real OTLP receiver, figures in a real Prometheus, log lines; and that nothing leaks into them.
//!
//! Faults are real: killed nodes, a Redis that is frozen, a collector that does not answer.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

#[path = "../support/mod.rs"]
mod support;

mod away;
mod collector;
mod figures;
mod prometheus;
mod rules;
mod stage;
mod traces;

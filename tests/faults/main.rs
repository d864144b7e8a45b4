//! Real processes under real faults: kill -9, SIGSTOP, cut connections, lost data, clients that misbehave.
//!
//! These measure times, so each has the machine to itself.

// What was measured is printed: `make test` shows it.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

#[path = "../support/mod.rs"]
mod support;

mod alone;
mod crowd;
mod holders;
mod http;
mod http_home;
mod killed;
mod order;
mod peerjs;
mod promoted;
mod resumed;
mod slow;
mod stalls;

use tokio::sync::{Mutex, MutexGuard};

static MACHINE: Mutex<()> = Mutex::const_new(());

/// Waits for the machine.
async fn alone() -> MutexGuard<'static, ()> {
    MACHINE.lock().await
}

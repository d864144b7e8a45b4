//! Nodes and Redis as processes under faults: kill -9, SIGSTOP, cut connections, lost data, clients that misbehave.
//!
//! These tests measure times, so they run one at a time.

// The tests print what they measured; `make test` shows it.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod alone;
mod crowd;
mod emptied;
mod held_back;
mod holders;
mod http;
mod http_home;
mod killed;
mod order;
mod peerjs;
mod promoted;
mod resumed;
mod silent;
mod slow;
mod stalls;
mod talker;
mod young;

use tokio::sync::{Mutex, MutexGuard};

static MACHINE: Mutex<()> = Mutex::const_new(());

/// Waits until no other test of this suite runs.
async fn alone() -> MutexGuard<'static, ()> {
    MACHINE.lock().await
}

/// How often a test repeats what it shows: `ROUNDS`, or the default.
fn rounds(default: u32) -> u32 {
    std::env::var("ROUNDS").map_or(default, |rounds| rounds.parse().unwrap())
}

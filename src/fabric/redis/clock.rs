//! The server's clock, by which commands are too late.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::time::Instant;

use super::wire::millis;

/// The server's clock, as far ahead as it can be: a deadline is late by a round trip at most, never early.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    offset: AtomicI64,
}

impl Default for Clock {
    fn default() -> Self {
        // Before the first beat nothing is too late.
        Self {
            started: Instant::now(),
            offset: AtomicI64::new(i64::MAX / 4),
        }
    }
}

impl Clock {
    pub(super) fn mark(&self) -> i64 {
        millis(self.started.elapsed())
    }

    pub(super) fn set(&self, asked_at: i64, server_millis: i64) {
        self.offset
            .store(server_millis - asked_at, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> i64 {
        self.mark() + self.offset.load(Ordering::Relaxed)
    }
}

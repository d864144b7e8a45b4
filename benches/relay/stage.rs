//! Tells pairs when to work and when to rest, and counts what they do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// What is done does not count.
    WarmUp,
    Work,
    /// Nothing new is begun: another subject has its turn.
    Rest,
    /// The end.
    Closing,
}

/// What the pairs of one subject look at.
pub(crate) struct Stage {
    phase: watch::Sender<Phase>,
    resting: AtomicUsize,
    rests: Notify,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self {
            phase: watch::Sender::new(Phase::WarmUp),
            resting: AtomicUsize::new(0),
            rests: Notify::new(),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Waits until so many pairs have completed what they had begun.
    pub(crate) async fn all_rest(&self, pairs: usize) {
        while self.resting.load(Ordering::Relaxed) < pairs {
            self.rests.notified().await;
        }
    }

    /// Whether a pair is to begin something new now.
    pub(crate) fn is_working(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::WarmUp | Phase::Work)
    }

    /// Waits until a pair is to begin something new, having completed everything; `false` at the end.
    pub(crate) async fn goes_on(&self) -> bool {
        if self.is_working() {
            return true;
        }
        self.resting.fetch_add(1, Ordering::Relaxed);
        self.rests.notify_one();
        let mut phases = self.phase.subscribe();
        let next = phases.wait_for(|phase| *phase != Phase::Rest).await;
        let goes_on = next.is_ok_and(|phase| *phase != Phase::Closing);
        self.resting.fetch_sub(1, Ordering::Relaxed);
        goes_on
    }
}

/// What one pair measured: how long each counted message took, in nanoseconds.
#[derive(Default)]
pub(crate) struct Tally(pub(crate) Vec<u32>);

impl Tally {
    /// Counts what was just completed, if it is the time to.
    pub(crate) fn add(&mut self, stage: &Stage, took: Duration) {
        if *stage.phase.borrow() != Phase::WarmUp {
            self.0
                .push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
        }
    }
}

//! Tells pairs when to work and when to rest, and counts their messages.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Messages do not count.
    WarmUp,
    Work,
    /// Nothing new begins: another subject has its turn.
    Rest,
    /// The run is over.
    Closing,
}

/// The state that the pairs of one subject share.
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

    /// Waits until this many pairs have completed what they began.
    pub(crate) async fn all_rest(&self, pairs: usize) {
        while self.resting.load(Ordering::Relaxed) < pairs {
            self.rests.notified().await;
        }
    }

    /// Whether a pair may begin something new now.
    pub(crate) fn is_working(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::WarmUp | Phase::Work)
    }

    /// Reports that a pair has completed everything, and waits until it may begin something new; `false` at the end.
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

/// The measurements of one pair: the latency of each counted message, in nanoseconds.
#[derive(Default)]
pub(crate) struct Tally(pub(crate) Vec<u32>);

impl Tally {
    /// Counts a completed message if the measured window is open.
    pub(crate) fn add(&mut self, stage: &Stage, took: Duration) {
        if *stage.phase.borrow() != Phase::WarmUp {
            self.0
                .push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
        }
    }
}

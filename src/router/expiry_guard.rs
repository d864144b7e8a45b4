//! The hold guard: after a stall nobody is believed dead, and nobody new gets a name, until everybody had time to say that they live.
//!
//! Without it a store that stands still for longer than the leases live makes every healthy user look dead when it moves again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::{Epoch, Terms};
use crate::bugs::{self, Bug};

/// Unready after this long without the broker…
const UNREADY_AFTER: Duration = Duration::from_secs(10);
/// …and ready again after this long with it.
const READY_AFTER: Duration = Duration::from_secs(2);

/// Longer than any process runs.
const FOR_EVER: Duration = Duration::from_secs(1 << 32);

/// What the beats of this node say about the broker.
#[derive(Debug)]
pub(super) struct ExpiryGuard {
    terms: Terms,
    epoch: Epoch,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last_beat: Instant,
    /// The first beat after the last break; `None` during one.
    beating_since: Option<Instant>,
    held_until: Option<Instant>,
    /// The store's epoch at the last beat.
    epoch: u64,
    ready: bool,
}

/// What a beat changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BeatResult {
    /// Nothing.
    Steady,
    /// The guard was set: there was a stall of this length, or the store lost the node's lease.
    Stalled(Duration),
}

impl ExpiryGuard {
    /// A guard that holds until the [first beat](Self::first_beat).
    pub(super) fn new(terms: Terms, epoch: Epoch) -> Self {
        let now = Instant::now();
        let state = State {
            last_beat: now,
            beating_since: None,
            held_until: Some(now + FOR_EVER),
            epoch: *epoch.borrow(),
            ready: false,
        };
        Self {
            terms,
            epoch,
            state: Mutex::new(state),
        }
    }

    /// The node has its own lease. A fresh process starts without a hold, and ready.
    pub(super) fn first_beat(&self) {
        let now = Instant::now();
        *self.lock() = State {
            last_beat: now,
            beating_since: Some(now),
            held_until: None,
            epoch: *self.epoch.borrow(),
            ready: true,
        };
    }

    /// Whether the first beat has come.
    pub(super) fn has_begun(&self) -> bool {
        self.lock().beating_since.is_some()
    }

    /// A beat succeeded that was asked in this epoch of the store; `own` tells whether the node's lease was still there.
    pub(super) fn beat(&self, own: bool, epoch: u64) -> BeatResult {
        let (mut state, now) = (self.lock(), Instant::now());
        state.epoch = epoch;
        let last_beat = std::mem::replace(&mut state.last_beat, now);
        let gap = now - last_beat;
        state.beating_since.get_or_insert(now);
        if own && gap <= self.terms.longest_gap() {
            return BeatResult::Steady;
        }
        state.held_until = Some(now + self.terms.node_ttl);
        BeatResult::Stalled(gap)
    }

    /// A beat failed. True for the first of an outage.
    pub(super) fn missed(&self) -> bool {
        self.lock().beating_since.take().is_some()
    }

    /// How the store was seen to have lost data between two beats.
    pub(super) fn set(&self) {
        self.lock().held_until = Some(Instant::now() + self.terms.node_ttl);
    }

    /// While it holds, how much longer: no lease is believed dead, no fresh claim is made.
    pub(super) fn remaining(&self) -> Option<Duration> {
        self.remaining_at(Instant::now())
    }

    /// [`remaining`](Self::remaining), of a caller who has just read the clock.
    pub(super) fn remaining_at(&self, now: Instant) -> Option<Duration> {
        if bugs::has(Bug::Fearless) {
            return None;
        }
        let state = self.lock();
        // A connection has found a new epoch: the next beat sets the guard for as long as it must hold.
        let is_new_epoch = state.epoch != *self.epoch.borrow();
        if is_new_epoch || now - state.last_beat > self.terms.longest_gap() {
            return Some(self.terms.node_ttl);
        }
        state
            .held_until
            .filter(|until| *until > now)
            .map(|until| (until - now).min(self.terms.node_ttl))
    }

    /// While it holds, and so much longer.
    pub(super) fn remaining_and(&self, longer: Duration) -> Option<Duration> {
        self.remaining().or_else(|| {
            let until = self.lock().held_until? + longer;
            Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
        })
    }

    /// Whether the broker was reached lately.
    pub(super) fn reached(&self) -> bool {
        self.lock().last_beat.elapsed() <= self.terms.longest_gap()
    }

    /// Whether new sessions should come here; changes its mind slowly.
    pub(super) fn ready(&self) -> bool {
        let mut state = self.lock();
        if state.ready {
            state.ready = state.last_beat.elapsed() <= UNREADY_AFTER;
        } else {
            state.ready = state
                .beating_since
                .is_some_and(|since| since.elapsed() >= READY_AFTER);
        }
        state.ready
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use tokio::time::advance;

    use super::*;
    use crate::router::LocalNode;

    fn started() -> ExpiryGuard {
        let terms = LocalNode::for_tests("n").terms;
        let hold = ExpiryGuard::new(terms, watch::channel(0).1);
        assert!(
            hold.remaining().is_some() && !hold.ready(),
            "not before the first beat"
        );
        hold.first_beat();
        hold
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_holds_for_one_node_lease() {
        let hold = started();
        advance(Duration::from_secs(1)).await;
        assert_eq!(hold.beat(true, 0), BeatResult::Steady);
        assert_eq!(hold.remaining(), None);
        advance(Duration::from_millis(4500)).await;
        assert!(hold.remaining().is_some(), "before the next beat too");
        assert_eq!(
            hold.beat(true, 0),
            BeatResult::Stalled(Duration::from_millis(4500))
        );
        for _ in 0..5 {
            assert!(hold.remaining().is_some());
            advance(Duration::from_secs(1)).await;
            hold.beat(true, 0);
        }
        assert_eq!(hold.remaining(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_lease_holds_at_once() {
        let hold = started();
        assert!(matches!(hold.beat(false, 0), BeatResult::Stalled(_)));
        assert!(hold.remaining().is_some());
        for _ in 0..5 {
            assert!(hold.remaining_and(Duration::ZERO).is_some());
            advance(Duration::from_secs(1)).await;
            hold.beat(true, 0);
        }
        assert_eq!(hold.remaining_and(Duration::ZERO), None);
        let two = Duration::from_secs(2);
        assert_eq!(hold.remaining_and(two), Some(two));
        for _ in 0..2 {
            advance(Duration::from_secs(1)).await;
            hold.beat(true, 0);
        }
        assert_eq!(hold.remaining_and(two), None);
    }

    #[tokio::test(start_paused = true)]
    async fn another_store_holds_before_the_next_beat() {
        let (changes, epoch) = watch::channel(0);
        let hold = ExpiryGuard { epoch, ..started() };
        assert_eq!(hold.remaining(), None);
        changes.send_replace(1);
        assert!(hold.remaining().is_some());
        assert_eq!(
            hold.beat(true, 0),
            BeatResult::Steady,
            "asked before the loss"
        );
        assert!(hold.remaining().is_some());
        assert!(matches!(hold.beat(false, 1), BeatResult::Stalled(_)));
        assert!(hold.remaining().is_some());
        advance(Duration::from_secs(1)).await;
        hold.beat(true, 1);
        assert!(hold.remaining().is_some(), "for one node lease");
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_changes_its_mind_slowly() {
        let hold = started();
        assert!(hold.ready());
        assert!(hold.missed());
        assert!(!hold.missed(), "one line per outage");
        advance(Duration::from_secs(9)).await;
        assert!(hold.ready());
        advance(Duration::from_secs(2)).await;
        assert!(!hold.ready());
        hold.beat(true, 0);
        assert!(!hold.ready());
        advance(Duration::from_secs(2)).await;
        assert!(hold.ready());
    }
}

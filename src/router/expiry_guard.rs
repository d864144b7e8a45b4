//! The expiry guard: after a stall of the store, no lease counts as expired and nobody new wins a name until every node
//! has had time to renew its leases.
//!
//! Without it, a store that stands still for longer than the leases live would make every healthy user look dead when
//! it moves again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::{Epoch, Terms};
use crate::bugs::{self, Bug};

/// The node becomes unready after this long without the broker.
const UNREADY_AFTER: Duration = Duration::from_secs(10);
/// The node becomes ready again after this long with the broker.
const READY_AFTER: Duration = Duration::from_secs(2);

/// Longer than any process runs.
const FOR_EVER: Duration = Duration::from_secs(1 << 32);

/// What this node's heartbeats tell about the store.
#[derive(Debug)]
pub(super) struct ExpiryGuard {
    terms: Terms,
    epoch: Epoch,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last_beat: Instant,
    /// When the current run of successful beats began; `None` during an outage.
    beating_since: Option<Instant>,
    held_until: Option<Instant>,
    /// The store's epoch at the last beat.
    epoch: u64,
    ready: bool,
}

/// The effect of a successful beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BeatResult {
    /// No stall.
    Steady,
    /// The guard was set, because the last beat was this long ago or the store had lost the node's lease.
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

    /// Ends the initial hold: the node has its own lease and knows no stall.
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

    /// Records a successful beat. `own` says whether the node's lease was still there; `epoch` is the store's epoch
    /// when the beat was sent.
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

    /// Records a failed beat. True for the first one of an outage.
    pub(super) fn missed(&self) -> bool {
        self.lock().beating_since.take().is_some()
    }

    /// Sets the guard between two beats, when the store turns out to have lost data.
    pub(super) fn set(&self) {
        self.lock().held_until = Some(Instant::now() + self.terms.node_ttl);
    }

    /// How much longer the guard holds, if it does.
    pub(super) fn remaining(&self) -> Option<Duration> {
        self.remaining_at(Instant::now())
    }

    /// [`remaining`](Self::remaining), of a caller who has just read the clock.
    pub(super) fn remaining_at(&self, now: Instant) -> Option<Duration> {
        if bugs::has(Bug::Fearless) {
            return None;
        }
        let state = self.lock();
        // A new connection has read another epoch. The next beat sets the guard for the time that it must hold.
        let is_new_epoch = state.epoch != *self.epoch.borrow();
        if is_new_epoch || now - state.last_beat > self.terms.longest_gap() {
            return Some(self.terms.node_ttl);
        }
        state
            .held_until
            .filter(|until| *until > now)
            .map(|until| (until - now).min(self.terms.node_ttl))
    }

    /// The same for a guard that holds `longer`.
    pub(super) fn remaining_and(&self, longer: Duration) -> Option<Duration> {
        self.remaining().or_else(|| {
            let until = self.lock().held_until? + longer;
            Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
        })
    }

    /// Whether a beat succeeded lately.
    pub(super) fn reached(&self) -> bool {
        self.lock().last_beat.elapsed() <= self.terms.longest_gap()
    }

    /// Whether the node is ready for new sessions. Has hysteresis, so that a short outage does not move all traffic
    /// away.
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

//! The epoch of the store. It changes when Redis may have lost data: it was replaced, restarted or flushed.
//!
//! Every new connection reads which run of Redis it has reached before it sends anything else. Each heartbeat reads the
//! node's own lease: if that is gone before its time, Redis was flushed, which no connection notices.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::reply::millis;
use crate::broker::Epoch;

/// What this node knows of the store.
#[derive(Debug)]
pub(super) struct StoreEpoch {
    /// Held for a few comparisons.
    state: Mutex<State>,
    count: watch::Sender<u64>,
    started: Instant,
    /// The time to live of the node's lease, in ms.
    lease_ms: i64,
}

#[derive(Debug, Default)]
struct State {
    run: Option<Run>,
    /// The token in this node's lease, as the last heartbeat found it.
    token: Option<String>,
    /// The epoch in which that heartbeat was sent, and when.
    last_heartbeat: (u64, i64),
    /// When its reply arrived. A read that was sent earlier may be older.
    known_since: i64,
    /// How far the server's clock is ahead of ours, in ms. `None` until it is read.
    clock_ahead: Option<i64>,
}

/// One run of a Redis server, as `INFO` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// `run_id`: changes with each start.
    id: String,
    /// `master_replid2`: the primary whose data it took over when it was promoted. `None` if it always was a primary.
    /// (`master_replid` does not help: it changes when the first replica connects.)
    succeeds: Option<String>,
}

impl Run {
    /// Reads the sections `server` and `replication` of `INFO`.
    pub(super) fn read(server: &str, replication: &str) -> Self {
        let succeeds = info_line(replication, "master_replid2:");
        Self {
            id: info_line(server, "run_id:"),
            succeeds: Some(succeeds).filter(|id| id.contains(|digit| digit != '0')),
        }
    }

    /// Whether this run may lack data that the run before had.
    fn is_other_than(&self, before: &Self) -> bool {
        // Redis clears `master_replid2` after an hour without replicas: that alone is no new run.
        self.id != before.id || (self.succeeds.is_some() && self.succeeds != before.succeeds)
    }
}

/// The value of a line of `INFO`. Empty if there is none.
pub(super) fn info_line(info: &str, name: &str) -> String {
    let line = info.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().to_owned()
}

impl StoreEpoch {
    /// `node_ttl` is the time to live of the node's lease.
    pub(super) fn new(node_ttl: Duration) -> Self {
        Self {
            state: Mutex::default(),
            count: watch::Sender::new(0),
            started: Instant::now(),
            lease_ms: millis(node_ttl),
        }
    }

    /// Watches the count of changes.
    pub(super) fn watch(&self) -> Epoch {
        self.count.subscribe()
    }

    /// How often it has changed.
    pub(super) fn count(&self) -> u64 {
        *self.count.borrow()
    }

    /// The name of the current run of Redis, which is the same for all nodes.
    pub(super) fn name(&self) -> String {
        let state = self.lock();
        state
            .run
            .as_ref()
            .map(|run| run.id.clone())
            .unwrap_or_default()
    }

    /// Called when a new connection has reached this run.
    pub(super) fn observe(&self, found: Run) {
        let mut state = self.lock();
        let before = state.run.as_ref();
        let is_other = before.is_some_and(|before| found.is_other_than(before));
        state.run = Some(found);
        if is_other {
            warn!("Redis was restarted or failed over: some recent messages may be lost");
            self.begin();
        }
    }

    /// A heartbeat that was sent in `epoch` at that [mark](Self::mark) found this token in the node's lease. Returns
    /// whether lease and epoch are those of the last heartbeat.
    pub(super) fn heartbeat(&self, token: String, epoch: u64, sent_at: i64) -> bool {
        let mut state = self.lock();
        state.known_since = self.mark();
        let (last_epoch, last_at) = std::mem::replace(&mut state.last_heartbeat, (epoch, sent_at));
        let Some(before) = state.token.replace(token) else {
            return true;
        };
        let is_same = state.token.as_ref() == Some(&before);
        let in_time = sent_at - last_at < self.lease_ms;
        if !is_same && in_time && last_epoch == epoch && self.count() == epoch {
            self.begin();
            // The next heartbeat is the first of this epoch.
            state.last_heartbeat.0 = self.count();
        }
        is_same && last_epoch == epoch
    }

    /// Whether Redis has kept its data since the last heartbeat, given the token that is in the node's lease now.
    pub(super) fn is_intact(&self, token: Option<&[u8]>) -> bool {
        let state = self.lock();
        let known = state.token.as_ref().map(String::as_bytes);
        known.is_some() && token == known && state.last_heartbeat.0 == self.count()
    }

    /// A read that was sent at that [mark](Self::mark) found this token in the node's lease. Begins a new epoch if the
    /// last heartbeat had found another one.
    pub(super) fn compare(&self, token: Option<&[u8]>, sent_at: i64) {
        let state = self.lock();
        if sent_at <= state.known_since {
            return;
        }
        let known = state.token.as_ref().map(String::as_bytes);
        let in_time = self.mark() - state.last_heartbeat.1 < self.lease_ms;
        if known.is_some() && token != known && in_time && state.last_heartbeat.0 == self.count() {
            self.begin();
        }
    }

    /// The time by our own clock, in ms.
    pub(super) fn mark(&self) -> i64 {
        millis(self.started.elapsed())
    }

    /// A read that was sent at that [mark](Self::mark) returned this time of the server's clock.
    pub(super) fn set_clock(&self, sent_at: i64, server_millis: i64) {
        self.lock().clock_ahead = Some(server_millis - sent_at);
    }

    /// The latest possible time of the server's clock: a deadline derived from it is late by at most a round trip,
    /// never early. Until the clock is read, no deadline passes.
    pub(super) fn server_now(&self) -> i64 {
        let ahead = self.lock().clock_ahead;
        self.mark() + ahead.unwrap_or(i64::MAX / 4)
    }

    fn begin(&self) {
        self.count.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str, succeeds: &str) -> Run {
        let server = format!("# Server\r\nrun_id:{id}\r\n");
        let replication = format!("role:master\r\nmaster_replid2:{succeeds}\r\n");
        Run::read(&server, &replication)
    }

    #[test]
    fn a_restart_or_failover_begins_an_epoch_and_a_new_replica_does_not() {
        let never = "0".repeat(40);
        let first = run("a", &never);
        assert!(!run("a", &never).is_other_than(&first));
        assert!(run("b", &never).is_other_than(&first), "restarted");
        let promoted = run("a", "5e");
        assert!(promoted.is_other_than(&first), "was a replica meanwhile");
        assert!(!run("a", &never).is_other_than(&promoted));
        let epoch = StoreEpoch::new(Duration::from_secs(5));
        epoch.observe(first);
        assert_eq!((epoch.count(), epoch.name()), (0, "a".to_owned()));
        epoch.observe(promoted);
        assert_eq!(epoch.count(), 1);
    }

    #[test]
    fn a_missing_lease_begins_one_epoch() {
        let epoch = StoreEpoch::new(Duration::from_secs(5));
        assert!(epoch.heartbeat("1".into(), 0, 0), "the first heartbeat");
        assert!(epoch.heartbeat("1".into(), 0, 0));
        assert!(epoch.is_intact(Some(b"1")) && !epoch.is_intact(None));
        assert!(!epoch.heartbeat("2".into(), 0, 0), "the lease was gone");
        assert_eq!(epoch.count(), 1);
        assert!(epoch.heartbeat("2".into(), 1, 0));
        // A publisher finds it missing before the next heartbeat does.
        epoch.compare(None, epoch.mark() - 1);
        assert_eq!(epoch.count(), 1, "read before the reply to that heartbeat");
        epoch.compare(None, epoch.mark() + 1);
        epoch.compare(None, epoch.mark() + 1);
        assert_eq!(epoch.count(), 2);
        assert!(!epoch.is_intact(Some(b"2")), "until the next heartbeat");
        assert!(!epoch.heartbeat("3".into(), 2, 0));
        assert!(epoch.heartbeat("3".into(), epoch.count(), 0));
    }

    #[test]
    fn the_next_heartbeat_reports_another_run_although_it_has_the_lease() {
        let epoch = StoreEpoch::new(Duration::from_secs(5));
        epoch.observe(run("a", ""));
        assert!(epoch.heartbeat("1".into(), 0, 0));
        epoch.observe(run("b", "a"));
        assert!(epoch.heartbeat("1".into(), 0, 0), "sent before");
        assert!(!epoch.heartbeat("1".into(), 1, 0));
        assert!(epoch.heartbeat("1".into(), 1, 0));
        assert_eq!(epoch.count(), 1);
    }
}

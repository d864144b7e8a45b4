//! The epoch of the store: it changes when Redis may have lost data, because it is another one, was started again, or forgot a lease.
//!
//! Every new connection asks which Redis it has reached before it sends anything else, and each beat looks at the node's own lease. A lease
//! that is missing before its time tells of a `FLUSHALL`, which no connection notices.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::wire::millis;
use crate::broker::Epoch;

/// What this node knows of the store.
#[derive(Debug)]
pub(super) struct StoreEpoch {
    /// Held for a few comparisons.
    state: Mutex<State>,
    count: watch::Sender<u64>,
    started: Instant,
    /// How long the node's lease lives, in ms.
    lease_ms: i64,
}

#[derive(Debug, Default)]
struct State {
    run: Option<Run>,
    /// The token of this node's own lease, as the last beat found it.
    token: Option<String>,
    /// The epoch in which that beat was asked, and when.
    beaten: (u64, i64),
    /// When the answer to that beat was here: what was read before may be older.
    known_since: i64,
    /// How far the server's clock is ahead of ours, in ms; `None` before it was read.
    clock_ahead: Option<i64>,
}

/// One run of a Redis server, as `INFO` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Changes with each start.
    id: String,
    /// Whose data it took over when it became a primary; `None` if it always was one. (The id of its own history says less: that changes
    /// when the first replica connects.)
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

    /// Whether this may not know what the one before knew.
    fn is_other_than(&self, before: &Self) -> bool {
        // A history without replicas is forgotten after an hour.
        self.id != before.id || (self.succeeds.is_some() && self.succeeds != before.succeeds)
    }
}

/// The rest of the line of `INFO` that begins so; empty if there is none.
pub(super) fn info_line(info: &str, name: &str) -> String {
    let line = info.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().to_owned()
}

impl StoreEpoch {
    /// For a node whose lease lives so long.
    pub(super) fn new(node_ttl: Duration) -> Self {
        Self {
            state: Mutex::default(),
            count: watch::Sender::new(0),
            started: Instant::now(),
            lease_ms: millis(node_ttl),
        }
    }

    /// Counts the changes; tells of each.
    pub(super) fn watch(&self) -> Epoch {
        self.count.subscribe()
    }

    /// How often it has changed.
    pub(super) fn count(&self) -> u64 {
        *self.count.borrow()
    }

    /// How all nodes name the present run of the store.
    pub(super) fn name(&self) -> String {
        let state = self.lock();
        state
            .run
            .as_ref()
            .map(|run| run.id.clone())
            .unwrap_or_default()
    }

    /// A new connection has reached this run.
    pub(super) fn observe(&self, found: Run) {
        let mut state = self.lock();
        let before = state.run.as_ref();
        let is_other = before.is_some_and(|before| found.is_other_than(before));
        state.run = Some(found);
        if is_other {
            warn!("Redis was restarted or replaced: some recent messages may be lost");
            self.begin();
        }
    }

    /// A beat that was asked in `epoch`, at that [mark](Self::mark), found this token in the node's lease. Whether the lease, and the epoch, are
    /// those of the last beat.
    pub(super) fn beat(&self, token: String, epoch: u64, asked_at: i64) -> bool {
        let mut state = self.lock();
        state.known_since = self.mark();
        let (last_epoch, last_at) = std::mem::replace(&mut state.beaten, (epoch, asked_at));
        let Some(before) = state.token.replace(token) else {
            return true;
        };
        let is_same = state.token.as_ref() == Some(&before);
        let in_time = asked_at - last_at < self.lease_ms;
        if !is_same && in_time && last_epoch == epoch && self.count() == epoch {
            self.begin();
            // The next beat is the first of this epoch.
            state.beaten.0 = self.count();
        }
        is_same && last_epoch == epoch
    }

    /// Whether nothing was lost since the last beat, if this is what the node's lease says now.
    pub(super) fn is_intact(&self, token: Option<&[u8]>) -> bool {
        let state = self.lock();
        let known = state.token.as_ref().map(String::as_bytes);
        known.is_some() && token == known && state.beaten.0 == self.count()
    }

    /// The node's lease says this, by a question of that [mark](Self::mark): if that is not what the last beat found, the store has forgotten it.
    pub(super) fn compare(&self, token: Option<&[u8]>, asked_at: i64) {
        let state = self.lock();
        if asked_at <= state.known_since {
            return;
        }
        let known = state.token.as_ref().map(String::as_bytes);
        let in_time = self.mark() - state.beaten.1 < self.lease_ms;
        if known.is_some() && token != known && in_time && state.beaten.0 == self.count() {
            self.begin();
        }
    }

    /// By our own clock, in ms.
    pub(super) fn mark(&self) -> i64 {
        millis(self.started.elapsed())
    }

    /// The server's clock said this in answer to a question of that [mark](Self::mark).
    pub(super) fn set_clock(&self, asked_at: i64, server_millis: i64) {
        self.lock().clock_ahead = Some(server_millis - asked_at);
    }

    /// The server's clock, as far ahead as it can be: a deadline is late by a round trip at most, never early. Before it was read nothing is
    /// too late.
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
    fn another_run_is_told_from_one_with_a_new_replica() {
        let never = "0".repeat(40);
        let first = run("a", &never);
        assert!(!run("a", &never).is_other_than(&first));
        assert!(run("b", &never).is_other_than(&first), "started again");
        let promoted = run("a", "5e");
        assert!(promoted.is_other_than(&first), "followed another meanwhile");
        assert!(!run("a", &never).is_other_than(&promoted));
        let epoch = StoreEpoch::new(Duration::from_secs(5));
        epoch.observe(first);
        assert_eq!((epoch.count(), epoch.name()), (0, "a".to_owned()));
        epoch.observe(promoted);
        assert_eq!(epoch.count(), 1);
    }

    #[test]
    fn a_missing_lease_begins_an_epoch_once() {
        let epoch = StoreEpoch::new(Duration::from_secs(5));
        assert!(epoch.beat("1".into(), 0, 0), "the first takes it");
        assert!(epoch.beat("1".into(), 0, 0));
        assert!(epoch.is_intact(Some(b"1")) && !epoch.is_intact(None));
        assert!(!epoch.beat("2".into(), 0, 0), "it was gone");
        assert_eq!(epoch.count(), 1);
        assert!(epoch.beat("2".into(), 1, 0));
        // A publisher that finds it missing before the next beat does.
        epoch.compare(None, epoch.mark() - 1);
        assert_eq!(epoch.count(), 1, "asked before that beat was answered");
        epoch.compare(None, epoch.mark() + 1);
        epoch.compare(None, epoch.mark() + 1);
        assert_eq!(epoch.count(), 2);
        assert!(!epoch.is_intact(Some(b"2")), "until the next beat");
        assert!(!epoch.beat("3".into(), 2, 0));
        assert!(epoch.beat("3".into(), epoch.count(), 0));
    }

    #[test]
    fn another_run_is_news_to_the_next_beat_though_it_has_the_lease() {
        let epoch = StoreEpoch::new(Duration::from_secs(5));
        epoch.observe(run("a", ""));
        assert!(epoch.beat("1".into(), 0, 0));
        epoch.observe(run("b", "a"));
        assert!(epoch.beat("1".into(), 0, 0), "asked before");
        assert!(!epoch.beat("1".into(), 1, 0));
        assert!(epoch.beat("1".into(), 1, 0));
        assert_eq!(epoch.count(), 1);
    }
}

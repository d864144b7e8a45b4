//! Messages between the main process and its workers: orders one way, reports the other, each a line of JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The environment variable that makes a process a worker, with its share as JSON.
pub(crate) const SHARE: &str = "STORM_SHARE";

/// The part of the load that is one worker's.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Share {
    /// The number of its first session among all.
    pub(crate) first: usize,
    pub(crate) sessions: usize,
    /// The addresses of the nodes. The last node is killed.
    pub(crate) endpoints: Vec<SocketAddr>,
}

impl Share {
    pub(crate) fn name(&self, number: usize) -> String {
        format!("u{}", self.first + number)
    }

    /// The index of the node at which this session logs in.
    pub(crate) fn door(&self, number: usize) -> usize {
        number % self.endpoints.len()
    }

    /// Whether this session loses its node.
    pub(crate) fn is_at_risk(&self, number: usize) -> bool {
        self.door(number) == self.endpoints.len() - 1
    }

    /// The session with which this one has a call. Half of all have one, across nodes.
    pub(crate) fn partner(&self, number: usize) -> Option<usize> {
        let partner = number ^ 1;
        (number % 4 < 2 && partner < self.sessions).then_some(partner)
    }

    pub(crate) fn at_risk(&self) -> usize {
        self.count(|number| self.is_at_risk(number))
    }

    pub(crate) fn calls(&self) -> usize {
        self.count(|number| self.partner(number).is_some()) / 2
    }

    fn count(&self, is_counted: impl Fn(usize) -> bool) -> usize {
        (0..self.sessions)
            .filter(|number| is_counted(*number))
            .count()
    }
}

/// What workers do next.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) enum Stage {
    /// All sessions log in. Workers begin with it.
    LoggingIn,
    /// Half of them call each other and exchange signals.
    Calling,
    /// From now on a node may die. Answered with a tally.
    Braced,
    /// The run is over. Answered with a tally.
    Over,
}

/// What a worker reports.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Report {
    /// One more session is logged in.
    LoggedIn,
    /// One more session was resumed, at this time.
    Resumed(Micros),
    /// A session got this leave.
    Leave(String),
    Tally(Tally),
    /// The run has failed.
    Broken(String),
}

/// Counts of one worker, or of all.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Tally {
    /// Offers that were answered.
    pub(crate) calls: usize,
    /// Signals that arrived.
    pub(crate) signals: usize,
    /// Signals that did not, though the sender's node is alive.
    pub(crate) missing: usize,
    /// Signals that arrived twice or out of order.
    pub(crate) repeated: usize,
    /// Refused signals, by error code.
    pub(crate) refused: BTreeMap<String, usize>,
    /// Failed attempts to resume, by error.
    pub(crate) retries: BTreeMap<String, usize>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.signals += other.signals;
        self.missing += other.missing;
        self.repeated += other.repeated;
        for (code, count) in other.refused {
            *self.refused.entry(code).or_default() += count;
        }
        for (code, count) in other.retries {
            *self.retries.entry(code).or_default() += count;
        }
    }
}

/// Microseconds since 1970: a clock that all processes share.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Micros(u64);

impl Micros {
    pub(crate) fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    pub(crate) fn seconds_since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / 1e6
    }
}

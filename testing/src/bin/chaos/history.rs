//! What everybody did and saw, in the order of one clock.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One thing that happened to one client.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) who: Arc<str>,
    /// The connection, unique in a run.
    pub(crate) conn: u64,
    /// Counts the client's sessions: a resume stays in its life, a fresh login begins the next.
    pub(crate) life: u32,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    /// Logged in through the door of this node.
    LoggedIn {
        node: usize,
        resumed: bool,
        /// Whether it was promised that the session outlives its connection.
        resumable: bool,
    },
    /// Refused with this code; how long nothing had been heard by then.
    Refused {
        code: String,
        resuming: bool,
        silent_for: Duration,
    },
    Sent {
        id: String,
        kind: &'static str,
        to: String,
    },
    /// `Ok`: acknowledged with this status; `Err`: refused with this code.
    Answered {
        id: String,
        outcome: Result<String, String>,
    },
    /// A signal; `name` as the server gave it, the rest from the body.
    Received(Receipt),
    /// The same on a connection that the client has given up for another: it does not count as received.
    Late(Receipt),
    Left {
        from: String,
        reason: String,
    },
    /// The client hangs up, towards this peer.
    HangsUp {
        to: String,
    },
    Presence {
        name: String,
        here: bool,
    },
    Status {
        broker: String,
        missed: bool,
    },
    GoAway,
    /// By the server, with this code; without one the connection broke.
    Closed {
        code: Option<u16>,
    },
    /// The client gave the connection up by itself.
    Abandoned,
    /// The client ends for good, in this way.
    Ends(&'static str),
    /// Something that is never right, with the invariant that it breaks.
    Wrong(usize, String),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Receipt {
    pub(crate) name: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) id: String,
    pub(crate) from_life: u32,
    pub(crate) n: u64,
    pub(crate) kind: String,
    pub(crate) seq: Option<String>,
}

/// Something that was done to the cluster.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trouble {
    pub(crate) kind: Kind,
    /// The node that it struck; none: Redis, or all.
    pub(crate) node: Option<usize>,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    NodeDead,
    NodeFrozen,
    NodeDrained,
    ClientEdge,
    RedisEdge,
    /// Redis does not answer anybody.
    RedisAway,
    /// Redis forgot what it had acknowledged.
    DataLoss,
    /// Connections to Redis were cut, or scripts lost.
    RedisCut,
    /// Nodes treated some pushes as ones that did not fit.
    PushesDropped,
    /// This process itself stood still: nothing that depends on time can be judged.
    Stall,
}

/// After this the peer must hear one `leave`.
#[derive(Clone, Debug)]
pub(crate) struct Expectation {
    pub(crate) who: String,
    pub(crate) from: String,
    pub(crate) since: Duration,
    pub(crate) within: Duration,
    /// The only right reason, if there is one.
    pub(crate) reason: Option<&'static str>,
    pub(crate) ending: &'static str,
}

/// What was measured at the processes and not seen by a client.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) at: Duration,
    pub(crate) invariant: usize,
    pub(crate) evidence: String,
}

/// A drain of one node.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    pub(crate) node: usize,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    /// The exit code; none: killed at last, or by a signal.
    pub(crate) code: Option<i32>,
}

/// Everything that the checker judges.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) events: Vec<Event>,
    pub(crate) troubles: Vec<Trouble>,
    pub(crate) expectations: Vec<Expectation>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) drains: Vec<Drain>,
}

#[derive(Debug)]
pub(crate) struct History {
    begun: Instant,
    record: Mutex<Record>,
}

impl History {
    pub(crate) fn begin() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            record: Mutex::default(),
        })
    }

    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, who: &Arc<str>, conn: u64, life: u32, what: What) {
        let mut record = self.lock();
        // Under the lock: the order of events is the order of their times.
        let event = Event {
            at: self.now(),
            who: Arc::clone(who),
            conn,
            life,
            what,
        };
        record.events.push(event);
    }

    pub(crate) fn trouble(&self, kind: Kind, node: Option<usize>, from: Duration) {
        let until = self.now();
        self.lock().troubles.push(Trouble {
            kind,
            node,
            from,
            until,
        });
    }

    pub(crate) fn found(&self, invariant: usize, evidence: String) {
        let at = self.now();
        self.lock().findings.push(Finding {
            at,
            invariant,
            evidence,
        });
    }
}

impl Record {
    /// Everything, a line each, for a person who wants to know why.
    pub(crate) fn to_text(&self) -> String {
        let mut lines: Vec<(Duration, String)> = Vec::new();
        for event in &self.events {
            let Event {
                at,
                who,
                conn,
                life,
                what,
            } = event;
            lines.push((
                *at,
                format!("{who} life {life} connection {conn}: {what:?}"),
            ));
        }
        for trouble in &self.troubles {
            lines.push((trouble.from, format!("=== {trouble:?}")));
        }
        for expectation in &self.expectations {
            lines.push((expectation.since, format!("=== {expectation:?}")));
        }
        // Stable: events keep their order.
        lines.sort_by_key(|(at, _)| *at);
        let mut text = String::new();
        for (at, line) in lines {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:9.3} {line}", at.as_secs_f64());
        }
        text
    }
}

impl Trouble {
    pub(crate) fn overlaps(&self, from: Duration, until: Duration) -> bool {
        self.from <= until && from <= self.until
    }
}

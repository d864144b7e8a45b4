//! What all clients did and saw, in the order of one clock.

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
    /// The number of the client's session: a resume keeps it, a new login increments it.
    pub(crate) life: u32,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    /// Logged in at this node.
    LoggedIn {
        node: usize,
        resumed: bool,
        /// Whether the session is resumable.
        resumable: bool,
    },
    /// Refused with this code; how long nothing had been received by then.
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
    /// `Ok`: acknowledged with this status. `Err`: refused with this code.
    Answered {
        id: String,
        outcome: Result<String, String>,
    },
    /// A signal: `name` from the server, the rest from the body.
    Received(Receipt),
    /// The same on an abandoned connection: it does not count as received.
    Late(Receipt),
    Left {
        from: String,
        reason: String,
    },
    /// The client hangs up on this peer.
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
    /// The server closed with this code; `None`: the connection broke.
    Closed {
        code: Option<u16>,
    },
    /// The client abandoned the connection.
    Abandoned,
    /// The client ends for good in this way.
    Ends(&'static str),
    /// A violation that is certain at once, with its invariant.
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

/// An injected fault.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trouble {
    pub(crate) kind: Kind,
    /// The node that it hit; `None`: Redis or all nodes.
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
    /// Redis answers nobody.
    RedisAway,
    /// Redis lost acknowledged writes.
    DataLoss,
    /// Connections to Redis were cut, or its scripts flushed.
    RedisCut,
    /// Nodes dropped some pushes.
    PushesDropped,
    /// This process got no CPU: nothing that depends on time can be checked.
    Stall,
}

/// An end of a call after which the peer must get one `leave`.
#[derive(Clone, Debug)]
pub(crate) struct Expectation {
    pub(crate) who: String,
    pub(crate) from: String,
    pub(crate) since: Duration,
    pub(crate) within: Duration,
    /// The only correct reason, if there is one.
    pub(crate) reason: Option<&'static str>,
    pub(crate) ending: &'static str,
}

/// A violation measured at the processes, not seen by a client.
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
    /// The exit code; `None`: ended by a signal, or killed after the deadline.
    pub(crate) code: Option<i32>,
}

/// Everything that the checker reads.
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
        // The lock makes the order of events the order of their times.
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
    /// The whole history, one event a line, for whoever looks for a cause.
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
        // A stable sort: events of the same time keep their order.
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

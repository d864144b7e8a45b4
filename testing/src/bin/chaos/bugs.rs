//! The bugs that the server can be started with, and the scenario in which each must be found.

use std::time::Duration;

use crate::faults::{Cut, Edge, Fault, What};

/// A seeded bug of the server, and the invariant that it breaks.
#[derive(Debug)]
pub(crate) struct Bug {
    pub(crate) name: &'static str,
    pub(crate) invariant: usize,
    /// The faults: what, at which second, for how many seconds.
    scenario: &'static [(What, f32, f32)],
    /// Whether nodes drop pushes all the time.
    pub(crate) drops_pushes: bool,
}

const REPLIES_LOST: &[(What, f32, f32)] = &[
    (What::Cut(Edge::Client, 0, Cut::BackThenReset), 2.0, 1.6),
    (What::Cut(Edge::Client, 1, Cut::BackThenReset), 5.0, 1.6),
    (What::Cut(Edge::Client, 2, Cut::BackThenReset), 8.0, 1.6),
    (What::Cut(Edge::Client, 0, Cut::BackThenReset), 11.0, 1.6),
];

/// Signals to plain users are parked meanwhile.
const SUBSCRIPTIONS_KILLED: &[(What, f32, f32)] = &[(What::KillSubscriptions, 2.0, 10.0)];

/// Faults of the connections to Redis, and of Redis itself.
const DATA_LOST: &[(What, f32, f32)] = &[
    (What::Cut(Edge::Store, 0, Cut::BackThenReset), 2.0, 1.6),
    (What::FlushAll, 5.0, 0.1),
    (What::Cut(Edge::Store, 2, Cut::BackThenReset), 7.0, 1.6),
];

pub(crate) const BUGS: &[Bug] = &[
    bug(1, "claims-steal", &[]),
    bug(2, "replaced-untold", &[]),
    Bug {
        drops_pushes: true,
        ..bug(3, "pushes-while-catching-up", SUBSCRIPTIONS_KILLED)
    },
    bug(4, "repeats-delivered", REPLIES_LOST),
    bug(5, "deaf-to-dead-nodes", &[(What::KillNode(2), 3.0, 5.0)]),
    bug(6, "immortal-records", &[]),
    bug(7, "confirms-unheard", REPLIES_LOST),
    bug(7, "missed-not-told", DATA_LOST),
    bug(7, "parks-out-of-order", SUBSCRIPTIONS_KILLED),
    bug(7, "publish-counts-the-frozen", SUBSCRIPTIONS_KILLED),
    bug(7, "stream-does-not-take-over", &[]),
    bug(8, "bottomless-mailbox", &[]),
    // Longer than the lifetime of a lease.
    bug(9, "fearless", &[(What::FreezeRedis, 3.0, 13.5)]),
    bug(10, "drain-hangs-up", &[(What::RollingRestart, 3.0, 1.0)]),
    bug(11, "deaf-after-dirt", &[]),
    bug(12, "mislabels-senders", &[]),
];

const fn bug(invariant: usize, name: &'static str, scenario: &'static [(What, f32, f32)]) -> Bug {
    Bug {
        name,
        invariant,
        scenario,
        drops_pushes: false,
    }
}

impl Bug {
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let faults = self.scenario.iter().map(|(what, at, lasts)| Fault {
            what: *what,
            at: Duration::from_secs_f32(*at),
            lasts: Duration::from_secs_f32(*lasts),
        });
        faults.collect()
    }
}

/// The shortest duration of a scenario: by then every client has changed its connection.
pub(crate) const SCENARIO: Duration = Duration::from_secs(13);

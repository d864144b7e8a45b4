//! What the clients of a run share: the endpoints, the phase, and where each client is.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::history::History;

/// The phases of a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Act {
    /// Clients send signals while faults are injected.
    Storm,
    /// No new signals: pending ones get their outcome, and every call is set up.
    Calm,
    /// One side of each call ends it.
    Partings,
    /// All clients close.
    Curtain,
}

/// How one side ends its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    HangsUp,
    Closes,
    /// Its connection breaks and it does not come back.
    Vanishes,
    /// Its node is killed and it does not come back.
    DiesWithNode,
}

#[derive(Debug, Default)]
pub(crate) struct Board {
    /// Clients with nothing pending.
    pub(crate) idle: HashSet<String>,
    /// The node of each client that is logged in.
    pub(crate) at: HashMap<String, usize>,
    pub(crate) partings: HashMap<String, Parting>,
    /// Clients that do not reconnect once their connection is lost.
    pub(crate) doomed: HashSet<String>,
}

#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) history: Arc<History>,
    pub(crate) endpoints: Vec<SocketAddr>,
    pub(crate) act: watch::Receiver<Act>,
    /// The names of all callers.
    pub(crate) names: Vec<String>,
    pub(crate) seed: u64,
    board: Mutex<Board>,
}

impl Stage {
    pub(crate) fn new(
        history: &Arc<History>,
        endpoints: Vec<SocketAddr>,
        act: watch::Receiver<Act>,
        names: Vec<String>,
        seed: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            history: Arc::clone(history),
            endpoints,
            act,
            names,
            seed,
            board: Mutex::default(),
        })
    }

    pub(crate) fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn act(&self) -> Act {
        *self.act.borrow()
    }

    /// Sleeps, but not beyond the end of the phase.
    pub(crate) async fn rest(&self, time: Duration) {
        let mut act = self.act.clone();
        act.mark_unchanged();
        let _ = timeout(time, act.changed()).await;
    }

    /// The random numbers of one client: the same for the same seed.
    pub(crate) fn dice(&self, name: &str) -> StdRng {
        let of_name = name.bytes().fold(0_u64, |sum, byte| {
            sum.wrapping_mul(131).wrapping_add(byte.into())
        });
        StdRng::seed_from_u64(self.seed ^ of_name.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

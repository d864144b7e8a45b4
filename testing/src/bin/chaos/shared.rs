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
pub(crate) enum Phase {
    /// Clients send signals while faults are injected.
    Faults,
    /// No new signals: pending ones get their outcome, and every call is set up.
    Calm,
    /// One side of each call ends it.
    Endings,
    /// All clients close.
    Closing,
}

/// How one side ends its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    HangsUp,
    Closes,
    /// Its connection breaks and it does not come back.
    Vanishes,
    /// Its node is killed and it does not come back.
    DiesWithNode,
}

#[derive(Debug, Default)]
pub(crate) struct Clients {
    /// Clients with nothing pending.
    pub(crate) idle: HashSet<String>,
    /// The node of each client that is logged in.
    pub(crate) at: HashMap<String, usize>,
    pub(crate) endings: HashMap<String, Ending>,
    /// Clients that do not reconnect once their connection is lost.
    pub(crate) doomed: HashSet<String>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) history: Arc<History>,
    pub(crate) endpoints: Vec<SocketAddr>,
    pub(crate) phase: watch::Receiver<Phase>,
    /// The names of all callers.
    pub(crate) names: Vec<String>,
    pub(crate) seed: u64,
    clients: Mutex<Clients>,
}

impl Shared {
    pub(crate) fn new(
        history: &Arc<History>,
        endpoints: Vec<SocketAddr>,
        phase: watch::Receiver<Phase>,
        names: Vec<String>,
        seed: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            history: Arc::clone(history),
            endpoints,
            phase,
            names,
            seed,
            clients: Mutex::default(),
        })
    }

    pub(crate) fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Sleeps, but not beyond the end of the phase.
    pub(crate) async fn rest(&self, time: Duration) {
        let mut phase = self.phase.clone();
        phase.mark_unchanged();
        let _ = timeout(time, phase.changed()).await;
    }

    /// The random numbers of one client: the same for the same seed.
    pub(crate) fn rng(&self, name: &str) -> StdRng {
        let of_name = name.bytes().fold(0_u64, |sum, byte| {
            sum.wrapping_mul(131).wrapping_add(byte.into())
        });
        StdRng::seed_from_u64(self.seed ^ of_name.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

//! Letters to destinations that cannot be served now: nobody listens to the channel of a plain user whose lease is there, since its node is
//! between two subscriptions. They are tried again in order, for as long as a command may take; other destinations go on.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{Destination, Letter};
use crate::bugs::{self, Bug};
use crate::fabric::{FabricError, Postage};

/// How long to rest before the first try; twice as long before each later one, up to…
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// …this.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// How many letters of one lane may be parked; more are refused.
const MOST: usize = 4096;

/// The letters that one lane has parked.
#[derive(Debug)]
pub(super) struct Parked {
    patience: Duration,
    queues: HashMap<Arc<Destination>, Queue>,
    letters: usize,
}

#[derive(Debug)]
struct Queue {
    letters: VecDeque<Letter>,
    /// When the destination is given up.
    until: Instant,
    /// When it is tried next.
    at: Instant,
    pause: Duration,
}

impl Parked {
    /// Gives a destination up after so long.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            queues: HashMap::new(),
            letters: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Whether letters to this destination have to wait behind others.
    pub(super) fn holds(&self, to: &Arc<Destination>) -> bool {
        let queue = if self.queues.is_empty() {
            None
        } else {
            self.queues.get(to)
        };
        queue.is_some_and(|queue| !queue.letters.is_empty())
    }

    /// Parks a letter behind those to the same destination.
    pub(super) fn park(&mut self, mut letter: Letter, now: Instant) {
        if let Some(holder) = letter.postage.direct.take() {
            // The script knows who has the name now; only this session is meant.
            letter.postage = Postage {
                only: Some(holder.session),
                ..letter.postage
            };
        }
        let fresh = || Queue {
            letters: VecDeque::new(),
            until: now + self.patience,
            at: now,
            pause: FIRST_PAUSE,
        };
        let queue = self
            .queues
            .entry(Arc::clone(&letter.to))
            .or_insert_with(fresh);
        if queue.until <= now || self.letters >= MOST {
            return letter.receipt.settle(Err(FabricError::Unheard));
        }
        if queue.letters.is_empty() {
            queue.at = now + queue.pause;
            queue.pause = LONGEST_PAUSE.min(2 * queue.pause);
        }
        self.letters += 1;
        if bugs::has(Bug::ParksOutOfOrder) {
            queue.letters.push_front(letter);
        } else {
            queue.letters.push_back(letter);
        }
    }

    /// The letters whose time has come, each destination's in order.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Letter> {
        // Whoever was tried, and is not parked again, is served.
        self.queues.retain(|_, queue| !queue.letters.is_empty());
        let queues = self.queues.values_mut().filter(|queue| queue.at <= now);
        let due: Vec<Letter> = queues.flat_map(|queue| queue.letters.drain(..)).collect();
        self.letters -= due.len();
        due
    }

    /// When the next destination is tried.
    pub(super) fn next(&self) -> Option<Instant> {
        let waiting = self
            .queues
            .values()
            .filter(|queue| !queue.letters.is_empty());
        waiting.map(|queue| queue.at).min()
    }

    /// Refuses everything.
    pub(super) fn fail(&mut self, error: &FabricError) {
        self.letters = 0;
        for (_, queue) in self.queues.drain() {
            for letter in queue.letters {
                letter.receipt.settle(Err(error.clone()));
            }
        }
    }
}

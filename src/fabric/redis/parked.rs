//! Letters to destinations that cannot be served now: nobody listens to the channel of a plain user whose lease is there, since its node is
//! between two subscriptions. They are tried again in order, for as long as a command may take; other destinations go on.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{Destination, Letter};
use crate::bugs::{self, Bug};
use crate::fabric::{FabricError, Holder, Sent};

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
    /// Who has the name.
    holder: Holder,
    /// When the destination is given up.
    until: Instant,
    /// When it is tried next.
    at: Instant,
    pause: Duration,
}

impl Queue {
    /// Takes a letter, unless so many are parked that it is refused.
    fn push(&mut self, mut letter: Letter, parked: usize) {
        if parked > MOST {
            return self.refuse(letter);
        }
        if let Some(holder) = letter.postage.direct.take() {
            // The script knows who has the name now; only this session is meant.
            letter.postage.only = Some(holder.session);
        }
        if bugs::has(Bug::ParksOutOfOrder) {
            self.letters.push_front(letter);
        } else {
            self.letters.push_back(letter);
        }
    }

    fn refuse(&self, letter: Letter) {
        let refused = Sent::Unheard(self.holder.clone());
        letter.receipt.settle(Ok(refused));
    }
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

    /// Parks a letter whose destination has letters here already; otherwise it comes back.
    pub(super) fn behind(&mut self, letter: Letter) -> Option<Letter> {
        if self.queues.is_empty() {
            return Some(letter);
        }
        match self.queues.get_mut(&letter.to) {
            Some(queue) if !queue.letters.is_empty() => {
                self.letters += 1;
                queue.push(letter, self.letters);
                None
            }
            _ => Some(letter),
        }
    }

    /// Parks a letter that nobody listened to: this holder has the name.
    pub(super) fn park(&mut self, letter: Letter, holder: Holder, now: Instant) {
        let until = now + self.patience;
        let queue = self.queues.entry(Arc::clone(&letter.to));
        let queue = queue.or_insert_with(|| Queue {
            letters: VecDeque::new(),
            holder: holder.clone(),
            until,
            at: now,
            pause: FIRST_PAUSE,
        });
        queue.holder = holder;
        if queue.letters.is_empty() {
            queue.at = now + queue.pause;
            queue.pause = LONGEST_PAUSE.min(2 * queue.pause);
        }
        if queue.until <= now {
            return queue.refuse(letter);
        }
        self.letters += 1;
        queue.push(letter, self.letters);
    }

    /// The letters whose time has come, each destination's in order.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Letter> {
        // Whoever was tried, and is not parked again, is served.
        self.queues.retain(|_, queue| !queue.letters.is_empty());
        let queues = self.queues.values_mut().filter(|queue| queue.at <= now);
        let due: Vec<Letter> = queues.flat_map(|queue| queue.letters.drain(..)).collect();
        self.letters = self.queues.values().map(|queue| queue.letters.len()).sum();
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

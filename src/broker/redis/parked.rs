//! Publishes to destinations that cannot be served now: nobody listens to the channel of a plain user whose lease is there, since its node is
//! between two subscriptions. They are tried again in order, for as long as a command may take; other destinations go on.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{Destination, Publish};
use crate::broker::{BrokerError, Holder, Sent};
use crate::bugs::{self, Bug};

/// How long to rest before the first try; twice as long before each later one, up to…
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// …this.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// How many messages of one publisher may be parked; more are refused.
const MOST: usize = 4096;

/// The messages that one publisher has parked.
#[derive(Debug)]
pub(super) struct Parked {
    patience: Duration,
    queues: HashMap<Arc<Destination>, Queue>,
    messages: usize,
}

#[derive(Debug)]
struct Queue {
    messages: VecDeque<Publish>,
    /// Who has the name.
    holder: Holder,
    /// When the destination is given up.
    until: Instant,
    /// When it is tried next.
    at: Instant,
    pause: Duration,
}

impl Queue {
    /// Takes a message, unless so many are parked that it is refused.
    fn push(&mut self, mut message: Publish, parked: usize) {
        if parked > MOST {
            return self.refuse(message);
        }
        if let Some(holder) = message.options.direct.take() {
            // The script knows who has the name now; only this session is meant.
            message.options.only = Some(holder.session);
        }
        if bugs::has(Bug::ParksOutOfOrder) {
            self.messages.push_front(message);
        } else {
            self.messages.push_back(message);
        }
    }

    fn refuse(&self, message: Publish) {
        let refused = Sent::Unheard(self.holder.clone());
        message.receipt.settle(Ok(refused));
    }
}

impl Parked {
    /// Gives a destination up after so long.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            queues: HashMap::new(),
            messages: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Parks a message whose destination has messages here already; otherwise it comes back.
    pub(super) fn behind(&mut self, message: Publish) -> Option<Publish> {
        if self.queues.is_empty() {
            return Some(message);
        }
        match self.queues.get_mut(&message.to) {
            Some(queue) if !queue.messages.is_empty() => {
                self.messages += 1;
                queue.push(message, self.messages);
                None
            }
            _ => Some(message),
        }
    }

    /// Parks a message that nobody listened to: this holder has the name.
    pub(super) fn park(&mut self, message: Publish, holder: Holder, now: Instant) {
        let until = now + self.patience;
        let queue = self.queues.entry(Arc::clone(&message.to));
        let queue = queue.or_insert_with(|| Queue {
            messages: VecDeque::new(),
            holder: holder.clone(),
            until,
            at: now,
            pause: FIRST_PAUSE,
        });
        queue.holder = holder;
        if queue.messages.is_empty() {
            queue.at = now + queue.pause;
            queue.pause = LONGEST_PAUSE.min(2 * queue.pause);
        }
        if queue.until <= now {
            return queue.refuse(message);
        }
        self.messages += 1;
        queue.push(message, self.messages);
    }

    /// The messages whose time has come, each destination's in order.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Publish> {
        // Whoever was tried, and is not parked again, is served.
        self.queues.retain(|_, queue| !queue.messages.is_empty());
        let queues = self.queues.values_mut().filter(|queue| queue.at <= now);
        let due: Vec<Publish> = queues.flat_map(|queue| queue.messages.drain(..)).collect();
        self.messages = self.queues.values().map(|queue| queue.messages.len()).sum();
        due
    }

    /// When the next destination is tried.
    pub(super) fn next(&self) -> Option<Instant> {
        let waiting = self
            .queues
            .values()
            .filter(|queue| !queue.messages.is_empty());
        waiting.map(|queue| queue.at).min()
    }

    /// Refuses everything.
    pub(super) fn fail(&mut self, error: &BrokerError) {
        self.messages = 0;
        for (_, queue) in self.queues.drain() {
            for message in queue.messages {
                message.receipt.settle(Err(error.clone()));
            }
        }
    }
}

//! Retries envelopes to plain users whose channel has no subscriber although their lease exists: their node is
//! reconnecting.
//!
//! Envelopes to one destination are retried in order, for `redis.timeout`. Other destinations are not held up.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::request::{Destination, Publish};
use crate::broker::{BrokerError, Holder, Sent};
use crate::bugs::{self, Bug};

/// How long to wait before the first retry. The wait doubles with each retry.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest wait.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// How many envelopes of one publisher may be parked. More are refused.
const CAPACITY: usize = 4096;

/// The envelopes that one publisher has parked.
#[derive(Debug)]
pub(super) struct Parked {
    give_up_after: Duration,
    queues: HashMap<Arc<Destination>, Queue>,
    /// How many envelopes are parked, in all queues.
    messages: usize,
}

#[derive(Debug)]
struct Queue {
    messages: VecDeque<Publish>,
    /// The holder of the name.
    holder: Holder,
    /// When the destination is given up.
    until: Instant,
    /// When it is retried.
    at: Instant,
    pause: Duration,
}

impl Queue {
    /// Appends a message, or refuses it if too many are parked.
    fn push(&mut self, mut message: Publish, parked: usize) {
        if parked > CAPACITY {
            return self.refuse(message);
        }
        if let Some(holder) = message.options.direct.take() {
            // Retry through the script, which knows the holder of that moment, but deliver to this session only.
            message.options.only = Some(holder.session);
        }
        if bugs::has(Bug::ParksOutOfOrder) {
            self.messages.push_front(message);
        } else {
            self.messages.push_back(message);
        }
    }

    fn refuse(&self, message: Publish) {
        let refused = Sent::NoSubscriber(self.holder.clone());
        message.receipt.settle(Ok(refused));
    }
}

impl Parked {
    /// `give_up_after` is how long a destination is retried.
    pub(super) fn new(give_up_after: Duration) -> Self {
        Self {
            give_up_after,
            queues: HashMap::new(),
            messages: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Parks a message if earlier ones to its destination are parked. Otherwise returns it.
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

    /// Parks a message to this holder, whose channel had no subscriber.
    pub(super) fn park(&mut self, message: Publish, holder: Holder, now: Instant) {
        let until = now + self.give_up_after;
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

    /// Takes the messages that are due, those of each destination in order.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Publish> {
        // A destination that was retried and not parked again has been served.
        self.queues.retain(|_, queue| !queue.messages.is_empty());
        let queues = self.queues.values_mut().filter(|queue| queue.at <= now);
        let due: Vec<Publish> = queues.flat_map(|queue| queue.messages.drain(..)).collect();
        self.messages = self.queues.values().map(|queue| queue.messages.len()).sum();
        due
    }

    /// When the next destination is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let waiting = self
            .queues
            .values()
            .filter(|queue| !queue.messages.is_empty());
        waiting.map(|queue| queue.at).min()
    }

    /// Fails all messages.
    pub(super) fn fail(&mut self, error: &BrokerError) {
        self.messages = 0;
        for (_, queue) in self.queues.drain() {
            for message in queue.messages {
                message.receipt.settle(Err(error.clone()));
            }
        }
    }
}

//! How a sender learns what became of its envelopes: in the order in which it sent them, without a task or an allocation for each.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::SystemTime;

use super::{BrokerError, Sent};

/// What became of one envelope.
pub type Outcome = Result<Sent, BrokerError>;

/// What a sender learns of one envelope.
#[derive(Debug)]
pub struct Answer {
    /// What became of it.
    pub outcome: Outcome,
    /// Since when that is known, if the receipt is timed: the sender may be busy, or an envelope before this one may be unanswered.
    pub at: Option<SystemTime>,
}

/// The sender's end: the outcomes of everything it sent, in order.
#[derive(Debug, Default)]
pub struct Receipts {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Held for a push or a pop only.
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    /// The number of the slot in front.
    first: u64,
    queue: VecDeque<Option<Answer>>,
    /// Whether the sender waits for whatever comes next.
    eager: bool,
    /// The sender's task, while it waits.
    waiting: Option<Waker>,
}

/// The broker's end of one envelope. Dropped without a word, the outcome is unknown.
#[derive(Debug)]
pub struct Receipt {
    shared: Arc<Shared>,
    number: u64,
    quiet: bool,
    timed: bool,
    settled: bool,
}

impl Receipts {
    /// A receipt for the next envelope. The sender of a `quiet` one has nothing to say of a success, so it is not woken for it. A `timed` one
    /// says when the envelope was answered.
    pub fn issue(&self, quiet: bool, timed: bool) -> Receipt {
        let mut slots = self.shared.lock();
        let number = slots.first + slots.queue.len() as u64;
        slots.queue.push_back(None);
        Receipt {
            shared: Arc::clone(&self.shared),
            number,
            quiet,
            timed,
            settled: false,
        }
    }

    /// The answer in front, if it is known.
    pub fn take(&self) -> Option<Answer> {
        let mut slots = self.shared.lock();
        let answer = slots.queue.front_mut()?.take()?;
        slots.queue.pop_front();
        slots.first += 1;
        Some(answer)
    }

    /// Waits until [`take`](Self::take) has something; an `eager` sender wants to hear of quiet ones too.
    pub async fn ready(&self, eager: bool) {
        poll_fn(|context| {
            let mut slots = self.shared.lock();
            slots.eager = eager;
            if slots.queue.front().is_some_and(Option::is_some) {
                return Poll::Ready(());
            }
            slots.waiting = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receipt {
    /// Tells the sender.
    pub fn settle(mut self, outcome: Outcome) {
        self.put(outcome);
    }

    fn put(&mut self, outcome: Outcome) {
        self.settled = true;
        let at = self.timed.then(SystemTime::now);
        let mut slots = self.shared.lock();
        // Only what was issued by these receipts is settled here, and only what was settled is taken.
        let index = usize::try_from(self.number - slots.first).unwrap_or(usize::MAX);
        // An outcome that was known before this one waits for it.
        let waited_for = slots.queue.get(index + 1).is_some_and(Option::is_some);
        let quiet = self.quiet && !slots.eager && !waited_for && matches!(outcome, Ok(Sent::To(_)));
        if let Some(slot) = slots.queue.get_mut(index) {
            *slot = Some(Answer { outcome, at });
        }
        let waiting = if quiet { None } else { slots.waiting.take() };
        drop(slots);
        if let Some(sender) = waiting {
            sender.wake();
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.settled {
            self.put(Err(BrokerError::TimedOut));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(receipts: &Receipts) -> Option<Outcome> {
        receipts.take().map(|answer| answer.outcome)
    }

    #[test]
    fn outcomes_come_in_the_order_of_sending() {
        let receipts = Receipts::default();
        let (first, second) = (receipts.issue(false, false), receipts.issue(false, false));
        second.settle(Err(BrokerError::Busy));
        assert_eq!(taken(&receipts), None, "the first is not known yet");
        first.settle(Ok(Sent::Absent));
        assert_eq!(taken(&receipts), Some(Ok(Sent::Absent)));
        assert_eq!(taken(&receipts), Some(Err(BrokerError::Busy)));
        assert_eq!(taken(&receipts), None);
    }

    #[test]
    fn a_timed_receipt_says_when_it_was_answered_not_when_the_one_before_was() {
        let receipts = Receipts::default();
        let (first, second) = (receipts.issue(true, false), receipts.issue(true, true));
        second.settle(Ok(Sent::Absent));
        let answered = SystemTime::now();
        first.settle(Ok(Sent::Absent));
        assert_eq!(receipts.take().unwrap().at, None);
        assert!(receipts.take().unwrap().at.unwrap() <= answered);
    }

    #[test]
    fn a_receipt_that_is_dropped_says_so() {
        let receipts = Receipts::default();
        drop(receipts.issue(true, false));
        assert_eq!(taken(&receipts), Some(Err(BrokerError::TimedOut)));
    }
}

//! Receipts: how a sender gets the outcomes of its envelopes, in the order of sending and without a task or an
//! allocation for each.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::SystemTime;

use super::{BrokerError, Sent};

/// The outcome of one send.
pub type Outcome = Result<Sent, BrokerError>;

/// The outcome of one send, with its time.
#[derive(Debug)]
pub struct Answer {
    /// The outcome.
    pub outcome: Outcome,
    /// When it became known, if the receipt is timed. The sender may take it later, since it is busy or an earlier
    /// envelope has no outcome yet.
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
    /// The number of the first slot.
    first: u64,
    queue: VecDeque<Option<Answer>>,
    /// Whether the sender waits for quiet receipts too.
    eager: bool,
    /// The sender's task, while it waits.
    waiting: Option<Waker>,
}

/// The broker's end for one envelope. If it is dropped unsettled, the outcome is unknown.
#[derive(Debug)]
pub struct Receipt {
    shared: Arc<Shared>,
    number: u64,
    quiet: bool,
    timed: bool,
    settled: bool,
}

impl Receipts {
    /// Issues a receipt for the next envelope. A `quiet` one does not wake the sender on success, since it does nothing
    /// then. A `timed` one records when the outcome became known.
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

    /// Takes the next outcome, if it is known.
    pub fn take(&self) -> Option<Answer> {
        let mut slots = self.shared.lock();
        let answer = slots.queue.front_mut()?.take()?;
        slots.queue.pop_front();
        slots.first += 1;
        Some(answer)
    }

    /// Waits until [`take`](Self::take) has an outcome. An `eager` sender is woken for quiet receipts too.
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
    /// Reports the outcome to the sender.
    pub fn settle(mut self, outcome: Outcome) {
        self.put(outcome);
    }

    fn put(&mut self, outcome: Outcome) {
        self.settled = true;
        let at = self.timed.then(SystemTime::now);
        let mut slots = self.shared.lock();
        // `first` cannot have passed this number: a slot is taken only after its receipt is settled.
        let index = usize::try_from(self.number - slots.first).unwrap_or(usize::MAX);
        // The next outcome is known already, and the sender may wait for it.
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
    fn outcomes_are_taken_in_the_order_of_sending() {
        let receipts = Receipts::default();
        let (first, second) = (receipts.issue(false, false), receipts.issue(false, false));
        second.settle(Err(BrokerError::Busy));
        assert_eq!(taken(&receipts), None, "the first has no outcome yet");
        first.settle(Ok(Sent::Absent));
        assert_eq!(taken(&receipts), Some(Ok(Sent::Absent)));
        assert_eq!(taken(&receipts), Some(Err(BrokerError::Busy)));
        assert_eq!(taken(&receipts), None);
    }

    #[test]
    fn a_timed_receipt_records_its_own_time() {
        let receipts = Receipts::default();
        let (first, second) = (receipts.issue(true, false), receipts.issue(true, true));
        second.settle(Ok(Sent::Absent));
        let answered = SystemTime::now();
        first.settle(Ok(Sent::Absent));
        assert_eq!(receipts.take().unwrap().at, None);
        assert!(receipts.take().unwrap().at.unwrap() <= answered);
    }

    #[test]
    fn a_dropped_receipt_times_out() {
        let receipts = Receipts::default();
        drop(receipts.issue(true, false));
        assert_eq!(taken(&receipts), Some(Err(BrokerError::TimedOut)));
    }
}

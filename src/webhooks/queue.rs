//! The events that are being told: each user's in order, and each again until it is taken.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::broker::Event;
use crate::model::Address;

/// How many events are looked at. More of users who wait for a failing one hold up the others.
const WINDOW: usize = 512;
/// The pause before the second attempt. Each further one is twice as long…
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// …up to this.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// How long an event is tried.
const TRIED_FOR: Duration = Duration::from_hours(24);

/// Events in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    event: Event,
    attempts: u32,
    is_under_way: bool,
    next_at: Option<Instant>,
}

impl Queue {
    /// How many more events have room.
    pub(super) fn room(&self) -> usize {
        WINDOW - self.waiting.len()
    }

    pub(super) fn push(&mut self, event: Event) {
        self.waiting.push_back(Waiting {
            event,
            attempts: 0,
            is_under_way: false,
            next_at: None,
        });
    }

    /// The next event to tell, if one is due: no earlier one of its users waits.
    pub(super) fn start(&mut self, now: Instant) -> Option<Event> {
        let mut held_up = HashSet::<&Address>::new();
        let mut found = None;
        for (place, waiting) in self.waiting.iter().enumerate() {
            let is_free = !waiting
                .event
                .users
                .iter()
                .any(|user| held_up.contains(user));
            let is_due = waiting.next_at.is_none_or(|at| at <= now);
            if is_free && is_due && !waiting.is_under_way {
                found = Some(place);
                break;
            }
            held_up.extend(&waiting.event.users);
        }
        let waiting = &mut self.waiting[found?];
        waiting.is_under_way = true;
        waiting.attempts += 1;
        Some(waiting.event.clone())
    }

    /// An event was told.
    pub(super) fn done(&mut self, place: &str) {
        self.waiting.retain(|waiting| waiting.event.place != place);
    }

    /// An event was not taken. Returns it if it was tried for long enough, and forgets it then.
    pub(super) fn failed(&mut self, place: &str, now: Instant) -> Option<Event> {
        let at = self
            .waiting
            .iter()
            .position(|waiting| waiting.event.place == place)?;
        let waiting = &mut self.waiting[at];
        let age = SystemTime::now().duration_since(waiting.event.at);
        if age.unwrap_or_default() >= TRIED_FOR {
            return self.waiting.remove(at).map(|waiting| waiting.event);
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << (waiting.attempts - 1).min(16));
        let pause = pause
            .min(LONGEST_PAUSE)
            .mul_f64(rand::random_range(0.8..1.2));
        waiting.is_under_way = false;
        waiting.next_at = Some(now + pause);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Realm, UserName};

    fn event(place: &str, users: &[&str], at: SystemTime) -> Event {
        let address = |name: &&str| Address::new(Realm::default(), UserName::parse(name).unwrap());
        Event {
            place: place.to_owned(),
            id: place.to_owned(),
            kind: String::new(),
            users: users.iter().map(address).collect(),
            sessions: Vec::new(),
            at,
            more: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_event_holds_up_its_users_and_nobody_else() {
        let (mut queue, now) = (Queue::default(), SystemTime::now());
        for (place, users) in [
            ("1", &["a"][..]),
            ("2", &["a", "b"]),
            ("3", &["b"]),
            ("4", &["c"]),
        ] {
            queue.push(event(place, users, now));
        }
        let mut started = || queue.start(Instant::now()).map(|event| event.place);
        assert_eq!(started().as_deref(), Some("1"));
        assert_eq!(started().as_deref(), Some("4"));
        assert_eq!(started(), None, "b waits for what is of a and b");
        assert_eq!(queue.failed("1", Instant::now()), None);
        queue.done("4");
        assert_eq!(queue.start(Instant::now()), None, "it is too early");
        tokio::time::advance(Duration::from_millis(1200)).await;
        assert_eq!(queue.start(Instant::now()).unwrap().place, "1");
        queue.done("1");
        assert_eq!(queue.start(Instant::now()).unwrap().place, "2");
        queue.done("2");
        assert_eq!(queue.start(Instant::now()).unwrap().place, "3");
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_nobody_takes_for_a_day_is_given_up() {
        let mut queue = Queue::default();
        let now = SystemTime::now();
        queue.push(event("1", &["a"], now - TRIED_FOR));
        queue.push(event("2", &["a"], now));
        assert_eq!(queue.start(Instant::now()).unwrap().place, "1");
        assert_eq!(queue.failed("1", Instant::now()).unwrap().place, "1");
        assert_eq!(queue.start(Instant::now()).unwrap().place, "2");
        for attempts in 1..40 {
            assert_eq!(queue.failed("2", Instant::now()), None);
            tokio::time::advance(LONGEST_PAUSE.mul_f64(1.2)).await;
            assert_eq!(
                queue.start(Instant::now()).unwrap().place,
                "2",
                "{attempts}"
            );
        }
    }
}

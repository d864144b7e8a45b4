//! Order across a refusal: while the client has not repeated a signal that was refused for now, its later ones to the
//! same user must not overtake it. So a client that repeats in order keeps order.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::State;
use crate::model::{Correlation, Refusal, UserName};
use crate::session::FirstRefused;

/// To how many users signals are held back at once. More replace the oldest.
const USERS: usize = 32;
/// How long the client has to repeat the first one.
const REPEAT_WITHIN: Duration = Duration::from_secs(10);
/// When the client should repeat what follows a signal that the node before refused.
const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// In place of the number of a signal that was refused before it got one: later than all that have one.
const UNNUMBERED: u64 = u64::MAX;
/// The same for one that was refused by the node that had the session before: earlier than all others.
const EARLIEST: u64 = 0;

/// For each user, the first signal that was refused and is not repeated.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    /// Oldest first.
    firsts: VecDeque<First>,
}

#[derive(Debug)]
struct First {
    to: UserName,
    /// Its number, which says what came first: outcomes are known later than other refusals.
    n: u64,
    id: Correlation,
    why: Refusal,
    until: Instant,
}

/// What the refused signals before it mean for a signal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    Free,
    /// It repeats one for which there was no room. Those behind it wait for its outcome, since a shorter one may fit.
    Alone,
    /// It must not overtake one that was refused for this reason.
    Held(Refusal),
}

impl HeldBack {
    /// Records that a signal was refused, unless an earlier one to this user was.
    fn refuse(&mut self, refused: First, now: Instant) {
        self.firsts.retain(|first| now < first.until);
        let known = self.firsts.iter_mut().find(|first| first.to == refused.to);
        match known {
            Some(first) if first.n <= refused.n => {}
            Some(first) => *first = refused,
            None => {
                if self.firsts.len() == USERS {
                    self.firsts.pop_front();
                }
                self.firsts.push_back(refused);
            }
        }
    }

    /// Whether the signal with this id may be sent now.
    fn turn(&mut self, to: &UserName, id: &Correlation, now: Instant) -> Turn {
        let Some(at) = self.firsts.iter().position(|first| first.to == *to) else {
            return Turn::Free;
        };
        let first = &self.firsts[at];
        if first.id != *id && now < first.until {
            return Turn::Held(first.why.clone());
        }
        let is_alone = first.id == *id && matches!(first.why, Refusal::InboxFull { .. });
        self.firsts.remove(at);
        if is_alone { Turn::Alone } else { Turn::Free }
    }

    /// The same in plain values. `since_1970` is `now` on the clock that other nodes have too.
    fn carried(&self, now: Instant, since_1970: Duration) -> Vec<FirstRefused> {
        let carried = |first: &First| {
            let left = first.until.checked_duration_since(now)?;
            Some(FirstRefused {
                to: first.to.clone(),
                id: first.id.clone(),
                needs_room: matches!(first.why, Refusal::InboxFull { .. }),
                until: (since_1970 + left).as_secs(),
            })
        };
        self.firsts.iter().filter_map(carried).collect()
    }

    fn restored(carried: &[FirstRefused], now: Instant, since_1970: Duration) -> Self {
        let restored = |first: &FirstRefused| {
            let left = Duration::from_secs(first.until).checked_sub(since_1970)?;
            let retry_after = REPEAT_AFTER;
            Some(First {
                to: first.to.clone(),
                n: EARLIEST,
                id: first.id.clone(),
                why: if first.needs_room {
                    Refusal::InboxFull { retry_after }
                } else {
                    Refusal::Unavailable { retry_after }
                },
                until: now + left.min(REPEAT_WITHIN),
            })
        };
        Self {
            firsts: carried.iter().filter_map(restored).collect(),
        }
    }
}

impl State {
    /// What the client has to repeat first, for the node that continues the session. `since_1970` is `now` on the clock
    /// that other nodes have too.
    pub fn held_back(&self, now: Instant, since_1970: Duration) -> Vec<FirstRefused> {
        self.outbox.held_back.carried(now, since_1970)
    }

    /// Goes on holding back what the node did that had the session before.
    pub fn hold_back_again(
        &mut self,
        carried: &[FirstRefused],
        now: Instant,
        since_1970: Duration,
    ) {
        self.outbox.held_back = HeldBack::restored(carried, now, since_1970);
    }

    /// Holds back what follows a signal that was refused for now before it got a number.
    pub(super) fn hold_back(&mut self, to: &UserName, id: Option<&Correlation>, why: &Refusal) {
        self.hold_back_after(to, id, UNNUMBERED, why);
    }

    /// Holds back what follows the signal of this number, which was refused for now.
    pub(super) fn hold_back_after(
        &mut self,
        to: &UserName,
        id: Option<&Correlation>,
        n: u64,
        why: &Refusal,
    ) {
        let is_for_now = matches!(
            why,
            Refusal::Unavailable { .. } | Refusal::InboxFull { .. } | Refusal::RateLimited { .. }
        );
        if let (true, true, Some(id)) = (is_for_now, self.is_resumable(), id) {
            let now = self.moment.now;
            let refused = First {
                to: to.clone(),
                n,
                id: id.clone(),
                why: why.clone(),
                until: now + REPEAT_WITHIN,
            };
            self.outbox.held_back.refuse(refused, now);
        }
    }

    /// Whether a signal may be sent now. One without an id cannot be repeated, and is never held back.
    pub(super) fn turn(&mut self, to: &UserName, id: Option<&Correlation>) -> Turn {
        let now = self.moment.now;
        id.map_or(Turn::Free, |id| self.outbox.held_back.turn(to, id, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHY: Refusal = Refusal::Unavailable {
        retry_after: Duration::from_secs(1),
    };

    const FULL: Refusal = Refusal::InboxFull {
        retry_after: Duration::from_secs(1),
    };

    fn name(text: &str) -> UserName {
        UserName::parse(text).unwrap()
    }

    fn id(text: &str) -> Correlation {
        Correlation(text.into())
    }

    fn first(to: &str, n: u64, why: &Refusal, now: Instant) -> First {
        First {
            to: name(to),
            n,
            id: id(&n.to_string()),
            why: why.clone(),
            until: now + REPEAT_WITHIN,
        }
    }

    #[test]
    fn what_follows_is_held_back_until_the_first_is_repeated() {
        let (mut held, now) = (HeldBack::default(), Instant::now());
        // The outcome of the first one came last.
        held.refuse(first("a", 2, &WHY, now), now);
        held.refuse(first("a", 1, &WHY, now), now);
        held.refuse(first("a", 3, &WHY, now), now);
        assert_eq!(held.turn(&name("b"), &id("3"), now), Turn::Free);
        assert_eq!(held.turn(&name("a"), &id("2"), now), Turn::Held(WHY));
        assert_eq!(held.turn(&name("a"), &id("4"), now), Turn::Held(WHY));
        assert_eq!(held.turn(&name("a"), &id("1"), now), Turn::Free);
        assert_eq!(held.turn(&name("a"), &id("2"), now), Turn::Free);
    }

    #[test]
    fn nobody_waits_longer_than_ten_seconds() {
        let (mut held, now) = (HeldBack::default(), Instant::now());
        held.refuse(first("a", 1, &WHY, now), now);
        let later = now + REPEAT_WITHIN - Duration::from_millis(1);
        assert_eq!(held.turn(&name("a"), &id("2"), later), Turn::Held(WHY));
        assert_eq!(
            held.turn(&name("a"), &id("2"), now + REPEAT_WITHIN),
            Turn::Free
        );
    }

    #[test]
    fn a_repetition_that_needs_room_goes_alone() {
        let (mut held, now) = (HeldBack::default(), Instant::now());
        held.refuse(first("a", 1, &FULL, now), now);
        assert_eq!(held.turn(&name("a"), &id("1"), now), Turn::Alone);
    }

    #[test]
    fn the_next_node_holds_back_the_same() {
        let (mut held, now) = (HeldBack::default(), Instant::now());
        held.refuse(first("a", 1, &FULL, now), now);
        held.refuse(first("b", 2, &WHY, now), now);
        // The other node's clock began elsewhere; the time of day is the same.
        let (here, there) = (now, now + Duration::from_hours(1));
        let today = Duration::from_secs(1_900_000_000);
        let carried = held.carried(here, today);
        let mut next = HeldBack::restored(&carried, there, today + Duration::from_secs(2));
        let (soon, late) = (there + Duration::from_secs(7), there + REPEAT_WITHIN);
        assert_eq!(next.turn(&name("a"), &id("3"), soon), Turn::Held(FULL));
        assert_eq!(next.turn(&name("b"), &id("3"), soon), Turn::Held(WHY));
        assert_eq!(next.turn(&name("a"), &id("1"), soon), Turn::Alone);
        assert_eq!(next.turn(&name("b"), &id("3"), late), Turn::Free);
        assert_eq!(held.carried(there, today), Vec::new());
    }

    #[test]
    fn more_users_than_the_bound_replace_the_oldest() {
        let (mut held, now) = (HeldBack::default(), Instant::now());
        for user in 0..=USERS {
            held.refuse(first(&format!("u{user}"), 1, &WHY, now), now);
        }
        assert_eq!(held.firsts.len(), USERS);
        assert_eq!(held.turn(&name("u0"), &id("2"), now), Turn::Free);
        assert_eq!(held.turn(&name("u1"), &id("2"), now), Turn::Held(WHY));
    }
}

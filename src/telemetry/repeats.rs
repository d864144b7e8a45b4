//! Keeps what anybody can make a node log again and again to one line a second for each cause.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::info;

/// The shortest time between two lines of one cause.
const WINDOW: Duration = Duration::from_secs(1);
/// How often it is looked what is to be summed up.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Counts what happens repeatedly. The first time is logged as it is; what follows within a second is summed up.
#[derive(Debug, Default)]
pub struct Repeats {
    /// Held for a map operation. One entry per cause that was lately logged.
    causes: Mutex<BTreeMap<&'static str, Count>>,
}

#[derive(Debug)]
struct Count {
    logged: Instant,
    since: u64,
}

impl Repeats {
    /// Counts one time. If true, it is the first one lately, and is to be logged.
    pub fn is_first(&self, cause: &'static str) -> bool {
        self.count(cause, Instant::now())
    }

    /// Service: sums up what was not logged, once a second.
    pub async fn sum_up(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.say(Instant::now());
        }
    }

    /// Sums up what was not logged yet, before the process ends.
    pub fn finish(&self) {
        self.say(Instant::now() + WINDOW);
    }

    fn say(&self, now: Instant) {
        for (cause, times) in self.due(now) {
            info!(cause, times, "The same happened again");
        }
    }

    fn count(&self, cause: &'static str, now: Instant) -> bool {
        let mut causes = self.lock();
        if let Some(count) = causes.get_mut(cause) {
            count.since += 1;
            return false;
        }
        let first = Count {
            logged: now,
            since: 0,
        };
        causes.insert(cause, first);
        true
    }

    /// What happened since its last line, which is a second ago.
    fn due(&self, now: Instant) -> Vec<(&'static str, u64)> {
        let mut due = Vec::new();
        self.lock().retain(|cause, count| {
            if now.saturating_duration_since(count.logged) < WINDOW {
                return true;
            }
            let times = std::mem::take(&mut count.since);
            count.logged = now;
            if times > 0 {
                due.push((*cause, times));
            }
            times > 0
        });
        due
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Count>> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_second_and_every_time_is_counted() {
        let repeats = Repeats::default();
        let begun = Instant::now();
        let (mut lines, mut times) = (0, 0);
        for millis in 0..10_000 {
            let now = begun + Duration::from_millis(millis);
            if repeats.count("flood", now) {
                lines += 1;
                times += 1;
            }
            for (cause, more) in repeats.due(now) {
                assert_eq!(cause, "flood");
                lines += 1;
                times += more;
            }
        }
        let end = begun + Duration::from_secs(11);
        times += repeats.due(end).iter().map(|(_, more)| more).sum::<u64>();
        assert!((9..=11).contains(&lines), "{lines} lines");
        assert_eq!(times, 10_000);
    }

    #[test]
    fn causes_are_counted_apart_and_forgotten() {
        let repeats = Repeats::default();
        let begun = Instant::now();
        assert!(repeats.count("one", begun));
        assert!(repeats.count("other", begun));
        assert!(!repeats.count("one", begun));
        assert_eq!(repeats.due(begun + WINDOW), [("one", 1)]);
        // Quiet for a second: the next one is logged as it is.
        assert!(repeats.due(begun + 2 * WINDOW).is_empty());
        assert!(repeats.lock().is_empty());
        assert!(repeats.count("one", begun + 3 * WINDOW));
    }
}

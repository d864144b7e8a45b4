//! The offline queue: signals of one session to users who may be absent.
//!
//! The signals to one user form a line. Nothing leaves the line before the outcome of what left earlier is known, so no
//! signal overtakes one that found nobody. Such a signal waits here with everything behind it, while the node looks its
//! receiver up. When somebody holds the name, the line is sent to that session only: if it is gone by then, the whole
//! line waits again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::outbox::Outgoing;
use crate::broker::InboxLimits;
use crate::model::{SessionId, UserName};

/// For how many users the signals of one session may wait.
const USERS: usize = 256;
/// How much may wait in one session, in bytes.
const BYTES: usize = 1 << 20;
/// How much of that a signal takes beside its body.
const OVERHEAD: usize = 512;
/// The pause before an absent user is looked up. Each pause is half as long again as the one before.
pub(super) const LOOK_SOON: Duration = Duration::from_millis(100);
/// The longest pause between lookups.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The prefix of the record fields that say for whom a session waits. The value is the session waited for, or
/// [`ANYBODY`].
pub(super) const WAITS: &str = "w:";
pub(super) const ANYBODY: &str = "-";
/// How many users are remembered that the client was lately told to be absent.
const TOLD: usize = 256;
/// How long "lately" is. An offer and its candidates are reported once.
const LATELY: Duration = Duration::from_secs(1);

/// The lines of one session, and when to look their users up.
#[derive(Debug, Default)]
pub(super) struct OfflineQueue {
    pub(super) lines: HashMap<UserName, Line>,
    pub(super) look_at: Option<Instant>,
    pub(super) pause: Duration,
    pub(super) told: VecDeque<(Instant, UserName)>,
}

/// The signals of one session to one user.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Signals that have not left, in order of `n`.
    pub(super) signals: VecDeque<Outgoing>,
    /// How many signals have left whose outcomes are not known.
    pub(super) in_flight: usize,
    /// Since when the user is looked up.
    pub(super) since: Option<Instant>,
    /// The detached session whose inbox got the last signal. The lookups wait for it to resume.
    pub(super) detached: Option<SessionId>,
    /// What the session's record says about this line.
    pub(super) noted: Option<String>,
}

impl Line {
    pub(super) fn is_absent(&self) -> bool {
        self.since.is_some() && self.detached.is_none()
    }
}

impl OfflineQueue {
    /// All fields for the record.
    pub(super) fn noted(&self) -> impl Iterator<Item = (String, String)> {
        let lines = self.lines.iter();
        lines.filter_map(|(name, line)| Some((field(name), line.noted.clone()?)))
    }

    /// How many signals wait behind others that are in flight.
    pub(super) fn queued(&self) -> usize {
        let lines = self.lines.values().filter(|line| !line.is_absent());
        lines.map(|line| line.signals.len()).sum()
    }

    /// Whether one more user may be waited for, if this line's user is not yet.
    pub(super) fn has_place(&self, line: &Line) -> bool {
        let awaited = self.lines.values().filter(|line| line.since.is_some());
        line.since.is_some() || awaited.count() < USERS
    }

    /// Whether a signal fits into this line. The bound for one line is what an inbox takes from one sender, because the
    /// whole line is sent at once.
    pub(super) fn has_room(&self, line: &Line, sent: &Outgoing) -> bool {
        let own = || line.signals.iter().chain([sent]);
        let others = self.lines.values().flat_map(|line| &line.signals);
        self.has_place(line)
            && own().chain(others).map(cost).sum::<usize>() <= BYTES
            && own()
                .map(|sent| InboxLimits::weight(cost(sent)))
                .sum::<usize>()
                <= InboxLimits::DEFAULT.sender_weight
    }

    /// Whether to tell the client that this user is absent: it was not told so lately.
    pub(super) fn tells(&mut self, name: &UserName, now: Instant) -> bool {
        let is_over = |(at, _): &(Instant, _)| *at + LATELY <= now;
        while self.told.len() >= TOLD || self.told.front().is_some_and(is_over) {
            self.told.pop_front();
        }
        let is_news = self.told.iter().all(|(_, told)| told != name);
        if is_news {
            self.told.push_back((now, name.clone()));
        }
        is_news
    }
}

pub(super) fn cost(sent: &Outgoing) -> usize {
    sent.body.as_ref().map_or(0, |body| body.0.len()) + OVERHEAD
}

pub(super) fn field(name: &UserName) -> String {
    format!("{WAITS}{name}")
}

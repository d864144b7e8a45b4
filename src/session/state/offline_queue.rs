//! Signals to users who may not be here.
//!
//! What one session sends to one user stands in a line: nothing leaves before the outcome of what left earlier is known, so nothing overtakes a
//! signal that found nobody. Such a signal waits here, with all that is behind it, while the node looks for its receiver. Once somebody has the
//! name, the line is sent to that session alone: should it be gone by then, all of it waits again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::outbox::Outgoing;
use crate::broker::InboxLimits;
use crate::model::{SessionId, UserName};

/// For how many users of one session something may wait; to others it is as if they were not waited for.
const USERS: usize = 256;
/// How much of one session may wait, in bytes.
const BYTES: usize = 1 << 20;
/// How much of that a signal takes beside its body.
const OVERHEAD: usize = 512;
/// How soon a user is looked for who was just not here; each look is half as long again after the one before…
pub(super) const LOOK_SOON: Duration = Duration::from_millis(100);
/// …but no longer than this.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How the field of a session's record begins which says that it waits for a user: for the session that is its value, or for anybody.
pub(super) const WAITS: &str = "w:";
pub(super) const ANYBODY: &str = "-";
/// How many users are remembered that the client was lately told of.
const TOLD: usize = 256;
/// How long that is lately: an offer and its candidates are told of once.
const LATELY: Duration = Duration::from_secs(1);

/// The lines of one session, and when it looks for their users.
#[derive(Debug, Default)]
pub(super) struct OfflineQueue {
    pub(super) lines: HashMap<UserName, Line>,
    pub(super) look_at: Option<Instant>,
    pub(super) pause: Duration,
    pub(super) told: VecDeque<(Instant, UserName)>,
}

/// What one session sends to one user.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// By `n`.
    pub(super) signals: VecDeque<Outgoing>,
    /// How many left before these, whose outcomes are not known.
    pub(super) in_flight: usize,
    /// Since when the user is looked for.
    pub(super) since: Option<Instant>,
    /// The session between connections whose inbox has what was sent last: that session is looked for.
    pub(super) detached: Option<SessionId>,
    /// What the session's record says of it.
    pub(super) noted: Option<String>,
}

impl Line {
    pub(super) fn is_absent(&self) -> bool {
        self.since.is_some() && self.detached.is_none()
    }
}

impl OfflineQueue {
    /// All of it, as it is noted for whoever holds the session next.
    pub(super) fn noted(&self) -> impl Iterator<Item = (String, String)> {
        let lines = self.lines.iter();
        lines.filter_map(|(name, line)| Some((field(name), line.noted.clone()?)))
    }

    /// How many signals are behind others that are on their way.
    pub(super) fn queued(&self) -> usize {
        let lines = self.lines.values().filter(|line| !line.is_absent());
        lines.map(|line| line.signals.len()).sum()
    }

    /// Whether the user of this line may be looked for, beside those of the others.
    pub(super) fn has_place(&self, line: &Line) -> bool {
        let awaited = self.lines.values().filter(|line| line.since.is_some());
        line.since.is_some() || awaited.count() < USERS
    }

    /// Whether this may wait in this line. No more does than an inbox takes from one sender: all of it leaves at once.
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

    /// Whether the client is to be told that this user is not here: it was not told so lately.
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

//! The clocks of one session: when to ping, when silence ends it, and how long to wait for a login.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::model::CloseReason;

/// How long before the end of its token a client is told.
const TOKEN_TOLD_BEFORE: Duration = Duration::from_mins(1);

/// Ping intervals and time-outs.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// How often a client is pinged.
    pub ping_every: Duration,
    /// How long a client may be silent before it counts as dropped.
    pub silent_after: Duration,
    /// How long a client may take to log in.
    pub login_within: Duration,
    /// Time limit for the pong when another session wants the client's name.
    pub doubt: Duration,
    /// How often the client must send the heartbeat of its protocol; `None` if the protocol has none.
    pub beats_within: Option<Duration>,
}

/// One timer, set to the earliest deadline. Receiving a frame does not move it: the deadlines are checked when it
/// fires, so frames cost no timer operation.
#[derive(Debug)]
pub(super) struct Heartbeat {
    clocks: Clocks,
    heard_at: Instant,
    pinged_at: Instant,
    /// When the client last sent the heartbeat of its protocol.
    beaten_at: Instant,
    /// The deadline of the login; `None` after it.
    login_by: Option<Instant>,
    /// When the ICE servers must be announced again.
    renew_at: Option<Instant>,
    /// When to tell the client that its token expires, and when the session ends.
    token_told_at: Option<Instant>,
    token_ends_at: Option<Instant>,
    /// The deadline of a sign of life, while the session is challenged.
    alive_by: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    /// Nothing.
    Steady,
    /// Ping the client.
    Ping,
    /// Announce the ICE servers again.
    Renew,
    /// Tell the client that its token expires so soon.
    TokenExpires(Duration),
    /// End the session for this reason.
    Stopped(CloseReason),
}

impl Heartbeat {
    pub(super) fn start(clocks: Clocks) -> Self {
        let now = Instant::now();
        let login_by = Some(now + clocks.login_within);
        let timer = Box::pin(sleep_until(now));
        let mut heartbeat = Self {
            clocks,
            heard_at: now,
            pinged_at: now,
            beaten_at: now,
            login_by,
            renew_at: None,
            token_told_at: None,
            token_ends_at: None,
            alive_by: None,
            timer,
        };
        heartbeat.set_timer();
        heartbeat
    }

    /// Records a sign of life of any kind.
    pub(super) fn heard(&mut self) {
        self.heard_at = Instant::now();
        self.alive_by = None;
    }

    /// Records the heartbeat of the client's protocol.
    pub(super) fn beaten(&mut self) {
        self.beaten_at = Instant::now();
    }

    /// Records the login.
    pub(super) fn logged_in(&mut self) {
        self.login_by = None;
    }

    /// Sets when the ICE servers must be announced again; `None` if they do not expire.
    pub(super) fn renews_in(&mut self, time: Option<Duration>) {
        self.renew_at = time.map(|time| Instant::now() + time);
        self.set_timer();
    }

    /// Sets how long the client's token is valid; `None` if it has none.
    pub(super) fn token_ends_in(&mut self, time: Option<Duration>) {
        self.token_ends_at = time.map(|time| Instant::now() + time);
        self.token_told_at =
            time.map(|time| Instant::now() + time.saturating_sub(TOKEN_TOLD_BEFORE));
        self.set_timer();
    }

    /// Starts a challenge: the client is being pinged, and must answer in time.
    pub(super) fn doubted(&mut self) {
        let now = Instant::now();
        self.pinged_at = now;
        self.alive_by.get_or_insert(now + self.clocks.doubt);
        self.set_timer();
    }

    /// Grants the time that a write took: meanwhile the client's link carried what was before the ping, and nothing
    /// that the client sent was read.
    pub(super) fn wrote_for(&mut self, time: Duration) {
        self.heard_at += time;
        self.beaten_at += time;
        self.alive_by = self.alive_by.map(|by| by + time);
        self.set_timer();
    }

    /// Waits for the earliest deadline.
    pub(super) async fn due(&mut self) {
        self.timer.as_mut().await;
    }

    /// Returns what is due, and sets the timer to the next deadline.
    pub(super) fn beat(&mut self) -> Pulse {
        let now = Instant::now();
        let pulse = if self.login_by.is_some_and(|by| now >= by) {
            Pulse::Stopped(CloseReason::NoLogin)
        } else if self.token_ends_at.is_some_and(|at| now >= at) {
            Pulse::Stopped(CloseReason::TokenExpired)
        } else if now >= self.silent_at() || self.alive_by.is_some_and(|by| now >= by) {
            Pulse::Stopped(CloseReason::Silent)
        } else if now >= self.ping_at() {
            self.pinged_at = now;
            Pulse::Ping
        } else if self.renew_at.is_some_and(|at| now >= at) {
            self.renew_at = None;
            Pulse::Renew
        } else if let Some(ends_at) = self.token_ends_at
            && self.token_told_at.is_some_and(|at| now >= at)
        {
            self.token_told_at = None;
            Pulse::TokenExpires(ends_at - now)
        } else {
            Pulse::Steady
        };
        self.set_timer();
        pulse
    }

    fn silent_at(&self) -> Instant {
        let silent_at = self.heard_at + self.clocks.silent_after;
        let beat_by = self
            .clocks
            .beats_within
            .map(|within| self.beaten_at + within);
        beat_by.map_or(silent_at, |by| by.min(silent_at))
    }

    fn ping_at(&self) -> Instant {
        self.pinged_at + self.clocks.ping_every
    }

    fn set_timer(&mut self) {
        let next = [
            self.login_by,
            self.renew_at,
            self.alive_by,
            self.token_told_at,
            self.token_ends_at,
        ];
        let next = next.into_iter().flatten();
        let next = next.fold(self.silent_at().min(self.ping_at()), Instant::min);
        self.timer.as_mut().reset(next);
    }
}

#[cfg(test)]
#[path = "heartbeat_tests.rs"]
mod tests;

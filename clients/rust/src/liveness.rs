//! Notices that a connection is dead in time to resume.

use std::time::Duration;

use tokio::time::Instant;

use crate::wire::Heartbeat;

#[derive(Debug)]
pub(crate) struct Liveness {
    heard_at: Instant,
    /// When the unanswered ping was sent.
    asked_at: Option<Instant>,
}

/// What to do about silence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pulse {
    Wait(Instant),
    Ping,
    Dead,
}

impl Liveness {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            heard_at: now,
            asked_at: None,
        }
    }

    /// The server was heard, or is not read because the app is busy.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.asked_at = None;
    }

    pub(crate) fn pinged(&mut self, now: Instant) {
        self.asked_at = Some(now);
    }

    /// A busy session has a call, or waits for an answer.
    pub(crate) fn pulse(&self, beat: Heartbeat, is_busy: bool, now: Instant) -> Pulse {
        let (from, millis, then) = match (self.asked_at, is_busy) {
            (Some(asked_at), _) => (asked_at, beat.answer, Pulse::Dead),
            (None, true) => (self.heard_at, beat.busy, Pulse::Ping),
            (None, false) => (self.heard_at, beat.idle, Pulse::Ping),
        };
        let at = from + Duration::from_millis(millis);
        if now < at { Pulse::Wait(at) } else { then }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_probed_and_then_the_connection_is_dead() {
        let (beat, now) = (Heartbeat::default(), Instant::now());
        let after = |millis| now + Duration::from_millis(millis);
        let mut liveness = Liveness::new(now);
        assert_eq!(liveness.pulse(beat, true, now), Pulse::Wait(after(4000)));
        assert_eq!(liveness.pulse(beat, false, now), Pulse::Wait(after(15_000)));
        assert_eq!(liveness.pulse(beat, true, after(4000)), Pulse::Ping);
        liveness.pinged(after(4000));
        assert_eq!(
            liveness.pulse(beat, true, after(4001)),
            Pulse::Wait(after(8000))
        );
        assert_eq!(liveness.pulse(beat, true, after(8000)), Pulse::Dead);
        liveness.heard(after(7999));
        assert_eq!(
            liveness.pulse(beat, true, after(8000)),
            Pulse::Wait(after(11_999))
        );
    }
}

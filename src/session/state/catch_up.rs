//! The position up to which a session has read its inbox, and how it catches up after it missed a push.
//!
//! An entry is handled only if it is later than the last one handled. While the session reads the inbox, pushes are not
//! handled: they only tell how far to read. So a missed push is late, not lost.

use std::time::Duration;

use super::Effect;
use crate::broker::{BrokerError, Entry};
use crate::bugs::{self, Bug};
use crate::model::Offset;

/// The pause after a read that failed.
const PAUSE: Duration = Duration::from_millis(200);

/// The reading position of one session.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    mode: Mode,
    /// The last entry that was handled.
    last: Offset,
    /// The last entry that was pushed while the inbox was being read.
    pushed: Offset,
    /// `pushed`, when the current read began.
    pushed_before: Offset,
    /// Another push was missed during the read.
    again: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// Everything was read: pushes are handled as they come.
    #[default]
    Level,
    /// A resumed session reads its inbox for the first time.
    FirstRead,
    /// The inbox is being read.
    Reading,
    /// The session is detached: the next connection reads the inbox.
    Stopped,
}

impl CatchUp {
    /// Whether no read is in flight.
    pub(super) fn is_level(&self) -> bool {
        matches!(self.mode, Mode::Level | Mode::Stopped)
    }

    /// Whether a resumed session has not read its inbox yet.
    pub(super) fn is_beginning(&self) -> bool {
        self.mode == Mode::FirstRead
    }

    /// Whether reading was stopped, and no push was missed since.
    pub(super) fn is_stopped(&self) -> bool {
        self.mode == Mode::Stopped
    }

    /// The last entry that was handled.
    pub(super) fn last(&self) -> Offset {
        self.last
    }

    /// Begins to read behind this entry.
    pub(super) fn begin(&mut self, last: Offset) -> Effect {
        self.last = last;
        self.read(Mode::FirstRead, Duration::ZERO)
    }

    /// Stops reading until a push is missed.
    pub(super) fn stop(&mut self) {
        self.mode = Mode::Stopped;
    }

    /// Handles a push. Returns the entry if it must be handled now.
    pub(super) fn push(&mut self, entry: Entry) -> Option<Entry> {
        if bugs::has(Bug::PushesWhileCatchingUp) {
            Some(entry)
        } else if self.is_level() {
            self.advance(entry)
        } else {
            self.pushed = self.pushed.max(entry.id);
            None
        }
    }

    /// Handles a missed push.
    pub(super) fn gap(&mut self, effects: &mut Vec<Effect>) {
        if self.is_level() {
            let pause = if bugs::has(Bug::PushesWhileCatchingUp) {
                PAUSE
            } else {
                Duration::ZERO
            };
            effects.push(self.read(Mode::Reading, pause));
        } else {
            self.again = true;
        }
    }

    /// Handles the result of a read. Returns the entries to handle, and reads again until nothing is left.
    pub(super) fn caught(
        &mut self,
        result: Result<Vec<Entry>, BrokerError>,
        effects: &mut Vec<Effect>,
    ) -> Vec<Entry> {
        self.mode = Mode::Level;
        let Ok(entries) = result else {
            effects.push(self.read(Mode::Reading, PAUSE));
            return Vec::new();
        };
        if entries.is_empty() {
            // Entries that were pushed before this read and are not in the inbox were confirmed and trimmed.
            self.last = self.last.max(self.pushed_before);
        }
        let fresh = entries.into_iter();
        let fresh = fresh.filter_map(|entry| self.advance(entry)).collect();
        if std::mem::take(&mut self.again) || self.pushed > self.last {
            effects.push(self.read(Mode::Reading, Duration::ZERO));
        }
        fresh
    }

    /// Returns the entry if it is later than the last one handled.
    pub(super) fn advance(&mut self, entry: Entry) -> Option<Entry> {
        (entry.id > self.last).then(|| {
            self.last = entry.id;
            entry
        })
    }

    fn read(&mut self, mode: Mode, pause: Duration) -> Effect {
        self.mode = mode;
        self.pushed_before = self.pushed;
        Effect::Read(self.last, pause)
    }
}

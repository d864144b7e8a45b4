//! What the client has.
//!
//! Over a WebSocket confirmation is free: frames are ordered, so the pong to a ping confirms everything that was
//! written before the ping. It is free until the client's application confirms something itself, and never again.

use super::{Missed, Record};
use crate::model::Offset;

/// After how many unconfirmed entries the client is pinged, so that it confirms them.
pub(super) const ASK_AFTER: usize = 64;
/// After how many bytes of bodies: a quarter of an inbox, so that long messages do not fill it between two heartbeats.
const ASK_AFTER_BYTES: usize = 256 * 1024;
/// After how many confirmed entries of which the client was not told the store is told.
pub(super) const FREE_SILENT: usize = 32;

impl Record {
    /// Whether to ping the client, so that its pong confirms what it has.
    pub(in crate::session::state) fn asks(&self) -> bool {
        if self.app_confirms {
            return false;
        }
        if self.missed == Missed::Told || self.unasked_bytes >= ASK_AFTER_BYTES {
            return true;
        }
        let unconfirmed = &self.unconfirmed;
        unconfirmed.len() >= ASK_AFTER
            && unconfirmed[unconfirmed.len() - ASK_AFTER].id > self.asked_at
    }

    /// Records a ping that was sent behind everything before.
    pub(in crate::session::state) fn pinged(&mut self, ping: u64) {
        self.unasked_bytes = 0;
        if self.app_confirms {
            return;
        }
        if self.missed == Missed::Told {
            self.missed = Missed::Asked(ping);
        }
        if let Some(last) = self
            .unconfirmed
            .back()
            .filter(|last| last.id > self.asked_at)
        {
            self.asked_at = last.id;
            self.marks.push_back((ping, last.id));
        }
    }

    /// Handles a pong. Returns the last entry that it confirms, if it confirms any.
    pub(in crate::session::state) fn ponged(&mut self, ping: u64) -> Option<Offset> {
        if self.app_confirms {
            return None;
        }
        if let Missed::Asked(asked) = self.missed
            && asked <= ping
        {
            // The next update says so.
            self.missed = Missed::Nothing;
        }
        let answered = self.marks.iter().take_while(|(sent, _)| *sent <= ping);
        let has = answered.map(|(_, id)| *id).last();
        self.marks.retain(|(sent, _)| *sent > ping);
        has
    }

    /// Records that the client's application confirms what it has.
    pub(in crate::session::state) fn app_confirms(&mut self) {
        // Saved at once: the next connection must not take a browser's pong for the application's confirmation.
        self.frees |= !self.app_confirms;
        self.app_confirms = true;
        self.marks.clear();
        if let Missed::Asked(_) = self.missed {
            self.missed = Missed::Told;
        }
    }

    /// Confirms all entries up to this one.
    pub(in crate::session::state) fn confirm(&mut self, last: Offset) {
        if self.app_confirms && self.missed == Missed::Told && last > self.told_after {
            self.missed = Missed::Nothing;
            self.frees = true;
        }
        while let Some(entry) = self.unconfirmed.front().filter(|entry| entry.id <= last) {
            self.frees = true;
            self.confirmed.all = entry.id;
            if !entry.silent {
                self.confirmed.told = entry.id;
            }
            self.silent.remove(&entry.id);
            self.unconfirmed.pop_front();
        }
        if self.app_confirms {
            self.confirm_silent();
        }
    }

    /// Confirms the entries of which no application can know.
    pub(super) fn confirm_silent(&mut self) {
        while let Some(entry) = self.unconfirmed.front().filter(|entry| entry.silent) {
            self.frees = true;
            self.silent_freed += 1;
            self.confirmed.all = entry.id;
            self.silent.remove(&entry.id);
            self.unconfirmed.pop_front();
        }
    }

    /// Whether so many of them are confirmed that the store must be told, although no other confirmation may come.
    pub(in crate::session::state) fn frees_silent(&self) -> bool {
        self.silent_freed >= FREE_SILENT
    }

    /// Whether the store must be told of confirmed entries.
    pub(in crate::session::state) fn frees(&self) -> bool {
        self.frees
    }

    /// Forgets the pings of the lost connection.
    pub(in crate::session::state) fn detached(&mut self) {
        self.marks.clear();
    }

    /// Records that the session may have missed something.
    pub(in crate::session::state) fn has_missed(&mut self) {
        self.missed = Missed::Untold;
    }

    /// Whether to tell the client now that it may have missed something. True once. Called when the inbox is read.
    pub(in crate::session::state) fn tells_missed(&mut self) -> bool {
        let tells = self.missed == Missed::Untold;
        if tells {
            self.missed = Missed::Told;
            self.told_after = self.dealt_with();
        }
        tells
    }
}

//! What a resumable session writes down for whoever holds it next: when, in which order, and again if it was not written.

use tokio::time::Instant;
use tracing::debug;

use super::memory::Noted;
use super::outbox::RETRY_NOTICE;
use super::seat::{Seat, Turn};
use crate::model::UserName;

impl Seat {
    /// The call with this user has changed. Takes its place in the address's order now, before whatever is sent next.
    pub(super) fn note_call(&mut self, peer: &UserName) {
        if let Some(memory) = &mut self.memory {
            memory.change(peer.clone());
            self.note();
        }
    }

    /// The same, by something that is being heard.
    pub(super) fn change_call(&mut self, peer: &UserName) {
        if let Some(memory) = &mut self.memory {
            memory.change(peer.clone());
            self.has_changed_calls = true;
        }
    }

    pub(super) fn note(&mut self) {
        if let Some(memory) = &mut self.memory {
            let (notes, users) = memory.notes(&self.calls, &self.heard);
            let answer = self.exchange.fabric.note(&self.lease, notes);
            memory.noting(users, answer);
        }
    }

    /// The store had forgotten this session, or may have.
    pub(super) fn regained(&mut self, turns: &mut Vec<Turn>) {
        let Some(memory) = &mut self.memory else {
            return;
        };
        let whole_at = self.exchange.hold.stalled_at();
        let (mut notes, users) =
            memory.anew(self.catch_up.last(), whole_at, &self.calls, &self.heard);
        if let Some(waits) = &self.waits {
            notes.set.extend(waits.noted());
        }
        let answer = self.exchange.fabric.note(&self.lease, notes);
        memory.noting(users, answer);
        if !self.is_detached {
            // What was sent while the store did not know where we are is in the inbox.
            self.catch_up.gap(&self.exchange.fabric, &self.lease);
            // Its client confirms what the store has lost, as soon as it can.
            turns.push(Turn::Ask);
            self.caught_up(turns);
        }
    }

    /// Something was written down, or was not. That the session is another's by now is told by the next renewal.
    pub(super) fn noted(&mut self, noted: Noted) {
        if let (Err(error), Some(memory)) = (&noted.result, &mut self.memory) {
            debug!(%error, "What is known of a session could not be written down: it is written again");
            memory.unwritten(noted);
            self.outbox
                .retry_at
                .get_or_insert_with(|| Instant::now() + RETRY_NOTICE);
        }
    }
}

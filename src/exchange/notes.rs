//! What a resumable session writes down for whoever holds it next: when, in which order, and again if it was not written.

use tokio::time::Instant;
use tracing::debug;

use super::memory::{Memory, Noted};
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
            memory.noting(users, false, answer);
        }
    }

    /// Something was not written: it is written again.
    pub(super) fn note_again(&mut self, turns: &mut Vec<Turn>) {
        match &self.memory {
            Some(memory) if memory.has_failed_anew() => self.regained(turns),
            Some(memory) if memory.is_unwritten() => self.note(),
            _ => {}
        }
    }

    /// What is new is written at once: without a connection nothing else comes that it could be written with.
    pub(super) fn note_news(&mut self) {
        let has_news = |memory: &Memory| memory.has_news() && !memory.is_unwritten();
        if self.memory.as_deref().is_some_and(has_news) {
            self.note();
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
        memory.noting(users, true, answer);
        // What was sent while the store did not know where we are is in the inbox. Without a connection it is heard too: what the store has
        // lost is sent again, and only we know that our client was told it and may not have seen it.
        self.catch_up.gap(&self.exchange.fabric, &self.lease);
        if !self.is_detached {
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

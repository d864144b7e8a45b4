//! What a resumable session writes down for whoever holds it next: when, in which order, and again if it was not written.

use tokio::time::Instant;
use tracing::debug;

use super::memory::{Memory, Noted};
use super::outbox::RETRY_NOTICE;
use super::seat::{Seat, Turn, tell_missed};
use crate::model::UserName;

impl Seat {
    /// The call with this user has changed by what this session does, of which its inbox tells nothing to whoever resumes it.
    pub(super) fn note_call(&mut self, peer: &UserName) {
        if let Some(memory) = &mut self.memory {
            memory.change(peer.clone());
            self.note();
        }
    }

    pub(super) fn note(&mut self) {
        if let Some(memory) = &mut self.memory {
            let writing = memory.notes(&self.calls, &self.heard);
            memory.noting(writing, |notes| {
                self.exchange.fabric.note(&self.lease, notes)
            });
        }
    }

    /// Something was not written: it is written again.
    pub(super) fn note_again(&mut self) {
        match &self.memory {
            Some(memory) if memory.has_failed_anew() => self.note_anew(),
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

    /// The store has lost data. The client is told, and once the guard is over each call peer is asked whether it still has the call.
    pub(super) fn regained(&mut self, turns: &mut Vec<Turn>) {
        let epoch = *self.exchange.fabric.epoch().borrow();
        if std::mem::replace(&mut self.epoch, epoch) == epoch {
            // Its client knows; what was written may not be there.
            return self.note_anew();
        }
        if !self.calls.is_empty() {
            self.sync_at = Some(Instant::now() + self.exchange.terms.node_ttl);
        }
        let Some(memory) = &mut self.memory else {
            if !self.calls.is_empty() {
                tell_missed(turns);
            }
            return;
        };
        memory.has_missed();
        self.note_anew();
        // What was sent since the store knows the lease again is in the inbox.
        if !self.is_detached {
            self.catch_up.gap(&self.exchange.fabric, &self.lease);
            self.caught_up(turns);
        }
    }

    /// Writes everything: the store may know nothing of this session.
    fn note_anew(&mut self) {
        let Some(memory) = &mut self.memory else {
            return;
        };
        let mut writing = memory.anew(self.catch_up.last(), &self.calls, &self.heard);
        if let Some(waits) = &self.waits {
            writing.notes.set.extend(waits.noted());
        }
        memory.noting(writing, |notes| {
            self.exchange.fabric.note(&self.lease, notes)
        });
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

//! When a resumable session updates its record, and how it retries.

use tracing::debug;

use super::outbox::RETRY_NOTICE;
use super::record::Record;
use super::{Effect, State};
use crate::broker::{BrokerError, RecordUpdate};
use crate::model::UserName;

impl State {
    /// Saves a change of a call that this session caused itself. Its inbox does not tell the next connection of it.
    pub(super) fn save_call(&mut self, peer: &UserName) {
        if let Some(record) = &mut self.record {
            record.change(peer.clone());
            self.save();
        }
    }

    pub(super) fn save(&mut self) {
        if let Some(record) = &mut self.record {
            let (notes, update) = record.notes(&self.calls, &self.dedup);
            let number = record.saving(update);
            self.effects
                .push(Effect::Save(Some(number), Box::new(notes)));
        }
    }

    /// Retries a failed update.
    pub(super) fn save_again(&mut self) {
        match &self.record {
            Some(record) if record.has_failed_anew() => self.save_anew(),
            Some(record) if record.is_unwritten() => self.save(),
            _ => {}
        }
    }

    /// Writes changes at once. For a detached session: nothing else will be saved that could carry them.
    pub(super) fn save_news(&mut self) {
        let has_news = |record: &Record| record.has_news() && !record.is_unwritten();
        if self.record.as_deref().is_some_and(has_news) {
            self.save();
        }
    }

    /// Handles a loss of data by the store, in which the lease may have been lost too.
    pub(super) fn new_epoch(&mut self, epoch: u64) {
        if std::mem::replace(&mut self.epoch, epoch) == epoch {
            // The client knows already, but the store may not have the record.
            return self.save_anew();
        }
        self.lose_inbox();
    }

    /// The lease was gone, with the inbox and the record, and is taken back: the store has lost data, or another node
    /// believed that this one was dead and freed the name.
    pub(super) fn regained(&mut self, epoch: u64) {
        let is_known = std::mem::replace(&mut self.epoch, epoch) == epoch
            && self
                .record
                .as_ref()
                .is_some_and(|record| record.is_saving_anew());
        if is_known {
            // The same loss, found again before the record was written.
            return self.save_anew();
        }
        self.lose_inbox();
    }

    /// Tells the client that it may have missed something, and asks each call peer whether it still has the call, once
    /// the guard is over.
    fn lose_inbox(&mut self) {
        if !self.calls.is_empty() {
            self.sync_at = Some(self.moment.now + self.node.terms.node_ttl);
        }
        let Some(record) = &mut self.record else {
            if !self.calls.is_empty() {
                self.tell_missed();
            }
            return;
        };
        record.has_missed();
        self.save_anew();
        // Signals that were sent after the lease was restored are in the inbox.
        if !self.is_detached {
            self.catch_up.gap(&mut self.effects);
            self.caught_up();
        }
    }

    /// Writes everything, because the store may have nothing of this session.
    fn save_anew(&mut self) {
        let watches: Vec<_> = self.noted_watches().collect();
        let Some(record) = &mut self.record else {
            return;
        };
        let (mut notes, update) = record.anew(self.catch_up.last(), &self.calls, &self.dedup);
        if let Some(offline) = &self.offline {
            notes.set.extend(offline.noted());
        }
        notes.set.extend(watches);
        let number = record.saving(update);
        self.effects
            .push(Effect::Save(Some(number), Box::new(notes)));
    }

    /// Handles the result of an update. Ignores that another connection holds the session: the next renewal tells.
    pub(super) fn saved(&mut self, number: u64, result: Result<bool, BrokerError>) {
        let Some(record) = &mut self.record else {
            return;
        };
        record.saved(number, result.is_ok());
        if let Err(error) = result {
            debug!(%error, "A session's record could not be updated: it is tried again");
            self.outbox
                .retry_at
                .get_or_insert(self.moment.now + RETRY_NOTICE);
        }
    }

    /// Whether an update failed and must be written again.
    pub fn is_unsaved(&self) -> bool {
        let record = self.record.as_ref();
        record.is_some_and(|record| record.is_unwritten())
    }

    /// Saves one field. Best effort.
    pub(super) fn save_field(&mut self, field: &str, value: String) {
        if self.record.is_some() {
            let mut notes = RecordUpdate::default();
            notes.put(field, value);
            self.effects.push(Effect::Save(None, Box::new(notes)));
        }
    }
}

//! When a resumable session updates its record, in which order, and again if an update was not written.

use tracing::debug;

use super::outbox::RETRY_NOTICE;
use super::record::Record;
use super::{Effect, State};
use crate::broker::{BrokerError, RecordUpdate};
use crate::model::UserName;

impl State {
    /// The call with this user has changed by what this session does, of which its inbox tells nothing to whoever resumes it.
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

    /// Something was not written: it is written again.
    pub(super) fn save_again(&mut self) {
        match &self.record {
            Some(record) if record.has_failed_anew() => self.save_anew(),
            Some(record) if record.is_unwritten() => self.save(),
            _ => {}
        }
    }

    /// What is new is written at once: without a connection nothing else comes that it could be written with.
    pub(super) fn save_news(&mut self) {
        let has_news = |record: &Record| record.has_news() && !record.is_unwritten();
        if self.record.as_deref().is_some_and(has_news) {
            self.save();
        }
    }

    /// The store has lost data. The client is told, and once the guard is over each call peer is asked whether it still has the call.
    pub(super) fn forgotten(&mut self, epoch: u64) {
        if std::mem::replace(&mut self.epoch, epoch) == epoch {
            // Its client knows; what was written may not be there.
            return self.save_anew();
        }
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
        // What was sent since the store knows the lease again is in the inbox.
        if !self.is_detached {
            self.catch_up.gap(&mut self.effects);
            self.caught_up();
        }
    }

    /// Writes everything: the store may know nothing of this session.
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

    /// An update was written, or was not. That the session is another's by now is told by the next renewal.
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

    /// Whether an update was not written, and must be written again.
    pub fn is_unsaved(&self) -> bool {
        let record = self.record.as_ref();
        record.is_some_and(|record| record.is_unwritten())
    }

    /// Saves one field, once: best effort.
    pub(super) fn save_field(&mut self, field: &str, value: String) {
        if self.record.is_some() {
            let mut notes = RecordUpdate::default();
            notes.put(field, value);
            self.effects.push(Effect::Save(None, Box::new(notes)));
        }
    }
}

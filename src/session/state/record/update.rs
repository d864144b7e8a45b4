//! Updates of the record, and what becomes of an update that failed.

use super::super::calls::Calls;
use super::super::dedup::{Dedup, HeardId};
use super::fields::{
    APP_CONFIRMS, DECIDED, IDS, IDS_A_FIELD, IDS_FIELDS, LEAVE, MISSED, SILENT, USER, written,
};
use super::{Missed, Record};
use crate::broker::{RecordUpdate, SINCE};
use crate::model::{Offset, UserName};

/// The contents of an update in flight. If it fails, the next update writes them.
#[derive(Debug)]
pub(in crate::session::state) struct Update {
    users: Vec<UserName>,
    ids: Vec<HeardId>,
    left: Vec<UserName>,
    /// It frees entries of the inbox.
    frees: bool,
    anew: bool,
}

/// What failed updates have left unwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unwritten {
    Nothing,
    Something,
    /// All of it: a store that has lost the session accepts no other update.
    Everything,
}

impl Record {
    /// The update that is due now.
    pub(in crate::session::state) fn notes(
        &mut self,
        calls: &Calls,
        heard: &Dedup,
    ) -> (RecordUpdate, Update) {
        if self.unwritten == Unwritten::Something {
            self.unwritten = Unwritten::Nothing;
        }
        // What is freed is not among the silent entries below. If the update in flight fails, it is freed by this one.
        self.frees |= self.saving.iter().any(|(_, update)| update.frees);
        self.changed.extend(self.underway.iter().cloned());
        let users: Vec<UserName> = self.changed.drain().collect();
        let mut notes = RecordUpdate::default();
        for user in &users {
            let field = format!("{USER}{user}");
            match written(calls.get(user), heard.last(user)) {
                Some(value) => notes.set.push((field, value)),
                None => notes.unset.push(field),
            }
        }
        let decided = self.decided.max(self.dealt_with());
        notes.set.push((DECIDED.to_owned(), decided.to_string()));
        let silent = self.unconfirmed.iter().filter(|entry| entry.silent);
        // This connection may not have reached all entries that an earlier one decided about.
        let silent = silent
            .map(|entry| entry.id)
            .chain(self.silent.iter().copied());
        let silent: Vec<String> = silent.map(|id| id.to_string()).collect();
        notes.set.push((SILENT.to_owned(), silent.join(" ")));
        let ids = self.note_ids(&mut notes);
        for (user, leaving) in &self.leaves {
            notes
                .set
                .push((format!("{LEAVE}{user}"), leaving.to_string()));
        }
        let left: Vec<UserName> = self.left.drain().collect();
        notes
            .unset
            .extend(left.iter().map(|user| format!("{LEAVE}{user}")));
        let missed = u8::from(self.missed != Missed::Nothing);
        notes.set.push((MISSED.to_owned(), missed.to_string()));
        if self.app_confirms {
            notes.set.push((APP_CONFIRMS.to_owned(), "1".to_owned()));
        }
        self.silent_freed = 0;
        let frees = std::mem::take(&mut self.frees);
        notes.confirmed = frees.then_some(self.confirmed);
        let update = Update {
            users,
            ids,
            left,
            frees,
            anew: false,
        };
        (notes, update)
    }

    /// Writes the received ids that are not in the record yet. Returns them.
    fn note_ids(&mut self, notes: &mut RecordUpdate) -> Vec<HeardId> {
        let mut ids = Vec::new();
        if self.frees {
            // The ids of what leaves the inbox must be in the record, also if an update in flight fails.
            let underway = self.saving.iter().flat_map(|(_, update)| &update.ids);
            ids.extend(underway.copied());
        }
        ids.append(&mut self.ids);
        if !ids.is_empty() {
            self.ids_told.extend(&ids);
            let (number, told) = (self.ids_fields, HeardId::noted(&self.ids_told));
            let field = format!("{IDS}{}", number % IDS_FIELDS);
            notes.set.push((field, format!("{number} {told}")));
            if self.ids_told.len() >= IDS_A_FIELD {
                self.ids_told.clear();
                self.ids_fields += 1;
            }
        }
        ids
    }

    /// An update that writes everything, for a store that may have lost it.
    pub(in crate::session::state) fn anew(
        &mut self,
        last: Offset,
        calls: &Calls,
        heard: &Dedup,
    ) -> (RecordUpdate, Update) {
        self.unwritten = Unwritten::Nothing;
        self.ids = heard.ids().collect();
        self.changed.extend(calls.peers());
        self.changed.extend(heard.names().cloned());
        let (mut notes, mut update) = self.notes(calls, heard);
        notes.confirmed = Some(self.confirmed);
        notes.set.push((SINCE.to_owned(), self.since.to_string()));
        // New entries get higher offsets, so that they are not taken for lost ones.
        notes.anew = Some((self.hash.clone(), last.max(self.decided).next()));
        (update.frees, update.anew) = (true, true);
        (notes, update)
    }

    /// Records an update as in flight. Returns its number.
    pub(in crate::session::state) fn saving(&mut self, update: Update) -> u64 {
        self.underway.extend(update.users.iter().cloned());
        self.saves += 1;
        self.saving.push((self.saves, update));
        self.saves
    }

    /// Whether an update that writes everything is in flight, or has failed and is due again.
    pub(in crate::session::state) fn is_saving_anew(&self) -> bool {
        self.has_failed_anew() || self.saving.iter().any(|(_, update)| update.anew)
    }

    /// Whether fields have changed that no update contains yet.
    pub(in crate::session::state) fn has_news(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether an update failed and its contents are not written yet.
    pub(in crate::session::state) fn is_unwritten(&self) -> bool {
        self.unwritten != Unwritten::Nothing
    }

    /// Whether that was an update that writes everything.
    pub(in crate::session::state) fn has_failed_anew(&self) -> bool {
        self.unwritten == Unwritten::Everything
    }

    /// Handles the result of an update. If it failed, its contents are written again.
    pub(in crate::session::state) fn saved(&mut self, number: u64, is_written: bool) {
        let found = self.saving.iter().position(|(known, _)| *known == number);
        let Some((_, update)) = found.map(|at| self.saving.remove(at)) else {
            return;
        };
        if self.saving.is_empty() {
            self.underway.clear();
        }
        if !is_written {
            let what = if update.anew {
                Unwritten::Everything
            } else {
                Unwritten::Something
            };
            self.unwritten = self.unwritten.max(what);
            self.changed.extend(update.users);
            self.ids.extend(update.ids);
            let left = update.left.into_iter();
            self.left
                .extend(left.filter(|user| !self.leaves.contains_key(user)));
            self.frees = true;
        }
    }
}

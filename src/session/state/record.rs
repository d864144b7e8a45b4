//! What a resumable session remembers for whoever holds it next, and what of it its client has not confirmed yet.
//!
//! Over a WebSocket confirmation is free: frames are ordered, so the answer to a ping confirms all that was said before it. What was decided
//! about an entry is decided once: the next holder tells, or keeps silent about, what this one did.

use std::collections::{HashSet, VecDeque};

use super::calls::{Call, Calls};
use super::dedup::{Dedup, HeardId};
use crate::broker::{Confirmed, RecordUpdate, Resumed};
use crate::model::{Offset, Secret, SecretHash, SessionId, UserName};

/// After how many unconfirmed entries the client is asked whether it has them.
const ASK_AFTER: usize = 64;
/// Fields of a note.
const DECIDED: &str = "decided";
const SILENT: &str = "silent";
const MISSED: &str = "missed";
/// How the field of a user begins.
const USER: &str = "u:";
/// How the fields begin that tell in turn which ids were heard.
const IDS: &str = "ids:";
/// How many such fields there are, and from how many ids on one is full: in all they tell of more than one sender may repeat.
const IDS_FIELDS: u64 = 32;
const IDS_A_FIELD: usize = 16;

/// The memory of one resumable session.
#[derive(Debug)]
pub(super) struct Record {
    /// Nobody tells it to a node that goes on with a conversation.
    secret: Option<Secret>,
    hash: SecretHash,
    /// Entries that the client may not have, oldest first.
    unconfirmed: VecDeque<Unconfirmed>,
    /// Which entry the client has when it answers this ping.
    marks: VecDeque<(u64, Offset)>,
    asked_at: Offset,
    confirmed: Confirmed,
    /// Everything up to here was decided by an earlier connection.
    decided: Offset,
    /// What of that was not told.
    silent: HashSet<Offset>,
    /// Everything up to here was seen by the client on an earlier connection.
    seen: Offset,
    /// Users about whom something is to be written.
    changed: HashSet<UserName>,
    /// The store is to be told how far the client has confirmed.
    frees: bool,
    /// Updates on their way, and the number of the next.
    saving: Vec<(u64, Update)>,
    saves: u64,
    /// Users that notes on their way are about. Later notes are about them too: a later note that is written tells how far things were decided,
    /// which must not be true without what an earlier one said that was not.
    underway: HashSet<UserName>,
    unwritten: Unwritten,
    /// The ids that were heard and that no note has told of yet.
    ids: Vec<HeardId>,
    /// The ids in the latest field, and how many were full before it.
    ids_told: Vec<HeardId>,
    ids_fields: u64,
    missed: Missed,
}

#[derive(Clone, Copy, Debug)]
struct Unconfirmed {
    id: Offset,
    silent: bool,
}

/// Whether something may have been lost, and whether the client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missed {
    Nothing,
    Untold,
    Told,
    /// It knows when it has answered this ping.
    Asked(u64),
}

/// What notes were to write and did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unwritten {
    Nothing,
    Something,
    /// A store that knows nothing of the session takes no other note.
    Everything,
}

/// What an update of the record is about: if it is not written, the next one is.
#[derive(Debug)]
pub(super) struct Update {
    users: Vec<UserName>,
    ids: Vec<HeardId>,
    anew: bool,
}

/// What an earlier connection has decided about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing: it is news.
    None,
    /// To tell it.
    Tell,
    /// To say nothing.
    Silence,
}

impl Record {
    /// The memory of a new session.
    pub(super) fn new(secret: Option<Secret>, hash: SecretHash) -> Self {
        Self {
            secret,
            hash,
            unconfirmed: VecDeque::new(),
            marks: VecDeque::new(),
            asked_at: Offset::default(),
            confirmed: Confirmed::default(),
            decided: Offset::default(),
            silent: HashSet::new(),
            seen: Offset::default(),
            changed: HashSet::new(),
            frees: false,
            saving: Vec::new(),
            saves: 0,
            underway: HashSet::new(),
            unwritten: Unwritten::Nothing,
            ids: Vec::new(),
            ids_told: Vec::new(),
            ids_fields: 0,
            missed: Missed::Nothing,
        }
    }

    /// The memory that an earlier connection has left, with its calls and what it has heard; `last` is what the client says that it has.
    pub(super) fn restore(
        secret: Option<Secret>,
        hash: SecretHash,
        resumed: &Resumed,
        last: Option<Offset>,
        calls: &mut Calls,
        heard: &mut Dedup,
    ) -> Self {
        let mut record = Self::new(secret, hash);
        record.confirmed = resumed.confirmed;
        record.seen = last.unwrap_or_default().max(resumed.confirmed.all);
        record.asked_at = record.seen;
        if resumed.missed {
            record.has_missed();
        }
        let mut ids = Vec::new();
        for (field, value) in &resumed.fields {
            match field.as_str() {
                DECIDED => record.decided = value.parse().unwrap_or_default(),
                SILENT => {
                    let ids = value.split(' ').filter_map(|id| id.parse().ok());
                    record.silent = ids.collect();
                }
                MISSED if value == "0" => {}
                MISSED => record.has_missed(),
                field if field.starts_with(IDS) => {
                    let (number, text) = value.split_once(' ').unwrap_or_default();
                    ids.push((number.parse::<u64>().unwrap_or_default(), text));
                }
                field => {
                    let name = field.strip_prefix(USER);
                    let name = name.and_then(|name| UserName::parse(name).ok());
                    if let Some(name) = name {
                        read_user(&name, value, calls, heard);
                    }
                }
            }
        }
        ids.sort_unstable();
        record.ids_fields = ids.last().map_or(0, |(number, _)| number.saturating_add(1));
        // Now that it is known of whom.
        heard.restore_ids(ids.into_iter().map(|(_, text)| text));
        record
    }

    pub(super) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    pub(super) fn hash(&self) -> &SecretHash {
        &self.hash
    }

    /// The last that the client was told and has confirmed.
    pub(super) fn confirmed_told(&self) -> Offset {
        self.confirmed.told
    }

    /// What was decided about this entry on an earlier connection.
    pub(super) fn decision(&self, id: Offset) -> Decision {
        if id > self.decided {
            Decision::None
        } else if self.silent.contains(&id) {
            Decision::Silence
        } else {
            Decision::Tell
        }
    }

    /// Whether the client has not seen this entry on an earlier connection.
    pub(super) fn is_unseen(&self, id: Offset) -> bool {
        id > self.seen
    }

    /// An entry was dealt with; `silent` if the client was not told of it.
    pub(super) fn dealt(
        &mut self,
        id: Offset,
        from: &UserName,
        repeatable: Option<HeardId>,
        silent: bool,
    ) {
        self.unconfirmed.push_back(Unconfirmed { id, silent });
        self.ids.extend(repeatable);
        if !self.changed.contains(from) {
            self.changed.insert(from.clone());
        }
    }

    /// Something about the call with this user has changed.
    pub(super) fn change(&mut self, user: UserName) {
        self.changed.insert(user);
    }

    /// Whether the client should be asked for a sign of life, which confirms what it has.
    pub(super) fn asks(&self) -> bool {
        if self.missed == Missed::Told {
            return true;
        }
        let unconfirmed = &self.unconfirmed;
        unconfirmed.len() >= ASK_AFTER
            && unconfirmed[unconfirmed.len() - ASK_AFTER].id > self.asked_at
    }

    /// The client was sent this ping, behind everything that it was told.
    pub(super) fn pinged(&mut self, ping: u64) {
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

    /// The client answered this ping. What it has, if that is news.
    pub(super) fn ponged(&mut self, ping: u64) -> Option<Offset> {
        if let Missed::Asked(asked) = self.missed
            && asked <= ping
        {
            // The next note says so.
            self.missed = Missed::Nothing;
        }
        let answered = self.marks.iter().take_while(|(sent, _)| *sent <= ping);
        let has = answered.map(|(_, id)| *id).last();
        self.marks.retain(|(sent, _)| *sent > ping);
        has
    }

    /// The client has everything up to this.
    pub(super) fn confirm(&mut self, last: Offset) {
        while let Some(entry) = self.unconfirmed.front().filter(|entry| entry.id <= last) {
            self.frees = true;
            self.confirmed.all = entry.id;
            if !entry.silent {
                self.confirmed.told = entry.id;
            }
            self.silent.remove(&entry.id);
            self.unconfirmed.pop_front();
        }
    }

    /// Whether there is something to confirm in the store.
    pub(super) fn frees(&self) -> bool {
        self.frees
    }

    /// What is to be written now.
    pub(super) fn notes(&mut self, calls: &Calls, heard: &Dedup) -> (RecordUpdate, Update) {
        if self.unwritten == Unwritten::Something {
            self.unwritten = Unwritten::Nothing;
        }
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
        let dealt = self
            .unconfirmed
            .back()
            .map_or(self.confirmed.all, |last| last.id);
        let decided = self.decided.max(dealt);
        notes.set.push((DECIDED.to_owned(), decided.to_string()));
        let silent = self.unconfirmed.iter().filter(|entry| entry.silent);
        // Of what an earlier connection has decided, this one may not have come to everything yet.
        let silent = silent
            .map(|entry| entry.id)
            .chain(self.silent.iter().copied());
        let silent: Vec<String> = silent.map(|id| id.to_string()).collect();
        notes.set.push((SILENT.to_owned(), silent.join(" ")));
        let ids = std::mem::take(&mut self.ids);
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
        let missed = u8::from(self.missed != Missed::Nothing);
        notes.set.push((MISSED.to_owned(), missed.to_string()));
        notes.confirmed = std::mem::take(&mut self.frees).then_some(self.confirmed);
        let anew = false;
        (notes, Update { users, ids, anew })
    }

    /// The store may have forgotten everything: what it is to know anew.
    pub(super) fn anew(
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
        // Behind it, so that it does not pass for what was lost.
        notes.anew = Some((self.hash.clone(), last.max(self.decided).next()));
        update.anew = true;
        (notes, update)
    }

    /// An update is on its way. Returns its number.
    pub(super) fn saving(&mut self, update: Update) -> u64 {
        self.underway.extend(update.users.iter().cloned());
        self.saves += 1;
        self.saving.push((self.saves, update));
        self.saves
    }

    /// Whether something is to be written of which no note says anything yet.
    pub(super) fn has_news(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether something could not be written.
    pub(super) fn is_unwritten(&self) -> bool {
        self.unwritten != Unwritten::Nothing
    }

    /// Whether that was to write everything anew, which is still to be done.
    pub(super) fn has_failed_anew(&self) -> bool {
        self.unwritten == Unwritten::Everything
    }

    /// It is known whether this update was written. If not, what it is about is to be written again.
    pub(super) fn saved(&mut self, number: u64, is_written: bool) {
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
            self.frees = true;
        }
    }

    /// The connection is gone.
    pub(super) fn detached(&mut self) {
        self.marks.clear();
    }

    /// Something may have been lost.
    pub(super) fn has_missed(&mut self) {
        self.missed = Missed::Untold;
    }

    /// Whether the client is to be told now, when the inbox is read, that it may have missed something.
    pub(super) fn tells_missed(&mut self) -> bool {
        let tells = self.missed == Missed::Untold;
        if tells {
            self.missed = Missed::Told;
        }
        tells
    }
}

/// What is noted of a user: `SESSION ATTACH N`, then the call with it, if there is one.
fn written(call: Option<&Call>, heard: Option<(SessionId, (u32, u64))>) -> Option<String> {
    let heard = heard.map_or_else(
        || "- 0 0".to_owned(),
        |(session, (generation, n))| format!("{session} {generation} {n}"),
    );
    match call {
        Some(call) => Some(format!("{heard} {call}")),
        None => (!heard.starts_with('-')).then_some(heard),
    }
}

fn read_user(name: &UserName, value: &str, calls: &mut Calls, heard: &mut Dedup) {
    let mut words = value.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (session, generation, n) = (word().parse(), word().parse(), word().parse());
    if let (Ok(session), Ok(generation), Ok(n)) = (session, generation, n) {
        heard.restore(name.clone(), session, (generation, n));
    }
    if let Some(call) = Call::read(words) {
        calls.restore(name, call);
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;

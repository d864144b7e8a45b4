//! What the next connection of a resumable session must know, and what of it the client has not confirmed yet.
//!
//! Over a WebSocket confirmation is free: frames are ordered, so the pong to a ping confirms everything that was written before the ping. A
//! decision about an inbox entry is made once: the next connection tells the client, or keeps silent, as this one did.

mod fields;
mod update;

pub(super) use fields::Leaving;

use std::collections::{HashMap, HashSet, VecDeque};

use self::update::{Unwritten, Update};
use super::dedup::HeardId;
use crate::broker::Confirmed;
use crate::model::{Offset, Secret, SecretHash, UserName};

/// After how many unconfirmed entries the client is pinged, so that it confirms them.
const ASK_AFTER: usize = 64;
/// After how many bytes of bodies: a quarter of an inbox, so that long messages do not fill it between two heartbeats.
const ASK_AFTER_BYTES: usize = 256 * 1024;

/// The record of one resumable session, as this connection keeps it.
#[derive(Debug)]
pub(super) struct Record {
    /// `None` on a node that took an HTTP session over: only the client knows it.
    secret: Option<Secret>,
    hash: SecretHash,
    /// Entries that the client may not have, oldest first.
    unconfirmed: VecDeque<Unconfirmed>,
    /// The entry that the client has when it answers this ping.
    marks: VecDeque<(u64, Offset)>,
    asked_at: Offset,
    /// Bytes of entries since the client was last pinged.
    unasked_bytes: usize,
    confirmed: Confirmed,
    /// An earlier connection has decided about everything up to here…
    decided: Offset,
    /// …and has not told the client of these.
    silent: HashSet<Offset>,
    /// The client has seen everything up to here on an earlier connection.
    seen: Offset,
    /// Users whose fields have changed.
    changed: HashSet<UserName>,
    /// Confirmed entries are to leave the inbox.
    frees: bool,
    /// Updates that are on their way, and how many there were.
    saving: Vec<(u64, Update)>,
    saves: u64,
    /// Users of whom updates on their way tell. Later updates tell of them too: one that is written says how far entries are decided, which must
    /// not be true without what an earlier one said that was not written.
    underway: HashSet<UserName>,
    unwritten: Unwritten,
    /// Ids that were heard and are not in the record yet.
    ids: Vec<HeardId>,
    /// The ids of the latest field, and how many fields were full before it.
    ids_told: Vec<HeardId>,
    ids_fields: u64,
    missed: Missed,
    /// Leaves whose outcome is not known: the next connection sends them again.
    leaves: HashMap<UserName, Leaving>,
    /// Users whose leave has arrived, which is not in the record yet.
    left: HashSet<UserName>,
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

/// What an earlier connection has decided about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing: it is new.
    None,
    /// To tell the client.
    Tell,
    /// Not to tell the client.
    Silence,
}

impl Record {
    /// The record of a new session.
    pub(super) fn new(secret: Option<Secret>, hash: SecretHash) -> Self {
        Self {
            secret,
            hash,
            unconfirmed: VecDeque::new(),
            marks: VecDeque::new(),
            asked_at: Offset::default(),
            unasked_bytes: 0,
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
            leaves: HashMap::new(),
            left: HashSet::new(),
        }
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

    /// An entry with a body of so many bytes was dealt with.
    pub(super) fn weighs(&mut self, bytes: usize) {
        self.unasked_bytes += bytes;
    }

    /// A leave is on its way to this user.
    pub(super) fn leaves(&mut self, user: UserName, leaving: Leaving) {
        self.left.remove(&user);
        self.leaves.insert(user, leaving);
    }

    /// It has arrived, or need not. The next update says so; until then whoever resumes the session sends it again, and it means nothing.
    pub(super) fn has_left(&mut self, user: &UserName) {
        if self.leaves.remove(user).is_some() {
            self.left.insert(user.clone());
        }
    }

    /// The leaves of an earlier connection whose outcome it did not know.
    pub(super) fn take_leaves(&mut self) -> Vec<(UserName, Leaving)> {
        self.leaves.drain().collect()
    }

    /// Something about the call with this user has changed.
    pub(super) fn change(&mut self, user: UserName) {
        self.changed.insert(user);
    }

    /// Whether the client should be asked for a sign of life, which confirms what it has.
    pub(super) fn asks(&self) -> bool {
        if self.missed == Missed::Told || self.unasked_bytes >= ASK_AFTER_BYTES {
            return true;
        }
        let unconfirmed = &self.unconfirmed;
        unconfirmed.len() >= ASK_AFTER
            && unconfirmed[unconfirmed.len() - ASK_AFTER].id > self.asked_at
    }

    /// The client was sent this ping, behind everything that it was told.
    pub(super) fn pinged(&mut self, ping: u64) {
        self.unasked_bytes = 0;
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

#[cfg(test)]
mod tests;

//! The record of a resumable session: what its next connection must know, and what the client has not confirmed.
//!
//! Each inbox entry is decided about once: the next connection tells the client, or keeps silent, as this one did.

mod confirm;
mod fields;
mod update;

pub(super) use fields::Leaving;

use std::collections::{HashMap, HashSet, VecDeque};

use self::update::{Unwritten, Update};
use super::dedup::HeardId;
use crate::broker::Confirmed;
use crate::model::{Offset, Secret, SecretHash, UserName};

/// The record of one resumable session, as this connection keeps it.
#[derive(Debug)]
pub(super) struct Record {
    /// `None` on a node that took an HTTP session over: only the client knows it.
    secret: Option<Secret>,
    hash: SecretHash,
    /// When the session began, in seconds since 1970; 0 if that is not known.
    since: u64,
    /// Entries that the client may not have, oldest first.
    unconfirmed: VecDeque<Unconfirmed>,
    /// Pings in flight, each with the last entry that its pong confirms.
    marks: VecDeque<(u64, Offset)>,
    asked_at: Offset,
    /// Bytes of entries since the client was last pinged.
    unasked_bytes: usize,
    confirmed: Confirmed,
    /// An earlier connection has decided about all entries up to here.
    decided: Offset,
    /// Entries up to `decided` that the client is not told of.
    silent: HashSet<Offset>,
    /// The client saw all entries up to here on an earlier connection.
    seen: Offset,
    /// Users whose fields have changed.
    changed: HashSet<UserName>,
    /// The next update trims confirmed entries from the inbox.
    frees: bool,
    /// How many of them the client was not told of.
    silent_freed: usize,
    /// Updates in flight, and the number of the last one.
    saving: Vec<(u64, Update)>,
    saves: u64,
    /// Users whose fields are in updates in flight. Later updates repeat these fields: each update also moves
    /// `decided`, which must not be stored without the fields of an earlier update that failed.
    underway: HashSet<UserName>,
    unwritten: Unwritten,
    /// Received ids that are not in the record yet.
    ids: Vec<HeardId>,
    /// The ids in the latest ids field, and how many fields were filled before it.
    ids_told: Vec<HeardId>,
    ids_fields: u64,
    missed: Missed,
    /// The last entry before the client was told that it may have missed something: an application that confirms a
    /// later one knows.
    told_after: Offset,
    /// The client's application confirms what it has. Then a pong confirms nothing: a browser answers pings for a page
    /// that is frozen or gone.
    app_confirms: bool,
    /// Leaves whose outcome is not known: the next connection sends them again.
    leaves: HashMap<UserName, Leaving>,
    /// Users whose leave has arrived, which the record does not say yet.
    left: HashSet<UserName>,
}

#[derive(Clone, Copy, Debug)]
struct Unconfirmed {
    id: Offset,
    silent: bool,
}

/// Whether the session may have missed something, and whether the client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missed {
    Nothing,
    Untold,
    Told,
    /// The client knows when it has answered this ping.
    Asked(u64),
}

/// What an earlier connection decided about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing: the entry is new.
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
            since: 0,
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
            silent_freed: 0,
            saving: Vec::new(),
            saves: 0,
            underway: HashSet::new(),
            unwritten: Unwritten::Nothing,
            ids: Vec::new(),
            ids_told: Vec::new(),
            ids_fields: 0,
            missed: Missed::Nothing,
            told_after: Offset::default(),
            app_confirms: false,
            leaves: HashMap::new(),
            left: HashSet::new(),
        }
    }

    pub(super) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// When the session began, in seconds since 1970.
    pub(super) fn since(&mut self) -> &mut u64 {
        &mut self.since
    }

    pub(super) fn hash(&self) -> &SecretHash {
        &self.hash
    }

    /// The last confirmed entry that the client was told of.
    pub(super) fn confirmed_told(&self) -> Offset {
        self.confirmed.told
    }

    /// What an earlier connection decided about this entry.
    pub(super) fn decision(&self, id: Offset) -> Decision {
        if id > self.decided {
            Decision::None
        } else if self.silent.contains(&id) {
            Decision::Silence
        } else {
            Decision::Tell
        }
    }

    /// Whether the client did not see this entry on an earlier connection.
    pub(super) fn is_unseen(&self, id: Offset) -> bool {
        id > self.seen
    }

    /// Records that an entry was handled; `silent` if the client was not told of it.
    pub(super) fn dealt(
        &mut self,
        id: Offset,
        from: &UserName,
        repeatable: Option<HeardId>,
        silent: bool,
    ) {
        self.unconfirmed.push_back(Unconfirmed { id, silent });
        if self.app_confirms {
            self.confirm_silent();
        }
        self.ids.extend(repeatable);
        if !self.changed.contains(from) {
            self.changed.insert(from.clone());
        }
    }

    /// Records that an entry with a body of so many bytes was handled.
    pub(super) fn weighs(&mut self, bytes: usize) {
        self.unasked_bytes += bytes;
    }

    /// Records that a leave is under way to this user.
    pub(super) fn leaves(&mut self, user: UserName, leaving: Leaving) {
        self.left.remove(&user);
        match self.leaves.get_mut(&user) {
            Some(known) if known.only == leaving.only => {
                known.heard = known.heard.max(leaving.heard);
            }
            _ => drop(self.leaves.insert(user, leaving)),
        }
    }

    /// Records that the leave which claims to have heard this has arrived or need not. The record says so with its next
    /// update; until then the next connection would send the leave again, which its receiver ignores.
    pub(super) fn has_left(&mut self, user: &UserName, heard: u64) {
        let is_last = |leaving: &Leaving| leaving.heard <= heard;
        if self.leaves.get(user).is_some_and(is_last) {
            self.leaves.remove(user);
            self.left.insert(user.clone());
        }
    }

    /// Takes the leaves whose outcome an earlier connection did not know.
    pub(super) fn take_leaves(&mut self) -> Vec<(UserName, Leaving)> {
        self.leaves.drain().collect()
    }

    /// Records that the field of this user has changed.
    pub(super) fn change(&mut self, user: UserName) {
        self.changed.insert(user);
    }

    /// The last entry that was handled.
    fn dealt_with(&self) -> Offset {
        let last = self.unconfirmed.back();
        last.map_or(self.confirmed.all, |last| last.id)
    }
}

#[cfg(test)]
mod tests;

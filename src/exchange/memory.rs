//! What a resumable session remembers for whoever holds it next, and what of it its client has not confirmed yet.
//!
//! Over a WebSocket confirmation is free: frames are ordered, so the answer to a ping confirms all that was said before it. What was decided
//! about an entry is decided once: the next holder tells, or keeps silent about, what this one did.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::calls::{Call, Calls};
use super::heard::Heard;
use crate::fabric::{Confirmed, Envelope, FabricError, Notes, Parcel, Resumed};
use crate::model::{EntryId, Secret, SecretHash, SessionId, UserName};

/// After how many unconfirmed entries the client is asked whether it has them.
const ASK_AFTER: usize = 64;
/// How long a session may have been detached before a loss of data that what it was sent since is sent again.
const COVERED: Duration = Duration::from_secs(9);
/// Fields of a note.
const DECIDED: &str = "decided";
const SILENT: &str = "silent";
const COPIES: &str = "copies";
const IN_DOUBT: &str = "in_doubt";
const EARLIER: &str = "earlier";
const MISSED: &str = "missed";
/// How the field of a user begins.
const USER: &str = "u:";

/// The memory of one resumable session.
#[derive(Debug)]
pub(super) struct Memory {
    /// Nobody tells it to a node that goes on with a conversation.
    secret: Option<Secret>,
    hash: SecretHash,
    /// Entries that the client may not have, oldest first.
    unconfirmed: VecDeque<Unconfirmed>,
    /// Which entry the client has when it answers this ping.
    marks: VecDeque<(u64, EntryId)>,
    asked_at: EntryId,
    confirmed: Confirmed,
    /// Everything up to here was decided by an earlier connection.
    decided: EntryId,
    /// What of that was not told.
    silent: HashSet<EntryId>,
    /// What was sent again by reason of a store's loss, and which entry had told it.
    copies: HashMap<EntryId, EntryId>,
    /// Everything up to here was seen by the client on an earlier connection.
    seen: EntryId,
    /// The last of what was decided by an earlier connection, until it is met in the inbox: a store that has lost some of that has lost this.
    unmet: Option<EntryId>,
    /// The store has lost data since this connection began.
    has_forgotten: bool,
    /// Users about whom something is to be written.
    changed: HashSet<UserName>,
    /// The store is to be told how far the client has confirmed.
    frees: bool,
    noting: FuturesUnordered<BoxFuture<'static, Noted>>,
    /// Users that notes on their way are about. Later notes are about them too: a later note that is written tells how far things were decided,
    /// which must not be true without what an earlier one said that was not.
    underway: HashSet<UserName>,
    /// How many changes of what was heard from earlier sessions of senders are written.
    turnover: u64,
    unwritten: Unwritten,
    missed: Missed,
    detached_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Unconfirmed {
    id: EntryId,
    said: Said,
    silent: bool,
    /// A store has lost it, and nobody has sent it again yet.
    lost: bool,
    /// When it came again for the last time.
    came_again: Option<Instant>,
}

/// What somebody said, whatever entry it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    session: SessionId,
    attach: u32,
    n: u64,
    /// What we say in another's name is not numbered among what he says.
    is_signal: bool,
}

impl Said {
    pub(super) fn of(envelope: &Envelope) -> Self {
        Self {
            session: envelope.from.session,
            attach: envelope.from.attach,
            n: envelope.n,
            is_signal: matches!(envelope.parcel, Parcel::Signal(_)),
        }
    }
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

/// What became of a note.
#[derive(Debug)]
pub struct Noted {
    /// Whether the session is still ours.
    pub(super) result: Result<bool, FabricError>,
    users: Vec<UserName>,
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

impl Memory {
    /// The memory of a new session.
    pub(super) fn new(secret: Option<Secret>, hash: SecretHash) -> Self {
        Self {
            secret,
            hash,
            unconfirmed: VecDeque::new(),
            marks: VecDeque::new(),
            asked_at: EntryId::default(),
            confirmed: Confirmed::default(),
            decided: EntryId::default(),
            silent: HashSet::new(),
            copies: HashMap::new(),
            seen: EntryId::default(),
            unmet: None,
            has_forgotten: false,
            changed: HashSet::new(),
            frees: false,
            noting: FuturesUnordered::new(),
            underway: HashSet::new(),
            turnover: 0,
            unwritten: Unwritten::Nothing,
            missed: Missed::Nothing,
            detached_at: None,
        }
    }

    /// The memory that an earlier connection has left, with its calls and what it has heard; `last` is what the client says that it has.
    pub(super) fn restore(
        secret: Option<Secret>,
        hash: SecretHash,
        resumed: &Resumed,
        last: Option<EntryId>,
        calls: &mut Calls,
        heard: &mut Heard,
    ) -> Self {
        let mut memory = Self::new(secret, hash);
        memory.confirmed = resumed.confirmed;
        memory.seen = last.unwrap_or_default().max(resumed.confirmed.all);
        memory.asked_at = memory.seen;
        if resumed.missed {
            memory.has_missed();
        }
        let mut copies = Vec::new();
        for (field, value) in &resumed.notes {
            match field.as_str() {
                DECIDED => memory.decided = value.parse().unwrap_or_default(),
                SILENT => {
                    let ids = value.split(' ').filter_map(|id| id.parse().ok());
                    memory.silent = ids.collect();
                }
                COPIES => copies.extend(value.split(' ').filter_map(read_copy)),
                IN_DOUBT => {
                    // They were told, and lost by a store, unless it has them after all.
                    let mut ids = value.split(' ').filter_map(|id| id.parse().ok());
                    if ids.any(|id| memory.is_unseen(id)) {
                        memory.has_missed();
                    }
                }
                EARLIER => heard.restore_earlier(value),
                MISSED => memory.has_missed(),
                user => {
                    let name = user.strip_prefix(USER);
                    let name = name.and_then(|name| UserName::parse(name).ok());
                    if let Some(name) = name {
                        read_user(&name, value, calls, heard);
                    }
                }
            }
        }
        copies.retain(|(_, told)| memory.is_unseen(*told));
        memory.copies.extend(copies);
        memory.unmet = Some(memory.decided).filter(|id| memory.is_unseen(*id));
        memory
    }

    pub(super) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    pub(super) fn hash(&self) -> &SecretHash {
        &self.hash
    }

    /// The last that the client was told and has confirmed.
    pub(super) fn confirmed_told(&self) -> EntryId {
        self.confirmed.told
    }

    /// What was decided about this entry on an earlier connection.
    pub(super) fn decision(&mut self, id: EntryId) -> Decision {
        if self.unmet.is_some_and(|unmet| unmet <= id) && self.unmet.take() != Some(id) {
            self.has_missed();
        }
        if id > self.decided {
            return Decision::None;
        }
        if let Some(told) = self.copies.remove(&id) {
            // It takes the place of one that the store has lost. There may be others of it: they stay silent.
            self.copies.retain(|_, other| *other != told);
            self.silent.remove(&id);
            return Decision::Tell;
        }
        if self.silent.contains(&id) {
            return Decision::Silence;
        }
        self.copies.retain(|_, told| *told != id);
        Decision::Tell
    }

    /// Whether the client has not seen this entry on an earlier connection.
    pub(super) fn is_unseen(&self, id: EntryId) -> bool {
        id > self.seen
    }

    /// An entry was dealt with; `silent` if the client was not told of it. What was told before by an entry that the client may not have seen
    /// is told by whoever holds the session next, should the client say that it has not.
    pub(super) fn dealt(&mut self, id: EntryId, said: Said, from: &UserName, silent: bool) {
        let tells_it = |entry: &&mut Unconfirmed| entry.said == said && !entry.silent;
        if silent && let Some(told) = self.unconfirmed.iter_mut().find(tells_it) {
            told.lost = false;
            told.came_again = Some(Instant::now());
            self.copies.insert(id, told.id);
        }
        self.unconfirmed.push_back(Unconfirmed {
            id,
            said,
            silent,
            lost: false,
            came_again: None,
        });
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
    pub(super) fn ponged(&mut self, ping: u64) -> Option<EntryId> {
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
    pub(super) fn confirm(&mut self, last: EntryId) {
        while let Some(entry) = self.unconfirmed.front().filter(|entry| entry.id <= last) {
            self.frees = true;
            self.confirmed.all = entry.id;
            if !entry.silent {
                self.confirmed.told = entry.id;
            }
            self.silent.remove(&entry.id);
            self.copies.remove(&entry.id);
            self.unconfirmed.pop_front();
        }
    }

    /// Whether there is something to confirm in the store.
    pub(super) fn frees(&self) -> bool {
        self.frees
    }

    /// What is to be written now.
    pub(super) fn notes(&mut self, calls: &Calls, heard: &Heard) -> (Notes, Vec<UserName>) {
        if self.unwritten == Unwritten::Something {
            self.unwritten = Unwritten::Nothing;
        }
        self.changed.extend(self.underway.iter().cloned());
        let users: Vec<UserName> = self.changed.drain().collect();
        let mut notes = Notes::default();
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
        let copies = self.copies.iter();
        let copies: Vec<String> = copies
            .map(|(copy, told)| format!("{copy}={told}"))
            .collect();
        notes.put(COPIES, copies.join(" "));
        let in_doubt = self.unconfirmed.iter().filter(|entry| entry.lost);
        let in_doubt: Vec<String> = in_doubt.map(|entry| entry.id.to_string()).collect();
        notes.put(IN_DOUBT, in_doubt.join(" "));
        if self.turnover != heard.turnover || (heard.turnover > 0 && self.is_noting()) {
            self.turnover = heard.turnover;
            notes.put(EARLIER, heard.earlier());
        }
        let missed = if self.missed == Missed::Nothing {
            ""
        } else {
            "1"
        };
        notes.put(MISSED, missed.to_owned());
        notes.confirmed = std::mem::take(&mut self.frees).then_some(self.confirmed);
        (notes, users)
    }

    /// The store, which was whole at that time, may have forgotten everything: what it is to know anew.
    pub(super) fn anew(
        &mut self,
        last: EntryId,
        whole_at: Instant,
        calls: &Calls,
        heard: &Heard,
    ) -> (Notes, Vec<UserName>) {
        self.has_forgotten = true;
        self.unwritten = Unwritten::Nothing;
        self.changed.extend(calls.peers());
        // What the store has lost is sent again, also by those with whom there is no call.
        self.changed.extend(heard.names().cloned());
        for entry in &mut self.unconfirmed {
            let came_again = entry.came_again.is_some_and(|at| at > whole_at);
            entry.lost = !entry.silent && !came_again;
        }
        if self
            .detached_at
            .is_some_and(|at| whole_at.saturating_duration_since(at) > COVERED)
        {
            // What was sent to a session that had no connection for so long is not sent again.
            self.missed = Missed::Untold;
        }
        let (mut notes, users) = self.notes(calls, heard);
        notes.put(EARLIER, heard.earlier());
        notes.confirmed = Some(self.confirmed);
        // Behind it, so that it does not pass for what was lost.
        notes.anew = Some((self.hash.clone(), last.max(self.decided).next()));
        (notes, users)
    }

    /// A note about these users is on its way; `anew` if it writes everything.
    pub(super) fn noting(
        &mut self,
        users: Vec<UserName>,
        anew: bool,
        answer: BoxFuture<'static, Result<bool, FabricError>>,
    ) {
        self.underway.extend(users.iter().cloned());
        self.noting.push(Box::pin(async move {
            Noted {
                result: answer.await,
                users,
                anew,
            }
        }));
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

    /// Whether a note is on its way.
    pub(super) fn is_noting(&self) -> bool {
        !self.noting.is_empty()
    }

    /// Waits until something is known of a note; for ever if there is none.
    pub(super) async fn noted(&mut self) -> Noted {
        match self.noting.next().await {
            Some(noted) => {
                if self.noting.is_empty() {
                    self.underway.clear();
                }
                noted
            }
            None => std::future::pending().await,
        }
    }

    /// A note may not have been written: it is to be written again.
    pub(super) fn unwritten(&mut self, noted: Noted) {
        let what = if noted.anew {
            Unwritten::Everything
        } else {
            Unwritten::Something
        };
        self.unwritten = self.unwritten.max(what);
        self.turnover = u64::MAX;
        self.changed.extend(noted.users);
        self.frees = true;
    }

    /// The connection is gone.
    pub(super) fn detached(&mut self) {
        self.detached_at = Some(Instant::now());
        self.marks.clear();
    }

    /// Something may have been lost.
    pub(super) fn has_missed(&mut self) {
        self.missed = Missed::Untold;
    }

    /// Whether the client is to be told now, when the inbox is read, that it may have missed something.
    pub(super) fn tells_missed(&mut self) -> bool {
        if self.has_forgotten && self.unmet.take().is_some() {
            self.has_missed();
        }
        let tells = self.missed == Missed::Untold;
        if tells {
            self.missed = Missed::Told;
        }
        tells
    }
}

fn read_copy(words: &str) -> Option<(EntryId, EntryId)> {
    let (copy, told) = words.split_once('=')?;
    Some((copy.parse().ok()?, told.parse().ok()?))
}

/// What is noted of a user: `SESSION ATTACH N`, then the call with it, if there is one.
fn written(call: Option<&Call>, heard: Option<(SessionId, (u32, u64))>) -> Option<String> {
    let heard = heard.map_or_else(
        || "- 0 0".to_owned(),
        |(session, (attach, n))| format!("{session} {attach} {n}"),
    );
    match call {
        Some(call) => Some(format!("{heard} {call}")),
        None => (!heard.starts_with('-')).then_some(heard),
    }
}

fn read_user(name: &UserName, value: &str, calls: &mut Calls, heard: &mut Heard) {
    let mut words = value.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (session, attach, n) = (word().parse(), word().parse(), word().parse());
    if let (Ok(session), Ok(attach), Ok(n)) = (session, attach, n) {
        heard.restore(name.clone(), session, (attach, n));
    }
    if let Some(call) = Call::read(words) {
        calls.restore(name, call);
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;

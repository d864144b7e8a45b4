//! Deduplication: drops signals that were repeated under their id, or overtaken by a later one of the same sender.
//!
//! Only the receiver recognises repetitions. The store appends a repeated signal like any other, so deduplication costs
//! Redis nothing.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use crate::broker::{Envelope, Sender};
use crate::bugs::{self, Bug};
use crate::model::{Correlation, SessionId, UserName};

/// How many senders are remembered before those that are in no call with us may be forgotten.
const STRANGERS: usize = 1024;
/// How many ids of one sender are remembered (docs/src/protocol/messages.md).
const IDS: usize = 256;
/// How many of them are saved again after a loss of data. More are not needed: a client repeats only what was not
/// acknowledged.
const IDS_ANEW: usize = 32;

/// What one session has received, by sender.
#[derive(Debug, Default)]
pub(super) struct Dedup {
    by_name: HashMap<UserName, Last>,
    /// Counts the received signals.
    count: u64,
    /// Senders that were forgotten lately. Their fields in the record must be deleted.
    pub(super) forgotten: Vec<UserName>,
}

/// The last signals of one sender's session.
#[derive(Debug)]
struct Last {
    session: SessionId,
    /// The generation and `n` of the last signal.
    at: (u32, u64),
    /// [`Dedup::count`] at the last signal.
    count: u64,
    /// Hashes of the latest ids, if the sender may repeat signals.
    ids: VecDeque<u64>,
}

/// The id of a signal that its sender may repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeardId {
    session: SessionId,
    /// The same on every node, because the next connection compares it.
    hash: u64,
}

/// The verdict on a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hearing {
    /// It is new.
    News,
    /// It was received before, under the same id.
    Repetition,
    /// It was received before, or a later one of its sender was.
    Overtaken,
}

impl HeardId {
    /// The id of this envelope, if its sender may repeat it.
    pub(super) fn of(envelope: &Envelope) -> Option<Self> {
        let hash = hash(envelope.idempotency_key.as_ref()?);
        let session = envelope.from.session;
        Some(Self { session, hash })
    }

    /// The stored form of these ids, parsed by [`Dedup::restore_ids`]: `SESSION HASH…` for each run of ids of one
    /// session, separated by commas.
    pub(super) fn noted<'a>(ids: impl IntoIterator<Item = &'a Self>) -> String {
        let (mut text, mut last) = (String::new(), None);
        for Self { session, hash } in ids {
            // Writing to a string cannot fail.
            if last.replace(session) != Some(session) {
                let comma = if text.is_empty() { "" } else { "," };
                let _ = write!(text, "{comma}{session}");
            }
            let _ = write!(text, " {hash:x}");
        }
        text
    }
}

impl Dedup {
    /// Records a signal. Returns whether it is new, a repetition, or overtaken.
    pub(super) fn hears(
        &mut self,
        from: &Sender,
        n: u64,
        idempotency_key: Option<&Correlation>,
        in_call: impl Fn(&UserName) -> bool,
    ) -> Hearing {
        let (name, at) = (&from.address.name, (from.generation, n));
        self.count += 1;
        if !self.by_name.contains_key(name) {
            self.make_room(in_call);
            self.restore(name.clone(), from.session, (0, 0));
        }
        let Some(last) = self.by_name.get_mut(name) else {
            return Hearing::News;
        };
        if last.session != from.session {
            *last = Last::new(from.session, (0, 0));
        }
        last.count = self.count;
        if last.at >= at {
            return if bugs::has(Bug::PushesWhileCatchingUp) {
                Hearing::News
            } else {
                Hearing::Overtaken
            };
        }
        last.at = at;
        match idempotency_key.map(hash) {
            Some(id) if last.ids.contains(&id) => Hearing::Repetition,
            Some(id) => {
                last.remember(id);
                Hearing::News
            }
            None => Hearing::News,
        }
    }

    /// Records an id that an earlier connection of this session received.
    pub(super) fn heard_before(&mut self, from: &UserName, id: HeardId) {
        let last = self.by_name.get_mut(from);
        if let Some(last) = last.filter(|last| last.session == id.session)
            && !last.ids.contains(&id.hash)
        {
            last.remember(id.hash);
        }
    }

    /// Forgets the senders that are in no call with us and have sent nothing for longest: at least half of them.
    fn make_room(&mut self, in_call: impl Fn(&UserName) -> bool) {
        if self.by_name.len() < STRANGERS {
            return;
        }
        let recent = self.count.saturating_sub(STRANGERS as u64 / 2);
        let forgotten = self
            .by_name
            .extract_if(|name, last| last.count < recent && !in_call(name));
        self.forgotten.extend(forgotten.map(|(name, _)| name));
    }

    /// Restores the last signal that an earlier connection received from a sender.
    pub(super) fn restore(&mut self, name: UserName, session: SessionId, at: (u32, u64)) {
        self.by_name.insert(name, Last::new(session, at));
    }

    /// The last ids of every sender.
    pub(super) fn ids(&self) -> impl Iterator<Item = HeardId> {
        self.by_name.values().flat_map(|last| {
            let first = last.ids.len().saturating_sub(IDS_ANEW);
            let session = last.session;
            let hashes = last.ids.range(first..);
            hashes.map(move |&hash| HeardId { session, hash })
        })
    }

    /// Restores the ids that earlier connections saved, oldest first. Restore the senders before.
    pub(super) fn restore_ids<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) {
        let known = self.by_name.values_mut();
        let mut known: HashMap<_, _> = known.map(|last| (last.session, last)).collect();
        for words in texts.into_iter().flat_map(|text| text.split(',')) {
            let mut words = words.split(' ');
            let session = words.next().and_then(|word| word.parse().ok());
            if let Some(last) = session.and_then(|session| known.get_mut(&session)) {
                for hash in words.filter_map(|word| u64::from_str_radix(word, 16).ok()) {
                    if !last.ids.contains(&hash) {
                        last.remember(hash);
                    }
                }
            }
        }
    }

    /// The remembered senders.
    pub(super) fn names(&self) -> impl Iterator<Item = &UserName> {
        self.by_name.keys()
    }

    /// The last signal of this user: its session, generation and `n`.
    pub(super) fn last(&self, name: &UserName) -> Option<(SessionId, (u32, u64))> {
        self.by_name.get(name).map(|last| (last.session, last.at))
    }
}

impl Last {
    fn new(session: SessionId, at: (u32, u64)) -> Self {
        Self {
            session,
            at,
            count: 0,
            ids: VecDeque::new(),
        }
    }

    fn remember(&mut self, id: u64) {
        if self.ids.len() == IDS {
            self.ids.pop_front();
        }
        self.ids.push_back(id);
    }
}

fn hash(id: &Correlation) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, NodeId, Realm};

    #[test]
    fn what_is_old_or_comes_twice_is_no_news() {
        let (mut heard, session) = (Dedup::default(), SessionId::random());
        let sender = |session, generation| {
            let address = Address::new(Realm::default(), UserName::parse("a").unwrap());
            Sender::new(address, session, generation, NodeId::known("n"))
        };
        let id = |text: &str| Some(Correlation(text.into()));
        let mut hear = |session, generation, n, id: Option<Correlation>| {
            heard.hears(&sender(session, generation), n, id.as_ref(), |_| true)
        };
        let (news, overtaken) = (Hearing::News, Hearing::Overtaken);
        assert_eq!(hear(session, 0, 1, id("1")), news);
        assert_eq!(hear(session, 0, 3, id("3")), news);
        assert_eq!(hear(session, 0, 2, id("2")), overtaken);
        assert_eq!(hear(session, 0, 3, id("3")), overtaken, "the same again");
        assert_eq!(hear(session, 1, 1, id("3")), Hearing::Repetition);
        assert_eq!(hear(session, 1, 2, id("4")), news);
        assert_eq!(hear(session, 0, 9, None), overtaken, "before the resume");
        let other = SessionId::random();
        assert_eq!(hear(other, 0, 1, id("1")), news, "somebody else");
    }

    #[test]
    fn what_an_earlier_connection_has_heard_is_no_news() {
        let address = Address::new(Realm::default(), UserName::parse("a").unwrap());
        let sender = Sender::new(address, SessionId::random(), 1, NodeId::known("n"));
        let name = &sender.address.name;
        let mut heard = Dedup::default();
        heard.restore(name.clone(), sender.session, (1, 5));
        let id = |number: usize| Correlation(number.to_string().into());
        let mut hear = |n, id| heard.hears(&sender, n, Some(&id), |_| true);
        assert_eq!(hear(5, id(0)), Hearing::Overtaken);
        for number in 0..=IDS_ANEW {
            assert_eq!(hear(6 + number as u64, id(number)), Hearing::News);
        }
        let mut next = Dedup::default();
        next.restore(name.clone(), sender.session, (1, 100));
        let session = sender.session;
        let known = HeardId {
            session,
            hash: hash(&id(500)),
        };
        let anew: Vec<_> = heard.ids().collect();
        let (noted, anew) = (HeardId::noted(&[known]), HeardId::noted(&anew));
        let dirt = ["", ",", "x 1", &format!("{session} zz")];
        next.restore_ids(dirt.into_iter().chain([&*noted, &*anew]));
        let mut hear = |n, id| next.hears(&sender, n, Some(&id), |_| true);
        assert_eq!(hear(101, id(1)), Hearing::Repetition);
        assert_eq!(hear(102, id(IDS_ANEW)), Hearing::Repetition);
        assert_eq!(hear(103, id(500)), Hearing::Repetition);
        assert_eq!(hear(104, id(99)), Hearing::News);
    }

    #[test]
    fn whoever_has_spoken_lately_is_remembered_and_so_is_whoever_is_in_a_call() {
        let mut heard = Dedup::default();
        let sender = |number: usize| {
            let name = UserName::parse(&number.to_string()).unwrap();
            let address = Address::new(Realm::default(), name);
            Sender::new(address, SessionId::random(), 0, NodeId::known("n"))
        };
        for number in 0..=STRANGERS {
            heard.hears(&sender(number), 1, None, |name| name.to_string() == "0");
        }
        let knows = |number: usize| {
            let name = UserName::parse(&number.to_string()).unwrap();
            heard.last(&name).is_some()
        };
        assert!(knows(0) && knows(STRANGERS / 2 + 1) && knows(STRANGERS));
        assert!(!knows(1) && heard.forgotten.len() == STRANGERS / 2 - 1);
    }
}

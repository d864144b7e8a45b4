//! What was heard last from whom: whatever was overtaken, or comes twice, is dropped.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use crate::bugs::{self, Bug};
use crate::fabric::Sender;
use crate::model::{Correlation, SessionId, UserName};

/// How many senders are remembered that are in no call with us.
const STRANGERS: usize = 1024;
/// How many ids of one sender are remembered (PROTOCOL §2 "Correlation").
const IDS: usize = 256;
/// How many of them the next connection is told: what a sender may repeat after a loss of data is what it has not had acknowledged.
const NOTED_IDS: usize = 32;

/// The senders of one session.
#[derive(Debug, Default)]
pub(super) struct Heard {
    by_name: HashMap<UserName, Last>,
    /// Whoever was forgotten lately, for what is written of them elsewhere.
    pub(super) forgotten: Vec<UserName>,
    /// The same on every node, for the next connection.
    hasher: BuildHasherDefault<DefaultHasher>,
}

/// The last that one sender's session said.
#[derive(Debug)]
struct Last {
    session: SessionId,
    /// How often the sender had been resumed, and its count of what it has sent.
    at: (u32, u64),
    /// The hashes of the ids that came with it lately, of a sender that may repeat itself: a store that has lost data may accept one again.
    ids: VecDeque<u64>,
}

impl Heard {
    /// Whether this was not overtaken by, and is no repetition of, something that this sender's session said.
    pub(super) fn is_news(
        &mut self,
        from: &Sender,
        n: u64,
        once: Option<&Correlation>,
        in_call: impl Fn(&UserName) -> bool,
    ) -> bool {
        let name = &from.address.name;
        let at = (from.attach, n);
        if !self.by_name.contains_key(name) {
            if self.by_name.len() >= STRANGERS {
                let forgotten = self.by_name.extract_if(|name, _| !in_call(name));
                self.forgotten.extend(forgotten.map(|(name, _)| name));
            }
            self.restore(name.clone(), from.session, (0, 0));
        }
        let Some(last) = self.by_name.get_mut(name) else {
            return true;
        };
        let id = once.map(|id| self.hasher.hash_one(id));
        if last.session != from.session {
            *last = Last::new(from.session, (0, 0));
        }
        if last.at >= at {
            return bugs::has(Bug::PushesWhileCatchingUp);
        }
        last.at = at;
        let Some(id) = id else { return true };
        if last.ids.contains(&id) {
            return false;
        }
        if last.ids.len() == IDS {
            last.ids.pop_front();
        }
        last.ids.push_back(id);
        true
    }

    /// What an earlier connection of this session has heard.
    pub(super) fn restore(&mut self, name: UserName, session: SessionId, at: (u32, u64)) {
        self.by_name.insert(name, Last::new(session, at));
    }

    /// The last ids of each sender's session, as they are noted: `SESSION HASH…`, separated by commas.
    pub(super) fn ids(&self) -> String {
        let mut text = String::new();
        for last in self.by_name.values().filter(|last| !last.ids.is_empty()) {
            let comma = if text.is_empty() { "" } else { "," };
            // Writing to a string does not fail.
            let _ = write!(text, "{comma}{}", last.session);
            let first = last.ids.len().saturating_sub(NOTED_IDS);
            for id in last.ids.range(first..) {
                let _ = write!(text, " {id:x}");
            }
        }
        text
    }

    /// The ids that an earlier connection of this session has heard, of the sessions that are restored.
    pub(super) fn restore_ids(&mut self, text: &str) {
        for words in text.split(',') {
            let mut words = words.split(' ');
            let Some(Ok(session)) = words.next().map(str::parse::<SessionId>) else {
                continue;
            };
            let known = self
                .by_name
                .values_mut()
                .find(|last| last.session == session);
            if let Some(last) = known {
                let ids = words.filter_map(|word| u64::from_str_radix(word, 16).ok());
                last.ids.extend(ids.take(NOTED_IDS));
            }
        }
    }

    /// Whoever is remembered.
    pub(super) fn names(&self) -> impl Iterator<Item = &UserName> {
        self.by_name.keys()
    }

    /// The last that was heard from this user.
    pub(super) fn last(&self, name: &UserName) -> Option<(SessionId, (u32, u64))> {
        self.by_name.get(name).map(|last| (last.session, last.at))
    }
}

impl Last {
    fn new(session: SessionId, at: (u32, u64)) -> Self {
        Self {
            session,
            at,
            ids: VecDeque::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, NodeId, Realm};

    #[test]
    fn what_is_old_or_comes_twice_is_no_news() {
        let (mut heard, session) = (Heard::default(), SessionId::random());
        let sender = |session, attach| {
            let address = Address::new(Realm::default(), UserName::parse("a").unwrap());
            Sender::new(address, session, attach, NodeId::known("n"))
        };
        let id = |text: &str| Some(Correlation(text.into()));
        let mut is_news = |session, attach, n, id: Option<Correlation>| {
            heard.is_news(&sender(session, attach), n, id.as_ref(), |_| true)
        };
        assert!(is_news(session, 0, 1, id("1")));
        assert!(is_news(session, 0, 3, id("3")));
        assert!(!is_news(session, 0, 2, id("2")), "overtaken");
        assert!(!is_news(session, 0, 3, id("3")), "the same again");
        assert!(!is_news(session, 1, 1, id("3")), "repeated after a resume");
        assert!(is_news(session, 1, 2, id("4")));
        assert!(!is_news(session, 0, 9, None), "from before the resume");
        let other = SessionId::random();
        assert!(is_news(other, 0, 1, id("1")), "somebody else");
    }

    #[test]
    fn what_an_earlier_connection_has_heard_is_no_news() {
        let address = Address::new(Realm::default(), UserName::parse("a").unwrap());
        let sender = Sender::new(address, SessionId::random(), 1, NodeId::known("n"));
        let mut heard = Heard::default();
        heard.restore(sender.address.name.clone(), sender.session, (1, 5));
        assert!(!heard.is_news(&sender, 5, None, |_| true));
        assert!(heard.is_news(&sender, 6, None, |_| true));
        // Redis may have forgotten which ids it has accepted.
        let id = |number: usize| Some(Correlation(number.to_string().into()));
        for number in 0..=NOTED_IDS {
            let n = 7 + number as u64;
            assert!(heard.is_news(&sender, n, id(number).as_ref(), |_| true));
        }
        let mut next = Heard::default();
        next.restore(sender.address.name.clone(), sender.session, (1, 100));
        next.restore_ids(&heard.ids());
        assert!(!next.is_news(&sender, 101, id(1).as_ref(), |_| true));
        assert!(!next.is_news(&sender, 102, id(NOTED_IDS).as_ref(), |_| true));
        assert!(next.is_news(&sender, 103, id(99).as_ref(), |_| true));
        for dirt in ["", ",", "x 1", &format!("{} zz", sender.session)] {
            next.restore_ids(dirt);
        }
    }
}

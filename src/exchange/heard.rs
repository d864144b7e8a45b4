//! What was heard last from whom: whatever was overtaken, or comes twice, is dropped.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

use crate::bugs::{self, Bug};
use crate::fabric::Sender;
use crate::model::{Correlation, SessionId, UserName};

/// How many senders are remembered that are in no call with us.
const STRANGERS: usize = 1024;
/// How many ids of one sender are remembered (PROTOCOL §2 "Correlation").
const IDS: usize = 256;
/// How many earlier sessions of them are remembered.
const EARLIER: usize = 64;

/// The senders of one session.
#[derive(Debug, Default)]
pub(super) struct Heard {
    by_name: HashMap<UserName, Last>,
    /// The last of earlier sessions of these names, latest last: what a store had lost may come again after a new one has spoken.
    earlier: VecDeque<(SessionId, (u32, u64))>,
    /// Counts their changes.
    pub(super) turnover: u64,
    /// Whoever was forgotten lately, for what is written of them elsewhere.
    pub(super) forgotten: Vec<UserName>,
    hasher: RandomState,
}

/// The last that one sender's session said.
#[derive(Debug)]
struct Last {
    session: SessionId,
    /// How often the sender had been resumed, and its count of what it has sent.
    at: (u32, u64),
    /// Every id that came later than this is known.
    ids_since: (u32, u64),
    /// The hashes of the ids that came with it lately and their places, of a sender that may repeat itself.
    ids: VecDeque<(u64, (u32, u64))>,
}

/// What something is to whoever has heard its sender before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// News.
    Yes,
    /// It was heard before, or overtaken by something that was.
    No,
    /// It was overtaken, and was to be heard: it is missed.
    Overtaken,
}

impl Heard {
    /// Whether this was not overtaken by, and is no repetition of, something that this sender's session said.
    pub(super) fn is_news(
        &mut self,
        from: &Sender,
        n: u64,
        once: Option<&Correlation>,
        in_call: impl Fn(&UserName) -> bool,
    ) -> News {
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
            return News::Yes;
        };
        let id = once.map(|id| self.hasher.hash_one(id));
        if last.session != from.session {
            let known = |(session, _): &(SessionId, (u32, u64))| *session == from.session;
            if let Some((_, last)) = self.earlier.iter_mut().find(|earlier| known(earlier)) {
                let is_news = *last < at;
                *last = at.max(*last);
                return if is_news { News::Yes } else { News::No };
            }
            if self.earlier.len() == EARLIER {
                self.earlier.pop_front();
            }
            self.earlier.push_back((last.session, last.at));
            self.turnover += 1;
            *last = Last::new(from.session, (0, 0));
        }
        let is_known = |id| last.ids.iter().any(|(known, _)| *known == id);
        if last.at >= at {
            return match id {
                _ if bugs::has(Bug::PushesWhileCatchingUp) => News::Yes,
                // Nobody lets go of an id before it was delivered: it comes too late from a connection that is no more, or from one whose
                // letters a store had lost.
                Some(id) if at > last.ids_since && !is_known(id) => News::Overtaken,
                _ => News::No,
            };
        }
        last.at = at;
        let Some(id) = id else { return News::Yes };
        if is_known(id) {
            return News::No;
        }
        if last.ids.len() == IDS
            && let Some((_, oldest)) = last.ids.pop_front()
        {
            last.ids_since = oldest;
        }
        last.ids.push_back((id, at));
        News::Yes
    }

    /// What an earlier connection of this session has heard.
    pub(super) fn restore(&mut self, name: UserName, session: SessionId, at: (u32, u64)) {
        self.by_name.insert(name, Last::new(session, at));
    }

    /// What was heard last from earlier sessions of the senders, as it is noted: `SESSION ATTACH N` of each.
    pub(super) fn earlier(&self) -> String {
        let words = |(session, (attach, n)): &(SessionId, _)| format!("{session} {attach} {n}");
        let earlier: Vec<String> = self.earlier.iter().map(words).collect();
        earlier.join(" ")
    }

    /// The same, as an earlier connection of this session has noted it.
    pub(super) fn restore_earlier(&mut self, text: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        for last in words.chunks_exact(3) {
            let (session, attach, n) = (last[0].parse(), last[1].parse(), last[2].parse());
            if let (Ok(session), Ok(attach), Ok(n)) = (session, attach, n) {
                self.earlier.push_back((session, (attach, n)));
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
            ids_since: at,
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
        let mut news = |session, attach, n, id: Option<Correlation>| {
            heard.is_news(&sender(session, attach), n, id.as_ref(), |_| true)
        };
        let (yes, no) = (News::Yes, News::No);
        assert_eq!(news(session, 0, 1, id("1")), yes);
        assert_eq!(news(session, 0, 3, id("3")), yes);
        assert_eq!(news(session, 0, 2, id("2")), News::Overtaken);
        assert_eq!(news(session, 0, 2, None), no, "nobody minds");
        assert_eq!(news(session, 0, 3, id("3")), no, "the same again");
        assert_eq!(news(session, 1, 1, id("3")), no, "repeated after a resume");
        assert_eq!(news(session, 1, 2, id("4")), yes);
        assert_eq!(news(session, 0, 9, None), no, "from before the resume");
        assert_eq!(news(session, 0, 9, id("9")), News::Overtaken);
        let other = SessionId::random();
        assert_eq!(news(other, 0, 1, id("1")), yes, "somebody else");
        assert_eq!(
            news(session, 1, 2, None),
            no,
            "sent again by a store's loss"
        );
        assert_eq!(news(session, 1, 3, None), yes, "late, but news");
    }

    #[test]
    fn earlier_sessions_of_a_sender_are_known_to_the_next_connection_too() {
        let address = Address::new(Realm::default(), UserName::parse("a").unwrap());
        let sender = |n| Sender::new(address.clone(), n, 0, NodeId::known("n"));
        let [first, second] = [SessionId::random(), SessionId::random()].map(sender);
        let mut heard = Heard::default();
        assert_eq!(heard.is_news(&first, 3, None, |_| true), News::Yes);
        assert_eq!((heard.turnover, &*heard.earlier()), (0, ""));
        assert_eq!(heard.is_news(&second, 1, None, |_| true), News::Yes);
        assert_eq!(heard.turnover, 1);
        let mut next = Heard::default();
        next.restore_earlier(&heard.earlier());
        next.restore(address.name.clone(), second.session, (0, 1));
        assert_eq!(next.is_news(&first, 3, None, |_| true), News::No);
        assert_eq!(next.is_news(&first, 4, None, |_| true), News::Yes);
    }

    #[test]
    fn what_may_have_been_heard_by_an_earlier_connection_is_not_missed() {
        let address = Address::new(Realm::default(), UserName::parse("a").unwrap());
        let sender = Sender::new(address, SessionId::random(), 1, NodeId::known("n"));
        let mut heard = Heard::default();
        heard.restore(sender.address.name.clone(), sender.session, (1, 5));
        let id = |number: u64| Correlation(number.to_string().into());
        let mut news = |n| heard.is_news(&sender, n, Some(&id(n)), |_| true);
        assert_eq!(news(5), News::No);
        for n in 10..12 + IDS as u64 {
            assert_eq!(news(n), News::Yes);
        }
        assert_eq!(news(11), News::No, "its id is forgotten");
        assert_eq!(news(8), News::No, "so nobody knows of this one");
    }
}

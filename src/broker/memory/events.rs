//! The events of the in-memory store: the same as over Redis, but they end with the process, and fewer wait.

use std::collections::{HashMap, VecDeque};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::broker::Event;
use crate::model::{Address, CallFact, CallNews, Fact, LeaveReason, NodeId, SessionId, What};

/// How many events wait at most. The oldest of more is lost, and counted.
const WAITING: usize = 10_000;
/// How many ends are remembered: the earlier half is forgotten when there are more.
const ENDS: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) waiting: VecDeque<Event>,
    /// How many events there were, which makes their places.
    count: u64,
    /// Sessions that have ended, and calls that have, in this order.
    ended: VecDeque<SessionId>,
    calls: HashMap<[SessionId; 2], State>,
    pub(super) leader: Option<(NodeId, Instant)>,
}

/// The state of the call between two sessions.
#[derive(Debug, Default)]
struct State {
    open: Option<OpenCall>,
    /// The latest numbers of both sides, in the call and in those that are over.
    latest: [u64; 2],
    done: [u64; 2],
    touched: u64,
}

#[derive(Debug)]
struct OpenCall {
    id: String,
    users: Vec<Address>,
    sessions: Vec<SessionId>,
    started: SystemTime,
    answered: Option<SystemTime>,
    pair: &'static str,
}

impl Events {
    /// Records a fact, and returns how many old events were lost.
    pub(super) fn record(&mut self, fact: &Fact) -> usize {
        let before = self.count;
        let kind = match &fact.what {
            What::Started => "started",
            What::Ended(_) if !self.ended.contains(&fact.session) => {
                self.ended.push_back(fact.session);
                if self.ended.len() > ENDS {
                    self.ended.drain(..ENDS / 2);
                }
                "ended"
            }
            What::Call(call) => {
                self.record_call(fact, call);
                return self.shorten(before);
            }
            What::Resumed | What::Moved(_) | What::Ended(_) => return 0,
        };
        let more = match &fact.what {
            What::Ended(reason) => vec![("reason".to_owned(), reason.as_str().to_owned())],
            _ => Vec::new(),
        };
        let id = format!("msg_session_{kind}_{}", fact.session);
        let (users, sessions) = (vec![fact.address.clone()], vec![fact.session]);
        self.add(
            &format!("session.{kind}"),
            id,
            (users, sessions),
            fact.at,
            more,
        );
        self.shorten(before)
    }

    fn record_call(&mut self, fact: &Fact, call: &CallFact) {
        let is_first = fact.session < call.with;
        let (own, other) = call.latest;
        let latest = if is_first { [own, other] } else { [other, own] };
        let side = usize::from(call.began != is_first);
        let key = [fact.session.min(call.with), fact.session.max(call.with)];
        self.forget_calls();
        let count = self.count;
        let state = self.calls.entry(key).or_default();
        if call.n <= state.done[side] {
            return;
        }
        state.touched = count;
        // Before the end, only the offer that began the call counts: a later one may begin the next call.
        state.latest[side] = state.latest[side].max(call.n);
        match call.what {
            CallNews::Ended(reason) => self.end_call(key, latest, reason, fact.at),
            _ => self.open_call(key, fact, call),
        }
    }

    fn end_call(
        &mut self,
        key: [SessionId; 2],
        latest: [u64; 2],
        reason: LeaveReason,
        at: SystemTime,
    ) {
        if let Some(state) = self.calls.get_mut(&key) {
            for (known, now) in state.latest.iter_mut().zip(latest) {
                *known = now.max(*known);
            }
            state.done = [0, 1].map(|side| state.done[side].max(state.latest[side]));
            if let Some(open) = state.open.take() {
                let text = |at: SystemTime| millis(at).to_string();
                let more = [
                    ("call", open.id.clone()),
                    ("reason", reason.as_str().to_owned()),
                    ("started", text(open.started)),
                    ("answered", open.answered.map(text).unwrap_or_default()),
                    ("pair", open.pair.to_owned()),
                ];
                let more = more.map(|(name, value)| (name.to_owned(), value)).into();
                let id = format!("msg_call_ended_{}", open.id);
                self.add("call.ended", id, (open.users, open.sessions), at, more);
            }
        }
    }

    fn open_call(&mut self, key: [SessionId; 2], fact: &Fact, call: &CallFact) {
        let state = self.calls.entry(key).or_default();
        let is_new = state.open.is_none();
        let open = state.open.get_or_insert_with(|| {
            let mut users = vec![fact.address.clone(), fact.peer_address(call)];
            let mut sessions = vec![fact.session, call.with];
            if !call.began {
                users.reverse();
                sessions.reverse();
            }
            OpenCall {
                id: call.id(fact.session),
                users,
                sessions,
                started: fact.at,
                answered: None,
                pair: "",
            }
        });
        let is_answered = call.what == CallNews::Answered && open.answered.is_none();
        if is_answered {
            open.answered = Some(fact.at);
        }
        if let CallNews::Connected(pair) = call.what {
            open.pair = pair.as_str();
        }
        let (id, of) = (open.id.clone(), (open.users.clone(), open.sessions.clone()));
        let mut more = vec![("call".to_owned(), id.clone())];
        let started = millis(open.started).to_string();
        if is_new && call.what != CallNews::Here {
            self.add(
                "call.started",
                format!("msg_call_started_{id}"),
                of.clone(),
                fact.at,
                more.clone(),
            );
        }
        if is_answered {
            more.push(("started".to_owned(), started));
            self.add(
                "call.answered",
                format!("msg_call_answered_{id}"),
                of,
                fact.at,
                more,
            );
        }
    }

    fn add(
        &mut self,
        kind: &str,
        id: String,
        (users, sessions): (Vec<Address>, Vec<SessionId>),
        at: SystemTime,
        more: Vec<(String, String)>,
    ) {
        self.count += 1;
        self.waiting.push_back(Event {
            place: format!("{:020}", self.count),
            id,
            kind: kind.to_owned(),
            users,
            sessions,
            at,
            more,
        });
    }

    fn shorten(&mut self, before: u64) -> usize {
        if before == self.count {
            return 0;
        }
        let lost = self.waiting.len().saturating_sub(WAITING);
        self.waiting.drain(..lost);
        lost
    }

    /// Forgets calls that are over and were not heard of for long.
    fn forget_calls(&mut self) {
        if self.calls.len() > ENDS {
            let recent = self.count.saturating_sub(ENDS as u64 / 2);
            self.calls
                .retain(|_, state| state.open.is_some() || state.touched > recent);
        }
    }
}

fn millis(at: SystemTime) -> u128 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis()
}

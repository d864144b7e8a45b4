//! A model client: counts answers, remembers what it received, and repeats what was not answered.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::world::{address, correlation};
use crate::model::{
    Body, Correlation, Event, IfAbsent, LeaveTarget, Offset, Refusal, Signal, SignalKind, UserName,
};
use crate::session::state::Input;

/// One user's client.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "four independent facts")]
pub(super) struct Client {
    pub(super) is_resumable: bool,
    /// The last inbox entry that it has.
    pub(super) last: Option<Offset>,
    pub(super) sent: BTreeMap<u64, Message>,
    /// The signals received from each user, in order.
    pub(super) heard: BTreeMap<UserName, Vec<u64>>,
    /// Users that it believes to be in a call with.
    pub(super) calls: BTreeSet<UserName>,
    /// How many offers and answers to and from each user no leave was received for.
    starts: BTreeMap<UserName, u32>,
    /// Users who may have its offer or answer, although it was refused and is not repeated.
    pub(super) unsure: BTreeSet<UserName>,
    /// It was told that it may have missed something.
    pub(super) is_told_missed: bool,
    pub(super) data_was_lost: bool,
}

/// A signal that the client sent.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) to: usize,
    kind: SignalKind,
    /// An answer is due on this connection.
    is_due: bool,
    pub(super) is_accepted: bool,
    /// It must be sent again.
    is_refused: bool,
}

impl Client {
    /// Sends a signal with this number as its id and body.
    pub(super) fn send(&mut self, number: u64, to: usize, kind: SignalKind) -> Input {
        if kind.starts_call() {
            self.start(address(to).name);
        }
        let message = Message {
            to,
            kind,
            is_due: true,
            is_accepted: false,
            is_refused: false,
        };
        let input = message.input(number);
        self.sent.insert(number, message);
        input
    }

    /// Ends the call with this user.
    pub(super) fn leave(&mut self, with: usize) -> Input {
        let name = address(with).name;
        self.calls.remove(&name);
        let (whom, id) = (LeaveTarget::Peer(name), None);
        Input::Leave { whom, id }
    }

    pub(super) fn hear(&mut self, event: &Event) {
        match event {
            Event::Signal { from, signal, seq } => {
                self.hear_signal(from, signal);
                self.last = self.last.max(*seq);
            }
            Event::Left { from, seq, .. } => {
                self.calls.remove(from);
                let starts = self.starts.entry(from.clone()).or_default();
                // A store that lost the offer may still know who sent it.
                let is_due = *starts > 0 || self.data_was_lost;
                assert!(is_due, "a leave without a call with {from}");
                *starts = starts.saturating_sub(1);
                self.last = self.last.max(*seq);
            }
            Event::Ack { id, .. } => self.answered(id).is_accepted = true,
            Event::Refused { refusal, id, .. } => {
                let Some(id) = id else { return };
                let is_resumable = self.is_resumable;
                let message = self.answered(id);
                assert!(
                    matches!(refusal, Refusal::Unavailable { .. }),
                    "everybody is here and has room: {refusal:?}"
                );
                message.is_refused = is_resumable;
                let to = address(message.to).name;
                if !is_resumable {
                    // It gives up.
                    self.calls.remove(&to);
                    self.unsure.insert(to);
                }
            }
            Event::Status { missed, .. } => self.is_told_missed |= missed,
            other => panic!("nobody asked for {other:?}"),
        }
    }

    fn hear_signal(&mut self, from: &UserName, signal: &Signal) {
        if signal.kind.starts_call() {
            self.start(from.clone());
        }
        let text = std::str::from_utf8(&signal.body.0).unwrap_or_default();
        let number = text
            .parse()
            .unwrap_or_else(|_| panic!("a body was changed: {text}"));
        let heard = self.heard.entry(from.clone()).or_default();
        assert!(
            !heard.contains(&number),
            "{number} of {from} was heard twice"
        );
        heard.push(number);
    }

    fn answered(&mut self, id: &Correlation) -> &mut Message {
        let number: Option<u64> = id.0.parse().ok();
        let message = number.and_then(|number| self.sent.get_mut(&number));
        let message = message.unwrap_or_else(|| panic!("an answer to nothing: {id:?}"));
        assert!(message.is_due, "{id:?} was answered twice");
        message.is_due = false;
        message
    }

    /// The connection is gone, with the answers that the client has not read.
    pub(super) fn disconnected(&mut self) {
        for message in self.sent.values_mut() {
            message.is_due = false;
        }
    }

    /// What the client repeats on a new connection, in order.
    pub(super) fn unanswered(&mut self) -> Vec<Input> {
        self.again(|message| !message.is_accepted)
    }

    /// What the client repeats because it was refused, in order.
    pub(super) fn refused(&mut self) -> Vec<Input> {
        self.again(|message| message.is_refused)
    }

    fn again(&mut self, which: impl Fn(&Message) -> bool) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (number, message) in self.sent.iter_mut().filter(|(_, message)| which(message)) {
            if message.kind.starts_call() {
                *self.starts.entry(address(message.to).name).or_default() += 1;
            }
            inputs.push(message.again(*number));
        }
        inputs
    }

    fn start(&mut self, with: UserName) {
        *self.starts.entry(with.clone()).or_default() += 1;
        self.calls.insert(with);
    }
}

impl Message {
    fn again(&mut self, number: u64) -> Input {
        self.is_due = true;
        self.is_refused = false;
        self.input(number)
    }

    fn input(&self, number: u64) -> Input {
        let body = Body(Bytes::from(number.to_string()));
        Input::Send {
            to: address(self.to).name,
            signal: Signal {
                kind: self.kind,
                body,
            },
            trace: None,
            id: Some(correlation(number)),
            if_absent: IfAbsent::Refuse,
        }
    }
}

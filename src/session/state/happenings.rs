//! What happens to calls, for whoever is told by webhooks. Nothing is built if nobody is.

use super::call::Call;
use super::{Effect, State};
use crate::model::{CallFact, CallNews, LeaveReason, SignalKind, UserName};

impl State {
    /// An offer or an answer was delivered.
    pub(super) fn call_goes_on(&mut self, peer: &UserName, kind: SignalKind) {
        self.call_happens(
            peer,
            if kind == SignalKind::Answer {
                CallNews::Answered
            } else {
                CallNews::Started
            },
        );
    }

    /// Something happened to the call with this user.
    pub(super) fn call_happens(&mut self, peer: &UserName, what: CallNews) {
        if self.node.facts.are_wanted()
            && let Some(call) = self.calls.get(peer).cloned()
        {
            self.call_happened(peer, &call, what);
        }
    }

    /// Something happened to a call that may be over. A call whose peer was never known did not begin.
    pub(super) fn call_happened(&mut self, peer: &UserName, call: &Call, what: CallNews) {
        if !self.node.facts.are_wanted() {
            return;
        }
        let Some(at) = &call.peer else {
            return;
        };
        let began = call.since != 0;
        let fact = CallFact {
            peer: peer.clone(),
            with: at.session,
            began,
            n: if began { call.since } else { call.joined },
            latest: (call.renewed, call.joined),
            what,
        };
        self.effects.push(Effect::Tell(Box::new(fact)));
    }

    /// The call with this user as it is now, if anybody wants to know what becomes of it.
    pub(super) fn call_before(&self, peer: &UserName) -> Option<Call> {
        let call = self.calls.get(peer);
        call.filter(|_| self.node.facts.are_wanted()).cloned()
    }

    /// A call is over that was so before.
    pub(super) fn call_is_over(
        &mut self,
        peer: &UserName,
        before: Option<Call>,
        reason: LeaveReason,
    ) {
        if let Some(before) = before {
            self.call_happened(peer, &before, CallNews::Ended(reason));
        }
    }

    /// A resumed session goes on with its calls here.
    pub(super) fn calls_are_here(&mut self) {
        if self.node.facts.are_wanted() {
            for peer in self.calls.peers() {
                self.call_happens(&peer, CallNews::Here);
            }
        }
    }
}

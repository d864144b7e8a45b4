//! Connections of the model: what is read, confirmed, lost with a connection, and repeated on the next.

use std::sync::Arc;

use super::world::{World, address};
use crate::broker::{Lease, Resumed};
use crate::model::CloseReason;
use crate::router::Mail;
use crate::session::state::{Action, Input, State};

/// What becomes of the server's side when a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The node notices at once.
    Noticed,
    /// The node takes the connection for alive until the client resumes.
    Unnoticed,
    /// The node dies.
    NodeDies,
}

impl World {
    /// The client reads what was written to it.
    pub(super) fn read_wire(&mut self, user: usize) {
        while let Some(action) = self.users[user].wire.pop_front() {
            match action {
                Action::Tell(event) => self.users[user].client.hear(&event),
                Action::End(reason) => panic!("user {user} was ended: {reason:?}"),
                Action::EndSpan(_) | Action::Challenge | Action::Ping => {}
            }
        }
    }

    /// The client's application confirms what it has.
    pub(super) fn app_confirms(&mut self, user: usize) {
        let it = &mut self.users[user];
        let last = it.client.last.filter(|_| it.is_connected);
        if let Some(last) = last {
            it.app_confirms = true;
            self.on(user, Input::Confirm(last));
        }
    }

    /// The client answers a ping. It has read everything before, unless a browser answers for an application that
    /// confirms what it has read.
    pub(super) fn confirm(&mut self, user: usize) {
        if !self.users[user].is_connected {
            return;
        }
        self.users[user].pings += 1;
        let ping = self.users[user].pings;
        self.on(user, Input::Pinged(ping));
        if !self.users[user].app_confirms {
            self.read_wire(user);
        }
        self.on(user, Input::Ponged(ping));
    }

    /// The connection breaks, and what was written is lost.
    pub(super) fn disconnect(&mut self, user: usize, cut: Cut) {
        let is_known = self.store[&address(user)].hash.is_some();
        let it = &mut self.users[user];
        // If the store has lost the record and the node dies, the session is lost.
        if !it.is_connected || !it.client.is_resumable || (cut == Cut::NodeDies && !is_known) {
            return;
        }
        it.is_connected = false;
        it.wire.clear();
        it.client.disconnected();
        match cut {
            Cut::Noticed => {
                if let Some(stored) = self.store.get_mut(&address(user)) {
                    stored.holder.flags.detached = true;
                }
                self.on(user, Input::Detach);
            }
            Cut::Unnoticed => {}
            Cut::NodeDies => self.forget(user),
        }
    }

    /// Ends a session without a word. What is under way for it is lost with it.
    fn forget(&mut self, user: usize) {
        let it = &mut self.users[user];
        it.state = None;
        it.mailbox.clear();
        it.outcomes.clear();
        (it.read, it.find) = (None, None);
        it.saves.clear();
    }

    /// The user's earlier connection is told of the next one. It ends, and tells nobody.
    fn replace(&mut self, user: usize, generation: u32) {
        let moment = self.moment();
        if let Some(earlier) = &mut self.users[user].state {
            earlier.on(Input::Mail(Mail::Replaced(generation)), moment);
            let mut actions = earlier.take_actions().into_iter();
            let ends = actions.any(|action| matches!(action, Action::End(CloseReason::Replaced)));
            assert!(
                ends,
                "user {user} resumed, and the earlier connection goes on"
            );
        }
        self.forget(user);
    }

    /// The client resumes on a new connection, and repeats what was not answered.
    pub(super) fn resume(&mut self, user: usize) {
        let stored = self.store.get(&address(user));
        // Until the record is rewritten, the client is told to try again.
        let is_known = stored.is_some_and(|stored| stored.hash.is_some());
        if self.users[user].is_connected || !is_known {
            return;
        }
        let generation = stored.map_or(0, |stored| stored.holder.generation + 1);
        self.replace(user, generation);
        let Some(stored) = self.store.get_mut(&address(user)) else {
            return;
        };
        stored.holder.generation = generation;
        stored.holder.flags.detached = false;
        let holder = stored.holder.clone();
        let lease = Lease {
            callable_by: None,
            address: address(user),
            session: holder.session,
            generation: holder.generation,
            flags: holder.flags,
        };
        let last = self.users[user].client.last;
        let missed = stored.epoch != self.epoch;
        let notes = stored
            .record
            .iter()
            .map(|(field, value)| (field.clone(), value.clone()));
        let resumed = Resumed {
            lease,
            confirmed: stored.confirmed,
            fields: notes.collect(),
            missed,
        };
        let Some(hash) = stored.hash.clone() else {
            unreachable!("nobody resumes before the record is written anew")
        };
        let (node, moment) = (Arc::clone(&self.nodes[user]), self.moment());
        let state = State::resume(node, &resumed, (None, hash), last, self.epoch, moment);
        let it = &mut self.users[user];
        it.state = Some(state);
        it.is_connected = true;
        self.run(user);
        for input in self.users[user].client.unanswered() {
            self.settle_one_read(user);
            self.on(user, input);
        }
    }

    /// A session accepts frames only when it has read its inbox once.
    fn settle_one_read(&mut self, user: usize) {
        while self.users[user].state.as_ref().is_some_and(State::is_busy) {
            if !(self.deliver(user, 2) || self.deliver(user, 1)) {
                return;
            }
        }
    }

    /// Whether this user's session accepts frames now.
    pub(super) fn listens(&self, user: usize) -> bool {
        let it = &self.users[user];
        it.is_connected && it.state.as_ref().is_some_and(|state| !state.is_busy())
    }
}

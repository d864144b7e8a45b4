//! The store of the model: sends, record updates, and losses of data.

use super::world::World;
use crate::broker::{Entry, Envelope, Lease, RecordUpdate, SendOptions, Sent};
use crate::model::{Address, Offset};
use crate::router::Mail;
use crate::session::state::State;

impl World {
    pub(super) fn send(&mut self, to: &Address, options: &SendOptions, envelope: Envelope) -> Sent {
        let meant = options.meant();
        let held = self.store.get_mut(to);
        let held = held.filter(|held| meant.is_none_or(|meant| meant == held.holder.session));
        let Some(stored) = held else {
            return Sent::Absent;
        };
        let holder = stored.holder.clone();
        let mail = if holder.flags.resumable {
            self.last_entry += 1;
            let id = Offset {
                millis: self.last_entry,
                sequence: 0,
            };
            let entry = Entry { id, envelope };
            stored.inbox.push(entry.clone());
            Mail::Push(vec![entry])
        } else {
            Mail::Direct(envelope)
        };
        let receiver = self.users.iter_mut().find(|user| {
            let lease = user.state.as_ref().map(State::lease);
            lease.is_some_and(|lease| {
                (lease.session, lease.generation) == (holder.session, holder.generation)
            })
        });
        if let Some(receiver) = receiver {
            receiver.mailbox.push_back(mail);
        }
        Sent::To(holder)
    }

    pub(super) fn save(&mut self, lease: &Lease, user: usize, update: RecordUpdate) -> bool {
        let Some(stored) = self.store.get_mut(&lease.address) else {
            return false;
        };
        let holder = lease.held_by(&self.nodes[user].id);
        if (stored.holder.session, stored.holder.generation) != (holder.session, holder.generation)
        {
            return false;
        }
        if let Some((hash, behind)) = update.anew {
            stored.hash = Some(hash);
            stored.record.clear();
            stored.epoch = self.epoch;
            self.last_entry = self.last_entry.max(behind.millis);
        } else if stored.hash.is_none() {
            return true;
        }
        if let Some(confirmed) = update.confirmed {
            stored.confirmed = confirmed;
            stored.inbox.retain(|entry| entry.id > confirmed.all);
        }
        stored.record.extend(update.set);
        for field in update.unset {
            stored.record.remove(&field);
        }
        true
    }

    /// The store loses everything but the leases, which their holders renew. Each session is told.
    pub(super) fn lose_data(&mut self) {
        if self.users.iter().any(|user| user.state.is_none()) {
            return;
        }
        self.epoch += 1;
        (0..self.users.len()).for_each(|user| self.lose_name(user));
    }

    /// Another node frees a user's name, since it believes that the user's node is dead. The node renews the lease.
    pub(super) fn lose_name(&mut self, user: usize) {
        let lease = self.users[user].state.as_ref().map(State::lease);
        let Some(stored) = lease.and_then(|lease| self.store.get_mut(&lease.address)) else {
            return;
        };
        stored.inbox.clear();
        stored.record.clear();
        stored.hash = None;
        self.users[user].client.data_was_lost = true;
        let mail = Mail::Regained(self.epoch);
        self.users[user].mailbox.push_back(mail);
    }
}

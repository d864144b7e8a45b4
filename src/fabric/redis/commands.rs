//! What is asked of Redis, as its scripts take it.

use redis::Cmd;

use super::RedisFabric;
use super::scripts::Loaded;
use super::wire::millis;
use crate::fabric::{Confirmed, Holder, Lease, Notes};
use crate::model::{Address, EntryId, SecretHash};

impl RedisFabric {
    pub(super) fn claim_command(
        &self,
        lease: &Lease,
        over: Option<&Holder>,
        secret: Option<&SecretHash>,
    ) -> Cmd {
        let mut claim = self.scripts.claim.on(&self.keys.of(&lease.address));
        claim
            .arg(lease.held_by(&self.node).to_string())
            .arg(millis(self.lives.user))
            .arg(over.map(Holder::to_string).unwrap_or_default())
            .arg(self.deadline())
            .arg(secret.map_or("", SecretHash::as_str))
            .arg(lease.session.to_string())
            .arg(millis(self.lives.record))
            .arg(self.epoch.name());
        claim
    }

    pub(super) fn resume_command(
        &self,
        address: &Address,
        secret: &SecretHash,
        last: Option<EntryId>,
        guarded: bool,
    ) -> Cmd {
        let mut resume = self.scripts.resume.on(&self.keys.of(address));
        resume
            .arg(self.node.as_str())
            .arg(secret.as_str())
            .arg(millis(self.lives.user))
            .arg(millis(self.lives.record))
            .arg(millis(self.lives.inbox))
            .arg(self.deadline())
            .arg(last.map(|last| last.to_string()).unwrap_or_default())
            .arg(self.epoch.name())
            .arg(u8::from(guarded));
        resume
    }

    /// A script about the inbox of a lease.
    pub(super) fn of_lease(&self, script: &Loaded, lease: &Lease, last: EntryId) -> Cmd {
        self.of_holder(script, &lease.address, &lease.held_by(&self.node), last)
    }

    pub(super) fn of_holder(
        &self,
        script: &Loaded,
        address: &Address,
        holder: &Holder,
        last: EntryId,
    ) -> Cmd {
        let mut call = script.on(&self.keys.of(address));
        call.arg(holder.to_string()).arg(last.to_string());
        call
    }

    pub(super) fn renew_command(&self, leases: &[&Lease]) -> Cmd {
        let keys: Vec<String> = leases
            .iter()
            .flat_map(|lease| self.keys.of(&lease.address))
            .collect();
        let mut renew = self.scripts.renew.on(&keys);
        renew
            .arg(millis(self.lives.user))
            .arg(millis(self.lives.inbox))
            .arg(millis(self.lives.record))
            .arg(self.deadline());
        for lease in leases {
            renew.arg(lease.held_by(&self.node).to_string());
        }
        renew
    }

    pub(super) fn note_command(&self, lease: &Lease, notes: Notes) -> Cmd {
        let Notes {
            set,
            unset,
            confirmed,
            anew,
        } = notes;
        let mut note = self.scripts.note.on(&self.keys.of(&lease.address));
        note.arg(lease.held_by(&self.node).to_string())
            .arg(millis(self.lives.record))
            .arg(millis(self.lives.inbox));
        match confirmed {
            None => note.arg("").arg("").arg(""),
            Some(Confirmed { all, told }) => note
                .arg(all.to_string())
                .arg(all.next().to_string())
                .arg(told.to_string()),
        };
        match anew {
            None => note.arg("").arg("").arg("").arg("").arg(""),
            Some((hash, last)) => note
                .arg(hash.as_str())
                .arg(lease.session.to_string())
                .arg(lease.attach)
                .arg(last.to_string())
                .arg(self.epoch.name()),
        };
        note.arg(self.deadline()).arg(set.len());
        for (field, value) in set {
            note.arg(field).arg(value);
        }
        note.arg(unset);
        note
    }
}

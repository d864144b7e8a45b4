//! Builds the calls of the scripts. Each script's header documents its arguments.

use std::time::Duration;

use redis::Cmd;

use super::broker::RedisBroker;
use super::reply::millis;
use super::request::Save;
use super::scripts::Loaded;
use crate::broker::lease::callable_word;
use crate::broker::{Confirmed, Holder, Lease, RESERVED_FOR, RecordUpdate};
use crate::model::{Address, Names, Offset, SecretHash};

impl RedisBroker {
    pub(super) fn claim_command(
        &self,
        lease: &Lease,
        over: Option<&Holder>,
        secret: Option<&SecretHash>,
        from: Option<&SecretHash>,
    ) -> Cmd {
        let [presence, inbox, record, taken] = self.keys.of(&lease.address);
        let reservation = self.keys.reservation(&lease.address);
        let callers = self.keys.callers(&lease.address);
        let keys = [presence, inbox, record, taken, reservation, callers];
        let mut claim = self.scripts.claim.on(&keys);
        claim
            .arg(lease.held_by(&self.node).to_string())
            .arg(millis(self.ttls.user))
            .arg(over.map(Holder::to_string).unwrap_or_default())
            .arg(self.deadline())
            .arg(secret.map_or("", SecretHash::as_str))
            .arg(lease.session.to_string())
            .arg(millis(self.ttls.record))
            .arg(self.epoch.name())
            .arg(from.map_or("", SecretHash::as_str));
        claim
    }

    pub(super) fn reserve_command(&self, address: &Address, owner: &SecretHash) -> Cmd {
        let mut reserve = redis::cmd("SET");
        reserve
            .arg(self.keys.reservation(address))
            .arg(owner.as_str())
            .arg("PX")
            .arg(millis(RESERVED_FOR));
        reserve
    }

    pub(super) fn callers_command(
        &self,
        address: &Address,
        callable_by: Option<&Names>,
        ttl: Duration,
    ) -> Cmd {
        let key = self.keys.callers(address);
        if callable_by.is_none() {
            return redis::cmd("DEL").arg(key).clone();
        }
        let mut set = redis::cmd("SET");
        set.arg(key).arg(callable_word(callable_by));
        set.arg("PX").arg(millis(ttl).max(1));
        set
    }

    pub(super) fn resume_command(
        &self,
        address: &Address,
        secret: &SecretHash,
        callable_by: Option<&Names>,
        last: Option<Offset>,
        guarded: bool,
    ) -> Cmd {
        let mut resume = self.scripts.resume.on(&self.keys.of(address));
        resume
            .arg(self.node.as_str())
            .arg(secret.as_str())
            .arg(millis(self.ttls.user))
            .arg(millis(self.ttls.record))
            .arg(millis(self.ttls.inbox))
            .arg(self.deadline())
            .arg(last.map(|last| last.to_string()).unwrap_or_default())
            .arg(self.epoch.name())
            .arg(u8::from(guarded))
            .arg(callable_word(callable_by));
        resume
    }

    /// A call of a script that takes a lease and an offset of its inbox.
    pub(super) fn of_lease(&self, script: &Loaded, lease: &Lease, last: Offset) -> Cmd {
        self.of_holder(script, &lease.address, &lease.held_by(&self.node), last)
    }

    /// The same for the lease of any holder.
    pub(super) fn of_holder(
        &self,
        script: &Loaded,
        address: &Address,
        holder: &Holder,
        last: Offset,
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
            .arg(millis(self.ttls.user))
            .arg(millis(self.ttls.inbox))
            .arg(millis(self.ttls.record))
            .arg(self.deadline());
        for lease in leases {
            renew.arg(lease.held_by(&self.node).to_string());
        }
        renew
    }

    /// One session's part of a call of `save.lua`.
    pub(super) fn save_request(&self, lease: &Lease, update: RecordUpdate) -> Save {
        let RecordUpdate {
            set,
            unset,
            confirmed,
            anew,
        } = update;
        let is_anew = anew.is_some();
        let mut fields = Vec::with_capacity(2 * set.len() + 14);
        let mut put = |field: &str, value: String| fields.extend([field.to_owned(), value]);
        let (mut behind, mut kept) = (String::new(), String::new());
        if let Some((hash, last)) = anew {
            behind = last.to_string();
            put("hash", hash.as_str().to_owned());
            put("session", lease.session.to_string());
            put("generation", lease.generation.to_string());
            put("epoch", self.epoch.name().clone());
        }
        if let Some(Confirmed { all, told }) = confirmed {
            kept = all.next().to_string();
            put("confirmed", all.to_string());
            put("told", told.to_string());
        }
        for (field, value) in set {
            put(&field, value);
        }
        let mut args = vec![lease.held_by(&self.node).to_string(), behind, kept];
        args.push((fields.len() / 2).to_string());
        args.push(unset.len().to_string());
        args.extend(fields);
        args.extend(unset);
        Save {
            keys: self.keys.of(&lease.address),
            args,
            deadline: self.deadline(),
            is_anew,
        }
    }
}

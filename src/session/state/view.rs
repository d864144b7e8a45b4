//! Read access to a session's state.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{SessionPolicy, State};
use crate::broker::Lease;
use crate::model::{Claims, Offset, Secret, SecretHash, SessionId, UserName};

impl State {
    /// When the session began, in seconds since 1970, as its record says; `now` if it does not.
    pub fn since(&mut self, now: u64) -> u64 {
        let Some(record) = &mut self.record else {
            return now;
        };
        let since = record.since();
        if *since == 0 {
            *since = now;
        }
        *since
    }

    /// The sessions of the call peers that are known.
    pub fn call_sessions(&self) -> Vec<SessionId> {
        let peers = self.calls.peers().into_iter();
        peers.filter_map(|peer| self.calls.session(&peer)).collect()
    }

    /// Whether there are actions to take.
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Whether there are effects to take.
    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// When [`Input::Due`](super::Input::Due) is due.
    pub fn next_at(&self) -> Option<Instant> {
        let look_at = self.offline.as_ref().and_then(|offline| offline.look_at);
        let times = [
            self.outbox.retry_at,
            self.sync_at,
            look_at,
            self.lost.next_at(),
        ];
        times.into_iter().flatten().min()
    }

    /// Whether the session accepts no frames for now: the limit of sends in flight is reached, or a resumed session has
    /// not read its inbox yet, which may tell of the call that the client refers to.
    pub fn is_busy(&self) -> bool {
        let queued = self.offline.as_ref().map_or(0, |offline| offline.queued());
        self.outbox.is_busy(queued) || self.catch_up.is_beginning()
    }

    /// Sets the policy of the session's protocol.
    pub fn set_policy(&mut self, policy: SessionPolicy) {
        self.policy = policy;
    }

    /// Sets what the client's token says; `None` if it has none.
    pub fn set_claims(&mut self, claims: Option<Arc<Claims>>) {
        self.claims = claims;
    }

    /// What the client's token says.
    pub fn claims(&self) -> Option<&Arc<Claims>> {
        self.claims.as_ref()
    }

    /// Whether the token lets the client send to this user, or ask about them. Whoever is in a call with the client
    /// may be answered.
    pub fn may_reach(&self, name: &UserName) -> bool {
        let claims = self.claims.as_ref();
        claims.is_none_or(|claims| claims.may_call(name)) || self.calls.get(name).is_some()
    }

    /// Whether the client gets credentials for relays.
    pub fn may_relay(&self) -> bool {
        self.claims.as_ref().is_none_or(|claims| claims.turn)
    }

    /// The session's lease.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// How long the session survives without a connection.
    pub fn grace(&self) -> Duration {
        let longest = self.node.terms.grace;
        let own = self.policy.grace;
        own.map_or(longest, |grace| grace.min(longest))
    }

    /// The secret that resumes the session, if it is resumable and this node knows it.
    pub fn secret(&self) -> Option<&Secret> {
        self.record.as_ref()?.secret()
    }

    /// The hash of the secret.
    pub fn secret_hash(&self) -> Option<&SecretHash> {
        self.record.as_ref().map(|record| record.hash())
    }

    /// The last confirmed entry that the client was told of.
    pub fn confirmed(&self) -> Offset {
        let record = self.record.as_ref();
        record.map_or_else(Offset::default, |record| record.confirmed_told())
    }

    /// Whether the session outlives its connection.
    pub fn is_resumable(&self) -> bool {
        self.record.is_some()
    }

    /// Whether to ping the client, so that it confirms what it was told.
    pub fn wants_ping(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.asks())
    }

    /// Whether everything that was sent has arrived, or need not.
    pub fn is_settled(&self) -> bool {
        self.outbox.is_settled()
    }

    /// The last inbox entry that was handled.
    pub fn read_to(&self) -> Offset {
        self.catch_up.last()
    }

    /// Whether signals wait for absent users.
    pub(super) fn is_patient(&self) -> bool {
        !self.policy.offline_ttl.is_zero()
    }

    /// Whether no outcome is open.
    pub fn is_quiet(&self) -> bool {
        self.outbox.is_quiet()
    }
}

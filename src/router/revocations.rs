//! Revoked tokens: this node knows all revocations, so that no login waits for the store, and ends the sessions that it
//! has with such tokens.
//!
//! An operator's revocation is stored first, then told to every node. Whatever a node is not told, it reads: before its
//! first login, when it may have missed a message, and from time to time. What the store has lost meanwhile, it writes
//! again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::Router;
use super::mailbox::Mail;
use crate::broker::BrokerError;
use crate::model::{Claims, CloseReason, Refusal, Revocation, TokenGroup};

/// How often the store is read, whatever happens.
const READ_EVERY: Duration = Duration::from_secs(30);
/// When to try again if it does not answer.
const RETRY: Duration = Duration::from_millis(100);

/// What this node knows.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    known: Mutex<HashMap<TokenGroup, Revocation>>,
    /// Notified when the node may have missed one.
    missed: Notify,
}

impl Revocations {
    /// A message of another node may have been missed.
    pub(super) fn missed(&self) {
        self.missed.notify_one();
    }

    /// Adds revocations. True if any was not known.
    fn learn(&self, revocations: &[Revocation]) -> bool {
        let (mut known, mut is_new) = (self.lock(), false);
        for revocation in revocations {
            if let Some(known) = known.get_mut(&revocation.tokens) {
                is_new |= known.extend(revocation);
            } else {
                known.insert(revocation.tokens.clone(), revocation.clone());
                is_new = true;
            }
        }
        is_new
    }

    /// What is known and not among these, and has not ended, which is forgotten.
    fn without(&self, stored: &[Revocation]) -> Vec<Revocation> {
        let (mut known, now) = (self.lock(), now());
        known.retain(|_, revocation| revocation.until > now);
        let stored: HashMap<_, _> = stored
            .iter()
            .map(|stored| (&stored.tokens, stored))
            .collect();
        let is_stored = |one: &&Revocation| stored.get(&one.tokens) != Some(one);
        known.values().filter(is_stored).cloned().collect()
    }

    fn cover(&self, claims: &Claims) -> bool {
        let known = self.lock();
        !known.is_empty() && Revocation::any(claims, now(), |tokens| known.get(tokens))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenGroup, Revocation>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Router {
    /// Refuses a token that is revoked.
    pub fn check_token(&self, claims: &Claims) -> Result<(), Refusal> {
        if self.revocations.cover(claims) {
            return Err(Refusal::Unauthorized(
                "The token was revoked: get a new one",
            ));
        }
        Ok(())
    }

    /// Ends the sessions of this node whose tokens these revocations cover. Returns how many.
    pub fn revoke(&self, revocations: &[Revocation]) -> usize {
        if !self.revocations.learn(revocations) {
            return 0;
        }
        let mut tokens = Vec::new();
        self.registry.each(|lease, client| {
            tokens.extend(client.claims.clone().map(|claims| (lease.session, claims)));
        });
        // A session that comes later finds the revocation when it has described itself.
        tokens.retain(|(_, claims)| self.revocations.cover(claims));
        for (session, _) in &tokens {
            self.registry
                .post(*session, Mail::Ended(CloseReason::TokenRevoked));
        }
        tokens.len()
    }

    /// Reads the revocations of the store, and writes those that it has lost.
    pub(super) async fn read_revocations(&self) -> Result<(), BrokerError> {
        let stored = self.broker.revocations().await?;
        self.revoke(&stored);
        let lost = self.revocations.without(&stored);
        if !lost.is_empty() && !self.broker.revoke(&lost).await? {
            warn!(
                "Redis has no room for the revocations that this node knows: some are with its nodes only"
            );
        }
        Ok(())
    }

    /// Service: keeps up with the store.
    pub async fn keep_revocations(self: Arc<Self>) {
        loop {
            let _ = timeout(READ_EVERY, self.revocations.missed.notified()).await;
            while self.read_revocations().await.is_err() {
                sleep(RETRY).await;
            }
        }
    }
}

/// In Unix seconds.
fn now() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default()
        .as_secs()
}

//! Resumes: a client proves that a session is its own, and takes it over on a new connection.

use std::sync::Arc;
use std::time::Duration;

use super::Router;
use super::login::{Claimed, Unheard, unavailable};
use super::mailbox::mailbox;
use crate::broker::Resume;
use crate::model::{Address, CloseReason, Names, Offset, Refusal, Secret, SecretHash};

/// When to retry a resume that came too early after a loss of data.
const RETRY_LATER: Duration = Duration::from_millis(250);

/// Why a session was not resumed.
#[derive(Debug)]
pub enum ResumeError {
    /// The session cannot be resumed, or not now.
    Refused(Refusal),
    /// The secret is not that of the session: the client may be guessing.
    WrongSecret,
    /// The session is ours, but the connection cannot go on: its subscription is not confirmed, or a newer connection
    /// has replaced it.
    Unheard(Box<Claimed>, CloseReason),
}

/// Proves that a client owns a session.
#[derive(Clone, Debug)]
pub enum Proof {
    /// The client's secret.
    Secret(Secret),
    /// The stored hash, for a client that was authenticated in another way.
    Hash(SecretHash),
}

impl Router {
    /// Takes a session over from its earlier connection. Ignores the expiry guard, because the secret proves who owns
    /// the name. Must be polled to completion, like [`login`](Self::login).
    pub async fn resume(
        self: &Arc<Self>,
        address: Address,
        callable_by: Option<Names>,
        proof: Proof,
        last: Option<Offset>,
    ) -> Result<Claimed, ResumeError> {
        let refused = |error| ResumeError::Refused(unavailable(error));
        let (secret, hash) = match proof {
            Proof::Secret(secret) => {
                let hash = secret.hash_for(&address);
                (Some(secret), hash)
            }
            Proof::Hash(hash) => (None, hash),
        };
        // If the store lost data, the session's holder gets time to rewrite the record.
        let guarded = !self.is_intact().await;
        let callers = callable_by.as_ref();
        let resume = self.broker.resume(&address, &hash, callers, last, guarded);
        let resume = resume.await;
        let resumed = match resume.map_err(refused)? {
            Resume::Won(resumed) => resumed,
            Resume::Later => {
                let retry_after = RETRY_LATER;
                return Err(ResumeError::Refused(Refusal::Unavailable { retry_after }));
            }
            Resume::Gone => return Err(ResumeError::Refused(Refusal::ResumeFailed)),
            Resume::Wrong => return Err(ResumeError::WrongSecret),
        };
        let (mailbox, receiver) = mailbox(self.settings.mailbox);
        self.registry.arrive(&resumed.lease, mailbox);
        let heard = self.confirm_subscription(&resumed.lease).await;
        let claimed = Claimed {
            lease: resumed.lease.clone(),
            mailbox: receiver,
            secret: Some((secret, hash)),
            resumed: Some((resumed, last)),
            epoch: self.epoch(),
        };
        match heard {
            Ok(()) => Ok(claimed),
            Err(Unheard::Replaced) => Err(ResumeError::Unheard(
                Box::new(claimed),
                CloseReason::Replaced,
            )),
            // The caller must keep the session all the same: nobody else holds it now.
            Err(Unheard::InTime) => Err(ResumeError::Unheard(
                Box::new(claimed),
                CloseReason::Overloaded,
            )),
        }
    }

    /// Whether a resumable session with this secret holds the name now, on any node. Refuses with `Unavailable` if the
    /// broker does not answer.
    pub async fn knows(&self, address: &Address, secret: &Secret) -> Result<bool, Refusal> {
        let known = self.broker.verify(address, &secret.hash_for(address)).await;
        known.map_err(unavailable)
    }
}

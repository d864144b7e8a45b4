//! How a session wins its name, also from a holder that is dead or does not answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::mailbox::{MailboxReceiver, mailbox};
use super::{Registry, Router};
use crate::broker::{BrokerError, Claim, Flags, Holder, Lease, Resume, Resumed, Verdict};
use crate::bugs::{self, Bug};
use crate::model::{Address, CloseReason, Offset, Refusal, Secret, SecretHash, SessionId};

/// How long a barrier may take before the login is given up.
pub const BARRIER_WITHIN: Duration = Duration::from_secs(2);
/// How often a name is tried that its holder gives up meanwhile: others may want it too.
const TRIES: usize = 3;
/// When a login makes sense again that failed because the broker did not answer.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(1);
/// When a resume makes sense again that is too early after the store has lost data.
const RETRY_LATER: Duration = Duration::from_millis(250);

/// A session that is known to the registry, until its login fails.
struct Arrival<'a> {
    registry: &'a Registry,
    lease: Lease,
    welcome: bool,
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        if !self.welcome {
            self.registry.remove(&self.lease);
        }
    }
}

/// What to do about a holder of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfHeld {
    /// Find out whether it lives.
    Challenge,
    /// Nothing yet.
    Refuse,
}

/// Why a barrier did not come back.
enum Unheard {
    /// It takes too long.
    InTime,
    /// A newer connection of the session waits for its own.
    Replaced,
}

/// Why a session was not resumed.
#[derive(Debug)]
pub enum ResumeError {
    /// It cannot be, or not now.
    Refused(Refusal),
    /// The secret is not that of the session: somebody is guessing.
    WrongSecret,
    /// It is ours, but what is sent to it may not arrive, or a newer connection has it already: the conversation is over.
    Unheard(Box<Claimed>, CloseReason),
}

/// A session that has its name in this node: from it, its state is made.
#[derive(Debug)]
pub struct Claimed {
    /// Its hold on the name.
    pub lease: Lease,
    /// Where its mail comes.
    pub mailbox: MailboxReceiver,
    /// Of a resumable one: the secret, if its client is to be told, and what the store keeps of it.
    pub secret: Option<(Option<Secret>, SecretHash)>,
    /// What an earlier connection has left, and the last entry of its inbox that the client has, if it says so.
    pub resumed: Option<(Box<Resumed>, Option<Offset>)>,
    /// The store's epoch.
    pub epoch: u64,
}

/// What proves that a session is one's own.
#[derive(Clone, Debug)]
pub enum Proof {
    /// Its client's secret.
    Secret(Secret),
    /// What is stored of it, of a client that has proved otherwise who it is.
    Hash(SecretHash),
}

impl Router {
    /// Logs a user in, with what will resume its session if that is to outlive its connection. Must be driven to its end: a login that is dropped half-way leaves its lease to expire.
    pub async fn login(
        self: &Arc<Self>,
        address: Address,
        secret: Option<Secret>,
    ) -> Result<Claimed, Refusal> {
        self.claim(address, secret, IfHeld::Challenge).await
    }

    /// Claims a name for a new session, which is resumable if it has a secret.
    pub(super) async fn claim(
        self: &Arc<Self>,
        address: Address,
        secret: Option<Secret>,
        if_held: IfHeld,
    ) -> Result<Claimed, Refusal> {
        if let Some(retry_after) = self.expiry_guard.remaining() {
            return Err(Refusal::Unavailable { retry_after });
        }
        let (mailbox, receiver) = mailbox(self.settings.mailbox);
        let secret = secret.map(|secret| {
            let hash = secret.hash_for(&address);
            (Some(secret), hash)
        });
        let lease = Lease {
            address,
            session: SessionId::random(),
            generation: 0,
            flags: Flags {
                resumable: secret.is_some(),
                detached: false,
            },
        };
        self.registry.arrive(&lease, mailbox);
        let mut arrival = Arrival {
            registry: &self.registry,
            lease: lease.clone(),
            welcome: false,
        };
        let hash = secret.as_ref().map(|(_, hash)| hash);
        self.win(&lease, hash, if_held).await?;
        let confirmed = match self.confirm_claim().await {
            Ok(()) => {
                let heard = self.confirm_subscription(&lease).await;
                heard.map_err(|_| unavailable(BrokerError::TimedOut))
            }
            refused => refused,
        };
        if let Err(refusal) = confirmed {
            drop(arrival);
            // Nothing can be in an inbox that nobody was told of.
            drop(self.give_back(&lease, Offset::default()).await);
            return Err(refusal);
        }
        arrival.welcome = true;
        Ok(Claimed {
            lease,
            mailbox: receiver,
            secret,
            resumed: None,
            epoch: self.epoch(),
        })
    }

    /// Takes a session over from its earlier connection. The hold guard does not matter: who knows the secret has the name. Must be driven to
    /// its end, as a login.
    pub async fn resume(
        self: &Arc<Self>,
        address: Address,
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
        // Whoever holds the session gets time to tell a store that has forgotten what it knows.
        let guarded = !self.is_intact().await;
        let resume = self.broker.resume(&address, &hash, last, guarded).await;
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
            // The session must be held all the same, since nobody else does.
            Err(Unheard::InTime) => Err(ResumeError::Unheard(
                Box::new(claimed),
                CloseReason::Overloaded,
            )),
        }
    }

    /// Whether this secret is that of the resumable session which has the name now, on whichever node.
    pub async fn knows(&self, address: &Address, secret: &Secret) -> Result<bool, Refusal> {
        let known = self.broker.verify(address, &secret.hash_for(address)).await;
        known.map_err(unavailable)
    }

    /// Claims the name until it is won, or a holder turns out to live.
    async fn win(
        &self,
        lease: &Lease,
        secret: Option<&SecretHash>,
        if_held: IfHeld,
    ) -> Result<(), Refusal> {
        let mut over = None;
        for _ in 0..TRIES {
            let claim = self
                .broker
                .claim(lease, over.as_ref(), secret)
                .await
                .map_err(unavailable)?;
            let holder = match claim {
                Claim::Held(holder) => holder,
                Claim::Won => return Ok(()),
            };
            if if_held == IfHeld::Refuse {
                return Err(Refusal::NameTaken { retry_after: None });
            }
            if !bugs::has(Bug::ClaimsSteal) {
                self.if_held(&holder).await?;
            }
            over = Some(holder);
        }
        Err(Refusal::NameTaken { retry_after: None })
    }

    /// Whether this holder is dead (`Ok`), or why its name cannot be had.
    async fn if_held(&self, holder: &Holder) -> Result<(), Refusal> {
        let nodes = self.broker.nodes(std::slice::from_ref(&holder.node)).await;
        if nodes.map_err(unavailable)?.alive == [false] {
            // The guard may have been set since the login began.
            if let Some(retry_after) = self.expiry_guard.remaining() {
                return Err(Refusal::Unavailable { retry_after });
            }
            let left = self
                .local
                .terms
                .grace
                .checked_sub(self.local.peers.dead_for(&holder.node));
            return match left {
                // Until then only the session itself may come back.
                Some(retry_after) if holder.flags.resumable && !retry_after.is_zero() => {
                    let retry_after = Some(retry_after);
                    Err(Refusal::NameTaken { retry_after })
                }
                _ => Ok(()),
            };
        }
        if holder.flags.detached {
            let retry_after = Some(self.local.terms.grace);
            return Err(Refusal::NameTaken { retry_after });
        }
        match self.doubts.ask(self, holder).await.map_err(unavailable)? {
            Verdict::Gone => Ok(()),
            Verdict::Alive => Err(Refusal::NameTaken { retry_after: None }),
            Verdict::Detached => Err(Refusal::NameTaken {
                retry_after: Some(self.local.terms.grace),
            }),
            // Its node may be frozen: if it stays so, its lease runs out.
            Verdict::Silent => Err(Refusal::NameTaken {
                retry_after: Some(self.local.terms.node_ttl),
            }),
        }
    }

    /// Makes sure that the name was really free when it was won.
    async fn confirm_claim(&self) -> Result<(), Refusal> {
        let nodes = self.broker.nodes(&[]).await.map_err(unavailable)?;
        if !nodes.intact {
            // The store lost its data: whoever held the name has not had time to say so.
            warn!("Redis has lost this node's lease: no new logins until everybody has renewed");
            self.expiry_guard.set();
        }
        match self.expiry_guard.remaining() {
            Some(retry_after) => Err(Refusal::Unavailable { retry_after }),
            None => Ok(()),
        }
    }

    /// Makes sure that whatever is sent to the name arrives.
    async fn confirm_subscription(&self, lease: &Lease) -> Result<(), Unheard> {
        let back = self.registry.claimed(lease);
        let asked = self.broker.barrier(lease).await;
        asked.map_err(|_| Unheard::InTime)?;
        match timeout(BARRIER_WITHIN, back).await {
            Ok(Ok(())) => Ok(()),
            // The registry waits for another's.
            Ok(Err(_)) => Err(Unheard::Replaced),
            Err(_) => Err(Unheard::InTime),
        }
    }
}

/// By value, to be used as a function.
#[allow(clippy::needless_pass_by_value)]
pub(super) fn unavailable(_: BrokerError) -> Refusal {
    Refusal::Unavailable {
        retry_after: RETRY_UNAVAILABLE,
    }
}

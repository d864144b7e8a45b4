//! Logins: a session wins its name, also from a holder that is dead or does not answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::mailbox::{MailboxReceiver, mailbox};
use super::{Registry, Router};
use crate::broker::{BrokerError, Claim, Flags, Holder, Lease, Resumed, Verdict};
use crate::bugs::{self, Bug};
use crate::model::{Address, Claims, Names, Offset, Refusal, Secret, SecretHash, SessionId};

/// How long a barrier may take before the login fails.
pub const BARRIER_WITHIN: Duration = Duration::from_secs(2);
/// How often a login claims a name that its holder gives up meanwhile. A third session may win it each time.
const TRIES: usize = 3;
/// When to retry a login that failed because the broker did not answer.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(1);

/// A registered session whose login is not complete. Dropping it unregisters the session, unless `welcome` is set.
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

/// What to do if the name is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfHeld {
    /// Ask the holder whether it is alive.
    Challenge,
    /// Refuse the login at once.
    Refuse,
}

/// Why a barrier did not come back.
pub(super) enum Unheard {
    /// It did not come back in time.
    InTime,
    /// A newer connection of the session replaced this one, and waits for its own barrier.
    Replaced,
}

/// A session that holds its name on this node. The session's state is built from it.
#[derive(Debug)]
pub struct Claimed {
    /// The session's lease.
    pub lease: Lease,
    /// Receives what is sent to the session.
    pub mailbox: MailboxReceiver,
    /// For a resumable session: the secret, if the client must be told it, and its hash, which the store keeps.
    pub secret: Option<(Option<Secret>, SecretHash)>,
    /// For a resumed session: what its last holder saved, and the last inbox entry that the client has, if it says so.
    pub resumed: Option<(Box<Resumed>, Option<Offset>)>,
    /// The store's epoch.
    pub epoch: u64,
}

impl Router {
    /// Whether this node has as many sessions as it may.
    pub fn is_full(&self) -> bool {
        self.registry.logged_in() >= self.settings.sessions
    }

    /// Whether a session of this node has the name whose token has the same owner, who replaces that session by logging
    /// in again.
    pub fn is_owned(&self, address: &Address, claims: &Claims) -> bool {
        let held_by = self.registry.claims_of(address);
        held_by.is_some_and(|held_by| held_by.subject == claims.subject)
    }

    /// Logs a user in, whom only `callable_by` may call. With a `secret` the session is resumable. Refuses with
    /// `NameTaken` if the holder is alive or may still resume, or if the name is reserved for somebody else than
    /// `from`, and with `Unavailable` if the broker does not answer or the expiry guard holds. Must be polled to
    /// completion: a login that is dropped half-way leaves its lease to expire.
    pub async fn login(
        self: &Arc<Self>,
        address: Address,
        callable_by: Option<Names>,
        secret: Option<Secret>,
        from: &Secret,
    ) -> Result<Claimed, Refusal> {
        let kept = self.local.terms.grace_if_idle();
        let seat = (address, callable_by);
        self.claim(seat, secret, from, IfHeld::Challenge, kept)
            .await
    }

    /// Claims a name for a new session, which is resumable if it has a secret. Sessions of dead nodes are `kept` for so
    /// long.
    pub(super) async fn claim(
        self: &Arc<Self>,
        (address, callable_by): (Address, Option<Names>),
        secret: Option<Secret>,
        from: &Secret,
        if_held: IfHeld,
        kept: Duration,
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
            callable_by,
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
        let from = from.hash_for(&lease.address);
        self.win(&lease, hash, &from, if_held, kept).await?;
        let confirmed = match self.confirm_claim().await {
            Ok(()) => {
                let heard = self.confirm_subscription(&lease).await;
                heard.map_err(|_| unavailable(BrokerError::TimedOut))
            }
            refused => refused,
        };
        if let Err(refusal) = confirmed {
            drop(arrival);
            // The client was never told of this session, so no entry of its inbox can matter.
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

    /// Claims the name until the claim wins, or a holder turns out to be alive.
    async fn win(
        &self,
        lease: &Lease,
        secret: Option<&SecretHash>,
        from: &SecretHash,
        if_held: IfHeld,
        kept: Duration,
    ) -> Result<(), Refusal> {
        let mut over = None;
        for _ in 0..TRIES {
            let claim = self
                .broker
                .claim(lease, over.as_ref(), secret, Some(from))
                .await
                .map_err(unavailable)?;
            let holder = match claim {
                Claim::Held(holder) => holder,
                Claim::Won => return Ok(()),
                Claim::Reserved(left) => {
                    let retry_after = Some(left);
                    return Err(Refusal::NameTaken { retry_after });
                }
            };
            if if_held == IfHeld::Refuse {
                return Err(Refusal::NameTaken { retry_after: None });
            }
            if !bugs::has(Bug::ClaimsSteal) {
                self.if_held(&holder, kept).await?;
            }
            over = Some(holder);
        }
        Err(Refusal::NameTaken { retry_after: None })
    }

    /// `Ok` if this holder is dead; otherwise why its name cannot be had.
    async fn if_held(&self, holder: &Holder, kept: Duration) -> Result<(), Refusal> {
        let nodes = self.broker.nodes(std::slice::from_ref(&holder.node)).await;
        if nodes.map_err(unavailable)?.alive == [false] {
            // The guard may have been set since the login began.
            if let Some(retry_after) = self.expiry_guard.remaining() {
                return Err(Refusal::Unavailable { retry_after });
            }
            let left = kept.checked_sub(self.local.peers.dead_for(&holder.node));
            return match left {
                // Until then, only the session itself may come back.
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
            // The holder's node may be frozen. If it stays so, its lease expires.
            Verdict::Silent => Err(Refusal::NameTaken {
                retry_after: Some(self.local.terms.node_ttl),
            }),
        }
    }

    /// Checks that the name was really free when it was won.
    async fn confirm_claim(&self) -> Result<(), Refusal> {
        let nodes = self.broker.nodes(&[]).await.map_err(unavailable)?;
        if !nodes.intact {
            // The store lost data, so the name may have a live holder that has not renewed yet.
            warn!("Redis has lost this node's lease: no new logins until everybody has renewed");
            self.expiry_guard.set();
        }
        match self.expiry_guard.remaining() {
            Some(retry_after) => Err(Refusal::Unavailable { retry_after }),
            None => Ok(()),
        }
    }

    /// Waits until this node surely receives what is sent to the name.
    pub(super) async fn confirm_subscription(&self, lease: &Lease) -> Result<(), Unheard> {
        let back = self.registry.claimed(lease);
        let asked = self.broker.barrier(lease).await;
        asked.map_err(|_| Unheard::InTime)?;
        match timeout(BARRIER_WITHIN, back).await {
            Ok(Ok(())) => Ok(()),
            // The registry dropped our sender, since a newer connection waits for its barrier.
            Ok(Err(_)) => Err(Unheard::Replaced),
            Err(_) => Err(Unheard::InTime),
        }
    }
}

/// Takes the error by value, for use with `map_err`.
#[allow(clippy::needless_pass_by_value)]
pub(super) fn unavailable(_: BrokerError) -> Refusal {
    Refusal::Unavailable {
        retry_after: RETRY_UNAVAILABLE,
    }
}

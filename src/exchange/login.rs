//! How a session wins its name, also from a holder that is dead or does not answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::timeout;
use tracing::warn;

use super::mailbox::mailbox;
use super::seat::Seat;
use super::{Exchange, Registry};
use crate::fabric::{Claim, FabricError, Flags, Holder, Lease, Verdict};
use crate::model::{Address, EntryId, Refusal, SessionId};

/// How long a barrier may take before the login is given up.
const BARRIER_WITHIN: Duration = Duration::from_secs(2);
/// How often a name is tried that its holder gives up meanwhile: others may want it too.
const TRIES: usize = 3;
/// When a login makes sense again that failed because the fabric did not answer.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(1);

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

impl Exchange {
    /// Logs a user in. Must be driven to its end: a login that is dropped half-way leaves its lease to expire.
    pub async fn login(self: &Arc<Self>, address: Address) -> Result<Seat, Refusal> {
        if let Some(retry_after) = self.hold.holds() {
            return Err(Refusal::Unavailable { retry_after });
        }
        let (mailbox, letterbox) = mailbox(self.settings.mailbox);
        let lease = Lease {
            address,
            session: SessionId::random(),
            attach: 0,
            flags: Flags::default(),
        };
        self.registry.arrive(&lease, mailbox);
        let mut arrival = Arrival {
            registry: &self.registry,
            lease: lease.clone(),
            welcome: false,
        };
        self.win(&lease).await?;
        if let Err(refusal) = self.confirm(&lease).await {
            drop(arrival);
            // Nothing can be in an inbox that nobody was told of.
            drop(self.fabric.release(&lease, EntryId::default()).await);
            return Err(refusal);
        }
        arrival.welcome = true;
        Ok(Seat::new(Arc::clone(self), lease, letterbox))
    }

    /// Claims the name until it is won, or a holder turns out to live.
    async fn win(&self, lease: &Lease) -> Result<(), Refusal> {
        let mut over = None;
        for _ in 0..TRIES {
            let claim = self
                .fabric
                .claim(lease, over.as_ref())
                .await
                .map_err(unavailable)?;
            let Claim::Held(holder) = claim else {
                return Ok(());
            };
            self.doubt(&lease.address, &holder).await?;
            over = Some(holder);
        }
        Err(Refusal::NameTaken { retry_after: None })
    }

    /// Whether this holder is dead (`Ok`), or why its name cannot be had.
    async fn doubt(&self, address: &Address, holder: &Holder) -> Result<(), Refusal> {
        let alive = self
            .fabric
            .alive(std::slice::from_ref(&holder.node))
            .await
            .map_err(unavailable)?;
        if alive == [false] {
            // The guard may have been set since the login began.
            return self.hold.holds().map_or(Ok(()), |retry_after| {
                Err(Refusal::Unavailable { retry_after })
            });
        }
        match self
            .doubts
            .ask(self, address, holder)
            .await
            .map_err(unavailable)?
        {
            Verdict::Gone => Ok(()),
            Verdict::Alive => Err(Refusal::NameTaken { retry_after: None }),
            // Its node may be frozen: if it stays so, its lease runs out.
            Verdict::Silent => Err(Refusal::NameTaken {
                retry_after: Some(self.terms.node_ttl),
            }),
        }
    }

    /// Makes sure that the name was really free when it was won, and that whatever is sent to it arrives.
    async fn confirm(&self, lease: &Lease) -> Result<(), Refusal> {
        let intact = self.fabric.intact().await.map_err(unavailable)?;
        if !intact {
            // The store lost its data: whoever held the name has not had time to say so.
            warn!("Redis has lost this node's lease: no new logins until everybody has renewed");
            self.hold.set();
        }
        if let Some(retry_after) = self.hold.holds() {
            return Err(Refusal::Unavailable { retry_after });
        }
        let back = self.registry.claimed(lease);
        self.fabric.barrier(lease).await.map_err(unavailable)?;
        match timeout(BARRIER_WITHIN, back).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(unavailable(FabricError::TimedOut)),
        }
    }
}

/// By value, to be used as a function.
#[allow(clippy::needless_pass_by_value)]
fn unavailable(_: FabricError) -> Refusal {
    Refusal::Unavailable {
        retry_after: RETRY_UNAVAILABLE,
    }
}

/// The questions that this node is asking, so that a thousand logins of one name are one question.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    open: Mutex<HashMap<SessionId, Question>>,
}

type Question = Shared<BoxFuture<'static, Result<Verdict, FabricError>>>;

impl Doubts {
    async fn ask(
        &self,
        exchange: &Exchange,
        address: &Address,
        holder: &Holder,
    ) -> Result<Verdict, FabricError> {
        let question = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.entry(holder.session)
                .or_insert_with(|| {
                    let (fabric, address, holder) = (
                        Arc::clone(&exchange.fabric),
                        address.clone(),
                        holder.clone(),
                    );
                    async move { fabric.challenge(&address, &holder).await }
                        .boxed()
                        .shared()
                })
                .clone()
        };
        let verdict = question.await;
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&holder.session);
        verdict
    }
}

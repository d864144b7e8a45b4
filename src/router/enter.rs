//! Logins of clients that choose their own secret: they take a free name, or resume the session that holds it if the
//! secret matches.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Router;
use super::login::{Claimed, IfHeld};
use super::resume::{Proof, ResumeError};
use crate::model::{Address, Names, Refusal, Secret};

/// The pause between two attempts at a name whose holder has no connection.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How much longer than the grace a client with another secret waits for such a name.
const WAITS_LONGER: Duration = Duration::from_secs(1);

impl Router {
    /// Claims the name, or resumes the session that holds it if `secret` is the session's own. If the holder has no
    /// connection, waits until its grace is over, because its own client may come back first. A wrong secret is
    /// answered after `wrong` has said how long its sender waits. Must be polled to completion, like
    /// [`login`](Self::login).
    pub async fn enter(
        self: &Arc<Self>,
        address: Address,
        callable_by: Option<Names>,
        secret: Secret,
        from: &Secret,
        grace: Option<Duration>,
        wrong: impl Fn() -> Duration,
    ) -> Result<Claimed, ResumeError> {
        let grace = grace.unwrap_or(self.local.terms.grace);
        // Its client reconnects at once: it is never idle.
        let kept = self.local.terms.grace;
        let until = Instant::now() + grace.min(kept) + WAITS_LONGER;
        let refused = |refusal| Err(ResumeError::Refused(refusal));
        let mut if_held = IfHeld::Refuse;
        loop {
            let (seat, with) = ((address.clone(), callable_by.clone()), secret.clone());
            let refusal = match self.claim(seat, Some(with), from, if_held, kept).await {
                Ok(claimed) => return Ok(claimed),
                Err(refusal) => refusal,
            };
            match &refusal {
                // The holder answered the challenge.
                Refusal::NameTaken { retry_after: None } if if_held == IfHeld::Challenge => {
                    return refused(refusal);
                }
                Refusal::NameTaken { .. } | Refusal::Unavailable { .. } => {}
                _ => return refused(refusal),
            }
            let proof = Proof::Secret(secret.clone());
            let (to, callers) = (address.clone(), callable_by.clone());
            match self.resume(to, callers, proof, None).await {
                Ok(claimed) => return Ok(claimed),
                unheard @ Err(ResumeError::Unheard(..)) => return unheard,
                Err(ResumeError::WrongSecret) if if_held == IfHeld::Refuse => {
                    sleep(wrong()).await;
                }
                Err(ResumeError::WrongSecret | ResumeError::Refused(_)) => {}
            }
            let is_taken = matches!(refusal, Refusal::NameTaken { .. });
            if !is_taken || Instant::now() >= until {
                return refused(refusal);
            }
            if if_held == IfHeld::Challenge {
                sleep(LOOK_EVERY).await;
            }
            if_held = IfHeld::Challenge;
        }
    }
}

//! How a session enters whose client has chosen its own secret: it takes the name, or the session that was taken with the same secret.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Router;
use super::login::{Claimed, IfHeld, Proof, ResumeError};
use crate::model::{Address, Refusal, Secret};

/// How often it is looked whether a name is free whose holder has no connection.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How much longer than the grace somebody with another secret waits for such a name.
const WAITS_LONGER: Duration = Duration::from_secs(1);

impl Router {
    /// Takes this name, or the session that has it if it was taken with this secret. A holder without a connection is waited for: its own
    /// client comes back within its grace, or the name is free. A wrong secret is answered after `wrong` has said how long its sender waits.
    /// Must be driven to its end, as a login.
    pub async fn enter(
        self: &Arc<Self>,
        address: Address,
        secret: Secret,
        grace: Option<Duration>,
        wrong: impl Fn() -> Duration,
    ) -> Result<Claimed, ResumeError> {
        let grace = grace.unwrap_or(self.local.terms.grace);
        let until = Instant::now() + grace.min(self.local.terms.grace) + WAITS_LONGER;
        let refused = |refusal| Err(ResumeError::Refused(refusal));
        let mut if_held = IfHeld::Refuse;
        loop {
            let (to, with) = (address.clone(), secret.clone());
            let refusal = match self.claim(to, Some(with), if_held).await {
                Ok(claimed) => return Ok(claimed),
                Err(refusal) => refusal,
            };
            match &refusal {
                // Its holder has given a sign of life.
                Refusal::NameTaken { retry_after: None } if if_held == IfHeld::Challenge => {
                    return refused(refusal);
                }
                Refusal::NameTaken { .. } | Refusal::Unavailable { .. } => {}
                _ => return refused(refusal),
            }
            let proof = Proof::Secret(secret.clone());
            match self.resume(address.clone(), proof, None).await {
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

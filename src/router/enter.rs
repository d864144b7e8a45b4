//! Logins of clients that choose their own secret: they take a free name, or resume the session that holds it if the
//! secret matches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Router;
use super::login::{Claimed, IfHeld};
use super::resume::{Proof, ResumeError};
use crate::model::{Address, Refusal, Secret};

/// The pause between two attempts at a name whose holder has no connection.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How much longer than the grace a client with another secret waits for such a name.
const WAITS_LONGER: Duration = Duration::from_secs(1);
/// How many wrong secrets a minute may be tried for one name without delay.
const WRONG: u32 = 300;
/// The delay of each further attempt. Every secret is still checked, since it may be the right one.
const WRONG_COSTS: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
/// For how many names wrong secrets are counted.
const NAMES: usize = 4096;

impl Router {
    /// Claims the name, or resumes the session that holds it if `secret` is the session's own. If the holder has no
    /// connection, waits until its grace is over, because its own client may come back first. Must be polled to
    /// completion, like [`login`](Self::login).
    pub async fn enter(
        self: &Arc<Self>,
        address: Address,
        secret: Secret,
        grace: Option<Duration>,
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
                // The holder answered the challenge.
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
                    if self.guesses.is_one_too_many(&address) {
                        sleep(WRONG_COSTS).await;
                    }
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

/// Counts wrong secrets per name, to slow down clients that guess.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    /// Held for map operations only.
    by_name: Mutex<HashMap<Address, (Instant, u32)>>,
}

impl Guesses {
    /// Counts a wrong secret. True if the name is past its quota for this minute.
    fn is_one_too_many(&self, address: &Address) -> bool {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if by_name.len() >= NAMES && !by_name.contains_key(address) {
            by_name.retain(|_, (since, _)| since.elapsed() < MINUTE);
            if by_name.len() >= NAMES {
                by_name.clear();
            }
        }
        let (since, wrong) = by_name
            .entry(address.clone())
            .or_insert_with(|| (Instant::now(), 0));
        if since.elapsed() >= MINUTE {
            (*since, *wrong) = (Instant::now(), 0);
        }
        *wrong += 1;
        *wrong > WRONG
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Realm, UserName};

    #[test]
    fn so_many_secrets_are_tried_for_one_name_at_full_speed() {
        let address = |name: &str| Address::new(Realm::default(), UserName::parse(name).unwrap());
        let guesses = Guesses::default();
        for _ in 0..WRONG {
            assert!(!guesses.is_one_too_many(&address("wanted")));
        }
        assert!(guesses.is_one_too_many(&address("wanted")));
        assert!(!guesses.is_one_too_many(&address("other")));
        for number in 0..2 * NAMES {
            guesses.is_one_too_many(&address(&number.to_string()));
        }
        assert!(guesses.by_name.lock().unwrap().len() <= NAMES);
    }
}

//! Limits for one client: its message rate, its number of connections, and its wrong secrets. And one for the node:
//! its number of sessions.

mod address;
mod guesses;
mod memory;

pub use address::{AddressLimits, Addresses};
pub use guesses::{Guesser, Guesses};
pub use memory::sessions_that_fit;

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// A burst may have this many seconds' worth of messages.
const BURST_SECONDS: u32 = 2;

/// The rate limit of one connection.
#[derive(Debug)]
pub struct RateLimit {
    /// Accepted messages; `None` for no limit.
    allowed: Option<DefaultDirectRateLimiter>,
    /// Refused messages. They have the same limit: a client that exceeds it too ignores the errors.
    refused: Option<DefaultDirectRateLimiter>,
    /// The most that is accepted at once.
    burst: u32,
}

/// The client sends faster than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFast {
    /// When its next message will be accepted.
    pub retry_after: Duration,
    /// It kept sending although it was told to slow down.
    pub persistent: bool,
}

impl RateLimit {
    /// A limit of this many messages per second, with bursts of two seconds' worth; 0 for no limit.
    pub fn new(per_second: u32) -> Self {
        let limiter = || {
            let per_second = NonZeroU32::new(per_second)?;
            let burst = per_second.saturating_mul(NonZeroU32::new(BURST_SECONDS)?);
            Some(RateLimiter::direct(
                Quota::per_second(per_second).allow_burst(burst),
            ))
        };
        Self {
            allowed: limiter(),
            refused: limiter(),
            burst: per_second.saturating_mul(BURST_SECONDS),
        }
    }

    /// Counts one message, and refuses it above the limit.
    pub fn check(&self) -> Result<(), TooFast> {
        let Some(allowed) = &self.allowed else {
            return Ok(());
        };
        let Err(not_until) = allowed.check() else {
            return Ok(());
        };
        let retry_after = not_until.wait_time_from(DefaultClock::default().now());
        Err(self.refuse(retry_after))
    }

    /// Counts a refused message; it may be accepted after this time.
    pub fn refuse(&self, retry_after: Duration) -> TooFast {
        let refused = self.refused.as_ref();
        TooFast {
            retry_after,
            persistent: refused.is_some_and(|refused| refused.check().is_err()),
        }
    }

    /// Counts a message that costs as much as so many, and refuses it above the limit. One that costs more than a burst
    /// costs a burst.
    fn check_cost(&self, cost: u32) -> Result<(), Duration> {
        let cost = cost.min(self.burst);
        let (Some(allowed), Some(cost)) = (&self.allowed, NonZeroU32::new(cost)) else {
            return Ok(());
        };
        match allowed.check_n(cost) {
            Ok(Err(not_until)) => Err(not_until.wait_time_from(DefaultClock::default().now())),
            _ => Ok(()),
        }
    }
}

/// The number of connections from each address.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    limit: u32,
    /// Held for a map operation. One entry per address with connections.
    counts: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

/// A connection of an address; released when dropped.
#[derive(Debug)]
pub struct Permit {
    connections: ConnectionLimit,
    from: IpAddr,
}

/// The address has as many connections as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many connections from this address")]
pub struct TooMany;

impl ConnectionLimit {
    /// At most this many per address; 0 for no limit.
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            counts: Arc::default(),
        }
    }

    /// Acquires a permit for a connection from this address. All addresses of an IPv6 /64 count as
    /// one, because one user usually has a whole /64.
    pub fn acquire(&self, from: IpAddr) -> Result<Option<Permit>, TooMany> {
        if self.limit == 0 {
            return Ok(None);
        }
        let from = limited_prefix(from);
        let mut counts = self.lock();
        let count = counts.entry(from).or_default();
        if *count >= self.limit {
            return Err(TooMany);
        }
        *count += 1;
        Ok(Some(Permit {
            connections: self.clone(),
            from,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.connections.lock();
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

fn limited_prefix(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_accepted_and_then_the_rate_applies() {
        let rate = RateLimit::new(5);
        assert_eq!((0..10).filter(|_| rate.check().is_ok()).count(), 10);
        let too_fast = rate.check().unwrap_err();
        assert!(!too_fast.persistent);
        assert!(
            too_fast.retry_after <= Duration::from_millis(200),
            "{too_fast:?}"
        );
        let persistent = (0..20)
            .filter_map(|_| rate.check().err())
            .any(|too_fast| too_fast.persistent);
        assert!(persistent);
    }

    #[test]
    fn zero_means_no_limit() {
        let rate = RateLimit::new(0);
        assert!((0..10_000).all(|_| rate.check().is_ok()));
        let from = IpAddr::from([127, 0, 0, 1]);
        assert!((0..10_000).all(|_| matches!(ConnectionLimit::new(0).acquire(from), Ok(None))));
    }

    #[test]
    fn permits_are_released_and_shared_by_a_prefix() {
        let connections = ConnectionLimit::new(2);
        let [a, b]: [IpAddr; 2] = [
            "2001:db8::1".parse().unwrap(),
            "2001:db8::2".parse().unwrap(),
        ];
        let first = connections.acquire(a).unwrap();
        let _second = connections.acquire(b).unwrap();
        assert_eq!(connections.acquire(a).unwrap_err(), TooMany);
        assert!(
            connections
                .acquire("2001:db8:0:1::1".parse().unwrap())
                .is_ok()
        );
        drop(first);
        assert!(connections.acquire(a).is_ok());
    }
}

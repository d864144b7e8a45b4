//! How fast, and how many: what one client may ask of a node.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// How many seconds' worth of messages may come at once.
const BURST_SECONDS: u32 = 2;

/// How fast one client may speak.
#[derive(Debug)]
pub struct RateLimit {
    /// Messages; none: no limit.
    allowed: Option<DefaultDirectRateLimiter>,
    /// Messages that were refused: whoever is refused as often as others are heard does not listen.
    refused: Option<DefaultDirectRateLimiter>,
}

/// The client speaks faster than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFast {
    /// When its next message will be heard.
    pub retry_after: Duration,
    /// It was told so often enough.
    pub persistent: bool,
}

impl RateLimit {
    /// This many messages a second, with bursts of two seconds' worth; 0 for no limit.
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
        }
    }

    /// Counts one message.
    pub fn check(&self) -> Result<(), TooFast> {
        let (Some(allowed), Some(refused)) = (&self.allowed, &self.refused) else {
            return Ok(());
        };
        let Err(not_until) = allowed.check() else {
            return Ok(());
        };
        let retry_after = not_until.wait_time_from(DefaultClock::default().now());
        Err(TooFast {
            retry_after,
            persistent: refused.check().is_err(),
        })
    }
}

/// How many connections there are from each address.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    limit: u32,
    /// Held for a map operation. As many entries as there are addresses with connections.
    counts: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

/// One of an address's connections; frees its place when dropped.
#[derive(Debug)]
pub struct Permit {
    connections: ConnectionLimit,
    from: IpAddr,
}

/// There are as many connections from that address as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many connections from this address")]
pub struct TooMany;

impl ConnectionLimit {
    /// At most this many from one address; 0 for no limit.
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            counts: Arc::default(),
        }
    }

    /// Takes a place for a connection from this address. IPv6 users have a whole /64.
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
    fn a_burst_is_heard_and_then_the_pace() {
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
    fn no_limit_is_no_limit() {
        let rate = RateLimit::new(0);
        assert!((0..10_000).all(|_| rate.check().is_ok()));
        let from = IpAddr::from([127, 0, 0, 1]);
        assert!((0..10_000).all(|_| matches!(ConnectionLimit::new(0).acquire(from), Ok(None))));
    }

    #[test]
    fn a_place_is_freed_and_a_household_shares() {
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

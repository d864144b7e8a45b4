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
    steps: Option<DefaultDirectRateLimiter>,
    /// Messages that were refused: whoever is refused as often as others are heard does not listen.
    stumbles: Option<DefaultDirectRateLimiter>,
}

/// The client speaks faster than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFast {
    /// When its next message will be heard.
    pub retry_after: Duration,
    /// It was told so often enough.
    pub again_and_again: bool,
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
            steps: limiter(),
            stumbles: limiter(),
        }
    }

    /// Counts one message.
    pub fn step(&self) -> Result<(), TooFast> {
        let (Some(steps), Some(stumbles)) = (&self.steps, &self.stumbles) else {
            return Ok(());
        };
        let Err(not_until) = steps.check() else {
            return Ok(());
        };
        let retry_after = not_until.wait_time_from(DefaultClock::default().now());
        Err(TooFast {
            retry_after,
            again_and_again: stumbles.check().is_err(),
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
pub struct Place {
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
    pub fn enter(&self, from: IpAddr) -> Result<Option<Place>, TooMany> {
        if self.limit == 0 {
            return Ok(None);
        }
        let from = household(from);
        let mut counts = self.lock();
        let count = counts.entry(from).or_default();
        if *count >= self.limit {
            return Err(TooMany);
        }
        *count += 1;
        Ok(Some(Place {
            connections: self.clone(),
            from,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
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

fn household(from: IpAddr) -> IpAddr {
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
        assert_eq!((0..10).filter(|_| rate.step().is_ok()).count(), 10);
        let too_fast = rate.step().unwrap_err();
        assert!(!too_fast.again_and_again);
        assert!(
            too_fast.retry_after <= Duration::from_millis(200),
            "{too_fast:?}"
        );
        let stubborn = (0..20)
            .filter_map(|_| rate.step().err())
            .any(|too_fast| too_fast.again_and_again);
        assert!(stubborn);
    }

    #[test]
    fn no_limit_is_no_limit() {
        let rate = RateLimit::new(0);
        assert!((0..10_000).all(|_| rate.step().is_ok()));
        let from = IpAddr::from([127, 0, 0, 1]);
        assert!((0..10_000).all(|_| matches!(ConnectionLimit::new(0).enter(from), Ok(None))));
    }

    #[test]
    fn a_place_is_freed_and_a_household_shares() {
        let connections = ConnectionLimit::new(2);
        let [a, b]: [IpAddr; 2] = [
            "2001:db8::1".parse().unwrap(),
            "2001:db8::2".parse().unwrap(),
        ];
        let first = connections.enter(a).unwrap();
        let _second = connections.enter(b).unwrap();
        assert_eq!(connections.enter(a).unwrap_err(), TooMany);
        assert!(
            connections
                .enter("2001:db8:0:1::1".parse().unwrap())
                .is_ok()
        );
        drop(first);
        assert!(connections.enter(a).is_ok());
    }
}

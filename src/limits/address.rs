//! What the sessions of one address share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::{ConnectionLimit, Guesser, Guesses, Permit, RateLimit, TooMany, limited_prefix};

/// An address without sessions is forgotten after this long: until then its bucket would be full again.
const FORGET_AFTER: Duration = Duration::from_secs(10);
/// At this many addresses, those are looked for that can be forgotten.
const ADDRESSES: usize = 4096;

/// The limits of all addresses. Clones share them.
#[derive(Clone, Debug)]
pub struct Addresses {
    guesses: Guesses,
    /// Sessions that wait for their clients.
    detached: ConnectionLimit,
    /// Cost of messages for one address and second; 0 for no limit.
    per_second: u32,
    /// Held for a map operation.
    rates: Arc<Mutex<Rates>>,
    /// `None` for no limit.
    logins: Option<Arc<Logins>>,
}

/// How many logins of each address were lately.
type Logins = DefaultKeyedRateLimiter<IpAddr>;

/// The rate of each address, and when it was last asked for.
type Rates = HashMap<IpAddr, (Instant, Arc<RateLimit>)>;

/// The limits of one client's address that hold while its session does.
#[derive(Clone, Debug)]
pub struct AddressLimits {
    from: IpAddr,
    /// Counts wrong secrets.
    pub guesser: Guesser,
    detached: ConnectionLimit,
    rate: Option<Arc<RateLimit>>,
    logins: Option<Arc<Logins>>,
}

impl Addresses {
    /// An address may have this many sessions without a connection, messages of this cost per second, and logins per
    /// minute; 0 for no limit.
    pub fn new(detached: u32, per_second: u32, logins: u32) -> Self {
        let quota = NonZeroU32::new(logins).map(Quota::per_minute);
        Self {
            guesses: Guesses::default(),
            detached: ConnectionLimit::new(detached),
            per_second,
            rates: Arc::default(),
            logins: quota.map(|quota| Arc::new(RateLimiter::keyed(quota))),
        }
    }

    /// The limits of this address.
    pub fn of(&self, from: IpAddr) -> AddressLimits {
        AddressLimits {
            from,
            guesser: self.guesses.of(from),
            detached: self.detached.clone(),
            rate: (self.per_second > 0).then(|| self.rate(limited_prefix(from))),
            logins: self.logins.clone(),
        }
    }

    fn rate(&self, from: IpAddr) -> Arc<RateLimit> {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.len() >= ADDRESSES {
            rates
                .retain(|_, (at, rate)| Arc::strong_count(rate) > 1 || at.elapsed() < FORGET_AFTER);
        }
        let new = || (Instant::now(), Arc::new(RateLimit::new(self.per_second)));
        let (at, rate) = rates.entry(from).or_insert_with(new);
        *at = Instant::now();
        Arc::clone(rate)
    }
}

impl AddressLimits {
    /// The address, or the network that counts as one.
    pub fn network(&self) -> IpAddr {
        limited_prefix(self.from)
    }

    /// Acquires a permit for a session without a connection. An address may have as many of them as connections:
    /// clients that lose theirs all at once come back to their sessions, and nobody keeps more names by reconnecting.
    pub fn detach(&self) -> Result<Option<Permit>, TooMany> {
        self.detached.acquire(self.from)
    }

    /// Counts a login, and refuses it above the limit of the address; the error says for how long.
    pub fn check_login(&self) -> Result<(), Duration> {
        let Some(logins) = &self.logins else {
            return Ok(());
        };
        if logins.len() >= ADDRESSES {
            logins.retain_recent();
        }
        let checked = logins.check_key(&self.network());
        checked.map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }

    /// Counts a message of this cost, and refuses it above the limit of the address; the error says for how long.
    pub fn check(&self, cost: u32) -> Result<(), Duration> {
        self.rate
            .as_ref()
            .map_or(Ok(()), |rate| rate.check_cost(cost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_of_an_address_share_its_rate() {
        let addresses = Addresses::new(0, 50, 0);
        let of = |address: &str| addresses.of(address.parse().unwrap());
        let (one, other) = (of("2001:db8::1"), of("2001:db8::2"));
        let accepted = (0..200).filter(|n| [&one, &other][n % 2].check(1).is_ok());
        assert_eq!(accepted.count(), 100, "a burst of two seconds");
        assert!(
            of("2001:db8::3").check(1).is_err(),
            "the same /64, and a new connection"
        );
        let far = of("192.0.2.1");
        assert_eq!((0..20).filter(|_| far.check(20).is_ok()).count(), 5);
        assert!(far.check(1000).is_err());
        assert!(
            of("192.0.2.2").check(1000).is_ok(),
            "no message is too dear for ever"
        );
    }

    #[test]
    fn all_connections_of_an_address_share_its_logins() {
        let addresses = Addresses::new(0, 0, 3);
        let login = |address: &str| addresses.of(address.parse().unwrap()).check_login();
        let accepted = (0..9).filter(|n| login(&format!("2001:db8::{n}")).is_ok());
        assert_eq!(accepted.count(), 3);
        let retry_after = login("2001:db8::1").unwrap_err();
        assert!(retry_after > Duration::from_secs(19) && retry_after <= Duration::from_secs(20));
        assert_eq!(login("2001:db8:0:1::1"), Ok(()));
    }

    #[test]
    fn addresses_without_sessions_are_forgotten() {
        let addresses = Addresses::new(0, 50, 0);
        let held = addresses.of(IpAddr::from([127, 0, 0, 1]));
        let long_ago = Instant::now().checked_sub(FORGET_AFTER * 2).unwrap();
        for number in 0..2 * u32::try_from(ADDRESSES).unwrap() {
            drop(addresses.of(IpAddr::V4(number.into())));
            let mut rates = addresses.rates.lock().unwrap();
            rates.values_mut().for_each(|(at, _)| *at = long_ago);
        }
        assert!(addresses.rates.lock().unwrap().len() <= ADDRESSES);
        assert!(addresses.rates.lock().unwrap().contains_key(&held.from));
    }
}

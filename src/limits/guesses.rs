//! Wrong secrets, counted by the address that sends them: whoever guesses is slow, and nobody else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::limited_prefix;

/// How many wrong secrets from one address are answered at once in a minute.
const WRONG: u32 = 300;
/// How much longer each further one takes. None is refused unheard: it may be the right one.
const WRONG_COSTS: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
/// For how many addresses they are counted.
const ADDRESSES: usize = 4096;

/// The wrong secrets of the last minute from each address.
#[derive(Clone, Debug, Default)]
pub struct Guesses {
    /// Held for a map operation.
    by_address: Arc<Mutex<HashMap<IpAddr, (Instant, u32)>>>,
}

/// Counts the wrong secrets of one address.
#[derive(Clone, Debug)]
pub struct Guesser {
    guesses: Guesses,
    from: IpAddr,
}

impl Guesses {
    /// The counter of this address. All addresses of an IPv6 /64 share one.
    pub fn of(&self, from: IpAddr) -> Guesser {
        Guesser {
            guesses: self.clone(),
            from: limited_prefix(from),
        }
    }
}

impl Guesser {
    /// Counts a wrong secret, and returns how long its answer is delayed.
    pub fn wrong(&self) -> Duration {
        let by_address = &self.guesses.by_address;
        let mut by_address = by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if by_address.len() >= ADDRESSES && !by_address.contains_key(&self.from) {
            by_address.retain(|_, (since, _)| since.elapsed() < MINUTE);
            if by_address.len() >= ADDRESSES {
                by_address.clear();
            }
        }
        let new = || (Instant::now(), 0);
        let (since, wrong) = by_address.entry(self.from).or_insert_with(new);
        if since.elapsed() >= MINUTE {
            (*since, *wrong) = new();
        }
        *wrong += 1;
        if *wrong > WRONG {
            WRONG_COSTS
        } else {
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_guesses_is_slow_and_others_are_not() {
        let guesses = Guesses::default();
        let of = |address: &str| guesses.of(address.parse().unwrap());
        for _ in 0..WRONG {
            assert_eq!(of("2001:db8::1").wrong(), Duration::ZERO);
        }
        assert_eq!(of("2001:db8::2").wrong(), WRONG_COSTS, "the same /64");
        for other in ["2001:db8:0:1::1", "192.0.2.1", "::ffff:192.0.2.1"] {
            assert_eq!(of(other).wrong(), Duration::ZERO, "{other}");
        }
        for number in 0..2 * u32::try_from(ADDRESSES).unwrap() {
            guesses.of(IpAddr::V4(number.into())).wrong();
        }
        assert!(guesses.by_address.lock().unwrap().len() <= ADDRESSES);
    }
}

//! What the sessions of one address share.

use std::net::IpAddr;

use super::{ConnectionLimit, Guesser, Guesses, Permit, TooMany};

/// The limits of one client's address that hold while its session does.
#[derive(Clone, Debug)]
pub struct AddressLimits {
    from: IpAddr,
    /// Counts wrong secrets.
    pub guesser: Guesser,
    /// Sessions that wait for their clients.
    detached: ConnectionLimit,
}

impl AddressLimits {
    /// The limits of this address.
    pub fn new(from: IpAddr, guesses: &Guesses, detached: &ConnectionLimit) -> Self {
        Self {
            from,
            guesser: guesses.of(from),
            detached: detached.clone(),
        }
    }

    /// Acquires a permit for a session without a connection. An address may have as many of them as connections:
    /// clients that lose theirs all at once come back to their sessions, and nobody keeps more names by reconnecting.
    pub fn detach(&self) -> Result<Option<Permit>, TooMany> {
        self.detached.acquire(self.from)
    }
}

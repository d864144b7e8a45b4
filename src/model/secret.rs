//! Secrets that prove the ownership of a session. The client gets one once; the store has only its
//! hash.

use std::fmt;
use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use super::Address;

/// A secret: 256 random bits in hexadecimal, or what a client claims to be one.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The stored hash of a secret. It does not reveal the secret, and is valid for one name only.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash(String);

impl Secret {
    /// A new random secret.
    pub fn random() -> Self {
        Self(hex::encode(rand::random::<[u8; 32]>()))
    }

    /// The secret that a client sent; not verified yet.
    pub fn claimed(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// What shows that a client has an address that it had before. All clients of this network have the same.
    pub fn of_network(network: IpAddr) -> Self {
        Self(network.to_string())
    }

    /// Derives another secret. The same secret and purpose always give the same result.
    #[must_use]
    pub fn derived(&self, purpose: &str) -> Self {
        let digest = Sha256::new()
            .chain_update(&self.0)
            .chain_update("\n")
            .chain_update(purpose);
        Self(hex::encode(digest.finalize()))
    }

    /// The secret itself. Send it to its client only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The hash to store for this address.
    pub fn hash_for(&self, address: &Address) -> SecretHash {
        let digest = Sha256::new()
            .chain_update(address.to_string())
            .chain_update("\n")
            .chain_update(&self.0);
        SecretHash(hex::encode(digest.finalize()))
    }
}

impl SecretHash {
    /// A hash that was read from the store.
    pub fn known(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The hash as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Realm, UserName};

    #[test]
    fn a_hash_fits_one_secret_and_one_name() {
        let address = |name| Address::new(Realm::default(), UserName::parse(name).unwrap());
        let (secret, other) = (Secret::random(), Secret::random());
        let again = Secret::claimed(secret.expose());
        assert_eq!(
            secret.hash_for(&address("a")),
            again.hash_for(&address("a"))
        );
        assert_ne!(
            secret.hash_for(&address("a")),
            secret.hash_for(&address("b"))
        );
        assert_ne!(
            secret.hash_for(&address("a")),
            other.hash_for(&address("a"))
        );
        assert!(!format!("{secret:?}").contains(secret.expose()));
    }
}

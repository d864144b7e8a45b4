//! What proves that a session is one's own: told to its client once, and never stored as it is.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::Address;

/// 256 random bits in hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// What is stored of a secret: it does not tell the secret, and fits one name only.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash(String);

impl Secret {
    /// A secret that nobody knows.
    pub fn random() -> Self {
        Self(hex::encode(rand::random::<[u8; 32]>()))
    }

    /// A secret as a client brings it, true or not.
    pub fn claimed(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Another secret, which whoever knows this one can make again for the same purpose.
    #[must_use]
    pub fn derived(&self, purpose: &str) -> Self {
        let digest = Sha256::new()
            .chain_update(&self.0)
            .chain_update("\n")
            .chain_update(purpose);
        Self(hex::encode(digest.finalize()))
    }

    /// The secret itself, for its client alone.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub fn hash_for(&self, address: &Address) -> SecretHash {
        let digest = Sha256::new()
            .chain_update(address.to_string())
            .chain_update("\n")
            .chain_update(&self.0);
        SecretHash(hex::encode(digest.finalize()))
    }
}

impl SecretHash {
    /// A hash as it was stored.
    pub fn known(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The hash as it is stored.
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

//! Ids and addresses. They are parsed once, when they enter the server, and are valid from then on.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::UserName;

/// A namespace of user names: one per PeerJS key; the native protocol uses the empty default.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Realm(Arc<str>);

impl Realm {
    /// A realm of this name. Any text is valid, since it is encoded wherever it is written.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The realm's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first part of every address in this realm, before the slash.
    pub fn encoded(&self) -> impl fmt::Display {
        utf8_percent_encode(&self.0, ENCODED)
    }
}

impl Default for Realm {
    fn default() -> Self {
        Self::new("")
    }
}

/// A user's address: a name in a realm. Displayed as `enc(realm)/enc(name)`, which is unique.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The namespace.
    pub realm: Realm,
    /// The user inside it.
    pub name: UserName,
}

/// The text is not the encoding of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an encoded address")]
pub struct InvalidAddress;

/// Everything outside `A-Za-z0-9._@+~-` is percent-encoded, so a name cannot contain parts of a
/// Redis key, a pattern, a hash tag or another realm.
pub(super) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'.')
    .remove(b'_')
    .remove(b'@')
    .remove(b'+')
    .remove(b'~')
    .remove(b'-');

impl Address {
    /// The address of this name in this realm.
    pub fn new(realm: Realm, name: UserName) -> Self {
        Self { realm, name }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            self.realm.encoded(),
            utf8_percent_encode(&self.name.0, ENCODED)
        )
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (realm, name) = text.split_once('/').ok_or(InvalidAddress)?;
        let realm = percent_decode_str(realm)
            .decode_utf8()
            .map_err(|_| InvalidAddress)?;
        let name = percent_decode_str(name)
            .decode_utf8()
            .map_err(|_| InvalidAddress)?;
        Ok(Self {
            realm: Realm::new(&realm),
            name: UserName::known(&name).map_err(|_| InvalidAddress)?,
        })
    }
}

/// A session: one login of one user, from its first connection to its end. 128 random bits, so that
/// it cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u128);

impl SessionId {
    /// A new session id.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The group of this session if sessions are divided evenly into `of` groups.
    pub fn group(self, of: usize) -> usize {
        (self.0 % of.max(1) as u128) as usize
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for SessionId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |digits| u64::from_str_radix(digits, 16).map(u128::from);
        match text.split_at_checked(16) {
            // The usual form. Parsing two halves takes a third of the time.
            Some((high, low)) if low.len() == 16 && !low.starts_with('+') => {
                Ok(Self(half(high)? << 64 | half(low)?))
            }
            _ => u128::from_str_radix(text, 16).map(Self),
        }
    }
}

/// One run of a node: `name.random`, so that a restarted node differs from its earlier run.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A new id for the node that the operator calls `name`.
    pub fn start(name: &str) -> Self {
        Self(format!("{name}.{:08x}", rand::random::<u32>()).into())
    }

    /// An id that another node wrote.
    pub fn known(text: &str) -> Self {
        Self(text.into())
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An offset in a user's inbox; later entries have greater ones (a Redis stream id: milliseconds,
/// then a counter).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset {
    /// Milliseconds of the store's clock.
    pub millis: u64,
    /// Counts entries within one millisecond.
    pub sequence: u64,
}

impl Offset {
    /// The smallest offset after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self {
            sequence: self.sequence.saturating_add(1),
            ..self
        }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

impl FromStr for Offset {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let dash = text.bytes().position(|byte| byte == b'-');
        let (millis, sequence) = text.split_at(dash.ok_or(InvalidAddress)?);
        let sequence = &sequence[1..];
        let number = |digits: &str| digits.parse().map_err(|_| InvalidAddress);
        Ok(Self {
            millis: number(millis)?,
            sequence: number(sequence)?,
        })
    }
}

macro_rules! text_id {
    ($($id:ident),*) => {$(
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($id), "({})"), self)
            }
        }
    )*};
}
text_id!(Realm, Address, SessionId, NodeId);

macro_rules! plain_display {
    ($($id:ident),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
plain_display!(Realm, NodeId);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_realm_is_empty_in_an_address() {
        let address = Address::new(Realm::default(), UserName::parse("UserA").unwrap());
        assert_eq!(address.to_string(), "/UserA");
    }

    #[test]
    fn session_ids_and_offsets_round_trip_as_text() {
        let session = SessionId::random();
        assert_eq!(session.to_string().parse(), Ok(session));
        let entry = Offset {
            millis: 17,
            sequence: 4,
        };
        assert_eq!("17-4".parse(), Ok(entry));
        assert!(
            Offset {
                millis: 17,
                sequence: 10
            } > entry
        );
    }

    proptest! {
        #[test]
        fn two_users_never_share_an_address(
            realm_a in ".{0,12}", name_a in ".{1,12}", realm_b in ".{0,12}", name_b in ".{1,12}",
        ) {
            let address = |realm: &str, name: &str| Address::new(Realm::new(realm), UserName::known(name).unwrap());
            let (a, b) = (address(&realm_a, &name_a), address(&realm_b, &name_b));
            prop_assert_eq!(a == b, a.to_string() == b.to_string());
            prop_assert_eq!(a.to_string().parse::<Address>(), Ok(a.clone()));
            prop_assert!(a.to_string().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._@+~-%/".contains(&byte)));
        }
    }
}

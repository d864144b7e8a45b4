//! Claims: what a token says of its owner and of what the owner may do.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::{percent_decode_str, utf8_percent_encode};

use super::id::ENCODED;
use super::{Realm, Refusal, UserName};

/// How much two clocks may differ.
pub const CLOCK_SKEW: Duration = Duration::from_secs(30);

/// A name, or the beginning of names: `alice` or `alice-*`.
#[derive(Clone, PartialEq, Eq)]
pub struct NamePattern {
    start: Box<str>,
    /// Any rest may follow.
    is_open: bool,
}

impl NamePattern {
    /// A `*` at the end stands for any rest; elsewhere it stands for itself.
    pub fn new(text: &str) -> Self {
        let start = text.strip_suffix('*');
        Self {
            start: start.unwrap_or(text).into(),
            is_open: start.is_some(),
        }
    }

    /// The form in which names are stored: a name is encoded as in an [`Address`](super::Address), so that a `*` of a
    /// name is none here.
    pub fn encoded(&self) -> String {
        let start = utf8_percent_encode(&self.start, ENCODED);
        format!("{start}{}", if self.is_open { "*" } else { "" })
    }

    /// Reads the stored form.
    pub fn decoded(text: &str) -> Self {
        let start = text.strip_suffix('*');
        let is_open = start.is_some();
        let start = percent_decode_str(start.unwrap_or(text)).decode_utf8_lossy();
        Self {
            start: start.into(),
            is_open,
        }
    }

    /// Whether the pattern covers this name.
    pub fn covers(&self, name: &UserName) -> bool {
        if self.is_open {
            name.as_str().starts_with(&*self.start)
        } else {
            *name.as_str() == *self.start
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.start)?;
        f.write_str(if self.is_open { "*" } else { "" })
    }
}

impl fmt::Debug for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NamePattern({self})")
    }
}

/// Whom a claim names. Clones share the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(Arc<[NamePattern]>);

impl Names {
    /// Whether one of the patterns covers this name.
    pub fn cover(&self, name: &UserName) -> bool {
        self.0.iter().any(|pattern| pattern.covers(name))
    }

    /// The patterns.
    pub fn iter(&self) -> impl Iterator<Item = &NamePattern> {
        self.0.iter()
    }
}

impl FromIterator<NamePattern> for Names {
    fn from_iter<T: IntoIterator<Item = NamePattern>>(patterns: T) -> Self {
        Self(patterns.into_iter().collect())
    }
}

impl<'a> FromIterator<&'a str> for Names {
    fn from_iter<T: IntoIterator<Item = &'a str>>(texts: T) -> Self {
        Self(texts.into_iter().map(NamePattern::new).collect())
    }
}

/// What a valid token says. Absent claims restrict nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: the names that its owner may take.
    pub subject: NamePattern,
    /// `realm`: the tenant whose names these are.
    pub realm: Option<Realm>,
    /// `call`: whom the owner may call.
    pub call: Option<Names>,
    /// `callable_by`: who may call the owner.
    pub callable_by: Option<Names>,
    /// `limits.signals_per_second`.
    pub signals_per_second: Option<u32>,
    /// `limits.connections`, on each node.
    pub connections: Option<u32>,
    /// `turn`: whether the owner gets credentials for relays.
    pub turn: bool,
    /// `exp` in Unix seconds.
    pub expires: u64,
    /// `iat` in Unix seconds.
    pub issued: Option<u64>,
    /// `jti`.
    pub id: Option<Box<str>>,
}

impl Claims {
    /// How long the token is still valid, and then its session ends. The skew is included: a token that a login accepts
    /// ends no session at once.
    pub fn valid_for(&self, now: SystemTime) -> Duration {
        let ends = UNIX_EPOCH + Duration::from_secs(self.expires) + CLOCK_SKEW;
        ends.duration_since(now).unwrap_or_default()
    }

    /// The realm of a session that comes in by a door of this realm. Only the door of the native protocol, which has
    /// none, lets tokens choose, and a dialect's realm is not among them: its clients speak otherwise.
    pub fn realm_at(&self, door: &Realm) -> Result<Realm, Refusal> {
        match &self.realm {
            None => Ok(door.clone()),
            Some(realm) if realm == door => Ok(door.clone()),
            Some(realm) if door.as_str().is_empty() && !realm.as_str().contains(':') => {
                Ok(realm.clone())
            }
            Some(_) => Err(Refusal::Forbidden("The token is for another realm")),
        }
    }

    /// Whether the owner may take this name.
    pub fn may_be(&self, name: &UserName) -> Result<(), Refusal> {
        let refused = Refusal::Forbidden("The token is for another name: see its sub");
        self.subject.covers(name).then_some(()).ok_or(refused)
    }

    /// Whether the owner may call this user.
    pub fn may_call(&self, name: &UserName) -> bool {
        self.call.as_ref().is_none_or(|call| call.cover(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_at_the_end_stands_for_any_rest() {
        let covers = |pattern, name| {
            let name = UserName::parse(name).unwrap();
            NamePattern::new(pattern).covers(&name)
        };
        assert!(covers("alice", "alice") && !covers("alice", "alice2"));
        assert!(covers("alice-*", "alice-") && covers("alice-*", "alice-phone"));
        assert!(!covers("alice-*", "alice") && !covers("alice-*", "mallory"));
        assert!(covers("*", "anybody") && !covers("", "anybody"));
        assert!(covers("a*b", "a*b") && !covers("a*b", "acb"));
    }

    #[test]
    fn a_realm_of_a_token_is_for_its_own_door() {
        let at = |claimed: Option<&str>, door: &str| {
            let claims = Claims {
                subject: NamePattern::new("*"),
                realm: claimed.map(Realm::new),
                call: None,
                callable_by: None,
                signals_per_second: None,
                connections: None,
                turn: true,
                expires: 0,
                issued: None,
                id: None,
            };
            let realm = claims.realm_at(&Realm::new(door)).ok();
            realm.map(|realm| realm.as_str().to_owned())
        };
        assert_eq!(at(None, "").as_deref(), Some(""));
        assert_eq!(at(None, "peerjs:k").as_deref(), Some("peerjs:k"));
        assert_eq!(at(Some("acme"), "").as_deref(), Some("acme"));
        assert_eq!(
            at(Some("peerjs:k"), "peerjs:k").as_deref(),
            Some("peerjs:k")
        );
        for (claimed, door) in [
            ("acme", "peerjs:k"),
            ("peerjs:k", ""),
            ("peerjs:a", "peerjs:k"),
        ] {
            assert_eq!(at(Some(claimed), door), None, "{claimed} at {door}");
        }
    }
}

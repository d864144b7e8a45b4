//! Revocations: which tokens count no longer, although they have not ended.

use std::fmt;

use super::{Claims, Realm};

/// Tokens that are revoked together. The text is the form in which stores and nodes exchange it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenGroup(Box<str>);

impl TokenGroup {
    /// Those with this `sub`; only those of a realm, if one is given.
    pub fn of_subject(realm: Option<&Realm>, subject: &str) -> Self {
        Self::new("sub", realm, subject)
    }

    /// The one with this `jti`.
    pub fn of_id(realm: Option<&Realm>, id: &str) -> Self {
        Self::new("jti", realm, id)
    }

    /// All, or all of a realm.
    pub fn all(realm: Option<&Realm>) -> Self {
        Self::new("all", realm, "")
    }

    /// A group that somebody wrote down.
    pub fn known(text: &str) -> Self {
        Self(text.into())
    }

    /// An encoded realm has no space and no star.
    fn new(kind: &str, realm: Option<&Realm>, value: &str) -> Self {
        let realm = realm.map_or_else(|| "*".to_owned(), |realm| realm.encoded().to_string());
        Self(format!("{kind} {realm} {value}").into())
    }

    /// Every group that a token with these claims is in. The empty realm has those that name none.
    fn with(claims: &Claims) -> impl Iterator<Item = Self> {
        let realm = claims.realm.clone().unwrap_or_default();
        let subject = claims.subject.to_string();
        [None, Some(realm)].into_iter().flat_map(move |realm| {
            let realm = realm.as_ref();
            let id = claims.id.as_ref().map(|id| Self::of_id(realm, id));
            let others = [Self::of_subject(realm, &subject), Self::all(realm)];
            others.into_iter().chain(id)
        })
    }

    /// The written form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenGroup({})", self.0)
    }
}

/// That tokens count no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Which tokens.
    pub tokens: TokenGroup,
    /// Only those that were issued before this time, in Unix seconds, or that do not say when.
    pub issued_before: u64,
    /// When the last of them has ended by itself, in Unix seconds: then the revocation is forgotten.
    pub until: u64,
}

impl Revocation {
    /// What two revocations of the same tokens say together. True if that is more than this one says.
    pub fn extend(&mut self, other: &Self) -> bool {
        let before = (self.issued_before, self.until);
        self.issued_before = self.issued_before.max(other.issued_before);
        self.until = self.until.max(other.until);
        before != (self.issued_before, self.until)
    }

    /// Whether one of those that `find` finds revokes a token with these claims, at a time in Unix seconds.
    pub fn any<'a>(
        claims: &Claims,
        now: u64,
        find: impl Fn(&TokenGroup) -> Option<&'a Self>,
    ) -> bool {
        TokenGroup::with(claims)
            .filter_map(|group| find(&group))
            .any(|found| {
                let is_older = claims
                    .issued
                    .is_none_or(|issued| issued < found.issued_before);
                is_older && now < found.until
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NamePattern;

    fn claims(subject: &str, realm: Option<&str>, issued: Option<u64>, id: Option<&str>) -> Claims {
        Claims {
            subject: NamePattern::new(subject),
            realm: realm.map(Realm::new),
            call: None,
            callable_by: None,
            signals_per_second: None,
            connections: None,
            turn: true,
            expires: 0,
            issued,
            id: id.map(Into::into),
        }
    }

    #[test]
    fn a_revocation_covers_its_group_of_tokens() {
        let revokes = |tokens: TokenGroup, claims: &Claims| {
            let one = Revocation {
                tokens,
                issued_before: 100,
                until: 1000,
            };
            Revocation::any(claims, 500, |group| {
                Some(&one).filter(|one| one.tokens == *group)
            })
        };
        let acme = Realm::new("acme: *");
        let alice = claims("alice-*", Some("acme: *"), Some(99), Some("a 1"));
        for tokens in [
            TokenGroup::of_subject(None, "alice-*"),
            TokenGroup::of_subject(Some(&acme), "alice-*"),
            TokenGroup::of_id(None, "a 1"),
            TokenGroup::of_id(Some(&acme), "a 1"),
            TokenGroup::all(None),
            TokenGroup::all(Some(&acme)),
        ] {
            assert!(revokes(tokens.clone(), &alice), "{tokens:?}");
            let later = Claims {
                issued: Some(100),
                ..alice.clone()
            };
            assert!(!revokes(tokens.clone(), &later), "{tokens:?}");
            let untold = Claims {
                issued: None,
                ..alice.clone()
            };
            assert!(revokes(TokenGroup::known(tokens.as_str()), &untold));
        }
        for tokens in [
            TokenGroup::of_subject(None, "alice-phone"),
            TokenGroup::of_subject(Some(&Realm::default()), "alice-*"),
            TokenGroup::of_id(None, "a"),
            TokenGroup::all(Some(&Realm::default())),
        ] {
            assert!(!revokes(tokens.clone(), &alice), "{tokens:?}");
        }
        let nowhere = claims("a", None, None, None);
        assert!(revokes(TokenGroup::all(Some(&Realm::default())), &nowhere));
        assert!(!revokes(TokenGroup::of_id(None, ""), &nowhere));
    }

    #[test]
    fn a_revocation_ends_and_is_extended() {
        let mut one = Revocation {
            tokens: TokenGroup::all(None),
            issued_before: 100,
            until: 1000,
        };
        let revokes = |one: &Revocation, now| {
            let alice = claims("alice", None, None, None);
            Revocation::any(&alice, now, |group| {
                Some(one).filter(|one| one.tokens == *group)
            })
        };
        assert!(revokes(&one, 999) && !revokes(&one, 1000));
        let other = Revocation {
            issued_before: 50,
            until: 2000,
            ..one.clone()
        };
        assert!(one.extend(&other) && !one.extend(&other));
        assert_eq!((one.issued_before, one.until), (100, 2000));
        assert!(revokes(&one, 1000));
    }
}

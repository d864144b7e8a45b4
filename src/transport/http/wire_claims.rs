//! What the token of an HTTP session says, as nodes tell each other: the client gives it once, to the first of them.

use serde::{Deserialize, Serialize};

use crate::model::{Claims, NamePattern, Names, Realm};

/// [`Claims`] as strings and numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredClaims {
    sub: String,
    exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    realm: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    call: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    callable_by: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signals_per_second: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connections: Option<u32>,
    turn: bool,
}

impl From<&Claims> for StoredClaims {
    fn from(claims: &Claims) -> Self {
        let names = |names: &Names| names.iter().map(ToString::to_string).collect();
        Self {
            sub: claims.subject.to_string(),
            exp: claims.expires,
            iat: claims.issued,
            jti: claims.id.as_deref().map(str::to_owned),
            realm: claims.realm.as_ref().map(ToString::to_string),
            call: claims.call.as_ref().map(names),
            callable_by: claims.callable_by.as_ref().map(names),
            signals_per_second: claims.signals_per_second,
            connections: claims.connections,
            turn: claims.turn,
        }
    }
}

impl From<StoredClaims> for Claims {
    fn from(stored: StoredClaims) -> Self {
        let names = |names: Vec<String>| names.iter().map(String::as_str).collect();
        Self {
            subject: NamePattern::new(&stored.sub),
            realm: stored.realm.as_deref().map(Realm::new),
            call: stored.call.map(names),
            callable_by: stored.callable_by.map(names),
            signals_per_second: stored.signals_per_second,
            connections: stored.connections,
            turn: stored.turn,
            expires: stored.exp,
            issued: stored.iat,
            id: stored.jti.map(Into::into),
        }
    }
}

//! Verifies a token: its signature, its times, for whom it is, and what it claims.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;

use super::keys::Key;
use crate::model::{CLOCK_SKEW, Claims, NamePattern, Names, Realm};

/// The longest token. Those of identity providers take 1 to 4 KiB.
const TOKEN_BYTES: usize = 8 * 1024;
/// How long all names of a `callable_by` may be: they are stored with the presence of the user.
const CALLABLE_BYTES: usize = 1024;

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    NoToken,
    UnknownKey,
    Algorithm,
    Signature,
    Expired,
    NotYet,
    Audience,
    Issuer,
    /// A claim is missing or of the wrong form; the text names it.
    Claim(&'static str),
}

impl Fault {
    /// The text for developers; it tells nothing that the token does not.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::NoToken => {
                "The token is no JWT with an algorithm that this server knows: \
                 HS256 to HS512, RS*, PS*, ES256, ES384 or EdDSA"
            }
            Self::UnknownKey => "This server has no key with the kid of the token",
            Self::Algorithm => "The token's algorithm is not that of this server's key",
            Self::Signature => {
                "The token's signature is wrong: it is not from this server's issuer"
            }
            Self::Expired => "The token has expired: get a new one",
            Self::NotYet => {
                "The token is not valid yet: check the clocks of its issuer and of this server"
            }
            Self::Audience => "The token is for another audience than auth.jwt.audience",
            Self::Issuer => "The token is from another issuer than auth.jwt.issuer",
            Self::Claim(what) => what,
        }
    }
}

/// What a token must say besides.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    pub(super) audience: Vec<String>,
    pub(super) issuer: Vec<String>,
}

impl Expected {
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = CLOCK_SKEW.as_secs();
        validation.validate_nbf = true;
        let set = |texts: &[String]| -> HashSet<String> { texts.iter().cloned().collect() };
        // Without a setting, a token that names an audience is for somebody else (RFC 7519, section 4.1.3).
        if !self.audience.is_empty() {
            validation.aud = Some(set(&self.audience));
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if !self.issuer.is_empty() {
            validation.iss = Some(set(&self.issuer));
            validation.required_spec_claims.insert("iss".to_owned());
        }
        validation
    }
}

/// What a token's header says.
pub(super) struct Unverified<'a> {
    token: &'a str,
    algorithm: Algorithm,
    /// Its `kid`: a word to look for among the keys, and nothing else.
    pub(super) key: Option<String>,
}

impl<'a> Unverified<'a> {
    pub(super) fn read(token: &'a str) -> Result<Self, Fault> {
        if token.len() > TOKEN_BYTES {
            return Err(Fault::NoToken);
        }
        let header = decode_header(token).map_err(|_| Fault::NoToken)?;
        Ok(Self {
            token,
            algorithm: header.alg,
            key: header.kid,
        })
    }

    /// Verifies the token with whichever of the keys is the right one.
    pub(super) fn verify<'k>(
        &self,
        keys: impl Iterator<Item = &'k Key>,
        expected: &Expected,
        now: SystemTime,
    ) -> Result<Claims, Fault> {
        let validation = expected.validation(self.algorithm);
        let mut fault = Fault::UnknownKey;
        for key in keys {
            if !key.algorithms.contains(&self.algorithm) {
                if fault == Fault::UnknownKey {
                    fault = Fault::Algorithm;
                }
                continue;
            }
            match decode::<Wire>(self.token, &key.verifies, &validation) {
                Ok(data) => return data.claims.read(now),
                Err(error) => fault = fault_of(&error),
            }
            if fault != Fault::Signature {
                break;
            }
        }
        Err(fault)
    }
}

fn fault_of(error: &Error) -> Fault {
    match error.kind() {
        ErrorKind::ExpiredSignature => Fault::Expired,
        ErrorKind::ImmatureSignature => Fault::NotYet,
        ErrorKind::InvalidAudience => Fault::Audience,
        ErrorKind::InvalidIssuer => Fault::Issuer,
        ErrorKind::InvalidAlgorithm => Fault::Algorithm,
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "aud" => Fault::Audience,
            "iss" => Fault::Issuer,
            _ => Fault::Claim("The token has no exp: it must expire"),
        },
        ErrorKind::InvalidSignature => Fault::Signature,
        ErrorKind::InvalidToken | ErrorKind::Base64(_) => Fault::NoToken,
        _ => Fault::Claim("A claim of the token has the wrong type"),
    }
}

/// The claims of a token that are read here.
#[derive(Deserialize)]
struct Wire {
    exp: Option<f64>,
    iat: Option<f64>,
    sub: Option<String>,
    jti: Option<String>,
    realm: Option<String>,
    call: Option<Vec<String>>,
    callable_by: Option<Vec<String>>,
    limits: Option<WireLimits>,
    turn: Option<bool>,
}

#[derive(Deserialize)]
struct WireLimits {
    signals_per_second: Option<u32>,
    connections: Option<u32>,
}

impl Wire {
    fn read(self, now: SystemTime) -> Result<Claims, Fault> {
        let subject = self.sub.filter(|sub| !sub.is_empty());
        let subject = subject.ok_or(Fault::Claim(
            "The token has no sub: the name that its owner may take, or a pattern such as alice-*",
        ))?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default() + CLOCK_SKEW;
        if self.iat.is_some_and(|issued| issued > now.as_secs_f64()) {
            return Err(Fault::NotYet);
        }
        let names = |names: Vec<String>| names.iter().map(String::as_str).collect::<Names>();
        let callable_bytes = |names: &Vec<String>| names.iter().map(|name| name.len() + 1).sum();
        if self.callable_by.as_ref().map_or(0, callable_bytes) > CALLABLE_BYTES {
            return Err(Fault::Claim("The token's callable_by is longer than 1 KiB"));
        }
        let (mut signals_per_second, mut connections) = (None, None);
        if let Some(limits) = self.limits {
            (signals_per_second, connections) = (limits.signals_per_second, limits.connections);
        }
        Ok(Claims {
            subject: NamePattern::new(&subject),
            realm: self.realm.as_deref().map(Realm::new),
            call: self.call.map(names),
            callable_by: self.callable_by.map(names),
            signals_per_second,
            connections,
            turn: self.turn.unwrap_or(true),
            expires: seconds(self.exp.unwrap_or_default()),
            issued: self.iat.map(seconds),
            id: self.jti.map(Into::into),
        })
    }
}

/// A time of a token, which may have a fraction; one that no clock will show is as good as never.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast saturates"
)]
fn seconds(time: f64) -> u64 {
    const LATEST: f64 = 253_402_300_799.0;
    time.clamp(0.0, LATEST) as u64
}

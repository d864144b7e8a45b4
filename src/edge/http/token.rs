//! Who asks: the token of a session, in the header that is meant for it or, where a browser cannot set one, in the query.
//!
//! There is no cookie: no page can make a browser speak for a session whose token it does not have.

use std::fmt;
use std::str::FromStr;

use axum::http::{HeaderMap, Uri};

use super::super::asking::{bearer, parameter};
use super::super::reject::Rejection;
use crate::model::{Address, Realm, Secret, SecretHash, SessionId, UserName};

/// The token of a request.
pub(super) fn token(headers: &HeaderMap, uri: &Uri) -> Result<Token, Rejection> {
    let token = match bearer(headers) {
        Some(token) => token.parse().ok(),
        None => parameter(uri, "session").and_then(|token| token.parse().ok()),
    };
    token.ok_or(Rejection::Unauthorized)
}

/// Which session, and the secret of it: `SESSION.SECRET`, both in hexadecimal digits, so that it can stand in a URL as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    session: SessionId,
    secret: Secret,
}

/// The text was never given to anybody as a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token")]
pub(crate) struct InvalidToken;

impl Token {
    /// A token of a session that never was before.
    pub(super) fn random() -> Self {
        Self {
            session: SessionId::random(),
            secret: Secret::random(),
        }
    }

    /// Which session; anybody may know that.
    pub(super) fn session(&self) -> SessionId {
        self.session
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The whole token, for its client alone.
    pub(super) fn expose(&self) -> String {
        format!("{}.{}", self.session, self.secret.expose())
    }

    /// What nodes tell each other of the secret.
    pub(super) fn proof(&self) -> SecretHash {
        let name = UserName::parse(&self.session.to_string());
        let name = name.unwrap_or_else(|_| unreachable!("hexadecimal digits are a name"));
        self.secret
            .hash_for(&Address::new(Realm::new("http"), name))
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let (session, secret) = text.split_once('.').ok_or(InvalidToken)?;
        let is_hex = |text: &str, digits| {
            text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if !is_hex(session, 32) || !is_hex(secret, 64) {
            return Err(InvalidToken);
        }
        Ok(Self {
            session: session.parse().map_err(|_| InvalidToken)?,
            secret: Secret::claimed(secret),
        })
    }
}

impl fmt::Display for Token {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.…", self.session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_hides_its_secret() {
        let token = Token::random();
        assert_eq!(token.expose().parse(), Ok(token.clone()));
        let shown = format!("{token} {token:?}");
        assert!(!shown.contains(token.secret.expose()), "{shown}");
        for dirt in ["", ".", "a.b", &token.session.to_string(), "é.ü"] {
            assert_eq!(dirt.parse::<Token>(), Err(InvalidToken), "{dirt}");
        }
    }
}

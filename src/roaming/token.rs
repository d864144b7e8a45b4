//! What a client shows to be let at its conversation.

use std::fmt;
use std::str::FromStr;

use crate::fabric::letterbox::{Key, address};
use crate::model::{Secret, SessionId};

/// Which conversation, and the secret of it: `SESSION.SECRET`, both in hexadecimal digits, so that it can stand in a URL as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    session: SessionId,
    secret: Secret,
}

/// The text was never given to anybody as a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token")]
pub struct InvalidToken;

impl Token {
    /// A token of a conversation that never was before.
    pub(super) fn random() -> Self {
        Self {
            session: SessionId::random(),
            secret: Secret::random(),
        }
    }

    /// Which conversation; anybody may know that.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The whole token, for its client alone.
    pub fn expose(&self) -> String {
        format!("{}.{}", self.session, self.secret.expose())
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    pub(super) fn key(&self) -> Key {
        Key {
            session: self.session,
            hash: self.secret.hash_for(&address(self.session)),
        }
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

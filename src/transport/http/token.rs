//! The token of an HTTP session, in the header that is meant for it or, where a browser cannot set one, in the query.
//!
//! There is no cookie: no page can make a browser speak for a session whose token it does not have.

use axum::http::{HeaderMap, Uri};

use super::super::reject::Rejection;
use super::super::request::{bearer, parameter};
use crate::model::{Address, Realm, Secret, SecretHash, SessionId, UserName};

/// The token of a request.
pub(super) fn token(headers: &HeaderMap, uri: &Uri) -> Result<Token, Rejection> {
    let token = match bearer(headers) {
        Some(token) => Token::parse(token),
        None => parameter(uri, "session").and_then(|token| Token::parse(&token)),
    };
    token.ok_or(Rejection::Unauthorized)
}

/// `SESSION.SECRET`, both in hexadecimal digits: it can stand in a URL as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    session: SessionId,
    secret: Secret,
}

impl Token {
    /// A token of a new session.
    pub(super) fn random() -> Self {
        Self {
            session: SessionId::random(),
            secret: Secret::random(),
        }
    }

    pub(in crate::transport) fn parse(text: &str) -> Option<Self> {
        let (session, secret) = text.split_once('.')?;
        let is_hex = |text: &str, digits| {
            text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if !is_hex(session, 32) || !is_hex(secret, 64) {
            return None;
        }
        Some(Self {
            session: session.parse().ok()?,
            secret: Secret::claimed(secret),
        })
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

    /// What nodes tell each other of the secret: it proves the secret, and does not tell it.
    pub(super) fn proof(&self) -> SecretHash {
        let name = UserName::parse(&self.session.to_string());
        let name = name.unwrap_or_else(|_| unreachable!("hexadecimal digits are a name"));
        self.secret
            .hash_for(&Address::new(Realm::new("http"), name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_hides_its_secret() {
        let token = Token::random();
        assert_eq!(Token::parse(&token.expose()).as_ref(), Some(&token));
        let shown = format!("{token:?}");
        assert!(!shown.contains(token.secret.expose()), "{shown}");
        for dirt in ["", ".", "a.b", &token.session.to_string(), "é.ü"] {
            assert_eq!(Token::parse(dirt), None, "{dirt}");
        }
    }
}

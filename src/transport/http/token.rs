//! The token of an HTTP session: in the `Authorization` header, or in the query where a browser
//! cannot set headers (`EventSource`).
//!
//! There is no cookie, so a page cannot act for a session without having its token.

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

/// `SESSION.SECRET`, both in hexadecimal, so it needs no encoding in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    session: SessionId,
    secret: Secret,
}

impl Token {
    /// The token of a new session.
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

    /// The session's id; it is not secret.
    pub(super) fn session(&self) -> SessionId {
        self.session
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The whole token. Send it to its client only.
    pub(super) fn expose(&self) -> String {
        format!("{}.{}", self.session, self.secret.expose())
    }

    /// A hash with which nodes prove to each other that they know the secret, without revealing it.
    pub(super) fn proof(&self) -> SecretHash {
        let name = UserName::parse(&self.session.to_string());
        let name = name.unwrap_or_else(|_| unreachable!("hexadecimal digits form a valid name"));
        self.secret
            .hash_for(&Address::new(Realm::new("http"), name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_as_text_and_hide_their_secret() {
        let token = Token::random();
        assert_eq!(Token::parse(&token.expose()).as_ref(), Some(&token));
        let shown = format!("{token:?}");
        assert!(!shown.contains(token.secret.expose()), "{shown}");
        for dirt in ["", ".", "a.b", &token.session.to_string(), "é.ü"] {
            assert_eq!(Token::parse(dirt), None, "{dirt}");
        }
    }
}

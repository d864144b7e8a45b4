//! The token that comes with a request: checked before anything else is done for the client.
//!
//! Browsers cannot set headers of WebSockets, and some clients strip queries, so there are three places for it.

use std::sync::Arc;

use axum::http::{HeaderMap, Uri};

use super::Endpoints;
use super::reject::Rejection;
use super::request::{bearer, parameter};
use crate::auth::Mode;
use crate::model::{Claims, Realm, UserName};

/// The token of a request: `Authorization: Bearer`, the query parameter of this name, or a segment of the path.
pub(super) fn token_of(headers: &HeaderMap, uri: &Uri, name: &str) -> Option<String> {
    let segment = || {
        let mut segments = uri.path().split('/');
        segments.find(|segment| looks_like_token(segment))
    };
    let bearer = bearer(headers).map(str::to_owned);
    bearer
        .or_else(|| parameter(uri, name))
        .or_else(|| segment().map(str::to_owned))
}

/// Whether a text is a header, claims and a signature in base64url. A header is a JSON object.
pub(super) fn looks_like_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let mut parts = text.split('.');
    let is_part =
        |part: Option<&str>| part.is_some_and(|part| !part.is_empty() && part.bytes().all(fits));
    text.starts_with("ey")
        && is_part(parts.next())
        && is_part(parts.next())
        && is_part(parts.next())
        && parts.next().is_none()
}

impl Endpoints {
    /// What the token of a request says; `None` if there is none, or if nobody looks at tokens here.
    pub(super) async fn admit(
        &self,
        token: Option<String>,
    ) -> Result<Option<Arc<Claims>>, Rejection> {
        let auth = &self.settings.auth;
        let token = token.filter(|_| auth.mode() != Mode::Open);
        let Some(token) = token else {
            return Ok(None);
        };
        let verified = auth.verify(&token).await.and_then(|claims| {
            self.router.check_token(&claims)?;
            Ok(claims)
        });
        verified.map(Some).map_err(|refusal| self.refused(refusal))
    }

    /// Like [`admit`](Self::admit), for a request that is its own login: whoever needs a token must have sent it, and
    /// it must be for this name, if it is known already.
    pub(super) async fn admit_login(
        &self,
        token: Option<String>,
        realm: &Realm,
        name: Option<&str>,
    ) -> Result<Option<Arc<Claims>>, Rejection> {
        let claims = self.admit(token).await?;
        let claims = self.settings.auth.admit(None, claims.as_ref()).await;
        let claims = claims.map_err(|refusal| self.refused(refusal))?;
        if let Some(claims) = &claims {
            let name = name.and_then(|name| UserName::parse(name).ok());
            let realm = claims.realm_at(realm);
            let fits = realm.and_then(|_| name.map_or(Ok(()), |name| claims.may_be(&name)));
            fits.map_err(|refusal| self.refused(refusal))?;
        }
        Ok(claims)
    }

    /// Counts what is refused before there is a session.
    fn refused(&self, refusal: crate::model::Refusal) -> Rejection {
        self.router.telemetry().metrics.login(Err(&refusal));
        Rejection::Token(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_its_three_places() {
        let token = |path: &str, bearer: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(bearer) = bearer {
                headers.insert("authorization", format!("Bearer {bearer}").parse().unwrap());
            }
            token_of(&headers, &path.parse().unwrap(), "token")
        };
        assert_eq!(token("/ws?token=a", Some("b")).as_deref(), Some("b"));
        assert_eq!(token("/ws/eyA.eyB.c-_?token=a", None).as_deref(), Some("a"));
        assert_eq!(
            token("/ws/eyA.eyB.c-_", None).as_deref(),
            Some("eyA.eyB.c-_")
        );
        assert_eq!(
            token("/eyA.eyB.c/peerjs", None).as_deref(),
            Some("eyA.eyB.c")
        );
        for none in [
            "/ws",
            "/eyA.eyB",
            "/eyA.eyB.",
            "/eyA.b.c.d",
            "/app.min.js",
            "/ey.a.%2f",
        ] {
            assert_eq!(token(none, None), None, "{none}");
        }
    }
}

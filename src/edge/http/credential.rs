//! Who asks: the token of a session, in the header that is meant for it or, where a browser cannot set one, in the query.
//!
//! There is no cookie: no page can make a browser speak for a session whose token it does not have.

use axum::http::{HeaderMap, Uri};

use super::super::asking::{bearer, parameter};
use super::super::reject::Rejection;
use crate::roaming::Token;

/// The token of a request.
pub(super) fn token(headers: &HeaderMap, uri: &Uri) -> Result<Token, Rejection> {
    let token = match bearer(headers) {
        Some(token) => token.parse().ok(),
        None => parameter(uri, "session").and_then(|token| token.parse().ok()),
    };
    token.ok_or(Rejection::Unauthorized)
}

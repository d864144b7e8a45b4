//! Who asks: the token of a session, in the header that is meant for it or, where a browser cannot set one, in the query.
//!
//! There is no cookie: no page can make a browser speak for a session whose token it does not have.

use std::borrow::Cow;

use axum::http::{HeaderMap, Uri, header};
use percent_encoding::percent_decode_str;

use super::super::reject::Rejection;
use crate::roaming::Token;

/// The token of a request.
pub(in super::super) fn token(headers: &HeaderMap, uri: &Uri) -> Result<Token, Rejection> {
    let bearer = super::text(headers, header::AUTHORIZATION).and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| Cow::from(token.trim()))
    });
    let token = bearer.or_else(|| query(uri, "session"));
    token
        .and_then(|token| token.parse().ok())
        .ok_or(Rejection::NoToken)
}

/// What the query says of this; the first, if it does so twice.
pub(super) fn query<'a>(uri: &'a Uri, wanted: &str) -> Option<Cow<'a, str>> {
    let mut pairs = uri.query()?.split('&');
    let value = pairs.find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (name == wanted).then_some(value)
    })?;
    percent_decode_str(value).decode_utf8().ok()
}

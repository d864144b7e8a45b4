//! Reads credentials and query parameters from a request.

use axum::http::{HeaderMap, Uri, header};
use percent_encoding::percent_decode_str;

/// The bearer token of the `Authorization` header (RFC 6750, section 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// What the body is, without parameters and in small letters; empty if the request does not say.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

/// A query parameter that is not empty, decoded as `application/x-www-form-urlencoded` (what HTML
/// forms and `URLSearchParams` write).
pub(super) fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let mut parameters = uri.query()?.split('&');
    let value = parameters.find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        (key == name).then_some(value)
    })?;
    if value.is_empty() {
        return None;
    }
    let value = value.replace('+', " ");
    let value = percent_decode_str(&value).decode_utf8().ok()?;
    Some(value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_parameters_are_form_decoded() {
        let name = |query: &str| parameter(&format!("/x?{query}").parse().unwrap(), "name");
        assert_eq!(name("name=UserA").as_deref(), Some("UserA"));
        assert_eq!(
            name("a=b&name=a+b%2Bc%26%C3%BC&name=no").as_deref(),
            Some("a b+c&ü")
        );
        for none in ["", "name", "name=", "names=a", "name=%ff"] {
            assert_eq!(name(none), None, "{none}");
        }
    }
}

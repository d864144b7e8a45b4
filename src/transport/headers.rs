//! Headers that every answer has, and which hosts the admin listener answers for.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::reject::Rejection;

/// Domains whose names belong to the machine or its network, so that no stranger can have one.
const PRIVATE_DOMAINS: [&str; 7] = [
    ".localhost",
    ".local",
    ".internal",
    ".lan",
    ".home.arpa",
    ".svc",
    ".test",
];

/// Keeps browsers from guessing content types, and everybody from storing an answer that does not
/// say otherwise: most of them carry secrets.
pub(super) async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Refuses requests for a name that a stranger may have pointed at this node: so a web page reads
/// what the browser's network can reach (DNS rebinding).
pub(super) async fn check_host(
    State(known): State<Arc<[String]>>,
    request: Request,
    next: Next,
) -> Response {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    if hosts.all(|host| host.to_str().is_ok_and(|host| is_ours(host, &known))) {
        next.run(request).await
    } else {
        Rejection::Host.into_response()
    }
}

/// Whether a `Host` is an address, a name without a domain, a private name, or a known one.
fn is_ours(host: &str, known: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        // Valid, and says nothing (RFC 9112, section 3.2).
        return host.is_empty();
    };
    let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok()
        || !host.contains('.')
        || PRIVATE_DOMAINS.iter().any(|domain| host.ends_with(domain))
        || known.iter().any(|known| known.eq_ignore_ascii_case(&host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_stranger_can_have_are_not_ours() {
        let known = ["node-1.example.com".to_owned()];
        for ours in [
            "",
            "127.0.0.1",
            "127.0.0.1:9091",
            "[::1]:9091",
            "10.1.2.3:9091",
            "localhost:9091",
            "LOCALHOST",
            "node-1",
            "node-1:9091",
            "switchboard.default.svc:9091",
            "switchboard.default.svc.cluster.local.",
            "Node-1.Example.COM:9091",
        ] {
            assert!(is_ours(ours, &known), "{ours}");
        }
        for strange in [
            "evil.example",
            "evil.example:9091",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "node-1.example.com.evil.example",
            "local.evil",
            "1.2.3",
            "a b",
            "evil.example@127.0.0.1.nip.io",
        ] {
            assert!(!is_ours(strange, &known), "{strange}");
        }
    }
}

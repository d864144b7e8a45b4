//! `GET /v1/whoami`: shows a client how its request reaches the node, for example what proxies
//! changed.

use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Version, header};
use axum::{Extension, Json};
use serde::Serialize;

use super::Endpoints;

/// The answer. It has no secrets: credentials and cookies are not read.
#[derive(Debug, Serialize)]
pub(super) struct Whoami {
    node: String,
    version: &'static str,
    draining: bool,
    /// Who needs a token: open, optional or required.
    auth: &'static str,
    /// The node's clock in Unix seconds. TURN credentials expire by this clock.
    time: u64,
    /// The address of the client or of the last proxy.
    address: IpAddr,
    port: u16,
    /// The scheme of the connection to the node: http or https.
    scheme: &'static str,
    http_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    /// What proxies report. Anybody can send these headers, so no decision depends on them.
    #[serde(skip_serializing_if = "Option::is_none")]
    forwarded_for: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forwarded_proto: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forwarded: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<String>,
}

/// Describes the request.
pub(super) async fn whoami(
    State(endpoints): State<Endpoints>,
    Extension(from): Extension<SocketAddr>,
    version: Version,
    headers: HeaderMap,
) -> ([(HeaderName, &'static str); 1], Json<Whoami>) {
    let header_text = |name: HeaderName| text(&headers, &name);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seen = Whoami {
        node: endpoints.router.node().to_string(),
        version: env!("CARGO_PKG_VERSION"),
        draining: endpoints.phase.is_draining(),
        auth: endpoints.settings.auth.mode().as_str(),
        time: now.unwrap_or_default().as_secs(),
        address: from.ip().to_canonical(),
        port: from.port(),
        scheme: if endpoints.settings.tls {
            "https"
        } else {
            "http"
        },
        http_version: match version {
            Version::HTTP_09 => "0.9",
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            Version::HTTP_3 => "3",
            _ => "1.1",
        },
        host: header_text(header::HOST),
        origin: header_text(header::ORIGIN),
        user_agent: header_text(header::USER_AGENT),
        forwarded_for: header_text(HeaderName::from_static("x-forwarded-for")),
        forwarded_proto: header_text(HeaderName::from_static("x-forwarded-proto")),
        forwarded: header_text(header::FORWARDED),
        via: header_text(header::VIA),
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(seen))
}

/// The values of a header, joined with commas (RFC 9110, section 5.3).
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values = headers.get_all(name).iter();
    let values: Vec<_> = values
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

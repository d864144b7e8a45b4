//! The ICE servers anew, for a session that asks by HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::time::sleep;

use super::Doors;
use super::reject::Rejection;
use crate::model::{Address, IceServers, Realm, Secret, UserName};

/// How long it takes to be told that a secret is wrong, as at a login.
const WRONG_SECRET_COSTS: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Told {
    #[serde(rename = "iceServers")]
    servers: Vec<Server>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
}

/// As a browser's `RTCPeerConnection` takes it (W3C: `RTCIceServer`).
#[derive(Serialize)]
struct Server {
    urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

impl From<IceServers> for Told {
    fn from(ice: IceServers) -> Self {
        let servers = ice.servers.into_iter().map(|server| {
            let login = server.login.map(|login| (login.username, login.credential));
            let (username, credential) = login.unzip();
            Server {
                urls: server.urls.to_vec(),
                username,
                credential,
            }
        });
        Self {
            servers: servers.collect(),
            ttl: ice.ttl.map(|ttl| ttl.as_secs()),
        }
    }
}

/// Tells whoever proves a session: `?name=` and its `resume` secret as a bearer token.
pub(super) async fn ice_servers(
    State(doors): State<Doors>,
    Extension(from): Extension<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Rejection> {
    let _place = doors
        .crowd
        .enter(from.ip())
        .map_err(|_| Rejection::Crowded)?;
    let secret = bearer(&headers).ok_or(Rejection::Unauthorized)?;
    let name = parameter(&uri, "name").ok_or(Rejection::NoName)?;
    let name = UserName::parse(&name).map_err(|_| Rejection::NoName)?;
    let user = Address::new(Realm::default(), name);
    let known = doors.exchange.knows(&user, &Secret::claimed(secret)).await;
    if !known.map_err(|_| Rejection::Unavailable)? {
        sleep(WRONG_SECRET_COSTS).await;
        return Err(Rejection::Unauthorized);
    }
    let told: Told = doors.settings.ice.servers_for(&user).into();
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(told)).into_response())
}

/// The token of RFC 6750.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let said = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = said.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// A parameter of the query, as forms and `URLSearchParams` write it.
fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let mut parameters = uri.query()?.split('&');
    let value = parameters.find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        (key == name).then_some(value)
    })?;
    let value = value.replace('+', " ");
    let value = percent_decode_str(&value).decode_utf8().ok()?;
    Some(value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_read_as_browsers_write_it() {
        let name = |query: &str| parameter(&format!("/x?{query}").parse().unwrap(), "name");
        assert_eq!(name("name=UserA").as_deref(), Some("UserA"));
        assert_eq!(
            name("a=b&name=a+b%2Bc%26%C3%BC&name=no").as_deref(),
            Some("a b+c&ü")
        );
        for none in ["", "name", "names=a", "name=%ff"] {
            assert_eq!(name(none), None, "{none}");
        }
    }
}

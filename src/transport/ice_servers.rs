//! `GET /v1/ice-servers`: fresh ICE servers for a session that asks over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use tokio::time::sleep;

use super::Endpoints;
use super::admission::looks_like_token;
use super::http::Token;
use super::reject::Rejection;
use super::request::{bearer, parameter};
use crate::auth::Mode;
use crate::model::{Address, IceServers, Realm, Secret, UserName};

/// Delay before a wrong secret is answered, as at a login: it slows down guessing.
const WRONG_SECRET_DELAY: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct IceServersBody {
    #[serde(rename = "iceServers")]
    servers: Vec<Server>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
}

/// One server in the form that `RTCPeerConnection` takes (W3C WebRTC, `RTCIceServer`).
#[derive(Serialize)]
struct Server {
    urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

impl From<IceServers> for IceServersBody {
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

/// Answers an HTTP session that sends its token, or any other session that sends `?name=` and its
/// `resume` secret; both are bearer tokens.
pub(super) async fn ice_servers(
    State(endpoints): State<Endpoints>,
    Extension(from): Extension<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Rejection> {
    let _permit = endpoints
        .connections
        .acquire(from.ip())
        .map_err(|_| Rejection::TooMany)?;
    let secret = bearer(&headers).ok_or(Rejection::Unauthorized)?;
    if let Some(token) = Token::parse(secret) {
        let user = endpoints.homes.verify(&token).await?;
        let user = user.ok_or(Rejection::Unauthorized)?;
        let (user, may_relay) = user;
        return Ok(answer(&endpoints, &user, may_relay));
    }
    let name = parameter(&uri, "name").ok_or(Rejection::NoName)?;
    let name = UserName::parse(&name).map_err(|_| Rejection::NoName)?;
    if endpoints.settings.auth.mode() != Mode::Open && looks_like_token(secret) {
        let door = Realm::default();
        let admitted = endpoints.admit_login(Some(secret.to_owned()), &door, Some(name.as_str()));
        let claims = admitted.await?.ok_or(Rejection::Unauthorized)?;
        let realm = claims.realm_at(&door).unwrap_or(door);
        return Ok(answer(&endpoints, &Address::new(realm, name), claims.turn));
    }
    // What the token of the session allows is not known here.
    if endpoints.settings.auth.mode() == Mode::Required {
        return Err(Rejection::Unauthorized);
    }
    let user = Address::new(Realm::default(), name);
    let known = endpoints
        .router
        .knows(&user, &Secret::claimed(secret))
        .await;
    if !known.map_err(|_| Rejection::Unavailable)? {
        sleep(WRONG_SECRET_DELAY).await;
        return Err(Rejection::Unauthorized);
    }
    Ok(answer(&endpoints, &user, true))
}

fn answer(endpoints: &Endpoints, user: &Address, may_relay: bool) -> Response {
    let servers = endpoints.settings.ice.servers_for(user, may_relay);
    let body: IceServersBody = servers.into();
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

//! The PeerJS routes: its HTTP API, and WebSockets that log in with their URL.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::progress::ReceivedBytes;
use super::reject::Rejection;
use super::websocket::{self, SessionSetup};
use super::{Endpoints, admission, cors};
use crate::model::{LoginRequest, Realm, Refusal, UserName};
use crate::protocol::PeerJs;
use crate::session::state::SessionPolicy;
use crate::session::{Clocks, InitialLogin};

/// Size of the read buffer in bytes. A peer sends some twenty messages for a call and then only heartbeats.
const READ_BUFFER: usize = 1024;

/// The settings of PeerJS (section `[peerjs]`).
#[derive(Clone, Debug)]
pub struct Settings {
    /// The path of the routes, with a slash at either end.
    pub path: String,
    /// The accepted keys. Each key has ids of its own.
    pub keys: Vec<String>,
    /// Whether the HTTP API refuses other keys too.
    pub strict_key: bool,
    /// Whether `GET /KEY/peers` lists the ids.
    pub allow_discovery: bool,
    /// Whether clients get `LEAVE` when a peer leaves with which they exchanged an offer or an
    /// answer.
    pub sends_leave: bool,
    /// How long a message waits for an id that nobody has.
    pub expire_timeout: Duration,
    /// A client without a heartbeat for this long is disconnected.
    pub alive_timeout: Duration,
    /// How long an id stays reserved after its connection is lost.
    pub grace: Duration,
}

/// First path segments that the node uses itself; they cannot be keys.
pub const RESERVED: [&str; 5] = ["v1", "client", "page", "doctor", "ws"];

const INFO: &str = concat!(
    r#"{"name":"PeerJS Server","#,
    r#""description":"A server side element to broker connections between PeerJS clients.","#,
    r#""website":"https://peerjs.com/"}"#
);
/// The parameter with a token; `token` is a secret that the client chose.
const JWT: &str = "jwt";
const NOT_SUPPLIED: Refusal =
    Refusal::Unauthorized("No id, token, or key supplied to websocket server");
const INVALID_KEY: Refusal = Refusal::Unauthorized("Invalid key provided");
/// The most ids that `GET /KEY/peers` returns.
const MAX_LISTED: usize = 10_000;
/// How long a list is cached. Making one scans every name of the cluster.
const LIST_TTL: Duration = Duration::from_secs(1);

/// Cached lists of ids by realm. The lock is held while a list is made, so that concurrent requests
/// make it once.
pub(super) type Lists = Arc<Mutex<HashMap<Realm, (Instant, Arc<Vec<String>>)>>>;

/// The routes below `settings.path`.
pub(super) fn routes(settings: &Settings) -> Router<Endpoints> {
    let base = &settings.path;
    // Their client puts its path before each of these, so a token may be the segment before them.
    let with_token = of_path(&format!("{base}{{jwt}}/")).route_layer(from_fn(needs_token));
    let mut routes = of_path(base).merge(with_token);
    // At `/` the native route answers, with the same information.
    if base != "/" {
        for path in [base.as_str(), base.trim_end_matches('/')] {
            routes = routes.route(path, get(about).options(preflight));
        }
    }
    routes
}

fn of_path(base: &str) -> Router<Endpoints> {
    Router::new()
        .route(&format!("{base}peerjs"), any(enter))
        .route(&format!("{base}{{key}}/id"), get(id).options(preflight))
        .route(
            &format!("{base}{{key}}/peers"),
            get(peers).options(preflight),
        )
}

/// Lets no other word stand where a token may be: a client with a wrong path gets 404.
async fn needs_token(request: Request, next: Next) -> Response {
    let mut segments = request.uri().path().split('/');
    if segments.any(admission::looks_like_token) {
        next.run(request).await
    } else {
        Rejection::NotFound.into_response()
    }
}

/// The information that the original `PeerServer` returns at its root.
pub(super) fn info(endpoints: &Endpoints, headers: &HeaderMap) -> Response {
    let json = (
        [(header::CONTENT_TYPE, "application/json; charset=utf-8")],
        INFO,
    );
    cors::allow(endpoints, headers, json)
}

async fn about(State(endpoints): State<Endpoints>, headers: HeaderMap) -> Response {
    info(&endpoints, &headers)
}

/// A random id.
async fn id(
    State(endpoints): State<Endpoints>,
    Path(parts): Path<Parts>,
    headers: HeaderMap,
) -> Response {
    let key = parts.key;
    if realm(&endpoints, &key).is_none() {
        return cors::allow(&endpoints, &headers, StatusCode::NOT_FOUND);
    }
    let text = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    cors::allow(&endpoints, &headers, (text, uuid()))
}

/// All ids of the cluster for one key.
async fn peers(
    State(endpoints): State<Endpoints>,
    Path(parts): Path<Parts>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let key = parts.key;
    let Some(realm) = realm(&endpoints, &key) else {
        return cors::allow(&endpoints, &headers, StatusCode::NOT_FOUND);
    };
    let allowed = endpoints
        .peerjs()
        .is_some_and(|peerjs| peerjs.allow_discovery);
    if !allowed {
        let text = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        let refused = (StatusCode::UNAUTHORIZED, text, "Unauthorized");
        return cors::allow(&endpoints, &headers, refused);
    }
    let token = admission::token_of(&headers, &uri, JWT);
    let claims = match endpoints.admit_login(token, &realm, None).await {
        Ok(claims) => claims,
        Err(rejection) => return cors::allow(&endpoints, &headers, rejection),
    };
    let answer = |list: &[String]| {
        let may_call = |id: &&String| {
            let name = UserName::known(id);
            claims
                .as_ref()
                .is_none_or(|claims| name.is_ok_and(|name| claims.may_call(&name)))
        };
        let visible: Vec<&String> = list.iter().filter(may_call).collect();
        cors::allow(&endpoints, &headers, listed(&visible))
    };
    let mut lists = endpoints.lists.lock().await;
    if let Some((made, list)) = lists.get(&realm)
        && made.elapsed() < LIST_TTL
    {
        return answer(list);
    }
    match endpoints.router.names(&realm, MAX_LISTED).await {
        Ok(names) => {
            let list: Vec<String> = names.iter().map(ToString::to_string).collect();
            let list = Arc::new(list);
            lists.insert(realm, (Instant::now(), Arc::clone(&list)));
            answer(&list)
        }
        Err(_) => cors::allow(&endpoints, &headers, Rejection::Unavailable),
    }
}

/// The segments of a path.
#[derive(Deserialize)]
struct Parts {
    key: String,
}

fn listed(list: &[&String]) -> impl IntoResponse + use<> {
    let json = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    (json, Json(list)).into_response()
}

async fn preflight(State(endpoints): State<Endpoints>, headers: HeaderMap) -> Response {
    let mut response = cors::allow(&endpoints, &headers, StatusCode::NO_CONTENT);
    let answer = response.headers_mut();
    answer.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET,HEAD,PUT,PATCH,POST,DELETE"),
    );
    if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        let vary = header::ACCESS_CONTROL_REQUEST_HEADERS;
        answer.append(header::VARY, vary.into());
    }
    response
}

/// Upgrades to a WebSocket that is logged in by its URL.
async fn enter(
    State(endpoints): State<Endpoints>,
    Extension(from): Extension<SocketAddr>,
    Extension(received): Extension<ReceivedBytes>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        return if websocket::asks_for_websocket(&headers) {
            Rejection::BadUpgrade.into_response()
        } else {
            cors::allow(&endpoints, &headers, Rejection::NotFound)
        };
    };
    let Some(peerjs) = endpoints.peerjs() else {
        return Rejection::NotFound.into_response();
    };
    let permit = match websocket::enter(&endpoints, from, &headers) {
        Ok(permit) => permit,
        Err(rejection) => return rejection.into_response(),
    };
    let (realm, initial_login) = initial_login(peerjs, uri.query().unwrap_or_default());
    let mut admitted = None;
    if let InitialLogin::Given(request) = &initial_login {
        let token = admission::token_of(&headers, &uri, JWT);
        let id = Some(request.name.as_str());
        admitted = match endpoints.admit_login(token, &realm, id).await {
            Ok(admitted) => admitted,
            Err(rejection) => return cors::allow(&endpoints, &headers, rejection),
        };
    }
    let setup = SessionSetup {
        realm,
        admitted,
        permit,
        initial_login,
        policy: SessionPolicy {
            grace: Some(peerjs.grace),
            offline_ttl: peerjs.expire_timeout,
            confirms_calls: true,
        },
        clocks: Clocks {
            beats_within: Some(peerjs.alive_timeout),
            ..endpoints.settings.clocks
        },
        read_buffer: READ_BUFFER,
        received,
    };
    let codec = PeerJs::new(peerjs.sends_leave);
    websocket::open_session(&endpoints, from, &headers, upgrade, codec, setup)
}

/// The realm and the login that a URL's query asks for. The last one of a repeated parameter
/// counts.
fn initial_login(settings: &Settings, query: &str) -> (Realm, InitialLogin) {
    let (mut id, mut token, mut key) = (String::new(), String::new(), String::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "id" => id = value.into_owned(),
            "token" => token = value.into_owned(),
            "key" => key = value.into_owned(),
            _ => {}
        }
    }
    let initial_login = if id.is_empty() || token.is_empty() || key.is_empty() {
        InitialLogin::Refused(NOT_SUPPLIED)
    } else if settings.keys.contains(&key) {
        InitialLogin::Given(Box::new(LoginRequest {
            name: id,
            own_secret: Some(token),
            ..LoginRequest::default()
        }))
    } else {
        InitialLogin::Refused(INVALID_KEY)
    };
    (realm_of(&key), initial_login)
}

/// The realm of an HTTP request with this key. An unknown key counts as the first that is configured, as `PeerServer`
/// ignores keys here; with `strict_key` it has no realm.
fn realm(endpoints: &Endpoints, key: &str) -> Option<Realm> {
    let peerjs = endpoints.peerjs()?;
    if peerjs.path == "/" && RESERVED.contains(&key) {
        return None;
    }
    let known = peerjs.keys.iter().any(|known| known == key);
    if !known && peerjs.strict_key {
        return None;
    }
    let key = if known { key } else { peerjs.keys.first()? };
    Some(realm_of(key))
}

fn realm_of(key: &str) -> Realm {
    Realm::new(&format!("peerjs:{key}"))
}

/// A random UUID (RFC 9562, version 4).
fn uuid() -> String {
    let random: u128 = rand::random();
    let version = random & !(0xf << 76) | 4 << 76;
    let digits = format!("{:032x}", version & !(0b11 << 62) | 0b10 << 62);
    [
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            path: "/".to_owned(),
            keys: vec!["peerjs".to_owned(), "other".to_owned()],
            strict_key: false,
            allow_discovery: false,
            sends_leave: false,
            expire_timeout: Duration::ZERO,
            alive_timeout: Duration::ZERO,
            grace: Duration::ZERO,
        }
    }

    #[test]
    fn uuids_have_version_4() {
        for _ in 0..100 {
            let uuid = uuid();
            let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{uuid}");
            assert!(uuid.as_bytes()[14] == b'4' && b"89ab".contains(&uuid.as_bytes()[19]));
        }
    }

    #[test]
    fn the_last_repeated_parameter_counts() {
        let (realm, initial_login) = initial_login(
            &settings(),
            "key=other&id=wrong&token=t%20t&version=1.5.5&id=a%20b",
        );
        assert_eq!(realm.as_str(), "peerjs:other");
        let InitialLogin::Given(request) = initial_login else {
            panic!("refused");
        };
        assert_eq!(request.name, "a b");
        assert_eq!(request.own_secret.as_deref(), Some("t t"));
    }

    #[test]
    fn incomplete_logins_are_refused_in_the_order_of_the_original() {
        for (query, refusal) in [
            ("", NOT_SUPPLIED),
            ("key=peerjs&id=a", NOT_SUPPLIED),
            ("key=peerjs&id=&token=t", NOT_SUPPLIED),
            ("key=&id=a&token=t", NOT_SUPPLIED),
            ("key=nope&id=a&token=t", INVALID_KEY),
        ] {
            let (_, initial_login) = initial_login(&settings(), query);
            assert!(
                matches!(&initial_login, InitialLogin::Refused(told) if *told == refusal),
                "{query}: {initial_login:?}"
            );
        }
    }
}

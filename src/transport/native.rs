//! The native WebSocket endpoint: every path that is no other route.

use std::net::SocketAddr;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};

use super::progress::ReceivedBytes;
use super::reject::Rejection;
use super::websocket::{SessionSetup, asks_for_websocket, enter as enter_door, open_session};
use super::{Endpoints, admission, cors, pages};
use crate::model::Realm;
use crate::protocol::Native;
use crate::session::InitialLogin;
use crate::session::state::SessionPolicy;

/// Size of the read buffer in bytes. It is allocated per connection and zeroed at every read: the
/// default of 128 KiB costs 136 KiB per connection and 12 µs per relayed message (measured).
const READ_BUFFER: usize = 1024;

/// Upgrades requests at `/`, `/ws` and every path that is no other route: the tutorial's server
/// ignores the path too. Other requests get the page or an error.
pub(super) async fn enter(
    State(endpoints): State<Endpoints>,
    Extension(from): Extension<SocketAddr>,
    Extension(received): Extension<ReceivedBytes>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match (upgrade, uri.path()) {
        (_, path) if is_peerjs_path(path) => return Rejection::NotFound.into_response(),
        (Ok(upgrade), _) => upgrade,
        (Err(_), _) if asks_for_websocket(&headers) => {
            return Rejection::BadUpgrade.into_response();
        }
        (Err(_), "/") => return pages::root(&endpoints, &headers),
        (Err(_), "/ws") => return Rejection::NotAnUpgrade.into_response(),
        _ => return Rejection::NotFound.into_response(),
    };
    let permit = match enter_door(&endpoints, from, &headers) {
        Ok(permit) => permit,
        Err(rejection) => return rejection.into_response(),
    };
    let token = admission::token_of(&headers, &uri, "token");
    let admitted = match endpoints.admit(token).await {
        Ok(admitted) => admitted,
        Err(rejection) => return cors::allow(&endpoints, &headers, rejection),
    };
    let setup = SessionSetup {
        realm: Realm::default(),
        admitted,
        permit,
        initial_login: InitialLogin::ByMessage,
        policy: SessionPolicy::default(),
        clocks: endpoints.settings.clocks,
        read_buffer: READ_BUFFER,
        received,
    };
    open_session(&endpoints, from, &headers, upgrade, Native, setup)
}

/// Whether a path looks like that of PeerJS. A PeerJS client with a wrong path gets 404, because it does not understand
/// a native session.
fn is_peerjs_path(path: &str) -> bool {
    path.split('/').any(|segment| segment == "peerjs")
}

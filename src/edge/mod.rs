//! The doors: everything HTTP.

mod expiry;
mod listener;
mod ops;
pub mod peerjs;
mod reject;
mod tls;
mod websocket;

pub use listener::serve;
pub use ops::{NodeView, admin_routes};
pub use tls::{Tls, TlsError, TlsFiles};

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use crate::drain::Phase;
use crate::exchange::Exchange;
use crate::limits::Crowd;
use crate::session::Clocks;

/// What the operator decides about the doors.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How patient conversations are.
    pub clocks: Clocks,
    /// How long one write may take.
    pub write_timeout: std::time::Duration,
    /// How long a resumable session keeps its connection; zero for ever.
    pub max_age: std::time::Duration,
    /// The longest message, in bytes.
    pub frame_bytes: usize,
    /// Messages a second for one connection; 0 for no limit.
    pub signals_per_second: u32,
    /// Connections from one address; 0 for no limit.
    pub connections_per_ip: u32,
    /// The web pages that may connect; empty for all.
    pub origins: Vec<String>,
    /// PeerJS, if it is spoken.
    pub peerjs: Option<peerjs::Settings>,
}

/// What every door needs.
#[derive(Clone, Debug)]
pub struct Doors {
    settings: Arc<Settings>,
    exchange: Arc<Exchange>,
    phase: Phase,
    crowd: Crowd,
    lists: peerjs::Lists,
}

impl Doors {
    /// The doors of this exchange.
    pub fn new(settings: Settings, exchange: Arc<Exchange>, phase: Phase) -> Self {
        let crowd = Crowd::new(settings.connections_per_ip);
        Self {
            settings: Arc::new(settings),
            exchange,
            phase,
            crowd,
            lists: peerjs::Lists::default(),
        }
    }

    /// What clients see.
    pub fn routes(self) -> Router {
        let peerjs = self.peerjs().map(peerjs::routes);
        Router::new()
            .route("/", any(websocket::enter))
            .route("/ws", any(websocket::enter))
            .merge(peerjs.unwrap_or_default())
            .with_state(self)
    }

    fn peerjs(&self) -> Option<&peerjs::Settings> {
        self.settings.peerjs.as_ref()
    }

    /// Whether a page of this origin may connect. Programs send none.
    fn welcomes(&self, headers: &HeaderMap) -> bool {
        let allowed = &self.settings.origins;
        let known = |origin: &HeaderValue| {
            allowed
                .iter()
                .any(|allowed| allowed.as_bytes() == origin.as_bytes())
        };
        allowed.is_empty() || headers.get_all(header::ORIGIN).iter().all(known)
    }
}

/// What is at `/` for who does not speak WebSocket.
fn front(doors: &Doors, headers: &HeaderMap) -> Response {
    match doors.peerjs() {
        Some(settings) if settings.path == "/" => peerjs::info(doors, headers),
        _ => notice(doors),
    }
}

/// What a browser or a curious person finds at the door.
fn notice(doors: &Doors) -> Response {
    let text = format!(
        "Switchboard {}: a WebRTC signalling server.\n\n\
         Connect a WebSocket to this address and say\n\n    {{\"type\":\"login\",\"name\":\"UserA\"}}\n\n\
         then offer, answer, candidate and leave, each with the \"name\" of the other user.\n\
         From a terminal: npx wscat -c ws://<this host and port>\n\nThis is node {}.\n",
        env!("CARGO_PKG_VERSION"),
        doors.exchange.node(),
    );
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

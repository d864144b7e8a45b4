//! The doors: everything HTTP.

mod http;
mod listener;
mod ops;
mod reject;
mod tls;
mod websocket;

pub use listener::serve;
pub use ops::{NodeView, admin_routes};
pub use tls::{Tls, TlsError, TlsFiles};

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use self::reject::Rejection;
use crate::drain::Phase;
use crate::exchange::Exchange;
use crate::limits::Crowd;
use crate::model::UserName;
use crate::roaming::Roaming;
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
    /// The HTTP door.
    pub http: HttpSettings,
}

/// What the operator decides about the HTTP door.
#[derive(Clone, Copy, Debug)]
pub struct HttpSettings {
    /// How long a session lives without a sign of its client.
    pub session_ttl: std::time::Duration,
    /// How long a stream of events may say nothing.
    pub keepalive: std::time::Duration,
    /// How long it lives.
    pub stream_age: std::time::Duration,
}

/// What every door needs.
#[derive(Clone, Debug)]
pub struct Doors {
    settings: Arc<Settings>,
    exchange: Arc<Exchange>,
    phase: Phase,
    /// Connections, by address.
    crowd: Crowd,
    /// HTTP sessions that began here, by address.
    sessions: Crowd,
    roaming: Roaming,
}

impl Doors {
    /// The doors of this exchange.
    pub fn new(
        settings: Settings,
        exchange: Arc<Exchange>,
        roaming: Roaming,
        phase: Phase,
    ) -> Self {
        let crowd = || Crowd::new(settings.connections_per_ip);
        let (crowd, sessions) = (crowd(), crowd());
        Self {
            settings: Arc::new(settings),
            exchange,
            phase,
            crowd,
            sessions,
            roaming,
        }
    }

    /// What clients see.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/", any(websocket::enter))
            .route("/ws", any(websocket::enter))
            .merge(http::shared(&self, http::routes()))
            .with_state(self)
    }

    /// Who has logged in to the HTTP session whose token a request bears, if anybody has: for routes that must know who asks. Else the answer
    /// that turns it away.
    pub async fn user_of(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Option<UserName>, Response> {
        let known = async {
            let token = http::token(headers, uri)?;
            let user: Result<_, Rejection> = self.roaming.verify(&token).await.map_err(Into::into);
            user
        };
        known.await.map_err(Rejection::into_response)
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

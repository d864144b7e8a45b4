//! The endpoints: everything HTTP.

mod cors;
mod expiry;
mod http;
mod ice_servers;
mod library;
mod listener;
mod ops;
mod pages;
pub mod peerjs;
mod reject;
mod request;
mod tls;
mod websocket;
mod whoami;

pub use listener::serve;
pub use ops::{NodeView, admin_routes};
pub use tls::{Tls, TlsError, TlsFiles};

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get};

use crate::broker::{Broker, Questions};
use crate::drain::Phase;
use crate::ice::Ice;
use crate::limits::ConnectionLimit;
use crate::router::Router;
use crate::session::Clocks;

/// What the operator decides about the endpoints.
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
    /// The ICE servers that clients are told of.
    pub ice: Arc<Ice>,
    /// Whether there are pages for people with browsers.
    pub pages: bool,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// PeerJS, if it is spoken.
    pub peerjs: Option<peerjs::Settings>,
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
pub struct Endpoints {
    settings: Arc<Settings>,
    router: Arc<Router>,
    phase: Phase,
    /// Connections, by address.
    connections: ConnectionLimit,
    /// HTTP sessions that began here, by address.
    sessions: ConnectionLimit,
    homes: http::Homes,
    /// The page at `/`.
    front_page: Option<Arc<pages::File>>,
    lists: peerjs::Lists,
}

impl Endpoints {
    /// The endpoints of this router.
    pub fn new(
        settings: Settings,
        router: Arc<Router>,
        broker: Arc<dyn Broker>,
        phase: Phase,
    ) -> Self {
        let connections = || ConnectionLimit::new(settings.connections_per_ip);
        let (connections, sessions) = (connections(), connections());
        let front_page = settings.pages.then(pages::front_page).map(Arc::new);
        let settings = Arc::new(settings);
        let homes = http::Homes::new(
            broker,
            Arc::clone(&router),
            phase.clone(),
            Arc::clone(&settings),
        );
        Self {
            settings,
            router,
            phase,
            connections,
            sessions,
            homes,
            front_page,
            lists: peerjs::Lists::default(),
        }
    }

    /// Service: answers what other nodes ask about HTTP sessions.
    pub fn answer(&self, questions: Questions) -> impl Future<Output = ()> + Send + 'static {
        self.homes.answer(questions)
    }

    /// What clients see.
    pub fn routes(self) -> axum::Router {
        let peerjs = self.peerjs().map(peerjs::routes);
        let pages = self.front_page.as_ref().map(|_| pages::pages());
        let shared = axum::Router::new()
            .route("/v1/whoami", get(whoami::whoami))
            .route("/v1/ice-servers", get(ice_servers::ice_servers))
            .merge(http::routes())
            .layer(from_fn_with_state(self.clone(), cors::share));
        axum::Router::new()
            .route("/", any(websocket::enter))
            .route("/ws", any(websocket::enter))
            .merge(shared)
            .merge(pages.unwrap_or_default())
            .merge(pages::client())
            .merge(peerjs.unwrap_or_default())
            .fallback(websocket::enter)
            .with_state(self)
    }

    fn peerjs(&self) -> Option<&peerjs::Settings> {
        self.settings.peerjs.as_ref()
    }

    /// Whether a page of this origin may connect. Programs send none.
    fn allows_origin(&self, headers: &HeaderMap) -> bool {
        let allowed = &self.settings.origins;
        let known = |origin: &HeaderValue| {
            allowed
                .iter()
                .any(|allowed| allowed.as_bytes() == origin.as_bytes())
        };
        allowed.is_empty() || headers.get_all(header::ORIGIN).iter().all(known)
    }
}

//! Everything HTTP: the routes for clients and the routes for operators.

mod admin;
mod admission;
mod cors;
mod expiry;
mod headers;
mod http;
mod ice_servers;
mod library;
mod listener;
mod native;
mod node_view;
mod ops;
mod origins;
mod pages;
pub mod peerjs;
mod progress;
mod proxies;
mod reject;
mod request;
mod tls;
mod websocket;
mod whoami;

pub use listener::{Front, serve};
pub use node_view::NodeView;
pub use ops::admin_routes;
pub use origins::Origins;
pub use proxies::TrustedProxies;
pub use tls::{Tls, TlsError, TlsFiles};

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, get};

use crate::auth::Auth;
use crate::broker::{Broker, Questions, Terms};
use crate::drain::Phase;
use crate::ice::Ice;
use crate::limits::{Addresses, ConnectionLimit};
use crate::model::Pace;
use crate::router::Router;
use crate::session::Clocks;

/// The settings of the client routes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Heartbeat and login time limits of a session.
    pub clocks: Clocks,
    /// Time limit for one write to a connection.
    pub write_timeout: std::time::Duration,
    /// After this long a resumable session is asked to reconnect; zero means never.
    pub max_age: std::time::Duration,
    /// The longest message, in bytes.
    pub frame_bytes: usize,
    /// Messages per second for one connection; 0 means no limit.
    pub signals_per_second: u32,
    /// The cost of messages per second from one address; 0 means no limit.
    pub signals_per_second_per_ip: u32,
    /// Logins per minute from one address; 0 means no limit.
    pub logins_per_minute_per_ip: u32,
    /// Connections from one address (one /64 of IPv6); 0 means no limit.
    pub connections_per_ip: u32,
    /// Which web pages may connect.
    pub origins: Origins,
    /// The ICE servers that clients get at login.
    pub ice: Arc<Ice>,
    /// Checks tokens.
    pub auth: Arc<Auth>,
    /// Whether the web pages at `/` and `/doctor` are served.
    pub pages: bool,
    /// Whether the client listener uses TLS.
    pub tls: bool,
    /// PeerJS settings; `None` if PeerJS is disabled.
    pub peerjs: Option<peerjs::Settings>,
    /// Settings of HTTP sessions.
    pub http: HttpSettings,
}

impl Settings {
    /// What clients of resumable sessions are told to keep to, at a node with these terms.
    fn pace(&self, terms: Terms) -> Pace {
        Pace {
            heartbeat: terms.heartbeat(),
            signals_per_second: self.signals_per_second,
            frame_bytes: self.frame_bytes,
        }
    }
}

/// The settings of HTTP sessions (section `[http]`).
#[derive(Clone, Copy, Debug)]
pub struct HttpSettings {
    /// A session ends after this long without a request from its client.
    pub session_ttl: std::time::Duration,
    /// Longest silence on an event stream before a comment is sent.
    pub keepalive: std::time::Duration,
    /// An event stream is closed after this long, so that streams spread over the nodes again.
    pub stream_age: std::time::Duration,
}

/// The state that all request handlers share. Clones share it too.
#[derive(Clone, Debug)]
pub struct Endpoints {
    settings: Arc<Settings>,
    router: Arc<Router>,
    phase: Phase,
    /// Open connections, counted by client address.
    connections: ConnectionLimit,
    /// Requests whose bodies are being received or processed, counted by client address.
    posts: ConnectionLimit,
    addresses: Addresses,
    homes: http::Homes,
    /// The page at `/`; `None` if pages are disabled.
    front_page: Option<Arc<pages::File>>,
    lists: peerjs::Lists,
}

impl Endpoints {
    /// Creates the shared state for this router and broker.
    pub fn new(
        settings: Settings,
        router: Arc<Router>,
        broker: Arc<dyn Broker>,
        phase: Phase,
    ) -> Self {
        let limit = || ConnectionLimit::new(settings.connections_per_ip);
        let (connections, posts) = (limit(), limit());
        let addresses = Addresses::new(
            settings.connections_per_ip,
            settings.signals_per_second_per_ip,
            settings.logins_per_minute_per_ip,
        );
        let front_page = settings.pages.then(pages::front_page).map(Arc::new);
        let settings = Arc::new(settings);
        let homes = http::Homes::new(
            broker,
            Arc::clone(&router),
            phase.clone(),
            Arc::clone(&settings),
            addresses.clone(),
        );
        Self {
            settings,
            router,
            phase,
            connections,
            posts,
            addresses,
            homes,
            front_page,
            lists: peerjs::Lists::default(),
        }
    }

    /// Service: answers the questions of other nodes about HTTP sessions.
    pub fn answer(&self, questions: Questions) -> impl Future<Output = ()> + Send + 'static {
        self.homes.answer(questions)
    }

    /// The routes of the client listener.
    pub fn routes(self) -> axum::Router {
        let peerjs = self.peerjs().map(peerjs::routes);
        let pages = self.front_page.as_ref().map(|_| pages::pages());
        let shared = axum::Router::new()
            .route("/v1/whoami", get(whoami::whoami))
            .route("/v1/ice-servers", get(ice_servers::ice_servers))
            .merge(http::routes())
            .layer(from_fn_with_state(self.clone(), cors::apply));
        axum::Router::new()
            .route("/", any(native::enter))
            .route("/ws", any(native::enter))
            .merge(shared)
            .merge(pages.unwrap_or_default())
            .merge(pages::client())
            .merge(peerjs.unwrap_or_default())
            .fallback(native::enter)
            .layer(from_fn(headers::secure))
            .with_state(self)
    }

    fn peerjs(&self) -> Option<&peerjs::Settings> {
        self.settings.peerjs.as_ref()
    }

    /// Whether the request's origin may connect. Programs send no `Origin` and are always allowed.
    fn allows_origin(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        origins.all(|origin| self.settings.origins.allow(origin))
    }
}

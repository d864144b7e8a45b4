//! The composition root: builds a node from a configuration, and runs it until it has drained.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::auth::{Auth, AuthError, Mode};
use crate::broker::memory::MemoryBroker;
use crate::broker::{self, Connected, Inbox};
use crate::config::{Backend, Config};
use crate::drain::Phase;
use crate::model::NodeId;
use crate::router::Router;
use crate::telemetry::{Telemetry, View};
use crate::transport::{self, Endpoints, Front, NodeView, Tls};
use crate::webhooks::Webhooks;

/// The backlog of a listener: after a deploy all clients reconnect at once.
const BACKLOG: u32 = 4096;
/// Time limit for the broker's first answer at startup, and for its last one at shutdown.
const BROKER_WITHIN: Duration = Duration::from_secs(5);

/// A node that is wired and bound; nothing runs yet.
#[derive(Debug)]
pub struct App {
    router: Arc<Router>,
    phase: Phase,
    /// Cancelled when an operator asks the node to drain.
    drains: CancellationToken,
    drain: Drain,
    endpoints: (TcpListener, axum::Router),
    front: Front,
    admin: (TcpListener, axum::Router),
    inbox: Inbox,
    drivers: Drivers,
}

/// The time limits of a drain (section `[drain]`).
#[derive(Clone, Copy, Debug)]
struct Drain {
    window: Duration,
    deadline: Duration,
}

struct Drivers(Vec<(&'static str, BoxFuture<'static, ()>)>);

impl std::fmt::Debug for Drivers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be bound.
    #[error(
        "cannot listen on {address}: {source}. Set {setting} to an address that is free on this machine"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The setting that names the address.
        setting: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The TLS certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] transport::TlsError),
    /// Tokens cannot be checked.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// Redis cannot be used.
    #[error(transparent)]
    Redis(#[from] broker::redis::ConnectError),
}

impl App {
    /// Binds the ports and connects the broker; nothing runs yet. Its telemetry is not exported. Fails if a port, the
    /// certificate or the Redis settings cannot be used. A Redis that does not answer is no error: the node retries.
    pub fn build(config: &Config) -> Result<Self, StartError> {
        let node = NodeId::start(&config.node_id);
        Self::build_as(node, config, Telemetry::default())
    }

    /// Like [`build`](Self::build), with this id and this telemetry.
    pub fn build_as(
        node: NodeId,
        config: &Config,
        telemetry: Telemetry,
    ) -> Result<Self, StartError> {
        match &config.backend {
            Backend::Embedded => {
                let connected = MemoryBroker::new(config.terms()).connect(node.clone());
                Self::wire(config, connected, node, "embedded", telemetry)
            }
            Backend::Redis(redis) => {
                let metrics = Arc::clone(&telemetry.metrics);
                let connected =
                    broker::redis::connect(redis, config.terms(), node.clone(), metrics)?;
                Self::wire(config, connected, node, "redis", telemetry)
            }
        }
    }

    /// Like [`build`](Self::build), on a memory broker that other nodes of this process share.
    pub fn plug_into(switch: &MemoryBroker, config: &Config) -> Result<Self, StartError> {
        let node = NodeId::start(&config.node_id);
        let connected = switch.connect(node.clone());
        Self::wire(config, connected, node, "embedded", Telemetry::default())
    }

    fn wire(
        config: &Config,
        connected: Connected,
        node: NodeId,
        kind: &'static str,
        telemetry: Telemetry,
    ) -> Result<Self, StartError> {
        let Connected {
            broker,
            inbox,
            questions,
            events,
            admin_questions,
            epoch,
            health,
            mut drivers,
        } = connected;
        let (facts, webhooks) = Webhooks::prepare(config.webhooks.as_ref(), &telemetry.metrics);
        let router = Arc::new(Router::new(
            node,
            Arc::clone(&broker),
            (epoch, health),
            config.terms(),
            config.router(),
            (telemetry, facts),
        ));
        drivers.extend(webhooks.drivers(events, &router));
        let phase = Phase::default();
        router
            .telemetry()
            .metrics
            .observe(kind, view_of(&router, &phase));
        let auth = Arc::new(Auth::new(config.auth.clone())?);
        if auth.mode() == Mode::Open {
            info!(
                "Names are first come: anybody may take any name that is free. Set auth.mode to check tokens"
            );
        }
        drivers.extend(auth.services());
        let (settings, of) = (config.transport(auth), Arc::clone(&router));
        let endpoints = Endpoints::new(settings, of, broker, phase.clone());
        drivers.push(("http questions", Box::pin(endpoints.answer(questions))));
        let drains = CancellationToken::new();
        let view = NodeView::new(Arc::clone(&router), phase.clone(), kind, drains.clone());
        let answering = view.clone().answer_all(admin_questions);
        drivers.push(("admin questions", Box::pin(answering)));
        let key = config.admin_token.as_ref();
        let admin = transport::admin_routes(view, &config.admin_hosts, key);
        Ok(Self {
            router,
            phase,
            drains,
            drain: Drain {
                // The rest of the deadline is for ending the last sessions.
                window: config.drain_window.min(config.drain_deadline / 2),
                deadline: config.drain_deadline,
            },
            endpoints: (bind(config.listen, "listen")?, endpoints.routes()),
            front: Front {
                tls: config.tls.clone().map(Tls::load).transpose()?,
                proxies: Arc::new(config.proxies()),
            },
            admin: (bind(config.admin_listen, "admin.listen")?, admin),
            inbox,
            drivers: Drivers(drivers),
        })
    }

    /// The id of this node.
    pub fn node(&self) -> &NodeId {
        self.router.node()
    }

    /// The bound address of the client listener.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoints.0.local_addr()
    }

    /// The bound address of the admin listener.
    pub fn admin_addr(&self) -> std::io::Result<SocketAddr> {
        self.admin.0.local_addr()
    }

    /// Runs until `stop` is cancelled or a service ends, then drains. Returns true if `stop` was
    /// the reason and all sessions ended in time.
    pub async fn run(self, stop: CancellationToken) -> bool {
        let Self {
            router,
            phase,
            drains,
            drain,
            endpoints,
            front,
            admin,
            inbox,
            drivers,
        } = self;
        let mut services = start_services(&router, inbox, drivers, front, endpoints, admin).await;
        let as_asked = tokio::select! {
            () = stop.cancelled() => true,
            () = drains.cancelled() => true,
            ended = services.join_next() => {
                let service = ended.and_then(Result::ok).unwrap_or("unknown (it panicked)");
                error!(service, "A service of this node ended unexpectedly, which is a bug: the node drains and stops. \
                     Please report it with the log lines before");
                false
            }
        };
        info!(sessions = phase.sessions(), "Draining");
        let empty = phase.drain(drain.window, drain.deadline).await;
        if !empty {
            let left = phase.sessions();
            warn!(
                left,
                "Sessions are left after drain.deadline; they end when their leases expire. \
                 Set drain.deadline higher to give them more time"
            );
        }
        // What is not recorded by then, the other nodes find.
        let _ = timeout(BROKER_WITHIN, router.local().facts.recorded()).await;
        let _ = timeout(BROKER_WITHIN, router.close()).await;
        services.shutdown().await;
        router.telemetry().repeats.finish();
        as_asked && empty
    }
}

/// Starts all services of a node. Each returns its name when it ends. The admin listener starts first, so that probes
/// are answered while the node waits for Redis. The listener for clients starts last.
async fn start_services(
    router: &Arc<Router>,
    inbox: Inbox,
    drivers: Drivers,
    front: Front,
    endpoints: (TcpListener, axum::Router),
    admin: (TcpListener, axum::Router),
) -> JoinSet<&'static str> {
    let mut services = JoinSet::new();
    let mut service = |name: &'static str, running: BoxFuture<'static, ()>| {
        services.spawn(async move {
            running.await;
            name
        });
    };
    for (name, driver) in drivers.0 {
        service(name, driver);
    }
    let repeats = &router.telemetry().repeats;
    let serve = |(listener, routes), front| {
        Box::pin(transport::serve(
            listener,
            routes,
            front,
            Arc::clone(repeats),
        ))
    };
    service("inbox", Box::pin(Arc::clone(router).listen(inbox)));
    service("admin listener", serve(admin, Front::default()));
    if timeout(BROKER_WITHIN, first_beat(router)).await.is_err() {
        warn!(
            "Redis does not answer: nobody can log in until it does. Check that it runs and that redis.url is right"
        );
    } else {
        router.settle().await;
    }
    service(
        "node lease renewal",
        Box::pin(Arc::clone(router).keep_node()),
    );
    service(
        "user lease renewal",
        Box::pin(Arc::clone(router).keep_users()),
    );
    service(
        "revocations",
        Box::pin(Arc::clone(router).keep_revocations()),
    );
    let summed = Arc::clone(repeats);
    service("log", Box::pin(async move { summed.sum_up().await }));
    service("presence watch", Box::pin(Arc::clone(router).watch()));
    if let Some(tls) = front.tls.clone() {
        service("certificate reload", Box::pin(tls.watch_files()));
    }
    service("listener", serve(endpoints, front));
    services
}

/// A view for the gauges. It holds the router weakly, so that metrics do not keep a stopped node
/// alive.
fn view_of(
    router: &Arc<Router>,
    phase: &Phase,
) -> impl Fn() -> View + Clone + Send + Sync + 'static {
    let (router, phase) = (Arc::downgrade(router), phase.clone());
    move || {
        let Some(router) = router.upgrade() else {
            return View::default();
        };
        let (health, draining) = (router.health(), phase.is_draining());
        View {
            names: health.sessions as u64,
            calls: health.calls,
            nodes_seen: router.nodes_seen().len() as u64,
            ready: health.ready && !draining,
            draining,
            broker_reached: health.broker_reached,
            broker_usable: health.trouble.is_none(),
            broker_queue: health.broker_queue,
        }
    }
}

async fn first_beat(router: &Router) {
    while router.first_beat().await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Listens on the address. On a machine without IPv6, every address is every address of IPv4.
fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, StartError> {
    let listen = |address: SocketAddr| {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let without_ipv6 = |error: std::io::Error| match address.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() && error.kind() != ErrorKind::AddrInUse => listen(
            SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()),
        ),
        _ => Err(error),
    };
    let listener = listen(address).or_else(without_ipv6);
    listener.map_err(|source| StartError::Bind {
        address,
        setting,
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn the_default_address_serves_ipv6_and_ipv4() {
        let everywhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
        let listener = bind(everywhere, "listen").unwrap();
        let port = listener.local_addr().unwrap().port();
        for loopback in [IpAddr::V6(Ipv6Addr::LOCALHOST), Ipv4Addr::LOCALHOST.into()] {
            let (connected, accepted) =
                tokio::join!(TcpStream::connect((loopback, port)), listener.accept());
            connected.unwrap();
            let from = accepted.unwrap().1.ip().to_canonical();
            assert_eq!(from, loopback, "limits count the address of the client");
        }
        let again = bind(SocketAddr::new(everywhere.ip(), port), "listen");
        let again = again.unwrap_err().to_string();
        assert!(again.contains("Set listen"), "{again}");
    }
}

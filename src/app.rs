//! The composition root: a configuration becomes a node that is wired and bound, and then runs until it has drained.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::broker::memory::MemoryBroker;
use crate::broker::{self, Connected, Inbox};
use crate::config::{Backend, Config};
use crate::drain::Phase;
use crate::model::NodeId;
use crate::router::Router;
use crate::telemetry::{Telemetry, View};
use crate::transport::{self, Endpoints, NodeView, Tls};

/// Connections that may wait to be accepted: after a deploy everybody comes at once.
const BACKLOG: u32 = 4096;
/// How long the broker may take for its first and its last word.
const BROKER_WITHIN: Duration = Duration::from_secs(5);

/// A node, wired and bound; nothing runs yet.
#[derive(Debug)]
pub struct App {
    router: Arc<Router>,
    phase: Phase,
    drain: Drain,
    endpoints: (TcpListener, axum::Router),
    tls: Option<Tls>,
    admin: (TcpListener, axum::Router),
    inbox: Inbox,
    drivers: Drivers,
}

/// How long a drain may take, and over how much of it the sessions are told to go.
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

/// A node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its port cannot be had.
    #[error("cannot listen on {address} ({setting}): {source}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// By which setting.
        setting: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The certificate cannot be served.
    #[error(transparent)]
    Tls(#[from] transport::TlsError),
    /// Redis cannot be used.
    #[error(transparent)]
    Redis(#[from] broker::redis::ConnectError),
}

impl App {
    /// Binds the ports and connects the broker. Exports nothing.
    pub async fn build(config: &Config) -> Result<Self, StartError> {
        let node = NodeId::start(&config.node_id);
        Self::build_as(node, config, Telemetry::default()).await
    }

    /// The same, as this node, which tells its operator what the telemetry exports.
    pub async fn build_as(
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
                    broker::redis::connect(redis, config.terms(), node.clone(), metrics).await?;
                Self::wire(config, connected, node, "redis", telemetry)
            }
        }
    }

    /// The same, plugged into a switch that other nodes of this process share.
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
            epoch,
            mut drivers,
        } = connected;
        let router = Arc::new(Router::new(
            node,
            Arc::clone(&broker),
            epoch,
            config.terms(),
            config.router(),
            telemetry,
        ));
        let phase = Phase::default();
        router
            .telemetry()
            .metrics
            .observe(kind, view_of(&router, &phase));
        let (settings, of) = (config.transport(), Arc::clone(&router));
        let endpoints = Endpoints::new(settings, of, broker, phase.clone());
        drivers.push(("http questions", Box::pin(endpoints.answer(questions))));
        let admin =
            transport::admin_routes(NodeView::new(Arc::clone(&router), phase.clone(), kind));
        Ok(Self {
            router,
            phase,
            drain: Drain {
                // What is left of the deadline is for what the last ones leave behind.
                window: config.drain_window.min(config.drain_deadline / 2),
                deadline: config.drain_deadline,
            },
            endpoints: (bind(config.listen, "listen")?, endpoints.routes()),
            tls: config.tls.clone().map(Tls::load).transpose()?,
            admin: (bind(config.admin_listen, "admin.listen")?, admin),
            inbox,
            drivers: Drivers(drivers),
        })
    }

    /// The node.
    pub fn node(&self) -> &NodeId {
        self.router.node()
    }

    /// Where clients connect.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoints.0.local_addr()
    }

    /// Where operators look.
    pub fn admin_addr(&self) -> std::io::Result<SocketAddr> {
        self.admin.0.local_addr()
    }

    /// Runs until `stop`, or until one of its services ends, and then until it has drained. True if all went as it should.
    pub async fn run(self, stop: CancellationToken) -> bool {
        let Self {
            router,
            phase,
            drain,
            endpoints,
            tls,
            admin,
            inbox,
            drivers,
        } = self;
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
        service("inbox", Box::pin(Arc::clone(&router).listen(inbox)));
        service(
            "admin listener",
            Box::pin(transport::serve(admin.0, admin.1, None)),
        );
        if timeout(BROKER_WITHIN, first_beat(&router)).await.is_err() {
            warn!("Redis does not answer yet: nobody can log in until it does");
        } else {
            router.settle().await;
        }
        service(
            "node lease keeper",
            Box::pin(Arc::clone(&router).keep_node()),
        );
        service(
            "user lease keeper",
            Box::pin(Arc::clone(&router).keep_users()),
        );
        service("presence watch", Box::pin(Arc::clone(&router).watch()));
        if let Some(tls) = tls.clone() {
            service("certificate keeper", Box::pin(tls.watch_files()));
        }
        service(
            "listener",
            Box::pin(transport::serve(endpoints.0, endpoints.1, tls)),
        );

        let as_asked = tokio::select! {
            () = stop.cancelled() => true,
            ended = services.join_next() => {
                let service = ended.and_then(Result::ok).unwrap_or("one that panicked");
                error!(service, "A service ended by itself: this node drains");
                false
            }
        };
        info!(sessions = phase.sessions(), "Draining");
        let empty = phase.drain(drain.window, drain.deadline).await;
        if !empty {
            let left = phase.sessions();
            warn!(
                left,
                "Sessions are left at drain.deadline: their leases will expire"
            );
        }
        let _ = timeout(BROKER_WITHIN, router.close()).await;
        services.shutdown().await;
        as_asked && empty
    }
}

/// What the operator's figures look up, for as long as there is a node.
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
            broker_queue: health.broker_queue,
        }
    }
}

async fn first_beat(router: &Router) {
    while router.first_beat().await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, StartError> {
    let listen = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| StartError::Bind {
        address,
        setting,
        source,
    })
}

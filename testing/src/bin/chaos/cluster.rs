//! Three nodes and their Redis, every connection through a proxy, and the faults of each.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::Outcome;
use crate::history::{Drain, History, Kind};
use testing::node::{Launch, LaunchError};
use testing::ports::free_address;
use testing::{Node, Proxy, Redis, http};

pub(crate) const NODES: usize = 3;
const STARTS_WITHIN: Duration = Duration::from_secs(8);
/// The exit code of a node that finds no Redis (`EX_UNAVAILABLE`).
const REDIS_AWAY: i32 = 69;
const OPENS_WITHIN: Duration = Duration::from_secs(10);
const POLL_READY: Duration = Duration::from_secs(1);
pub(crate) const TTL: Duration = Duration::from_secs(12);
pub(crate) const NODE_TTL: Duration = Duration::from_secs(2);
pub(crate) const GRACE: Duration = Duration::from_secs(3);
pub(crate) const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// Short timeouts, so that expiries fit into a run.
const SETTINGS: &[(&str, &str)] = &[
    ("presence.ttl", "12s"),
    ("presence.node_ttl", "2s"),
    ("presence.grace", "3s"),
    ("presence.watch_every", "500ms"),
    ("session.ping_every", "1s"),
    ("session.silent_after", "4s"),
    ("session.write_timeout", "8s"),
    ("session.mailbox_bytes", "262144"),
    ("limits.signals_per_second", "400"),
    ("drain.window", "500ms"),
    ("drain.deadline", "5s"),
    ("log.format", "json"),
    ("log.level", "info"),
];

/// What the monitor checks: processes that should be healthy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) pid: u32,
    pub(crate) admin: SocketAddr,
    pub(crate) running: bool,
    pub(crate) frozen: bool,
}

pub(crate) type Views = Arc<Mutex<[Option<View>; NODES]>>;

/// The place of a node: the node may be gone, its proxies stay.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) node: Option<Node>,
    /// Between clients and the node.
    pub(crate) door: Proxy,
    /// Between the node and Redis.
    pub(crate) store: Proxy,
    frozen: bool,
    since: Duration,
}

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) places: Vec<Place>,
    pub(crate) redis: Option<Redis>,
    pub(crate) replica: Option<Redis>,
    /// Between the primary and the replica.
    pub(crate) link: Option<Proxy>,
    /// Where Redis is, running or not.
    pub(crate) redis_address: SocketAddr,
    pub(crate) redis_since: Option<Duration>,
    pub(crate) redis_frozen: bool,
    environment: Vec<(String, String)>,
    pub(crate) history: Arc<History>,
    views: Views,
    /// The address of Redis, for tasks that query it directly.
    pub(crate) redis_at: watch::Sender<SocketAddr>,
}

impl Cluster {
    pub(crate) async fn start(
        history: &Arc<History>,
        environment: Vec<(String, String)>,
    ) -> Outcome<Self> {
        let redis = Redis::start_at(free_address()?, None).await?;
        let redis_address = redis.address;
        let link = Proxy::start(redis.address).await?;
        let replica = Redis::start_at(free_address()?, Some(link.address)).await?;
        let mut cluster = Self {
            places: Vec::new(),
            redis: Some(redis),
            replica: Some(replica),
            link: Some(link),
            redis_address,
            redis_since: None,
            redis_frozen: false,
            environment,
            history: Arc::clone(history),
            views: Views::default(),
            redis_at: watch::Sender::new(redis_address),
        };
        for node in 0..NODES {
            let store = Proxy::start(redis_address).await?;
            // The address is set once the node has a port.
            let door = Proxy::start((Ipv4Addr::LOCALHOST, 1).into()).await?;
            cluster.places.push(Place {
                node: None,
                door,
                store,
                frozen: false,
                since: Duration::ZERO,
            });
            cluster.revive(node).await?;
        }
        cluster.opens().await?;
        Ok(cluster)
    }

    /// Waits until every node is ready, which takes some time with a Redis that was just started.
    async fn opens(&self) -> Outcome<()> {
        let begun = Instant::now();
        for node in self.places.iter().filter_map(|place| place.node.as_ref()) {
            while http_status(node.admin, "/readyz", POLL_READY).await != Some(200) {
                if begun.elapsed() > OPENS_WITHIN {
                    return Err("a node does not get ready".into());
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    pub(crate) fn views(&self) -> Views {
        Arc::clone(&self.views)
    }

    pub(crate) fn redis_follower(&self) -> watch::Receiver<SocketAddr> {
        self.redis_at.subscribe()
    }

    fn view(&self, node: usize) -> MutexGuard<'_, [Option<View>; NODES]> {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &self.places[node];
        views[node] = place.node.as_ref().map(|found| View {
            pid: found.process.id(),
            admin: found.admin,
            running: true,
            frozen: place.frozen,
        });
        views
    }

    pub(crate) fn redis_is_well(&self) -> bool {
        self.redis.is_some() && !self.redis_frozen
    }

    pub(crate) fn is_well(&self, node: usize) -> bool {
        self.places[node].node.is_some() && !self.places[node].frozen
    }

    // === Nodes ===

    /// Starts a node in this place if there is none.
    pub(crate) async fn revive(&mut self, node: usize) -> Outcome<()> {
        if self.places[node].node.is_some() {
            return Ok(());
        }
        let store = self.places[node].store.address;
        let Some(started) = start_node(store, &self.environment).await? else {
            // A supervisor would start it again; here the next call does.
            return Ok(());
        };
        self.places[node].door.set_upstream(started.address);
        self.places[node].node = Some(started);
        if !self.places[node].since.is_zero() {
            let since = self.places[node].since;
            self.history.trouble(Kind::NodeDead, Some(node), since);
        }
        drop(self.view(node));
        Ok(())
    }

    pub(crate) fn kill(&mut self, node: usize) -> Outcome<()> {
        self.thaw(node)?;
        let Some(found) = self.places[node].node.take() else {
            return Ok(());
        };
        drop(self.view(node));
        self.judge_log(node, &found);
        found.process.try_signal("KILL")?;
        self.places[node].since = self.history.now();
        Ok(())
    }

    pub(crate) fn freeze(&mut self, node: usize) -> Outcome<()> {
        let place = &mut self.places[node];
        if let (Some(found), false) = (&place.node, place.frozen) {
            place.frozen = true;
            place.since = self.history.now();
            found.process.try_signal("STOP")?;
        }
        drop(self.view(node));
        Ok(())
    }

    pub(crate) fn thaw(&mut self, node: usize) -> Outcome<()> {
        let place = &mut self.places[node];
        if let (Some(found), true) = (&place.node, place.frozen) {
            place.frozen = false;
            found.process.try_signal("CONT")?;
            let since = place.since;
            self.history.trouble(Kind::NodeFrozen, Some(node), since);
        }
        drop(self.view(node));
        Ok(())
    }

    /// Asks the node to drain and waits until it has.
    pub(crate) async fn drain(&mut self, node: usize) -> Outcome<()> {
        self.thaw(node)?;
        let Some(mut found) = self.places[node].node.take() else {
            return Ok(());
        };
        drop(self.view(node));
        let from = self.history.now();
        self.places[node].since = from;
        found.process.try_signal("TERM")?;
        let ended = found
            .process
            .ends_within(DRAIN_DEADLINE + Duration::from_secs(2))
            .await;
        self.judge_log(node, &found);
        let until = self.history.now();
        self.history.lock().drains.push(Drain {
            node,
            from,
            until,
            code: ended.and_then(|status| status.code()),
        });
        self.history.trouble(Kind::NodeDrained, Some(node), from);
        Ok(())
    }

    /// Records panics in a node's log as violations of I11.
    pub(crate) fn judge_log(&self, node: usize, found: &Node) {
        for line in found.log_lines() {
            if line.contains("panicked") {
                self.history.found(11, format!("node {node}: {line}"));
            }
        }
    }

    /// Removes nodes that ended by themselves, and records that as a violation of I11.
    pub(crate) fn look_after(&mut self) {
        for node in 0..NODES {
            let Some(found) = &mut self.places[node].node else {
                continue;
            };
            let Some(status) = found.process.exit_status() else {
                continue;
            };
            let log = found.log_lines();
            let last = log.last().map_or("", String::as_str);
            let words = format!("node {node} ended by itself ({status}): {last}");
            self.history.found(11, words);
            self.places[node].node = None;
            self.places[node].frozen = false;
            self.places[node].since = self.history.now();
            drop(self.view(node));
        }
    }

    pub(crate) async fn heal(&mut self) -> Outcome<()> {
        self.thaw_redis()?;
        self.restart_redis().await?;
        for node in 0..NODES {
            self.thaw(node)?;
            for _ in 0..10 {
                self.revive(node).await?;
                if self.places[node].node.is_some() {
                    break;
                }
            }
            if self.places[node].node.is_none() {
                return Err(format!("node {node} finds no Redis, though all is well").into());
            }
        }
        Ok(())
    }
}

/// Starts a node. `None` if it ends since Redis does not answer, as it does during many faults.
async fn start_node(redis: SocketAddr, environment: &[(String, String)]) -> Outcome<Option<Node>> {
    let launch = Launch {
        redis_url: Some(format!("redis://{redis}")),
        settings: SETTINGS
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        environment: environment.to_vec(),
        ..Launch::default()
    };
    match timeout(STARTS_WITHIN, launch.start()).await {
        Ok(Ok(node)) => Ok(Some(node)),
        Ok(Err(LaunchError::Ended(status, _))) if status.code() == Some(REDIS_AWAY) => Ok(None),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(format!("a node does not listen after {STARTS_WITHIN:?}").into()),
    }
}

/// The status of a GET; `None` without an answer in this time.
pub(crate) async fn http_status(address: SocketAddr, path: &str, within: Duration) -> Option<u16> {
    timeout(within, http::status(address, path)).await.ok()?
}

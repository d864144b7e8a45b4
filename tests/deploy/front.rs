//! Calls through the load balancer: they are spread over nodes, and resumable clients lose nothing by a drain or a
//! killed node.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

use crate::haproxy::{Haproxy, Tells};
use testing::Client;
use testing::call::{Endpoints, Party, assert_received};
use testing::websocket::{self, Options};
use testing::{Node, Redis};
use testing::{eventually, http};

/// The number of calls, each of two resumable users.
const CALLS: usize = 300;
/// The interval of signals of each side.
const EVERY: Duration = Duration::from_millis(500);

static MACHINE: Mutex<()> = Mutex::const_new(());

/// These tests measure times, so they run one at a time.
async fn alone() -> MutexGuard<'static, ()> {
    MACHINE.lock().await
}

struct Cluster {
    nodes: Vec<Node>,
    front: Haproxy,
    calls: Vec<(Party, Party)>,
    _redis: Redis,
}

impl Cluster {
    async fn under_load() -> Self {
        let redis = Redis::start().await;
        let mut nodes = Vec::new();
        for name in ["one", "two", "three"] {
            nodes.push(Node::start(Some(&redis), &[("node_id", name)]).await);
        }
        let front = Haproxy::before(&nodes).await;
        eventually("all nodes are behind it", async || {
            let servers = front.servers().await;
            (servers.len() == 3 && servers.iter().all(|server| server.is_up)).then_some(())
        })
        .await;
        let endpoints: Endpoints = Arc::new(std::sync::Mutex::new(vec![front.address]));
        let mut calls = Vec::new();
        for number in 0..CALLS {
            let (one, other) = (format!("a{number}"), format!("b{number}"));
            let answers = Party::start(&endpoints, &other, &one, false, EVERY);
            eventually("it has logged in", async || answers.log().at).await;
            calls.push((Party::start(&endpoints, &one, &other, true, EVERY), answers));
        }
        let cluster = Self {
            nodes,
            front,
            calls,
            _redis: redis,
        };
        cluster.continues().await;
        cluster
    }

    fn parties(&self) -> impl Iterator<Item = &Party> {
        self.calls.iter().flat_map(|(one, other)| [one, other])
    }

    /// The number of sessions of each node.
    async fn sessions(&self) -> Vec<u64> {
        let mut sessions = Vec::new();
        for node in &self.nodes {
            sessions.push(node.status().await["sessions"].as_u64().unwrap());
        }
        sessions
    }

    /// Waits until each side has sent something new that was acknowledged.
    async fn continues(&self) {
        let before: Vec<u64> = self.parties().map(|party| party.log().acked).collect();
        for (party, before) in self.parties().zip(before) {
            eventually(&format!("{} talks", party.name), async || {
                (party.log().acked > before + 1).then_some(())
            })
            .await;
        }
    }

    /// Everybody rests: everything was received once and in order, nobody received a leave, no upgrade failed. How many
    /// signals there were.
    async fn lost_nothing(&self) -> u64 {
        for party in self.parties() {
            party.pause();
        }
        let mut signals = 0;
        for party in self.parties() {
            party.settle().await;
        }
        for (one, other) in &self.calls {
            for (sender, receiver) in [(one, other), (other, one)] {
                let said = sender.log().sent;
                receiver.receives(said).await;
                assert_received(sender, receiver);
                signals += said;
            }
        }
        for party in self.parties() {
            let (log, name) = (party.log(), &party.name);
            assert!(log.leaves.is_empty(), "{name} got {:?}", log.leaves);
            assert!(log.refused.is_empty(), "{name}: {:?}", log.refused);
            assert_eq!(log.missed, 0, "{name} may have missed something");
            assert_eq!(log.failed_upgrades, 0, "{name}'s upgrade failed");
        }
        signals
    }

    /// The close codes of all connections that have ended.
    fn close_codes(&self) -> Vec<Option<u16>> {
        self.parties()
            .flat_map(|party| party.log().closes)
            .collect()
    }

    fn longest_silence(&self) -> Duration {
        let silences = self.parties().map(|party| party.log().longest_silence);
        silences.max().unwrap_or_default()
    }
}

/// Logs in one client after the other until it is dropped; each login must succeed.
struct Logins {
    stop: Arc<std::sync::atomic::AtomicBool>,
    task: tokio::task::JoinHandle<usize>,
}

impl Logins {
    fn at(front: std::net::SocketAddr) -> Self {
        let stop = Arc::<std::sync::atomic::AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut came = 0;
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                if let Err(status) = Client::try_connect(front, &[]).await {
                    panic!("login {came} was refused: {status}");
                }
                came += 1;
                sleep(Duration::from_millis(10)).await;
            }
            came
        });
        Self { stop, task }
    }

    /// The number of logins.
    async fn end(self) -> usize {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.task.await.expect("every login succeeds")
    }
}

#[tokio::test]
async fn calls_are_spread_and_a_drain_loses_nothing() {
    let _alone = alone().await;
    let mut cluster = Cluster::under_load().await;
    let sessions = cluster.sessions().await;
    let fair = CALLS as u64 * 2 / 3;
    for (node, count) in cluster.nodes.iter().zip(&sessions) {
        let spread = fair / 2..fair * 2;
        assert!(
            spread.contains(count),
            "{}: {count} of {sessions:?}",
            node.address
        );
    }

    let newcomers = Logins::at(cluster.front.address);
    let mut leaving = cluster.nodes.remove(0);
    leaving.process.signal("TERM");
    let asked = Instant::now();
    assert_eq!(leaving.process.ended().await, Some(0), "{}", leaving.log());
    let drained = asked.elapsed();
    cluster.continues().await;
    let came = newcomers.end().await;
    let signals = cluster.lost_nothing().await;

    let closes = cluster.close_codes();
    assert!(closes.iter().all(|code| *code == Some(1012)), "{closes:?}");
    assert_eq!(
        closes.len() as u64,
        sessions[0],
        "exactly the sessions of that node were closed"
    );
    println!(
        "HAProxy, {CALLS} calls spread {sessions:?}: a node drained in {drained:?}, {} were reply 1012, \
         {came} newcomers all let in, {signals} signals, none lost or repeated, longest silence {:?}",
        closes.len(),
        cluster.longest_silence(),
    );
}

#[tokio::test]
async fn a_killed_node_loses_nothing_of_resumable_clients() {
    let _alone = alone().await;
    let mut cluster = Cluster::under_load().await;
    let sessions = cluster.sessions().await;
    // A call of plain users, one of them on the node that is killed.
    let doomed = &cluster.nodes[0];
    let mut plain = Client::login(doomed.address, "plain").await;
    let mut behind = Client::login(cluster.nodes[1].address, "left-behind").await;
    plain.call(&mut behind).await;

    let newcomers = Logins::at(cluster.front.address);
    let killed = cluster.nodes.remove(0);
    killed.process.signal("KILL");
    let killed_at = Instant::now();
    let leave = behind.receive_type("leave").await;
    assert_eq!(
        (&leave["name"], &leave["reason"]),
        (&"plain".into(), &"node_lost".into())
    );
    let noticed = killed_at.elapsed();
    cluster.continues().await;
    let came = newcomers.end().await;
    let signals = cluster.lost_nothing().await;

    let closes = cluster.close_codes();
    assert!(closes.iter().all(Option::is_none), "{closes:?}");
    assert_eq!(
        closes.len() as u64,
        sessions[0],
        "exactly the sessions of that node"
    );
    for node in &cluster.nodes {
        assert_eq!(http::status(node.admin, "/readyz").await, Some(200));
    }
    println!(
        "HAProxy, kill -9 of a node with {} sessions: {came} newcomers all let in, {signals} signals, \
         none lost or repeated, longest silence {:?}, a plain user's peer received it after {noticed:?}",
        sessions[0],
        cluster.longest_silence(),
    );
}

/// Limits per address hold for the clients behind it, whichever address they write themselves.
#[tokio::test]
async fn nodes_know_where_clients_come_from() {
    let settings = [
        ("limits.trusted_proxies", "127.0.0.1"),
        ("limits.connections_per_ip", "1"),
    ];
    let forged = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("Forwarded", "for=192.0.2.1"),
    ];
    for tells in [Tells::Header, Tells::ProxyProtocol] {
        let node = Node::start(None, &settings).await;
        let front = Haproxy::telling(tells, std::slice::from_ref(&node)).await;
        let open = async |client: &str| {
            let options = Options {
                from: Some(client.parse().unwrap()),
                headers: &forged,
                ..Options::default()
            };
            websocket::connect(front.address, "/ws", options).await
        };
        let held = open("127.0.0.5").await.unwrap();
        assert!(
            open("127.0.0.5").await.is_err(),
            "{tells:?}: one for each address"
        );
        assert!(open("127.0.0.6").await.is_ok(), "{tells:?}: another client");
        drop(held);
    }
}

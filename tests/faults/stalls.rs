//! A Redis that freezes, dies or loses its data: no call ends, no name is given away, everybody is reachable soon
//! after.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use testing::Client;
use testing::{Node, Redis};
use testing::{eventually, http};

/// A signal to another node is refused within this time while Redis is away.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);
/// After an outage every user can be reached within this time.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// The loss of all data is noticed within this time.
const NOTICED_WITHIN: Duration = Duration::from_millis(1500);

/// 200 calls over two nodes, half of them on one node, and strangers who try to take live users' names.
struct Scenario {
    redis: Redis,
    nodes: [Node; 2],
    across: Vec<(Client, Client)>,
    local: Vec<(Client, Client)>,
    probers: [Client; 2],
}

impl Scenario {
    async fn build() -> Self {
        let redis = Redis::start().await;
        // The prober sends to all users as fast as the machine can.
        let fast = [("limits.signals_per_second", "0")];
        let nodes = [
            Node::start(Some(&redis), &fast).await,
            Node::start(Some(&redis), &fast).await,
        ];
        let (mut across, mut local) = (Vec::new(), Vec::new());
        for number in 0..100 {
            let mut one = Client::login(nodes[0].address, &format!("x{number}")).await;
            let mut other = Client::login(nodes[1].address, &format!("y{number}")).await;
            one.call(&mut other).await;
            across.push((one, other));
            let node = nodes[number % 2].address;
            let mut one = Client::login(node, &format!("v{number}")).await;
            let mut other = Client::login(node, &format!("w{number}")).await;
            one.call(&mut other).await;
            local.push((one, other));
        }
        let probers = [
            Client::login(nodes[0].address, "p0").await,
            Client::login(nodes[1].address, "p1").await,
        ];
        Self {
            redis,
            nodes,
            across,
            local,
            probers,
        }
    }

    /// Tries to log in with names of live users, on both nodes, until stopped. No attempt may succeed.
    fn strangers(&self) -> (CancellationToken, JoinHandle<usize>) {
        let stop = CancellationToken::new();
        let addresses = self.nodes.each_ref().map(|node| node.address);
        let task = tokio::spawn(try_names(addresses, stop.clone()));
        (stop, task)
    }

    /// During the outage users of one node reach each other, and signals to other nodes are refused in time.
    async fn talks_without_redis(&mut self) {
        for (one, other) in self.local.iter_mut().take(10) {
            one.send(&json!({"type": "candidate", "name": other.name, "candidate": 1, "id": 1}))
                .await;
            assert_eq!(
                other.receive_type("candidate").await["name"],
                one.name.as_str()
            );
            assert_eq!(one.receive_type("ack").await["status"], "delivered");
        }
        for (one, other) in self.across.iter_mut().take(10) {
            let asked = Instant::now();
            let answer = one.send_message(&other.name, "away").await;
            assert_eq!(answer["code"], "unavailable", "{answer}");
            assert!(
                asked.elapsed() < REFUSED_WITHIN,
                "refused after {:?}",
                asked.elapsed()
            );
        }
    }

    /// Waits until every user can be reached from both nodes, within the limit.
    async fn is_back(&mut self, since: Instant) {
        let names: Vec<String> = self.peers().map(|peer| peer.name.clone()).collect();
        for prober in &mut self.probers {
            for name in &names {
                loop {
                    let answer = prober
                        .send_message(name, &format!("{name} {:?}", since.elapsed()))
                        .await;
                    if answer["type"] == "ack" {
                        break;
                    }
                    // A loss of all data is noticed with the next heartbeat.
                    let unnoticed =
                        since.elapsed() < NOTICED_WITHIN && answer["code"] == "user_unavailable";
                    assert!(
                        unnoticed || answer["code"] == "unavailable",
                        "{name}: {answer}"
                    );
                    assert!(
                        since.elapsed() < BACK_WITHIN,
                        "{name} cannot be reached: {answer}"
                    );
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
        println!(
            "all {} users were reached from both nodes {:?} after Redis was back",
            names.len(),
            since.elapsed()
        );
    }

    /// Checks that nobody got a leave, no connection was closed, and every call can still be ended.
    async fn lost_nothing(&mut self) {
        for peer in self
            .across
            .iter_mut()
            .chain(&mut self.local)
            .flat_map(|(one, other)| [one, other])
        {
            peer.send(&json!({"type": "ping", "id": "settled"})).await;
            loop {
                let message = peer.receive().await;
                assert_ne!(message["type"], "leave", "{} got {message}", peer.name);
                if message["id"] == "settled" {
                    break;
                }
            }
        }
        for (one, other) in self.across.iter_mut().chain(&mut self.local) {
            one.send(&json!({"type": "leave", "name": other.name}))
                .await;
            assert_eq!(other.receive_type("leave").await["reason"], "hangup");
        }
    }

    fn peers(&self) -> impl Iterator<Item = &Client> {
        self.across
            .iter()
            .chain(&self.local)
            .flat_map(|(one, other)| [one, other])
    }

    /// Causes a fault, and checks what must hold during and after it.
    async fn survives(mut self, fault: impl AsyncFnOnce(&mut Self) -> Instant) {
        let (stop, strangers) = self.strangers();
        let back = fault(&mut self).await;
        self.is_back(back).await;
        for (number, node) in self.nodes.iter().enumerate() {
            let mut login_attempt = Client::connect(node.address).await;
            let name = format!("login_attempt{number}");
            eventually("logins can log in again", async || {
                (login_attempt.try_login(&name).await["success"] == true).then_some(())
            })
            .await;
        }
        // Every lease was renewed since, so a lost name would show by now.
        stop.cancel();
        let tries = strangers.await.unwrap();
        assert!(tries > 20, "strangers tried {tries} times only");
        self.lost_nothing().await;
        for node in &self.nodes {
            assert_eq!(http::status(node.admin, "/livez").await, Some(200));
        }
    }
}

async fn try_names(addresses: [SocketAddr; 2], stop: CancellationToken) -> usize {
    let mut strangers = [
        Client::connect(addresses[0]).await,
        Client::connect(addresses[1]).await,
    ];
    for tries in 0.. {
        if stop.is_cancelled() {
            return tries;
        }
        let name = format!("{}{}", ["x", "y", "v", "w"][tries % 4], tries / 4 % 100);
        // Stays below the rate limit.
        sleep(Duration::from_millis(10)).await;
        let reply = strangers[tries % 2].try_login(&name).await;
        assert_eq!(
            reply["success"], false,
            "a stranger won the name of {name}, who lives: {reply}"
        );
        let code = reply["code"].as_str().unwrap();
        assert!(["name_taken", "unavailable"].contains(&code), "{reply}");
    }
    unreachable!()
}

async fn stopped_for(scenario: &mut Scenario, time: Duration) -> Instant {
    scenario.redis.process.signal("STOP");
    let stopped = Instant::now();
    scenario.talks_without_redis().await;
    // This sleep is the stall, not a wait for a condition.
    sleep(time.saturating_sub(stopped.elapsed())).await;
    scenario.redis.process.signal("CONT");
    Instant::now()
}

#[tokio::test]
async fn redis_is_stopped_for_forty_seconds() {
    let _alone = crate::alone().await;
    let fault = async |scenario: &mut Scenario| {
        let back = stopped_for(scenario, Duration::from_secs(40)).await;
        for node in &scenario.nodes {
            assert_eq!(
                http::status(node.admin, "/readyz").await,
                Some(503),
                "unready after 10 s without Redis"
            );
        }
        back
    };
    Scenario::build().await.survives(fault).await;
}

#[tokio::test]
async fn redis_stalls_for_four_and_a_half_seconds() {
    let _alone = crate::alone().await;
    let fault =
        async |scenario: &mut Scenario| stopped_for(scenario, Duration::from_millis(4500)).await;
    Scenario::build().await.survives(fault).await;
}

#[tokio::test]
async fn redis_is_killed_and_started_empty() {
    let _alone = crate::alone().await;
    let fault = async |scenario: &mut Scenario| {
        scenario.redis.replace().await;
        Instant::now()
    };
    Scenario::build().await.survives(fault).await;
}

#[tokio::test]
async fn redis_forgets_everything() {
    let _alone = crate::alone().await;
    let fault = async |scenario: &mut Scenario| {
        scenario.redis.ask("FLUSHALL").await;
        Instant::now()
    };
    Scenario::build().await.survives(fault).await;
}

/// The connections of a Redis, including the one that asks.
async fn connections_to(redis: &Redis) -> HashSet<String> {
    let redis::Value::BulkString(list) = redis.ask("CLIENT LIST").await else {
        panic!("no list")
    };
    let list = String::from_utf8(list).unwrap();
    let ids = list.lines().filter_map(|line| line.split(' ').next());
    ids.map(str::to_owned).collect()
}

#[tokio::test]
async fn redis_has_no_memory_left() {
    let redis = Redis::start().await;
    let one = Node::start(Some(&redis), &[]).await;
    let other = Node::start(Some(&redis), &[]).await;
    let mut plain = (
        Client::login(one.address, "a").await,
        Client::login(other.address, "b").await,
    );
    plain.0.call(&mut plain.1).await;
    let mut resumable = (
        Client::login_resumable(one.address, "c").await,
        Client::login_resumable(other.address, "d").await,
    );
    resumable.0.call(&mut resumable.1).await;

    assert!(
        !one.log().contains("Redis cannot be used"),
        "no false alarm"
    );

    let connections = connections_to(&redis).await;
    redis.ask("CONFIG SET maxmemory 1").await;
    for n in 0..5 {
        let (from, to) = &mut resumable;
        let answer = from.send_message(&to.name, &format!("full {n}")).await;
        assert_eq!(answer["code"], "unavailable", "{answer}");
        // Redis stores nothing for the peer of a plain call.
        let (from, to) = &mut plain;
        let answer = from.send_message(&to.name, &format!("full {n}")).await;
        assert_eq!(answer["status"], "delivered", "{answer}");
        assert_eq!(to.receive_type("message").await["name"], from.name.as_str());
    }
    let mut login_attempt = Client::connect(one.address).await;
    let reply = login_attempt.try_login("e").await;
    assert_eq!(reply["code"], "unavailable", "{reply}");
    let logged = || one.log().matches("Redis is out of memory").count();
    eventually("the loss of memory is logged", async || {
        (logged() > 0).then_some(())
    })
    .await;
    let kept = connections_to(&redis).await;
    assert!(
        connections.difference(&kept).count() <= 1,
        "a new connection makes no room, and is not made; only that of the test itself has gone"
    );

    redis.ask("CONFIG SET maxmemory 0").await;
    // What follows a refused signal is refused until that is repeated, so that order holds
    // (docs/src/protocol/messages.md, "Resume").
    let (from, to) = &mut resumable;
    for n in 0..5 {
        let answer = from.send_message(&to.name, &format!("full {n}")).await;
        assert_eq!(answer["status"], "delivered", "{answer}");
        assert_eq!(to.receive_type("message").await["name"], from.name.as_str());
    }
    for (from, to) in [&mut plain, &mut resumable] {
        let answer = from.send_message(&to.name, "room again").await;
        assert_eq!(answer["status"], "delivered", "{answer}");
        assert_eq!(to.receive_type("message").await["name"], from.name.as_str());
    }
    eventually("logins can log in again", async || {
        (login_attempt.try_login("e").await["success"] == true).then_some(())
    })
    .await;
}

/// Sends 50 messages a second to a user who is present, until stopped; the codes of the refusals.
async fn keeps_sending(mut one: Client, to: String, stop: CancellationToken) -> Vec<String> {
    let mut refusals = Vec::new();
    let mut rate = interval(Duration::from_millis(20));
    rate.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0.. {
        if stop.is_cancelled() {
            break;
        }
        // Without a pause a fast machine exceeds `limits.signals_per_second`.
        rate.tick().await;
        one.send(&json!({"type": "message", "name": to, "message": 1, "id": number}))
            .await;
        loop {
            let answer = one.receive().await;
            if answer["type"] == "ack" {
                break;
            }
            if let Some(code) = answer["code"].as_str() {
                refusals.push(code.to_owned());
                break;
            }
        }
    }
    refusals
}

#[tokio::test]
async fn an_empty_redis_reports_no_present_user_as_absent() {
    let _alone = crate::alone().await;
    let mut redis = Redis::start().await;
    let nodes = [
        Node::start(Some(&redis), &[]).await,
        Node::start(Some(&redis), &[]).await,
    ];
    let stop = CancellationToken::new();
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for number in 0..20 {
        let name = format!("r{number}");
        let one = Client::login_resumable(nodes[0].address, &format!("s{number}")).await;
        receivers.push(Client::login_resumable(nodes[1].address, &name).await);
        senders.push(tokio::spawn(keeps_sending(one, name, stop.clone())));
    }
    redis.replace().await;
    eventually("all users can be reached", async || {
        let keys = redis.keys().await;
        let names = keys.iter().filter(|(key, _)| key.starts_with("sb:p:"));
        (names.count() == 40).then_some(())
    })
    .await;
    stop.cancel();
    let mut refusals = Vec::new();
    for sender in senders {
        refusals.extend(sender.await.unwrap());
    }
    let absent = refusals
        .iter()
        .filter(|code| *code == "user_unavailable")
        .count();
    println!("{} refusals, {absent} of them final", refusals.len());
    assert!(
        !refusals.is_empty(),
        "no signal was refused during the outage"
    );
    assert_eq!(absent, 0, "of {} refusals", refusals.len());
}

//! The cluster of `docker-compose.yml` on a real Docker engine: `make compose-test`.
//!
//! One scenario in order: start, calls, a Redis outage, a killed node, more nodes, every node replaced. 60 calls of
//! resumable users continue through it all; at the end every signal has arrived once and in order, and nobody got a
//! leave.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod engine;
mod images;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use testing::Client;
use testing::call::{Party, assert_received};
use testing::{eventually, http};
use tokio::time::{Instant, sleep};

use crate::engine::Project;
use testing::collector::{Collector, ReceivedSpan};

/// The number of calls of two resumable users, and the interval of their signals.
const CALLS: usize = 60;
const EVERY: Duration = Duration::from_millis(250);

#[tokio::main]
async fn main() {
    assert!(
        engine::succeeds("docker version") && engine::succeeds("docker compose version"),
        "no Docker engine with Compose v2 answers: install one, or run this where there is one"
    );
    let begun = Instant::now();
    let images = images::gather();
    // Takes Jaeger's place. It listens on every address, since the nodes are in a network of their own.
    let collector = Collector::start_on("0.0.0.0").await;
    let endpoint = format!("http://{}:{}", engine::gateway(), collector.grpc.port());
    let mut settings = images.settings.clone();
    settings.push(("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint));
    let project = Project::new(&settings);
    tells(begun, "images are here; not the real thing:");
    for stand_in in &images.stand_ins {
        println!("            {stand_in}");
    }
    project.compose("config --quiet").await;
    project.compose("build node").await;
    let size = "docker image inspect --format '{{.Size}}' switchboard:test";
    let size: u64 = project.run(size).await.trim().parse().unwrap();
    tells(
        begun,
        &format!("the image of a node is built: {} MB", size / 1_000_000),
    );

    let up = Instant::now();
    project
        .compose(&format!("up --detach --wait {}", images.services.join(" ")))
        .await;
    let mut town = Scenario::build(&project).await;
    tells(
        begun,
        &format!(
            "the first call {:.1} s after `docker compose up`",
            up.elapsed().as_secs_f32()
        ),
    );
    town.fill(CALLS).await;
    let spread = town.spread().await;
    assert!(
        spread.len() == 3 && spread.iter().all(|count| *count >= 20),
        "{spread:?}"
    );
    tells(
        begun,
        &format!("{CALLS} calls, through HAProxy, on three nodes: {spread:?} sessions"),
    );

    let (trace, containers) = one_trace(&project, &collector).await;
    tells(
        begun,
        &format!("one call is one trace, {trace}, with spans of {containers:?}"),
    );

    let silence = redis_is_away(&town).await;
    // Redis comes back from its file, which may lack the last second.
    let missed = town.parties().count();
    let all_are_told = async || (town.missed() == missed).then_some(());
    eventually(
        "all are told that they may have missed something",
        all_are_told,
    )
    .await;
    tells(
        begun,
        &format!("Redis was stopped for {silence:.0?}: all calls continue"),
    );

    a_node_is_killed(&town).await;
    assert_eq!(town.missed(), missed, "a node's death loses nothing new");
    tells(
        begun,
        "a node was killed: a plain user's peer got node_lost, no other session noticed",
    );
    project.compose("up --detach --wait node").await;

    project
        .compose("up --detach --wait --no-recreate --scale node=5 node")
        .await;
    eventually("five nodes are behind HAProxy", async || {
        (town.spread().await.len() == 5).then_some(())
    })
    .await;
    town.fill(30).await;
    let spread = town.spread().await;
    assert!(spread.iter().all(|count| *count >= 5), "{spread:?}");
    tells(
        begun,
        &format!("two more nodes, and 30 more calls: {spread:?}"),
    );

    let before = project.containers("node").await;
    let rolled = Instant::now();
    project.run("deploy/docker/roll.sh").await;
    let after = project.containers("node").await;
    assert!(
        after.len() == 5 && after.iter().all(|new| !before.contains(new)),
        "{after:?}"
    );
    town.continues().await;
    tells(
        begun,
        &format!(
            "each of five nodes was replaced, in {:.0?}",
            rolled.elapsed()
        ),
    );

    let (signals, resumes) = town.lost_nothing().await;
    assert_eq!(
        town.missed(),
        missed,
        "nor do more nodes, nor their replacement"
    );
    tells(
        begun,
        &format!(
            "{signals} signals, {resumes} resumes: none lost, none repeated, no leave, no upgrade refused"
        ),
    );
}

fn tells(begun: Instant, what: &str) {
    println!("{:7.1} s   {what}", begun.elapsed().as_secs_f32());
}

/// Calls that continue through the load balancer.
struct Scenario<'a> {
    project: &'a Project,
    endpoints: testing::call::Endpoints,
    calls: Vec<(Party, Party)>,
}

impl<'a> Scenario<'a> {
    async fn build(project: &'a Project) -> Self {
        let mut town = Self {
            project,
            endpoints: Arc::new(Mutex::new(vec![project.front])),
            calls: Vec::new(),
        };
        town.fill(1).await;
        town
    }

    /// Adds this many calls.
    async fn fill(&mut self, calls: usize) {
        for _ in 0..calls {
            let number = self.calls.len();
            let (one, other) = (format!("a{number}"), format!("b{number}"));
            let answers = Party::start(&self.endpoints, &other, &one, false, EVERY);
            eventually("it has logged in", async || answers.log().at).await;
            let calls = Party::start(&self.endpoints, &one, &other, true, EVERY);
            self.calls.push((calls, answers));
        }
        self.continues().await;
    }

    fn parties(&self) -> impl Iterator<Item = &Party> {
        self.calls.iter().flat_map(|(one, other)| [one, other])
    }

    /// How many were told that they may have missed something: once, and again if they resumed before they had answered
    /// a ping, since their new node does not know then that they know.
    fn missed(&self) -> usize {
        let logs = self.parties().map(|party| (&party.name, party.log()));
        let often: Vec<_> = logs
            .filter(|(_, log)| log.missed > 1 + log.resumes)
            .map(|(name, log)| (name, log.missed, log.resumes))
            .collect();
        assert!(often.is_empty(), "told too often: {often:?}");
        self.parties()
            .filter(|party| party.log().missed > 0)
            .count()
    }

    /// Waits until everybody is understood, and hears something new.
    async fn continues(&self) {
        let counts = |party: &Party| (party.log().acked, party.log().received.len());
        let before: Vec<_> = self.parties().map(counts).collect();
        for (party, (acked, received)) in self.parties().zip(before) {
            eventually(&format!("{} talks", party.name), async || {
                let now = counts(party);
                (now.0 > acked + 1 && now.1 > received + 1).then_some(())
            })
            .await;
        }
    }

    /// The number of connections of each healthy node, according to HAProxy.
    async fn spread(&self) -> Vec<u32> {
        let page = http::get(self.project.operators, "/stats;csv").await;
        let page = page.expect("HAProxy's page");
        page.body
            .lines()
            .map(|line| line.split(',').collect::<Vec<_>>())
            .filter(|fields| fields[0] == "nodes" && fields[1].starts_with("node"))
            .filter(|fields| fields[17] == "UP")
            .map(|fields| fields[4].parse().unwrap())
            .collect()
    }

    /// Settles all calls and checks that nothing was lost; the number of signals and of resumes.
    async fn lost_nothing(&self) -> (u64, usize) {
        for party in self.parties() {
            party.pause();
        }
        for party in self.parties() {
            party.settle().await;
        }
        let mut signals = 0;
        for (one, other) in &self.calls {
            for (sender, receiver) in [(one, other), (other, one)] {
                receiver.receives(sender.log().sent).await;
                assert_received(sender, receiver);
                signals += sender.log().sent;
            }
        }
        for party in self.parties() {
            let (log, name) = (party.log(), &party.name);
            assert!(log.leaves.is_empty(), "{name} got {:?}", log.leaves);
            assert!(log.refused.is_empty(), "{name}: {:?}", log.refused);
            assert_eq!(log.failed_upgrades, 0, "{name}'s upgrade failed");
        }
        (
            signals,
            self.parties().map(|party| party.log().resumes).sum(),
        )
    }
}

/// Makes a call between two nodes; its trace, and the containers whose spans are in it.
async fn one_trace(project: &Project, collector: &Collector) -> (String, Vec<String>) {
    let (mut one, node) = login(project.front, "traced-one").await;
    let (mut other, elsewhere) = loop {
        let (other, elsewhere) = login(project.front, "traced-other").await;
        if elsewhere != node {
            break (other, elsewhere);
        }
        other.close().await;
    };
    one.call(&mut other).await;
    let trace = collector
        .wait_for("one trace with spans of both nodes", |spans| {
            let of = |node: &str| {
                let spans = spans.iter().filter(|seen| seen.instance() == node);
                spans.map(ReceivedSpan::trace).collect::<BTreeSet<_>>()
            };
            // Any call between the same two nodes will do.
            of(&node).intersection(&of(&elsewhere)).next().cloned()
        })
        .await;
    let mut containers = Vec::new();
    for node in [&node, &elsewhere] {
        containers.push(project.container_of(node).await.chars().take(12).collect());
    }
    (trace, containers)
}

/// `docker kill`: resumable users resume elsewhere, and the peer of a plain user gets a leave.
async fn a_node_is_killed(town: &Scenario<'_>) {
    let front = town.project.front;
    let (mut plain, node) = login(front, "plain").await;
    let mut behind = loop {
        let (behind, elsewhere) = login(front, "left-behind").await;
        if elsewhere != node {
            break behind;
        }
        behind.close().await;
    };
    plain.call(&mut behind).await;
    let container = town.project.container_of(&node).await;
    town.project.run(&format!("docker kill {container}")).await;
    let leave = behind.receive_type("leave").await;
    assert_eq!(
        leave,
        json!({"type": "leave", "name": "plain", "reason": "node_lost"})
    );
    town.continues().await;
}

/// Logs in; the client and its node.
async fn login(front: std::net::SocketAddr, name: &str) -> (Client, String) {
    let mut peer = Client::connect(front).await;
    // For some seconds after an outage, nodes refuse new logins.
    let reply = eventually(&format!("{name} logs in"), async || {
        let reply = peer.try_login(name).await;
        assert!(
            reply["success"] == true || reply["code"] == "unavailable",
            "{reply}"
        );
        (reply["success"] == true).then_some(reply)
    })
    .await;
    (peer, reply["node"].as_str().unwrap().to_owned())
}

/// Stops Redis and starts it again: connections stay. Returns the length of the outage.
async fn redis_is_away(town: &Scenario<'_>) -> Duration {
    let resumes = || {
        town.parties()
            .map(|party| party.log().resumes)
            .sum::<usize>()
    };
    let before = resumes();
    town.project.compose("stop redis").await;
    let stopped = Instant::now();
    // This sleep is the outage, not a wait for a condition.
    sleep(Duration::from_secs(5)).await;
    town.project.compose("start redis").await;
    let away = stopped.elapsed();
    town.continues().await;
    assert_eq!(resumes(), before, "no connection was lost");
    away
}

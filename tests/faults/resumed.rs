//! Calls of resumable sessions survive killed nodes, deploys, and a Redis that loses acknowledged writes.
//!
//! `make endure` (`LONG=1`) runs them as long as docs/src/guarantees.md claims.

mod spread;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use testing::call::{Endpoints, Party, assert_in_order, assert_received};
use testing::eventually;
use testing::failover::Failover;
use testing::{Node, Redis};

/// The interval of signals of each side: a call has 20 signals a second.
const EVERY: Duration = Duration::from_millis(100);

fn is_long() -> bool {
    std::env::var("LONG").is_ok_and(|long| long == "1")
}

/// Three nodes and calls over them.
struct Scenario {
    nodes: Vec<Node>,
    endpoints: Endpoints,
    calls: Vec<(Party, Party)>,
    redis_url: String,
    settings: Vec<(&'static str, String)>,
    environment: &'static [(&'static str, &'static str)],
}

impl Scenario {
    async fn build(redis_url: String, calls: usize, settings: &[(&'static str, &str)]) -> Self {
        Self::build_in(redis_url, calls, settings, &[]).await
    }

    async fn build_in(
        redis_url: String,
        calls: usize,
        settings: &[(&'static str, &str)],
        environment: &'static [(&'static str, &'static str)],
    ) -> Self {
        let settings = settings
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()));
        let mut scenario = Self {
            nodes: Vec::new(),
            endpoints: Endpoints::default(),
            calls: Vec::new(),
            redis_url,
            settings: settings.collect(),
            environment,
        };
        for _ in 0..3 {
            scenario.add_node().await;
        }
        for number in 0..calls {
            let (one, other) = (format!("a{number}"), format!("b{number}"));
            let answers = Party::start(&scenario.endpoints, &other, &one, false, EVERY);
            eventually("it has logged in", async || answers.log().at).await;
            scenario.calls.push((
                Party::start(&scenario.endpoints, &one, &other, true, EVERY),
                answers,
            ));
        }
        scenario.continues().await;
        scenario
    }

    async fn add_node(&mut self) {
        let mut settings: Vec<(&str, &str)> = vec![("redis.url", &self.redis_url)];
        settings.extend(
            self.settings
                .iter()
                .map(|(key, value)| (*key, value.as_str())),
        );
        let node = Node::start_in(None, &settings, self.environment).await;
        self.endpoints.lock().unwrap().push(node.address);
        self.nodes.push(node);
    }

    fn parties(&self) -> impl Iterator<Item = &Party> {
        self.calls.iter().flat_map(|(one, other)| [one, other])
    }

    /// Removes a node from the list that clients choose from.
    fn removes(&mut self, number: usize) -> Node {
        let node = self.nodes.remove(number);
        self.endpoints
            .lock()
            .unwrap()
            .retain(|door| *door != node.address);
        node
    }

    /// Waits until each side has sent something new that was acknowledged.
    async fn continues(&self) {
        let before: Vec<u64> = self.parties().map(|party| party.log().acked).collect();
        for (party, before) in self.parties().zip(before) {
            eventually(&format!("{} talks", party.name), async || {
                let log = party.log();
                assert!(log.refused.is_empty(), "{}: {:?}", party.name, log.refused);
                (log.acked > before + 1).then_some(())
            })
            .await;
        }
    }

    /// Settles all calls: everything arrived once and in order, and nobody got a leave.
    async fn lost_nothing(&self) -> u64 {
        self.rests(true).await
    }

    /// The same after a loss of data: signals may be missing, which every session was reply; none came twice or out of
    /// order.
    async fn lost_only_what_was_reported(&self) -> u64 {
        self.rests(false).await
    }

    async fn rests(&self, has_all: bool) -> u64 {
        for party in self.parties() {
            party.pause();
        }
        for party in self.parties() {
            party.settle().await;
        }
        let mut signals = 0;
        for (one, other) in &self.calls {
            for (sender, receiver) in [(one, other), (other, one)] {
                let said = sender.log().sent;
                receiver.receives(said).await;
                if has_all {
                    assert_received(sender, receiver);
                } else {
                    assert_in_order(sender, receiver);
                }
                signals += said;
            }
        }
        for party in self.parties() {
            let log = party.log();
            assert!(log.leaves.is_empty(), "{} got {:?}", party.name, log.leaves);
            assert!(log.refused.is_empty(), "{}: {:?}", party.name, log.refused);
            assert_eq!(
                log.missed > 0,
                !has_all,
                "{} got `missed` {} times",
                party.name,
                log.missed
            );
        }
        signals
    }

    fn resumes(&self) -> usize {
        self.parties().map(|party| party.log().resumes).sum()
    }

    fn longest_silence(&self) -> Duration {
        let silences = self.parties().map(|party| party.log().longest_silence);
        silences.max().unwrap_or_default()
    }

    /// Closes one side of each call: the other gets exactly one leave.
    async fn ends(&self) {
        for (one, _) in &self.calls {
            one.begin_close();
        }
        for (one, other) in &self.calls {
            one.close().await;
            let leaves = eventually("a leave", async || {
                let leaves = other.log().leaves;
                (!leaves.is_empty()).then_some(leaves)
            })
            .await;
            assert_eq!(leaves[0]["reason"], "closed", "{leaves:?}");
        }
        // A second leave would have been sent by now.
        sleep(Duration::from_secs(1)).await;
        for (_, other) in &self.calls {
            assert_eq!(other.log().leaves.len(), 1, "{}", other.name);
        }
    }
}

#[tokio::test]
async fn a_killed_node_loses_nothing_of_its_calls() {
    let _alone = crate::alone().await;
    for seed in 1..=if is_long() { 10 } else { 1 } {
        let redis = Redis::start().await;
        let mut scenario = Scenario::build(redis.url(), 200, &[]).await;
        sleep(Duration::from_millis(rand::random_range(0..1000))).await;
        let node = scenario.removes(rand::random_range(0..3));
        node.process.signal("KILL");
        scenario.continues().await;
        let signals = scenario.lost_nothing().await;
        println!(
            "{seed}: {signals} signals of 200 calls, {} sessions resumed after kill -9, longest silence {:?}",
            scenario.resumes(),
            scenario.longest_silence(),
        );
        assert!(scenario.resumes() > 50);
        // Then both nodes that a call may be on, one after the other.
        for _ in 0..2 {
            scenario.add_node().await;
            for party in scenario.parties() {
                party.proceed();
            }
            scenario.continues().await;
            let node = scenario.removes(0);
            node.process.signal("KILL");
            scenario.continues().await;
        }
        scenario.lost_nothing().await;
        scenario.ends().await;
    }
}

#[tokio::test]
async fn rolling_restarts_lose_nothing() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let settings = [("drain.window", "1s"), ("drain.deadline", "10s")];
    let mut scenario = Scenario::build(redis.url(), 200, &settings).await;
    let rounds = if is_long() { 10 } else { 1 };
    for _ in 0..rounds {
        for _ in 0..3 {
            scenario.add_node().await;
            let mut node = scenario.removes(0);
            node.process.signal("TERM");
            let asked = Instant::now();
            assert_eq!(node.process.ended().await, Some(0), "{}", node.log());
            assert!(asked.elapsed() < Duration::from_secs(10));
            scenario.continues().await;
        }
    }
    let signals = scenario.lost_nothing().await;
    println!(
        "{signals} signals over {rounds} rolling restarts of 3 nodes: {} resumes, longest silence {:?}",
        scenario.resumes(),
        scenario.longest_silence()
    );
    scenario.ends().await;
}

/// Nodes that treat 30 % of pushes as if their inbound queue were full. Needs the feature `seeded-bugs`.
#[cfg(feature = "seeded-bugs")]
#[tokio::test]
async fn dropped_pushes_are_delayed_and_not_lost() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let drops = &[("SWITCHBOARD_DROP_PUSHES", "30")];
    let scenario = Scenario::build_in(redis.url(), 100, &[], drops).await;
    let received = || {
        let received = scenario.parties().map(|party| party.log().received.len());
        received.sum::<usize>()
    };
    let much = received() + 20_000;
    eventually("many signals have arrived", async || {
        (received() > much).then_some(())
    })
    .await;
    let signals = scenario.lost_nothing().await;
    let longest = scenario.longest_silence();
    println!(
        "30 % of pushes dropped: {signals} signals, none lost or repeated, longest silence {longest:?}"
    );
    // Each side gets ten signals a second in order, so no signal was later than the longest silence.
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    scenario.ends().await;
}

/// In which state Redis returns from an outage.
#[derive(Clone, Copy, Debug)]
enum Return {
    WithItsData,
    Empty,
    Promoted,
}

/// Freezes or kills Redis, and brings it back in this state.
async fn redis_is_away(how: Return, outage: Duration) {
    let mut failover = Failover::start().await;
    // Sessions without a connection at the start of the outage can still resume after it, though it outlasts the grace.
    // Where nothing is lost the leases run out, too.
    let settings: &[_] = match how {
        Return::WithItsData => &[("presence.grace", "2s"), ("presence.ttl", "14s")],
        Return::Empty | Return::Promoted => &[("presence.grace", "5s")],
    };
    let scenario = Scenario::build(failover.url(), 100, settings).await;
    let back = go_away_and_return(how, outage, &mut failover, &scenario).await;
    for node in &scenario.nodes {
        let status = testing::http::status(node.admin, "/livez").await;
        assert_eq!(status, Some(200));
    }
    scenario.continues().await;
    let talking = back.elapsed();
    let signals = match how {
        Return::WithItsData => scenario.lost_nothing().await,
        Return::Empty | Return::Promoted => scenario.lost_only_what_was_reported().await,
    };
    println!(
        "{how:?} after {outage:?}: all calls continue {talking:?} after the return, {signals} signals, none repeated"
    );
    assert!(talking < Duration::from_secs(5), "{talking:?}");
    let resumes = if let Return::Promoted = how { 25 } else { 0 };
    assert_eq!(scenario.resumes(), resumes, "no connection was lost");
    if !outage.is_zero() {
        let connected = |party: &&Party| party.log().resumes == 0;
        for party in scenario.parties().filter(connected) {
            let reply = async || (party.log().statuses >= 2).then_some(());
            eventually("the outage and its end are logged", reply).await;
        }
    }
    scenario.ends().await;
}

/// Takes Redis away for that long. Returns when it is back.
async fn go_away_and_return(
    how: Return,
    outage: Duration,
    failover: &mut Failover,
    scenario: &Scenario,
) -> Instant {
    match how {
        Return::WithItsData => {
            failover.primary.process.signal("STOP");
            // This sleep is the outage, not a wait for a condition.
            sleep(outage).await;
            failover.primary.process.signal("CONT");
            Instant::now()
        }
        Return::Empty => {
            failover.primary.kill().await;
            sleep(outage).await;
            failover.primary.restart_empty().await;
            Instant::now()
        }
        Return::Promoted => {
            // Writes from here on are lost. Signals to disconnected sessions are stored nowhere else.
            failover.stop_replication();
            let away = || scenario.calls.iter().take(25).map(|(_, other)| other);
            for party in away() {
                party.disconnect().await;
            }
            let acked = || scenario.parties().map(|party| party.log().acked);
            let before = acked().sum::<u64>();
            let is_much = async || (acked().sum::<u64>() > before + 1000).then_some(());
            eventually("much is acknowledged", is_much).await;
            failover.primary.kill().await;
            sleep(outage).await;
            failover.promote().await;
            let back = Instant::now();
            for party in away() {
                party.proceed();
            }
            back
        }
    }
}

fn outage() -> Duration {
    Duration::from_secs(if is_long() { 60 } else { 8 })
}

#[tokio::test]
async fn redis_returns_with_its_data() {
    let _alone = crate::alone().await;
    // Longer than leases last.
    redis_is_away(Return::WithItsData, outage().max(Duration::from_secs(16))).await;
}

#[tokio::test]
async fn redis_returns_empty() {
    let _alone = crate::alone().await;
    redis_is_away(Return::Empty, outage()).await;
}

#[tokio::test]
async fn a_lagging_replica_is_promoted_after_an_outage() {
    let _alone = crate::alone().await;
    redis_is_away(Return::Promoted, outage()).await;
}

/// The replica takes over at once: its leases have not expired, so only its run id shows that data was lost.
#[tokio::test]
async fn a_lagging_replica_is_promoted_at_once() {
    let _alone = crate::alone().await;
    redis_is_away(Return::Promoted, Duration::ZERO).await;
}

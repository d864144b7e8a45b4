//! A store or a node that has just started: the first login is quick, and no live name is given away.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use testing::failover::Failover;
use testing::{Client, Node, Redis, eventually};

/// The first login of a new cluster succeeds within this time after the start of its nodes.
const FIRST_LOGIN_WITHIN: Duration = Duration::from_secs(2);

/// The time until a login at the node succeeds.
async fn first_login(since: Instant, node: &Node, name: &str) -> Duration {
    let mut client = Client::connect(node.address).await;
    while client.try_login(name).await["success"] != true {
        sleep(Duration::from_millis(10)).await;
    }
    since.elapsed()
}

#[tokio::test]
async fn the_first_login_at_a_new_cluster_takes_two_seconds_at_most() {
    let _alone = crate::alone().await;
    let mut slowest = Duration::ZERO;
    for _ in 0..crate::rounds(1) {
        let redis = Redis::start().await;
        let since = Instant::now();
        let (one, other) = tokio::join!(
            Node::start(Some(&redis), &[]),
            Node::start(Some(&redis), &[])
        );
        let took = tokio::join!(
            first_login(since, &one, "one"),
            first_login(since, &other, "other")
        );
        let took = took.0.max(took.1);
        assert!(took <= FIRST_LOGIN_WITHIN, "the first logins took {took:?}");
        slowest = slowest.max(took);
    }
    println!("the slowest first login came {slowest:?} after the start");
}

/// Whether Redis knows who holds the name.
async fn is_leased(redis: &Redis, name: &str) -> bool {
    let lease = redis.try_ask(&format!("EXISTS sb:p:{{/{name}}}")).await;
    lease == Some(redis::Value::Int(1))
}

/// Tries to take the name until its holder's lease is back, and once more after that.
async fn is_refused(redis: &Redis, stranger: &mut Client, name: &str) {
    let mut is_back = false;
    eventually("the holder's lease is back", async || {
        let reply = stranger.try_login(name).await;
        assert_refused(&reply, name);
        std::mem::replace(&mut is_back, is_leased(redis, name).await).then_some(())
    })
    .await;
}

fn assert_refused(reply: &Value, name: &str) {
    let code = reply["code"].as_str().unwrap_or_default();
    let is_refused = ["name_taken", "unavailable"].contains(&code);
    assert!(is_refused, "the live name {name} was given away: {reply}");
}

/// The promoted replica knows neither of the live users, and the new node has never seen the old primary.
#[tokio::test]
async fn a_node_that_starts_after_a_promotion_gives_no_live_name_away() {
    let _alone = crate::alone().await;
    let rounds = crate::rounds(2);
    for round in 0..rounds {
        let mut failover = Failover::start().await;
        let url = failover.url();
        let settings = [("redis.url", &*url)];
        let holders_node = Node::start(None, &settings).await;
        failover.stop_replication();
        let _plain = Client::login(holders_node.address, "plain").await;
        let _resumable = Client::login_resumable(holders_node.address, "resumable").await;
        failover.primary.kill().await;
        failover.promote().await;
        // From 0 to 500 ms after the promotion; the time is what is tested.
        sleep(Duration::from_millis(500) * round / rounds).await;
        let newcomer = Node::start(None, &settings).await;
        let mut strangers = (
            Client::connect(newcomer.address).await,
            Client::connect(newcomer.address).await,
        );
        tokio::join!(
            is_refused(&failover.replica, &mut strangers.0, "plain"),
            is_refused(&failover.replica, &mut strangers.1, "resumable")
        );
    }
    println!("{rounds} nodes started after a promotion, and gave no live name away");
}

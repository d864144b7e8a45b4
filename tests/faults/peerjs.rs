//! A flood of PeerJS signals to ids that nobody has, and killed nodes while signals wait.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::Value;

use testing::eventually;
use testing::peerjs::Client;
use testing::{Node, Redis};

const IDS: usize = 100_000;
/// The number of signals without an answer at any time.
const AT_ONCE: usize = 4000;

/// Memory that Redis uses, in KiB.
async fn stored(redis: &Redis) -> u64 {
    let Value::BulkString(info) = redis.ask("INFO memory").await else {
        panic!("no INFO");
    };
    let info = String::from_utf8(info).unwrap();
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    line.unwrap().trim().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_to_absent_ids_is_bounded_and_each_expires_once() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let settings = [
        ("limits.signals_per_second", "0"),
        // The clients of this test send no heartbeats.
        ("peerjs.alive_timeout", "1h"),
    ];
    let nodes = [
        Node::start(Some(&redis), &settings).await,
        Node::start(Some(&redis), &settings).await,
    ];
    let mut flood = Client::named(nodes[0].address, "flood").await;
    let mut one = Client::named(nodes[0].address, "one").await;
    let mut other = Client::named(nodes[1].address, "other").await;
    let before = (nodes[0].process.resident_kib(), stored(&redis).await);
    let mut most = before;
    let payload = "x".repeat(2000);

    let (mut sent, mut expired) = (0, HashMap::new());
    let mut longest = Duration::ZERO;
    let begun = Instant::now();
    while expired.len() < IDS {
        while sent < IDS && sent < expired.len() + AT_ONCE {
            flood
                .send(&format!(
                    r#"{{"type":"OFFER","dst":"absent{sent}","payload":"{payload}"}}"#
                ))
                .await;
            sent += 1;
        }
        let received = flood.receive().await;
        let id = received
            .strip_prefix(r#"{"type":"EXPIRE","src":"absent"#)
            .and_then(|rest| rest.strip_suffix(r#"","dst":"flood"}"#))
            .unwrap_or_else(|| panic!("unexpected: {received}"));
        *expired.entry(id.parse::<usize>().unwrap()).or_insert(0) += 1;
        if expired.len() % 2000 == 0 {
            most.0 = most.0.max(nodes[0].process.resident_kib());
            most.1 = most.1.max(stored(&redis).await);
            // Other clients are served meanwhile.
            let asked = Instant::now();
            one.send(r#"{"type":"CANDIDATE","dst":"other","payload":1}"#)
                .await;
            assert_eq!(
                other.receive().await,
                r#"{"type":"CANDIDATE","src":"one","dst":"other","payload":1}"#
            );
            longest = longest.max(asked.elapsed());
        }
    }
    let took = begun.elapsed();
    assert!(expired.values().all(|times| *times == 1), "once each");
    assert_eq!(flood.receive_within(Duration::from_secs(7)).await, None);
    let (node, store) = (most.0 - before.0, most.1.saturating_sub(before.1));
    println!(
        "{IDS} absent ids in {took:.1?}: the node took {node} KiB more, Redis {store} KiB; \
         others waited {longest:.1?} at most"
    );
    assert!(node < 32 * 1024, "the node took {node} KiB more");
    assert!(store < 16 * 1024, "Redis took {store} KiB more");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    let keys = redis.keys().await;
    assert!(!keys.iter().any(|(key, _)| key.contains("/absent")));
}

/// A client reconnects to another node before its waiting signal expires: it still gets EXPIRE.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_a_killed_node_gets_expire() {
    let redis = Redis::start().await;
    let nodes = [
        Node::start(Some(&redis), &[]).await,
        Node::start(Some(&redis), &[]).await,
    ];
    let [one, two] = nodes;
    let mut a = Client::named(one.address, "a").await;
    a.send(r#"{"type":"OFFER","dst":"nobody","payload":1}"#)
        .await;
    let mut behind = Client::named(two.address, "behind").await;
    a.send(r#"{"type":"OFFER","dst":"behind","payload":1}"#)
        .await;
    assert!(behind.receive().await.contains("OFFER"));
    drop(one);
    let mut a = Client::named(two.address, "a").await;
    let expired = r#"{"type":"EXPIRE","src":"nobody","dst":"a"}"#;
    assert_eq!(a.receive().await, expired);
}

/// The same, after Redis has lost its data before the node was killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expire_survives_a_loss_of_data_and_a_killed_node() {
    let redis = Redis::start().await;
    let slow = [("peerjs.expire_timeout", "10s")];
    let one = Node::start(Some(&redis), &slow).await;
    let two = Node::start(Some(&redis), &slow).await;
    let mut a = Client::named(one.address, "a").await;
    a.send(r#"{"type":"OFFER","dst":"nobody","payload":1}"#)
        .await;
    let noted = async || {
        let ours = redis.keys().await.into_iter().map(|(key, _)| key);
        let record = ours
            .into_iter()
            .find(|key| key.starts_with("sb:s:") && key.ends_with("/a}"))?;
        let value = redis.ask(&format!("HGET {record} w:nobody")).await;
        (value != Value::Nil).then_some(())
    };
    eventually("it is noted", noted).await;
    redis.ask("FLUSHALL").await;
    assert_eq!(noted().await, None);
    eventually("it is noted again", noted).await;
    drop(one);
    let mut a = Client::named(two.address, "a").await;
    let expired = r#"{"type":"EXPIRE","src":"nobody","dst":"a"}"#;
    assert_eq!(a.receive().await, expired);
    assert_eq!(a.receive_within(Duration::from_secs(2)).await, None, "once");
}

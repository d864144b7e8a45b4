//! A client that stops reading while others flood it: its session ends, and nobody else notices.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use testing::Client;
use testing::eventually;
use testing::{Node, Redis};

/// The load of all flooders together.
const BYTES_PER_SECOND: usize = 10 << 20;
const MESSAGE: usize = 16 << 10;
const FLOODERS: usize = 8;
/// The interval of messages of each flooder, for that load.
const SHARE: Duration =
    Duration::from_nanos((1_000_000_000 * MESSAGE * FLOODERS / BYTES_PER_SECOND) as u64);
/// The number of signals that two other users exchange during the flood, at most a hundred a second.
const MESSAGES: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_is_closed_and_others_do_not_notice() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let nodes = [
        Node::start(Some(&redis), &[]).await,
        Node::start(Some(&redis), &[]).await,
    ];
    for across in [true, false] {
        let victim_node = &nodes[1];
        let flood_node = &nodes[usize::from(!across)];
        let mut victim = Client::login(victim_node.address, "victim").await;
        let mut friend = Client::login(nodes[0].address, "friend").await;
        victim.call(&mut friend).await;
        let deaf = victim.stop_reading();
        let before = resident_kib(&nodes, &redis);

        let stop = CancellationToken::new();
        let mut flood = JoinSet::new();
        for number in 0..FLOODERS {
            let flooder = Client::login(flood_node.address, &format!("flooder{number}")).await;
            flood.spawn(offer_too_much(flooder, stop.clone()));
        }
        let begun = Instant::now();
        let others = tokio::spawn(chat(
            Client::login(nodes[0].address, "one").await,
            Client::login(nodes[1].address, "other").await,
        ));
        let leave = friend.receive_type("leave").await;
        assert_eq!(
            leave,
            json!({"type": "leave", "name": "victim", "reason": "lost"})
        );
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(10), "ended after {took:?}");
        let is_logged = async || {
            let log = victim_node.log();
            log.contains("\"close.code\":4008").then_some(())
        };
        eventually("the end is logged", is_logged).await;

        // The flood continues while others exchange signals: memory no longer grows.
        others.await.unwrap();
        eventually("the flood is refused", async || {
            let answer = friend.send_message("victim", "gone").await;
            (answer["code"] == "user_unavailable").then_some(())
        })
        .await;
        let after = resident_kib(&nodes, &redis);
        for (which, (before, after)) in ["node 1", "node 2", "Redis"]
            .into_iter()
            .zip(before.into_iter().zip(after))
        {
            assert!(
                after < before + 40 * 1024,
                "{which} grew from {before} to {after} KiB"
            );
        }
        stop.cancel();
        flood.join_all().await;
        friend.close().await;
        drop(deaf);
    }
}

/// The memory of both nodes and of Redis.
fn resident_kib(nodes: &[Node; 2], redis: &Redis) -> [u64; 3] {
    [&nodes[0].process, &nodes[1].process, &redis.process].map(testing::Process::resident_kib)
}

/// Sends its share of the flood until stopped.
async fn offer_too_much(mut flooder: Client, stop: CancellationToken) {
    let body = "x".repeat(MESSAGE);
    let message = json!({"type": "message", "name": "victim", "message": body}).to_string();
    let mut rate = tokio::time::interval(SHARE);
    while !stop.is_cancelled() {
        rate.tick().await;
        flooder.send_text(&message).await;
    }
    flooder.close().await;
}

/// Two other users exchange signals; none is lost or late.
async fn chat(mut one: Client, mut other: Client) {
    for number in 0..MESSAGES {
        let id = format!("{number}");
        let asked = Instant::now();
        assert_eq!(one.send_message("other", &id).await["status"], "delivered");
        assert_eq!(other.receive().await["message"], id.as_str());
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "late by {:?}",
            asked.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    one.close().await;
    other.close().await;
}

//! Who holds a name: a vanished client loses it soon, a live one never, one on a frozen node when its lease expires.

use std::time::{Duration, Instant};

use serde_json::json;

use testing::Client;
use testing::{Node, Redis};

#[tokio::test]
async fn a_half_open_holder_loses_its_name_within_three_seconds() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let nodes = [
        Node::start(Some(&redis), &[]).await,
        Node::start(Some(&redis), &[]).await,
    ];
    for same_node in [false, true] {
        let name = format!("holder-{same_node}");
        let mut holder = Client::login(nodes[0].address, &name).await;
        let mut peer = Client::login(nodes[1].address, &format!("peer-{same_node}")).await;
        holder.call(&mut peer).await;
        let frozen = holder.stop_reading();

        let asked = Instant::now();
        let mut wanting = Client::connect(nodes[usize::from(!same_node)].address).await;
        let reply = wanting.try_login(&name).await;
        assert_eq!(reply["success"], true, "{reply}");
        assert!(
            asked.elapsed() < Duration::from_secs(3),
            "it took {:?}",
            asked.elapsed()
        );
        let leave = peer.receive().await;
        assert_eq!(
            leave,
            json!({"type": "leave", "name": name, "reason": "lost"})
        );
        peer.expect_silence().await;
        drop(frozen);
    }
}

#[tokio::test]
async fn a_live_holder_is_never_displaced() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let nodes = [
        Node::start(Some(&redis), &[]).await,
        Node::start(Some(&redis), &[]).await,
    ];
    let mut holder = Client::login(nodes[0].address, "holder").await;
    for tries in 0..40 {
        let mut wanting = Client::connect(nodes[tries % 2].address).await;
        let reply = wanting.try_login("holder").await;
        assert_eq!(reply["code"], "name_taken", "{reply}");
        // A message during the check proves that the client is alive.
        holder.send(&json!({"type": "ping"})).await;
        assert_eq!(holder.receive().await["type"], "pong");
    }
    let mut peer = Client::login(nodes[1].address, "peer").await;
    holder.call(&mut peer).await;
}

#[tokio::test]
async fn a_frozen_node_keeps_its_names_until_its_lease_expires() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let nodes = [
        Node::start(Some(&redis), &[]).await,
        Node::start(Some(&redis), &[]).await,
    ];
    let mut holder = Client::login(nodes[0].address, "holder").await;
    let mut peer = Client::login(nodes[1].address, "peer").await;
    holder.call(&mut peer).await;
    nodes[0].process.signal("STOP");
    let frozen = Instant::now();

    let mut wanting = Client::connect(nodes[1].address).await;
    let won = loop {
        let reply = wanting.try_login("holder").await;
        if reply["success"] == true {
            break frozen.elapsed();
        }
        assert_eq!(reply["code"], "name_taken", "{reply}");
        assert!(frozen.elapsed() < Duration::from_secs(12), "never free");
    };
    assert!(
        won > Duration::from_secs(4),
        "taken while its lease may have been there: after {won:?}"
    );
    assert_eq!(peer.receive_type("leave").await["reason"], "node_lost");

    // Thawed, the node finds the name taken: it closes its session and sends nothing more.
    nodes[0].process.signal("CONT");
    assert_eq!(holder.closed().await, Some(4001));
    peer.call(&mut wanting).await;
    peer.expect_silence().await;
}

#[tokio::test]
async fn a_long_frozen_node_has_its_calls_ended_on_both_sides() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let nodes = [
        Node::start(Some(&redis), &[]).await,
        Node::start(Some(&redis), &[]).await,
    ];
    let mut frozen = Client::login(nodes[0].address, "frozen").await;
    let mut peer = Client::login(nodes[1].address, "peer").await;
    frozen.call(&mut peer).await;
    nodes[0].process.signal("STOP");
    assert_eq!(peer.receive_type("leave").await["reason"], "node_lost");
    nodes[0].process.signal("CONT");
    let leave = frozen.receive_type("leave").await;
    assert_eq!(
        leave,
        json!({"type": "leave", "name": "peer", "reason": "lost"})
    );
    // Nobody claimed the name, so the session kept it. They can call each other again.
    testing::eventually("the hold is over", async || {
        let answer = frozen.send_message("peer", "again").await;
        (answer["type"] == "ack").then_some(())
    })
    .await;
    peer.receive_type("message").await;
    frozen.call(&mut peer).await;
    peer.close().await;
    assert_eq!(frozen.receive_type("leave").await["reason"], "closed");
    frozen.expect_silence().await;
}

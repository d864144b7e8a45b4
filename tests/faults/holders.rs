//! Who holds a name: a vanished holder loses it soon, a live one never, a frozen one when its lease is gone.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::peer::Peer;
use crate::support::process::{Node, Redis};

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
        let mut holder = Peer::login(nodes[0].address, &name).await;
        let mut peer = Peer::login(nodes[1].address, &format!("peer-{same_node}")).await;
        holder.calls(&mut peer).await;
        let frozen = holder.goes_deaf();

        let asked = Instant::now();
        let mut wanting = Peer::connect(nodes[usize::from(!same_node)].address).await;
        let reply = wanting.tries_login(&name).await;
        assert_eq!(reply["success"], true, "{reply}");
        assert!(
            asked.elapsed() < Duration::from_secs(3),
            "it took {:?}",
            asked.elapsed()
        );
        let leave = peer.hears().await;
        assert_eq!(
            leave,
            json!({"type": "leave", "name": name, "reason": "lost"})
        );
        peer.hears_nothing_more().await;
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
    let mut holder = Peer::login(nodes[0].address, "holder").await;
    for tries in 0..40 {
        let mut wanting = Peer::connect(nodes[tries % 2].address).await;
        let reply = wanting.tries_login("holder").await;
        assert_eq!(reply["code"], "name_taken", "{reply}");
        // Said while being doubted, which is a sign of life like any other.
        holder.says(&json!({"type": "ping"})).await;
        assert_eq!(holder.hears().await["type"], "pong");
    }
    let mut peer = Peer::login(nodes[1].address, "peer").await;
    holder.calls(&mut peer).await;
}

#[tokio::test]
async fn a_frozen_node_keeps_its_names_until_its_lease_is_gone() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let nodes = [
        Node::start(Some(&redis), &[]).await,
        Node::start(Some(&redis), &[]).await,
    ];
    let mut holder = Peer::login(nodes[0].address, "holder").await;
    let mut peer = Peer::login(nodes[1].address, "peer").await;
    holder.calls(&mut peer).await;
    nodes[0].process.signal("STOP");
    let frozen = Instant::now();

    let mut wanting = Peer::connect(nodes[1].address).await;
    let won = loop {
        let reply = wanting.tries_login("holder").await;
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
    assert_eq!(peer.hears_of("leave").await["reason"], "node_lost");

    // Awake again, it finds its name taken: its session is told, and says nothing more to anybody.
    nodes[0].process.signal("CONT");
    assert_eq!(holder.is_closed().await, Some(4001));
    peer.calls(&mut wanting).await;
    peer.hears_nothing_more().await;
}

#[tokio::test]
async fn a_node_that_was_frozen_for_long_finds_its_calls_ended_on_both_sides() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let nodes = [
        Node::start(Some(&redis), &[]).await,
        Node::start(Some(&redis), &[]).await,
    ];
    let mut frozen = Peer::login(nodes[0].address, "frozen").await;
    let mut peer = Peer::login(nodes[1].address, "peer").await;
    frozen.calls(&mut peer).await;
    nodes[0].process.signal("STOP");
    assert_eq!(peer.hears_of("leave").await["reason"], "node_lost");
    nodes[0].process.signal("CONT");
    let leave = frozen.hears_of("leave").await;
    assert_eq!(
        leave,
        json!({"type": "leave", "name": "peer", "reason": "lost"})
    );
    // It kept its name: nobody wanted it. They can call each other again.
    crate::support::eventually("the hold is over", async || {
        let answer = frozen.sends_message("peer", "again").await;
        (answer["type"] == "ack").then_some(())
    })
    .await;
    peer.hears_of("message").await;
    frozen.calls(&mut peer).await;
    peer.closes().await;
    assert_eq!(frozen.hears_of("leave").await["reason"], "closed");
    frozen.hears_nothing_more().await;
}

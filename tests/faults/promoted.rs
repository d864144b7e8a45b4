//! A replica takes the place of Redis without what was written last: what a client was told, and has not seen, is among it.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::eventually;
use crate::support::failover::Failover;
use crate::support::peer::{Peer, Ticket};
use crate::support::process::{Node, Redis};

/// Up to which entry `client` was told, as Redis knows it.
async fn decided(redis: &Redis) -> Option<String> {
    let value = redis.ask("HGET sb:s:{/client} decided").await;
    redis::from_redis_value(value).unwrap()
}

/// Waits until Redis knows that it was told something later.
async fn is_told_later(redis: &Redis, before: Option<&str>) {
    eventually("Redis knows what the client was told", async || {
        (decided(redis).await.as_deref() != before).then_some(())
    })
    .await;
}

/// The scene: the connection of `client` was written a candidate that it never reads, is gone, and so is the Redis that knew of it.
struct Scene {
    failover: Failover,
    /// The caller's, the client's, and another.
    nodes: [Node; 3],
    caller: Peer,
    ticket: Ticket,
    /// What the replica knows.
    known: Option<String>,
}

impl Scene {
    async fn build(settings: &[(&str, &str)]) -> Self {
        let mut failover = Failover::start().await;
        let url = failover.url();
        let settings = [&[("redis.url", &*url)], settings].concat();
        let nodes = [
            Node::start(None, &settings).await,
            Node::start(None, &settings).await,
            Node::start(None, &settings).await,
        ];
        let mut caller = Peer::login(nodes[0].address, "caller").await;
        let mut client = Peer::login_resumable(nodes[1].address, "client").await;
        caller.calls(&mut client).await;
        is_told_later(&failover.primary, None).await;
        failover.is_level().await;
        failover.parts();
        let known = decided(&failover.replica).await;
        caller
            .says(&json!({"type": "candidate", "name": "client", "candidate": 1, "id": "unseen"}))
            .await;
        assert_eq!(caller.hears_of("ack").await["status"], "delivered");
        let ticket = client.ticket.clone();
        client.vanishes();
        is_told_later(&failover.primary, known.as_deref()).await;
        failover.primary.dies().await;
        Self {
            failover,
            nodes,
            caller,
            ticket,
            known,
        }
    }

    /// The client comes back as soon as it may, to the other node.
    async fn comes_back(&self) -> Peer {
        eventually("it is resumed", async || {
            let mut client = Peer::connect(self.nodes[2].address).await;
            let reply = client.tries_to_resume(&self.ticket).await;
            assert_ne!(reply["code"], "resume_failed", "{reply}");
            (reply["success"] == true).then_some(client)
        })
        .await
    }
}

#[tokio::test]
async fn what_it_has_not_seen_is_sent_again_once_and_at_once() {
    let _alone = crate::alone().await;
    let mut scene = Scene::build(&[]).await;
    scene.failover.promotes().await;
    let back = Instant::now();
    is_told_later(&scene.failover.replica, scene.known.as_deref()).await;
    let mut client = scene.comes_back().await;
    assert_eq!(client.hears_of("candidate").await["candidate"], 1);
    let late = back.elapsed();
    println!("a client has what it had not seen {late:?} after a replica was promoted");
    // Less than the store is doubted.
    assert!(late < Duration::from_secs(4), "{late:?}");
    scene.caller.calls(&mut client).await;
}

/// Nobody is left who could send it again.
#[tokio::test]
async fn who_was_put_off_for_its_sake_comes_back_though_the_grace_is_over() {
    let _alone = crate::alone().await;
    let short = [("presence.grace", "2s"), ("presence.node_ttl", "2s")];
    let Scene {
        failover,
        nodes: [callers, own, other],
        ticket,
        known,
        ..
    } = Scene::build(&short).await;
    drop(callers);
    failover.promotes().await;
    is_told_later(&failover.replica, known.as_deref()).await;
    let mut client = Peer::connect(other.address).await;
    let reply = client.tries_to_resume(&ticket).await;
    assert_eq!(reply["code"], "unavailable", "{reply}");
    eventually("nobody is put off any more", async || {
        let mut somebody = Peer::connect(own.address).await;
        let reply = somebody.tries_login("somebody").await;
        (reply["success"] == true).then_some(())
    })
    .await;
    // The time in which a client looks again.
    sleep(Duration::from_secs(1)).await;
    let mut client = Peer::resume(other.address, &ticket).await;
    let status = client.hears_of("status").await;
    assert_eq!(status["missed"], true, "{status}");
}

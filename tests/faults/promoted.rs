//! A replica takes the place of Redis without what was written last: what a client was told, and has not seen, is among it.

use std::time::Duration;

use redis::FromRedisValue;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::eventually;
use crate::support::failover::Failover;
use crate::support::peer::{Peer, Ticket};
use crate::support::process::{Node, Redis};

async fn asked<T: FromRedisValue>(redis: &Redis, words: &str) -> T {
    redis::from_redis_value(redis.ask(words).await)
        .ok()
        .unwrap()
}

/// Up to which entry `client` was told, as Redis knows it.
async fn decided(redis: &Redis) -> Option<String> {
    asked(redis, "HGET sb:s:{/client} decided").await
}

/// Waits until Redis knows that it was told something later.
async fn is_told_later(redis: &Redis, before: Option<&str>) {
    eventually("Redis knows what the client was told", async || {
        (decided(redis).await.as_deref() != before).then_some(())
    })
    .await;
}

/// The connection of `client` was told two things that it does not know of when it comes back, and the replica knows nothing of that.
struct Scene {
    failover: Failover,
    /// The caller's, the client's, and a friend's.
    nodes: [Node; 3],
    caller: Peer,
    /// What the client comes back with.
    ticket: Ticket,
    /// Its connection, which answers no ping any more.
    connection: Box<dyn Send>,
    /// Up to where the client was told, as the replica knows it.
    known: Option<String>,
}

impl Scene {
    async fn build(settings: &[(&str, &str)]) -> Self {
        let failover = Failover::start().await;
        let url = failover.url();
        let settings = [&[("redis.url", &*url)], settings].concat();
        let nodes = [
            Node::start(None, &settings).await,
            Node::start(None, &settings).await,
            Node::start(None, &settings).await,
        ];
        let mut caller = Peer::login(nodes[0].address, "caller").await;
        let mut friend = Peer::login(nodes[2].address, "friend").await;
        let mut client = Peer::login_resumable(nodes[1].address, "client").await;
        caller.calls(&mut client).await;
        is_told_later(&failover.primary, None).await;
        failover.is_level().await;
        failover.parts();
        let known = decided(&failover.replica).await;
        let ticket = client.ticket.clone();
        caller
            .says(&json!({"type": "candidate", "name": "client", "candidate": 1, "id": "unseen"}))
            .await;
        assert_eq!(caller.hears_of("ack").await["status"], "delivered");
        let sent = friend.sends_message("client", "friendly").await;
        assert_eq!(sent["status"], "delivered");
        // It was written; that the client has it is known to nobody.
        hears_both(&mut client).await;
        let connection = Box::new(client.goes_deaf());
        Self {
            failover,
            nodes,
            caller,
            ticket,
            connection,
            known,
        }
    }
}

/// The client comes back as soon as it may.
async fn comes_back(node: &Node, ticket: &Ticket) -> Peer {
    eventually("it is resumed", async || {
        let mut client = Peer::connect(node.address).await;
        let reply = client.tries_to_resume(ticket).await;
        assert_ne!(reply["code"], "resume_failed", "{reply}");
        (reply["success"] == true).then_some(client)
    })
    .await
}

/// The next that somebody said.
async fn hears_somebody(client: &mut Peer) -> Value {
    loop {
        let message = client.hears().await;
        assert_ne!(message["missed"], true, "{message}");
        if message["type"] != "status" {
            return message;
        }
    }
}

/// What the caller and the friend said, each once.
async fn hears_both(client: &mut Peer) {
    let heard = [hears_somebody(client).await, hears_somebody(client).await];
    let candidate = heard.iter().any(|said| said["candidate"] == 1);
    let friendly = heard.iter().any(|said| said["message"] == "friendly");
    assert!(candidate && friendly, "{heard:?}");
}

#[tokio::test]
async fn what_it_has_not_seen_is_sent_again_once_and_at_once() {
    let _alone = crate::alone().await;
    let mut scene = Scene::build(&[]).await;
    drop(scene.connection);
    is_told_later(&scene.failover.primary, scene.known.as_deref()).await;
    scene.failover.primary.dies().await;
    scene.failover.promotes().await;
    let back = Instant::now();
    is_told_later(&scene.failover.replica, scene.known.as_deref()).await;
    let mut client = comes_back(&scene.nodes[2], &scene.ticket).await;
    hears_both(&mut client).await;
    let late = back.elapsed();
    println!("a client has what it had not seen {late:?} after a replica was promoted");
    // Less than the store is doubted.
    assert!(late < Duration::from_secs(4), "{late:?}");
    client.hears_nothing_more().await;
    scene.caller.calls(&mut client).await;
}

/// What of it comes again first does not pass for all of it.
#[tokio::test]
async fn what_comes_again_late_is_waited_for() {
    let _alone = crate::alone().await;
    let mut scene = Scene::build(&[]).await;
    drop(scene.connection);
    is_told_later(&scene.failover.primary, scene.known.as_deref()).await;
    scene.nodes[0].process.signal("STOP");
    scene.failover.primary.dies().await;
    scene.failover.promotes().await;
    eventually("what the friend said has come again", async || {
        asked::<Option<String>>(&scene.failover.replica, "HGET sb:s:{/client} copies").await
    })
    .await;
    let mut client = Peer::connect(scene.nodes[2].address).await;
    let reply = client.tries_to_resume(&scene.ticket).await;
    assert_eq!(reply["code"], "unavailable", "{reply}");
    scene.nodes[0].process.signal("CONT");
    let mut client = comes_back(&scene.nodes[2], &scene.ticket).await;
    hears_both(&mut client).await;
    client.hears_nothing_more().await;
}

/// Its node takes the store for whole again, and hears only then that the connection is no more.
#[tokio::test]
async fn a_connection_that_ends_after_the_loss_is_made_good_too() {
    let _alone = crate::alone().await;
    let mut scene = Scene::build(&[]).await;
    scene.nodes[0].process.signal("STOP");
    scene.failover.primary.dies().await;
    scene.failover.promotes().await;
    is_told_later(&scene.failover.replica, scene.known.as_deref()).await;
    drop(scene.connection);
    eventually("the client is known to be gone", async || {
        let lease: String = asked(&scene.failover.replica, "GET sb:p:{/client}").await;
        lease.ends_with('d').then_some(())
    })
    .await;
    scene.nodes[0].process.signal("CONT");
    let mut client = comes_back(&scene.nodes[2], &scene.ticket).await;
    hears_both(&mut client).await;
    client.hears_nothing_more().await;
}

/// Nobody is left who could send it again.
#[tokio::test]
async fn who_was_put_off_for_its_sake_comes_back_though_the_grace_is_over() {
    let _alone = crate::alone().await;
    let short = [("presence.grace", "3s"), ("presence.node_ttl", "3s")];
    let mut scene = Scene::build(&short).await;
    drop(scene.connection);
    is_told_later(&scene.failover.primary, scene.known.as_deref()).await;
    scene.failover.primary.dies().await;
    let [callers, own, other] = scene.nodes;
    drop(callers);
    scene.failover.promotes().await;
    is_told_later(&scene.failover.replica, scene.known.as_deref()).await;
    let mut client = Peer::connect(other.address).await;
    let reply = client.tries_to_resume(&scene.ticket).await;
    assert_eq!(reply["code"], "unavailable", "{reply}");
    eventually("nobody is put off any more", async || {
        let mut somebody = Peer::connect(own.address).await;
        let reply = somebody.tries_login("somebody").await;
        (reply["success"] == true).then_some(())
    })
    .await;
    // The time in which a client looks again.
    sleep(Duration::from_secs(1)).await;
    let mut client = comes_back(&other, &scene.ticket).await;
    let status = client.hears_of("status").await;
    assert_eq!(status["missed"], true, "{status}");
}

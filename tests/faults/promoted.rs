//! A replica takes the place of Redis without what was written last: what a client was told, and has not seen, is among it. Nothing is sent again;
//! the client is told that it may have missed something, and its session and its call go on.

use std::time::Duration;

use redis::FromRedisValue;
use serde_json::json;
use tokio::time::Instant;

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

/// What the caller and the friend said, each once.
async fn hears_both(client: &mut Peer) {
    let heard = [client.hears().await, client.hears().await];
    let candidate = heard.iter().any(|said| said["candidate"] == 1);
    let friendly = heard.iter().any(|said| said["message"] == "friendly");
    assert!(candidate && friendly, "{heard:?}");
}

/// It is told of the loss once, and hears nothing twice; its call goes on, and it can be reached.
async fn goes_on(client: &mut Peer, caller: &mut Peer) {
    let status = client.hears_of("status").await;
    assert_eq!(status["missed"], true, "{status}");
    // Longer than until call peers are asked whether they still have the call.
    let more = client.listens(Duration::from_secs(6)).await;
    assert!(more.is_empty(), "{more:?}");
    let heard = caller.listens(Duration::ZERO).await;
    assert!(
        heard.iter().all(|said| said["type"] != "leave"),
        "{heard:?}"
    );
    caller
        .says(&json!({"type": "candidate", "name": "client", "candidate": 2, "id": "later"}))
        .await;
    assert_eq!(caller.hears_of("ack").await["status"], "delivered");
    assert_eq!(client.hears_of("candidate").await["candidate"], 2);
}

#[tokio::test]
async fn who_comes_back_after_the_loss_is_told_of_it() {
    let _alone = crate::alone().await;
    let mut scene = Scene::build(&[]).await;
    drop(scene.connection);
    is_told_later(&scene.failover.primary, scene.known.as_deref()).await;
    scene.failover.primary.dies().await;
    scene.failover.promotes().await;
    let back = Instant::now();
    let mut client = comes_back(&scene.nodes[2], &scene.ticket).await;
    println!(
        "a session goes on {:?} after a replica was promoted",
        back.elapsed()
    );
    goes_on(&mut client, &mut scene.caller).await;
}

/// Its connection ends after its node has told the new Redis of it.
#[tokio::test]
async fn a_connection_that_ends_after_the_loss_is_made_good_too() {
    let _alone = crate::alone().await;
    let mut scene = Scene::build(&[]).await;
    scene.failover.primary.dies().await;
    scene.failover.promotes().await;
    is_told_later(&scene.failover.replica, scene.known.as_deref()).await;
    drop(scene.connection);
    eventually("the client is known to be gone", async || {
        let lease: String = asked(&scene.failover.replica, "GET sb:p:{/client}").await;
        lease.ends_with('d').then_some(())
    })
    .await;
    let mut client = comes_back(&scene.nodes[2], &scene.ticket).await;
    goes_on(&mut client, &mut scene.caller).await;
}

/// Nobody is left who knows more than the replica: its client is put off until that is certain.
#[tokio::test]
async fn a_session_whose_node_died_with_redis_goes_on_too() {
    let _alone = crate::alone().await;
    let mut scene = Scene::build(&[("presence.grace", "12s")]).await;
    let [callers, own, other] = scene.nodes;
    drop((scene.connection, own));
    scene.failover.primary.dies().await;
    scene.failover.promotes().await;
    let mut client = Peer::connect(other.address).await;
    let reply = client.tries_to_resume(&scene.ticket).await;
    assert_eq!(reply["code"], "unavailable", "{reply}");
    let mut client = comes_back(&other, &scene.ticket).await;
    let mut caller = scene.caller;
    goes_on(&mut client, &mut caller).await;
    drop(callers);
}

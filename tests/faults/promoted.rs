//! A replica is promoted without the last writes, among them what a client was sent and has not confirmed. Nothing is
//! sent again:
//! the client is told that it may have missed something, and its session and its call continue.

use std::time::Duration;

use redis::FromRedisValue;
use serde_json::json;
use tokio::time::Instant;

use testing::eventually;
use testing::failover::Failover;
use testing::websocket::{Client, ResumeToken};
use testing::{Node, Redis};

async fn asked<T: FromRedisValue>(redis: &Redis, words: &str) -> T {
    redis::from_redis_value(redis.ask(words).await)
        .ok()
        .unwrap()
}

/// The last inbox entry that was sent to `client`, according to Redis.
async fn decided(redis: &Redis) -> Option<String> {
    asked(redis, "HGET sb:s:{/client} decided").await
}

/// Waits until Redis has a later entry as the last one sent.
async fn is_told_later(redis: &Redis, before: Option<&str>) {
    eventually("Redis knows what the client was told", async || {
        (decided(redis).await.as_deref() != before).then_some(())
    })
    .await;
}

/// `client` was sent two entries that it has not seen when it resumes, and the replica has no record of them.
struct Scene {
    failover: Failover,
    /// The nodes of the caller, of the client, and of a friend.
    nodes: [Node; 3],
    caller: Client,
    /// What the client resumes with.
    token: ResumeToken,
    /// Its connection, which no longer answers pings.
    connection: Box<dyn Send>,
    /// The last entry that was sent to the client, according to the replica.
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
        let mut caller = Client::login(nodes[0].address, "caller").await;
        let mut friend = Client::login(nodes[2].address, "friend").await;
        let mut client = Client::login_resumable(nodes[1].address, "client").await;
        caller.call(&mut client).await;
        is_told_later(&failover.primary, None).await;
        failover.replicated().await;
        failover.stop_replication();
        let known = decided(&failover.replica).await;
        let token = client.token.clone();
        caller
            .send(&json!({"type": "candidate", "name": "client", "candidate": 1, "id": "unseen"}))
            .await;
        assert_eq!(caller.receive_type("ack").await["status"], "delivered");
        let sent = friend.send_message("client", "friendly").await;
        assert_eq!(sent["status"], "delivered");
        // It was written to the socket; nobody knows whether the client has it.
        expect_both(&mut client).await;
        let connection = Box::new(client.stop_reading());
        Self {
            failover,
            nodes,
            caller,
            token,
            connection,
            known,
        }
    }
}

/// Resumes as soon as the node accepts it.
async fn resume_eventually(node: &Node, token: &ResumeToken) -> Client {
    eventually("it is resumed", async || {
        let mut client = Client::connect(node.address).await;
        let reply = client.try_resume(token).await;
        assert_ne!(reply["code"], "resume_failed", "{reply}");
        (reply["success"] == true).then_some(client)
    })
    .await
}

/// Expects the signals of the caller and of the friend, each once.
async fn expect_both(client: &mut Client) {
    let heard = [client.receive().await, client.receive().await];
    let candidate = heard.iter().any(|said| said["candidate"] == 1);
    let friendly = heard.iter().any(|said| said["message"] == "friendly");
    assert!(candidate && friendly, "{heard:?}");
}

/// Checks that the client is told of the loss once, gets nothing twice, stays in its call, and can be reached.
async fn goes_on(client: &mut Client, caller: &mut Client) {
    let status = client.receive_type("status").await;
    assert_eq!(status["missed"], true, "{status}");
    // Longer than it takes until call peers are asked whether the call still exists.
    let more = client.receive_for(Duration::from_secs(6)).await;
    assert!(more.is_empty(), "{more:?}");
    let heard = caller.receive_for(Duration::ZERO).await;
    assert!(
        heard.iter().all(|said| said["type"] != "leave"),
        "{heard:?}"
    );
    caller
        .send(&json!({"type": "candidate", "name": "client", "candidate": 2, "id": "later"}))
        .await;
    assert_eq!(caller.receive_type("ack").await["status"], "delivered");
    assert_eq!(client.receive_type("candidate").await["candidate"], 2);
}

#[tokio::test]
async fn a_resume_after_the_loss_gets_missed() {
    let _alone = crate::alone().await;
    let mut scene = Scene::build(&[]).await;
    drop(scene.connection);
    is_told_later(&scene.failover.primary, scene.known.as_deref()).await;
    scene.failover.primary.kill().await;
    scene.failover.promote().await;
    let back = Instant::now();
    let mut client = resume_eventually(&scene.nodes[2], &scene.token).await;
    println!(
        "a session goes on {:?} after a replica was promoted",
        back.elapsed()
    );
    goes_on(&mut client, &mut scene.caller).await;
}

/// The connection ends after its node has written the session to the new Redis.
#[tokio::test]
async fn a_connection_that_ends_after_the_loss_gets_missed() {
    let _alone = crate::alone().await;
    let mut scene = Scene::build(&[]).await;
    scene.failover.primary.kill().await;
    scene.failover.promote().await;
    is_told_later(&scene.failover.replica, scene.known.as_deref()).await;
    drop(scene.connection);
    eventually("the client is known to be gone", async || {
        let lease: String = asked(&scene.failover.replica, "GET sb:p:{/client}").await;
        lease.ends_with('d').then_some(())
    })
    .await;
    let mut client = resume_eventually(&scene.nodes[2], &scene.token).await;
    goes_on(&mut client, &mut scene.caller).await;
}

/// No node is left that knows more than the replica: the client's resume is delayed until that is certain.
#[tokio::test]
async fn a_session_whose_node_died_with_redis_continues() {
    let _alone = crate::alone().await;
    let mut scene = Scene::build(&[("presence.grace", "12s")]).await;
    let [callers, own, other] = scene.nodes;
    drop((scene.connection, own));
    scene.failover.primary.kill().await;
    scene.failover.promote().await;
    let mut client = Client::connect(other.address).await;
    let reply = client.try_resume(&scene.token).await;
    assert_eq!(reply["code"], "unavailable", "{reply}");
    let mut client = resume_eventually(&other, &scene.token).await;
    let mut caller = scene.caller;
    goes_on(&mut client, &mut caller).await;
    drop(callers);
}

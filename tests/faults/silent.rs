//! A machine loses power: nothing comes from it, no FIN and no RST, neither to its clients nor to Redis. Clients notice
//! in the rhythm that the login reply tells, and go on elsewhere; nobody hears of it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use testing::proxy::Proxy;
use testing::websocket::{Client, ResumeToken};
use testing::{Node, Redis};

/// A resumable client and its login reply.
async fn login(address: SocketAddr, name: &str) -> (Client, Value) {
    let mut client = Client::connect(address).await;
    let login = json!({"type": "login", "name": name, "resumable": true});
    client.send(&login).await;
    let reply = client.receive_type("login").await;
    client.token = ResumeToken {
        name: name.to_owned(),
        secret: reply["resume"].as_str().unwrap().to_owned(),
        last: None,
    };
    name.clone_into(&mut client.name);
    (client, reply)
}

/// When a client that hears nothing from now on connects elsewhere.
fn gives_up(reply: &Value, quiet: &str) -> Instant {
    let millis = |field: &str| Duration::from_millis(reply["heartbeat"][field].as_u64().unwrap());
    Instant::now() + millis(quiet) + millis("answer_ms")
}

async fn says(from: &mut Client, to: &mut Client, text: &str) {
    from.send_message(&to.name, text).await;
    assert_eq!(to.receive_type("message").await["message"], text);
}

#[tokio::test]
async fn whoever_was_on_a_machine_that_loses_power_comes_back_in_time() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let to_redis = Proxy::start(redis.address).await.unwrap();
    let url = format!("redis://{}", to_redis.address);
    let lost = Node::start(None, &[("redis.url", &url)]).await;
    let other = Node::start(Some(&redis), &[]).await;
    let front = Proxy::start(lost.address).await.unwrap();
    let (mut busy, busy_reply) = login(front.address, "busy").await;
    let (idle, idle_reply) = login(front.address, "idle").await;
    let (mut peer, _) = login(other.address, "peer").await;
    let (mut caller, _) = login(other.address, "caller").await;
    let mut watcher = Client::login(other.address, "watcher").await;
    let watch = json!({"type": "presence", "names": ["busy", "idle"], "watch": true});
    watcher.send(&watch).await;
    watcher.receive_type("presence").await;
    busy.call(&mut peer).await;

    to_redis.block(true);
    front.block(true);
    let busy_back = gives_up(&busy_reply, "busy_ms");
    let idle_back = gives_up(&idle_reply, "idle_ms");
    // Somebody calls the idle user, who does not know that its node is dead, after the others know.
    sleep(Duration::from_secs(8).min(busy_back - Instant::now())).await;
    caller
        .send(&json!({"type": "offer", "name": "idle", "offer": "ring", "id": 1}))
        .await;
    assert_eq!(caller.receive_type("ack").await["status"], "queued");
    sleep_until(busy_back).await;
    let mut busy = Client::resume(other.address, &busy.token).await;
    says(&mut peer, &mut busy, "still here").await;
    says(&mut busy, &mut peer, "so am I").await;

    sleep_until(idle_back).await;
    let mut idle = Client::resume(other.address, &idle.token).await;
    assert_eq!(idle.receive_type("offer").await["offer"], "ring");
    says(&mut idle, &mut caller, "I answer").await;
    for client in [&mut peer, &mut caller, &mut watcher] {
        let more = client.receive_for(Duration::from_secs(1)).await;
        let news = more.iter().find(|said| said["type"] != "status");
        assert_eq!(news, None, "{}", client.name);
    }
}

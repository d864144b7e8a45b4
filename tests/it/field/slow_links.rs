//! Slow links: time is granted by what they carry.

use serde_json::json;
use testing::proxy::{Mode, Proxy};
use testing::websocket::ResumeToken;
use testing::{Client, Cluster};

/// Bytes per second.
const RATE: u32 = 100_000;
/// How many messages fill the link for five seconds.
const MESSAGES: usize = 8;
const MESSAGE: usize = 60_000;

/// A proxy that carries little to the client, and keeps as little.
async fn slow_link(cluster: &Cluster) -> Proxy {
    let proxy = Proxy::narrow(cluster.nodes[0].address).await.unwrap();
    proxy.set(Mode::Pass, Mode::Rate(RATE));
    proxy
}

#[tokio::test]
async fn a_holder_on_a_slow_link_keeps_its_name_from_strangers() {
    // A write of all messages takes longer than one may.
    let settings = [("session.write_timeout", "2s")];
    let cluster = Cluster::over_redis(2, &settings).await;
    let proxy = slow_link(&cluster).await;
    let mut holder = Client::login(proxy.address, "holder").await;
    let senders = [cluster.login(0, "one").await, cluster.login(1, "two").await];
    let body = "x".repeat(MESSAGE);
    for mut sender in senders {
        for number in 0..MESSAGES / 2 {
            let message =
                json!({"type": "message", "name": "holder", "message": body, "id": number});
            sender.send(&message).await;
            assert_eq!(sender.receive().await["status"], "delivered");
        }
    }
    let stranger = tokio::spawn({
        let mut stranger = cluster.connect(1).await;
        async move { stranger.try_login("holder").await }
    });
    for _ in 0..MESSAGES {
        assert_eq!(holder.receive().await["type"], "message");
    }
    assert_eq!(stranger.await.unwrap()["code"], "name_taken");
    holder.send(&json!({"type": "ping"})).await;
    assert_eq!(holder.receive().await["type"], "pong");
}

#[tokio::test]
async fn a_full_inbox_arrives_over_a_slow_link() {
    let settings = [
        ("session.write_timeout", "2s"),
        ("session.ping_every", "500ms"),
        ("session.silent_after", "2s"),
    ];
    let cluster = Cluster::over_redis(2, &settings).await;
    let proxy = slow_link(&cluster).await;
    let mut prober = cluster.login(1, "prober").await;
    let client = cluster.login_resumable(0, "client").await;
    let token = cluster.disconnect(&mut prober, client).await;
    let body = "x".repeat(MESSAGE);
    let mut kept = 0;
    for number in 0..3 {
        let mut sender = cluster.login(1, &format!("sender{number}")).await;
        loop {
            let message = json!({"type": "message", "name": "client", "message": body, "id": kept});
            sender.send(&message).await;
            match sender.receive().await["code"].as_str() {
                None => kept += 1,
                Some(code) => break assert_eq!(code, "inbox_full"),
            }
        }
    }
    assert!(kept >= MESSAGES, "{kept}");
    let token = ResumeToken {
        last: None,
        ..token
    };
    let mut client = Client::resume(proxy.address, &token).await;
    for number in 0..kept {
        let message = client.receive_no_probe().await;
        assert_eq!(message["type"], "message", "{number}: {message}");
    }
    client.send(&json!({"type": "ping"})).await;
    assert_eq!(client.receive().await["type"], "pong");
}

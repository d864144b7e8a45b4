//! A frozen node, a frozen Redis, and a client that does not read.

use std::time::Duration;

use serde_json::json;
use testing::http_session::{Downlink, HttpSession};
use testing::{Client, Node, Redis, eventually};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::{Listener, send_number, start};

/// The home is frozen until another node becomes the home; thawed, it sends nothing more.
#[tokio::test]
async fn a_thawed_home_sends_nothing_more() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let (frozen, staying) = (
        start(&redis, "frozen").await,
        start(&redis, "staying").await,
    );
    let mut bob = HttpSession::login(frozen.address, Downlink::Poll, "bob").await;
    let mut alice = Client::login(staying.address, "alice").await;
    alice
        .send(&json!({"type": "offer", "name": "bob", "offer": 1, "id": "o"}))
        .await;
    alice.receive_type("ack").await;
    bob.receive_type("offer").await;
    bob.move_to(staying.address);
    let listener = Listener::of(&bob, staying.address);
    for number in 0..600 {
        send_number(&mut alice, "bob", number).await;
        sleep(Duration::from_millis(20)).await;
        match number {
            50 => frozen.process.signal("STOP"),
            // The new home delivers what was not received, and nothing twice.
            60 => {
                let say = json!({"type": "message", "name": "alice", "message": "meanwhile"});
                bob.send(&say).await;
            }
            500 => frozen.process.signal("CONT"),
            _ => {}
        }
    }
    listener.expect_all(600).await;
    bob.send(&json!({"type": "message", "name": "alice", "message": "after"}))
        .await;
    let after = alice.receive_type("message").await;
    assert_eq!(after["message"], "after");
    alice.expect_silence().await;
    // The old home has released the name: it is free when its user closes.
    bob.close().await;
    let leave = alice.receive().await;
    assert_eq!(leave["reason"], "closed", "{leave}");
    alice.expect_silence().await;
    let again = Client::login(staying.address, "bob").await;
    again.close().await;
}

/// While Redis is frozen no node can renew a lease: no session ends by that, however long it lasts.
#[tokio::test]
async fn a_frozen_redis_ends_no_session() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let settings = [("node_id", "one"), ("http.session_ttl", "5s")];
    let one = Node::start(Some(&redis), &settings).await;
    let two = Node::start(Some(&redis), &settings).await;
    let mut bob = HttpSession::login(one.address, Downlink::Poll, "bob").await;
    let mut alice = Client::login(two.address, "alice").await;
    alice
        .send(&json!({"type": "offer", "name": "bob", "offer": 1, "id": "o"}))
        .await;
    alice.receive_type("ack").await;
    bob.receive_type("offer").await;
    let listener = Listener::of(&bob, two.address);
    for number in 0..20 {
        send_number(&mut alice, "bob", number).await;
    }
    redis.process.signal("STOP");
    sleep(Duration::from_secs(12)).await;
    redis.process.signal("CONT");
    for number in 20..40 {
        send_number(&mut alice, "bob", number).await;
    }
    eventually("the last is heard", async || {
        listener.numbers().contains(&39).then_some(())
    })
    .await;
    assert_eq!(listener.numbers(), (0..40).collect::<Vec<_>>());
    bob.send(&json!({"type": "message", "name": "alice", "message": "still here"}))
        .await;
    assert_eq!(alice.receive_type("message").await["message"], "still here");
    bob.close().await;
    assert_eq!(alice.receive_type("leave").await["reason"], "closed");
}

/// A session whose client does not read its stream ends when the node has buffered as much as it may.
#[tokio::test]
async fn a_client_that_does_not_read_is_lost() {
    let _alone = crate::alone().await;
    let node = Node::start(None, &[("http.session_ttl", "5s")]).await;
    let slow = HttpSession::login(node.address, Downlink::Poll, "slow").await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let request = format!(
        "GET /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        slow.token
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut sender = Client::login(node.address, "sender").await;
    sender
        .send(&json!({"type": "offer", "name": "slow", "offer": 1, "id": "o"}))
        .await;
    sender.receive_type("ack").await;
    let before = node.process.resident_kib();
    let (large, begun, mut sent) = ("x".repeat(60_000), Instant::now(), 0);
    let leave = loop {
        let say = json!({"type": "message", "name": "slow", "message": large, "id": sent});
        sender.send(&say).await;
        let told = sender.receive().await;
        if told["type"] == "leave" {
            break told;
        }
        sent += u64::from(told["type"] == "ack");
        sleep(Duration::from_millis(10)).await;
        assert!(begun.elapsed() < Duration::from_mins(1), "{told}");
    };
    assert_eq!(leave["reason"], "lost");
    let grown = node.process.resident_kib().saturating_sub(before);
    println!("{sent} large signals to a client that does not read cost {grown} KiB");
    assert!(grown < 32 * 1024, "{grown} KiB");
    drop(stream);
}

//! The home of an HTTP session: what a killed home, and a Redis that loses its data, cost the client.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use testing::Client;
use testing::eventually;
use testing::http::try_request;
use testing::http_session::{Downlink, EventStream, HttpSession, RETRY_AFTER};
use testing::{Node, Redis};

async fn start(redis: &Redis, name: &str) -> Node {
    Node::start(Some(redis), &[("node_id", name)]).await
}

/// Begins a call from Alice to Bob.
async fn in_a_call(bob: &mut HttpSession, alice: &mut Client) {
    alice
        .send(&json!({"type": "offer", "name": bob.name, "offer": 1, "id": "o"}))
        .await;
    alice.receive_type("ack").await;
    bob.receive_type("offer").await;
}

/// POSTs a message until it is accepted; how long that took.
async fn send(bob: &HttpSession, key: &str, message: &Value) -> Duration {
    let (begun, bearer) = (Instant::now(), format!("Bearer {}", bob.token));
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("idempotency-key", key),
    ];
    let text = message.to_string();
    eventually("it is taken", async || {
        let posting = try_request(bob.address, "POST", "/v1/messages", &headers, &text);
        let answer = timeout(Duration::from_secs(5), posting).await.ok()??;
        assert!([202, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 202).then_some(())
    })
    .await;
    begun.elapsed()
}

/// The home is killed; the client reconnects to another node, where its stream continues at once.
#[tokio::test]
async fn a_stream_continues_within_a_second_after_its_home_is_killed() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let staying = start(&redis, "staying").await;
    let mut longest = Duration::ZERO;
    for round in 0..3 {
        let mut doomed = start(&redis, "doomed").await;
        let name = format!("bob{round}");
        let mut bob = HttpSession::login(doomed.address, Downlink::Stream, &name).await;
        let mut alice = Client::login(staying.address, &format!("alice{round}")).await;
        in_a_call(&mut bob, &mut alice).await;
        doomed.process.signal("KILL");
        doomed.process.ended().await;
        let say = json!({"type": "candidate", "name": name, "candidate": "meanwhile", "id": 1});
        alice.send(&say).await;
        alice.receive_type("ack").await;
        let begun = Instant::now();
        let last = bob.last.as_deref();
        let mut events = EventStream::open(staying.address, &bob.token, last)
            .await
            .expect("the stream opens");
        let event = events.next_event().await.expect("the stream continues");
        let reply: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(reply["candidate"], "meanwhile", "{reply}");
        let took = begun.elapsed();
        println!("round {round}: the stream spoke {took:?} after the client reconnected");
        longest = longest.max(took);
        alice.expect_silence().await;
    }
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

/// The home is killed, and a POST is the first request to another node: it is processed there at once, and once.
#[tokio::test]
async fn a_post_after_the_home_is_killed_is_processed_at_once() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let staying = start(&redis, "staying").await;
    let mut doomed = start(&redis, "doomed").await;
    let mut bob = HttpSession::login(doomed.address, Downlink::Poll, "bob").await;
    let mut alice = Client::login(staying.address, "alice").await;
    in_a_call(&mut bob, &mut alice).await;
    doomed.process.signal("KILL");
    doomed.process.ended().await;
    bob.move_to(staying.address);
    let begun = Instant::now();
    let say = json!({"type": "candidate", "name": "alice", "candidate": "mine", "id": "c"});
    send(&bob, "key", &say).await;
    let reply = alice.receive().await;
    assert_eq!(reply["candidate"], "mine", "{reply}");
    let took = begun.elapsed();
    println!("a POST to a dead home was delivered {took:?} later");
    assert!(took < Duration::from_secs(1), "{took:?}");
    // The client does not know whether the POST was accepted: the repetition is acknowledged, and it is delivered once.
    send(&bob, "key", &say).await;
    let ack = bob.receive().await;
    assert_eq!((&ack["type"], &ack["id"]), (&json!("ack"), &json!("c")));
    alice
        .send(&json!({"type": "candidate", "name": "bob", "candidate": "hers"}))
        .await;
    let reply = bob.receive().await;
    assert_eq!(reply["candidate"], "hers", "{reply}");
    bob.expect_silence().await;
    alice.expect_silence().await;
}

/// The session moved from one node to a second, which is killed, and on to a third: the first one finds it there at
/// once.
#[tokio::test]
async fn a_node_does_not_look_for_a_session_where_it_has_left() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let (first, third) = (start(&redis, "first").await, start(&redis, "third").await);
    let mut second = start(&redis, "second").await;
    let mut bob = HttpSession::login(first.address, Downlink::Poll, "bob").await;
    let mut alice = Client::login(third.address, "alice").await;
    let moved = EventStream::open(second.address, &bob.token, bob.last.as_deref()).await;
    assert!(moved.is_ok());
    second.process.signal("KILL");
    second.process.ended().await;
    for (number, node) in [&third, &first].into_iter().enumerate() {
        bob.move_to(node.address);
        let say = json!({"type": "message", "name": "alice", "message": number, "id": number});
        let took = send(&bob, &format!("key {number}"), &say).await;
        assert_eq!(alice.receive().await["message"], number);
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

/// The home is killed after it refused a message for now: what follows does not overtake it at the next home.
#[tokio::test]
async fn what_follows_a_refused_message_is_held_back_after_its_home_is_killed() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let slow = |name| [("node_id", name), ("limits.signals_per_second", "10")];
    let staying = Node::start(Some(&redis), &slow("staying")).await;
    let mut doomed = Node::start(Some(&redis), &slow("doomed")).await;
    for (downlink, to) in [(Downlink::Poll, "alice"), (Downlink::Stream, "carol")] {
        let mut bob = HttpSession::login(doomed.address, downlink, "bob").await;
        let mut receiver = Client::login_resumable(staying.address, to).await;
        let first = bob.ask_until_refused(to).await;
        doomed.process.signal("KILL");
        doomed.process.ended().await;
        bob.move_to(staying.address);
        bob.is_held_back(to, first).await;
        for number in 1..first + 2 {
            assert_eq!(receiver.receive().await["message"], number);
        }
        bob.close().await;
        doomed = Node::start(Some(&redis), &slow("doomed")).await;
    }
}

/// A frozen home counts as dead: a POST is processed elsewhere, and the thawed home sends nothing.
#[tokio::test]
async fn a_post_to_a_frozen_home_is_processed_elsewhere() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let staying = start(&redis, "staying").await;
    let frozen = start(&redis, "frozen").await;
    let mut bob = HttpSession::login(frozen.address, Downlink::Poll, "bob").await;
    let mut alice = Client::login(staying.address, "alice").await;
    in_a_call(&mut bob, &mut alice).await;
    bob.move_to(staying.address);
    frozen.process.signal("STOP");
    let begun = Instant::now();
    let say = json!({"type": "candidate", "name": "alice", "candidate": "mine", "id": "c"});
    send(&bob, "key", &say).await;
    let reply = alice.receive().await;
    assert_eq!(reply["candidate"], "mine", "{reply}");
    let took = begun.elapsed();
    println!("a POST to a frozen home was delivered {took:?} later");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(bob.receive().await["type"], "ack");
    frozen.process.signal("CONT");
    for number in 0..20 {
        alice
            .send(&json!({"type": "candidate", "name": "bob", "candidate": number, "id": number}))
            .await;
        assert_eq!(alice.receive().await["type"], "ack");
        let reply = bob.receive().await;
        assert_eq!(reply["candidate"], number, "{reply}");
        sleep(RETRY_AFTER).await;
    }
    bob.expect_silence().await;
    alice.expect_silence().await;
}

/// Redis loses all data: the session continues at its home and through every other node.
#[tokio::test]
async fn an_http_session_survives_a_loss_of_all_data() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let (one, two) = (start(&redis, "one").await, start(&redis, "two").await);
    let mut streaming = HttpSession::login(one.address, Downlink::Stream, "streaming").await;
    let mut polling = HttpSession::login(one.address, Downlink::Poll, "polling").await;
    let mut alice = Client::login(two.address, "alice").await;
    for bob in [&mut streaming, &mut polling] {
        in_a_call(bob, &mut alice).await;
    }
    polling.move_to(two.address);
    redis.ask("FLUSHALL").await;
    for bob in [&mut streaming, &mut polling] {
        let took = send(bob, "p", &json!({"type": "ping", "id": "p"})).await;
        println!("{} could send {took:?} after the loss of data", bob.name);
        // It gets `missed` if something may have been in its inbox.
        while bob.receive().await["id"] != "p" {}
        // Users cannot be found until all leases are written again.
        let say = json!({"type": "message", "name": bob.name, "message": "back", "id": bob.name});
        eventually("its peer reaches it", async || {
            alice.send(&say).await;
            loop {
                let answer = alice.receive().await;
                assert_ne!(answer["type"], "leave", "{answer}");
                if answer["id"] == bob.name.as_str() {
                    return (answer["type"] == "ack").then_some(());
                }
            }
        })
        .await;
        while bob.receive().await["message"] != "back" {}
        // Refused messages are repeated.
        let say = json!({"type": "message", "name": "alice", "message": "still here", "id": "s"});
        for number in 0.. {
            send(bob, &format!("s{number}"), &say).await;
            let answer = loop {
                let reply = bob.receive().await;
                if reply["id"] == "s" {
                    break reply;
                }
            };
            if answer["type"] == "ack" {
                break;
            }
            assert_eq!(answer["code"], "unavailable", "{answer}");
            sleep(RETRY_AFTER).await;
        }
        assert_eq!(alice.receive_type("message").await["message"], "still here");
        bob.close().await;
        assert_eq!(alice.receive_type("leave").await["reason"], "closed");
    }
}

/// The number of scripts that a Redis has run.
async fn scripts_run(redis: &Redis) -> u64 {
    let redis::Value::BulkString(stats) = redis.ask("INFO commandstats").await else {
        panic!("Redis tells no commandstats")
    };
    let stats = String::from_utf8(stats).unwrap();
    let calls = stats.lines().find_map(|line| {
        let line = line.strip_prefix("cmdstat_evalsha:calls=")?;
        line.split(',').next()?.parse().ok()
    });
    calls.unwrap_or_default()
}

/// Two HTTP users on two nodes: the scripts that Redis runs for a signal.
#[tokio::test]
async fn a_signal_between_http_users_runs_two_scripts_at_most() {
    const SIGNALS: u64 = 200;
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let (one, two) = (start(&redis, "one").await, start(&redis, "two").await);
    let mut alice = HttpSession::login(one.address, Downlink::Stream, "alice").await;
    let mut bob = HttpSession::login(two.address, Downlink::Stream, "bob").await;
    alice
        .send(&json!({"type": "offer", "name": "bob", "offer": 1}))
        .await;
    bob.receive_type("offer").await;
    let before = scripts_run(&redis).await;
    for number in 0..SIGNALS {
        let say = json!({"type": "candidate", "name": "bob", "candidate": number, "id": number});
        send(&alice, &number.to_string(), &say).await;
        assert_eq!(bob.receive().await["candidate"], number);
        assert_eq!(alice.receive().await["id"], number);
    }
    let run = scripts_run(&redis).await - before;
    println!("{SIGNALS} signals: {run} scripts");
    assert!(run <= 2 * SIGNALS, "{run}");
}

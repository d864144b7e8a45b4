//! The home of an HTTP session is one node: what its death, and a Redis that loses everything, cost the client.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::support::eventually;
use crate::support::peer::Peer;
use crate::support::process::{Node, Redis};
use crate::support::sse::try_request;
use crate::support::visitor::{By, Events, REST, Visitor};

async fn start(redis: &Redis, name: &str) -> Node {
    Node::start(Some(redis), &[("node_id", name)]).await
}

/// Bob is in a call with Alice, and has heard its beginning.
async fn in_a_call(bob: &mut Visitor, alice: &mut Peer) {
    alice
        .says(&json!({"type": "offer", "name": bob.name, "offer": 1, "id": "o"}))
        .await;
    alice.hears_of("ack").await;
    bob.hears_of("offer").await;
}

/// Says this by a POST until it is taken; how long that took.
async fn says(bob: &Visitor, key: &str, message: &Value) -> Duration {
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

/// The home dies; the client reconnects to another node, where its stream speaks at once.
#[tokio::test]
async fn a_stream_speaks_again_within_a_second_of_its_homes_death() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let staying = start(&redis, "staying").await;
    let mut longest = Duration::ZERO;
    for round in 0..3 {
        let mut doomed = start(&redis, "doomed").await;
        let name = format!("bob{round}");
        let mut bob = Visitor::login(doomed.address, By::Stream, &name).await;
        let mut alice = Peer::login(staying.address, &format!("alice{round}")).await;
        in_a_call(&mut bob, &mut alice).await;
        doomed.process.signal("KILL");
        doomed.process.ended().await;
        let say = json!({"type": "candidate", "name": name, "candidate": "meanwhile", "id": 1});
        alice.says(&say).await;
        alice.hears_of("ack").await;
        let begun = Instant::now();
        let last = bob.last.as_deref();
        let mut events = Events::open(staying.address, &bob.token, last)
            .await
            .expect("the stream opens");
        let event = events.next_event().await.expect("the stream goes on");
        let told: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(told["candidate"], "meanwhile", "{told}");
        let took = begun.elapsed();
        println!("round {round}: the stream spoke {took:?} after the client reconnected");
        longest = longest.max(took);
        alice.hears_nothing_more().await;
    }
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

/// The home dies, and the first that another node hears of it is a POST: it goes on there, at once and once.
#[tokio::test]
async fn a_post_to_a_home_that_is_dead_is_heard_at_once() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let staying = start(&redis, "staying").await;
    let mut doomed = start(&redis, "doomed").await;
    let mut bob = Visitor::login(doomed.address, By::Poll, "bob").await;
    let mut alice = Peer::login(staying.address, "alice").await;
    in_a_call(&mut bob, &mut alice).await;
    doomed.process.signal("KILL");
    doomed.process.ended().await;
    bob.turns_to(staying.address);
    let begun = Instant::now();
    let say = json!({"type": "candidate", "name": "alice", "candidate": "mine", "id": "c"});
    says(&bob, "key", &say).await;
    let told = alice.hears().await;
    assert_eq!(told["candidate"], "mine", "{told}");
    let took = begun.elapsed();
    println!("said to a dead home, and heard {took:?} later");
    assert!(took < Duration::from_secs(1), "{took:?}");
    // Nobody knows whether it was taken: said again, it is acknowledged, and heard once.
    says(&bob, "key", &say).await;
    let ack = bob.hears().await;
    assert_eq!((&ack["type"], &ack["id"]), (&json!("ack"), &json!("c")));
    alice
        .says(&json!({"type": "candidate", "name": "bob", "candidate": "hers"}))
        .await;
    let told = bob.hears().await;
    assert_eq!(told["candidate"], "hers", "{told}");
    bob.hears_nothing_more().await;
    alice.hears_nothing_more().await;
}

/// A home that stands still is as good as dead: a POST is served elsewhere, and when it wakes up it says nothing.
#[tokio::test]
async fn a_post_to_a_home_that_stands_still_is_served_elsewhere() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let staying = start(&redis, "staying").await;
    let frozen = start(&redis, "frozen").await;
    let mut bob = Visitor::login(frozen.address, By::Poll, "bob").await;
    let mut alice = Peer::login(staying.address, "alice").await;
    in_a_call(&mut bob, &mut alice).await;
    bob.turns_to(staying.address);
    frozen.process.signal("STOP");
    let begun = Instant::now();
    let say = json!({"type": "candidate", "name": "alice", "candidate": "mine", "id": "c"});
    says(&bob, "key", &say).await;
    let told = alice.hears().await;
    assert_eq!(told["candidate"], "mine", "{told}");
    let took = begun.elapsed();
    println!("said to a home that stands still, and heard {took:?} later");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(bob.hears().await["type"], "ack");
    frozen.process.signal("CONT");
    for number in 0..20 {
        alice
            .says(&json!({"type": "candidate", "name": "bob", "candidate": number, "id": number}))
            .await;
        assert_eq!(alice.hears().await["type"], "ack");
        let told = bob.hears().await;
        assert_eq!(told["candidate"], number, "{told}");
        sleep(REST).await;
    }
    bob.hears_nothing_more().await;
    alice.hears_nothing_more().await;
}

/// Redis loses everything: the session goes on, at its home and by every other node.
#[tokio::test]
async fn a_session_survives_a_redis_that_loses_everything() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let (one, two) = (start(&redis, "one").await, start(&redis, "two").await);
    let mut streaming = Visitor::login(one.address, By::Stream, "streaming").await;
    let mut polling = Visitor::login(one.address, By::Poll, "polling").await;
    let mut alice = Peer::login(two.address, "alice").await;
    for bob in [&mut streaming, &mut polling] {
        in_a_call(bob, &mut alice).await;
    }
    polling.turns_to(two.address);
    redis.ask("FLUSHALL").await;
    for bob in [&mut streaming, &mut polling] {
        let took = says(bob, "p", &json!({"type": "ping", "id": "p"})).await;
        println!("{} was heard {took:?} after everything was lost", bob.name);
        // It is told of the loss, if anything may have been for it.
        while bob.hears().await["id"] != "p" {}
        // Nobody is found until everybody is known again.
        let say = json!({"type": "message", "name": bob.name, "message": "back", "id": bob.name});
        eventually("she reaches it", async || {
            alice.says(&say).await;
            loop {
                let answer = alice.hears().await;
                assert_ne!(answer["type"], "leave", "{answer}");
                if answer["id"] == bob.name.as_str() {
                    return (answer["type"] == "ack").then_some(());
                }
            }
        })
        .await;
        while bob.hears().await["message"] != "back" {}
        // What is refused meanwhile is said again.
        let say = json!({"type": "message", "name": "alice", "message": "still here", "id": "s"});
        for number in 0.. {
            says(bob, &format!("s{number}"), &say).await;
            let answer = loop {
                let told = bob.hears().await;
                if told["id"] == "s" {
                    break told;
                }
            };
            if answer["type"] == "ack" {
                break;
            }
            assert_eq!(answer["code"], "unavailable", "{answer}");
            sleep(REST).await;
        }
        assert_eq!(alice.hears_of("message").await["message"], "still here");
        bob.closes().await;
        assert_eq!(alice.hears_of("leave").await["reason"], "closed");
    }
}

/// How many scripts a Redis has run.
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

/// Two HTTP users on two nodes: what a signal costs of Redis.
#[tokio::test]
async fn a_signal_between_two_http_users_costs_two_scripts_at_most() {
    const SIGNALS: u64 = 200;
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let (one, two) = (start(&redis, "one").await, start(&redis, "two").await);
    let mut alice = Visitor::login(one.address, By::Stream, "alice").await;
    let mut bob = Visitor::login(two.address, By::Stream, "bob").await;
    alice
        .says(&json!({"type": "offer", "name": "bob", "offer": 1}))
        .await;
    bob.hears_of("offer").await;
    let before = scripts_run(&redis).await;
    for number in 0..SIGNALS {
        let say = json!({"type": "candidate", "name": "bob", "candidate": number, "id": number});
        says(&alice, &number.to_string(), &say).await;
        assert_eq!(bob.hears().await["candidate"], number);
        assert_eq!(alice.hears().await["id"], number);
    }
    let run = scripts_run(&redis).await - before;
    println!("{SIGNALS} signals: {run} scripts");
    assert!(run <= 2 * SIGNALS, "{run}");
}

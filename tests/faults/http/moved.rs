//! Sessions that move during a rolling restart, and logins that a killed node leaves unanswered.

use std::time::Duration;

use serde_json::json;
use testing::http::try_request;
use testing::http_session::{Downlink, HttpSession, RETRY_AFTER};
use testing::round_robin::RoundRobin;
use testing::{Client, Redis};
use tokio::time::sleep;

use super::{Listener, send_number, start};

/// Two nodes restart one after the other while 50 signals a second arrive: the session and its stream move.
#[tokio::test]
async fn a_rolling_restart_moves_the_session_and_its_stream() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let peers = start(&redis, "peers").await;
    let one = start(&redis, "one").await;
    let two = start(&redis, "two").await;
    let balancer = RoundRobin::start(&[one.address, two.address, peers.address], 0).await;
    let bob = HttpSession::login(one.address, Downlink::Poll, "bob").await;
    let mut alice = Client::login(peers.address, "alice").await;
    alice
        .send(&json!({"type": "offer", "name": "bob", "offer": 1, "id": "o"}))
        .await;
    alice.receive_type("ack").await;
    let listener = Listener::of(&bob, balancer.address);
    let mut nodes = vec![two, one];
    let mut longest = Duration::ZERO;
    for number in 0..300 {
        longest = longest.max(send_number(&mut alice, "bob", number).await);
        sleep(Duration::from_millis(18)).await;
        if number % 100 == 50
            && let Some(mut node) = nodes.pop()
        {
            node.process.signal("TERM");
            assert_eq!(node.process.ended().await, Some(0), "it has drained");
        }
    }
    listener.expect_all(300).await;
    // The session is still in its call, and gets its peer's signals.
    let mut bob = bob;
    bob.move_to(peers.address);
    bob.close().await;
    let leave = alice.receive().await;
    assert_eq!(leave["reason"], "closed", "{leave}");
    println!(
        "300 signals through two drains, all heard once and in order; the longest waited {longest:?}"
    );
}

/// The node is killed during many logins: the next node completes them, even if the first had already claimed the name.
#[tokio::test]
async fn pending_logins_are_answered_by_the_next_node() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let (doomed, staying) = (
        start(&redis, "doomed").await,
        start(&redis, "staying").await,
    );
    let mut opening = tokio::task::JoinSet::new();
    let door = doomed.address;
    for number in 0..300 {
        opening.spawn(async move {
            let login = json!({"login": {"name": format!("user{number}")}}).to_string();
            let opened = try_request(door, "POST", "/v1/sessions", &[], &login).await?;
            (opened.status == 201).then(|| (number, opened.json()))
        });
    }
    let mut opened = Vec::new();
    while let Some(answer) = opening.join_next().await {
        opened.extend(answer.unwrap());
        if opened.len() == 100 {
            doomed.process.signal("KILL");
        }
    }
    let mut again = 0;
    for (number, opened) in &opened {
        let mut visitor = HttpSession::from_reply(staying.address, Downlink::Poll, opened);
        let reply = loop {
            let reply = visitor.receive_type("login").await;
            if reply["success"] == true {
                break reply;
            }
            // The outcome of the login is not known yet.
            assert_eq!(reply["code"], "unavailable", "{reply}");
            sleep(RETRY_AFTER).await;
            again += 1;
            visitor
                .send(&json!({"type": "login", "name": format!("user{number}")}))
                .await;
        };
        assert_eq!(reply["resumed"], false, "{reply}");
        visitor.expect_silence().await;
    }
    let mut alice = Client::login(staying.address, "alice").await;
    for (number, opened) in &opened {
        let name = format!("user{number}");
        send_number(&mut alice, &name, *number).await;
        let mut visitor = HttpSession::from_reply(staying.address, Downlink::Poll, opened);
        assert_eq!(
            visitor.receive_type("candidate").await["candidate"],
            *number
        );
    }
    println!(
        "{} of 300 had a session when the node died, and all have their names; {again} logins were said again",
        opened.len()
    );
}

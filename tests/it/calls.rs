//! Calls across nodes: every way to end one, and what happens to signals while a node cannot receive.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use testing::Client;
use testing::cluster::{Backend, Cluster};
use testing::eventually;

/// Leases that expire within the time of a test.
const SHORT: [(&str, &str); 3] = [
    ("presence.ttl", "6s"),
    ("presence.grace", "1s"),
    ("presence.node_ttl", "1s"),
];

#[tokio::test]
async fn signals_to_a_node_without_subscription_arrive_later_in_order() {
    let cluster = Cluster::in_memory(2, &[]).await;
    let Backend::Memory(switch) = &cluster.backend else {
        unreachable!()
    };
    let mut one = cluster.login(0, "one").await;
    let mut other = Client::login_resumable(cluster.nodes[1].address, "other").await;
    one.call(&mut other).await;
    switch.block_pushes(&cluster.nodes[1].id);
    for number in 0..100 {
        assert_eq!(
            one.send_message("other", &number.to_string()).await["status"],
            "delivered"
        );
    }
    other.expect_silence().await;
    switch.unblock_pushes(&cluster.nodes[1].id).await;
    for number in 0..100 {
        assert_eq!(other.receive().await["message"], number.to_string());
    }
    one.send_message("other", "live").await;
    assert_eq!(other.receive().await["message"], "live");
}

#[tokio::test]
async fn a_plain_session_gets_missed_after_a_gap() {
    for cluster in [
        Cluster::in_memory(2, &[]).await,
        Cluster::over_redis(2, &[]).await,
    ] {
        let mut one = cluster.login(0, "one").await;
        let mut other = cluster.login(1, "other").await;
        one.call(&mut other).await;
        match &cluster.backend {
            Backend::Memory(switch) => {
                switch.block_pushes(&cluster.nodes[1].id);
                let refused = one.send_message("other", "lost").await;
                assert_eq!(refused["code"], "unavailable");
                switch.unblock_pushes(&cluster.nodes[1].id).await;
            }
            Backend::Redis(redis) => drop(redis.ask("CLIENT KILL TYPE pubsub").await),
        }
        let told = json!({"type": "status", "fabric": "ok", "missed": true});
        assert_eq!(other.receive().await, told);
        let sent = one.send_message("other", "live").await;
        assert_eq!(sent["status"], "delivered");
        assert_eq!(other.receive_type("message").await["message"], "live");
        // The call continues.
        other.expect_silence().await;
    }
}

/// Signals sent while the receiver's node renews its subscription arrive in order, without a repetition by the sender.
#[tokio::test]
async fn signals_to_a_node_between_two_subscriptions_arrive_in_order() {
    let cluster = Cluster::over_redis(2, &[("limits.signals_per_second", "0")]).await;
    let Backend::Redis(redis) = &cluster.backend else {
        unreachable!()
    };
    let mut one = cluster.login(0, "one").await;
    let mut other = cluster.login(1, "other").await;
    one.call(&mut other).await;
    let mut sent = 0;
    for _ in 0..10 {
        redis.ask("CLIENT KILL TYPE pubsub").await;
        for _ in 0..50 {
            let (number, body) = (sent, json!({"number": sent}));
            one.send(
                &json!({"type": "candidate", "name": "other", "candidate": body, "id": number}),
            )
            .await;
            sent += 1;
        }
    }
    let (mut last, mut delivered) = (-1, 0);
    for number in 0..sent {
        let answer = loop {
            let answer = one.receive().await;
            if answer["id"] == number {
                break answer;
            }
        };
        assert_eq!(answer["status"], "delivered", "{answer}");
        delivered += 1;
    }
    assert_eq!(delivered, sent);
    loop {
        let received = other.receive().await;
        if let Some(number) = received["candidate"]["number"].as_i64() {
            assert!(number > last, "{number} came after {last}");
            last = number;
        }
        if last + 1 == i64::from(sent) {
            break;
        }
    }
}

#[tokio::test]
async fn a_leave_reaches_a_node_after_a_gap() {
    let cluster = Cluster::in_memory(2, &[]).await;
    let Backend::Memory(switch) = &cluster.backend else {
        unreachable!()
    };
    let mut one = cluster.login(0, "one").await;
    let mut other = cluster.login(1, "other").await;
    one.call(&mut other).await;
    switch.block_pushes(&cluster.nodes[1].id);
    one.close().await;
    switch.unblock_pushes(&cluster.nodes[1].id).await;
    assert_eq!(
        other.receive_type("leave").await,
        json!({"type": "leave", "name": "one", "reason": "closed"})
    );
    other.expect_silence().await;
}

/// The callee's session ends before it has read the offer from its inbox: the caller must get a leave.
#[tokio::test]
async fn an_unread_offer_is_answered_with_a_leave() {
    let cluster = Cluster::in_memory(2, &[]).await;
    let Backend::Memory(switch) = &cluster.backend else {
        unreachable!()
    };
    let mut one = cluster.login(0, "one").await;
    let other = Client::login_resumable(cluster.nodes[1].address, "other").await;
    switch.block_pushes(&cluster.nodes[1].id);
    one.send(&json!({"type": "offer", "name": "other", "offer": 1, "id": 1}))
        .await;
    assert_eq!(one.receive().await["status"], "delivered");
    other.close().await;
    assert_eq!(
        one.receive().await,
        json!({"type": "leave", "name": "other", "reason": "closed"})
    );
    one.expect_silence().await;
}

#[tokio::test]
async fn a_stalled_broker_ends_no_call_and_delays_leaves() {
    let cluster = Cluster::in_memory(2, &SHORT).await;
    let Backend::Memory(switch) = &cluster.backend else {
        unreachable!()
    };
    let mut one = cluster.login(0, "one").await;
    let mut other = cluster.login(1, "other").await;
    let mut third = cluster.login(1, "third").await;
    one.call(&mut other).await;
    third.call(&mut one).await;
    switch.set_unreachable(true);
    assert_eq!(one.send_message("other", "1").await["code"], "unavailable");
    // Plain users on the same node reach each other without the broker.
    other
        .send(&json!({"type": "message", "name": "third", "message": 1, "id": 1}))
        .await;
    assert_eq!(third.receive().await["message"], 1);
    assert_eq!(other.receive_type("ack").await["status"], "delivered");
    third.close().await;
    let mut late = cluster.connect(0).await;
    assert_eq!(late.try_login("late").await["code"], "unavailable");
    // Longer than the lifetime of a node lease.
    assert_eq!(
        one.receive_for(Duration::from_millis(1500)).await,
        [json!({"type": "status", "fabric": "degraded"})]
    );
    switch.set_unreachable(false);
    assert_eq!(
        one.receive_type("leave").await,
        json!({"type": "leave", "name": "third", "reason": "closed"})
    );
    eventually("the call continues", async || {
        (one.send_message("other", "2").await["status"] == "delivered").then_some(())
    })
    .await;
    assert_eq!(other.receive_type("message").await["message"], "2");
    one.expect_silence().await;
}

#[tokio::test]
async fn a_loss_of_all_data_is_repaired_and_gives_no_name_away() {
    for cluster in [
        Cluster::in_memory(2, &SHORT).await,
        Cluster::over_redis(2, &SHORT).await,
    ] {
        let mut one = cluster.login(0, "one").await;
        let mut other = cluster.login(1, "other").await;
        one.call(&mut other).await;
        match &cluster.backend {
            Backend::Memory(switch) => switch.flush(),
            Backend::Redis(redis) => drop(redis.ask("FLUSHALL").await),
        }
        let mut stranger = cluster.connect(1).await;
        let reply = stranger.try_login("one").await;
        assert_eq!(reply["success"], false, "{reply}");
        eventually("the other can be reached again", async || {
            (one.send_message("other", "again").await["status"] == "delivered").then_some(())
        })
        .await;
        other.receive_type("message").await;
        assert_eq!(stranger.try_login("one").await["success"], false);
        one.close().await;
        assert_eq!(other.receive_type("leave").await["reason"], "closed");
        other.expect_silence().await;
    }
}

/// Some leases are renewed between the loss and the heartbeat that notices it, others after that heartbeat.
#[tokio::test]
async fn each_session_gets_missed_once_after_a_loss_of_data() {
    // Leases are renewed in turn, each every 2 s, and a loss is noticed within 400 ms.
    let settings = [SHORT[0], SHORT[1], ("presence.node_ttl", "2s")];
    for cluster in [
        Cluster::in_memory(1, &settings).await,
        Cluster::over_redis(1, &settings).await,
    ] {
        let names: Vec<String> = (0..40).map(|number| format!("user{number}")).collect();
        let logins = names
            .iter()
            .map(|name| Client::login_resumable(cluster.nodes[0].address, name));
        let mut users = join_all(logins).await;
        for round in 0..6 {
            match &cluster.backend {
                Backend::Memory(switch) => switch.flush(),
                Backend::Redis(redis) => drop(redis.ask("FLUSHALL").await),
            }
            // Longer than it takes to notice the loss and to tell all sessions.
            let received = users
                .iter_mut()
                .map(|user| user.receive_for(Duration::from_secs(3)));
            for (name, received) in names.iter().zip(join_all(received).await) {
                let missed = received
                    .iter()
                    .filter(|said| said["missed"] == true)
                    .count();
                assert_eq!(missed, 1, "round {round}, {name}: {received:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_leave_lost_with_the_data_arrives_all_the_same() {
    for cluster in [
        Cluster::in_memory(2, &SHORT).await,
        Cluster::over_redis(2, &SHORT).await,
    ] {
        for (number, closes) in [false, true].into_iter().enumerate() {
            let (name, other_name) = (format!("one{number}"), format!("other{number}"));
            let mut one = cluster.login(0, &name).await;
            let mut other = cluster.login(1, &other_name).await;
            one.call(&mut other).await;
            match &cluster.backend {
                Backend::Memory(switch) => switch.flush(),
                Backend::Redis(redis) => drop(redis.ask("FLUSHALL").await),
            }
            let reason = if closes {
                one.close().await;
                "closed"
            } else {
                one.send(&json!({"type": "leave", "name": other_name}))
                    .await;
                "hangup"
            };
            // Both are told of the loss. The leave arrives once, either itself or as the answer to the check that
            // follows.
            let leave = other.receive_type("leave").await;
            assert_eq!(leave["name"], *name);
            assert!([reason, "lost"].contains(&leave["reason"].as_str().unwrap()));
            let more = other.receive_for(Duration::from_secs(2)).await;
            assert!(more.iter().all(|said| said["type"] != "leave"), "{more:?}");
            for node in 0..2 {
                eventually("newcomers can log in again", async || {
                    let mut login_attempt = cluster.connect(node).await;
                    let name = format!("login_attempt{number}{node}");
                    (login_attempt.try_login(&name).await["success"] == true).then_some(())
                })
                .await;
            }
        }
    }
}

#[tokio::test]
async fn the_next_user_of_a_name_does_not_inherit_calls() {
    for cluster in [
        Cluster::in_memory(2, &[]).await,
        Cluster::over_redis(2, &[]).await,
    ] {
        let mut one = cluster.login(0, "one").await;
        let mut other = cluster.login(1, "other").await;
        one.call(&mut other).await;
        other.close().await;
        assert_eq!(one.receive().await["type"], "leave");
        let mut next = cluster.login(0, "other").await;
        one.send(&json!({"type": "leave", "name": "other", "id": 1}))
            .await;
        assert_eq!(one.receive().await["status"], "delivered");
        next.expect_silence().await;
        next.close().await;
        one.expect_silence().await;
    }
}

#[tokio::test]
async fn a_call_begun_repeatedly_ends_once_each_time() {
    for cluster in [
        Cluster::in_memory(2, &[]).await,
        Cluster::over_redis(2, &[]).await,
    ] {
        let mut other = cluster.login(1, "other").await;
        for round in 0..50 {
            let mut one = cluster.login(0, "one").await;
            one.call(&mut other).await;
            let reason = match round % 3 {
                0 => {
                    one.close().await;
                    "closed"
                }
                1 => {
                    one.disconnect();
                    "lost"
                }
                _ => {
                    one.send(&json!({"type": "leave"})).await;
                    one.close().await;
                    "hangup"
                }
            };
            assert_eq!(
                other.receive().await,
                json!({"type": "leave", "name": "one", "reason": reason})
            );
            other.expect_silence().await;
        }
    }
}

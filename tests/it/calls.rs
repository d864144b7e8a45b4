//! Calls across nodes that end in every way, and what was missed meanwhile.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::cluster::{Cluster, Ground};
use crate::support::eventually;
use crate::support::peer::Peer;

/// Leases that are short enough to wait for.
const SHORT: [(&str, &str); 3] = [
    ("presence.ttl", "6s"),
    ("presence.grace", "1s"),
    ("presence.node_ttl", "1s"),
];

#[tokio::test]
async fn what_was_sent_while_a_node_was_deaf_arrives_later_in_order() {
    let cluster = Cluster::embedded(2, &[]).await;
    let Ground::MemoryBroker(switch) = &cluster.ground else {
        unreachable!()
    };
    let mut one = cluster.login(0, "one").await;
    let mut other = Peer::login_resumable(cluster.nodes[1].address, "other").await;
    one.calls(&mut other).await;
    switch.block_pushes(&cluster.nodes[1].id);
    for number in 0..100 {
        assert_eq!(
            one.sends_message("other", &number.to_string()).await["status"],
            "delivered"
        );
    }
    other.hears_nothing_more().await;
    switch.unblock_pushes(&cluster.nodes[1].id).await;
    for number in 0..100 {
        assert_eq!(other.hears().await["message"], number.to_string());
    }
    one.sends_message("other", "live").await;
    assert_eq!(other.hears().await["message"], "live");
}

#[tokio::test]
async fn a_plain_session_is_told_that_it_may_have_missed_something() {
    for cluster in [
        Cluster::embedded(2, &[]).await,
        Cluster::redis(2, &[]).await,
    ] {
        let mut one = cluster.login(0, "one").await;
        let mut other = cluster.login(1, "other").await;
        one.calls(&mut other).await;
        match &cluster.ground {
            Ground::MemoryBroker(switch) => {
                switch.block_pushes(&cluster.nodes[1].id);
                let refused = one.sends_message("other", "lost").await;
                assert_eq!(refused["code"], "unavailable");
                switch.unblock_pushes(&cluster.nodes[1].id).await;
            }
            Ground::Redis(redis) => drop(redis.ask("CLIENT KILL TYPE pubsub").await),
        }
        let told = json!({"type": "status", "fabric": "ok", "missed": true});
        assert_eq!(other.hears().await, told);
        let sent = one.sends_message("other", "live").await;
        assert_eq!(sent["status"], "delivered");
        assert_eq!(other.hears_of("message").await["message"], "live");
        // The call goes on.
        other.hears_nothing_more().await;
    }
}

/// Nothing overtakes what is sent while the receiver's node subscribes anew, and the sender need not repeat it.
#[tokio::test]
async fn signals_to_a_node_between_two_subscriptions_arrive_in_order() {
    let cluster = Cluster::redis(2, &[("limits.signals_per_second", "0")]).await;
    let Ground::Redis(redis) = &cluster.ground else {
        unreachable!()
    };
    let mut one = cluster.login(0, "one").await;
    let mut other = cluster.login(1, "other").await;
    one.calls(&mut other).await;
    let mut sent = 0;
    for _ in 0..10 {
        redis.ask("CLIENT KILL TYPE pubsub").await;
        for _ in 0..50 {
            let (number, body) = (sent, json!({"number": sent}));
            one.says(
                &json!({"type": "candidate", "name": "other", "candidate": body, "id": number}),
            )
            .await;
            sent += 1;
        }
    }
    let (mut last, mut delivered) = (-1, 0);
    for number in 0..sent {
        let answer = loop {
            let answer = one.hears().await;
            if answer["id"] == number {
                break answer;
            }
        };
        assert_eq!(answer["status"], "delivered", "{answer}");
        delivered += 1;
    }
    assert_eq!(delivered, sent);
    loop {
        let heard = other.hears().await;
        if let Some(number) = heard["candidate"]["number"].as_i64() {
            assert!(number > last, "{number} came after {last}");
            last = number;
        }
        if last + 1 == i64::from(sent) {
            break;
        }
    }
}

#[tokio::test]
async fn a_leave_reaches_a_deaf_node_too() {
    let cluster = Cluster::embedded(2, &[]).await;
    let Ground::MemoryBroker(switch) = &cluster.ground else {
        unreachable!()
    };
    let mut one = cluster.login(0, "one").await;
    let mut other = cluster.login(1, "other").await;
    one.calls(&mut other).await;
    switch.block_pushes(&cluster.nodes[1].id);
    one.closes().await;
    switch.unblock_pushes(&cluster.nodes[1].id).await;
    assert_eq!(
        other.hears_of("leave").await,
        json!({"type": "leave", "name": "one", "reason": "closed"})
    );
    other.hears_nothing_more().await;
}

/// The offer is in the inbox, the callee's session has not read it, and ends: the caller must hear of it.
#[tokio::test]
async fn an_offer_that_was_never_read_is_answered_with_a_leave() {
    let cluster = Cluster::embedded(2, &[]).await;
    let Ground::MemoryBroker(switch) = &cluster.ground else {
        unreachable!()
    };
    let mut one = cluster.login(0, "one").await;
    let other = Peer::login_resumable(cluster.nodes[1].address, "other").await;
    switch.block_pushes(&cluster.nodes[1].id);
    one.says(&json!({"type": "offer", "name": "other", "offer": 1, "id": 1}))
        .await;
    assert_eq!(one.hears().await["status"], "delivered");
    other.closes().await;
    assert_eq!(
        one.hears().await,
        json!({"type": "leave", "name": "other", "reason": "closed"})
    );
    one.hears_nothing_more().await;
}

#[tokio::test]
async fn a_stall_of_the_fabric_ends_no_call_and_a_leave_waits_for_its_end() {
    let cluster = Cluster::embedded(2, &SHORT).await;
    let Ground::MemoryBroker(switch) = &cluster.ground else {
        unreachable!()
    };
    let mut one = cluster.login(0, "one").await;
    let mut other = cluster.login(1, "other").await;
    let mut third = cluster.login(1, "third").await;
    one.calls(&mut other).await;
    third.calls(&mut one).await;
    switch.set_unreachable(true);
    assert_eq!(one.sends_message("other", "1").await["code"], "unavailable");
    // On one node plain users reach each other without the broker.
    other
        .says(&json!({"type": "message", "name": "third", "message": 1, "id": 1}))
        .await;
    assert_eq!(third.hears().await["message"], 1);
    assert_eq!(other.hears_of("ack").await["status"], "delivered");
    third.closes().await;
    let mut late = cluster.connect(0).await;
    assert_eq!(late.tries_login("late").await["code"], "unavailable");
    // Longer than a node lease lives.
    assert_eq!(
        one.listens(Duration::from_millis(1500)).await,
        [json!({"type": "status", "fabric": "degraded"})]
    );
    switch.set_unreachable(false);
    assert_eq!(
        one.hears_of("leave").await,
        json!({"type": "leave", "name": "third", "reason": "closed"})
    );
    eventually("the call goes on", async || {
        (one.sends_message("other", "2").await["status"] == "delivered").then_some(())
    })
    .await;
    assert_eq!(other.hears_of("message").await["message"], "2");
    one.hears_nothing_more().await;
}

#[tokio::test]
async fn a_store_that_forgets_everything_gets_everybody_back_and_gives_no_name_away() {
    for cluster in [
        Cluster::embedded(2, &SHORT).await,
        Cluster::redis(2, &SHORT).await,
    ] {
        let mut one = cluster.login(0, "one").await;
        let mut other = cluster.login(1, "other").await;
        one.calls(&mut other).await;
        match &cluster.ground {
            Ground::MemoryBroker(switch) => switch.flush(),
            Ground::Redis(redis) => drop(redis.ask("FLUSHALL").await),
        }
        let mut stranger = cluster.connect(1).await;
        let reply = stranger.tries_login("one").await;
        assert_eq!(reply["success"], false, "{reply}");
        eventually("the other can be reached again", async || {
            (one.sends_message("other", "again").await["status"] == "delivered").then_some(())
        })
        .await;
        other.hears_of("message").await;
        assert_eq!(stranger.tries_login("one").await["success"], false);
        one.closes().await;
        assert_eq!(other.hears_of("leave").await["reason"], "closed");
        other.hears_nothing_more().await;
    }
}

/// Some leases are renewed between the loss and the beat that notices it, others after it.
#[tokio::test]
async fn each_session_is_told_of_a_loss_of_data_once() {
    // Each lease is renewed every 2 s in turn, and a loss is noticed within 400 ms.
    let settings = [SHORT[0], SHORT[1], ("presence.node_ttl", "2s")];
    for cluster in [
        Cluster::embedded(1, &settings).await,
        Cluster::redis(1, &settings).await,
    ] {
        let names: Vec<String> = (0..40).map(|number| format!("user{number}")).collect();
        let logins = names
            .iter()
            .map(|name| Peer::login_resumable(cluster.nodes[0].address, name));
        let mut users = join_all(logins).await;
        for round in 0..6 {
            match &cluster.ground {
                Ground::MemoryBroker(switch) => switch.flush(),
                Ground::Redis(redis) => drop(redis.ask("FLUSHALL").await),
            }
            // Longer than until it is noticed and everybody was told.
            let heard = users
                .iter_mut()
                .map(|user| user.listens(Duration::from_secs(3)));
            for (name, heard) in names.iter().zip(join_all(heard).await) {
                let missed = heard.iter().filter(|said| said["missed"] == true).count();
                assert_eq!(missed, 1, "round {round}, {name}: {heard:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_leave_that_the_store_forgot_is_told_all_the_same() {
    for cluster in [
        Cluster::embedded(2, &SHORT).await,
        Cluster::redis(2, &SHORT).await,
    ] {
        for (number, closes) in [false, true].into_iter().enumerate() {
            let (name, other_name) = (format!("one{number}"), format!("other{number}"));
            let mut one = cluster.login(0, &name).await;
            let mut other = cluster.login(1, &other_name).await;
            one.calls(&mut other).await;
            match &cluster.ground {
                Ground::MemoryBroker(switch) => switch.flush(),
                Ground::Redis(redis) => drop(redis.ask("FLUSHALL").await),
            }
            let reason = if closes {
                one.closes().await;
                "closed"
            } else {
                one.says(&json!({"type": "leave", "name": other_name}))
                    .await;
                "hangup"
            };
            // Both are told of the loss; the leave itself, or the answer to what is asked then, comes once.
            let leave = other.hears_of("leave").await;
            assert_eq!(leave["name"], *name);
            assert!([reason, "lost"].contains(&leave["reason"].as_str().unwrap()));
            let more = other.listens(Duration::from_secs(2)).await;
            assert!(more.iter().all(|said| said["type"] != "leave"), "{more:?}");
            for node in 0..2 {
                eventually("newcomers can log in again", async || {
                    let mut newcomer = cluster.connect(node).await;
                    let name = format!("newcomer{number}{node}");
                    (newcomer.tries_login(&name).await["success"] == true).then_some(())
                })
                .await;
            }
        }
    }
}

#[tokio::test]
async fn the_next_user_of_a_name_is_not_in_the_calls_of_the_last() {
    for cluster in [
        Cluster::embedded(2, &[]).await,
        Cluster::redis(2, &[]).await,
    ] {
        let mut one = cluster.login(0, "one").await;
        let mut other = cluster.login(1, "other").await;
        one.calls(&mut other).await;
        other.closes().await;
        assert_eq!(one.hears().await["type"], "leave");
        let mut next = cluster.login(0, "other").await;
        one.says(&json!({"type": "leave", "name": "other", "id": 1}))
            .await;
        assert_eq!(one.hears().await["status"], "delivered");
        next.hears_nothing_more().await;
        next.closes().await;
        one.hears_nothing_more().await;
    }
}

#[tokio::test]
async fn a_call_set_up_over_and_over_ends_each_time_once() {
    for cluster in [
        Cluster::embedded(2, &[]).await,
        Cluster::redis(2, &[]).await,
    ] {
        let mut other = cluster.login(1, "other").await;
        for round in 0..50 {
            let mut one = cluster.login(0, "one").await;
            one.calls(&mut other).await;
            let reason = match round % 3 {
                0 => {
                    one.closes().await;
                    "closed"
                }
                1 => {
                    one.vanishes();
                    "lost"
                }
                _ => {
                    one.says(&json!({"type": "leave"})).await;
                    one.closes().await;
                    "hangup"
                }
            };
            assert_eq!(
                other.hears().await,
                json!({"type": "leave", "name": "one", "reason": reason})
            );
            other.hears_nothing_more().await;
        }
    }
}

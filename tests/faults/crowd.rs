//! Many clients at once: a thousand logins for one name, calls right after a login, a drain of a node with a thousand
//! sessions.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use testing::Client;
use testing::http;
use testing::{Node, Redis};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_logins_for_a_name_one_succeeds() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Node::start(Some(&redis), &[]).await);
    }
    for round in 0..5 {
        let mut connected = Vec::new();
        for number in 0..1000 {
            connected.push(Client::connect(nodes[number % 3].address).await);
        }
        let mut trying = JoinSet::new();
        for mut peer in connected {
            trying.spawn(async move {
                let reply = peer.try_login(&format!("wanted{round}")).await;
                (reply, peer)
            });
        }
        // All stay connected until each has its answer: a winner that left would free the name for the next.
        let all = trying.join_all().await;
        let winners = all
            .iter()
            .filter(|(reply, _)| reply["success"] == true)
            .count();
        assert_eq!(winners, 1, "round {round}");
        let taken = all
            .iter()
            .filter(|(reply, _)| reply["code"] == "name_taken")
            .count();
        assert_eq!(
            taken,
            999,
            "round {round}: {:?}",
            all.iter()
                .map(|(reply, _)| &reply["code"])
                .max_by_key(|code| code.as_str() != Some("name_taken"))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_login_reply_every_node_can_reach_the_user() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let fast = [("limits.signals_per_second", "0")];
    let nodes = [
        Node::start(Some(&redis), &fast).await,
        Node::start(Some(&redis), &fast).await,
    ];
    let addresses = nodes.each_ref().map(|node| node.address);
    let mut trying = JoinSet::new();
    for publisher in 0..20 {
        trying.spawn(async move {
            let mut callers = [
                Client::login(addresses[0], &format!("caller{publisher}a")).await,
                Client::login(addresses[1], &format!("caller{publisher}b")).await,
            ];
            for number in 0..500 {
                let name = format!("u{publisher}-{number}");
                let mut user = Client::login(addresses[number % 2], &name).await;
                let caller = &mut callers[number / 2 % 2];
                let answer = caller.send_message(&name, &name).await;
                assert_eq!(answer["status"], "delivered", "{answer}");
                assert_eq!(user.receive().await["message"], name.as_str());
                user.close().await;
            }
        });
    }
    trying.join_all().await;
    leaves_nothing_behind(&redis).await;
}

/// After all sessions have closed, Redis has only inboxes, which expire.
async fn leaves_nothing_behind(redis: &Redis) {
    testing::eventually("every name is given back", async || {
        redis
            .keys()
            .await
            .iter()
            .all(|(key, _)| !key.starts_with("sb:p:"))
            .then_some(())
    })
    .await;
    for (key, life) in redis.keys().await {
        assert!((0..=60_000).contains(&life), "{key} lives {life} ms");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_has_a_time_to_live() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let fast = [("limits.signals_per_second", "0")];
    let nodes = [
        Node::start(Some(&redis), &fast).await,
        Node::start(Some(&redis), &fast).await,
    ];
    let addresses = nodes.each_ref().map(|node| node.address);
    let stop = CancellationToken::new();
    let mut load = JoinSet::new();
    for number in 0..10 {
        let stop = stop.clone();
        load.spawn(async move {
            while !stop.is_cancelled() {
                let mut one = Client::login(addresses[0], &format!("a{number}")).await;
                let mut other = Client::login(addresses[1], &format!("b{number}")).await;
                one.call(&mut other).await;
                for candidate in 0..20 {
                    one.send(
                        &json!({"type": "candidate", "name": other.name, "candidate": candidate}),
                    )
                    .await;
                }
                // Half of them vanish, half of them close.
                if number % 2 == 0 {
                    one.disconnect();
                } else {
                    one.close().await;
                }
                other.receive_type("leave").await;
                other.close().await;
            }
        });
    }
    let begun = Instant::now();
    let mut scanned = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        for (key, life) in redis.keys().await {
            assert!(life >= 0, "{key} has no time to live");
            assert!(life <= 60_000, "{key} lives {life} ms");
            scanned += 1;
        }
    }
    assert!(scanned > 100, "{scanned} keys were looked at");
    stop.cancel();
    load.join_all().await;
    leaves_nothing_behind(&redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_thousand_sessions_drains_within_its_deadline() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let (mut leaving, staying) = (
        Node::start(Some(&redis), &[]).await,
        Node::start(Some(&redis), &[]).await,
    );
    let mut users = Vec::new();
    for number in 0..1000 {
        users.push(Client::login(leaving.address, &format!("u{number}")).await);
    }
    let mut peers = Vec::new();
    for (number, user) in users.iter_mut().take(100).enumerate() {
        let mut peer = Client::login(staying.address, &format!("p{number}")).await;
        user.call(&mut peer).await;
        peers.push(peer);
    }
    let idle = Node::start(Some(&redis), &[]).await;

    leaving.process.signal("TERM");
    let asked = Instant::now();
    let refused = testing::eventually("new connections are refused", async || {
        // The node listens until its last session has ended, which may be soon.
        match http::get_with(leaving.address, "/ws", http::UPGRADE).await {
            Some(response) if response.status == 503 => {
                Some(!response.header("retry-after").is_empty())
            }
            None => Some(true),
            Some(_) => None,
        }
    });
    assert!(refused.await, "a 503 has a Retry-After");
    let mut closing = JoinSet::new();
    for mut user in users {
        closing.spawn(async move { user.closed().await });
    }
    let codes = closing.join_all().await;
    assert!(codes.iter().all(|code| *code == Some(1012)));
    assert_eq!(leaving.process.ended().await, Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "it took {:?}",
        asked.elapsed()
    );
    println!("a node of 1,000 sessions stopped in {:?}", asked.elapsed());
    for (number, peer) in peers.iter_mut().enumerate() {
        let leave = peer.receive().await;
        assert_eq!(
            leave,
            json!({"type": "leave", "name": format!("u{number}"), "reason": "closed"})
        );
        peer.expect_silence().await;
    }
    gives_everything_back(&redis).await;
    stops_at_once(idle).await;
}

/// The drained node has left no presence and no lease; two other nodes live.
async fn gives_everything_back(redis: &Redis) {
    let keys = redis.keys().await;
    let is_presence = |key: &str| key.contains("/u") && key.starts_with("sb:p:");
    let left: Vec<_> = keys.iter().filter(|(key, _)| is_presence(key)).collect();
    assert!(left.is_empty(), "{left:?}");
    let nodes = keys.iter().filter(|(key, _)| key.starts_with("sb:{n}:"));
    assert_eq!(nodes.count(), 2, "its own lease is given back too");
}

async fn stops_at_once(mut idle: Node) {
    let asked = Instant::now();
    idle.process.signal("TERM");
    assert_eq!(idle.process.ended().await, Some(0));
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(1), "without sessions: {took:?}");
}

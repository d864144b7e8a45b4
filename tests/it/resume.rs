//! Sessions that outlive their connection: resumed on any node, nothing lost, nothing twice, no peer disturbed.

use std::time::Duration;

use serde_json::{Value, json};

use testing::cluster::{Backend, Cluster};
use testing::eventually;
use testing::websocket::{Client, ResumeToken};

/// A short grace, where its end is waited for.
const SHORT: [(&str, &str); 3] = [
    ("presence.grace", "500ms"),
    ("presence.node_ttl", "1s"),
    ("presence.ttl", "3s"),
];

async fn clusters(settings: &[(&str, &str)]) -> [Cluster; 2] {
    [
        Cluster::in_memory(2, settings).await,
        Cluster::over_redis(2, settings).await,
    ]
}

/// The answer of Redis to the node was lost, and the client does not try again.
#[tokio::test]
async fn a_resume_that_nobody_knows_of_ends_with_the_grace() {
    let cluster = Cluster::over_redis(2, &SHORT).await;
    let Backend::Redis(redis) = &cluster.backend else {
        unreachable!()
    };
    let mut caller = cluster.login(0, "caller").await;
    let mut client = cluster.login_resumable(0, "client").await;
    caller.call(&mut client).await;
    let holder = redis.ask("GET sb:p:{/client}").await;
    let holder: String = redis::from_redis_value(holder).unwrap();
    let session = holder.split(' ').nth(1).unwrap().to_owned();
    client.disconnect();
    let node = &cluster.nodes[1].id;
    let mut connection = redis.connection().await;
    redis::cmd("SET")
        .arg("sb:p:{/client}")
        .arg(format!("{node} {session} 7 r"))
        .arg("PX")
        .arg(60_000)
        .query_async::<()>(&mut connection)
        .await
        .unwrap();
    // That it is somewhere else by now is told by whatever is sent to it.
    caller.send_message("client", "1").await;
    let leave = caller.receive().await;
    assert_eq!(leave["type"], "leave", "{leave}");
    caller.expect_silence().await;
    eventually("the name is free", async || {
        (redis.ask("GET sb:p:{/client}").await == redis::Value::Nil).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_missed_comes_first_then_what_is_new_and_nothing_twice() {
    for cluster in clusters(&[]).await {
        let mut caller = cluster.login(0, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.call(&mut client).await;
        for number in 0..10 {
            caller.send_candidate("client", number).await;
        }
        client.receive_candidates(0..10).await;
        // Back and forth between the nodes; once without having noticed that the connection is gone.
        for (round, node) in [1, 0, 1].into_iter().enumerate() {
            let token = if round == 1 {
                let token = client.token.clone();
                client.disconnect();
                token
            } else {
                cluster.disconnect(&mut caller, client).await
            };
            for number in 0..30 {
                caller.send_candidate("client", 100 * round + number).await;
            }
            client = cluster.resume(node, &token).await;
            for number in 30..60 {
                caller.send_candidate("client", 100 * round + number).await;
            }
            client
                .receive_candidates(100 * round..100 * round + 60)
                .await;
        }
        client.send_candidate("caller", 7).await;
        assert_eq!(caller.receive_type("candidate").await["candidate"], 7);
        caller.expect_silence().await;
        client.close().await;
        assert_eq!(
            caller.receive().await,
            json!({"type": "leave", "name": "client", "reason": "closed"})
        );
        caller.expect_silence().await;
    }
}

#[tokio::test]
async fn without_last_everything_that_was_not_confirmed_comes_again() {
    for cluster in clusters(&[]).await {
        let mut caller = cluster.login(1, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        for number in 0..5 {
            caller.send_candidate("client", number).await;
        }
        client.receive_candidates(0..5).await;
        let third = client.token.last.clone().unwrap();
        client.send(&json!({"type": "ack", "seq": third})).await;
        client.expect_silence().await;
        for number in 5..8 {
            caller.send_candidate("client", number).await;
        }
        client.receive_candidates(5..8).await;
        let token = ResumeToken {
            last: None,
            ..cluster.disconnect(&mut caller, client).await
        };
        let mut client = cluster.resume(1, &token).await;
        client.receive_candidates(5..8).await;
    }
}

#[tokio::test]
async fn answers_to_pings_confirm_what_was_said_before() {
    for cluster in clusters(&[("limits.signals_per_second", "0")]).await {
        let mut caller = cluster.login(1, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.send_candidate("client", 0).await;
        client.receive_candidates([0]).await;
        let first = client.token.last.clone();
        // More than an inbox keeps: there is room as long as the client answers.
        for number in 1..1000 {
            caller
                .send(&json!({"type": "candidate", "name": "client", "candidate": number, "id": number}))
                .await;
            assert_eq!(caller.receive().await["status"], "delivered");
        }
        client.receive_candidates(1..1000).await;
        let token = ResumeToken {
            last: first,
            ..client.token.clone()
        };
        let mut other = cluster.connect(1).await;
        let refused = other.try_resume(&token).await;
        assert_eq!(
            refused["code"], "resume_failed",
            "it was confirmed and is not kept: {refused}"
        );
        client.expect_silence().await;
    }
}

/// It was sent, and has confirmed, what it was not told: that its peer has moved.
#[tokio::test]
async fn a_client_names_the_last_that_it_was_told_though_it_has_confirmed_more() {
    for cluster in clusters(&[("session.ping_every", "100ms")]).await {
        let mut prober = cluster.login(0, "prober").await;
        let mut caller = cluster.login_resumable(0, "caller").await;
        let mut client = cluster.login_resumable(1, "client").await;
        caller.call(&mut client).await;
        let token = cluster.disconnect(&mut prober, caller).await;
        let mut caller = cluster.resume(1, &token).await;
        assert!(client.receive_for(Duration::from_secs(1)).await.is_empty());
        let token = cluster.disconnect(&mut prober, client).await;
        let mut client = cluster.resume(0, &token).await;
        client.send_candidate("caller", 1).await;
        caller.receive_candidates([1]).await;
        caller.send_candidate("client", 2).await;
        client.receive_candidates([2]).await;
    }
}

#[tokio::test]
async fn after_the_grace_peers_hear_one_leave_and_the_name_is_free() {
    for cluster in clusters(&SHORT).await {
        let mut caller = cluster.login(1, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.call(&mut client).await;
        let mut late = cluster.login(1, "late").await;
        let token = cluster.disconnect(&mut late, client).await;
        let mut stranger = cluster.connect(1).await;
        let refused = stranger.try_login("client").await;
        assert_eq!(refused["code"], "name_taken");
        let retry_after = refused["retry_after_ms"].as_u64().unwrap();
        assert!(retry_after <= 500, "{refused}");
        // Called while it is away: in a call with it, as far as the caller knows.
        late.send(&json!({"type": "offer", "name": "client", "offer": 1, "id": "o"}))
            .await;
        assert_eq!(late.receive().await["status"], "queued");
        let lost = json!({"type": "leave", "name": "client", "reason": "lost"});
        assert_eq!(caller.receive().await, lost);
        assert_eq!(late.receive().await, lost);
        caller.expect_silence().await;
        late.expect_silence().await;
        let mut back = cluster.connect(0).await;
        assert_eq!(back.try_resume(&token).await["code"], "resume_failed");
        assert_eq!(stranger.try_login("client").await["success"], true);
    }
}

#[tokio::test]
async fn a_resume_replaces_the_connection_before() {
    for cluster in clusters(&[]).await {
        let mut caller = cluster.login(0, "caller").await;
        let mut first = cluster.login_resumable(0, "client").await;
        caller.call(&mut first).await;
        let token = first.token.clone();
        for node in [1, 1, 0] {
            let second = cluster.resume(node, &token).await;
            assert_eq!(first.closed().await, Some(4000));
            first = second;
        }
        caller.send_candidate("client", 1).await;
        first.receive_candidates([1]).await;
        caller.expect_silence().await;
        first.close().await;
        assert_eq!(caller.receive().await["type"], "leave");
        caller.expect_silence().await;
    }
}

#[tokio::test]
async fn of_resumes_that_race_one_is_left() {
    for cluster in clusters(&[]).await {
        let mut caller = cluster.login(0, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.call(&mut client).await;
        let token = client.token.clone();
        let racing = (0..20).map(async |number| {
            let mut racer = cluster.connect(number % 2).await;
            racer.race_to_resume(&token).await.then_some(racer)
        });
        let racers = futures_util::future::join_all(racing).await;
        let mut racers: Vec<Client> = racers.into_iter().flatten().collect();
        caller
            .send(&json!({"type": "message", "name": "client", "message": "who?", "id": 1}))
            .await;
        assert_eq!(caller.receive().await["status"], "delivered");
        let mut heard = 0;
        for racer in &mut racers {
            // Whoever lost is closed, though it may have been in for long enough to hear the offer again; the one that is left goes on.
            while let Some(said) = racer.receive_or_closed(4000).await {
                if said["message"] == "who?" {
                    heard += 1;
                    break;
                }
                assert_eq!(said["type"], "offer", "{said}");
            }
        }
        assert_eq!(heard, 1);
        caller.expect_silence().await;
    }
}

#[tokio::test]
async fn a_secret_fits_one_session_and_guessing_takes_its_time() {
    for cluster in clusters(&[]).await {
        let client = cluster.login_resumable(0, "client").await;
        let mut other = cluster.login_resumable(0, "other").await;
        let foreign = ResumeToken {
            name: "client".to_owned(),
            ..other.token.clone()
        };
        let mut guesser = cluster.connect(1).await;
        let begun = std::time::Instant::now();
        for _ in 0..4 {
            let reply = guesser.try_resume(&foreign).await;
            assert_eq!(reply["code"], "resume_failed");
        }
        assert!(begun.elapsed().as_secs() >= 4);
        guesser
            .send(&json!({"type": "login", "name": "client", "resume": "x"}))
            .await;
        assert_eq!(guesser.closed().await, Some(4029));
        // An old one: its session is over.
        let token = client.token.clone();
        client.close().await;
        // The goodbye to its client does not wait for the store.
        eventually("its session is over", async || {
            other
                .send(&json!({"type": "presence", "names": ["client"]}))
                .await;
            let told = other.receive_type("presence").await;
            (told["users"]["client"] == false).then_some(())
        })
        .await;
        let mut back = cluster.connect(1).await;
        let reply = back.try_resume(&token).await;
        assert_eq!(reply["code"], "resume_failed");
        let next = eventually("the name is free", async || {
            let mut next = cluster.connect(0).await;
            let reply = next.try_login("client").await;
            (reply["success"] == true).then_some(next)
        })
        .await;
        let reply = back.try_resume(&token).await;
        assert_eq!(reply["code"], "resume_failed", "it is another's session");
        drop(next);
    }
}

#[tokio::test]
async fn a_last_that_was_never_told_is_refused_and_harms_nobody() {
    for cluster in clusters(&[]).await {
        let mut caller = cluster.login(0, "caller").await;
        let client = cluster.login_resumable(0, "client").await;
        let token = cluster.disconnect(&mut caller, client).await;
        let greatest = u64::MAX;
        let absurd = ResumeToken {
            last: Some(format!("{greatest}-{greatest}")),
            ..token.clone()
        };
        let mut liar = cluster.connect(1).await;
        let refused = liar.try_resume(&absurd).await;
        assert_eq!(refused["code"], "resume_failed");
        caller.send_candidate("client", 1).await;
        let mut client = cluster.resume(1, &token).await;
        client.receive_candidates([1]).await;
        caller.send_candidate("client", 2).await;
        client.receive_candidates([2]).await;
    }
}

#[tokio::test]
async fn an_inbox_that_is_full_is_told_and_one_sender_does_not_fill_it() {
    for cluster in clusters(&[]).await {
        let mut greedy = cluster.login(0, "greedy").await;
        let client = cluster.login_resumable(0, "client").await;
        let token = cluster.disconnect(&mut greedy, client).await;
        let mut kept = 0;
        let refused = loop {
            let message = json!({"type": "message", "name": "client", "message": kept, "id": kept});
            greedy.send(&message).await;
            let answer = greedy.receive().await;
            if answer["status"] != "queued" {
                break answer;
            }
            kept += 1;
        };
        assert_eq!(refused["code"], "inbox_full");
        assert!(refused["retry_after_ms"].as_u64().is_some(), "{refused}");
        assert!((64..=128).contains(&kept), "{kept}");
        let mut other = cluster.login(1, "other").await;
        assert_eq!(
            other.send_message("client", "room").await["status"],
            "queued"
        );
        // A leave has always room.
        let mut client = cluster.resume(1, &token).await;
        for number in 0..kept {
            assert_eq!(client.receive_no_probe().await["message"], number);
        }
        assert_eq!(client.receive().await["message"], "room");
        eventually("there is room again", async || {
            let answer = greedy.send_message("client", "again").await;
            (answer["status"] == "delivered").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_peer_that_left_meanwhile_is_heard_once() {
    for cluster in clusters(&[]).await {
        let mut one = cluster.login(0, "one").await;
        let mut other = cluster.login_resumable(1, "other").await;
        let mut prober = cluster.login(0, "prober").await;
        let mut client = cluster.login_resumable(0, "client").await;
        one.call(&mut client).await;
        other.call(&mut client).await;
        let token = cluster.disconnect(&mut prober, client).await;
        one.close().await;
        other
            .send(&json!({"type": "leave", "name": "client", "id": 1}))
            .await;
        assert_eq!(other.receive().await["status"], "delivered");
        let mut client = cluster.resume(1, &token).await;
        let heard = [
            client.receive_no_probe().await,
            client.receive_no_probe().await,
        ];
        for (name, reason) in [("one", "closed"), ("other", "hangup")] {
            let leave = |message: &&Value| message["name"] == name && message["reason"] == reason;
            assert_eq!(heard.iter().filter(leave).count(), 1, "{heard:?}");
        }
        client.expect_silence().await;
        // Heard, but its client may not know that it did: told again to the next connection, and no more.
        let token = ResumeToken {
            last: None,
            ..client.token.clone()
        };
        let mut again = cluster.resume(0, &token).await;
        for _ in 0..2 {
            assert_eq!(again.receive_no_probe().await["type"], "leave");
        }
        again.expect_silence().await;
        again.close().await;
        other.expect_silence().await;
    }
}

#[tokio::test]
async fn a_clean_close_ends_a_session_and_others_do_not() {
    for cluster in clusters(&SHORT).await {
        let mut caller = cluster.login(1, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.call(&mut client).await;
        let token = client.token.clone();
        client.close_with(3001).await;
        let client = cluster.resume(1, &token).await;
        caller.expect_silence().await;
        client.close_with(1000).await;
        assert_eq!(caller.receive().await["reason"], "closed");
        let mut back = cluster.connect(0).await;
        assert_eq!(back.try_resume(&token).await["code"], "resume_failed");
    }
}

#[tokio::test]
async fn a_drain_moves_sessions_and_nobody_hears_of_it() {
    for mut cluster in clusters(&[]).await {
        let mut caller = cluster.login(1, "caller").await;
        let mut watcher = cluster.login(1, "watcher").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.call(&mut client).await;
        watcher
            .send(&json!({"type": "presence", "names": ["client"], "watch": true}))
            .await;
        assert_eq!(watcher.receive().await["users"]["client"], true);
        cluster.nodes[0].drain();
        assert_eq!(client.receive().await["type"], "goaway");
        assert_eq!(client.closed().await, Some(1012));
        assert!(cluster.nodes[0].stopped().await);
        for number in 0..5 {
            caller.send_candidate("client", number).await;
        }
        let mut client = cluster.resume(1, &client.token).await;
        client.receive_candidates(0..5).await;
        caller.expect_silence().await;
        watcher.expect_silence().await;
    }
}

#[tokio::test]
async fn an_old_connection_is_told_to_go() {
    let settings = [("session.max_age", "400ms")];
    let cluster = Cluster::in_memory(2, &settings).await;
    let mut plain = cluster.login(0, "plain").await;
    let mut client = cluster.login_resumable(0, "client").await;
    plain.call(&mut client).await;
    assert_eq!(client.receive().await["type"], "goaway");
    assert_eq!(client.closed().await, Some(1012));
    let _client = cluster.resume(1, &client.token).await;
    plain.expect_silence().await;
}

#[tokio::test]
async fn the_state_of_the_fabric_is_told() {
    let cluster = Cluster::in_memory(1, &SHORT).await;
    let Backend::Memory(switch) = &cluster.backend else {
        unreachable!()
    };
    let mut client = cluster.login_resumable(0, "client").await;
    let mut plain = cluster.login(0, "plain").await;
    for (away, word) in [(true, "degraded"), (false, "ok")] {
        switch.set_away(away);
        for peer in [&mut client, &mut plain] {
            assert_eq!(
                peer.receive().await,
                json!({"type": "status", "fabric": word})
            );
        }
    }
}

#[tokio::test]
async fn a_peer_that_died_after_both_had_moved_is_missed() {
    for mut cluster in clusters(&SHORT).await {
        cluster.add_node().await;
        let mut one = cluster.login_resumable(0, "one").await;
        let mut other = cluster.login_resumable(1, "other").await;
        one.call(&mut other).await;
        // Each time somebody moves, the other knows where to.
        for node in [2, 0, 2] {
            one = cluster.resume(node, &one.token).await;
            one.send_candidate("other", node).await;
            other.receive_candidates([node]).await;
            other = cluster.resume(2 - node, &other.token).await;
            other.send_candidate("one", node).await;
            one.receive_candidates([node]).await;
        }
        one.disconnect();
        drop(cluster.nodes.remove(2));
        assert_eq!(
            other.receive().await["reason"],
            "node_lost",
            "the node of its peer died"
        );
        other.expect_silence().await;
    }
}

#[path = "resume/repetition.rs"]
mod repetition;

//! Resumable sessions: they resume on any node, lose nothing, get nothing twice, and their peers do not notice.

mod app_confirms;
mod ending;
mod held_back;
mod inbox;
mod repetition;

use std::time::Duration;

use serde_json::json;

use testing::Cluster;
use testing::eventually;
use testing::websocket::{Client, ResumeToken};

/// A grace period that ends within a test.
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

#[tokio::test]
async fn missed_signals_come_before_new_ones_and_none_twice() {
    for cluster in clusters(&[]).await {
        let mut caller = cluster.login(0, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.call(&mut client).await;
        for number in 0..10 {
            caller.send_candidate("client", number).await;
        }
        client.receive_candidates(0..10).await;
        // Moves between the nodes; once before the old node has noticed that the connection is gone.
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
async fn without_last_all_unconfirmed_entries_return() {
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
async fn pongs_confirm_earlier_entries() {
    for cluster in clusters(&[("limits.signals_per_second", "0")]).await {
        let mut caller = cluster.login(1, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.send_candidate("client", 0).await;
        client.receive_candidates([0]).await;
        let first = client.token.last.clone();
        // More than an inbox holds: answers to pings make room.
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

/// A pong has confirmed an entry that the client never saw: the note that its peer has moved.
#[tokio::test]
async fn a_client_may_resume_behind_what_its_pongs_confirmed() {
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
async fn of_racing_resumes_one_remains() {
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
        let mut received = 0;
        for racer in &mut racers {
            // The others are closed, perhaps after they got the offer again; the last one keeps the session.
            while let Some(said) = racer.receive_or_closed(4000).await {
                if said["message"] == "who?" {
                    received += 1;
                    break;
                }
                assert_eq!(said["type"], "offer", "{said}");
            }
        }
        assert_eq!(received, 1);
        caller.expect_silence().await;
    }
}

#[tokio::test]
async fn a_secret_fits_one_session_and_guesses_are_delayed() {
    for cluster in clusters(&[]).await {
        let client = cluster.login_resumable(0, "client").await;
        let mut other = cluster.login_resumable(0, "other").await;
        let foreign = ResumeToken {
            name: "client".to_owned(),
            ..other.token.clone()
        };
        let mut guesser = cluster.connect(1).await;
        let start = std::time::Instant::now();
        for _ in 0..4 {
            let reply = guesser.try_resume(&foreign).await;
            assert_eq!(reply["code"], "resume_failed");
        }
        assert!(start.elapsed().as_secs() >= 4);
        guesser
            .send(&json!({"type": "login", "name": "client", "resume": "x"}))
            .await;
        assert_eq!(guesser.closed().await, Some(4029));
        // The secret of a session that has ended.
        let token = client.token.clone();
        client.close().await;
        // The close frame does not wait for Redis.
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
async fn an_unknown_last_is_refused() {
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

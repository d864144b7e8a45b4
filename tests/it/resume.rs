//! Sessions that outlive their connection: resumed on any node, nothing lost, nothing twice, no peer disturbed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::cluster::{Cluster, Ground};
use crate::support::eventually;
use crate::support::peer::{Peer, Ticket};

/// A short grace, where its end is waited for.
const SHORT: [(&str, &str); 3] = [
    ("presence.grace", "500ms"),
    ("presence.node_ttl", "1s"),
    ("presence.ttl", "3s"),
];

async fn grounds(settings: &[(&str, &str)]) -> [Cluster; 2] {
    [
        Cluster::embedded(2, settings).await,
        Cluster::redis(2, settings).await,
    ]
}

impl Cluster {
    async fn login_resumable(&self, node: usize, name: &str) -> Peer {
        Peer::login_resumable(self.nodes[node].address, name).await
    }

    async fn resume(&self, node: usize, ticket: &Ticket) -> Peer {
        Peer::resume(self.nodes[node].address, ticket).await
    }

    /// The connection of a client breaks, and its node has noticed.
    async fn loses(&self, prober: &mut Peer, client: Peer) -> Ticket {
        let ticket = client.ticket.clone();
        client.vanishes();
        let mut tries = 0;
        eventually("the session is detached", async || {
            tries += 1;
            let probe = format!("probe-{tries}");
            let answer = prober.sends_message(&ticket.name, &probe).await;
            (answer["status"] == "queued").then_some(())
        })
        .await;
        ticket
    }
}

impl Peer {
    /// The next message that is no probe of [`Cluster::loses`].
    async fn hears_news(&mut self) -> Value {
        loop {
            let message = self.hears().await;
            let is_probe = message["message"]
                .as_str()
                .is_some_and(|text| text.starts_with("probe-"));
            if !is_probe {
                return message;
            }
        }
    }

    async fn says_candidate(&mut self, to: &str, number: usize) {
        self.says(&json!({"type": "candidate", "name": to, "candidate": number}))
            .await;
    }

    async fn hears_candidates(&mut self, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            assert_eq!(self.hears_news().await["candidate"], number);
        }
    }
}

/// The answer of Redis to the node was lost, and the client does not try again.
#[tokio::test]
async fn a_resume_that_nobody_knows_of_ends_with_the_grace() {
    let cluster = Cluster::redis(2, &SHORT).await;
    let Ground::Redis(redis) = &cluster.ground else {
        unreachable!()
    };
    let mut caller = cluster.login(0, "caller").await;
    let mut client = cluster.login_resumable(0, "client").await;
    caller.calls(&mut client).await;
    let holder = redis.ask("GET sb:p:{/client}").await;
    let holder: String = redis::from_redis_value(holder).unwrap();
    let session = holder.split(' ').nth(1).unwrap().to_owned();
    client.vanishes();
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
    caller.sends_message("client", "1").await;
    let leave = caller.hears().await;
    assert_eq!(leave["type"], "leave", "{leave}");
    caller.hears_nothing_more().await;
    eventually("the name is free", async || {
        (redis.ask("GET sb:p:{/client}").await == redis::Value::Nil).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_missed_comes_first_then_what_is_new_and_nothing_twice() {
    for cluster in grounds(&[]).await {
        let mut caller = cluster.login(0, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.calls(&mut client).await;
        for number in 0..10 {
            caller.says_candidate("client", number).await;
        }
        client.hears_candidates(0..10).await;
        // Back and forth between the nodes; once without having noticed that the connection is gone.
        for (round, node) in [1, 0, 1].into_iter().enumerate() {
            let ticket = if round == 1 {
                let ticket = client.ticket.clone();
                client.vanishes();
                ticket
            } else {
                cluster.loses(&mut caller, client).await
            };
            for number in 0..30 {
                caller.says_candidate("client", 100 * round + number).await;
            }
            client = cluster.resume(node, &ticket).await;
            for number in 30..60 {
                caller.says_candidate("client", 100 * round + number).await;
            }
            client.hears_candidates(100 * round..100 * round + 60).await;
        }
        client.says_candidate("caller", 7).await;
        assert_eq!(caller.hears_of("candidate").await["candidate"], 7);
        caller.hears_nothing_more().await;
        client.closes().await;
        assert_eq!(
            caller.hears().await,
            json!({"type": "leave", "name": "client", "reason": "closed"})
        );
        caller.hears_nothing_more().await;
    }
}

#[tokio::test]
async fn without_last_everything_that_was_not_confirmed_comes_again() {
    for cluster in grounds(&[]).await {
        let mut caller = cluster.login(1, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        for number in 0..5 {
            caller.says_candidate("client", number).await;
        }
        client.hears_candidates(0..5).await;
        let third = client.ticket.last.clone().unwrap();
        client.says(&json!({"type": "ack", "seq": third})).await;
        client.hears_nothing_more().await;
        for number in 5..8 {
            caller.says_candidate("client", number).await;
        }
        client.hears_candidates(5..8).await;
        let ticket = Ticket {
            last: None,
            ..cluster.loses(&mut caller, client).await
        };
        let mut client = cluster.resume(1, &ticket).await;
        client.hears_candidates(5..8).await;
    }
}

#[tokio::test]
async fn answers_to_pings_confirm_what_was_said_before() {
    for cluster in grounds(&[("limits.signals_per_second", "0")]).await {
        let mut caller = cluster.login(1, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.says_candidate("client", 0).await;
        client.hears_candidates([0]).await;
        let first = client.ticket.last.clone();
        // More than an inbox keeps: there is room as long as the client answers.
        for number in 1..1000 {
            caller
                .says(&json!({"type": "candidate", "name": "client", "candidate": number, "id": number}))
                .await;
            assert_eq!(caller.hears().await["status"], "delivered");
        }
        client.hears_candidates(1..1000).await;
        let ticket = Ticket {
            last: first,
            ..client.ticket.clone()
        };
        let mut other = cluster.connect(1).await;
        let refused = other.tries_to_resume(&ticket).await;
        assert_eq!(
            refused["code"], "resume_failed",
            "it was confirmed and is not kept: {refused}"
        );
        client.hears_nothing_more().await;
    }
}

/// It was sent, and has confirmed, what it was not told: that its peer has moved.
#[tokio::test]
async fn a_client_names_the_last_that_it_was_told_though_it_has_confirmed_more() {
    for cluster in grounds(&[("session.ping_every", "100ms")]).await {
        let mut prober = cluster.login(0, "prober").await;
        let mut caller = cluster.login_resumable(0, "caller").await;
        let mut client = cluster.login_resumable(1, "client").await;
        caller.calls(&mut client).await;
        let ticket = cluster.loses(&mut prober, caller).await;
        let mut caller = cluster.resume(1, &ticket).await;
        assert!(client.listens(Duration::from_secs(1)).await.is_empty());
        let ticket = cluster.loses(&mut prober, client).await;
        let mut client = cluster.resume(0, &ticket).await;
        client.says_candidate("caller", 1).await;
        caller.hears_candidates([1]).await;
        caller.says_candidate("client", 2).await;
        client.hears_candidates([2]).await;
    }
}

#[tokio::test]
async fn after_the_grace_peers_hear_one_leave_and_the_name_is_free() {
    for cluster in grounds(&SHORT).await {
        let mut caller = cluster.login(1, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.calls(&mut client).await;
        let mut late = cluster.login(1, "late").await;
        let ticket = cluster.loses(&mut late, client).await;
        let mut stranger = cluster.connect(1).await;
        let taken = stranger.tries_login("client").await;
        assert_eq!(taken["code"], "name_taken");
        assert!(taken["retry_after_ms"].as_u64().unwrap() <= 500, "{taken}");
        // Called while it is away: in a call with it, as far as the caller knows.
        late.says(&json!({"type": "offer", "name": "client", "offer": 1, "id": "o"}))
            .await;
        assert_eq!(late.hears().await["status"], "queued");
        let lost = json!({"type": "leave", "name": "client", "reason": "lost"});
        assert_eq!(caller.hears().await, lost);
        assert_eq!(late.hears().await, lost);
        caller.hears_nothing_more().await;
        late.hears_nothing_more().await;
        let mut back = cluster.connect(0).await;
        assert_eq!(back.tries_to_resume(&ticket).await["code"], "resume_failed");
        assert_eq!(stranger.tries_login("client").await["success"], true);
    }
}

#[tokio::test]
async fn a_resume_replaces_the_connection_before() {
    for cluster in grounds(&[]).await {
        let mut caller = cluster.login(0, "caller").await;
        let mut first = cluster.login_resumable(0, "client").await;
        caller.calls(&mut first).await;
        let ticket = first.ticket.clone();
        for node in [1, 1, 0] {
            let second = cluster.resume(node, &ticket).await;
            assert_eq!(first.is_closed().await, Some(4000));
            first = second;
        }
        caller.says_candidate("client", 1).await;
        first.hears_candidates([1]).await;
        caller.hears_nothing_more().await;
        first.closes().await;
        assert_eq!(caller.hears().await["type"], "leave");
        caller.hears_nothing_more().await;
    }
}

#[tokio::test]
async fn of_resumes_that_race_one_is_left() {
    for cluster in grounds(&[]).await {
        let mut caller = cluster.login(0, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.calls(&mut client).await;
        let ticket = client.ticket.clone();
        let racing = (0..20).map(async |number| {
            let mut racer = cluster.connect(number % 2).await;
            racer.races_to_resume(&ticket).await.then_some(racer)
        });
        let racers = futures_util::future::join_all(racing).await;
        let mut racers: Vec<Peer> = racers.into_iter().flatten().collect();
        caller
            .says(&json!({"type": "message", "name": "client", "message": "who?", "id": 1}))
            .await;
        assert_eq!(caller.hears().await["status"], "delivered");
        let mut heard = 0;
        for racer in &mut racers {
            // Whoever lost is closed, though it may have been in for long enough to hear the offer again; the one that is left goes on.
            while let Some(said) = racer.hears_or_is_closed(4000).await {
                if said["message"] == "who?" {
                    heard += 1;
                    break;
                }
                assert_eq!(said["type"], "offer", "{said}");
            }
        }
        assert_eq!(heard, 1);
        caller.hears_nothing_more().await;
    }
}

#[tokio::test]
async fn a_secret_fits_one_session_and_guessing_takes_its_time() {
    for cluster in grounds(&[]).await {
        let client = cluster.login_resumable(0, "client").await;
        let mut other = cluster.login_resumable(0, "other").await;
        let foreign = Ticket {
            name: "client".to_owned(),
            ..other.ticket.clone()
        };
        let mut guesser = cluster.connect(1).await;
        let begun = std::time::Instant::now();
        for _ in 0..4 {
            let reply = guesser.tries_to_resume(&foreign).await;
            assert_eq!(reply["code"], "resume_failed");
        }
        assert!(begun.elapsed().as_secs() >= 4);
        guesser
            .says(&json!({"type": "login", "name": "client", "resume": "x"}))
            .await;
        assert_eq!(guesser.is_closed().await, Some(4029));
        // An old one: its session is over.
        let ticket = client.ticket.clone();
        client.closes().await;
        // The goodbye to its client does not wait for the store.
        eventually("its session is over", async || {
            other
                .says(&json!({"type": "presence", "names": ["client"]}))
                .await;
            let told = other.hears_of("presence").await;
            (told["users"]["client"] == false).then_some(())
        })
        .await;
        let mut back = cluster.connect(1).await;
        let reply = back.tries_to_resume(&ticket).await;
        assert_eq!(reply["code"], "resume_failed");
        let next = eventually("the name is free", async || {
            let mut next = cluster.connect(0).await;
            let reply = next.tries_login("client").await;
            (reply["success"] == true).then_some(next)
        })
        .await;
        let reply = back.tries_to_resume(&ticket).await;
        assert_eq!(reply["code"], "resume_failed", "it is another's session");
        drop(next);
    }
}

#[tokio::test]
async fn a_last_that_was_never_told_is_refused_and_harms_nobody() {
    for cluster in grounds(&[]).await {
        let mut caller = cluster.login(0, "caller").await;
        let client = cluster.login_resumable(0, "client").await;
        let ticket = cluster.loses(&mut caller, client).await;
        let greatest = u64::MAX;
        let absurd = Ticket {
            last: Some(format!("{greatest}-{greatest}")),
            ..ticket.clone()
        };
        let mut liar = cluster.connect(1).await;
        let refused = liar.tries_to_resume(&absurd).await;
        assert_eq!(refused["code"], "resume_failed");
        caller.says_candidate("client", 1).await;
        let mut client = cluster.resume(1, &ticket).await;
        client.hears_candidates([1]).await;
        caller.says_candidate("client", 2).await;
        client.hears_candidates([2]).await;
    }
}

#[tokio::test]
async fn an_inbox_that_is_full_is_told_and_one_sender_does_not_fill_it() {
    for cluster in grounds(&[]).await {
        let mut greedy = cluster.login(0, "greedy").await;
        let client = cluster.login_resumable(0, "client").await;
        let ticket = cluster.loses(&mut greedy, client).await;
        let mut kept = 0;
        let refused = loop {
            let message = json!({"type": "message", "name": "client", "message": kept, "id": kept});
            greedy.says(&message).await;
            let answer = greedy.hears().await;
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
            other.sends_message("client", "room").await["status"],
            "queued"
        );
        // A leave has always room.
        let mut client = cluster.resume(1, &ticket).await;
        for number in 0..kept {
            assert_eq!(client.hears_news().await["message"], number);
        }
        assert_eq!(client.hears().await["message"], "room");
        eventually("there is room again", async || {
            let answer = greedy.sends_message("client", "again").await;
            (answer["status"] == "delivered").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_peer_that_left_meanwhile_is_heard_once() {
    for cluster in grounds(&[]).await {
        let mut one = cluster.login(0, "one").await;
        let mut other = cluster.login_resumable(1, "other").await;
        let mut prober = cluster.login(0, "prober").await;
        let mut client = cluster.login_resumable(0, "client").await;
        one.calls(&mut client).await;
        other.calls(&mut client).await;
        let ticket = cluster.loses(&mut prober, client).await;
        one.closes().await;
        other
            .says(&json!({"type": "leave", "name": "client", "id": 1}))
            .await;
        assert_eq!(other.hears().await["status"], "delivered");
        let mut client = cluster.resume(1, &ticket).await;
        let heard = [client.hears_news().await, client.hears_news().await];
        for (name, reason) in [("one", "closed"), ("other", "hangup")] {
            let leave = |message: &&Value| message["name"] == name && message["reason"] == reason;
            assert_eq!(heard.iter().filter(leave).count(), 1, "{heard:?}");
        }
        client.hears_nothing_more().await;
        // Heard, but its client may not know that it did: told again to the next connection, and no more.
        let ticket = Ticket {
            last: None,
            ..client.ticket.clone()
        };
        let mut again = cluster.resume(0, &ticket).await;
        for _ in 0..2 {
            assert_eq!(again.hears_news().await["type"], "leave");
        }
        again.hears_nothing_more().await;
        again.closes().await;
        other.hears_nothing_more().await;
    }
}

#[tokio::test]
async fn a_clean_close_ends_a_session_and_others_do_not() {
    for cluster in grounds(&SHORT).await {
        let mut caller = cluster.login(1, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.calls(&mut client).await;
        let ticket = client.ticket.clone();
        client.closes_with(3001).await;
        let client = cluster.resume(1, &ticket).await;
        caller.hears_nothing_more().await;
        client.closes_with(1000).await;
        assert_eq!(caller.hears().await["reason"], "closed");
        let mut back = cluster.connect(0).await;
        assert_eq!(back.tries_to_resume(&ticket).await["code"], "resume_failed");
    }
}

#[tokio::test]
async fn a_drain_moves_sessions_and_nobody_hears_of_it() {
    for mut cluster in grounds(&[]).await {
        let mut caller = cluster.login(1, "caller").await;
        let mut watcher = cluster.login(1, "watcher").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.calls(&mut client).await;
        watcher
            .says(&json!({"type": "presence", "names": ["client"], "watch": true}))
            .await;
        assert_eq!(watcher.hears().await["users"]["client"], true);
        cluster.nodes[0].drain();
        assert_eq!(client.hears().await["type"], "goaway");
        assert_eq!(client.is_closed().await, Some(1012));
        assert!(cluster.nodes[0].stopped().await);
        for number in 0..5 {
            caller.says_candidate("client", number).await;
        }
        let mut client = cluster.resume(1, &client.ticket).await;
        client.hears_candidates(0..5).await;
        caller.hears_nothing_more().await;
        watcher.hears_nothing_more().await;
    }
}

#[tokio::test]
async fn an_old_connection_is_told_to_go() {
    let settings = [("session.max_age", "400ms")];
    let cluster = Cluster::embedded(2, &settings).await;
    let mut plain = cluster.login(0, "plain").await;
    let mut client = cluster.login_resumable(0, "client").await;
    plain.calls(&mut client).await;
    assert_eq!(client.hears().await["type"], "goaway");
    assert_eq!(client.is_closed().await, Some(1012));
    let _client = cluster.resume(1, &client.ticket).await;
    plain.hears_nothing_more().await;
}

#[tokio::test]
async fn the_state_of_the_fabric_is_told() {
    let cluster = Cluster::embedded(1, &SHORT).await;
    let Ground::MemoryBroker(switch) = &cluster.ground else {
        unreachable!()
    };
    let mut client = cluster.login_resumable(0, "client").await;
    let mut plain = cluster.login(0, "plain").await;
    for (away, word) in [(true, "degraded"), (false, "ok")] {
        switch.set_unreachable(away);
        for peer in [&mut client, &mut plain] {
            assert_eq!(
                peer.hears().await,
                json!({"type": "status", "fabric": word})
            );
        }
    }
}

#[tokio::test]
async fn a_peer_that_died_after_both_had_moved_is_missed() {
    for mut cluster in grounds(&SHORT).await {
        cluster.add_node().await;
        let mut one = cluster.login_resumable(0, "one").await;
        let mut other = cluster.login_resumable(1, "other").await;
        one.calls(&mut other).await;
        // Each time somebody moves, the other knows where to.
        for node in [2, 0, 2] {
            one = cluster.resume(node, &one.ticket).await;
            one.says_candidate("other", node).await;
            other.hears_candidates([node]).await;
            other = cluster.resume(2 - node, &other.ticket).await;
            other.says_candidate("one", node).await;
            one.hears_candidates([node]).await;
        }
        one.vanishes();
        drop(cluster.nodes.remove(2));
        assert_eq!(
            other.hears().await["reason"],
            "node_lost",
            "the node of its peer died"
        );
        other.hears_nothing_more().await;
    }
}

#[path = "resume/repetition.rs"]
mod repetition;

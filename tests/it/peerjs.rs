//! PeerJS clients on several nodes: what they say and hear, byte for byte.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::SinkExt as _;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use testing::cluster::{Backend, Cluster};
use testing::peerjs::{Client, End, OPEN};
use testing::{eventually, http};

const TAKEN: &str = r#"{"type":"ID-TAKEN","payload":{"msg":"ID is taken"}}"#;
/// Something that is nothing, and has no effect.
const NOTHING: &str = r#"{"type":"NOTHING"}"#;

/// On either ground: two nodes.
async fn clusters(settings: &[(&str, &str)]) -> [Cluster; 2] {
    [
        Cluster::in_memory(2, settings).await,
        Cluster::over_redis(2, settings).await,
    ]
}

/// features.md §5.4, with what we do otherwise: the same token is told OPEN, and the old connection is closed.
#[tokio::test]
async fn the_golden_trace_on_two_nodes() {
    for cluster in clusters(&[]).await {
        let [one, two] = [cluster.nodes[0].address, cluster.nodes[1].address];
        let mut a = Client::open(one, "a", "ta").await;

        let mut x = Client::claim(two, "a", "zzz").await;
        assert_eq!(x.receive().await, TAKEN);
        assert_eq!(x.ended().await, End::NoCode);

        let mut a2 = Client::open(two, "a", "ta").await;
        assert_eq!(a.ended().await, End::Code(4000));

        let begun = Instant::now();
        a2.send(r#"{"type":"OFFER","payload":{"sdp":"x"},"dst":"b","src":"forged","extra":1}"#)
            .await;
        assert_eq!(
            a2.receive().await,
            r#"{"type":"EXPIRE","src":"b","dst":"a"}"#
        );
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_millis(4900), "{waited:?}");

        a2.send(r#"{"type":"OFFER","payload":{"sdp":"x"},"dst":"c"}"#)
            .await;
        a2.send(r#"{"type":"CANDIDATE","payload":{"candidate": 1},"dst":"c"}"#)
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut c = Client::open(one, "c", "tc").await;
        assert_eq!(
            c.receive().await,
            r#"{"type":"OFFER","src":"a","dst":"c","payload":{"sdp":"x"}}"#
        );
        assert_eq!(
            c.receive().await,
            r#"{"type":"CANDIDATE","src":"a","dst":"c","payload":{"candidate": 1}}"#
        );

        c.send(r#"{"type":"ANSWER","payload":{"sdp":"y"},"dst":"a"}"#)
            .await;
        c.send(r#"{"type":"LEAVE","dst":"a"}"#).await;
        c.send(r#"{"type":"EXPIRE","dst":"a"}"#).await;
        for said in [
            r#"{"type":"ANSWER","src":"c","dst":"a","payload":{"sdp":"y"}}"#,
            r#"{"type":"LEAVE","src":"c","dst":"a"}"#,
            r#"{"type":"EXPIRE","src":"c","dst":"a"}"#,
        ] {
            assert_eq!(a2.receive().await, said);
        }
        // What was delivered does not expire, and who leaves is not told to others.
        c.close().await;
        assert_eq!(a2.receive_within(Duration::from_secs(6)).await, None);
    }
}

#[tokio::test]
async fn who_does_not_say_who_he_is_is_told_so() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let node = cluster.nodes[0].address;
    let missing =
        r#"{"type":"ERROR","payload":{"msg":"No id, token, or key supplied to websocket server"}}"#;
    let invalid = r#"{"type":"ERROR","payload":{"msg":"Invalid key provided"}}"#;
    for (query, told) in [
        ("key=peerjs&id=a", missing),
        ("", missing),
        ("key=nope&id=a&token=t", invalid),
    ] {
        let mut client = Client::connect(node, query).await;
        assert_eq!(client.receive().await, told, "{query}");
        assert_eq!(client.ended().await, End::NoCode, "{query}");
    }
    let wrong = http::get_with(node, "/peerjs/", http::UPGRADE).await;
    assert_eq!(wrong.unwrap().status, 404);
}

#[tokio::test]
async fn dirt_neither_deafens_nor_ends_a_client() {
    for cluster in clusters(&[]).await {
        let mut a = Client::named(cluster.nodes[0].address, "a").await;
        let mut b = Client::named(cluster.nodes[1].address, "b").await;
        for dirt in ["null", "{", "[]", "", "7", NOTHING, r#"{"type":"OFFER"}"#] {
            a.send(dirt).await;
        }
        let binary = br#"{"type":"OFFER","dst":"b","payload":1}"#;
        a.sink.send(Message::binary(binary.to_vec())).await.unwrap();
        assert_eq!(
            b.receive().await,
            r#"{"type":"OFFER","src":"a","dst":"b","payload":1}"#
        );
        // Nobody of that name: forgotten, not expired.
        a.send(r#"{"type":"LEAVE","dst":"nobody"}"#).await;
        a.send(r#"{"type":"EXPIRE","dst":"nobody"}"#).await;
        a.is_served().await;
        assert_eq!(a.receive_within(Duration::from_millis(200)).await, None);
        // A leave without a destination gives the id back.
        b.send(r#"{"type":"LEAVE"}"#).await;
        assert_eq!(b.ended().await, End::NoCode);
        Client::open(cluster.nodes[0].address, "b", "another").await;
    }
}

#[tokio::test]
async fn keys_are_worlds_of_their_own() {
    let cluster = Cluster::over_redis(2, &[("peerjs.keys", "peerjs,other")]).await;
    let [one, two] = [cluster.nodes[0].address, cluster.nodes[1].address];
    let mut a = Client::named(one, "a").await;
    let mut other = Client::connect(two, "key=other&id=a&token=t").await;
    assert_eq!(other.receive().await, OPEN);
    let mut b = Client::connect(one, "key=other&id=b&token=t").await;
    assert_eq!(b.receive().await, OPEN);
    b.send(r#"{"type":"OFFER","dst":"a","payload":1}"#).await;
    assert_eq!(
        other.receive().await,
        r#"{"type":"OFFER","src":"b","dst":"a","payload":1}"#
    );
    a.is_served().await;
    // Nor do native users meet them.
    let mut native = cluster.login(0, "a").await;
    native.expect_silence().await;
}

#[tokio::test]
async fn a_closed_id_is_free_and_a_lost_one_waits_for_its_own() {
    for cluster in clusters(&[("peerjs.grace", "1500ms")]).await {
        let [one, two] = [cluster.nodes[0].address, cluster.nodes[1].address];
        // A page that is loaded again has another token.
        let page = Client::named(one, "page").await;
        page.close().await;
        let again = Client::open(two, "page", "other").await;
        // One that vanished is waited for…
        drop(again);
        let begun = Instant::now();
        let mut next = Client::claim(one, "page", "third").await;
        assert_eq!(next.receive().await, OPEN);
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(4), "{waited:?}");
        // …unless it comes back.
        drop(next);
        let mut stranger = Client::claim(two, "page", "fourth").await;
        let _own = Client::open(two, "page", "third").await;
        assert_eq!(stranger.receive().await, TAKEN);
        assert_eq!(stranger.ended().await, End::NoCode);
    }
}

/// Strangers try more tokens than are answered at once in a minute, at the node where the owner comes back.
#[tokio::test]
async fn whatever_strangers_try_the_owner_gets_its_id() {
    for cluster in clusters(&[]).await {
        let [one, two] = [cluster.nodes[0].address, cluster.nodes[1].address];
        let owner = Client::open(one, "a", "ta").await;
        let mut strangers = JoinSet::new();
        for stranger in 0..10 {
            strangers.spawn(async move {
                for number in 0..31 {
                    let token = format!("wrong{stranger}-{number}");
                    let mut stranger = Client::claim(two, "a", &token).await;
                    assert_eq!(stranger.receive().await, TAKEN);
                    assert_eq!(stranger.ended().await, End::NoCode);
                }
            });
        }
        while let Some(tried) = strangers.join_next().await {
            tried.unwrap();
        }
        let comes_back = async || {
            let begun = Instant::now();
            let mut again = Client::open(two, "a", "ta").await;
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(1), "{took:?}");
            "a".clone_into(&mut again.id);
            again.is_served().await;
            again
        };
        // The right one, while the connection before it is there…
        let again = comes_back().await;
        drop(owner);
        // …and after it was lost.
        drop(again);
        let _owner = comes_back().await;
        // Meanwhile each wrong one takes its time.
        let begun = Instant::now();
        let mut stranger = Client::claim(two, "a", "wrong").await;
        assert_eq!(stranger.receive().await, TAKEN);
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(1), "{took:?}");
    }
}

#[tokio::test]
async fn what_is_sent_between_two_connections_is_heard_once() {
    for cluster in clusters(&[("peerjs.grace", "8s")]).await {
        let [one, two] = [cluster.nodes[0].address, cluster.nodes[1].address];
        let mut a = Client::named(one, "a").await;
        let mut b = Client::named(two, "b").await;
        a.send(r#"{"type":"OFFER","dst":"b","payload":1}"#).await;
        assert!(b.receive().await.contains("OFFER"));
        // The answer to the ping behind it confirms it.
        tokio::time::sleep(Duration::from_millis(300)).await;
        while b.receive_within(Duration::from_millis(100)).await.is_some() {}
        drop(b);
        a.send(r#"{"type":"CANDIDATE","dst":"b","payload":2}"#)
            .await;
        a.is_served().await;
        let mut b = Client::open(one, "b", "tb").await;
        assert_eq!(
            b.receive().await,
            r#"{"type":"CANDIDATE","src":"a","dst":"b","payload":2}"#
        );
        // Nobody is told that it expired.
        assert_eq!(a.receive_within(Duration::from_secs(6)).await, None);
        assert_eq!(b.receive_within(Duration::from_millis(100)).await, None);
    }
}

#[tokio::test]
async fn each_absent_id_expires_once_and_only_for_what_did_not_arrive() {
    let fast = [
        ("peerjs.expire_timeout", "1s"),
        ("limits.signals_per_second", "0"),
    ];
    for cluster in clusters(&fast).await {
        let [one, two] = [cluster.nodes[0].address, cluster.nodes[1].address];
        let mut a = Client::named(one, "a").await;
        for id in ["x", "y", "z"] {
            for n in 0..5 {
                a.send(&format!(
                    r#"{{"type":"CANDIDATE","dst":"{id}","payload":{n}}}"#
                ))
                .await;
            }
        }
        a.is_served().await;
        let mut y = Client::open(two, "y", "t").await;
        for n in 0..5 {
            let said = format!(r#"{{"type":"CANDIDATE","src":"a","dst":"y","payload":{n}}}"#);
            assert_eq!(y.receive().await, said);
        }
        let mut expired = [a.receive().await, a.receive().await];
        expired.sort();
        assert_eq!(
            expired,
            [
                r#"{"type":"EXPIRE","src":"x","dst":"a"}"#,
                r#"{"type":"EXPIRE","src":"z","dst":"a"}"#
            ]
        );
        assert_eq!(a.receive_within(Duration::from_secs(2)).await, None);
        // What has expired is not delivered.
        let mut x = Client::open(two, "x", "t").await;
        assert_eq!(x.receive_within(Duration::from_millis(300)).await, None);
    }
}

#[tokio::test]
async fn what_waits_is_heard_in_order_and_before_what_is_said_later() {
    let slow = [
        ("peerjs.expire_timeout", "20s"),
        ("limits.signals_per_second", "0"),
    ];
    let said = |n| format!(r#"{{"type":"CANDIDATE","dst":"c","payload":{n}}}"#);
    for cluster in clusters(&slow).await {
        let [one, two] = [cluster.nodes[0].address, cluster.nodes[1].address];
        let mut a = Client::named(one, "a").await;
        for n in 0..100 {
            a.send(&said(n)).await;
        }
        a.is_served().await;
        let goes_on = async {
            for n in 100..120 {
                a.send(&said(n)).await;
                a.is_served().await;
            }
        };
        let comes = async {
            let mut c = Client::named(two, "c").await;
            for n in 0..120 {
                let heard = format!(r#"{{"type":"CANDIDATE","src":"a","dst":"c","payload":{n}}}"#);
                assert_eq!(c.receive().await, heard);
            }
        };
        tokio::join!(goes_on, comes);
    }
}

/// What waits is with its sender: a store that loses its data takes nothing of it.
#[tokio::test]
async fn what_waits_is_not_lost_with_the_store() {
    let cluster = Cluster::over_redis(2, &[("peerjs.expire_timeout", "29s")]).await;
    let Backend::Redis(redis) = &cluster.backend else {
        panic!("no Redis");
    };
    let mut a = Client::named(cluster.nodes[0].address, "a").await;
    a.send(r#"{"type":"OFFER","dst":"late","payload":1}"#).await;
    a.send(r#"{"type":"CANDIDATE","dst":"late","payload":2}"#)
        .await;
    a.is_served().await;
    let keys = redis.keys().await;
    let is_of_it = |(key, _): &(String, _)| key.contains("/late}");
    assert!(!keys.iter().any(is_of_it), "{keys:?}");
    redis.ask("FLUSHALL").await;
    let mut late = Client::open_eventually(cluster.nodes[1].address, "late").await;
    for said in [
        r#"{"type":"OFFER","src":"a","dst":"late","payload":1}"#,
        r#"{"type":"CANDIDATE","src":"a","dst":"late","payload":2}"#,
    ] {
        assert_eq!(late.receive().await, said);
    }
}

#[tokio::test]
async fn so_much_waits_and_what_is_over_expires_at_once() {
    let slow = [
        ("peerjs.expire_timeout", "1h"),
        ("limits.signals_per_second", "0"),
    ];
    let cluster = Cluster::in_memory(1, &slow).await;
    let node = cluster.nodes[0].address;
    let expire = |id: &str, to: &str| format!(r#"{{"type":"EXPIRE","src":"{id}","dst":"{to}"}}"#);
    let mut many = Client::named(node, "many").await;
    for n in 0..257 {
        many.send(&format!(r#"{{"type":"OFFER","dst":"x{n}","payload":1}}"#))
            .await;
    }
    assert_eq!(many.receive().await, expire("x256", "many"));
    // To those who are here it can say what it likes.
    many.is_served().await;
    let mut much = Client::named(node, "much").await;
    let body = "y".repeat(60_000);
    // Half an inbox for one, and 1 MiB for all.
    for (id, fit) in [("y", 8), ("z", 8), ("w", 1)] {
        for _ in 0..=fit {
            let said = format!(r#"{{"type":"OFFER","dst":"{id}","payload":"{body}"}}"#);
            much.send(&said).await;
        }
        assert_eq!(much.receive().await, expire(id, "much"));
    }
    much.is_served().await;
    let mut y = Client::named(node, "y").await;
    for _ in 0..8 {
        assert!(y.receive().await.contains("OFFER"));
    }
    assert_eq!(y.receive_within(Duration::from_millis(300)).await, None);
}

/// A client whose connection is lost is sent something, which its inbox keeps.
async fn is_kept_for(to: &str, from: &mut Client, admin: SocketAddr) {
    eventually("it is kept", async || {
        let said = format!(r#"{{"type":"CANDIDATE","dst":"{to}","payload":1}}"#);
        from.send(&said).await;
        let metrics = http::get(admin, "/metrics").await?.body;
        let kept = r#"switchboard_signals_total{kind="candidate",outcome="queued"}"#;
        let line = metrics.lines().find(|line| line.starts_with(kept))?;
        (!line.ends_with(" 0")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_kept_for_one_that_does_not_come_back_expires() {
    let settings = [("peerjs.expire_timeout", "2s"), ("peerjs.grace", "1s")];
    for cluster in clusters(&settings).await {
        let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
        let mut a = Client::named(one.address, "a").await;
        drop(Client::named(two.address, "b").await);
        is_kept_for("b", &mut a, one.admin).await;
        let expire = r#"{"type":"EXPIRE","src":"b","dst":"a"}"#;
        assert_eq!(a.receive().await, expire);
        // The sender has moved meanwhile.
        let mut late = Client::named(two.address, "late").await;
        drop(Client::named(two.address, "c").await);
        is_kept_for("c", &mut late, two.admin).await;
        let mut late = Client::named(one.address, "late").await;
        let expire = r#"{"type":"EXPIRE","src":"c","dst":"late"}"#;
        assert_eq!(late.receive().await, expire);
        let more = late.receive_within(Duration::from_secs(3)).await;
        assert_eq!(more, None, "once");
    }
}

#[tokio::test]
async fn what_is_kept_for_one_that_comes_back_does_not_expire() {
    let settings = [("peerjs.expire_timeout", "2s"), ("peerjs.grace", "8s")];
    for cluster in clusters(&settings).await {
        let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
        let mut a = Client::named(one.address, "a").await;
        drop(Client::named(two.address, "b").await);
        is_kept_for("b", &mut a, one.admin).await;
        let mut a = Client::named(two.address, "a").await;
        let mut b = Client::named(one.address, "b").await;
        assert!(b.receive().await.contains("CANDIDATE"));
        assert_eq!(a.receive_within(Duration::from_secs(4)).await, None);
    }
}

#[tokio::test]
async fn whoever_comes_back_is_told_who_did_not_come() {
    let slow = [("peerjs.expire_timeout", "2s"), ("peerjs.grace", "8s")];
    for cluster in clusters(&slow).await {
        let [one, two] = [cluster.nodes[0].address, cluster.nodes[1].address];
        let offer = |id: &str| format!(r#"{{"type":"OFFER","dst":"{id}","payload":1}}"#);
        let expire = |id: &str| format!(r#"{{"type":"EXPIRE","src":"{id}","dst":"a"}}"#);
        // Whoever hears what comes behind it knows that it was dealt with.
        let mut behind = Client::named(one, "behind").await;
        let mut ghost = Client::named(one, "a").await;
        ghost.send(&offer("x")).await;
        ghost.send(&offer("behind")).await;
        assert!(behind.receive().await.contains("OFFER"));
        // From elsewhere, before it is over, while the first connection seems to be there.
        let mut a = Client::named(two, "a").await;
        assert_eq!(a.receive().await, expire("x"));
        // It ends, and somebody comes, while there is no connection.
        a.send(&offer("y")).await;
        a.send(&offer("z")).await;
        a.send(&offer("behind")).await;
        assert!(behind.receive().await.contains("OFFER"));
        drop(a);
        let mut z = Client::named(one, "z").await;
        assert!(z.receive().await.contains("OFFER"));
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut a = Client::named(one, "a").await;
        assert_eq!(a.receive().await, expire("y"));
        assert_eq!(a.receive_within(Duration::from_secs(3)).await, None, "once");
        // And the one that comes next knows nothing of it.
        drop(a);
        let mut a = Client::named(two, "a").await;
        assert_eq!(a.receive_within(Duration::from_secs(1)).await, None);
    }
}

#[tokio::test]
async fn a_client_that_does_not_beat_is_closed() {
    let cluster = Cluster::in_memory(1, &[("peerjs.alive_timeout", "1s")]).await;
    let node = cluster.nodes[0].address;
    let (mut beats, mut silent) = (
        Client::named(node, "beats").await,
        Client::named(node, "silent").await,
    );
    let begun = Instant::now();
    let ends = async {
        // Anything else is no heartbeat.
        for _ in 0..5 {
            if silent.sink.send(Message::text(NOTHING)).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(silent.ended().await, End::Code(4010));
        assert!(begun.elapsed() >= Duration::from_millis(950));
    };
    let beating = async {
        for _ in 0..20 {
            beats.send(r#"{"type":"HEARTBEAT"}"#).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::join!(ends, beating);
    beats.is_served().await;
}

#[tokio::test]
async fn ids_are_listed_over_the_cluster_if_that_is_allowed() {
    for cluster in clusters(&[("peerjs.allow_discovery", "true")]).await {
        let _here = Client::named(cluster.nodes[0].address, "here").await;
        let _there = Client::named(cluster.nodes[1].address, "th%20ere").await;
        let _native = cluster.login(0, "native").await;
        for node in &cluster.nodes {
            eventually("both are listed", async || {
                let listed = http::get(node.address, "/peerjs/peers").await?;
                let kind = listed.header("content-type");
                assert_eq!(kind, "application/json; charset=utf-8");
                (listed.body == r#"["here","th ere"]"#).then_some(())
            })
            .await;
        }
    }
    let cluster = Cluster::in_memory(1, &[]).await;
    let refused = http::get(cluster.nodes[0].address, "/peerjs/peers").await;
    let refused = refused.unwrap();
    assert_eq!(refused.status, 401);
    assert!(refused.header("content-type").starts_with("text/plain"));
    assert_eq!(refused.body, "Unauthorized");
}

#[tokio::test]
async fn the_routes_are_those_of_the_original() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let node = cluster.nodes[0].address;
    let info = http::get(node, "/").await.unwrap().json();
    assert_eq!(info["name"], "PeerJS Server");
    let origin = "https://app.example";
    for path in ["/peerjs/id?ts=1&version=1.5.5", "/any/id"] {
        let response = http::get_with(node, path, &[("origin", origin)]).await;
        let response = response.unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(response.header("access-control-allow-origin"), origin);
        assert_eq!(response.header("vary").to_lowercase(), "origin");
        assert_eq!(response.body.len(), 36, "a UUID: {}", response.body);
    }
    for path in ["/v1/id", "/ws/id", "/doctor/id", "/peerjs"] {
        assert_eq!(http::status(node, path).await, Some(404), "{path}");
    }
    let strict = Cluster::in_memory(
        1,
        &[("peerjs.strict_key", "true"), ("peerjs.path", "/my/app")],
    )
    .await;
    let node = strict.nodes[0].address;
    for (path, status) in [
        ("/my/app/peerjs/id", 200),
        ("/my/app/any/id", 404),
        ("/my/app", 200),
        ("/my/app/", 200),
        ("/peerjs/id", 404),
        ("/", 200),
    ] {
        assert_eq!(http::status(node, path).await, Some(status), "{path}");
    }
    let off = Cluster::in_memory(1, &[("peerjs.enabled", "false")]).await;
    let node = off.nodes[0].address;
    assert_eq!(http::status(node, "/peerjs/id").await, Some(404));
}

#[tokio::test]
async fn a_node_that_drains_closes_and_the_id_goes_on_elsewhere() {
    let mut cluster = Cluster::over_redis(2, &[]).await;
    let [one, two] = [cluster.nodes[0].address, cluster.nodes[1].address];
    let mut a = Client::open(one, "a", "ta").await;
    let mut b = Client::named(two, "b").await;
    cluster.nodes[0].drain();
    assert_eq!(a.ended().await, End::Code(1012));
    b.send(r#"{"type":"OFFER","dst":"a","payload":1}"#).await;
    b.is_served().await;
    let mut a = Client::open(two, "a", "ta").await;
    assert_eq!(
        a.receive().await,
        r#"{"type":"OFFER","src":"b","dst":"a","payload":1}"#
    );
    assert!(cluster.nodes[0].stopped().await);
}

#[tokio::test]
async fn who_is_gone_is_told_to_those_who_want_to_know() {
    for cluster in clusters(&[("peerjs.leave", "true"), ("peerjs.grace", "200ms")]).await {
        let mut a = Client::named(cluster.nodes[0].address, "a").await;
        let mut b = Client::named(cluster.nodes[1].address, "b").await;
        let mut c = Client::named(cluster.nodes[1].address, "c").await;
        a.send(r#"{"type":"OFFER","dst":"b","payload":1}"#).await;
        assert!(b.receive().await.contains("OFFER"));
        a.send(r#"{"type":"OFFER","dst":"c","payload":1}"#).await;
        assert!(c.receive().await.contains("OFFER"));
        b.close().await;
        assert_eq!(a.receive().await, r#"{"type":"LEAVE","src":"b","dst":"a"}"#);
        drop(c);
        assert_eq!(a.receive().await, r#"{"type":"LEAVE","src":"c","dst":"a"}"#);
    }
}

#[tokio::test]
async fn what_became_of_messages_is_counted() {
    let cluster = Cluster::over_redis(1, &[("peerjs.expire_timeout", "300ms")]).await;
    let node = &cluster.nodes[0];
    let mut a = Client::named(node.address, "a").await;
    a.send(r#"{"type":"OFFER","dst":"nobody","payload":1}"#)
        .await;
    assert!(a.receive().await.contains("EXPIRE"));
    a.is_served().await;
    let mut taken = Client::claim(node.address, "a", "other").await;
    assert_eq!(taken.receive().await, TAKEN);
    assert_eq!(taken.ended().await, End::NoCode);
    for expected in [
        r#"switchboard_connections{dialect="peerjs",transport="websocket"} 1"#,
        r#"switchboard_sessions{dialect="peerjs",transport="websocket"} 1"#,
        r#"switchboard_signals_total{kind="offer",outcome="waiting"} 1"#,
        r#"switchboard_signals_total{kind="candidate",outcome="delivered"} 1"#,
        r#"switchboard_refusals_total{code="user_unavailable"} 1"#,
        r#"switchboard_logins_total{result="name_taken"} 1"#,
        r#"switchboard_sessions_ended_total{reason="not_admitted"} 1"#,
    ] {
        eventually(expected, async || {
            let metrics = http::get(node.admin, "/metrics").await?.body;
            metrics.contains(expected).then_some(())
        })
        .await;
    }
}

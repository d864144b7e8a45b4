//! The PeerJS protocol on two nodes, byte for byte.

mod absent;
mod identity;

use std::time::{Duration, Instant};

use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message;

use testing::Cluster;
use testing::peerjs::{Client, End};
use testing::{eventually, http};

const TAKEN: &str = r#"{"type":"ID-TAKEN","payload":{"msg":"ID is taken"}}"#;

/// A message of an unknown type, which has no effect.
const NOTHING: &str = r#"{"type":"NOTHING"}"#;

/// Two nodes over memory, and two over Redis.
async fn clusters(settings: &[(&str, &str)]) -> [Cluster; 2] {
    [
        Cluster::in_memory(2, settings).await,
        Cluster::over_redis(2, settings).await,
    ]
}

/// The trace of a `PeerServer`, with one difference: a second connection with the same token gets `OPEN`, and the old
/// one is closed.
#[tokio::test]
async fn the_reference_trace_on_two_nodes() {
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
        // Delivered signals do not expire, and nobody is told who leaves.
        c.close().await;
        assert_eq!(a2.receive_within(Duration::from_secs(6)).await, None);
    }
}

#[tokio::test]
async fn a_connection_without_id_or_token_gets_an_error() {
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
async fn malformed_messages_do_not_end_a_session() {
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
        // A signal to an id that nobody has, of a type that does not wait, is dropped without EXPIRE.
        a.send(r#"{"type":"LEAVE","dst":"nobody"}"#).await;
        a.send(r#"{"type":"EXPIRE","dst":"nobody"}"#).await;
        a.is_served().await;
        assert_eq!(a.receive_within(Duration::from_millis(200)).await, None);
        // A `LEAVE` without a destination releases the id.
        b.send(r#"{"type":"LEAVE"}"#).await;
        assert_eq!(b.ended().await, End::NoCode);
        Client::open(cluster.nodes[0].address, "b", "another").await;
    }
}

#[tokio::test]
async fn discovery_lists_ids_of_all_nodes_if_allowed() {
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
async fn the_routes_are_those_of_peerserver() {
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
async fn a_drain_closes_and_the_id_moves_to_another_node() {
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
async fn lost_peers_are_reported_if_enabled() {
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
async fn outcomes_of_messages_are_counted() {
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

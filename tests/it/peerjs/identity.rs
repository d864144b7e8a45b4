//! Who owns an id: tokens, keys, strangers, and connections that are lost or replaced.

use std::time::{Duration, Instant};

use futures_util::SinkExt as _;
use testing::Cluster;
use testing::peerjs::{Client, End, OPEN};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::{NOTHING, TAKEN, clusters};

#[tokio::test]
async fn keys_separate_clients() {
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
    // Native users cannot reach them either.
    let mut native = cluster.login(0, "a").await;
    native.expect_silence().await;
}

#[tokio::test]
async fn a_closed_id_is_free_and_a_lost_one_is_kept_for_its_token() {
    for cluster in clusters(&[("peerjs.grace", "1500ms")]).await {
        let [one, two] = [cluster.nodes[0].address, cluster.nodes[1].address];
        // A page that reloads has a new token.
        let page = Client::named(one, "page").await;
        page.close().await;
        let again = Client::open(two, "page", "other").await;
        // The id of a client that vanished is kept for its token…
        drop(again);
        let start = Instant::now();
        let mut next = Client::claim(one, "page", "third").await;
        assert_eq!(next.receive().await, OPEN);
        let waited = start.elapsed();
        assert!(waited < Duration::from_secs(4), "{waited:?}");
        // …which gets it again.
        drop(next);
        let mut stranger = Client::claim(two, "page", "fourth").await;
        let _own = Client::open(two, "page", "third").await;
        assert_eq!(stranger.receive().await, TAKEN);
        assert_eq!(stranger.ended().await, End::NoCode);
    }
}

/// Strangers try more tokens per minute than the node answers without delay, at the node to which the owner returns.
/// The delay is for their address, whichever id they try next.
#[tokio::test]
async fn strangers_cannot_keep_an_owner_from_its_id() {
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
        let resume_eventually = async || {
            let start = Instant::now();
            let mut again = Client::open(two, "a", "ta").await;
            let took = start.elapsed();
            assert!(took < Duration::from_secs(1), "{took:?}");
            "a".clone_into(&mut again.id);
            again.is_served().await;
            again
        };
        // The right token, while the previous connection is open…
        let again = resume_eventually().await;
        drop(owner);
        // …and after that was lost.
        drop(again);
        let _owner = resume_eventually().await;
        // Meanwhile each wrong token is answered with a delay.
        let start = Instant::now();
        let _other = Client::open(one, "b", "tb").await;
        let mut stranger = Client::claim(two, "b", "wrong").await;
        assert_eq!(stranger.receive().await, TAKEN);
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(1), "{took:?}");
        let from_elsewhere = "127.0.0.2".parse().unwrap();
        let start = Instant::now();
        let mut stranger = Client::claim_from(from_elsewhere, two, "a", "wrong").await;
        assert_eq!(stranger.receive().await, TAKEN);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[tokio::test]
async fn signals_between_two_connections_arrive_once() {
    for cluster in clusters(&[("peerjs.grace", "8s")]).await {
        let [one, two] = [cluster.nodes[0].address, cluster.nodes[1].address];
        let mut a = Client::named(one, "a").await;
        let mut b = Client::named(two, "b").await;
        a.send(r#"{"type":"OFFER","dst":"b","payload":1}"#).await;
        assert!(b.receive().await.contains("OFFER"));
        // The pong to the ping that follows confirms it.
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
        // Nothing expires.
        assert_eq!(a.receive_within(Duration::from_secs(6)).await, None);
        assert_eq!(b.receive_within(Duration::from_millis(100)).await, None);
    }
}

#[tokio::test]
async fn a_client_without_heartbeats_is_closed() {
    let cluster = Cluster::in_memory(1, &[("peerjs.alive_timeout", "1s")]).await;
    let node = cluster.nodes[0].address;
    let (mut beats, mut silent) = (
        Client::named(node, "beats").await,
        Client::named(node, "silent").await,
    );
    let start = Instant::now();
    let ends = async {
        // Other messages are not heartbeats.
        for _ in 0..5 {
            if silent.sink.send(Message::text(NOTHING)).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(silent.ended().await, End::Code(4010));
        assert!(start.elapsed() >= Duration::from_millis(950));
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

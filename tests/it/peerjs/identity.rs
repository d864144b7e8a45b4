//! Who owns an id: tokens, keys, strangers, and connections that are lost or replaced.

use std::time::{Duration, Instant};

use futures_util::SinkExt as _;
use testing::Cluster;
use testing::peerjs::{Client, End, OPEN};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::{NOTHING, TAKEN, clusters};

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

//! Signals for ids that are not connected: they wait, arrive in order, or expire.

use std::net::SocketAddr;
use std::time::Duration;

use testing::cluster::{Backend, Cluster};
use testing::peerjs::Client;
use testing::{eventually, http};

use super::clusters;

#[tokio::test]
async fn each_absent_id_expires_once_and_only_for_undelivered_signals() {
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
async fn waiting_signals_arrive_in_order_and_before_later_ones() {
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

/// Waiting signals are kept at their sender, so a Redis that loses its data loses none of them.
#[tokio::test]
async fn waiting_signals_survive_a_loss_of_data() {
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
async fn waiting_signals_are_bounded_and_the_excess_expires_at_once() {
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
    // Signals to connected ids are not limited by what waits.
    many.is_served().await;
    let mut much = Client::named(node, "much").await;
    let body = "y".repeat(60_000);
    // 512 KiB for one id, and 1 MiB for all.
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

/// Sends something to a client whose connection is lost, until it is queued in its inbox.
async fn wait_until_queued_for(to: &str, from: &mut Client, admin: SocketAddr) {
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
async fn queued_signals_expire_if_the_receiver_does_not_return() {
    let settings = [("peerjs.expire_timeout", "2s"), ("peerjs.grace", "1s")];
    for cluster in clusters(&settings).await {
        let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
        let mut a = Client::named(one.address, "a").await;
        drop(Client::named(two.address, "b").await);
        wait_until_queued_for("b", &mut a, one.admin).await;
        let expire = r#"{"type":"EXPIRE","src":"b","dst":"a"}"#;
        assert_eq!(a.receive().await, expire);
        // The sender has moved to another node meanwhile.
        let mut late = Client::named(two.address, "late").await;
        drop(Client::named(two.address, "c").await);
        wait_until_queued_for("c", &mut late, two.admin).await;
        let mut late = Client::named(one.address, "late").await;
        let expire = r#"{"type":"EXPIRE","src":"c","dst":"late"}"#;
        assert_eq!(late.receive().await, expire);
        let more = late.receive_within(Duration::from_secs(3)).await;
        assert_eq!(more, None, "once");
    }
}

#[tokio::test]
async fn queued_signals_do_not_expire_if_the_receiver_returns() {
    let settings = [("peerjs.expire_timeout", "2s"), ("peerjs.grace", "8s")];
    for cluster in clusters(&settings).await {
        let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
        let mut a = Client::named(one.address, "a").await;
        drop(Client::named(two.address, "b").await);
        wait_until_queued_for("b", &mut a, one.admin).await;
        let mut a = Client::named(two.address, "a").await;
        let mut b = Client::named(one.address, "b").await;
        assert!(b.receive().await.contains("CANDIDATE"));
        assert_eq!(a.receive_within(Duration::from_secs(4)).await, None);
    }
}

#[tokio::test]
async fn a_resumed_sender_gets_expire() {
    let slow = [("peerjs.expire_timeout", "2s"), ("peerjs.grace", "8s")];
    for cluster in clusters(&slow).await {
        let [one, two] = [cluster.nodes[0].address, cluster.nodes[1].address];
        let offer = |id: &str| format!(r#"{{"type":"OFFER","dst":"{id}","payload":1}}"#);
        let expire = |id: &str| format!(r#"{{"type":"EXPIRE","src":"{id}","dst":"a"}}"#);
        // Once a later signal has arrived, this one has been processed.
        let mut behind = Client::named(one, "behind").await;
        let mut ghost = Client::named(one, "a").await;
        ghost.send(&offer("x")).await;
        ghost.send(&offer("behind")).await;
        assert!(behind.receive().await.contains("OFFER"));
        // The sender reconnects to another node before the signal expires, while its first connection still seems open.
        let mut a = Client::named(two, "a").await;
        assert_eq!(a.receive().await, expire("x"));
        // The time expires, and another client takes the id, while the sender has no connection.
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
        // The next owner of the id gets no EXPIRE.
        drop(a);
        let mut a = Client::named(two, "a").await;
        assert_eq!(a.receive_within(Duration::from_secs(1)).await, None);
    }
}

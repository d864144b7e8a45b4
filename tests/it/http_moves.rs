//! HTTP sessions continue on another node after a broken stream, a drain, or the end of their home.

use serde_json::json;

use testing::Cluster;
use testing::http_session::{Downlink, EventStream, HttpSession, request};

async fn both() -> [Cluster; 2] {
    [
        Cluster::in_memory(2, &[]).await,
        Cluster::over_redis(2, &[]).await,
    ]
}

#[tokio::test]
async fn a_stream_continues_after_its_last_event_on_any_node() {
    for cluster in both().await {
        let mut peer = cluster.login(0, "peer").await;
        let mut visitor = HttpSession::login(cluster.nodes[0].address, Downlink::Stream, "a").await;
        let say =
            |number: u64| json!({"type": "message", "name": "a", "message": number, "id": number});
        for number in 0..50 {
            peer.send(&say(number)).await;
            peer.receive_type("ack").await;
            if number % 5 == 0 {
                // The stream breaks, and continues at the other node.
                let turn = usize::from(number % 2 == 0);
                visitor.move_to(cluster.nodes[turn].address);
            }
            if number % 7 < 4 {
                continue;
            }
            // Some messages arrive only after the break.
            while visitor.receive().await["message"] != number {}
        }
        while visitor.receive().await["message"] != 49 {}
        // Reads everything again from the beginning: nothing is there twice.
        visitor.last = None;
        visitor.move_to(cluster.nodes[1].address);
        visitor.receive_type("login").await;
        for number in 0..50 {
            assert_eq!(visitor.receive().await["message"], number);
        }
        visitor.expect_silence().await;
    }
}

#[tokio::test]
async fn a_drain_moves_http_sessions_without_a_leave() {
    for mut cluster in both().await {
        let mut peer = cluster.login(1, "peer").await;
        let (draining, staying) = (cluster.nodes[0].address, cluster.nodes[1].address);
        let mut streaming = HttpSession::login(draining, Downlink::Stream, "streaming").await;
        let mut elsewhere = HttpSession::login(draining, Downlink::Stream, "elsewhere").await;
        let mut polling = HttpSession::login(draining, Downlink::Poll, "polling").await;
        elsewhere.move_to(staying);
        let names = ["streaming", "elsewhere", "polling"];
        for visitor in [&mut streaming, &mut elsewhere, &mut polling] {
            visitor
                .send(&json!({"type": "offer", "name": "peer", "offer": 1, "id": "o"}))
                .await;
            peer.receive_type("offer").await;
            visitor.receive_type("ack").await;
            visitor
                .send(&json!({"type": "presence", "names": ["late"], "watch": true}))
                .await;
            let presence = visitor.receive().await;
            assert_eq!(presence["users"], json!({"late": false}));
        }
        cluster.nodes[0].drain();
        let bye = streaming.receive_event().await;
        assert_eq!(bye.kind, "bye");
        assert!(cluster.nodes[0].stopped().await, "nothing is left");
        for name in names {
            peer.send(&json!({"type": "message", "name": name, "message": "meanwhile"}))
                .await;
        }
        let late = cluster.login(1, "late").await;
        for visitor in [&mut streaming, &mut elsewhere, &mut polling] {
            visitor.move_to(staying);
            let (mut meanwhile, mut watched) = (0, false);
            while meanwhile == 0 || !watched {
                let reply = visitor.receive().await;
                match reply["type"].as_str().unwrap() {
                    "message" => meanwhile += 1,
                    // The new home sends the presence of watched names again.
                    "presence" => watched |= reply["users"]["late"] == true,
                    _ => panic!("{reply}"),
                }
            }
            assert_eq!(meanwhile, 1);
            visitor
                .send(&json!({"type": "message", "name": "peer", "message": "still here"}))
                .await;
            let received = peer.receive().await;
            assert_eq!(received["message"], "still here", "{received}");
        }
        peer.expect_silence().await;
        drop(late);
    }
}

#[tokio::test]
async fn a_draining_node_refuses_http_sessions() {
    let mut cluster = Cluster::over_redis(2, &[]).await;
    let address = cluster.nodes[0].address;
    let visitor = HttpSession::login(address, Downlink::Poll, "a").await;
    // A client that neither reads nor closes keeps the node draining.
    let held = cluster.login(0, "held").await.stop_reading();
    cluster.nodes[0].drain();
    testing::eventually("it drains", async || {
        let refused = request(address, "POST", "/v1/sessions", &[], "{}").await;
        (refused.status == 503).then(|| {
            assert_eq!(refused.header("retry-after"), "1");
            assert_eq!(refused.json()["code"], "draining");
        })
    })
    .await;
    let refused = EventStream::open(address, &visitor.token, None).await;
    assert_eq!(refused.err(), Some(503));
    assert!(cluster.nodes[0].stopped().await);
    drop(held);
}

#[tokio::test]
async fn the_next_node_holds_back_what_follows_a_refused_message() {
    let settings = [("limits.signals_per_second", "10")];
    for cluster in [
        Cluster::in_memory(2, &settings).await,
        Cluster::over_redis(2, &settings).await,
    ] {
        let mut receiver = cluster.login_resumable(1, "receiver").await;
        let mut visitor = HttpSession::login(cluster.nodes[0].address, Downlink::Stream, "a").await;
        let first = visitor.ask_until_refused("receiver").await;
        let next = cluster.nodes[1].address;
        visitor.move_to(next);
        let moved = EventStream::open(next, &visitor.token, visitor.last.as_deref()).await;
        assert!(moved.is_ok());
        visitor.is_held_back("receiver", first).await;
        for number in 1..first + 2 {
            assert_eq!(receiver.receive().await["message"], number);
        }
    }
}

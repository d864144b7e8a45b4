//! Sessions over HTTP: how they open and end, and how streams and polls behave.

mod refusals;

use std::time::Duration;

use serde_json::json;

use testing::Cluster;
use testing::eventually;
use testing::http_session::{Downlink, EventStream, HttpSession, request};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn opening_a_session_returns_its_token() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let address = cluster.nodes[0].address;
    for body in ["", "{}", r#"{"login":{"name":"a"}}"#] {
        let opened = request(address, "POST", "/v1/sessions", &[], body).await;
        assert_eq!(opened.status, 201, "{opened:?}");
        assert_eq!(opened.header("cache-control"), "no-store");
        let session = opened.json();
        let id = session["session"].as_str().unwrap();
        assert_eq!(opened.header("location"), format!("/v1/sessions/{id}"));
        assert_eq!(session["expires_in"], 11);
        assert_eq!(session["keepalive"], 4);
        assert_eq!(session["events"], "/v1/events");
        assert_eq!(session["messages"], "/v1/messages");
    }
    for (body, code) in [("{", "bad_json"), (r#"{"login":1}"#, "bad_message")] {
        let refused = request(address, "POST", "/v1/sessions", &[], body).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.json()["code"], code);
    }
}

#[tokio::test]
async fn a_stream_begins_at_once_keeps_alive_and_ends_by_age() {
    let settings = [("http.keepalive", "200ms"), ("http.stream_age", "1s")];
    let cluster = Cluster::in_memory(1, &settings).await;
    let address = cluster.nodes[0].address;
    let visitor = HttpSession::open(address, Downlink::Stream, &json!({})).await;
    let mut events = EventStream::open(address, &visitor.token, None)
        .await
        .unwrap();
    let header = |name: &str| events.headers.get(name).unwrap().to_str().unwrap();
    assert_eq!(header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(header("cache-control"), "no-store, no-transform");
    assert_eq!(header("x-accel-buffering"), "no");
    let first = events.next().await.unwrap();
    assert!(first.data.starts_with(" ok") && first.data.len() > 2048);
    let mut keepalives = 0;
    let bye = loop {
        let event = events.next().await.unwrap();
        if event.kind != "comment" {
            break event;
        }
        assert_eq!(event.data, " ka");
        keepalives += 1;
    };
    assert!((2..=5).contains(&keepalives), "{keepalives}");
    assert_eq!((bye.kind.as_str(), bye.id), ("bye", None));
    assert_eq!(events.next().await, None, "then it ends");
}

#[tokio::test]
async fn a_newer_stream_or_poll_replaces_the_older() {
    for cluster in [
        Cluster::in_memory(2, &[]).await,
        Cluster::over_redis(2, &[]).await,
    ] {
        let (a, b) = (cluster.nodes[0].address, cluster.nodes[1].address);
        let visitor = HttpSession::open(a, Downlink::Stream, &json!({})).await;
        let mut first = EventStream::open(a, &visitor.token, None).await.unwrap();
        first.next().await;
        let mut second = EventStream::open(b, &visitor.token, None).await.unwrap();
        let replaced = first.next_event().await.unwrap();
        assert_eq!(replaced.kind, "replaced");
        assert_eq!(first.next_event().await, None);
        let poll = visitor.request("GET", "/v1/events?mode=poll&wait=20", &[], "");
        let taking_over = async {
            // The stream ends once the poll has taken over.
            assert_eq!(second.next_event().await.unwrap().kind, "replaced");
            EventStream::open(b, &visitor.token, None).await.unwrap()
        };
        let (poll, mut third) = tokio::join!(poll, taking_over);
        assert_eq!(
            (poll.status, &poll.json()["code"]),
            (409, &json!("replaced"))
        );
        visitor.send(&json!({"type": "ping", "id": 1})).await;
        let pong = third.next_event().await.unwrap();
        assert_eq!(pong.data, r#"{"type":"pong","id":1}"#);
    }
}

#[tokio::test]
async fn the_token_authorises_ice_servers() {
    let settings = [("ice.servers", r#"["stun:stun.example:3478"]"#)];
    let cluster = Cluster::in_memory(1, &settings).await;
    let address = cluster.nodes[0].address;
    let visitor = HttpSession::login(address, Downlink::Poll, "a").await;
    let reply = visitor.request("GET", "/v1/ice-servers", &[], "").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.body.contains("stun:stun.example:3478"), "{reply:?}");
    let nameless = HttpSession::open(address, Downlink::Poll, &json!({})).await;
    let refused = nameless.request("GET", "/v1/ice-servers", &[], "").await;
    assert_eq!(refused.status, 401, "{refused:?}");
    visitor.close().await;
    let gone = async || {
        let answer = visitor.request("GET", "/v1/ice-servers", &[], "").await;
        (answer.status == 404).then_some(())
    };
    eventually("the session is gone", gone).await;
}

#[tokio::test]
async fn an_empty_poll_is_held_and_then_answered() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let visitor = HttpSession::open(cluster.nodes[0].address, Downlink::Poll, &json!({})).await;
    for (path, headers) in [
        ("/v1/events?mode=poll&wait=1", &[][..]),
        (
            "/v1/events?mode=poll",
            &[("prefer", "respond-async, wait=1")][..],
        ),
    ] {
        let start = std::time::Instant::now();
        let polled = visitor.request("GET", path, headers, "").await;
        assert!(start.elapsed() >= Duration::from_secs(1));
        let next = "0-0";
        assert_eq!(polled.json(), json!({"events": [], "next": next}));
        assert_eq!(polled.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn a_client_that_does_not_come_back_is_lost() {
    for cluster in [
        Cluster::in_memory(2, &[("http.session_ttl", "5s")]).await,
        Cluster::over_redis(2, &[("http.session_ttl", "5s")]).await,
    ] {
        let mut peer = cluster.login(0, "peer").await;
        let address = cluster.nodes[1].address;
        let mut silent = HttpSession::login(address, Downlink::Poll, "silent").await;
        let streaming =
            HttpSession::open(address, Downlink::Stream, &json!({"login": {"name": "on"}})).await;
        let mut events = EventStream::open(address, &streaming.token, None)
            .await
            .unwrap();
        silent
            .send(&json!({"type": "offer", "name": "peer", "offer": 1}))
            .await;
        peer.receive_type("offer").await;
        let start = std::time::Instant::now();
        assert_eq!(
            peer.receive().await,
            json!({"type": "leave", "name": "silent", "reason": "lost"})
        );
        assert!(start.elapsed() > Duration::from_secs(4), "{start:?}");
        // The last event says why; after it the session is unknown.
        let close = silent.receive_type("close").await;
        assert_eq!(close["code"], 4010);
        silent.gone().await;
        // A client with an open stream is present.
        streaming.send(&json!({"type": "ping", "id": 1})).await;
        while events.next_event().await.unwrap().data != r#"{"type":"pong","id":1}"# {}
    }
}

#[tokio::test]
async fn a_late_reader_gets_a_reset() {
    // The visitor is silent for as long as a slow machine takes for all the messages.
    let settings = [
        ("limits.signals_per_second", "0"),
        ("http.session_ttl", "60s"),
    ];
    let cluster = Cluster::over_redis(2, &settings).await;
    let mut peer = cluster.login(0, "peer").await;
    let mut visitor = HttpSession::login(cluster.nodes[1].address, Downlink::Poll, "late").await;
    for number in 0..1200 {
        let say = json!({"type": "message", "name": "late", "message": number, "id": number});
        loop {
            peer.send(&say).await;
            let answer = peer.receive().await;
            if answer["type"] == "ack" {
                break;
            }
            // POSTs count as waiting until their outcome is known.
            assert_eq!(answer["code"], "inbox_full");
        }
    }
    let reset = visitor.receive_event().await;
    assert_eq!(reset.kind, "reset");
    let mut last = visitor.receive().await["message"].as_u64().unwrap();
    assert!(last > 0, "the first is not kept");
    while last < 1199 {
        let next = visitor.receive().await["message"].as_u64().unwrap();
        assert_eq!(next, last + 1, "behind it nothing is missing");
        last = next;
    }
}

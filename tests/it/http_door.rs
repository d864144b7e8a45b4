//! The HTTP door itself: who is let in, how it says no, and how its streams and polls behave.

use std::time::Duration;

use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::visitor::{By, Events, Visitor, request};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_session_is_opened_as_the_protocol_says() {
    let cluster = Cluster::embedded(1, &[]).await;
    let address = cluster.nodes[0].address;
    for body in ["", "{}", r#"{"login":{"name":"a"}}"#] {
        let opened = request(address, "POST", "/v1/sessions", &[], body).await;
        assert_eq!(opened.status, 201, "{opened:?}");
        assert_eq!(opened.header("cache-control"), "no-store");
        let session = opened.json();
        let id = session["session"].as_str().unwrap();
        assert_eq!(opened.header("location"), format!("/v1/sessions/{id}"));
        assert_eq!(session["expires_in"], 20);
        assert_eq!(session["keepalive"], 15);
        assert_eq!(session["events"], "/v1/events");
        assert_eq!(session["messages"], "/v1/messages");
    }
    for (body, code) in [("{", "bad_json"), (r#"{"login":1}"#, "bad_message")] {
        let refused = request(address, "POST", "/v1/sessions", &[], body).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.json()["code"], code);
    }
}

/// A request, with the status and the code of its answer.
type Case<'a> = (
    &'a str,
    &'a str,
    &'a [(&'a str, &'a str)],
    &'a str,
    u16,
    &'a str,
);

#[allow(clippy::too_many_lines)] // It is a table.
#[tokio::test]
async fn it_says_no_with_the_status_that_fits() {
    let settings = [("session.frame_bytes", "2048")];
    let cluster = Cluster::embedded(1, &settings).await;
    let address = cluster.nodes[0].address;
    let visitor = Visitor::login(address, By::Poll, "a").await;
    let other = Visitor::login(address, By::Poll, "b").await;
    let bearer = |token: &str| format!("Bearer {token}");
    let (mine, session) = (bearer(&visitor.token), visitor.session.clone());
    let secret = other.token.split_once('.').unwrap().1;
    let wrong = bearer(&format!("{session}.{secret}"));
    let unknown = bearer(&format!("{}.{secret}", "0".repeat(32)));
    let long = format!(r#"{{"type":"{}"}}"#, "x".repeat(2048));
    let lines = "{}\n".repeat(257);
    let events = "/v1/events?mode=poll&wait=0";
    let ndjson = ("content-type", "application/x-ndjson");
    let key = "k".repeat(129);
    let cases: &[Case<'_>] = &[
        ("GET", events, &[], "", 401, "unauthorized"),
        (
            "GET",
            events,
            &[("authorization", "Bearer x")],
            "",
            401,
            "unauthorized",
        ),
        (
            "GET",
            events,
            &[("authorization", &wrong)],
            "",
            401,
            "unauthorized",
        ),
        (
            "GET",
            events,
            &[("authorization", &unknown)],
            "",
            404,
            "session_gone",
        ),
        (
            "GET",
            "/v1/events?mode=drum",
            &[("authorization", &mine)],
            "",
            400,
            "bad_request",
        ),
        (
            "GET",
            "/v1/events?mode=poll&after=x",
            &[("authorization", &mine)],
            "",
            400,
            "bad_request",
        ),
        (
            "GET",
            "/v1/events?mode=poll&wait=x",
            &[("authorization", &mine)],
            "",
            400,
            "bad_request",
        ),
        ("POST", "/v1/messages", &[JSON], "{}", 401, "unauthorized"),
        (
            "POST",
            "/v1/messages",
            &[JSON, ("authorization", &unknown)],
            "{}",
            404,
            "session_gone",
        ),
        (
            "POST",
            "/v1/messages",
            &[JSON, ("authorization", &mine)],
            "{",
            400,
            "bad_json",
        ),
        (
            "POST",
            "/v1/messages",
            &[("authorization", &mine)],
            "{}",
            415,
            "unsupported_media_type",
        ),
        (
            "POST",
            "/v1/messages",
            &[JSON, ("authorization", &mine)],
            &long,
            413,
            "too_large",
        ),
        (
            "POST",
            "/v1/messages",
            &[ndjson, ("authorization", &mine)],
            &long,
            413,
            "too_large",
        ),
        (
            "POST",
            "/v1/messages",
            &[ndjson, ("authorization", &mine)],
            &lines,
            413,
            "too_large",
        ),
        (
            "POST",
            "/v1/messages",
            &[JSON, ("authorization", &mine), ("idempotency-key", &key)],
            "{}",
            400,
            "bad_request",
        ),
        (
            "DELETE",
            "/v1/sessions/x",
            &[("authorization", &mine)],
            "",
            404,
            "session_gone",
        ),
    ];
    for (method, path, headers, body, status, code) in cases {
        let answer = request(address, method, path, headers, body).await;
        assert_eq!(answer.status, *status, "{method} {path}: {answer:?}");
        assert_eq!(answer.json()["code"], *code, "{method} {path}");
        assert_eq!(answer.json()["type"], "error");
        let asks = answer.header("www-authenticate");
        assert_eq!(asks, if *status == 401 { "Bearer" } else { "" });
    }
    let method = request(address, "GET", "/v1/messages", &[], "").await;
    assert_eq!(method.status, 405);
}

/// Where a browser can set no header: `EventSource`, and the beacon of a page that goes.
#[tokio::test]
async fn the_token_may_stand_in_the_address() {
    let cluster = Cluster::embedded(1, &[]).await;
    let address = cluster.nodes[0].address;
    let mut peer = cluster.login(0, "peer").await;
    let visitor = Visitor::login(address, By::Poll, "a").await;
    visitor
        .says(&json!({"type": "offer", "name": "peer", "offer": 1}))
        .await;
    peer.hears_of("offer").await;
    let token = &visitor.token;
    let path = format!("/v1/events?mode=poll&wait=0&session={token}");
    let polled = request(address, "GET", &path, &[], "").await;
    assert_eq!(polled.json()["events"][0]["data"]["type"], "login");
    let path = format!("/v1/sessions/{}/close?session={token}", visitor.session);
    let text = ("content-type", "text/plain;charset=UTF-8");
    let closed = request(address, "POST", &path, &[text], "").await;
    assert_eq!(closed.status, 204);
    let leave = peer.hears().await;
    assert_eq!(
        leave,
        json!({"type": "leave", "name": "a", "reason": "closed"})
    );
}

#[tokio::test]
async fn pages_of_other_origins_may_be_let_in_or_not() {
    let open = Cluster::embedded(1, &[]).await;
    let mine = [("limits.origins", "[\"https://mine.example\"]")];
    let closed = Cluster::embedded(1, &mine).await;
    let asks = [
        ("origin", "https://mine.example"),
        ("access-control-request-method", "POST"),
    ];
    let shared = "https://mine.example";
    for cluster in [&open, &closed] {
        let address = cluster.nodes[0].address;
        for path in [
            "/v1/sessions",
            "/v1/events",
            "/v1/messages",
            "/v1/sessions/x",
        ] {
            let preflight = request(address, "OPTIONS", path, &asks, "").await;
            assert_eq!(preflight.status, 204, "{path}");
            assert_eq!(preflight.header("access-control-allow-origin"), shared);
            assert_eq!(preflight.header("access-control-max-age"), "600");
            let allowed = preflight.header("access-control-allow-headers");
            for header in [
                "authorization",
                "content-type",
                "idempotency-key",
                "last-event-id",
            ] {
                assert!(allowed.contains(header), "{allowed}");
            }
        }
        let opened = request(address, "POST", "/v1/sessions", &asks[..1], "{}").await;
        assert_eq!(opened.status, 201);
        assert_eq!(opened.header("access-control-allow-origin"), shared);
        assert!(
            opened
                .header("access-control-expose-headers")
                .contains("location")
        );
        // A page may read why it was refused.
        let refused = request(address, "GET", "/v1/events", &asks[..1], "").await;
        assert_eq!(
            (
                refused.status,
                refused.header("access-control-allow-origin")
            ),
            (401, shared)
        );
    }
    let strange = [("origin", "https://other.example")];
    let address = closed.nodes[0].address;
    for method in ["OPTIONS", "POST"] {
        let refused = request(address, method, "/v1/sessions", &strange, "{}").await;
        assert_eq!(refused.status, 403);
        // Without it the page could not read why, and would take the server for one that is not there.
        let readable = refused.header("access-control-allow-origin");
        assert_eq!(readable, "https://other.example");
        assert_eq!(refused.header("vary"), "origin");
    }
}

#[tokio::test]
async fn a_stream_begins_at_once_keeps_alive_and_ends_by_age() {
    let settings = [("http.keepalive", "200ms"), ("http.stream_age", "1s")];
    let cluster = Cluster::embedded(1, &settings).await;
    let address = cluster.nodes[0].address;
    let visitor = Visitor::open(address, By::Stream, &json!({})).await;
    let mut events = Events::open(address, &visitor.token, None).await.unwrap();
    let header = |name: &str| events.headers.get(name).unwrap().to_str().unwrap();
    assert_eq!(header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(header("cache-control"), "no-cache, no-transform");
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
async fn a_newer_reader_takes_over() {
    for cluster in [
        Cluster::embedded(2, &[]).await,
        Cluster::redis(2, &[]).await,
    ] {
        let (a, b) = (cluster.nodes[0].address, cluster.nodes[1].address);
        let visitor = Visitor::open(a, By::Stream, &json!({})).await;
        let mut first = Events::open(a, &visitor.token, None).await.unwrap();
        first.next().await;
        let mut second = Events::open(b, &visitor.token, None).await.unwrap();
        let replaced = first.next_event().await.unwrap();
        assert_eq!(replaced.kind, "replaced");
        assert_eq!(first.next_event().await, None);
        let poll = visitor.asks("GET", "/v1/events?mode=poll&wait=20", &[], "");
        let taking_over = async {
            // The poll has taken over when the stream is told.
            assert_eq!(second.next_event().await.unwrap().kind, "replaced");
            Events::open(b, &visitor.token, None).await.unwrap()
        };
        let (poll, mut third) = tokio::join!(poll, taking_over);
        assert_eq!(
            (poll.status, &poll.json()["code"]),
            (409, &json!("replaced"))
        );
        visitor.says(&json!({"type": "ping", "id": 1})).await;
        let pong = third.next_event().await.unwrap();
        assert_eq!(pong.data, r#"{"type":"pong","id":1}"#);
    }
}

#[tokio::test]
async fn the_token_proves_who_asks_for_ice_servers() {
    let settings = [("ice.servers", r#"["stun:stun.example:3478"]"#)];
    let cluster = Cluster::embedded(1, &settings).await;
    let address = cluster.nodes[0].address;
    let visitor = Visitor::login(address, By::Poll, "a").await;
    let told = visitor.asks("GET", "/v1/ice-servers", &[], "").await;
    assert_eq!(told.status, 200, "{told:?}");
    assert!(told.body.contains("stun:stun.example:3478"), "{told:?}");
    let nameless = Visitor::open(address, By::Poll, &json!({})).await;
    let refused = nameless.asks("GET", "/v1/ice-servers", &[], "").await;
    assert_eq!(refused.status, 401, "{refused:?}");
    visitor.closes().await;
    let gone = async || {
        let answer = visitor.asks("GET", "/v1/ice-servers", &[], "").await;
        (answer.status == 404).then_some(())
    };
    eventually("the session is gone", gone).await;
}

#[tokio::test]
async fn an_empty_poll_is_held_and_then_answered() {
    let cluster = Cluster::embedded(1, &[]).await;
    let visitor = Visitor::open(cluster.nodes[0].address, By::Poll, &json!({})).await;
    for (path, headers) in [
        ("/v1/events?mode=poll&wait=1", &[][..]),
        (
            "/v1/events?mode=poll",
            &[("prefer", "respond-async, wait=1")][..],
        ),
    ] {
        let begun = std::time::Instant::now();
        let polled = visitor.asks("GET", path, headers, "").await;
        assert!(begun.elapsed() >= Duration::from_secs(1));
        let next = "0-0";
        assert_eq!(polled.json(), json!({"events": [], "next": next}));
        assert_eq!(polled.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn a_client_that_does_not_come_back_is_lost() {
    for cluster in [
        Cluster::embedded(2, &[("http.session_ttl", "5s")]).await,
        Cluster::redis(2, &[("http.session_ttl", "5s")]).await,
    ] {
        let mut peer = cluster.login(0, "peer").await;
        let address = cluster.nodes[1].address;
        let mut silent = Visitor::login(address, By::Poll, "silent").await;
        let streaming = Visitor::open(address, By::Stream, &json!({"login": {"name": "on"}})).await;
        let mut events = Events::open(address, &streaming.token, None).await.unwrap();
        silent
            .says(&json!({"type": "offer", "name": "peer", "offer": 1}))
            .await;
        peer.hears_of("offer").await;
        let begun = std::time::Instant::now();
        assert_eq!(
            peer.hears().await,
            json!({"type": "leave", "name": "silent", "reason": "lost"})
        );
        assert!(begun.elapsed() > Duration::from_secs(4), "{begun:?}");
        // Its last words say why, and then it is gone.
        let close = silent.hears_of("close").await;
        assert_eq!(close["code"], 4010);
        silent.is_gone().await;
        // Whoever holds a stream is there.
        streaming.says(&json!({"type": "ping", "id": 1})).await;
        while events.next_event().await.unwrap().data != r#"{"type":"pong","id":1}"# {}
    }
}

#[tokio::test]
async fn whoever_reads_too_late_is_told_that_something_is_lost() {
    let settings = [("limits.signals_per_second", "0")];
    let cluster = Cluster::redis(2, &settings).await;
    let mut peer = cluster.login(0, "peer").await;
    let mut visitor = Visitor::login(cluster.nodes[1].address, By::Poll, "late").await;
    for number in 0..1200 {
        let say = json!({"type": "message", "name": "late", "message": number, "id": number});
        loop {
            peer.says(&say).await;
            let answer = peer.hears().await;
            if answer["type"] == "ack" {
                break;
            }
            // What is not safe yet takes its room.
            assert_eq!(answer["code"], "inbox_full");
        }
    }
    let reset = visitor.hears_event().await;
    assert_eq!(reset.kind, "reset");
    let mut last = visitor.hears().await["message"].as_u64().unwrap();
    assert!(last > 0, "the first is not kept");
    while last < 1199 {
        let next = visitor.hears().await["message"].as_u64().unwrap();
        assert_eq!(next, last + 1, "behind it nothing is missing");
        last = next;
    }
}

#[tokio::test]
async fn limits_hold_as_over_a_websocket() {
    let settings = [
        ("limits.signals_per_second", "5"),
        ("limits.connections_per_ip", "2"),
    ];
    let cluster = Cluster::embedded(1, &settings).await;
    let address = cluster.nodes[0].address;
    let mut hasty = Visitor::login(address, By::Poll, "hasty").await;
    let pings = vec![json!({"type": "ping"}); 60];
    assert_eq!(hasty.says_all(&pings, "k").await.status, 202);
    let refused = hasty.hears_of("error").await;
    assert_eq!(refused["code"], "rate_limited");
    let close = hasty.hears_of("close").await;
    assert_eq!(close["code"], 4029);
    hasty.is_gone().await;

    // Its session is over when it may be resumed no longer; until then it counts.
    let one = Visitor::open(address, By::Stream, &json!({})).await;
    let crowded = request(address, "POST", "/v1/sessions", &[], "{}").await;
    assert_eq!((crowded.status, crowded.header("retry-after")), (429, "1"));
    let first = Events::open(address, &one.token, None).await;
    let held = cluster.connect(0).await;
    let too_many = Events::open(address, &one.token, None).await;
    assert_eq!(too_many.err(), Some(429));
    drop((first, held));
    eventually("there is room again", async || {
        Events::open(address, &one.token, None).await.ok()
    })
    .await;
}

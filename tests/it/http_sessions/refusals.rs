//! Requests that are refused, and who may send them.

use serde_json::json;
use testing::http_session::{Downlink, EventStream, HttpSession, request};
use testing::{Cluster, eventually};

use super::JSON;

/// A request, with the status and the error code of its response.
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
async fn refusals_have_the_right_status_and_code() {
    let settings = [("session.frame_bytes", "2048")];
    let cluster = Cluster::in_memory(1, &settings).await;
    let address = cluster.nodes[0].address;
    let client = HttpSession::login(address, Downlink::Poll, "a").await;
    let other = HttpSession::login(address, Downlink::Poll, "b").await;
    let bearer = |token: &str| format!("Bearer {token}");
    let (mine, session) = (bearer(&client.token), client.session.clone());
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

/// A browser cannot set headers for `EventSource` and `sendBeacon`, so the token may be in the query.
#[tokio::test]
async fn the_token_may_be_in_the_query() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let address = cluster.nodes[0].address;
    let mut peer = cluster.login(0, "peer").await;
    let client = HttpSession::login(address, Downlink::Poll, "a").await;
    client
        .send(&json!({"type": "offer", "name": "peer", "offer": 1}))
        .await;
    peer.receive_type("offer").await;
    let token = &client.token;
    let path = format!("/v1/events?mode=poll&wait=0&session={token}");
    let polled = request(address, "GET", &path, &[], "").await;
    assert_eq!(polled.json()["events"][0]["data"]["type"], "login");
    let path = format!("/v1/sessions/{}/close?session={token}", client.session);
    let text = ("content-type", "text/plain;charset=UTF-8");
    let closed = request(address, "POST", &path, &[text], "").await;
    assert_eq!(closed.status, 204);
    let leave = peer.receive().await;
    assert_eq!(
        leave,
        json!({"type": "leave", "name": "a", "reason": "closed"})
    );
}

#[tokio::test]
async fn foreign_origins_are_allowed_only_if_listed() {
    let open = Cluster::in_memory(1, &[]).await;
    let mine = [("limits.origins", "[\"https://mine.example\"]")];
    let closed = Cluster::in_memory(1, &mine).await;
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
        // CORS headers let the page read the error.
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
async fn limits_are_those_of_a_websocket() {
    let settings = [
        ("limits.signals_per_second", "5"),
        ("limits.connections_per_ip", "2"),
    ];
    let cluster = Cluster::in_memory(1, &settings).await;
    let address = cluster.nodes[0].address;
    let mut hasty = HttpSession::login(address, Downlink::Poll, "hasty").await;
    let pings = vec![json!({"type": "ping"}); 60];
    assert_eq!(hasty.send_all(&pings, "k").await.status, 202);
    let refused = hasty.receive_type("error").await;
    assert_eq!(refused["code"], "rate_limited");
    let close = hasty.receive_type("close").await;
    assert_eq!(close["code"], 4029);
    hasty.gone().await;

    // A session counts until its grace period ends.
    let one = HttpSession::open(address, Downlink::Stream, &json!({})).await;
    let crowded = request(address, "POST", "/v1/sessions", &[], "{}").await;
    assert_eq!((crowded.status, crowded.header("retry-after")), (429, "1"));
    let first = EventStream::open(address, &one.token, None).await;
    let held = cluster.connect(0).await;
    let too_many = EventStream::open(address, &one.token, None).await;
    assert_eq!(too_many.err(), Some(429));
    drop((first, held));
    eventually("there is room again", async || {
        EventStream::open(address, &one.token, None).await.ok()
    })
    .await;
}

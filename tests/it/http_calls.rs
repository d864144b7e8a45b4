//! Calls over HTTP: a client that cannot open a WebSocket is a user like any other.

use serde_json::json;

use testing::Client;
use testing::Cluster;
use testing::http_session::{Downlink, HttpSession};

async fn both(settings: &[(&str, &str)]) -> [Cluster; 2] {
    [
        Cluster::in_memory(2, settings).await,
        Cluster::over_redis(2, settings).await,
    ]
}

#[tokio::test]
async fn a_websocket_and_an_http_user_call_each_other() {
    for cluster in both(&[]).await {
        for by in [Downlink::Stream, Downlink::Poll] {
            let mut socket = cluster.login(0, "socket").await;
            let mut visitor = HttpSession::login(cluster.nodes[1].address, by, "visitor").await;
            // A POST to one node reaches a stream at another.
            visitor.move_to(cluster.nodes[0].address);
            visitor
                .send(&json!({"type": "offer", "name": "socket", "offer": {"sdp": "o"}, "id": 1}))
                .await;
            let offer = socket.receive().await;
            assert_eq!(
                offer,
                json!({"type": "offer", "offer": {"sdp": "o"}, "name": "visitor"})
            );
            let ack = visitor.receive().await;
            assert_eq!(ack, json!({"type": "ack", "id": 1, "status": "delivered"}));
            socket
                .send(
                    &json!({"type": "answer", "name": "visitor", "answer": [1, {"b": 2, "a": 1}]}),
                )
                .await;
            let mut answer = visitor.receive().await;
            assert!(answer["seq"].is_string(), "{answer}");
            answer.as_object_mut().unwrap().remove("seq");
            assert_eq!(
                answer,
                json!({"type": "answer", "answer": [1, {"b": 2, "a": 1}], "name": "socket"})
            );
            let candidates: Vec<_> = (0..20)
                .map(|number| json!({"type": "candidate", "name": "socket", "candidate": number}))
                .collect();
            assert_eq!(visitor.send_all(&candidates, "c").await.status, 202);
            // The client repeats the POST, since it does not know whether it succeeded.
            let again = visitor.send_all(&candidates, "c").await;
            assert_eq!((again.status, again.json()), (202, json!({"accepted": 20})));
            for number in 0..20 {
                assert_eq!(socket.receive().await["candidate"], number);
            }
            socket
                .send(&json!({"type": "candidate", "name": "visitor", "candidate": "mine"}))
                .await;
            assert_eq!(visitor.receive().await["candidate"], "mine");
            visitor.expect_silence().await;
            socket.expect_silence().await;

            visitor.close().await;
            assert_eq!(
                socket.receive().await,
                json!({"type": "leave", "name": "visitor", "reason": "closed"})
            );
            assert_eq!(visitor.gone().await["code"], "session_gone");
            // The name is free immediately.
            let again = cluster.login(1, "visitor").await;
            again.close().await;
            socket.close().await;
        }
    }
}

#[tokio::test]
async fn two_http_users_call_each_other_and_one_hangs_up() {
    for cluster in both(&[]).await {
        let (a, b) = (cluster.nodes[0].address, cluster.nodes[1].address);
        let mut one = HttpSession::login(a, Downlink::Poll, "one").await;
        let mut other = HttpSession::login(b, Downlink::Stream, "other").await;
        one.send(&json!({"type": "offer", "name": "other", "offer": 1}))
            .await;
        assert_eq!(other.receive().await["offer"], 1);
        other
            .send(&json!({"type": "answer", "name": "one", "answer": 2}))
            .await;
        assert_eq!(one.receive().await["answer"], 2);
        one.send(&json!({"type": "leave", "name": "other"})).await;
        let leave = other.receive().await;
        assert_eq!(
            (&leave["type"], &leave["reason"]),
            (&json!("leave"), &json!("hangup"))
        );
        other.expect_silence().await;
        one.expect_silence().await;
    }
}

#[tokio::test]
async fn errors_arrive_on_the_stream_as_over_a_websocket() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let address = cluster.nodes[0].address;
    let mut visitor = HttpSession::open(address, Downlink::Stream, &json!({})).await;
    visitor
        .send(&json!({"type": "message", "name": "b", "message": 1}))
        .await;
    assert_eq!(visitor.receive().await["code"], "not_logged_in");
    visitor.send(&json!({"type": "login", "name": ""})).await;
    assert_eq!(visitor.receive().await["code"], "invalid_name");
    visitor.send(&json!({"type": "login", "name": "a"})).await;
    assert_eq!(visitor.receive().await["success"], true);
    visitor.send(&json!({"type": "login", "name": "b"})).await;
    assert_eq!(visitor.receive().await["code"], "already_logged_in");
    // The error for a message without an id has no id, not even one that the server made.
    visitor
        .send(&json!({"type": "message", "name": "nobody", "message": 1}))
        .await;
    let error = visitor.receive().await;
    assert_eq!(error["code"], "user_unavailable");
    assert!(error.get("id").is_none(), "{error}");
    visitor.send(&json!({"type": "dance"})).await;
    assert_eq!(visitor.receive().await["code"], "unknown_type");
    visitor.send(&json!([1])).await;
    assert_eq!(visitor.receive().await["code"], "bad_message");
    visitor
        .send(&json!({"type": "presence", "names": ["a", "b"], "id": "p"}))
        .await;
    let presence = visitor.receive().await;
    assert_eq!(presence["users"], json!({"a": true, "b": false}));
    let mut taken = cluster.connect(0).await;
    let reply = taken.try_login("a").await;
    assert_eq!(reply["code"], "name_taken");
    visitor.expect_silence().await;
}

/// A client changes its transport without losing its session, as the client library does when it falls back.
#[tokio::test]
async fn a_session_moves_from_websocket_to_http_and_back() {
    for cluster in both(&[]).await {
        let mut peer = cluster.login(0, "peer").await;
        let mut socket = Client::login_resumable(cluster.nodes[0].address, "changer").await;
        socket.call(&mut peer).await;
        let token = socket.token.clone();

        let login =
            json!({"login": {"name": "changer", "resume": token.secret, "last": token.last}});
        let address = cluster.nodes[1].address;
        let mut visitor = HttpSession::open(address, Downlink::Stream, &login).await;
        let reply = visitor.receive().await;
        assert_eq!(reply["resumed"], true, "{reply}");
        assert_eq!(reply["resume"], token.secret.as_str());
        assert_eq!(socket.closed().await, Some(4000));
        peer.send(&json!({"type": "candidate", "name": "changer", "candidate": 1}))
            .await;
        let candidate = visitor.receive().await;
        assert_eq!(candidate["candidate"], 1);

        let mut token = token.clone();
        token.last = candidate["seq"].as_str().map(str::to_owned);
        let mut back = Client::resume(cluster.nodes[0].address, &token).await;
        let close = visitor.receive().await;
        assert_eq!(
            (&close["type"], &close["code"]),
            (&json!("close"), &json!(4000))
        );
        visitor.gone().await;
        peer.send(&json!({"type": "candidate", "name": "changer", "candidate": 2}))
            .await;
        assert_eq!(back.receive().await["candidate"], 2);
        back.send(&json!({"type": "candidate", "name": "peer", "candidate": 3}))
            .await;
        assert_eq!(peer.receive().await["candidate"], 3);
        peer.expect_silence().await;
        back.expect_silence().await;
    }
}

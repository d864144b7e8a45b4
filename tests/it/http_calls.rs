//! Calls through the HTTP door: a client that cannot open a WebSocket is a user like any other.

use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::peer::Peer;
use crate::support::visitor::{By, Visitor};

async fn both(settings: &[(&str, &str)]) -> [Cluster; 2] {
    [
        Cluster::embedded(2, settings).await,
        Cluster::redis(2, settings).await,
    ]
}

#[tokio::test]
async fn a_websocket_and_an_http_user_call_each_other() {
    for cluster in both(&[]).await {
        for by in [By::Stream, By::Poll] {
            let mut socket = cluster.login(0, "socket").await;
            let mut visitor = Visitor::login(cluster.nodes[1].address, by, "visitor").await;
            // What one node was told is heard on another.
            visitor.turns_to(cluster.nodes[0].address);
            visitor
                .says(&json!({"type": "offer", "name": "socket", "offer": {"sdp": "o"}, "id": 1}))
                .await;
            let offer = socket.hears().await;
            assert_eq!(
                offer,
                json!({"type": "offer", "offer": {"sdp": "o"}, "name": "visitor"})
            );
            let ack = visitor.hears().await;
            assert_eq!(ack, json!({"type": "ack", "id": 1, "status": "delivered"}));
            socket
                .says(
                    &json!({"type": "answer", "name": "visitor", "answer": [1, {"b": 2, "a": 1}]}),
                )
                .await;
            let mut answer = visitor.hears().await;
            assert!(answer["seq"].is_string(), "{answer}");
            answer.as_object_mut().unwrap().remove("seq");
            assert_eq!(
                answer,
                json!({"type": "answer", "answer": [1, {"b": 2, "a": 1}], "name": "socket"})
            );
            let candidates: Vec<_> = (0..20)
                .map(|number| json!({"type": "candidate", "name": "socket", "candidate": number}))
                .collect();
            assert_eq!(visitor.says_all(&candidates, "c").await.status, 202);
            // Said again, since nobody knows whether it was heard.
            let again = visitor.says_all(&candidates, "c").await;
            assert_eq!((again.status, again.json()), (202, json!({"accepted": 20})));
            for number in 0..20 {
                assert_eq!(socket.hears().await["candidate"], number);
            }
            socket
                .says(&json!({"type": "candidate", "name": "visitor", "candidate": "mine"}))
                .await;
            assert_eq!(visitor.hears().await["candidate"], "mine");
            visitor.hears_nothing_more().await;
            socket.hears_nothing_more().await;

            visitor.closes().await;
            assert_eq!(
                socket.hears().await,
                json!({"type": "leave", "name": "visitor", "reason": "closed"})
            );
            assert_eq!(visitor.is_gone().await["code"], "session_gone");
            // The name is free at once.
            let again = cluster.login(1, "visitor").await;
            again.closes().await;
            socket.closes().await;
        }
    }
}

#[tokio::test]
async fn two_http_users_call_each_other_and_one_hangs_up() {
    for cluster in both(&[]).await {
        let (a, b) = (cluster.nodes[0].address, cluster.nodes[1].address);
        let mut one = Visitor::login(a, By::Poll, "one").await;
        let mut other = Visitor::login(b, By::Stream, "other").await;
        one.says(&json!({"type": "offer", "name": "other", "offer": 1}))
            .await;
        assert_eq!(other.hears().await["offer"], 1);
        other
            .says(&json!({"type": "answer", "name": "one", "answer": 2}))
            .await;
        assert_eq!(one.hears().await["answer"], 2);
        one.says(&json!({"type": "leave", "name": "other"})).await;
        let leave = other.hears().await;
        assert_eq!(
            (&leave["type"], &leave["reason"]),
            (&json!("leave"), &json!("hangup"))
        );
        other.hears_nothing_more().await;
        one.hears_nothing_more().await;
    }
}

#[tokio::test]
async fn errors_are_told_on_the_stream_as_over_a_websocket() {
    let cluster = Cluster::embedded(1, &[]).await;
    let address = cluster.nodes[0].address;
    let mut visitor = Visitor::open(address, By::Stream, &json!({})).await;
    visitor
        .says(&json!({"type": "message", "name": "b", "message": 1}))
        .await;
    assert_eq!(visitor.hears().await["code"], "not_logged_in");
    visitor.says(&json!({"type": "login", "name": ""})).await;
    assert_eq!(visitor.hears().await["code"], "invalid_name");
    visitor.says(&json!({"type": "login", "name": "a"})).await;
    assert_eq!(visitor.hears().await["success"], true);
    visitor.says(&json!({"type": "login", "name": "b"})).await;
    assert_eq!(visitor.hears().await["code"], "already_logged_in");
    // Without an id an error names none, also not one that the server made.
    visitor
        .says(&json!({"type": "message", "name": "nobody", "message": 1}))
        .await;
    let error = visitor.hears().await;
    assert_eq!(error["code"], "user_unavailable");
    assert!(error.get("id").is_none(), "{error}");
    visitor.says(&json!({"type": "dance"})).await;
    assert_eq!(visitor.hears().await["code"], "unknown_type");
    visitor.says(&json!([1])).await;
    assert_eq!(visitor.hears().await["code"], "bad_message");
    visitor
        .says(&json!({"type": "presence", "names": ["a", "b"], "id": "p"}))
        .await;
    let presence = visitor.hears().await;
    assert_eq!(presence["users"], json!({"a": true, "b": false}));
    let mut taken = cluster.connect(0).await;
    let reply = taken.tries_login("a").await;
    assert_eq!(reply["code"], "name_taken");
    visitor.hears_nothing_more().await;
}

/// A client changes the way it connects without losing its session: that is how a library climbs its ladder.
#[tokio::test]
async fn a_session_goes_from_a_websocket_to_http_and_back() {
    for cluster in both(&[]).await {
        let mut peer = cluster.login(0, "peer").await;
        let mut socket = Peer::login_resumable(cluster.nodes[0].address, "changer").await;
        socket.calls(&mut peer).await;
        let ticket = socket.ticket.clone();

        let login =
            json!({"login": {"name": "changer", "resume": ticket.secret, "last": ticket.last}});
        let address = cluster.nodes[1].address;
        let mut visitor = Visitor::open(address, By::Stream, &login).await;
        let reply = visitor.hears().await;
        assert_eq!(reply["resumed"], true, "{reply}");
        assert_eq!(reply["resume"], ticket.secret.as_str());
        assert_eq!(socket.is_closed().await, Some(4000));
        peer.says(&json!({"type": "candidate", "name": "changer", "candidate": 1}))
            .await;
        let candidate = visitor.hears().await;
        assert_eq!(candidate["candidate"], 1);

        let mut ticket = ticket.clone();
        ticket.last = candidate["seq"].as_str().map(str::to_owned);
        let mut back = Peer::resume(cluster.nodes[0].address, &ticket).await;
        let close = visitor.hears().await;
        assert_eq!(
            (&close["type"], &close["code"]),
            (&json!("close"), &json!(4000))
        );
        visitor.is_gone().await;
        peer.says(&json!({"type": "candidate", "name": "changer", "candidate": 2}))
            .await;
        assert_eq!(back.hears().await["candidate"], 2);
        back.says(&json!({"type": "candidate", "name": "peer", "candidate": 3}))
            .await;
        assert_eq!(peer.hears().await["candidate"], 3);
        peer.hears_nothing_more().await;
        back.hears_nothing_more().await;
    }
}

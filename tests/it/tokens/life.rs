//! How long a token lasts, and how it is replaced.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testing::http::request;
use testing::http_session::{Downlink, HttpSession};
use testing::tokens::now;
use testing::{Client, Cluster};

use super::{login, required, token, try_login};

/// The claims of a token that ends in so many seconds: it lasts 30 s longer than it says, for clocks differ.
fn ends_in(seconds: u64) -> Value {
    json!({"exp": now() + seconds - 30})
}

async fn renew(client: &mut Client, token: &str) -> Value {
    client
        .send(&json!({"type": "token", "token": token, "id": 7}))
        .await;
    client.receive().await
}

#[tokio::test]
async fn a_session_ends_with_its_token_and_is_told_before() {
    let cluster = Cluster::in_memory(1, &required()).await;
    let begun = Instant::now();
    let mut alice = login(&cluster, 0, "alice", ends_in(3)).await;
    let mut bob = login(&cluster, 0, "bob", json!({})).await;
    let told = alice.receive().await;
    assert_eq!(told["type"], "token_expires");
    assert!(
        (1..=3000).contains(&told["expires_in_ms"].as_u64().unwrap()),
        "{told}"
    );
    alice.call(&mut bob).await;
    assert_eq!(alice.closed().await, Some(4003));
    assert!(
        begun.elapsed() > Duration::from_millis(1900),
        "{:?}",
        begun.elapsed()
    );
    let left = json!({"type": "leave", "name": "alice", "reason": "kicked"});
    assert_eq!(bob.receive().await, left);
}

#[tokio::test]
async fn a_new_token_prolongs_the_session() {
    let cluster = Cluster::in_memory(1, &required()).await;
    let mut alice = login(&cluster, 0, "alice", ends_in(4)).await;
    assert_eq!(alice.receive().await["type"], "token_expires");
    for (others, code) in [
        (json!({"sub": "bob"}), "forbidden"),
        (json!({"realm": "acme"}), "forbidden"),
        (json!({"callable_by": []}), "forbidden"),
        (json!({"exp": 1000}), "unauthorized"),
    ] {
        let refused = renew(&mut alice, &token("alice", others)).await;
        assert_eq!(
            (&refused["code"], &refused["id"]),
            (&json!(code), &json!(7)),
            "{refused}"
        );
    }
    let renewed = renew(&mut alice, &token("alice", json!({"call": ["bob"]}))).await;
    assert_eq!(
        (&renewed["type"], &renewed["id"]),
        (&json!("token"), &json!(7)),
        "{renewed}"
    );
    assert!(renewed["expires_in_ms"].as_u64().unwrap() > 3_600_000);
    tokio::time::sleep(Duration::from_secs(5)).await;
    alice
        .send(&json!({"type": "message", "name": "x", "message": 1}))
        .await;
    assert_eq!(
        alice.receive().await["code"],
        "forbidden",
        "its claims count from now on"
    );
}

#[tokio::test]
async fn a_session_is_resumed_with_a_token() {
    let cluster = Cluster::over_redis(2, &required()).await;
    let mut client = cluster.connect(0).await;
    let jwt = token("alice", json!({"call": ["bob"]}));
    let login = json!({"type": "login", "name": "alice", "token": jwt, "resumable": true});
    client.send(&login).await;
    let reply = client.receive().await;
    client.disconnect();
    let mut next = cluster.connect(1).await;
    let mut resume =
        json!({"type": "login", "name": "alice", "resume": reply["resume"], "resumable": true});
    for (jwt, code) in [
        (json!(null), "unauthorized"),
        (json!(token("alice", json!({"exp": 1000}))), "unauthorized"),
        (json!(token("bob", json!({}))), "forbidden"),
    ] {
        resume["token"] = jwt;
        next.send(&resume).await;
        let reply = next.receive().await;
        assert_eq!(reply["code"], code, "{reply}");
    }
    resume["token"] = json!(token("alice", json!({"call": ["carol"]})));
    next.send(&resume).await;
    assert_eq!(next.receive().await["resumed"], true);
    next.send(&json!({"type": "message", "name": "bob", "message": 1, "id": 1}))
        .await;
    assert_eq!(
        next.receive_type("error").await["code"],
        "forbidden",
        "the new token counts"
    );
}

#[tokio::test]
async fn an_http_session_ends_with_its_token_too() {
    let cluster = Cluster::over_redis(2, &required()).await;
    let address = cluster.nodes[0].address;
    let open = async |name: &str, seconds| {
        let jwt = token(name, ends_in(seconds));
        let opening = json!({"login": {"name": name}}).to_string();
        let path = format!("/v1/sessions?token={jwt}");
        let opened = request(address, "POST", &path, &[], &opening).await;
        let mut session = HttpSession::from_reply(address, Downlink::Stream, &opened.json());
        assert_eq!(session.receive_type("login").await["success"], true);
        session
    };
    let mut short = open("short", 3).await;
    let mut renewed = open("renewed", 3).await;
    let jwt = token("renewed", json!({}));
    renewed
        .send(&json!({"type": "token", "token": jwt, "id": 1}))
        .await;
    assert_eq!(renewed.receive_type("token").await["id"], 1);
    let closed = short.receive_type("close").await;
    assert_eq!(closed["code"], 4003, "{closed}");
    renewed.move_to(cluster.nodes[1].address);
    renewed.send(&json!({"type": "ping", "id": 2})).await;
    assert_eq!(renewed.receive_type("pong").await["id"], 2);
}

#[tokio::test]
async fn a_connection_whose_token_has_ended_admits_nobody() {
    let cluster = Cluster::in_memory(1, &required()).await;
    let path = format!("/ws?token={}", token("alice", ends_in(2)));
    let (mut client, _) = Client::upgrade(cluster.nodes[0].address, &path, &[])
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    client
        .send(&json!({"type": "login", "name": "alice"}))
        .await;
    assert_eq!(client.receive().await["code"], "unauthorized");
    let reply = try_login(&mut client, "alice", &token("alice", json!({}))).await;
    assert_eq!(reply["success"], true);
}

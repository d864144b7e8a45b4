//! Where a token may be: in the login, in the query, in a header, in the path; for every protocol.

use serde_json::{Value, json};
use testing::http::request;
use testing::http_session::{Downlink, HttpSession};
use testing::{Client, Cluster, peerjs};

use super::{SECRET, required, token};

/// Logs in without a token, over a connection that came with one.
async fn enters(cluster: &Cluster, path: &str, headers: &[(&'static str, &str)]) -> Value {
    let (mut client, _) = Client::upgrade(cluster.nodes[0].address, path, headers)
        .await
        .unwrap();
    client
        .send(&json!({"type": "login", "name": "alice"}))
        .await;
    let reply = client.receive().await;
    client.close().await;
    reply
}

#[tokio::test]
async fn a_token_is_taken_from_the_query_a_header_or_the_path() {
    let cluster = Cluster::in_memory(1, &required()).await;
    let jwt = token("alice", json!({}));
    let bearer = format!("Bearer {jwt}");
    for (path, header) in [
        (format!("/?token={jwt}"), ""),
        (format!("/ws?token={jwt}"), ""),
        (format!("/ws/{jwt}"), ""),
        (format!("/{jwt}"), ""),
        ("/ws".to_owned(), bearer.as_str()),
    ] {
        let headers = [("authorization", header)];
        let headers = if header.is_empty() {
            &headers[..0]
        } else {
            &headers
        };
        testing::eventually("the name is free", async || {
            let reply = enters(&cluster, &path, headers).await;
            assert!(reply["code"] != "unauthorized", "{path}: {reply}");
            (reply["success"] == true).then_some(())
        })
        .await;
    }
    assert_eq!(enters(&cluster, "/ws", &[]).await["code"], "unauthorized");
}

#[tokio::test]
async fn what_comes_with_a_request_is_refused_before_the_upgrade() {
    let cluster = Cluster::in_memory(1, &required()).await;
    let address = cluster.nodes[0].address;
    let expired = token("alice", json!({"exp": 1000}));
    let alice = token("alice", json!({}));
    let acme = token("alice", json!({"realm": "acme"}));
    for (path, status) in [
        (format!("/ws?token={expired}"), 401),
        (format!("/ws/{expired}"), 401),
        ("/ws?token=abc".to_owned(), 401),
        ("/peerjs?key=peerjs&id=alice&token=t".to_owned(), 401),
        (
            format!("/peerjs?key=peerjs&id=alice&token=t&jwt={expired}"),
            401,
        ),
        (
            format!("/peerjs?key=peerjs&id=bob&token=t&jwt={alice}"),
            403,
        ),
        (
            format!("/peerjs?key=peerjs&id=alice&token=t&jwt={acme}"),
            403,
        ),
        (format!("/{alice}/peerjs?key=peerjs&id=bob&token=t"), 403),
    ] {
        let refused = Client::upgrade(address, &path, &[]).await.err();
        assert_eq!(refused, Some(status), "{path}");
        let headers = [
            testing::http::UPGRADE,
            &[("origin", "https://app.example.org")],
        ];
        let answer = request(address, "GET", &path, &headers.concat(), "").await;
        let code = if status == 401 {
            "unauthorized"
        } else {
            "forbidden"
        };
        assert_eq!(answer.json()["code"], code, "{path}: {answer:?}");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            "https://app.example.org"
        );
    }
    let refused = request(address, "POST", "/v1/sessions?token=abc", &[], "").await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (401, &json!("unauthorized"))
    );
    assert_eq!(refused.header("www-authenticate"), "Bearer");
}

#[tokio::test]
async fn peerjs_clients_bring_their_token_in_the_query_or_the_path() {
    let cluster = Cluster::in_memory(1, &required()).await;
    let address = cluster.nodes[0].address;
    let jwt = |name| token(name, json!({"call": ["bob"]}));
    let query = format!("key=peerjs&id=alice&token=t&jwt={}", jwt("alice"));
    let mut alice = peerjs::Client::connect(address, &query).await;
    assert_eq!(alice.receive().await, peerjs::OPEN);
    let path = format!("{}/peerjs?key=peerjs&id=bob&token=t", jwt("bob"));
    let (mut bob, _) = Client::upgrade(address, &format!("/{path}"), &[])
        .await
        .unwrap();
    assert_eq!(bob.receive().await["type"], "OPEN");
    alice
        .send(r#"{"type":"OFFER","dst":"bob","payload":{"sdp":"o"}}"#)
        .await;
    let offer = bob.receive().await;
    assert_eq!(
        (&offer["type"], &offer["src"]),
        (&json!("OFFER"), &json!("alice"))
    );
    alice
        .send(r#"{"type":"OFFER","dst":"carol","payload":{"sdp":"o"}}"#)
        .await;
    assert!(
        alice.receive().await.contains("EXPIRE"),
        "forbidden is as good as nobody"
    );
    let ids = request(address, "GET", &format!("/{}/peerjs/id", jwt("x")), &[], "").await;
    assert_eq!(
        ids.status, 200,
        "their client asks for an id below its path too"
    );
}

#[tokio::test]
async fn ids_are_listed_for_whoever_may_call_them() {
    let settings = [
        &required()[..],
        &[("peerjs.allow_discovery", "yes"), ("auth.mode", "required")],
    ];
    let cluster = Cluster::in_memory(1, &settings.concat()).await;
    let address = cluster.nodes[0].address;
    let mut here = Vec::new();
    for name in ["alice", "bob", "carol"] {
        let jwt = token(name, json!({}));
        let query = format!("key=peerjs&id={name}&token=t&jwt={jwt}");
        let mut client = peerjs::Client::connect(address, &query).await;
        assert_eq!(client.receive().await, peerjs::OPEN);
        here.push(client);
    }
    let list = async |path: String| request(address, "GET", &path, &[], "").await;
    assert_eq!(list("/peerjs/peers".to_owned()).await.status, 401);
    let jwt = token("alice", json!({"call": ["b*"]}));
    let listed = list(format!("/peerjs/peers?jwt={jwt}")).await;
    assert_eq!(listed.json(), json!(["bob"]));
}

#[tokio::test]
async fn an_http_session_takes_its_token_on_to_other_nodes() {
    let cluster = Cluster::over_redis(2, &required()).await;
    let jwt = token(
        "alice",
        json!({"realm": "acme", "call": ["bob"], "turn": false}),
    );
    let bearer = format!("Bearer {jwt}");
    let opening = json!({"login": {"name": "alice"}}).to_string();
    let (home, other) = (cluster.nodes[0].address, cluster.nodes[1].address);
    let headers = [("authorization", bearer.as_str())];
    let opened = request(home, "POST", "/v1/sessions", &headers, &opening).await;
    assert_eq!(opened.status, 201, "{opened:?}");
    let mut alice = HttpSession::from_reply(home, Downlink::Stream, &opened.json());
    assert_eq!(alice.receive_type("login").await["success"], true);
    alice.move_to(other);
    alice
        .send(&json!({"type": "message", "name": "carol", "message": 1, "id": 1}))
        .await;
    let refused = alice.receive_type("error").await;
    assert_eq!(refused["code"], "forbidden", "{refused}");
    let mut bob = super::login(&cluster, 0, "bob", json!({"realm": "acme"})).await;
    alice
        .send(&json!({"type": "message", "name": "bob", "message": 2}))
        .await;
    assert_eq!(
        bob.receive_type("message").await["message"],
        2,
        "in the same realm"
    );

    let mut without =
        HttpSession::open(other, Downlink::Stream, &json!({"login": {"name": "x"}})).await;
    assert_eq!(without.receive_type("login").await["code"], "unauthorized");
    let login = json!({"login": {"name": "dora", "token": token("dora", json!({}))}});
    let mut dora = HttpSession::open(other, Downlink::Poll, &login).await;
    assert_eq!(dora.receive_type("login").await["success"], true);
}

#[tokio::test]
async fn whom_a_token_denies_relays_gets_no_credentials() {
    let settings = [
        ("ice.servers", "stun:turn.example.org,turn:turn.example.org"),
        ("ice.turn_secret", "S"),
        ("auth.mode", "required"),
        ("auth.jwt.hmac_secret", SECRET),
    ];
    let cluster = Cluster::in_memory(1, &settings).await;
    let urls = |servers: &Value| {
        let servers = servers["iceServers"].as_array().unwrap().iter();
        servers
            .flat_map(|server| server["urls"].as_array().unwrap().clone())
            .collect::<Vec<_>>()
    };
    let (stun, turn) = (
        json!("stun:turn.example.org"),
        json!("turn:turn.example.org"),
    );
    for (name, may, expected) in [
        ("alice", json!({}), vec![stun.clone(), turn]),
        ("bob", json!({"turn": false}), vec![stun]),
    ] {
        let jwt = token(name, may);
        let mut client = cluster.connect(0).await;
        let login = json!({"type": "login", "name": name, "token": jwt, "resumable": true});
        client.send(&login).await;
        let reply = client.receive().await;
        assert_eq!(urls(&reply), expected, "{reply}");
        let path = format!("/v1/ice-servers?name={name}");
        let ask = async |bearer: &str| {
            let bearer = format!("Bearer {bearer}");
            let headers = [("authorization", bearer.as_str())];
            request(cluster.nodes[0].address, "GET", &path, &headers, "").await
        };
        assert_eq!(urls(&ask(&jwt).await.json()), expected);
        let secret = reply["resume"].as_str().unwrap();
        assert_eq!(
            ask(secret).await.status,
            401,
            "a secret says nothing of relays"
        );
    }
}

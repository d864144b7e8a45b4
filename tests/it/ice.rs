//! ICE servers: in the login reply, pushed before they expire, and over HTTP with a session's token.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha1::Sha1;

use testing::Client;
use testing::cluster::{Backend, Cluster};
use testing::http;

const SECRET: &str = "only-the-relay-knows";
const SETTINGS: [(&str, &str); 2] = [
    (
        "ice.servers",
        r#"["stun:relay.example", {"urls": ["turn:relay.example", "turns:relay.example:443?transport=tcp"]}]"#,
    ),
    ("ice.turn_secret", SECRET),
];

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// Checks TURN credentials as a relay does that shares the secret; the time at which they expire.
fn good_until(server: &Value) -> u64 {
    let username = server["username"].as_str().expect("a user name");
    let mut mac = Hmac::<Sha1>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(username.as_bytes());
    let credential = STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(server["credential"], credential.as_str());
    let (expiry, pseudonym) = username.split_once(':').unwrap();
    assert!(!pseudonym.is_empty(), "users are distinguished");
    expiry.parse().unwrap()
}

fn are_good_for(told: &Value, ttl: u64, said: &str) {
    assert_eq!(told[said], ttl, "{told}");
    let servers = told["iceServers"].as_array().unwrap();
    assert_eq!(servers[0], json!({"urls": ["stun:relay.example"]}));
    assert_eq!(
        servers[1]["urls"],
        json!([
            "turn:relay.example",
            "turns:relay.example:443?transport=tcp"
        ])
    );
    let left = good_until(&servers[1]).abs_diff(now());
    assert!((ttl.saturating_sub(30)..=ttl).contains(&left), "{left}");
}

/// The status and the body of `GET /v1/ice-servers` with this `Authorization` header.
async fn get(address: SocketAddr, query: &str, authorization: &str) -> (u16, Value) {
    let path = format!("/v1/ice-servers{query}");
    let headers = [("authorization", authorization)];
    let response = http::get_with(address, &path, &headers).await.unwrap();
    let status = response.status;
    assert_eq!(response.header("cache-control"), "no-store");
    let asks_for_token = response.header("www-authenticate").starts_with("Bearer");
    assert_eq!(asks_for_token, status == 401, "{response:?}");
    (status, response.json())
}

#[tokio::test]
async fn a_login_reply_has_servers_with_own_credentials() {
    let cluster = Cluster::in_memory(1, &SETTINGS).await;
    let mut names = Vec::new();
    for name in ["one", "other"] {
        let mut peer = cluster.connect(0).await;
        let reply = peer.try_login(name).await;
        are_good_for(&reply, 12 * 3600, "iceServersTtl");
        let username = reply["iceServers"][1]["username"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(!username.contains(name), "{username}");
        names.push(username.split_once(':').unwrap().1.to_owned());
    }
    assert_ne!(names[0], names[1]);
}

#[tokio::test]
async fn servers_without_a_secret_do_not_expire() {
    let fixed = json!([{"urls": ["turn:a"], "username": "u", "credential": "c"}]);
    let cluster = Cluster::in_memory(1, &[("ice.servers", &fixed.to_string())]).await;
    let reply = cluster.connect(0).await.try_login("one").await;
    assert_eq!(reply["iceServers"], fixed);
    assert_eq!(reply.get("iceServersTtl"), None);
}

#[tokio::test]
async fn credentials_are_renewed_before_they_expire() {
    let mut settings = SETTINGS.to_vec();
    settings.push(("ice.turn_ttl", "4s"));
    let cluster = Cluster::in_memory(1, &settings).await;
    let mut one = cluster.connect(0).await;
    let reply = one.try_login("one").await;
    let mut good = good_until(&reply["iceServers"][1]);
    for _ in 0..2 {
        let pushed = one.receive().await;
        assert_eq!(pushed["type"], "ice_servers");
        assert!(now() <= good, "the one before is good still");
        are_good_for(&pushed, 4, "iceServersTtl");
        let renewed = good_until(&pushed["iceServers"][1]);
        assert!(renewed > good);
        good = renewed;
    }
    // A client that has not logged in gets no servers.
    let mut nameless = cluster.connect(0).await;
    assert_eq!(
        nameless.receive_for(Duration::from_millis(2500)).await,
        [] as [Value; 0]
    );
}

#[tokio::test]
async fn any_node_serves_ice_servers_for_a_secret() {
    for cluster in [
        Cluster::in_memory(2, &SETTINGS).await,
        Cluster::over_redis(2, &SETTINGS).await,
    ] {
        let name = "Ü & +";
        let one = Client::login_resumable(cluster.nodes[0].address, name).await;
        let query = "?name=%C3%9C+%26+%2B";
        let bearer = format!("bearer {}", one.token.secret);
        for node in &cluster.nodes {
            let (status, told) = get(node.address, query, &bearer).await;
            assert_eq!(status, 200, "{told}");
            are_good_for(&told, 12 * 3600, "ttl");
        }
        let there = cluster.nodes[1].address;
        let (status, told) = get(there, "", &bearer).await;
        assert_eq!((status, &told["code"]), (400, &json!("bad_request")));
        // A plain session has no secret, and an empty secret is refused.
        let _plain = cluster.login(0, "plain").await;
        for (query, header) in [
            ("?name=other", bearer.as_str()),
            ("?name=plain", bearer.as_str()),
            ("?name=plain", "Bearer "),
            (query, "Bearer 00"),
            (query, "Basic 00"),
            (query, ""),
        ] {
            let (status, told) = get(there, query, header).await;
            assert_eq!((status, &told["code"]), (401, &json!("unauthorized")));
            assert!(!told.to_string().contains(&one.token.secret));
        }
        // The secret ends with the session.
        one.close().await;
        testing::eventually("the secret is worth nothing", async || {
            (get(there, query, &bearer).await.0 == 401).then_some(())
        })
        .await;
        if let Backend::Memory(switch) = &cluster.backend {
            switch.set_unreachable(true);
            let (status, told) = get(there, query, &bearer).await;
            assert_eq!((status, &told["code"]), (503, &json!("unavailable")));
        }
    }
}

/// The status and the body of a POST of JSON.
async fn post(address: SocketAddr, path: &str, authorization: &str, body: &Value) -> (u16, Value) {
    let headers = [
        ("authorization", authorization),
        ("content-type", "application/json"),
    ];
    let response = http::request(address, "POST", path, &headers, &body.to_string()).await;
    (response.status, response.json())
}

/// The events of an HTTP session after this place, and the next place.
async fn poll(address: SocketAddr, authorization: &str, after: &str) -> (Vec<Value>, String) {
    let path = format!("/v1/events?mode=poll&wait=10&after={after}");
    let headers = [("authorization", authorization)];
    let response = http::get_with(address, &path, &headers).await.unwrap();
    let polled = response.json();
    let events = polled["events"].as_array().unwrap().iter();
    let next = polled["next"].as_str().unwrap().to_owned();
    (events.map(|event| event["data"].clone()).collect(), next)
}

#[tokio::test]
async fn an_http_session_gets_ice_servers_and_renewals() {
    let mut settings = SETTINGS.to_vec();
    settings.push(("ice.turn_ttl", "4s"));
    for cluster in [
        Cluster::in_memory(2, &settings).await,
        Cluster::over_redis(2, &settings).await,
    ] {
        let [here, there] = [0, 1].map(|node: usize| cluster.nodes[node].address);
        let (status, opened) = post(here, "/v1/sessions", "", &json!({})).await;
        assert_eq!(status, 201, "{opened}");
        let token = opened["token"].as_str().unwrap();
        let bearer = format!("Bearer {token}");
        // The session has not logged in yet.
        let (status, told) = get(there, "", &bearer).await;
        assert_eq!((status, &told["code"]), (401, &json!("unauthorized")));
        let login = json!({"type": "login", "name": "one"});
        let (status, _) = post(there, "/v1/messages", &bearer, &login).await;
        assert_eq!(status, 202);
        let (mut received, mut after) = (Vec::new(), String::new());
        while received.len() < 2 {
            let (events, next) = poll(there, &bearer, &after).await;
            received.extend(
                events
                    .into_iter()
                    .filter(|event| event["iceServers"].is_array()),
            );
            after = next;
        }
        assert_eq!(received[0]["type"], "login", "{received:?}");
        assert_eq!(received[1]["type"], "ice_servers", "{received:?}");
        are_good_for(&received[1], 4, "iceServersTtl");
        let first = good_until(&received[0]["iceServers"][1]);
        assert!(good_until(&received[1]["iceServers"][1]) > first);
        // Any node answers.
        for node in [here, there] {
            let (status, told) = get(node, "", &bearer).await;
            assert_eq!(status, 200, "{told}");
            are_good_for(&told, 4, "ttl");
        }
        let last = if token.ends_with('0') { "1" } else { "0" };
        let wrong = format!("Bearer {}{last}", &token[..token.len() - 1]);
        let (status, told) = get(there, "", &wrong).await;
        assert_eq!((status, &told["code"]), (401, &json!("unauthorized")));
    }
}

#[tokio::test]
async fn listed_origins_may_get_ice_servers() {
    let mut settings = SETTINGS.to_vec();
    settings.push(("limits.origins", "https://app.example"));
    let cluster = Cluster::in_memory(1, &settings).await;
    let address = cluster.nodes[0].address;
    let one = Client::login_resumable(address, "one").await;
    let bearer = format!("Bearer {}", one.token.secret);
    let from = async |origin: &str| {
        let headers = [("authorization", bearer.as_str()), ("origin", origin)];
        let response = http::get_with(address, "/v1/ice-servers?name=one", &headers).await;
        response.unwrap()
    };
    let response = from("https://app.example").await;
    assert_eq!(response.status, 200, "{response:?}");
    let allowed = response.header("access-control-allow-origin");
    assert_eq!(allowed, "https://app.example");
    assert_eq!(response.header("vary").to_lowercase(), "origin");
    let response = from("https://evil.example").await;
    assert_eq!(response.status, 403, "{response:?}");
    // It may read that it was refused.
    let allowed = response.header("access-control-allow-origin");
    assert_eq!(allowed, "https://evil.example");
    assert!(!response.body.contains("iceServers"));
}

//! ICE servers: in the login reply, pushed anew, by HTTP for whoever proves a session, and to nobody else.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha1::Sha1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::cluster::{Cluster, Ground};
use crate::support::http;
use crate::support::peer::Peer;

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

/// What a relay that knows the secret thinks of a login: until when it is good.
fn good_until(server: &Value) -> u64 {
    let username = server["username"].as_str().expect("a user name");
    let mut mac = Hmac::<Sha1>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(username.as_bytes());
    let credential = STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(server["credential"], credential.as_str());
    let (expiry, pseudonym) = username.split_once(':').unwrap();
    assert!(!pseudonym.is_empty(), "users are told apart");
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

/// The status and the body of a question for ICE servers.
async fn asks(address: SocketAddr, query: &str, headers: &str) -> (u16, Value) {
    let answer = http::get(address, &format!("/v1/ice-servers{query}"), headers).await;
    let answer = answer.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(
        head.contains("cache-control: no-store"),
        status == 200,
        "{head}"
    );
    assert_eq!(
        head.contains("www-authenticate: bearer"),
        status == 401,
        "{head}"
    );
    (status, serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn a_login_brings_servers_and_a_login_of_ones_own() {
    let cluster = Cluster::embedded(1, &SETTINGS).await;
    let mut names = Vec::new();
    for name in ["one", "other"] {
        let mut peer = cluster.connect(0).await;
        let reply = peer.tries_login(name).await;
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
async fn servers_without_a_secret_do_not_run_out() {
    let fixed = json!([{"urls": ["turn:a"], "username": "u", "credential": "c"}]);
    let cluster = Cluster::embedded(1, &[("ice.servers", &fixed.to_string())]).await;
    let reply = cluster.connect(0).await.tries_login("one").await;
    assert_eq!(reply["iceServers"], fixed);
    assert_eq!(reply.get("iceServersTtl"), None);
}

#[tokio::test]
async fn logins_are_pushed_anew_before_they_run_out() {
    let mut settings = SETTINGS.to_vec();
    settings.push(("ice.turn_ttl", "4s"));
    let cluster = Cluster::embedded(1, &settings).await;
    let mut one = cluster.connect(0).await;
    let reply = one.tries_login("one").await;
    let mut good = good_until(&reply["iceServers"][1]);
    for _ in 0..2 {
        let pushed = one.hears().await;
        assert_eq!(pushed["type"], "ice_servers");
        assert!(now() <= good, "the one before is good still");
        are_good_for(&pushed, 4, "iceServersTtl");
        let renewed = good_until(&pushed["iceServers"][1]);
        assert!(renewed > good);
        good = renewed;
    }
    // Who has not logged in is told nothing.
    let mut nameless = cluster.connect(0).await;
    assert_eq!(
        nameless.listens(Duration::from_millis(2500)).await,
        [] as [Value; 0]
    );
}

#[tokio::test]
async fn a_session_asks_any_node_with_its_secret() {
    for cluster in [
        Cluster::embedded(2, &SETTINGS).await,
        Cluster::redis(2, &SETTINGS).await,
    ] {
        let name = "Ü & +";
        let one = Peer::login_resumable(cluster.nodes[0].address, name).await;
        let query = "?name=%C3%9C+%26+%2B";
        let bearer = format!("Authorization: bearer {}\r\n", one.ticket.secret);
        for node in &cluster.nodes {
            let (status, told) = asks(node.address, query, &bearer).await;
            assert_eq!(status, 200, "{told}");
            are_good_for(&told, 12 * 3600, "ttl");
        }
        let there = cluster.nodes[1].address;
        let (status, told) = asks(there, "", &bearer).await;
        assert_eq!((status, &told["code"]), (400, &json!("bad_request")));
        // A plain session has no secret, and an empty one is none.
        let _plain = cluster.login(0, "plain").await;
        for (query, header) in [
            ("?name=other", bearer.as_str()),
            ("?name=plain", bearer.as_str()),
            ("?name=plain", "Authorization: Bearer \r\n"),
            (query, "Authorization: Bearer 00\r\n"),
            (query, "Authorization: Basic 00\r\n"),
            (query, ""),
        ] {
            let (status, told) = asks(there, query, header).await;
            assert_eq!((status, &told["code"]), (401, &json!("unauthorized")));
            assert!(!told.to_string().contains(&one.ticket.secret));
        }
        // Its time is over with the session.
        one.closes().await;
        crate::support::eventually("the secret is worth nothing", async || {
            (asks(there, query, &bearer).await.0 == 401).then_some(())
        })
        .await;
        if let Ground::Switch(switch) = &cluster.ground {
            switch.set_away(true);
            let (status, told) = asks(there, query, &bearer).await;
            assert_eq!((status, &told["code"]), (503, &json!("unavailable")));
        }
    }
}

/// The status and the body of a POST of JSON.
async fn posts(address: SocketAddr, path: &str, bearer: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let headers = format!(
        "Content-Type: application/json\r\nContent-Length: {}\r\n{bearer}",
        body.len()
    );
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n{body}"
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap())
}

/// What an HTTP session was told after that place, and the next place.
async fn polls(address: SocketAddr, bearer: &str, after: &str) -> (Vec<Value>, String) {
    let path = format!("/v1/events?mode=poll&wait=10&after={after}");
    let answer = http::get(address, &path, bearer).await.unwrap();
    let told: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let events = told["events"].as_array().unwrap().iter();
    let next = told["next"].as_str().unwrap().to_owned();
    (events.map(|event| event["data"].clone()).collect(), next)
}

#[tokio::test]
async fn an_http_session_asks_with_its_token_and_is_told_anew() {
    let mut settings = SETTINGS.to_vec();
    settings.push(("ice.turn_ttl", "4s"));
    for cluster in [
        Cluster::embedded(2, &settings).await,
        Cluster::redis(2, &settings).await,
    ] {
        let [here, there] = [0, 1].map(|node: usize| cluster.nodes[node].address);
        let (status, opened) = posts(here, "/v1/sessions", "", &json!({})).await;
        assert_eq!(status, 201, "{opened}");
        let token = opened["token"].as_str().unwrap();
        let bearer = format!("Authorization: Bearer {token}\r\n");
        // It has no name yet.
        let (status, told) = asks(there, "", &bearer).await;
        assert_eq!((status, &told["code"]), (401, &json!("unauthorized")));
        let login = json!({"type": "login", "name": "one"});
        let (status, _) = posts(there, "/v1/messages", &bearer, &login).await;
        assert_eq!(status, 202);
        let (mut heard, mut after) = (Vec::new(), String::new());
        while heard.len() < 2 {
            let (events, next) = polls(there, &bearer, &after).await;
            heard.extend(
                events
                    .into_iter()
                    .filter(|event| event["iceServers"].is_array()),
            );
            after = next;
        }
        assert_eq!(heard[0]["type"], "login", "{heard:?}");
        assert_eq!(heard[1]["type"], "ice_servers", "{heard:?}");
        are_good_for(&heard[1], 4, "iceServersTtl");
        let first = good_until(&heard[0]["iceServers"][1]);
        assert!(good_until(&heard[1]["iceServers"][1]) > first);
        // At any node.
        for node in [here, there] {
            let (status, told) = asks(node, "", &bearer).await;
            assert_eq!(status, 200, "{told}");
            are_good_for(&told, 4, "ttl");
        }
        let last = if token.ends_with('0') { "1" } else { "0" };
        let wrong = format!("Bearer {}{last}", &token[..token.len() - 1]);
        let (status, told) = asks(there, "", &format!("Authorization: {wrong}\r\n")).await;
        assert_eq!((status, &told["code"]), (401, &json!("unauthorized")));
    }
}

#[tokio::test]
async fn pages_of_listed_origins_may_ask() {
    let mut settings = SETTINGS.to_vec();
    settings.push(("limits.origins", "https://app.example"));
    let cluster = Cluster::embedded(1, &settings).await;
    let address = cluster.nodes[0].address;
    let one = Peer::login_resumable(address, "one").await;
    let bearer = format!("Authorization: Bearer {}\r\n", one.ticket.secret);
    let from = async |origin: &str| {
        let headers = format!("{bearer}Origin: {origin}\r\n");
        let answer = http::get(address, "/v1/ice-servers?name=one", &headers).await;
        answer.unwrap().to_lowercase()
    };
    let answer = from("https://app.example").await;
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(answer.contains("access-control-allow-origin: https://app.example\r\n"));
    assert!(answer.contains("vary: origin"), "{answer}");
    let answer = from("https://evil.example").await;
    assert!(answer.starts_with("http/1.1 403"), "{answer}");
    assert!(!answer.contains("iceservers"), "{answer}");
    // It may read that it was refused.
    assert!(answer.contains("access-control-allow-origin: https://evil.example\r\n"));
}

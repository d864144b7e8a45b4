//! Tokens that an operator has revoked: who had got in with one is out, on every node, and nobody gets in again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testing::cluster::Backend;
use testing::http_session::{Downlink, HttpSession};
use testing::tokens::now;
use testing::{Client, Cluster, Redis, eventually, http};

use super::{login, required, token, try_login};

const KEY: &str = "0123456789abcdef-key";

fn settings() -> Vec<(&'static str, &'static str)> {
    [&required()[..], &[("admin.token", KEY)]].concat()
}

async fn revoke(cluster: &Cluster, node: usize, what: Value) -> Value {
    let key = format!("Bearer {KEY}");
    let headers = [
        ("authorization", key.as_str()),
        ("content-type", "application/json"),
    ];
    let (admin, body) = (cluster.nodes[node].admin, what.to_string());
    let done = http::request(admin, "POST", "/v1/revocations", &headers, &body).await;
    assert_eq!(done.status, 200, "{what}: {}", done.body);
    let done = done.json();
    assert_eq!(done["unanswered"], json!([]));
    done
}

/// A session over HTTP.
async fn open(cluster: &Cluster, node: usize, name: &str, jwt: &str) -> HttpSession {
    let address = cluster.nodes[node].address;
    let opening = json!({"login": {"name": name}}).to_string();
    let path = format!("/v1/sessions?token={jwt}");
    let opened = http::request(address, "POST", &path, &[], &opening).await;
    let mut session = HttpSession::from_reply(address, Downlink::Stream, &opened.json());
    assert_eq!(session.receive_type("login").await["success"], true);
    session
}

/// A resumable session, and the login that resumes it.
async fn resumable(cluster: &Cluster, node: usize, name: &str, jwt: &str) -> (Client, Value) {
    let mut client = cluster.connect(node).await;
    let mut login = json!({"type": "login", "name": name, "token": jwt, "resumable": true});
    client.send(&login).await;
    let reply = client.receive().await;
    assert_eq!(reply["success"], true, "{reply}");
    login["resume"] = reply["resume"].clone();
    client.name = name.to_owned();
    client.token.name = name.to_owned();
    (client, login)
}

async fn code(cluster: &Cluster, node: usize, login: &Value) -> Value {
    let mut client = cluster.connect(node).await;
    client.send(login).await;
    client.receive_type("login").await["code"].clone()
}

/// Neither here nor at a node that starts now, with the token; with a newer one she may.
async fn nobody_gets_in_again(cluster: &mut Cluster, jwt: &str, mut parked: Vec<Value>) {
    cluster.add_node();
    for node in [0, 1, 2] {
        let login = json!({"type": "login", "name": "alice-again", "token": jwt});
        assert_eq!(code(cluster, node, &login).await, "unauthorized");
        for resume in &parked {
            assert_eq!(code(cluster, node, resume).await, "unauthorized");
        }
    }
    // What is revoked are tokens: with a newer one she may come, but the sessions are over.
    let newer = token("alice-*", json!({"iat": now() + 2}));
    for resume in &mut parked {
        resume["token"] = json!(newer);
        assert_eq!(code(cluster, 2, resume).await, "resume_failed");
    }
    let mut again = cluster.connect(2).await;
    assert_eq!(
        try_login(&mut again, "alice-near", &newer).await["success"],
        true
    );
}

#[tokio::test]
async fn whoever_is_revoked_is_gone_everywhere_within_a_second() {
    let mut cluster = Cluster::over_redis(2, &settings()).await;
    let jwt = token("alice-*", json!({"iat": now() - 60}));
    let mut bob = login(&cluster, 0, "bob", json!({})).await;
    let (mut near, _) = resumable(&cluster, 0, "alice-near", &jwt).await;
    let mut far = cluster.connect(1).await;
    assert_eq!(
        try_login(&mut far, "alice-far", &jwt).await["success"],
        true
    );
    let mut http_user = open(&cluster, 1, "alice-http", &jwt).await;
    let offer = json!({"type": "offer", "name": "bob", "offer": 1});
    near.send(&offer).await;
    far.send(&offer).await;
    http_user.send(&offer).await;
    let mut parked = Vec::new();
    for node in [0, 1] {
        let name = format!("alice-parked-{node}");
        let (mut client, resume) = resumable(&cluster, node, &name, &jwt).await;
        client.send(&offer).await;
        client.send(&json!({"type": "ping"})).await;
        client.receive_type("pong").await;
        cluster.disconnect(&mut bob, client).await;
        parked.push(resume);
    }
    let begun = Instant::now();
    let done = revoke(&cluster, 0, json!({"sub": "alice-*"})).await;
    assert_eq!(done["sessions"], 5, "{done}");
    assert_eq!(near.closed().await, Some(4003));
    assert_eq!(far.closed().await, Some(4003));
    assert_eq!(http_user.receive_type("close").await["code"], 4003);
    let mut left = Vec::new();
    for _ in 0..5 {
        let leave = bob.receive_type("leave").await;
        assert_eq!(leave["reason"], "kicked", "{leave}");
        left.push(leave["name"].as_str().unwrap().to_owned());
    }
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    left.sort_unstable();
    left.dedup();
    assert_eq!(left.len(), 5, "each is told once: {left:?}");
    nobody_gets_in_again(&mut cluster, &jwt, parked).await;
    bob.send(&json!({"type": "ping"})).await;
    bob.receive_type("pong").await;
}

#[tokio::test]
async fn one_token_or_all_older_ones_are_revoked() {
    for cluster in [
        Cluster::in_memory(2, &settings()).await,
        Cluster::over_redis(2, &settings()).await,
    ] {
        let issued = |name: &str, others: Value| token(name, others);
        let join = async |node: usize, name: &str, jwt: &str| {
            let mut client = cluster.connect(node).await;
            let reply = try_login(&mut client, name, jwt).await;
            assert_eq!(reply["success"], true, "{reply}");
            client
        };
        let (iat, realm) = (now() - 100, "acme");
        let mut one = join(0, "one", &issued("one", json!({"jti": "t 1", "iat": iat}))).await;
        let other = issued("two", json!({"jti": "t 2", "iat": iat, "realm": realm}));
        let mut other = join(1, "two", &other).await;
        let mut young = join(1, "three", &issued("three", json!({"iat": iat + 50}))).await;
        let mut untold = join(0, "four", &issued("four", json!({}))).await;
        let done = revoke(&cluster, 1, json!({"jti": "t 1"})).await;
        assert_eq!(done["sessions"], 1);
        assert_eq!(one.closed().await, Some(4003));
        let done = revoke(&cluster, 1, json!({"realm": "", "sub": "two"})).await;
        assert_eq!(done["sessions"], 0, "another tenant's");
        let done = revoke(
            &cluster,
            1,
            json!({"issued_before": iat + 50, "realm": realm}),
        )
        .await;
        assert_eq!(done["sessions"], 1);
        assert_eq!(other.closed().await, Some(4003));
        let done = revoke(&cluster, 0, json!({"issued_before": iat + 50})).await;
        assert_eq!(done["sessions"], 1, "who does not say when it was issued");
        assert_eq!(untold.closed().await, Some(4003));
        young.send(&json!({"type": "ping"})).await;
        young.receive_type("pong").await;
        let again = revoke(&cluster, 1, json!({"issued_before": iat + 50})).await;
        assert_eq!(again["sessions"], 0);
    }
}

#[tokio::test]
async fn a_revoked_token_renews_nothing_and_the_new_one_counts() {
    let cluster = Cluster::over_redis(2, &settings()).await;
    let mut alice = login(&cluster, 0, "alice", json!({"jti": "first"})).await;
    revoke(&cluster, 1, json!({"jti": "second"})).await;
    let mut renew = async |jti: &str| {
        let jwt = token("alice", json!({"jti": jti}));
        alice.send(&json!({"type": "token", "token": jwt})).await;
        alice.receive().await
    };
    assert_eq!(renew("second").await["code"], "unauthorized");
    assert_eq!(renew("third").await["type"], "token");
    assert_eq!(
        revoke(&cluster, 1, json!({"jti": "first"})).await["sessions"],
        0
    );
    assert_eq!(
        revoke(&cluster, 1, json!({"jti": "third"})).await["sessions"],
        1
    );
    assert_eq!(alice.closed().await, Some(4003));
    // Doors that know the token before there is a session.
    let jwt = token("alice", json!({"jti": "third"}));
    let address = cluster.nodes[1].address;
    for path in [
        format!("/ws?token={jwt}"),
        format!("/peerjs?key=peerjs&id=alice&token=x&jwt={jwt}"),
    ] {
        let refused = Client::upgrade(address, &path, &[]).await.err();
        assert_eq!(refused, Some(401), "{path}");
    }
    let bearer = format!("Bearer {jwt}");
    let relays = [("authorization", bearer.as_str())];
    let relays = http::get_with(address, "/v1/ice-servers?name=alice", &relays).await;
    assert_eq!(relays.unwrap().status, 401);
    let opening = json!({"login": {"name": "alice"}}).to_string();
    let path = format!("/v1/sessions?token={jwt}");
    let opened = http::request(address, "POST", &path, &[], &opening).await;
    assert_eq!(opened.status, 401, "{}", opened.body);
}

fn redis(cluster: &Cluster) -> &Redis {
    let Backend::Redis(redis) = &cluster.backend else {
        panic!("over Redis")
    };
    redis
}

/// Runs commands, words separated by tabs.
async fn run(redis: &Redis, commands: &[&str]) {
    let mut connection = redis.connection().await;
    for command in commands {
        let mut words = command.split('\t');
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        let _: redis::Value = command.query_async(&mut connection).await.unwrap();
    }
}

#[tokio::test]
async fn a_node_reads_what_it_was_not_told_and_writes_what_redis_has_lost() {
    let mut cluster = Cluster::over_redis(1, &settings()).await;
    let mut alice = login(&cluster, 0, "alice", json!({})).await;
    let mut bob = login(&cluster, 0, "bob", json!({})).await;
    revoke(&cluster, 0, json!({"sub": "bob"})).await;
    assert_eq!(bob.closed().await, Some(4003));
    let ends = now() + 100;
    let add = format!("HSET\tsb:{{v}}:b\tsub * alice\t{ends} {ends}");
    run(redis(&cluster), &[&add, "CLIENT\tKILL\tTYPE\tpubsub"]).await;
    assert_eq!(alice.closed().await, Some(4003));
    run(
        redis(&cluster),
        &["DEL\tsb:{v}:b\tsb:{v}:e", "CLIENT\tKILL\tTYPE\tpubsub"],
    )
    .await;
    eventually("they are in Redis again", async || {
        let keys = redis(&cluster).keys().await;
        keys.iter().any(|(key, _)| key == "sb:{v}:b").then_some(())
    })
    .await;
    cluster.nodes.remove(0);
    cluster.add_node();
    for name in ["alice", "bob"] {
        let login = json!({"type": "login", "name": name, "token": token(name, json!({}))});
        assert_eq!(code(&cluster, 0, &login).await, "unauthorized");
    }
}

//! The admin API: any node shows and changes the users, calls and nodes of the whole cluster.

use serde_json::Value;
use testing::http_session::Downlink;
use testing::{Cluster, HttpSession, eventually, http};

const KEY: &str = "0123456789abcdef-key";
const BEARER: (&str, &str) = ("authorization", "Bearer 0123456789abcdef-key");
const JSON: (&str, &str) = ("content-type", "application/json");

async fn call(
    cluster: &Cluster,
    node: usize,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, Value) {
    let admin = cluster.nodes[node].admin;
    let response = http::request(admin, method, path, &[BEARER, JSON], body).await;
    (response.status, response.json())
}

async fn get(cluster: &Cluster, node: usize, path: &str) -> Value {
    let (status, body) = call(cluster, node, "GET", path, "").await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

async fn clusters() -> [Cluster; 2] {
    let settings = [("admin.token", KEY)];
    [
        Cluster::in_memory(2, &settings).await,
        Cluster::over_redis(2, &settings).await,
    ]
}

#[tokio::test]
async fn only_the_key_opens_the_admin_api() {
    for cluster in clusters().await {
        let admin = cluster.nodes[0].admin;
        let none = http::get(admin, "/v1/users").await.unwrap();
        assert_eq!(
            (none.status, none.header("www-authenticate")),
            (401, "Bearer")
        );
        let wrong = [("authorization", "Bearer 0123456789abcdef-kez")];
        for (method, path) in [("GET", "/v1/users"), ("POST", "/v1/node/drain")] {
            let refused = http::request(admin, method, path, &wrong, "").await;
            assert_eq!(refused.status, 403, "{path}");
            assert!(!refused.body.contains(KEY));
        }
        eventually("it is ready, so it did not drain", async || {
            (http::status(admin, "/readyz").await == Some(200)).then_some(())
        })
        .await;
        assert_eq!(
            http::status(cluster.nodes[0].address, "/v1/users").await,
            Some(404)
        );
        let public = http::get(admin, "/v1/openapi.json").await.unwrap();
        assert_eq!(public.json()["openapi"], "3.1.0");
    }
    let without = Cluster::in_memory(1, &[]).await;
    let response = http::get_with(without.nodes[0].admin, "/v1/users", &[BEARER]).await;
    assert_eq!(response.unwrap().status, 404, "there is no key");
}

/// Alice and the resumable bob are in a call, carol is here over HTTP, and dave is parked.
async fn shows_all(cluster: &Cluster, node: usize) {
    let page = get(cluster, node, "/v1/users").await;
    let user = |name: &str| {
        let users = page["users"].as_array().unwrap().iter();
        users
            .clone()
            .find(|user| user["name"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(page["users"].as_array().unwrap().len(), 4, "{page}");
    assert_eq!(page["unanswered"], serde_json::json!([]));
    let alice = user("alice");
    assert_eq!(alice["node"], cluster.nodes[0].id.as_str());
    assert_eq!(alice["state"], "connected");
    assert_eq!(
        (&alice["transport"], &alice["protocol"]),
        (&"websocket".into(), &"native".into())
    );
    assert_eq!(
        (&alice["calls"], &alice["resumable"]),
        (&1.into(), &false.into())
    );
    assert_eq!(user("carol")["transport"], "http");
    assert_eq!(user("dave")["state"], "parked");
    let bob = get(cluster, node, "/v1/users/bob").await;
    assert_eq!(bob["node"], cluster.nodes[1].id.as_str());
    assert_eq!(bob["peers"][0]["name"], "alice");
    assert!(bob["since"].as_str().unwrap().ends_with('Z'), "{bob}");
    let calls = get(cluster, node, "/v1/calls").await;
    assert_eq!(calls["calls"].as_array().unwrap().len(), 1, "{calls}");
    let mut users: Vec<&str> = calls["calls"][0]["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| user.as_str().unwrap())
        .collect();
    users.sort_unstable();
    assert_eq!(users, ["alice", "bob"]);
    let nodes = get(cluster, node, "/v1/nodes").await;
    let nodes = nodes["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 2);
    assert!(
        nodes
            .iter()
            .all(|node| node["answered"] == true && node["ready"] == true)
    );
}

#[tokio::test]
async fn any_node_shows_the_users_calls_and_nodes_of_all() {
    for cluster in clusters().await {
        let mut alice = cluster.login(0, "alice").await;
        let mut bob = cluster.login_resumable(1, "bob").await;
        let http_user =
            HttpSession::login(cluster.nodes[1].address, Downlink::Stream, "carol").await;
        alice
            .send_text(r#"{"type":"offer","name":"bob","offer":{}}"#)
            .await;
        bob.receive_type("offer").await;
        bob.send_text(r#"{"type":"answer","name":"alice","answer":{}}"#)
            .await;
        alice.receive_type("answer").await;
        let parked = cluster.login_resumable(1, "dave").await;
        cluster.disconnect(&mut bob, parked).await;
        for node in [0, 1] {
            shows_all(&cluster, node).await;
            let (status, nobody) = call(&cluster, node, "GET", "/v1/users/nobody", "").await;
            assert_eq!((status, &nobody["code"]), (404, &"user_unavailable".into()));
        }
        alice.send_text(r#"{"type":"leave"}"#).await;
        bob.receive_type("leave").await;
        assert_eq!(
            get(&cluster, 0, "/v1/calls").await["calls"],
            serde_json::json!([])
        );
        http_user.close().await;
    }
}

#[tokio::test]
async fn pages_follow_each_other_over_all_nodes() {
    for cluster in clusters().await {
        let mut users = Vec::new();
        for number in 0..7 {
            users.push(cluster.login(number % 2, &format!("user {number}")).await);
        }
        let (mut names, mut path, mut pages) = (Vec::new(), "/v1/users?limit=2".to_owned(), 0);
        loop {
            let page = get(&cluster, 0, &path).await;
            let found = page["users"].as_array().unwrap();
            assert!(found.len() <= 2);
            names.extend(
                found
                    .iter()
                    .map(|user| user["name"].as_str().unwrap().to_owned()),
            );
            pages += 1;
            match page["next"].as_str() {
                Some(next) => path = format!("/v1/users?limit=2&cursor={next}"),
                None => break,
            }
        }
        names.sort_unstable();
        let all: Vec<String> = (0..7).map(|number| format!("user {number}")).collect();
        assert_eq!(names, all);
        assert!(pages >= 4);
        for wrong in ["0", "501", "x", "-1", "", "1&limit=2"] {
            let path = format!("/v1/users?limit={wrong}");
            assert_eq!(call(&cluster, 0, "GET", &path, "").await.0, 400, "{wrong}");
        }
    }
}

#[tokio::test]
async fn an_operator_ends_connected_parked_and_http_sessions_from_another_node() {
    for cluster in clusters().await {
        let mut peer = cluster.login_resumable(0, "peer").await;
        let mut plain = cluster.login(1, "plain").await;
        let mut resumable = cluster.login_resumable(1, "resumable").await;
        for user in [&mut plain, &mut resumable] {
            user.send_text(r#"{"type":"offer","name":"peer","offer":{}}"#)
                .await;
            peer.receive_type("offer").await;
        }
        for (name, user) in [("plain", &mut plain), ("resumable", &mut resumable)] {
            let path = format!("/v1/users/{name}/kick");
            let (status, kicked) = call(&cluster, 0, "POST", &path, "").await;
            assert_eq!((status, &kicked["kicked"]), (200, &true.into()), "{kicked}");
            assert_eq!(user.closed().await, Some(4005));
            let leave = peer.receive_type("leave").await;
            assert_eq!(
                (&leave["name"], &leave["reason"]),
                (&name.into(), &"kicked".into())
            );
        }
        // Parked: it had a call, too.
        let mut parked = cluster.login_resumable(1, "parked").await;
        parked
            .send_text(r#"{"type":"offer","name":"peer","offer":{}}"#)
            .await;
        peer.receive_type("offer").await;
        let token = cluster.disconnect(&mut peer, parked).await;
        assert_eq!(
            call(&cluster, 0, "POST", "/v1/users/parked/kick", "")
                .await
                .0,
            200
        );
        assert_eq!(peer.receive_type("leave").await["reason"], "kicked");
        eventually("the name is free", async || {
            let found = call(&cluster, 0, "GET", "/v1/users/parked", "").await;
            (found.0 == 404).then_some(())
        })
        .await;
        let mut late = cluster.connect(0).await;
        late.send_text(&format!(
            r#"{{"type":"login","name":"parked","resume":"{}"}}"#,
            token.secret
        ))
        .await;
        assert_eq!(late.receive_type("login").await["code"], "resume_failed");
        let mut http_user =
            HttpSession::login(cluster.nodes[1].address, Downlink::Stream, "http").await;
        assert_eq!(
            call(&cluster, 0, "POST", "/v1/users/http/kick", "").await.0,
            200
        );
        let close = http_user.receive_type("close").await;
        assert_eq!(close["code"], 4005, "{close}");
        assert_eq!(
            call(&cluster, 0, "POST", "/v1/users/nobody/kick", "")
                .await
                .0,
            404
        );
    }
}

#[tokio::test]
async fn an_operator_sends_a_user_a_message() {
    for cluster in clusters().await {
        let mut user = cluster.login(1, "üser/a").await;
        let path = "/v1/users/%C3%BCser%2Fa/messages";
        let body = r#"{"message":{ "maintenance" : 1e3 },"from":"the office"}"#;
        let (status, sent) = call(&cluster, 0, "POST", path, body).await;
        assert_eq!(
            (status, &sent["status"]),
            (202, &"delivered".into()),
            "{sent}"
        );
        let message = user.receive_type("message").await;
        assert_eq!(message["name"], "the office");
        assert_eq!(message["message"]["maintenance"], 1000.0);
        for wrong in [
            "",
            "{}",
            "[]",
            r#"{"message":1,"from":""}"#,
            r#"{"message":1,"to":"x"}"#,
            "[1,null]",
        ] {
            assert_eq!(
                call(&cluster, 0, "POST", path, wrong).await.0,
                400,
                "{wrong}"
            );
        }
        let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(70_000));
        assert_eq!(
            http::request(cluster.nodes[0].admin, "POST", path, &[BEARER, JSON], &long)
                .await
                .status,
            413
        );
        let parked = cluster.login_resumable(1, "parked").await;
        let token = cluster.disconnect(&mut user, parked).await;
        let (_, sent) = call(
            &cluster,
            0,
            "POST",
            "/v1/users/parked/messages",
            r#"{"message":"hi"}"#,
        )
        .await;
        assert_eq!(sent["status"], "queued");
        let mut back = cluster.resume(0, &token).await;
        let message = eventually("the message", async || {
            let message = back.receive_type("message").await;
            (message["message"] == "hi").then_some(message)
        })
        .await;
        assert_eq!(message["name"], "operator");
    }
}

#[tokio::test]
async fn an_operator_drains_a_node() {
    for mut cluster in clusters().await {
        let mut user = cluster.login_resumable(1, "user").await;
        let (status, drains) = call(&cluster, 1, "POST", "/v1/node/drain", "").await;
        assert_eq!((status, &drains["draining"]), (202, &true.into()));
        user.receive_type("goaway").await;
        assert_eq!(user.closed().await, Some(1012));
        let mut back = cluster.resume(0, &user.token).await;
        back.send_text(r#"{"type":"ping"}"#).await;
        back.receive_type("pong").await;
        assert!(
            cluster.nodes[1].stopped().await,
            "all sessions left in time"
        );
        eventually("it is no node of the cluster any more", async || {
            let nodes = get(&cluster, 0, "/v1/nodes").await;
            (nodes["nodes"].as_array().unwrap().len() == 1).then_some(())
        })
        .await;
    }
}

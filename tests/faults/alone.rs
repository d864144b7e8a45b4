//! The binary alone and without settings, and its errors for wrong settings.

use std::process::{Command, Output};

use testing::Client;
use testing::tokens::{Issuer, claims};
use testing::{Node, Redis};
use testing::{eventually, http};

fn switchboard(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_switchboard"))
        .args(arguments)
        .output()
        .unwrap()
}

#[tokio::test]
async fn a_node_alone_needs_no_settings() {
    let _alone = crate::alone().await;
    let mut node = Node::start(None, &[]).await;
    let mut one = Client::login(node.address, "UserA").await;
    let mut other = Client::login(node.address, "UserB").await;
    one.call(&mut other).await;
    let status = node.status().await;
    assert_eq!(status["sessions"], 2);
    assert_eq!(status["fabric"]["kind"], "embedded");
    one.close().await;
    assert_eq!(other.receive().await["reason"], "closed");
    let browser = [("accept", "text/html")];
    let page = http::get_with(node.address, "/", &browser).await.unwrap();
    assert_eq!(page.status, 200);
    assert!(page.body.contains("<title>Switchboard</title>"), "{page:?}");
    let info = http::get(node.address, "/").await.unwrap();
    assert_eq!(info.status, 200);
    assert!(info.body.contains("PeerJS Server"), "{info:?}");

    let healthy = switchboard(&["healthcheck", "--admin-listen", &node.admin.to_string()]);
    assert!(healthy.status.success(), "{healthy:?}");
    // As in a container without IPv6.
    let everywhere = format!("[::]:{}", node.admin.port());
    let healthy = switchboard(&["healthcheck", "--admin-listen", &everywhere]);
    assert!(healthy.status.success(), "{healthy:?}");
    node.process.signal("TERM");
    assert_eq!(other.closed().await, Some(1012));
    assert_eq!(node.process.ended().await, Some(0));
    let gone = switchboard(&["healthcheck", "--admin-listen", &node.admin.to_string()]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&gone.stderr).contains("admin.listen"),
        "{gone:?}"
    );
}

#[tokio::test]
async fn an_operator_revokes_by_a_command() {
    let _alone = crate::alone().await;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "0123456789abcdef-key\n").unwrap();
    let (secret, key) = ("a secret of no fewer than 32 bytes", key.to_str().unwrap());
    let settings = [
        ("auth.mode", "required"),
        ("auth.jwt.hmac_secret", secret),
        ("admin.token_file", key),
    ];
    let node = Node::start(None, &settings).await;
    let token = Issuer::with_secret("HS256", secret).sign(&claims("alice"));
    let mut alice = Client::connect(node.address).await;
    let login = serde_json::json!({"type": "login", "name": "alice", "token": token});
    alice.send(&login).await;
    assert_eq!(alice.receive().await["success"], true);
    let url = format!("http://{}", node.admin);
    let revoke = |more: &[&str]| {
        let words = ["revoke", "--admin", &url];
        switchboard(&[&words[..], more].concat())
    };
    for (wrong, code, says) in [
        (&["--sub", "alice"][..], 1, "admin.token_file"),
        (
            &[
                "--sub",
                "alice",
                "--set",
                "admin.token=0123456789abcdef-kez",
            ],
            1,
            "403",
        ),
        (&[], 64, "--issued-before"),
        (&["--sub", "alice", "--for", "ever"], 64, "--for"),
        (&["--sub", "alice", "--jti", "7"], 64, "--jti"),
    ] {
        let refused = revoke(wrong);
        assert_eq!(refused.status.code(), Some(code), "{refused:?}");
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(told.contains(says), "{told}");
    }
    let key = format!("admin.token_file={key}");
    let done = revoke(&["--sub", "alice", "--for", "12h", "--set", &key]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(done.stdout, b"Revoked; sessions ended: 1\n");
    assert_eq!(alice.closed().await, Some(4003));
    let audit = r#"sub=\"alice\""#;
    eventually("it is in the audit log", async || {
        node.log().contains(audit).then_some(())
    })
    .await;
}

#[test]
fn a_wrong_configuration_exits_with_78() {
    let wrong = [
        "--listen",
        "nowhere",
        "--set",
        "redis.mode=sentinel",
        "--set",
        "drain.deadline=soon",
    ];
    let reply = switchboard(&wrong);
    assert_eq!(reply.status.code(), Some(78));
    let text = String::from_utf8_lossy(&reply.stderr);
    for part in [
        "3 mistake(s)",
        "listen = \"nowhere\"",
        "sentinel and cluster are not supported yet",
        "drain.deadline",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    let cluster = switchboard(&["--redis-url", "redis://a,redis://b"]);
    assert_eq!(cluster.status.code(), Some(78));
    assert_eq!(switchboard(&["--no-such-flag"]).status.code(), Some(64));
    assert_eq!(switchboard(&["--help"]).status.code(), Some(0));
    // What is said of an argument does not repeat a password in it.
    let unset = switchboard(&["--set", "redis.url redis://:hunter2@localhost"]);
    assert_eq!(unset.status.code(), Some(64));
    let text = String::from_utf8_lossy(&unset.stderr);
    assert!(
        text.contains("KEY=VALUE") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn the_settings_in_effect_can_be_printed_without_secrets() {
    let printed = switchboard(&[
        "config",
        "check",
        "--redis-url",
        "redis://:hunter2@localhost",
        "--node-id",
        "seven",
    ]);
    assert!(printed.status.success());
    let text = String::from_utf8_lossy(&printed.stdout);
    assert!(
        text.contains("node_id = \"seven\"") && !text.contains("hunter2"),
        "{text}"
    );
    // With mistakes too, and all of them.
    let wrong = ["--listen", "nowhere", "--set", "log.format=xml"];
    let printed = switchboard(&[&["config", "check"], &wrong[..]].concat());
    assert_eq!(printed.status.code(), Some(78));
    let settings = String::from_utf8_lossy(&printed.stdout);
    let origin = settings
        .lines()
        .find(|line| line.starts_with("drain.window = "));
    assert!(origin.unwrap().ends_with("# default"), "{settings}");
    let mistakes = String::from_utf8_lossy(&printed.stderr);
    assert!(mistakes.contains("2 mistake(s)"), "{mistakes}");
    // A certificate that cannot be served is found without starting.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("empty.pem");
    std::fs::write(&file, "").unwrap();
    let [certificate, key] =
        ["certificate", "key"].map(|name| format!("tls.{name}={}", file.display()));
    let printed = switchboard(&["config", "check", "--set", &certificate, "--set", &key]);
    assert_eq!(printed.status.code(), Some(78));
    let text = String::from_utf8_lossy(&printed.stderr);
    assert!(
        text.contains("contains no certificate in PEM format"),
        "{text}"
    );
}

#[tokio::test]
async fn a_node_waits_for_an_absent_redis() {
    let _alone = crate::alone().await;
    let mut redis = Redis::start().await;
    redis.kill().await;
    let mut node = Node::start_unready(Some(&redis), &[]).await;
    eventually("the cause is logged", async || {
        node.log().contains("Connection refused").then_some(())
    })
    .await;
    assert_eq!(http::status(node.admin, "/readyz").await, Some(503));
    // After several attempts it still runs, and has logged the outage once.
    let mut early = Client::connect(node.address).await;
    let refused = early.try_login("early").await;
    assert_eq!(refused["code"], "unavailable", "{refused}");
    assert!(node.process.exit_status().is_none());
    assert_eq!(node.log().matches("Connection refused").count(), 1);
    redis.restart_empty().await;
    node.becomes_ready().await;
    let mut user = Client::connect(node.address).await;
    assert_eq!(user.try_login("user").await["success"], true);
}

#[test]
fn a_wrong_redis_url_ends_the_node() {
    let url = switchboard(&["--redis-url", "http://localhost"]);
    assert_eq!(url.status.code(), Some(78), "{url:?}");
}

#[tokio::test]
async fn logs_contain_no_names_and_no_bodies() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let node = Node::start(Some(&redis), &[("log.level", "trace")]).await;
    let mut one = Client::login(node.address, "UserA").await;
    let mut other = Client::login(node.address, "UserB").await;
    one.send_text(r#"{"type":"offer","name":"UserB","offer":{"sdp":"canary-sdp"}}"#)
        .await;
    other.receive_type("offer").await;
    one.send_text(r#"{"type":"login","name":"x","token":"canary-token","resume":"canary-secret"}"#)
        .await;
    one.receive_type("login").await;
    one.close().await;
    other.receive_type("leave").await;
    let log = node.log();
    let ours: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("\"target\":\"switchboard"))
        .collect();
    assert!(!ours.is_empty());
    assert!(ours.iter().all(|line| !line.contains("canary")), "{ours:?}");
}

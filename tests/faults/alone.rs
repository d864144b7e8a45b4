//! The binary as a newcomer meets it: alone, without any setting; and what it says to wrong ones.

use std::process::{Command, Output};

use crate::support::peer::Peer;
use crate::support::process::{Node, Redis};
use crate::support::{eventually, http};

fn switchboard(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_switchboard"))
        .args(arguments)
        .output()
        .unwrap()
}

#[tokio::test]
async fn one_node_needs_nothing_else() {
    let _alone = crate::alone().await;
    let mut node = Node::start(None, &[]).await;
    let mut one = Peer::login(node.address, "UserA").await;
    let mut other = Peer::login(node.address, "UserB").await;
    one.calls(&mut other).await;
    let status = node.status().await;
    assert_eq!(status["sessions"], 2);
    assert_eq!(status["fabric"]["kind"], "embedded");
    one.closes().await;
    assert_eq!(other.hears().await["reason"], "closed");
    let page = http::get(node.address, "/", "Accept: text/html\r\n")
        .await
        .unwrap();
    assert!(
        page.contains("200 OK") && page.contains("<title>Switchboard</title>"),
        "{page}"
    );
    let told = http::get(node.address, "/", "").await.unwrap();
    assert!(
        told.contains("200 OK") && told.contains("PeerJS Server"),
        "what PeerJS' clients and programs are told: {told}"
    );

    let healthy = switchboard(&["healthcheck", "--admin-listen", &node.admin.to_string()]);
    assert!(healthy.status.success(), "{healthy:?}");
    node.process.signal("TERM");
    assert_eq!(other.is_closed().await, Some(1012));
    assert_eq!(node.process.ended().await, Some(0));
    let gone = switchboard(&["healthcheck", "--admin-listen", &node.admin.to_string()]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&gone.stderr).contains("admin.listen"),
        "{gone:?}"
    );
}

#[test]
fn a_wrong_configuration_is_told_at_once_and_exits_with_78() {
    let wrong = [
        "--listen",
        "nowhere",
        "--set",
        "redis.mode=sentinel",
        "--set",
        "drain.deadline=soon",
    ];
    let told = switchboard(&wrong);
    assert_eq!(told.status.code(), Some(78));
    let text = String::from_utf8_lossy(&told.stderr);
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
}

#[test]
fn the_settings_in_effect_can_be_printed_without_secrets() {
    let printed = switchboard(&[
        "config",
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
}

#[tokio::test]
async fn a_redis_that_is_not_there_is_waited_for() {
    let _alone = crate::alone().await;
    let mut redis = Redis::start().await;
    redis.dies().await;
    let mut node = Node::begin(Some(&redis), &[]).await;
    eventually("the cause is logged", async || {
        node.log().contains("Connection refused").then_some(())
    })
    .await;
    assert_eq!(http::status(node.admin, "/readyz").await, Some(503));
    // Several tries later it still runs, and has said it once.
    let mut early = Peer::connect(node.address).await;
    let refused = early.tries_login("early").await;
    assert_eq!(refused["code"], "unavailable", "{refused}");
    assert!(!node.process.has_ended());
    assert_eq!(node.log().matches("Connection refused").count(), 1);
    redis.returns_empty().await;
    node.is_ready().await;
    let mut user = Peer::connect(node.address).await;
    assert_eq!(user.tries_login("user").await["success"], true);
}

#[test]
fn a_wrong_redis_url_ends_the_node() {
    let url = switchboard(&["--redis-url", "http://localhost"]);
    assert_eq!(url.status.code(), Some(78), "{url:?}");
}

#[tokio::test]
async fn a_log_names_no_one_and_nothing_that_was_said() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let node = Node::start(Some(&redis), &[("log.level", "trace")]).await;
    let mut one = Peer::login(node.address, "UserA").await;
    let mut other = Peer::login(node.address, "UserB").await;
    one.says_text(r#"{"type":"offer","name":"UserB","offer":{"sdp":"canary-sdp"}}"#)
        .await;
    other.hears_of("offer").await;
    one.says_text(r#"{"type":"login","name":"x","token":"canary-token","resume":"canary-secret"}"#)
        .await;
    one.hears_of("login").await;
    one.closes().await;
    other.hears_of("leave").await;
    let log = node.log();
    let ours: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("\"target\":\"switchboard"))
        .collect();
    assert!(!ours.is_empty());
    assert!(ours.iter().all(|line| !line.contains("canary")), "{ours:?}");
}

//! Log lines never hold the node up, whoever reads them and whoever causes them.

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use testing::{Client, Node, eventually, http};

const DROPPED: &str = "switchboard_log_lines_dropped_total ";
/// Connections at a time.
const BATCH: usize = 50;
/// Connections of a flood.
const TIMES: usize = 6 * BATCH;

async fn metric(node: &Node, name: &str) -> u64 {
    let metrics = node.metrics().await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().parse().unwrap()
}

/// Lets clients come and go, each with its log lines, until more than so many lines were dropped.
async fn fill_the_pipe(node: &Node, dropped: u64) {
    eventually("lines are dropped", async || {
        let visit =
            async |number| drop(Client::login(node.address, &format!("visitor{number}")).await);
        join_all((0..BATCH).map(visit)).await;
        (metric(node, DROPPED).await > dropped).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reader_of_the_log_that_stops_holds_nothing_up() {
    // As on a terminal that is paused, or with a log shipper that is stuck.
    let mut node = Node::start(None, &[("log.level", "trace")]).await;
    node.pause_log(true);
    fill_the_pipe(&node, 0).await;
    let mut one = Client::login(node.address, "one").await;
    let mut other = Client::login(node.address, "other").await;
    one.call(&mut other).await;
    assert_eq!(http::status(node.admin, "/livez").await, Some(200));
    drop(one);
    other.receive_type("leave").await;
    // What is missing is said when somebody reads again: once.
    node.pause_log(false);
    let said = "Log lines were dropped";
    let line = crate::setup::logged(&node, &[said]).await;
    let line: Value = serde_json::from_str(&line).unwrap();
    let dropped = metric(&node, DROPPED).await;
    assert_eq!(line["lines"], dropped);
    assert_eq!(node.log().matches(said).count(), 1);
    // The process can end although nobody reads.
    node.pause_log(true);
    fill_the_pipe(&node, dropped).await;
    node.process.signal("TERM");
    assert_eq!(node.process.ended().await, Some(0));
}

#[tokio::test]
async fn what_strangers_repeat_is_summed_up_once_a_second() {
    let node = Node::start(None, &[("session.frame_bytes", "1024")]).await;
    let begun = Instant::now();
    for _ in 0..TIMES / BATCH {
        let flood = async |_| {
            let mut stranger = Client::connect(node.address).await;
            stranger.send_text(&"x".repeat(2000)).await;
            assert_eq!(stranger.closed().await, Some(1009));
        };
        join_all((0..BATCH).map(flood)).await;
    }
    summed_up(&node, "session.frame_bytes", TIMES, begun).await;
    let ended = "switchboard_sessions_ended_total{reason=\"too_large\"} ";
    assert_eq!(metric(&node, ended).await, TIMES as u64);
}

/// Waits until the lines with this word tell of every time, and checks that they are at most one a second.
async fn summed_up(node: &Node, word: &str, times: usize, begun: Instant) {
    let lines = eventually("every one is counted", async || {
        let lines = node.log_lines();
        let lines = lines.iter().filter(|line| line.contains(word));
        let lines: Vec<Value> = lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        // A line without a number is of one.
        let told = lines.iter().map(|line| line["times"].as_u64().unwrap_or(1));
        (told.sum::<u64>() == times as u64).then_some(lines)
    })
    .await;
    let most = begun.elapsed().as_secs() + 2;
    assert!(
        lines.len() as u64 <= most,
        "{most} lines at most: {lines:#?}"
    );
}

#[tokio::test]
async fn failed_handshakes_are_summed_up_once_a_second() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = ["certificate", "key"].map(|name| folder.path().join(name));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let settings = [
        ("tls.certificate", certificate.to_str().unwrap()),
        ("tls.key", key.to_str().unwrap()),
    ];
    let node = Node::start(None, &settings).await;
    let begun = Instant::now();
    for _ in 0..TIMES / BATCH {
        let stranger = async |_| {
            let mut stream = TcpStream::connect(node.address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            // The alert, and the end.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        join_all((0..BATCH).map(stranger)).await;
    }
    // A word of both lines.
    summed_up(&node, "TLS handshake failed", TIMES, begun).await;
    assert!(!node.log().contains("\"rustls"), "{}", node.log());
}

#[tokio::test]
async fn variables_of_opentelemetry_without_effect_are_named_once() {
    let environment = [
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_ENPOINT", "http://localhost:4318"),
    ];
    let node = Node::start_in(None, &[], &environment).await;
    let names = environment.map(|(name, _)| name);
    crate::setup::logged(&node, &names).await;
    for name in ["OTEL_PROPAGATORS", "OTEL_LOGS_EXPORTER"] {
        assert_eq!(node.log().matches(name).count(), 1, "{}", node.log());
    }
}

//! Plays every transcript on one node, on two nodes over memory, and on two nodes over a real Redis.
//!
//! ```text
//! A@0> {…}        A sends this; its first message connects it to node 0
//! A< {…}          A receives this; "*" stands for any value
//! A= {…}          A receives exactly these bytes
//! A@0 logs in N   A logs in as N
//! A binary {…}    A sends this in a binary frame
//! A closes        A vanishes        A silent (receives nothing more)
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use testing::Client;
use testing::Cluster;

#[tokio::test]
async fn on_one_node() {
    let cluster = Cluster::in_memory(1, &[]).await;
    play_all(&cluster).await;
}

#[tokio::test]
async fn on_two_nodes_over_memory() {
    let cluster = Cluster::in_memory(2, &[]).await;
    play_all(&cluster).await;
}

#[tokio::test]
async fn on_two_nodes_over_redis() {
    let cluster = Cluster::over_redis(2, &[]).await;
    play_all(&cluster).await;
}

#[tokio::test]
async fn on_two_nodes_over_redis_with_three_publishers() {
    let cluster = Cluster::over_redis(2, &[("redis.lanes", "3"), ("redis.prefix", "other:")]).await;
    play_all(&cluster).await;
}

async fn play_all(cluster: &Cluster) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/transcripts");
    let mut transcripts = Vec::new();
    find(&folder, &mut transcripts);
    assert!(
        transcripts.len() >= 24,
        "only {} transcripts",
        transcripts.len()
    );
    for transcript in transcripts {
        let name = transcript.file_stem().unwrap().to_str().unwrap().to_owned();
        play(
            cluster,
            &name,
            &std::fs::read_to_string(transcript).unwrap(),
        )
        .await;
    }
}

fn find(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, into);
        } else {
            into.push(path);
        }
    }
}

async fn play(cluster: &Cluster, name: &str, transcript: &str) {
    let mut peers = HashMap::new();
    for (number, line) in transcript.lines().enumerate() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let at = format!("{name}.txt:{}: {line}", number + 1);
        let (who, what) = line.split_at(
            line.find([' ', '>', '<', '='])
                .unwrap_or_else(|| panic!("{at}")),
        );
        let who = match who.split_once('@') {
            None => who,
            Some((who, node)) => {
                let node = node.parse::<usize>().unwrap() % cluster.nodes.len();
                peers.insert(who.to_owned(), cluster.connect(node).await);
                who
            }
        };
        if ["closes", "vanishes"].contains(&what.trim()) {
            let peer: Client = peers.remove(who).unwrap();
            if what.trim() == "closes" {
                peer.close().await;
            } else {
                peer.disconnect();
            }
            continue;
        }
        let peer = peers.get_mut(who).unwrap_or_else(|| panic!("{at}: who?"));
        let what = what.trim_start();
        if let Some(text) = what.strip_prefix("> ") {
            peer.send_text(text).await;
        } else if let Some(text) = what.strip_prefix("= ") {
            assert_eq!(peer.receive_text().await, text, "{at}");
        } else if let Some(text) = what.strip_prefix("< ") {
            let heard = peer.receive().await;
            assert!(
                matches(&serde_json::from_str(text).unwrap(), &heard),
                "{at}\nreceived {heard}"
            );
        } else if let Some(name) = what.strip_prefix("logs in ") {
            let reply = peer.try_login(name).await;
            assert_eq!(reply["success"], true, "{at}\nheard {reply}");
        } else if let Some(text) = what.strip_prefix("binary ") {
            peer.send_frame(Message::binary(text.to_owned())).await;
        } else if what == "silent" {
            peer.expect_silence().await;
        } else {
            panic!("{at}: what?");
        }
    }
    for peer in peers.into_values() {
        peer.close().await;
    }
}

/// Whether a received message equals the expected one, where "*" stands for any value.
fn matches(expected: &Value, heard: &Value) -> bool {
    match (expected, heard) {
        (Value::String(any), _) if any == "*" => true,
        (Value::Object(expected), Value::Object(heard)) => {
            expected.len() == heard.len()
                && expected
                    .iter()
                    .all(|(key, value)| heard.get(key).is_some_and(|heard| matches(value, heard)))
        }
        _ => expected == heard,
    }
}

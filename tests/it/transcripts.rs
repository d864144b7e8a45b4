//! Plays every transcript on one node, on two nodes over memory, and on two nodes over a real Redis.
//!
//! ```text
//! A@0> {…}        A sends this; its first message connects it to node 0
//! A< {…}          A receives this; "*" stands for any value, and … as the last field for further ones
//!                 "$x" is any value, and the same one wherever it comes again, also in what is sent
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

use crate::schema;

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
        let text = std::fs::read_to_string(transcript).unwrap();
        play(cluster, &format!("{name}.txt"), &text).await;
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

/// Plays a transcript; `name` says where it is from.
pub async fn play(cluster: &Cluster, name: &str, transcript: &str) {
    let mut peers = HashMap::new();
    let mut values = HashMap::new();
    for (number, line) in transcript.lines().enumerate() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let at = format!("{name}:{}: {line}", number + 1);
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
            let text = filled_in(text.trim(), &values);
            schema::describes_if_taken(&text, &at);
            peer.send_text(&text).await;
        } else if let Some(text) = what.strip_prefix("= ") {
            assert_eq!(peer.receive_text().await, text, "{at}");
        } else if let Some(text) = what.strip_prefix("< ") {
            let heard = peer.receive().await;
            schema::describes(&heard, &at);
            assert!(
                matches(&expected(text), &heard, &mut values),
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

/// The field that `…` becomes.
const FURTHER: &str = "…";

/// The message that a line expects.
pub fn expected(text: &str) -> Value {
    let text = text.replace(",…}", ",\"…\":0}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A text with the values that were received for `"$x"`.
fn filled_in(text: &str, values: &HashMap<String, Value>) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("\"{name}\""), &value.to_string())
    })
}

/// Whether a received message equals the expected one, where "*" stands for any value, "$x" for one that may be known,
/// and `…` for further fields.
fn matches(expected: &Value, heard: &Value, values: &mut HashMap<String, Value>) -> bool {
    match (expected, heard) {
        (Value::String(any), _) if any == "*" => true,
        (Value::String(name), _) if name.starts_with('$') => {
            values.entry(name.clone()).or_insert_with(|| heard.clone()) == heard
        }
        (Value::Object(expected), Value::Object(heard)) => {
            let has_further = expected.contains_key(FURTHER);
            let mut named = expected.iter().filter(|(key, _)| *key != FURTHER);
            (has_further || expected.len() == heard.len())
                && named.all(|(key, value)| {
                    heard
                        .get(key)
                        .is_some_and(|heard| matches(value, heard, values))
                })
        }
        _ => expected == heard,
    }
}

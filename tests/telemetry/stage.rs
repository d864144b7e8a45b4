//! Nodes that export to a collector, and the check that no user data reaches spans and logs.

use serde_json::{Value, json};

use testing::Client;
use testing::collector::{Collector, ReceivedSpan};
use testing::eventually;
use testing::{Node, Redis};

/// Markers in the bodies, tokens and names of these tests. None may reach a log or a span.
pub const MARKERS: [&str; 5] = [
    "MARKER-OF-AN-SDP",
    "MARKER-OF-A-CANDIDATE",
    "203.0.113.77",
    "MARKER-OF-A-TOKEN",
    "MARKER-OF-A-MESSAGE",
];

pub struct Stage {
    pub redis: Redis,
    pub collector: Collector,
    /// All nodes, also killed ones, whose logs are searched at the end.
    pub nodes: Vec<Node>,
    /// Which of them were killed or drained.
    pub secrets: Vec<String>,
    /// Names that must not be in a span.
    pub names: Vec<String>,
    environment: Vec<(&'static str, String)>,
    settings: Vec<(&'static str, &'static str)>,
}

impl Stage {
    /// Two nodes that export over `grpc` or `http/protobuf`.
    pub async fn of_two(protocol: &'static str, more: &[(&'static str, &str)]) -> Self {
        let collector = Collector::start().await;
        let address = if protocol == "grpc" {
            collector.grpc
        } else {
            collector.http
        };
        let mut environment = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
            ("OTEL_METRIC_EXPORT_INTERVAL", "500".to_owned()),
            ("POD_NAME", "switchboard-0".to_owned()),
        ];
        let more = more.iter();
        environment.extend(more.map(|(key, value)| (*key, (*value).to_owned())));
        let mut stage = Self {
            redis: Redis::start().await,
            collector,
            nodes: Vec::new(),
            secrets: Vec::new(),
            names: Vec::new(),
            environment,
            settings: vec![
                ("log.level", "info,switchboard=trace"),
                ("drain.window", "500ms"),
                ("limits.signals_per_second", "0"),
            ],
        };
        stage.add_node().await;
        stage.add_node().await;
        stage
    }

    pub async fn add_node(&mut self) {
        let environment: Vec<(&str, &str)> = self
            .environment
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        let node = Node::start_in(Some(&self.redis), &self.settings, &environment).await;
        self.nodes.push(node);
    }

    pub async fn login(&mut self, node: usize, name: &str) -> Client {
        self.names.push(name.to_owned());
        Client::login(self.nodes[node].address, name).await
    }

    pub async fn login_resumable(&mut self, node: usize, name: &str) -> Client {
        self.names.push(name.to_owned());
        let peer = Client::login_resumable(self.nodes[node].address, name).await;
        self.secrets.push(peer.token.secret.clone());
        peer
    }

    /// The `service.instance.id` of a node.
    pub async fn instance(&self, node: usize) -> String {
        let status = self.nodes[node].status().await;
        status["node"].as_str().unwrap().to_owned()
    }

    /// Ends the test: fails if a body, name, secret or token of a user is in a span or in a log. Returns the spans.
    pub fn finish(self) -> Vec<ReceivedSpan> {
        let own = self.secrets.iter().chain(&self.names).map(String::as_str);
        let hidden: Vec<&str> = MARKERS.into_iter().chain(own).collect();
        let spans = self.collector.spans();
        for seen in &spans {
            assert_eq!(leak(&seen.text, &hidden), None, "{}", seen.text);
        }
        let mut lines = 0;
        for node in &self.nodes {
            for line in node.log().lines() {
                assert_eq!(leak(line, &hidden), None, "{line}");
                lines += 1;
            }
        }
        // There was something to search.
        assert!(lines >= self.nodes.len(), "{lines} lines");
        spans
    }
}

/// The first of the hidden words that is in this text.
fn leak<'a>(text: &str, hidden: &[&'a str]) -> Option<&'a str> {
    hidden.iter().find(|mark| text.contains(**mark)).copied()
}

/// The search finds words that are there.
#[test]
fn the_search_finds_what_is_there() {
    let message = candidate("UserB", "1").to_string();
    assert_eq!(leak(&message, &MARKERS), Some(MARKERS[1]));
    assert_eq!(
        leak(&offer("UserB").to_string(), &MARKERS),
        Some(MARKERS[0])
    );
    assert_eq!(leak("Draining", &MARKERS), None);
}

pub fn offer(to: &str) -> Value {
    json!({"type": "offer", "name": to, "offer": {"type": "offer", "sdp": MARKERS[0]}, "id": "offer"})
}

pub fn answer(to: &str) -> Value {
    json!({"type": "answer", "name": to, "answer": {"type": "answer", "sdp": MARKERS[0]}, "id": "answer"})
}

pub fn candidate(to: &str, id: &str) -> Value {
    let candidate = format!(
        "candidate:1 1 udp 1 {} 5000 typ host {}",
        MARKERS[2], MARKERS[1]
    );
    json!({"type": "candidate", "name": to, "candidate": {"candidate": candidate}, "id": id})
}

pub fn message(to: &str, id: &str) -> Value {
    json!({"type": "message", "name": to, "message": MARKERS[4], "id": id})
}

/// Sends a message with an id; the status of its ack.
pub async fn acked(peer: &mut Client, what: &Value) -> String {
    peer.send(what).await;
    loop {
        let heard = peer.receive().await;
        if heard["id"] == what["id"] {
            assert_eq!(heard["type"], "ack", "{heard}");
            return heard["status"].as_str().unwrap().to_owned();
        }
    }
}

/// An offer and its answer.
pub async fn call(one: &mut Client, other: &mut Client) {
    assert_eq!(acked(one, &offer(&other.name)).await, "delivered");
    other.receive_type("offer").await;
    assert_eq!(acked(other, &answer(&one.name)).await, "delivered");
    one.receive_type("answer").await;
}

/// Waits until a log has a line with all of these words; the line.
pub async fn logged(node: &Node, words: &[&str]) -> String {
    eventually(&format!("{words:?} in the log"), async || {
        let log = node.log();
        let line = log
            .lines()
            .find(|line| words.iter().all(|word| line.contains(word)));
        line.map(str::to_owned)
    })
    .await
}

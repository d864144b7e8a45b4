//! Nodes that export to a collector, and the check that no user data reaches spans and logs.

use std::path::PathBuf;

use serde_json::{Value, json};

use testing::Client;
use testing::collector::{Collector, ReceivedSpan};
use testing::dns::{self, NameServer};
use testing::eventually;
use testing::node::Launch;
use testing::{Node, Redis};

/// Markers in the bodies, tokens and names of these tests. None may reach a log or a span.
pub const MARKERS: [&str; 5] = [
    "MARKER-OF-AN-SDP",
    "MARKER-OF-A-CANDIDATE",
    "203.0.113.77",
    "MARKER-OF-A-TOKEN",
    "MARKER-OF-A-MESSAGE",
];

pub struct Setup {
    pub redis: Redis,
    pub collector: Collector,
    /// All nodes, also killed ones, whose logs are searched at the end.
    pub nodes: Vec<Node>,
    /// Which of them were killed or drained.
    pub secrets: Vec<String>,
    /// Names that must not be in a span.
    pub names: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// In place of the machine's `resolv.conf`.
    resolver: Option<PathBuf>,
    settings: Vec<(&'static str, &'static str)>,
}

impl Setup {
    /// Two nodes that export over `grpc` or `http/protobuf`.
    pub async fn of_two(protocol: &'static str, more: &[(&'static str, &str)]) -> Self {
        Self::of_two_with(protocol, more, None).await
    }

    /// The same, whose nodes ask this name server for the collector's address.
    pub async fn of_two_by_name(protocol: &'static str, server: &NameServer) -> Self {
        Self::of_two_with(protocol, &[], Some(server)).await
    }

    async fn of_two_with(
        protocol: &'static str,
        more: &[(&'static str, &str)],
        server: Option<&NameServer>,
    ) -> Self {
        let collector = Collector::start().await;
        let address = if protocol == "grpc" {
            collector.grpc
        } else {
            collector.http
        };
        let host = server.map_or(address.ip().to_string(), |_| dns::NAME.to_owned());
        let endpoint = format!("http://{host}:{}", address.port());
        let mut environment = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
            ("OTEL_METRIC_EXPORT_INTERVAL", "500".to_owned()),
            ("POD_NAME", "switchboard-0".to_owned()),
        ];
        let more = more.iter();
        environment.extend(more.map(|(key, value)| (*key, (*value).to_owned())));
        let mut setup = Self {
            redis: Redis::start().await,
            collector,
            nodes: Vec::new(),
            secrets: Vec::new(),
            names: Vec::new(),
            environment,
            resolver: server.map(|server| server.resolver().to_owned()),
            settings: vec![
                ("log.level", "info,switchboard=trace"),
                ("drain.window", "500ms"),
                ("limits.signals_per_second", "0"),
            ],
        };
        setup.add_node().await;
        setup.add_node().await;
        setup
    }

    pub async fn add_node(&mut self) {
        let environment: Vec<(&str, &str)> = self
            .environment
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        let mut launch = Launch::new(Some(&self.redis), &self.settings).environment(&environment);
        launch.resolver.clone_from(&self.resolver);
        let node = launch
            .start()
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        node.becomes_ready().await;
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
        let received = peer.receive().await;
        if received["id"] == what["id"] {
            assert_eq!(received["type"], "ack", "{received}");
            return received["status"].as_str().unwrap().to_owned();
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

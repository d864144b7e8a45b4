//! The metrics endpoint: well-formed, correct, and every metric documented.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::setup::{acked, call, candidate};
use testing::Client;
use testing::collector::Collector;
use testing::eventually;
use testing::{Node, Redis};

fn promtool_checks(metrics: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (package prometheus) is there: run `make setup`");
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(metrics.as_bytes()).unwrap();
    drop(input);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

/// The metric families of an exposition.
fn families(metrics: &str) -> BTreeSet<String> {
    let types = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

/// The value of a sample, as text.
fn value<'a>(metrics: &'a str, sample: &str) -> &'a str {
    let line = metrics.lines().find_map(|line| line.strip_prefix(sample));
    line.unwrap_or_else(|| panic!("{sample} is not in\n{metrics}"))
        .trim()
}

fn number(metrics: &str, sample: &str) -> f64 {
    value(metrics, sample).parse().unwrap()
}

#[track_caller]
fn shows(metrics: &str, samples: &[(&str, &str)]) {
    for (sample, expected) in samples {
        let sample = format!("switchboard_{sample}");
        assert_eq!(value(metrics, &sample), *expected, "{sample}");
    }
}

/// Two nodes after some use, and their metrics.
async fn some_life(one: &Node, other: &Node) -> (String, String) {
    let mut a = Client::login(one.address, "a").await;
    let mut b = Client::login_resumable(other.address, "b").await;
    call(&mut a, &mut b).await;
    let counted = one.metrics().await;
    assert!(number(&counted, "switchboard_calls") >= 1.0);
    assert!(number(&counted, "switchboard_nodes_seen") >= 1.0);
    for n in 0..64 {
        acked(&mut a, &candidate("b", &format!("c{n}"))).await;
        b.receive_type("candidate").await;
    }
    let mut report = json!({
        "type": "report", "name": "b", "state": "connected", "ms": 640, "pair": "relay", "id": "r",
    });
    acked(&mut a, &report).await;
    // A repeated report counts once, and a report without a call not at all.
    acked(&mut a, &report).await;
    report["name"] = "nobody".into();
    report["state"] = "failed".into();
    acked(&mut a, &report).await;
    a.send(&json!({"type": "offer", "name": "nobody", "offer": 1}))
        .await;
    a.receive_type("error").await;
    let token = b.token.clone();
    b.disconnect();
    eventually("it is gone", async || {
        let metrics = other.metrics().await;
        let ended = number(
            &metrics,
            "switchboard_sessions_ended_total{reason=\"lost\"}",
        );
        (ended > 0.0).then_some(())
    })
    .await;
    let mut b = Client::resume(other.address, &token).await;
    a.send(&json!({"type": "leave", "name": "b", "id": "bye"}))
        .await;
    b.receive_type("leave").await;
    while a.receive().await["id"] != "bye" {}
    // A histogram appears with its first value: a probe returns each second, and one delivery in 16 is timed.
    let metrics = eventually("all figures", async || {
        let metrics = other.metrics().await;
        let is_there = |part: &str| metrics.contains(part);
        (is_there("probe_duration") && is_there("delivery_duration")).then_some(metrics)
    })
    .await;
    (one.metrics().await, metrics)
}

#[tokio::test]
async fn metrics_are_well_formed_documented_and_correct() {
    let redis = Redis::start().await;
    let one = Node::start(Some(&redis), &[]).await;
    let other = Node::start(Some(&redis), &[]).await;
    let (callers, others) = some_life(&one, &other).await;
    promtool_checks(&callers);
    promtool_checks(&others);
    shows(
        &others,
        &[
            ("resumes_total{result=\"ok\"}", "1"),
            ("logins_total{result=\"ok\"}", "1"),
            ("leaves_total{reason=\"hangup\"}", "1"),
            ("sessions_ended_total{reason=\"lost\"}", "1"),
            ("calls", "0"),
            ("fabric_reached", "1"),
            ("fabric_usable", "1"),
            ("ready", "1"),
            ("draining", "0"),
        ],
    );
    shows(
        &callers,
        &[
            ("signals_total{kind=\"offer\",outcome=\"delivered\"}", "1"),
            (
                "signals_total{kind=\"offer\",outcome=\"user_unavailable\"}",
                "1",
            ),
            (
                "signals_total{kind=\"candidate\",outcome=\"delivered\"}",
                "64",
            ),
            ("refusals_total{code=\"user_unavailable\"}", "1"),
            ("reports_total{pair=\"relay\",state=\"connected\"}", "1"),
            ("reports_total{pair=\"relay\",state=\"failed\"}", "0"),
            ("call_setup_duration_seconds_count{pair=\"relay\"}", "1"),
            ("call_setup_duration_seconds_sum{pair=\"relay\"}", "0.64"),
        ],
    );
    // A resumed peer that asks too late whether the call continues gets a second leave.
    let leaves = "switchboard_signals_total{kind=\"leave\",outcome=\"delivered\"}";
    assert!(number(&callers, leaves) >= 1.0);
    // The book documents exactly these.
    let known: BTreeSet<String> = families(&callers)
        .union(&families(&others))
        .cloned()
        .collect();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/src/observability.md");
    let page = std::fs::read_to_string(page).unwrap();
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `switchboard_"))
        .map(|rest| format!("switchboard_{}", rest.split('`').next().unwrap()))
        .collect();
    assert_eq!(known, documented);
    // The status page agrees.
    let status = one.status().await;
    let seen = other.status().await["node"].clone();
    assert_eq!(status["nodes_seen"], json!([seen]));
    assert_eq!(
        (&status["calls"], &status["fabric"]["queue"]),
        (&json!(0), &json!(0))
    );
}

#[tokio::test]
async fn metrics_are_pushed_if_configured() {
    let collector = Collector::start().await;
    for (protocol, address) in [("grpc", collector.grpc), ("http/protobuf", collector.http)] {
        let endpoint = format!("http://{address}");
        let environment = [
            ("OTEL_METRICS_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &*endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
        ];
        // An HTTP endpoint for one signal is the complete URL (OTLP exporter specification).
        let whole = format!("{endpoint}/v1/metrics");
        let environment = environment.map(|(key, value)| {
            let is_whole = key.ends_with("METRICS_ENDPOINT") && protocol != "grpc";
            (key, if is_whole { whole.as_str() } else { value })
        });
        let before = collector.metrics();
        let _node = Node::start_in(None, &[], &environment).await;
        eventually(&format!("figures by {protocol}"), async || {
            (collector.metrics() > before + 10).then_some(())
        })
        .await;
        assert!(collector.spans().is_empty());
    }
}

//! The shipped rules and dashboard on live nodes: a real fault makes each alert's expression true.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use crate::prometheus::{Prometheus, rules};
use crate::setup::{acked, call};
use testing::Client;
use testing::collector::{Collector, Mode};
use testing::eventually;
use testing::{Node, Redis};

#[test]
fn promtool_accepts_the_rules() {
    for arguments in [
        ["check", "rules", "switchboard.rules.yml"],
        ["test", "rules", "switchboard.rules.test.yml"],
    ] {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(rules())
            .output()
            .expect("promtool (package prometheus) is there: run `make setup`");
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&said)
        );
    }
}

/// Nodes with calls, and a Prometheus that scrapes them.
struct Scenario {
    redis: Redis,
    collector: Collector,
    nodes: Vec<Node>,
    prometheus: Prometheus,
    /// The alerts whose faults were caused.
    shown: BTreeSet<String>,
}

impl Scenario {
    async fn build() -> Self {
        let redis = Redis::start().await;
        let collector = Collector::start().await;
        // Short leases, so that their loss is noticed soon; a long timeout for a paused Redis.
        let settings = [
            ("presence.ttl", "9s"),
            ("presence.grace", "2s"),
            ("presence.node_ttl", "2s"),
            ("redis.timeout", "3s"),
            ("limits.signals_per_second", "0"),
            ("session.mailbox_events", "16"),
            // Nobody is there.
            ("webhooks.url", "http://127.0.0.1:1/"),
            ("webhooks.secret", "whsec_c3dpdGNoYm9hcmQgdGVzdHMgc2VjcmV0"),
        ];
        let mut nodes = Vec::new();
        for _ in 0..2 {
            nodes.push(Node::start(Some(&redis), &settings).await);
        }
        let endpoint = format!("http://{}", collector.grpc);
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ];
        let settings = [("limits.signals_per_second", "5")];
        nodes.push(Node::start_in(Some(&redis), &settings, &environment).await);
        let endpoints: Vec<_> = nodes.iter().map(|node| node.admin).collect();
        let prometheus = Prometheus::scraping(&endpoints).await;
        let scenario = Self {
            redis,
            collector,
            nodes,
            prometheus,
            shown: BTreeSet::new(),
        };
        // Prometheus sees no increase in what happened before its first scrape.
        eventually("every node is scraped", async || {
            (scenario.sum("count(up == 1)").await > 2.0).then_some(())
        })
        .await;
        scenario
    }

    async fn login(&self, node: usize, name: &str) -> Client {
        Client::login(self.nodes[node].address, name).await
    }

    /// The sum of a metric in Prometheus.
    async fn sum(&self, expression: &str) -> f64 {
        let found = self.prometheus.query(expression).await.unwrap();
        let value = found
            .first()
            .map(|sample| sample["value"][1].as_str().unwrap());
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// The alerts whose expressions are true now; fails if a rule cannot be evaluated.
    async fn alerts(&self) -> BTreeSet<String> {
        let mut alerts = BTreeSet::new();
        for rule in self.prometheus.rules().await {
            let name = rule["name"].as_str().unwrap();
            // A busy Prometheus may evaluate a rule twice in the same millisecond, which is an error.
            let error = rule["lastError"].as_str().unwrap_or_default();
            let is_hurry = error.is_empty() || error.contains("duplicate sample for timestamp");
            assert!(is_hurry, "{rule}");
            if rule["state"] == "pending" || rule["state"] == "firing" {
                alerts.insert(name.to_owned());
            }
        }
        alerts
    }

    /// Waits until this alert's expression is true.
    async fn alarms(&mut self, alert: &str) {
        self.alarms_by(alert, async |_| ()).await;
    }

    /// The same, and repeats the fault meanwhile.
    async fn alarms_by(&mut self, alert: &str, mut fault: impl AsyncFnMut(&Self)) {
        let scenario = &*self;
        eventually(alert, async || {
            fault(scenario).await;
            let alerts = scenario.alerts().await;
            alerts.contains(alert).then_some(())
        })
        .await;
        println!("{alert}");
        self.shown.insert(alert.to_owned());
    }
}

async fn reports(peer: &mut Client, other: &mut Client, state: &str, ms: u64) {
    // A new call set-up, which may end otherwise.
    call(peer, other).await;
    let report =
        json!({"type": "report", "name": other.name, "state": state, "ms": ms, "id": "report"});
    acked(peer, &report).await;
}

/// Every query of the dashboard has a result for nodes in use.
async fn the_dashboard_shows_something(scenario: &Scenario, a: &mut Client, b: &mut Client) {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/deploy/grafana/switchboard.json"
    );
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let mut expressions = Vec::new();
    find("expr", &dashboard, &mut expressions);
    assert!(expressions.len() > 30, "{expressions:?}");
    for expression in expressions {
        let asked = expression
            .replace("$instance", ".*")
            .replace("$__rate_interval", "1m")
            .replace("$__range", "10m");
        assert!(!asked.contains('$'), "{expression}");
        eventually(&format!("an answer to {asked}"), async || {
            // The calls continue.
            reports(a, b, "connected", 300).await;
            let found = scenario.prometheus.query(&asked).await;
            let found = found.unwrap_or_else(|error| panic!("{asked}: {error}"));
            let numbers = found
                .iter()
                .map(|sample| sample["value"][1].as_str().unwrap());
            numbers.clone().any(|number| number != "NaN").then_some(())
        })
        .await;
    }
}

fn find(key: &str, value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if name == key {
                    into.push(field.as_str().unwrap().to_owned());
                }
                find(key, field, into);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| find(key, value, into)),
        _ => {}
    }
}

/// Failed and slow calls, sessions that resume too late, clients that send too much or do not read, a collector that
/// refuses.
async fn faults_of_clients(scenario: &mut Scenario, a: &mut Client, b: &mut Client) {
    scenario
        .alarms_by("SwitchboardSetupsFail", async |_| {
            reports(a, b, "failed", 15_000).await;
        })
        .await;
    scenario
        .alarms_by("SwitchboardSetupsSlow", async |_| {
            reports(a, b, "connected", 9_000).await;
        })
        .await;

    for _ in 0..4 {
        let mut stranger = Client::connect(scenario.nodes[0].address).await;
        stranger
            .send(&json!({"type": "login", "name": "gone", "resume": "00112233445566778899aabbccddeeff"}))
            .await;
        assert_eq!(
            stranger.receive_type("login").await["code"],
            "resume_failed"
        );
    }
    scenario.alarms("SwitchboardResumesFail").await;

    scenario
        .alarms_by("SwitchboardClientsTooFast", async |scenario| {
            let mut hasty = Client::connect(scenario.nodes[2].address).await;
            for _ in 0..50 {
                hasty.try_send_text("{\"type\":\"ping\"}").await;
            }
        })
        .await;

    scenario.collector.set_mode(Mode::Refuse);
    let mut caller = scenario.login(2, "caller").await;
    caller
        .send(&json!({"type": "offer", "name": "nobody", "offer": 1}))
        .await;
    caller.receive_type("error").await;
    scenario.alarms("SwitchboardSpansLost").await;

    // Sends more to a client that does not read than the socket buffers hold.
    let body = "x".repeat(60_000);
    let mut number = 0;
    scenario
        .alarms_by("SwitchboardMailboxesOverflow", async |scenario| {
            number += 1;
            let name = format!("deaf{number}");
            let deaf = scenario.login(0, &name).await.stop_reading();
            let mut sender = scenario.login(0, &format!("loud{number}")).await;
            for n in 0..400 {
                let message = json!({"type": "message", "name": name, "message": body, "id": n});
                sender.send(&message).await;
                let answer = sender.receive().await;
                if answer["type"] == "error" {
                    break;
                }
            }
            drop(deaf);
        })
        .await;
}

/// A Redis that loses data, drops connections and delays answers.
async fn faults_of_the_store(scenario: &mut Scenario) {
    let mut late = scenario.login(1, "late").await;
    // Writes to a channel that only nodes should use.
    let stolen = "SET sb:p:{/late} another.1 000000000000000000000000000000aa 0 -";
    let mut connection = scenario.redis.connection().await;
    let words: Vec<&str> = stolen.splitn(3, ' ').collect();
    let mut steal = redis::cmd(words[0]);
    steal.arg(words[1]).arg(words[2]).arg("PX").arg(30_000);
    steal.query_async::<()>(&mut connection).await.unwrap();
    assert_eq!(late.closed().await, Some(4001));
    scenario.alarms("SwitchboardNamesLost").await;

    scenario
        .alarms_by("SwitchboardSubscriptionsBreak", async |scenario| {
            let _ = scenario.redis.try_ask("CLIENT KILL TYPE pubsub").await;
        })
        .await;

    scenario.redis.ask("FLUSHALL").await;
    scenario.alarms("SwitchboardRedisLostData").await;

    scenario
        .alarms_by("SwitchboardRedisSlow", async |scenario| {
            let _ = scenario.redis.try_ask("CLIENT PAUSE 300 ALL").await;
        })
        .await;

    // Many requests wait for a paused Redis.
    let mut connections = Vec::new();
    for n in 0..40 {
        connections.push(
            eventually("a login after the hold", async || {
                let mut peer = Client::connect(scenario.nodes[0].address).await;
                let reply = peer.try_login(&format!("connections{n}")).await;
                (reply["success"] == true).then_some(peer)
            })
            .await,
        );
    }
    let connections = tokio::sync::Mutex::new(connections);
    scenario
        .alarms_by("SwitchboardQueueLong", async |scenario| {
            let _ = scenario.redis.try_ask("CLIENT PAUSE 2000 ALL").await;
            let mut connections = connections.lock().await;
            for peer in connections.iter_mut() {
                for n in 0..32 {
                    peer.send(&json!({"type": "message", "name": "b", "message": n}))
                        .await;
                }
            }
            // Prometheus scrapes four times a second while they wait.
            eventually("it moves again", async || {
                let waiting = scenario.sum("max(switchboard_fabric_queue) > 500").await;
                (waiting > 0.0 || scenario.sum("max(switchboard_fabric_queue)").await < 1.0)
                    .then_some(())
            })
            .await;
        })
        .await;
}

/// A Redis that stays frozen, and nodes that drain and die meanwhile.
async fn the_end_of_the_store(scenario: &mut Scenario, a: &mut Client) {
    scenario.redis.process.signal("STOP");
    scenario.alarms("SwitchboardRedisAway").await;
    for n in 0..20 {
        a.send(&json!({"type": "candidate", "name": "b", "candidate": 1, "id": format!("u{n}")}))
            .await;
    }
    scenario
        .alarms_by("SwitchboardSignalsUnavailable", async |_| {
            a.send(&json!({"type": "candidate", "name": "b", "candidate": 1}))
                .await;
        })
        .await;
    scenario.alarms("SwitchboardRedisErrors").await;
    scenario.alarms("SwitchboardNotReady").await;
    // A node that cannot send leaves drains until its deadline.
    scenario.nodes[0].process.signal("TERM");
    scenario.alarms("SwitchboardDrainStuck").await;
    scenario.nodes[1].process.signal("KILL");
    scenario.alarms("SwitchboardNodeDown").await;
    for node in [0, 2] {
        scenario.nodes[node].process.signal("KILL");
    }
    scenario.alarms("SwitchboardNoNodes").await;
}

#[tokio::test]
async fn every_alert_becomes_true_by_its_fault() {
    let mut scenario = Scenario::build().await;
    let mut a = scenario.login(0, "a").await;
    let mut b = scenario.login(1, "b").await;
    for _ in 0..20 {
        reports(&mut a, &mut b, "connected", 300).await;
    }
    let resumable = Client::login_resumable(scenario.nodes[1].address, "r").await;
    let token = resumable.token.clone();
    resumable.disconnect();
    let resumed = Client::resume(scenario.nodes[0].address, &token).await;
    the_dashboard_shows_something(&scenario, &mut a, &mut b).await;
    // Without another fault no other alert is true, and every rule has data.
    let known: BTreeSet<String> = scenario
        .prometheus
        .rules()
        .await
        .iter()
        .filter(|rule| rule["type"] == "alerting")
        .map(|rule| rule["name"].as_str().unwrap().to_owned())
        .collect();
    // Nobody listens where the webhooks go, from the start.
    let webhooks = "SwitchboardWebhooksFail";
    scenario.alarms(webhooks).await;
    assert_eq!(
        scenario.alerts().await,
        BTreeSet::from([webhooks.to_owned()])
    );

    faults_of_clients(&mut scenario, &mut a, &mut b).await;
    faults_of_the_store(&mut scenario).await;
    the_end_of_the_store(&mut scenario, &mut a).await;
    assert_eq!(scenario.shown, known, "every alert was raised");
    drop(resumed);
}

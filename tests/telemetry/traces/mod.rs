//! Each call is one trace: over two nodes and Redis, up to what the clients report.

mod faults;

use std::process::Command;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;

use crate::setup::{self, Setup, acked, call, candidate, offer};
use testing::collector::ReceivedSpan;
use testing::eventually;
use testing::{Client, peerjs};

const CLIENTS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The span of this name from this node.
fn find<'a>(spans: &'a [ReceivedSpan], name: &str, instance: &str) -> Option<&'a ReceivedSpan> {
    let mut spans = spans.iter();
    spans.find(|seen| (seen.name(), seen.instance()) == (name, instance))
}

fn named<'a>(spans: &'a [ReceivedSpan], name: &str) -> Vec<&'a ReceivedSpan> {
    spans.iter().filter(|seen| seen.name() == name).collect()
}

fn this_host() -> String {
    let said = Command::new("uname").arg("-n").output().unwrap().stdout;
    String::from_utf8(said).unwrap().trim().to_owned()
}

/// A call with a candidate of each side, a report of each side, and a leave.
async fn whole_call(setup: &mut Setup) {
    let mut a = setup.login(0, "TracedUserA").await;
    let mut b = setup.login(1, "TracedUserB").await;
    call(&mut a, &mut b).await;
    acked(&mut a, &candidate(&b.name, "c1")).await;
    b.receive_type("candidate").await;
    acked(&mut b, &candidate(&a.name, "c2")).await;
    a.receive_type("candidate").await;
    let report = |name: &str, id: &str| {
        json!({
            "type": "report", "name": name, "state": "connected", "ms": 812.4, "pair": "srflx", "id": id,
        })
    };
    acked(&mut a, &report(&b.name, "r1")).await;
    acked(&mut b, &report(&a.name, "r2")).await;
    a.send(&json!({"type": "leave", "name": b.name})).await;
    b.receive_type("leave").await;
}

/// Each signal's spans belong together, and each side's spans are children of the span that began the call there.
fn check_parents(spans: &[ReceivedSpan], at_a: &str, at_b: &str) {
    let root = find(spans, "publish offer", at_a).unwrap();
    let reply = find(spans, "process offer", at_b).unwrap();
    let get = |name: &str, at: &str| find(spans, name, at).unwrap();
    for (signal, from, to) in [
        ("offer", at_a, at_b),
        ("answer", at_b, at_a),
        ("candidate", at_a, at_b),
        ("candidate", at_b, at_a),
        ("leave", at_a, at_b),
    ] {
        let (sent, received) = (
            get(&format!("publish {signal}"), from),
            get(&format!("process {signal}"), to),
        );
        assert_eq!(sent.attribute("switchboard.signal"), signal);
        assert_eq!(received.attribute("switchboard.signal"), signal);
        assert_eq!(
            (sent.kind(), received.kind()),
            (SpanKind::Producer, SpanKind::Consumer)
        );
        assert_eq!(received.parent(), sent.id(), "{}", received.line());
        assert_eq!(received.links(), [sent.id()], "{}", received.line());
        assert!(received.span.start_time_unix_nano >= sent.span.start_time_unix_nano);
        // Each side's spans are children of the span that began the call there.
        let start = if from == at_a { root } else { reply };
        match signal {
            "offer" => assert_eq!(sent.parent(), ""),
            // The end of a call that was connected is a trace of its own, with a link.
            "leave" => {
                assert_eq!(
                    (sent.parent(), sent.links()),
                    (String::new(), vec![start.id()])
                );
                assert_ne!(sent.trace(), root.trace());
                assert_eq!(received.trace(), sent.trace());
            }
            _ => assert_eq!(sent.parent(), start.id(), "{}", sent.line()),
        }
    }
    for (at, start) in [(at_a, root), (at_b, reply)] {
        let end = get("connected", at);
        assert_eq!((end.kind(), end.parent()), (SpanKind::Internal, start.id()));
        assert_eq!(end.attribute("switchboard.report.ms"), "812");
        assert_eq!(end.attribute("switchboard.report.pair"), "srflx");
        // The set-up lasts from the side's first span to its report.
        assert_eq!(
            end.span.start_time_unix_nano,
            start.span.start_time_unix_nano
        );
        assert!(end.end() > start.end(), "{}", end.line());
    }
}

async fn one_call_is_one_trace(protocol: &'static str) {
    let mut setup = Setup::of_two(protocol, &[]).await;
    let (at_a, at_b) = (setup.instance(0).await, setup.instance(1).await);
    whole_call(&mut setup).await;
    // The spans that each node must export.
    let expected = [
        ("publish offer", &at_a),
        ("process offer", &at_b),
        ("publish answer", &at_b),
        ("process answer", &at_a),
        ("publish candidate", &at_a),
        ("process candidate", &at_b),
        ("publish candidate", &at_b),
        ("process candidate", &at_a),
        ("connected", &at_a),
        ("connected", &at_b),
        ("publish leave", &at_a),
        ("process leave", &at_b),
    ];
    let spans = setup
        .collector
        .wait_for("every span of the call", |spans| {
            let all = |(name, at): &(&str, &String)| find(spans, name, at).is_some();
            expected.iter().all(all).then(|| spans.to_vec())
        })
        .await;
    assert_eq!(spans.len(), expected.len(), "nothing else");
    let root = find(&spans, "publish offer", &at_a).unwrap();
    for seen in &spans {
        let is_end = seen.name().ends_with("leave");
        assert_eq!(seen.trace() == root.trace(), !is_end, "{}", seen.line());
        assert!(!seen.is_error(), "{}", seen.line());
        assert_eq!(seen.attribute("messaging.client.id"), seen.instance());
        assert_eq!(seen.resource["service.name"], "switchboard");
        assert_eq!(seen.resource["service.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(seen.resource["k8s.pod.name"], "switchboard-0");
        let host = seen.resource.get("host.name");
        assert_eq!(host, Some(&this_host()), "{}", seen.line());
    }
    assert_eq!(root.parent(), "");
    assert_eq!(root.attribute("messaging.system"), "redis");
    assert_eq!(root.attribute("messaging.operation.type"), "send");
    assert_eq!(root.attribute("switchboard.outcome"), "delivered");
    check_parents(&spans, &at_a, &at_b);
    // Metrics use the same endpoint.
    eventually("figures are pushed", async || {
        (setup.collector.metrics() > 10).then_some(())
    })
    .await;
    setup.finish();
}

#[tokio::test]
async fn one_call_is_one_trace_over_grpc() {
    one_call_is_one_trace("grpc").await;
}

#[tokio::test]
async fn one_call_is_one_trace_over_http() {
    one_call_is_one_trace("http/protobuf").await;
}

#[tokio::test]
async fn a_peerjs_call_is_one_trace() {
    let mut setup = Setup::of_two("grpc", &[]).await;
    let (at_a, at_b) = (setup.instance(0).await, setup.instance(1).await);
    let [node_a, node_b] = [setup.nodes[0].address, setup.nodes[1].address];
    setup
        .names
        .extend(["TracedA", "TracedB"].map(str::to_owned));
    let mut a = peerjs::Client::open(node_a, "TracedA", setup::MARKERS[3]).await;
    let body = setup::offer("TracedB").to_string();
    let said =
        |kind: &str, to: &str| format!(r#"{{"type":"{kind}","dst":"{to}","payload":{body}}}"#);
    // The signals wait for an id that is not connected yet.
    a.send(&said("OFFER", "TracedB")).await;
    a.send(&said("CANDIDATE", "TracedB")).await;
    "TracedA".clone_into(&mut a.id);
    a.is_served().await;
    let mut b = peerjs::Client::open(node_b, "TracedB", setup::MARKERS[3]).await;
    assert!(b.receive().await.contains("OFFER"));
    assert!(b.receive().await.contains("CANDIDATE"));
    b.send(&said("ANSWER", "TracedA")).await;
    assert!(a.receive().await.contains("ANSWER"));
    let expected = [
        ("publish offer", &at_a, "waiting"),
        ("publish candidate", &at_a, "waiting"),
        ("process offer", &at_b, ""),
        ("process candidate", &at_b, ""),
        ("publish answer", &at_b, "delivered"),
        ("process answer", &at_a, ""),
    ];
    let spans = setup
        .collector
        .wait_for("every span of the call", |spans| {
            let all = |(name, at, outcome): &(&str, &String, &str)| {
                find(spans, name, at)
                    .is_some_and(|seen| seen.attribute("switchboard.outcome") == *outcome)
            };
            expected.iter().all(all).then(|| spans.to_vec())
        })
        .await;
    let trace = spans[0].trace();
    assert!(spans.iter().all(|seen| seen.trace() == trace));
    setup.finish();
}

#[tokio::test]
async fn a_call_to_an_absent_user_has_a_trace_with_the_reason() {
    let mut setup = Setup::of_two("grpc", &[]).await;
    let mut a = setup.login(0, "TracedUserA").await;
    a.send(&offer("nobody")).await;
    assert_eq!(a.receive_type("error").await["code"], "user_unavailable");
    let (trace, error) = setup
        .collector
        .wait_for("the failure", |spans| {
            let seen = find(spans, "publish offer", spans.first()?.instance())?;
            Some((
                seen.trace(),
                (seen.is_error(), seen.attribute("error.type")),
            ))
        })
        .await;
    assert_eq!(error, (true, "user_unavailable".to_owned()));
    // The log line has the same trace id.
    setup::logged(&setup.nodes[0], &[&trace, "\"code\":\"user_unavailable\""]).await;
    setup.finish();
}

#[tokio::test]
async fn a_clients_traceparent_is_used() {
    let mut setup = Setup::of_two("http/protobuf", &[]).await;
    let mut a = setup.login(0, "TracedUserA").await;
    let mut b = setup.login(1, "TracedUserB").await;
    let mut theirs = offer(&b.name);
    theirs["traceparent"] = CLIENTS.into();
    acked(&mut a, &theirs).await;
    b.receive_type("offer").await;
    let trace = CLIENTS[3..35].to_owned();
    let spans = setup
        .collector
        .wait_for("both ends of the offer", |spans| {
            (spans.len() == 2).then(|| spans.to_vec())
        })
        .await;
    assert!(spans.iter().all(|seen| seen.trace() == trace));
    let sent = named(&spans, "publish offer")[0];
    assert_eq!(sent.parent(), CLIENTS[36..52]);
    // An unsampled traceparent suppresses spans, except for failures.
    let mut quiet = offer("nobody");
    quiet["traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b7-00".into();
    a.send(&quiet).await;
    a.receive_type("error").await;
    let failed = setup
        .collector
        .wait_for("the failure", |spans| {
            spans
                .iter()
                .find(|seen| seen.trace().ends_with("4737"))
                .cloned()
        })
        .await;
    assert!(failed.is_error());
    assert_eq!(failed.attribute("error.type"), "user_unavailable");
    // After a call set-up has ended, an offer begins a new trace that links to the former.
    let report = json!({"type": "report", "name": b.name, "state": "connected", "id": "r"});
    acked(&mut a, &report).await;
    acked(&mut a, &offer(&b.name)).await;
    let next = setup
        .collector
        .wait_for("another trace", |spans| {
            let offers = named(spans, "publish offer").into_iter();
            let mut next = offers.filter(|seen| !seen.is_error());
            next.find(|seen| seen.trace() != trace).cloned()
        })
        .await;
    assert_eq!(next.links(), [sent.id()]);
    setup.finish();
}

#[tokio::test]
async fn an_unsampled_call_exports_only_its_failure() {
    let more = [("OTEL_TRACES_SAMPLER", "parentbased_always_off")];
    let mut setup = Setup::of_two("grpc", &more).await;
    let mut a = setup.login(0, "TracedUserA").await;
    let mut b = setup.login(1, "TracedUserB").await;
    call(&mut a, &mut b).await;
    acked(&mut b, &candidate(&a.name, "c")).await;
    // No spans were built before, so the failure is the first; both sides report it under one trace id.
    acked(
        &mut a,
        &json!({"type": "report", "name": b.name, "state": "failed", "ms": 15000, "id": "r"}),
    )
    .await;
    acked(
        &mut b,
        &json!({"type": "report", "name": a.name, "state": "failed", "ms": 15001, "id": "r"}),
    )
    .await;
    let spans = setup
        .collector
        .wait_for("both reports", |spans| {
            (spans.len() >= 2).then(|| spans.to_vec())
        })
        .await;
    assert_eq!(spans.len(), 2);
    assert_eq!(spans[0].trace(), spans[1].trace());
    assert_ne!(spans[0].instance(), spans[1].instance());
    for seen in &spans {
        assert!(
            seen.is_error() && seen.name() == "failed",
            "{}",
            seen.line()
        );
        assert_eq!(seen.attribute("error.type"), "connection_failed");
        // The call's other spans were not exported, so this one has no parent that is missing.
        assert_eq!(seen.parent(), "", "{}", seen.line());
        for key in [
            "session.id",
            "switchboard.user",
            "switchboard.peer",
            "messaging.client.id",
        ] {
            assert_ne!(seen.attribute(key), "", "{key}: {}", seen.line());
        }
    }
    let words = [spans[0].trace(), "could not connect".to_owned()];
    setup::logged(&setup.nodes[0], &[&words[0], &words[1]]).await;
    setup.finish();
}

#[tokio::test]
async fn spans_have_names_only_if_configured_and_never_tokens() {
    let more = [
        ("SWITCHBOARD_TELEMETRY__USER_NAMES", "plain"),
        ("OTEL_RESOURCE_ATTRIBUTES", "host.name=elsewhere"),
    ];
    let mut setup = Setup::of_two("http/protobuf", &more).await;
    let mut a = setup.login(0, "TracedUserA").await;
    let mut stranger = Client::connect(setup.nodes[0].address).await;
    stranger
        .send(&json!({"type": "login", "name": "b", "token": setup::MARKERS[3]}))
        .await;
    assert_eq!(stranger.receive().await["code"], "unauthorized");
    a.send(&offer("nobody")).await;
    a.receive_type("error").await;
    let seen = setup
        .collector
        .wait_for("the offer", |spans| spans.first().cloned())
        .await;
    assert_eq!(seen.attribute("switchboard.sender"), "/TracedUserA");
    assert_eq!(seen.attribute("messaging.destination.name"), "/nobody");
    assert_eq!(
        seen.resource.get("host.name").map(String::as_str),
        Some("elsewhere"),
        "the operator has the last word"
    );
    setup.names.clear();
    setup.finish();
}

#[tokio::test]
async fn simultaneous_offers_share_one_trace() {
    let mut setup = Setup::of_two("grpc", &[]).await;
    let mut a = setup.login(0, "TracedUserA").await;
    let mut b = setup.login(1, "TracedUserB").await;
    for round in 0..5 {
        a.send(&offer(&b.name)).await;
        b.send(&offer(&a.name)).await;
        a.receive_type("offer").await;
        b.receive_type("offer").await;
        acked(&mut a, &candidate(&b.name, &format!("a{round}"))).await;
        acked(&mut b, &candidate(&a.name, &format!("b{round}"))).await;
        let sent = setup
            .collector
            .wait_for("both candidates", |spans| {
                let sent = named(spans, "publish candidate").into_iter();
                let sent: Vec<String> = sent.map(ReceivedSpan::trace).collect();
                (sent.len() == 2 * (round + 1)).then_some(sent)
            })
            .await;
        let mut of_round = sent
            .iter()
            .filter(|trace| !sent[..2 * round].contains(trace));
        let trace = of_round.next().expect("a trace of its own");
        assert!(of_round.all(|other| other == trace), "{sent:?}");
        a.send(&json!({"type": "leave", "name": b.name})).await;
        b.receive_type("leave").await;
    }
    setup.finish();
}

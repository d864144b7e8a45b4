//! A collector that refuses, hangs or is gone holds up nothing, and gets the spans of the last minutes when it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::setup::{Setup, acked, call, candidate};
use testing::collector::{Collector, Mode};
use testing::dns::{Answer, NameServer};
use testing::eventually;
use testing::proxy::Proxy;
use testing::{Client, Node};

/// Signals of one round, each acknowledged before the next.
const SIGNALS: usize = 300;

async fn talk(a: &mut Client, b: &mut Client, round: usize) -> Duration {
    let start = Instant::now();
    for n in 0..SIGNALS {
        let id = format!("{round}-{n}");
        assert_eq!(acked(a, &candidate(&b.name, &id)).await, "delivered");
        b.receive_type("candidate").await;
    }
    start.elapsed()
}

async fn signalling_continues(protocol: &'static str) {
    // The worst case: every span is built, and the queue is full at once.
    let more = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "64"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "1000"),
    ];
    let mut setup = Setup::of_two(protocol, &more).await;
    let mut a = setup.login(0, "TracedUserA").await;
    let mut b = setup.login(1, "TracedUserB").await;
    call(&mut a, &mut b).await;
    let mut times: [Vec<Duration>; 3] = Default::default();
    let manners = [Mode::Accept, Mode::Refuse, Mode::Hang];
    for round in 0..9 {
        setup.collector.set_mode(manners[round % 3]);
        let asked = setup.collector.exports();
        // Each call has a bounded number of spans.
        a.send(&json!({"type": "leave", "name": b.name})).await;
        b.receive_type("leave").await;
        call(&mut a, &mut b).await;
        times[round % 3].push(talk(&mut a, &mut b, round).await);
        eventually("a node exports", async || {
            // An export without an answer blocks its exporter for a while.
            let is_slow = round % 3 == 2 && round > 2;
            (is_slow || setup.collector.exports() > asked).then_some(())
        })
        .await;
    }
    let [kind, refusing, slow] = times.map(|mut times| {
        times.sort_unstable();
        times[1].as_secs_f64()
    });
    println!(
        "{protocol}: {SIGNALS} signals in {kind:.3} s; with a collector that refuses {:.2} times as long, \
         with one that does not answer {:.2}",
        refusing / kind,
        slow / kind
    );
    // A signal that waited for the collector would take seconds. Medians of three, since the machine may be busy.
    assert!(refusing < 3.0 * kind && slow < 3.0 * kind);
    crate::setup::logged(&setup.nodes[0], &["Cannot export spans"]).await;
    let metrics = setup.nodes[0].metrics().await;
    for lost in ["failed", "dropped"] {
        let start = format!("switchboard_spans_total{{result=\"{lost}\"}}");
        let line = metrics.lines().find(|line| line.starts_with(&start));
        assert_ne!(line.unwrap().split(' ').nth(1), Some("0"), "{lost}");
    }
    // It drains within its deadline though the collector does not answer.
    setup.collector.set_mode(Mode::Hang);
    drop((a, b));
    let asked = Instant::now();
    setup.nodes[0].process.signal("TERM");
    assert_eq!(setup.nodes[0].process.ended().await, Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    setup.finish();
}

#[tokio::test]
async fn signalling_continues_without_a_collector_over_grpc() {
    signalling_continues("grpc").await;
}

#[tokio::test]
async fn signalling_continues_without_a_collector_over_http() {
    signalling_continues("http/protobuf").await;
}

/// The spans of a call arrive within this time of the collector's return.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// Every span of this call, of both nodes.
const SPANS: usize = 8;

async fn a_short_call(setup: &mut Setup, names: [&str; 2]) -> [Client; 2] {
    let mut a = setup.login(0, names[0]).await;
    let mut b = setup.login(1, names[1]).await;
    call(&mut a, &mut b).await;
    acked(&mut a, &candidate(&b.name, "c1")).await;
    b.receive_type("candidate").await;
    acked(&mut b, &candidate(&a.name, "c2")).await;
    a.receive_type("candidate").await;
    [a, b]
}

/// Waits for every span of a call that is not `known`. Returns the call's trace. An export whose answer was lost is
/// repeated, so a span may arrive twice.
async fn every_span_arrives(collector: &Collector, since: Instant, known: Option<&str>) -> String {
    let arrived = collector.wait_for("every span of the call", |spans| {
        let mut calls: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for span in spans {
            calls.entry(span.trace()).or_default().insert(span.id());
        }
        let is_whole =
            |(trace, ids): &(String, BTreeSet<String>)| known != Some(trace) && ids.len() == SPANS;
        calls.into_iter().find(is_whole)
    });
    let (trace, _) = arrived.await;
    assert!(since.elapsed() < BACK_WITHIN, "{:?}", since.elapsed());
    trace
}

/// How many spans the collector did not take from this node, each counted for every try.
async fn failed(node: &Node) -> u64 {
    let metrics = node.metrics().await;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("switchboard_spans_total{result=\"failed\"} "));
    line.unwrap().parse().unwrap()
}

async fn a_call_is_exported_when_the_collector_is_back(protocol: &'static str, away: Mode) {
    let mut setup = Setup::of_two(protocol, &[("OTEL_BSP_EXPORT_TIMEOUT", "3000")]).await;
    setup.collector.set_mode(away);
    let _call = a_short_call(&mut setup, ["TracedUserA", "TracedUserB"]).await;
    crate::setup::logged(&setup.nodes[0], &["Cannot export spans"]).await;
    // Given up once, and tried again.
    let first = failed(&setup.nodes[0]).await;
    eventually("another export fails", async || {
        (failed(&setup.nodes[0]).await > first).then_some(())
    })
    .await;
    setup.collector.set_mode(Mode::Accept);
    every_span_arrives(&setup.collector, Instant::now(), None).await;
    setup.finish();
}

#[tokio::test]
async fn a_call_is_exported_after_a_collector_has_refused_over_grpc() {
    a_call_is_exported_when_the_collector_is_back("grpc", Mode::Refuse).await;
}

#[tokio::test]
async fn a_call_is_exported_after_a_collector_has_refused_over_http() {
    a_call_is_exported_when_the_collector_is_back("http/protobuf", Mode::Refuse).await;
}

#[tokio::test]
async fn a_call_is_exported_after_a_collector_was_silent_over_grpc() {
    a_call_is_exported_when_the_collector_is_back("grpc", Mode::Hang).await;
}

#[tokio::test]
async fn a_call_is_exported_after_a_collector_was_silent_over_http() {
    a_call_is_exported_when_the_collector_is_back("http/protobuf", Mode::Hang).await;
}

/// The collector's machine vanishes without a FIN, and another one has its address.
async fn a_collector_that_has_moved_is_found(protocol: &'static str) {
    let collectors = [Collector::start().await, Collector::start().await];
    let [gone, new] = collectors.each_ref().map(|collector| {
        if protocol == "grpc" {
            collector.grpc
        } else {
            collector.http
        }
    });
    let name = Proxy::start(gone).await.unwrap();
    let endpoint = format!("http://{}", name.address);
    let mut setup = Setup::of_two(protocol, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]).await;
    let _call = a_short_call(&mut setup, ["TracedUserA", "TracedUserB"]).await;
    let first = every_span_arrives(&collectors[0], Instant::now(), None).await;

    name.freeze_open();
    name.set_upstream(new);
    let _other_call = a_short_call(&mut setup, ["TracedUserC", "TracedUserD"]).await;
    every_span_arrives(&collectors[1], Instant::now(), Some(&first)).await;
    setup.finish();
}

#[tokio::test]
async fn a_collector_that_has_moved_is_found_over_grpc() {
    a_collector_that_has_moved_is_found("grpc").await;
}

#[tokio::test]
async fn a_collector_that_has_moved_is_found_over_http() {
    a_collector_that_has_moved_is_found("http/protobuf").await;
}

/// Nodes start before their collector.
#[tokio::test]
async fn a_call_is_exported_to_a_collector_that_starts_late() {
    for protocol in ["grpc", "http/protobuf"] {
        let name = Proxy::start((Ipv4Addr::LOCALHOST, 1).into()).await.unwrap();
        let endpoint = format!("http://{}", name.address);
        let mut setup =
            Setup::of_two(protocol, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]).await;
        let _call = a_short_call(&mut setup, ["TracedUserA", "TracedUserB"]).await;
        crate::setup::logged(&setup.nodes[0], &["Cannot export spans"]).await;
        let collector = Collector::start().await;
        name.set_upstream(if protocol == "grpc" {
            collector.grpc
        } else {
            collector.http
        });
        every_span_arrives(&collector, Instant::now(), None).await;
        setup.finish();
    }
}

/// Nodes start before their collector has a name. Those of each protocol and failure at the same time.
#[tokio::test]
async fn a_call_is_exported_to_a_collector_whose_name_is_late() {
    let failures = [Answer::NoSuchName, Answer::ServerFailure, Answer::Nothing];
    let cases = failures.map(|failure| ["grpc", "http/protobuf"].map(|by| (failure, by)));
    let tests = cases.into_iter().flatten();
    join_all(tests.map(|(failure, protocol)| a_late_name(failure, protocol))).await;
}

async fn a_late_name(failure: Answer, protocol: &'static str) {
    let server = match NameServer::start(failure).await {
        Ok(server) => server,
        Err(error) => return println!("{protocol} not run, since it takes root: {error}"),
    };
    let mut setup = Setup::of_two_by_name(protocol, &server).await;
    let _call = a_short_call(&mut setup, ["TracedUserA", "TracedUserB"]).await;
    crate::setup::logged(&setup.nodes[0], &["Cannot export spans"]).await;
    server.answer(Answer::Localhost);
    let since = Instant::now();
    every_span_arrives(&setup.collector, since, None).await;
    println!("{failure:?}, {protocol}: {:.1?} after it", since.elapsed());
    setup.finish();
}

#[tokio::test]
async fn signalling_continues_while_the_collector_restarts() {
    let mut setup = Setup::of_two("grpc", &[]).await;
    setup.collector.set_mode(Mode::Refuse);
    let mut a = setup.login(0, "TracedUserA").await;
    let mut b = setup.login(1, "TracedUserB").await;
    call(&mut a, &mut b).await;
    crate::setup::logged(&setup.nodes[0], &["Cannot export spans"]).await;
    setup.collector.set_mode(Mode::Accept);
    eventually("spans arrive again", async || {
        acked(&mut a, &candidate(&b.name, "again")).await;
        (!setup.collector.spans().is_empty()).then_some(())
    })
    .await;
    crate::setup::logged(&setup.nodes[0], &["The collector accepts spans again"]).await;
    setup.finish();
}

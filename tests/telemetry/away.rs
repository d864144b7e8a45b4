//! A collector that refuses, hangs or is gone costs nothing but spans.

use std::time::{Duration, Instant};

use crate::setup::{Setup, acked, call, candidate};
use testing::Client;
use testing::collector::Mode;
use testing::eventually;

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

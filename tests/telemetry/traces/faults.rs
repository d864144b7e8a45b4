//! Traces of calls that go through faults: a killed node, a drain, a frozen Redis.

use std::time::{Duration, SystemTime};

use serde_json::json;
use testing::Client;
use testing::collector::ReceivedSpan;

use super::named;
use crate::setup::{Setup, acked, call, candidate, message, offer};

/// The trace of the call.
async fn trace_of(setup: &Setup) -> String {
    let offer = setup.collector.wait_for("the offer", |spans| {
        let offers = named(spans, "publish offer");
        offers.first().map(|seen| seen.trace())
    });
    offer.await
}

/// Waits for a span of this name in the trace.
async fn marked(setup: &Setup, trace: &str, name: &str, at: &str) -> ReceivedSpan {
    setup
        .collector
        .wait_for(&format!("{name} at {at}"), |spans| {
            let marks = named(spans, name).into_iter();
            let mut marks = marks.filter(|seen| seen.trace() == trace && seen.instance() == at);
            marks.next().cloned()
        })
        .await
}

#[tokio::test]
async fn a_call_that_survives_a_kill_has_a_span_for_it() {
    let mut setup = Setup::of_two("grpc", &[]).await;
    let at_a = setup.instance(0).await;
    let mut a = setup.login_resumable(0, "TracedUserA").await;
    let mut b = setup.login_resumable(1, "TracedUserB").await;
    call(&mut a, &mut b).await;
    let trace = trace_of(&setup).await;
    // The killed node had exported its spans with its last batch.
    setup
        .collector
        .wait_for("the answer", |spans| {
            let answers = named(spans, "publish answer");
            (!answers.is_empty()).then_some(())
        })
        .await;
    setup.nodes[1].process.signal("KILL");
    let lost = marked(&setup, &trace, "peer's node lost", &at_a).await;
    assert!(!lost.is_error(), "the call lives");
    // A signal in the meantime is queued, and its span says so.
    assert_eq!(acked(&mut a, &candidate(&b.name, "kept")).await, "queued");
    setup
        .collector
        .wait_for("a queued candidate", |spans| {
            let mut kept = spans.iter().filter(|seen| seen.events() == ["queued"]);
            kept.find(|seen| seen.attribute("switchboard.outcome") == "queued")
                .map(|_| ())
        })
        .await;
    setup.add_node().await;
    let at_c = setup.instance(2).await;
    let mut b = Client::resume(setup.nodes[2].address, &b.token).await;
    b.receive_type("candidate").await;
    marked(&setup, &trace, "resumed", &at_c).await;
    marked(&setup, &trace, "peer resumed", &at_a).await;
    // The call continues in the same trace.
    acked(&mut b, &candidate(&a.name, "after")).await;
    marked(&setup, &trace, "publish candidate", &at_c).await;
    // Nothing waits for a plain peer: that is a failure.
    let mut c = setup.login(2, "TracedUserC").await;
    let mut d = setup.login(0, "TracedUserD").await;
    call(&mut d, &mut c).await;
    setup.nodes[2].process.signal("KILL");
    assert_eq!(d.receive_type("leave").await["reason"], "node_lost");
    setup
        .collector
        .wait_for("the end of the plain call", |spans| {
            let mut gone = named(spans, "peer gone").into_iter();
            gone.find(|seen| {
                seen.is_error()
                    && seen.attribute("error.type") == "node_lost"
                    && seen.trace() != trace
            })
            .map(|_| ())
        })
        .await;
    setup.finish();
}

#[tokio::test]
async fn resumes_and_drains_have_spans() {
    let mut setup = Setup::of_two("http/protobuf", &[]).await;
    let (at_a, at_b) = (setup.instance(0).await, setup.instance(1).await);
    let mut a = setup.login_resumable(0, "TracedUserA").await;
    let mut b = setup.login_resumable(1, "TracedUserB").await;
    call(&mut a, &mut b).await;
    let trace = trace_of(&setup).await;
    let token = b.token.clone();
    b.disconnect();
    marked(&setup, &trace, "detached", &at_b).await;
    let mut b = Client::resume(setup.nodes[1].address, &token).await;
    let resumed = marked(&setup, &trace, "resumed", &at_b).await;
    assert_ne!(resumed.attribute("switchboard.session.generation"), "0");
    marked(&setup, &trace, "peer resumed", &at_a).await;
    assert_eq!(acked(&mut b, &message(&a.name, "m")).await, "delivered");
    a.receive_type("message").await;
    // A's node drains.
    setup.nodes[0].process.signal("TERM");
    a.receive_type("goaway").await;
    assert_eq!(a.closed().await, Some(1012));
    let mut a = Client::resume(setup.nodes[1].address, &a.token).await;
    marked(&setup, &trace, "goaway", &at_a).await;
    let resumed = marked(&setup, &trace, "resumed", &at_b).await;
    assert_eq!(resumed.trace(), trace);
    acked(&mut a, &candidate(&b.name, "after")).await;
    b.receive_type("candidate").await;
    assert_eq!(setup.nodes[0].process.ended().await, Some(0));
    setup.finish();
}

#[tokio::test]
async fn a_frozen_redis_shows_in_the_spans_of_delayed_calls() {
    let mut setup = Setup::of_two("grpc", &[]).await;
    let at_a = setup.instance(0).await;
    let mut a = setup.login_resumable(0, "TracedUserA").await;
    let mut b = setup.login_resumable(1, "TracedUserB").await;
    call(&mut a, &mut b).await;
    let trace = trace_of(&setup).await;
    setup.redis.process.signal("STOP");
    assert_eq!(a.receive_type("status").await["fabric"], "degraded");
    a.send(&candidate(&b.name, "lost")).await;
    assert_eq!(a.receive_type("error").await["code"], "unavailable");
    setup.redis.process.signal("CONT");
    while a.receive_type("status").await["fabric"] != "ok" {}
    marked(&setup, &trace, "broker degraded", &at_a).await;
    marked(&setup, &trace, "broker ok", &at_a).await;
    setup
        .collector
        .wait_for("the candidate's failure", |spans| {
            let mut failed = spans
                .iter()
                .filter(|seen| seen.attribute("error.type") == "unavailable");
            failed
                .find(|seen| seen.trace() == trace && seen.is_error())
                .map(|_| ())
        })
        .await;
    setup.finish();
}

/// The candidates have no id, so their sender gets no outcome before the callee answers.
#[tokio::test]
async fn a_publish_span_lasts_until_redis_has_answered() {
    const SENT: usize = 3;
    let mut setup = Setup::of_two("grpc", &[]).await;
    let mut a = setup.login(0, "TracedUserA").await;
    let mut b = setup.login(1, "TracedUserB").await;
    acked(&mut a, &offer(&b.name)).await;
    b.receive_type("offer").await;
    for _ in 0..SENT {
        let mut without_id = candidate(&b.name, "");
        without_id.as_object_mut().unwrap().remove("id");
        a.send(&without_id).await;
        b.receive_type("candidate").await;
    }
    let sent = setup
        .collector
        .wait_for("the candidates' spans", |spans| {
            let sent: Vec<ReceivedSpan> = named(spans, "publish candidate")
                .into_iter()
                .cloned()
                .collect();
            (sent.len() == SENT).then_some(sent)
        })
        .await;
    for seen in sent {
        let lasted = seen.duration();
        assert!(lasted < Duration::from_millis(300), "{lasted:?}");
        assert_eq!(seen.attribute("switchboard.outcome"), "delivered");
    }
    setup.finish();
}

#[tokio::test]
async fn a_leave_span_lasts_until_redis_has_answered() {
    let mut setup = Setup::of_two("http/protobuf", &[]).await;
    let mut a = setup.login(0, "TracedUserA").await;
    let mut b = setup.login(1, "TracedUserB").await;
    call(&mut a, &mut b).await;
    setup.redis.process.signal("STOP");
    a.send(&json!({"type": "leave", "name": b.name, "id": "l"}))
        .await;
    // Redis did not answer within the timeout, so the leave is sent again.
    assert_eq!(a.receive_type("error").await["code"], "unavailable");
    let since = SystemTime::now();
    setup.redis.process.signal("CONT");
    b.receive_type("leave").await;
    let sent = setup
        .collector
        .wait_for("the leave's span", |spans| {
            named(spans, "publish leave").first().copied().cloned()
        })
        .await;
    assert!(sent.end() > since, "it lasted {:?}", sent.duration());
    assert_eq!(sent.attribute("switchboard.outcome"), "delivered");
    assert!(!sent.is_error());
    setup.finish();
}

/// Without a report a trace would grow for as long as the clients send candidates.
#[tokio::test]
async fn a_call_has_a_bounded_number_of_spans() {
    const CANDIDATES: usize = 250;
    const WITH_SPAN: usize = 200;
    let mut setup = Setup::of_two("grpc", &[]).await;
    let mut a = setup.login(0, "TracedUserA").await;
    let mut b = setup.login(1, "TracedUserB").await;
    call(&mut a, &mut b).await;
    for n in 0..CANDIDATES {
        acked(&mut a, &candidate(&b.name, &n.to_string())).await;
        b.receive_type("candidate").await;
    }
    a.send(&json!({"type": "leave", "name": b.name})).await;
    b.receive_type("leave").await;
    let spans = setup
        .collector
        .wait_for("the end of the call", |spans| {
            let is_over = !named(spans, "process leave").is_empty();
            (is_over && !named(spans, "publish leave").is_empty()).then(|| spans.to_vec())
        })
        .await;
    assert_eq!(named(&spans, "publish candidate").len(), WITH_SPAN);
    assert_eq!(named(&spans, "process candidate").len(), WITH_SPAN);
    let leave = named(&spans, "publish leave")[0];
    let left_out = (CANDIDATES - WITH_SPAN).to_string();
    assert_eq!(
        leave.attribute("switchboard.signals_without_span"),
        left_out
    );
    setup.finish();
}

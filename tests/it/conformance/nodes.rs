//! What every broker promises about nodes, their questions, and their reports of the store.

use std::time::Duration;

use bytes::Bytes;
use switchboard::broker::{Inbound, StoreReport, Topic};
use switchboard::model::{NodeId, SessionId};
use tokio::time::Instant;

use super::harness::Backend;
use testing::Redis;
use testing::{PATIENCE, eventually};

pub(super) async fn a_node_without_heartbeats_is_dead(backend: &Backend) {
    let (here, there) = (backend.connect().await, backend.connect().await);
    let nodes = [there.id.clone(), NodeId::known("never.was")];
    assert_eq!(
        here.broker.nodes(&nodes).await.unwrap().alive,
        [true, false]
    );
    let heartbeat = eventually("the other node's lease expires", async || {
        let beat = here
            .broker
            .heartbeat(&nodes, StoreReport::Known)
            .await
            .unwrap();
        (!beat.alive[0]).then_some(beat)
    })
    .await;
    assert!(heartbeat.own && here.broker.nodes(&[]).await.unwrap().intact);
    assert!(
        !there.broker.nodes(&[]).await.unwrap().intact,
        "its own lease has expired"
    );
    assert!(
        !there
            .broker
            .heartbeat(&[], StoreReport::Known)
            .await
            .unwrap()
            .own,
        "the heartbeat takes the lease anew"
    );
    there
        .broker
        .heartbeat(&[], StoreReport::Known)
        .await
        .unwrap();
    assert!(there.broker.nodes(&[]).await.unwrap().intact);
    here.broker.close().await;
    assert_eq!(
        there
            .broker
            .nodes(std::slice::from_ref(&here.id))
            .await
            .unwrap()
            .alive,
        [false]
    );
}

pub(super) async fn a_question_is_answered_by_the_asked_node(backend: &Backend) {
    let (here, mut there) = (backend.connect().await, backend.connect().await);
    let node = there.id.clone();
    let asks = async |topic, body: Bytes| {
        let within = Duration::from_millis(500);
        here.broker.ask(&node, topic, body, within).await.unwrap()
    };
    let large = Bytes::from(vec![b'\n'; 300_000]);
    for body in [Bytes::from_static(b"what\xff"), large] {
        let (answer, ()) = tokio::join!(asks(Topic::Session, body.clone()), async {
            let Inbound::Challenge(question) = there.receives().await else {
                panic!("expected a challenge")
            };
            assert_eq!((&question.asker, &question.body), (&here.id, &body));
            there.broker.answer(&question, body.clone());
        });
        assert_eq!(answer.as_ref(), Some(&body));
        let (answer, ()) = tokio::join!(asks(Topic::Http, body.clone()), async {
            let question = there.questions.recv().await.unwrap();
            assert_eq!((&question.asker, &question.body), (&here.id, &body));
            there.broker.answer(&question, body.clone());
        });
        assert_eq!(answer, Some(body));
    }
    assert_eq!(
        asks(Topic::Http, Bytes::new()).await,
        None,
        "nobody answers"
    );
    let (nobody, asked) = (NodeId::start("nobody"), Instant::now());
    let within = Duration::from_mins(1);
    let asking = here.broker.ask(&nobody, Topic::Http, Bytes::new(), within);
    assert_eq!(asking.await.unwrap(), None);
    assert!(
        asked.elapsed() < PATIENCE,
        "a missing node is known at once"
    );
}

pub(super) async fn a_locator_is_found_until_it_expires(backend: &Backend) {
    let (here, there) = (backend.connect().await, backend.connect().await);
    let (session, locator) = (SessionId::random(), Bytes::from_static(b"there \xff"));
    assert_eq!(there.broker.located(session).await.unwrap(), None);
    let minute = Duration::from_mins(1);
    let locating = here.broker.locate(session, locator.clone(), minute);
    locating.await.unwrap();
    let located = there.broker.located(session).await.unwrap();
    assert_eq!(located.as_ref(), Some(&locator));
    let shortly = Duration::from_millis(50);
    there
        .broker
        .locate(session, locator, shortly)
        .await
        .unwrap();
    eventually("the locator expires", async || {
        let located = here.broker.located(session).await.unwrap();
        located.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_starting_node_reads_what_others_report_of_redis() {
    let backend = Backend::Redis(Redis::start().await);
    let Backend::Redis(redis) = &backend else {
        unreachable!()
    };
    let (first, second) = (backend.connect().await, backend.connect().await);
    assert_eq!(
        second.broker.nodes(&[]).await.unwrap().report,
        None,
        "neither has reported yet"
    );
    first
        .broker
        .heartbeat(&[], StoreReport::Known)
        .await
        .unwrap();
    assert_eq!(
        second.broker.nodes(&[]).await.unwrap().report,
        Some(StoreReport::Known)
    );
    redis.ask("FLUSHALL").await;
    assert_eq!(second.broker.nodes(&[]).await.unwrap().report, None);
    // The first finds that its lease is gone, and reports that until its guard is over.
    for report in [StoreReport::Known, StoreReport::Guarded] {
        first.broker.heartbeat(&[], report).await.unwrap();
        assert_eq!(
            second.broker.nodes(&[]).await.unwrap().report,
            Some(StoreReport::Guarded)
        );
    }
    first
        .broker
        .heartbeat(&[], StoreReport::Known)
        .await
        .unwrap();
    assert_eq!(
        second.broker.nodes(&[]).await.unwrap().report,
        Some(StoreReport::Known)
    );
}

#[tokio::test]
async fn a_starting_node_ignores_reports_of_another_redis() {
    let backend = Backend::Redis(Redis::start().await);
    let Backend::Redis(redis) = &backend else {
        unreachable!()
    };
    let node = backend.connect().await;
    redis.ask("SET test:e:{n} known-0123456789").await;
    assert_eq!(
        node.broker.nodes(&[]).await.unwrap().report,
        Some(StoreReport::Guarded)
    );
}

//! What every log of events promises, whichever side of a call tells first.

use std::time::{Duration, SystemTime};

use switchboard::broker::{Event, Lease};
use switchboard::model::{CallFact, CallNews, Fact, LeaveReason, PairKind, What};

use super::harness::{Backend, Node, lease};

fn fact(lease: &Lease, what: What) -> Fact {
    Fact {
        session: lease.session,
        generation: lease.generation,
        address: lease.address.clone(),
        at: SystemTime::now(),
        what,
    }
}

/// A fact about the call of `own` with `other`, which the offer `n` began: of `own`, or of the other side.
fn call(
    own: &Lease,
    other: &Lease,
    (began, n): (bool, u64),
    latest: (u64, u64),
    what: CallNews,
) -> Fact {
    let call = CallFact {
        peer: other.address.name.clone(),
        with: other.session,
        began,
        n,
        latest,
        what,
    };
    fact(own, What::Call(call))
}

async fn record(node: &Node, facts: &[Fact]) {
    for fact in facts {
        assert_eq!(node.events.record(fact).await, Ok(0), "{fact:?}");
    }
}

async fn waiting(node: &Node) -> Vec<Event> {
    node.events.events(None, 100).await.unwrap()
}

async fn kinds(node: &Node) -> Vec<String> {
    waiting(node)
        .await
        .into_iter()
        .map(|event| event.kind)
        .collect()
}

const ENDED: CallNews = CallNews::Ended(LeaveReason::Hangup);

pub(super) async fn a_session_begins_and_ends_once(backend: &Backend) {
    let (node, user) = (backend.connect().await, lease("user"));
    let moved = Lease {
        generation: 1,
        ..user.clone()
    };
    record(
        &node,
        &[
            fact(&user, What::Started),
            fact(&moved, What::Resumed),
            fact(&user, What::Moved(Vec::new())),
            fact(&moved, What::Ended(LeaveReason::Lost)),
            fact(&moved, What::Ended(LeaveReason::NodeLost)),
        ],
    )
    .await;
    let events = waiting(&node).await;
    let [started, ended] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(
        (started.kind.as_str(), ended.kind.as_str()),
        ("session.started", "session.ended")
    );
    assert_eq!(ended.id, format!("msg_session_ended_{}", user.session));
    assert_eq!(ended.more, [("reason".to_owned(), "lost".to_owned())]);
    assert_eq!(
        (&ended.users, &ended.sessions),
        (&vec![user.address], &vec![user.session])
    );
    let age = ended.at.elapsed().unwrap_or_default();
    assert!(age < Duration::from_secs(10), "{age:?}");
}

pub(super) async fn both_sides_tell_of_one_call(backend: &Backend) {
    let node = backend.connect().await;
    let (alice, bob) = (lease("alice"), lease("bob"));
    // Numbers of a session that was resumed: Lua cannot tell them apart as numbers.
    let n = (1 << 58) + 1;
    let of_alice = |what| call(&alice, &bob, (true, n), (n, 0), what);
    let of_bob = |what| call(&bob, &alice, (false, n), (0, n), what);
    let facts = [
        of_bob(CallNews::Started),
        of_alice(CallNews::Started),
        of_alice(CallNews::Answered),
        of_bob(CallNews::Answered),
        of_bob(CallNews::Connected(PairKind::Relay)),
        of_alice(ENDED),
        of_bob(ENDED),
        // Late, and of the call that is over.
        of_bob(CallNews::Answered),
    ];
    record(&node, &facts).await;
    assert_eq!(
        kinds(&node).await,
        ["call.started", "call.answered", "call.ended"]
    );
    let events = waiting(&node).await;
    let users = vec![alice.address.clone(), bob.address.clone()];
    assert!(
        events.iter().all(|event| event.users == users),
        "the caller is first: {events:?}"
    );
    let more = |name: &str| {
        let found = events[2].more.iter().find(|(known, _)| known == name);
        found
            .unwrap_or_else(|| panic!("{name}: {events:?}"))
            .1
            .clone()
    };
    assert_eq!(
        (more("reason").as_str(), more("pair").as_str()),
        ("hangup", "relay")
    );
    assert!(more("started") <= more("answered"));
    assert_eq!(events[2].id, format!("msg_call_ended_{}", more("call")));
    // The next call of the same sessions, of which the other side hears late.
    let next = call(&alice, &bob, (true, n + 1), (n + 1, 0), CallNews::Started);
    record(
        &node,
        &[next.clone(), of_bob(CallNews::Started), of_bob(ENDED)],
    )
    .await;
    let kinds = kinds(&node).await;
    assert_eq!(kinds[3..], ["call.started"], "{kinds:?}");
    assert_ne!(waiting(&node).await[3].id, events[0].id);
}

pub(super) async fn two_who_call_at_once_are_in_one_call(backend: &Backend) {
    let node = backend.connect().await;
    let (alice, bob) = (lease("alice"), lease("bob"));
    let of_alice = |latest, what| call(&alice, &bob, (true, 5), latest, what);
    let of_bob = |latest, what| call(&bob, &alice, (true, 7), latest, what);
    let facts = [
        of_alice((5, 0), CallNews::Started),
        of_bob((7, 0), CallNews::Started),
        of_alice((5, 7), CallNews::Answered),
        of_alice((6, 7), ENDED),
        of_bob((7, 6), ENDED),
    ];
    record(&node, &facts).await;
    assert_eq!(
        kinds(&node).await,
        ["call.started", "call.answered", "call.ended"]
    );
    // Bob's node tells of its offer only now: it was of that call.
    record(&node, &[of_bob((7, 6), CallNews::Started)]).await;
    assert_eq!(kinds(&node).await.len(), 3);
}

pub(super) async fn events_wait_in_order_until_they_are_told(backend: &Backend) {
    let (one, other) = (backend.connect().await, backend.connect().await);
    let users: Vec<Lease> = (0..5)
        .map(|number| lease(&format!("user {number}")))
        .collect();
    let facts: Vec<Fact> = users.iter().map(|user| fact(user, What::Started)).collect();
    record(&one, &facts).await;
    let events = other.events.events(None, 3).await.unwrap();
    let names = |events: &[Event]| -> Vec<String> {
        let name = |event: &Event| event.users[0].name.as_str().to_owned();
        events.iter().map(name).collect()
    };
    assert_eq!(names(&events), ["user 0", "user 1", "user 2"]);
    let rest = other
        .events
        .events(Some(&events[2].place), 100)
        .await
        .unwrap();
    assert_eq!(names(&rest), ["user 3", "user 4"]);
    other.events.done(&events[0], None).await.unwrap();
    other
        .events
        .done(&events[1], Some("nobody took it"))
        .await
        .unwrap();
    assert_eq!(names(&waiting(&one).await), ["user 2", "user 3", "user 4"]);
    assert_eq!(one.events.waiting().await, Ok(3));
}

pub(super) async fn one_node_tells_events(backend: &Backend) {
    let (one, other) = (backend.connect().await, backend.connect().await);
    let within = Duration::from_millis(300);
    assert_eq!(one.events.lead(within).await, Ok(true));
    assert_eq!(other.events.lead(within).await, Ok(false));
    assert_eq!(one.events.lead(within).await, Ok(true), "again");
    testing::eventually("it runs out", async || {
        other.events.lead(within).await.unwrap().then_some(())
    })
    .await;
    assert_eq!(one.events.lead(within).await, Ok(false));
}

use super::*;
use crate::session::state::call::EVERYTHING;
use crate::session::state::call_changes::Ending;

struct Fixture {
    calls: Calls,
    bob: UserName,
    session: SessionId,
    far: NodeId,
}

fn holder(session: SessionId, generation: u32, node: &NodeId) -> Holder {
    Holder {
        callable_by: None,
        node: node.clone(),
        session,
        generation,
        flags: Flags::default(),
    }
}

fn at(session: SessionId, generation: u32, node: &NodeId) -> PeerLocation {
    PeerLocation {
        session,
        generation,
        node: node.clone(),
    }
}

fn fixture() -> Fixture {
    let calls = Calls::new(
        (SessionId::random(), 0),
        Arc::new(LocalNode::for_tests("here")),
    );
    let bob = UserName::parse("bob").unwrap();
    Fixture {
        calls,
        bob,
        session: SessionId::random(),
        far: NodeId::known("far"),
    }
}

#[test]
fn a_call_is_watched_as_long_as_it_lasts() {
    let Fixture {
        mut calls,
        bob,
        session,
        far,
    } = fixture();
    calls.start(&bob, 1);
    assert!(
        calls
            .node
            .peers
            .watched(std::time::Duration::ZERO)
            .is_empty()
    );
    assert!(!calls.reached(&bob, &holder(session, 0, &far), 1, true));
    assert!(
        !calls.join(&bob, at(session, 0, &far), 1),
        "its answer is of the same call"
    );
    assert_eq!(
        calls.node.peers.watched(std::time::Duration::ZERO),
        std::slice::from_ref(&far)
    );
    assert_eq!(calls.on_node(&far), std::slice::from_ref(&bob));
    assert_eq!(calls.end(&bob, session, 90, 1), Ending::Over);
    assert!(
        calls
            .node
            .peers
            .watched(std::time::Duration::ZERO)
            .is_empty()
    );
    assert_eq!(calls.end(&bob, session, 90, 1), Ending::NotOurs);
}

#[test]
fn an_offer_to_nobody_starts_nothing_and_a_later_one_does() {
    let Fixture {
        mut calls,
        bob,
        session,
        far,
    } = fixture();
    calls.start(&bob, 1);
    calls.start(&bob, 2);
    calls.failed(&bob, 1);
    calls.reached(&bob, &holder(session, 0, &far), 2, true);
    assert_eq!(calls.peers(), std::slice::from_ref(&bob));
    calls.start(&bob, 3);
    calls.failed(&bob, 3);
    assert_eq!(calls.peers(), [bob], "the call was there before");
}

#[test]
fn the_next_session_of_a_name_ends_the_call_with_the_last() {
    let Fixture {
        mut calls,
        bob,
        session,
        far,
    } = fixture();
    calls.join(&bob, at(session, 0, &far), 1);
    let next = SessionId::random();
    assert!(calls.join(&bob, at(next, 0, &NodeId::known("here")), 1));
    assert_eq!(
        calls.end(&bob, session, 90, 9),
        Ending::NotOurs,
        "a late leave of the last session"
    );
    assert!(
        calls.reached(&bob, &holder(SessionId::random(), 0, &far), 4, false),
        "a candidate reached a third"
    );
    assert!(calls.peers().is_empty());
    assert!(
        calls
            .node
            .peers
            .watched(std::time::Duration::ZERO)
            .is_empty()
    );
}

#[test]
fn a_leave_that_did_not_hear_the_new_offer_does_not_end_the_new_call() {
    let Fixture {
        mut calls,
        bob,
        session,
        far,
    } = fixture();
    // We left the call and offer again, while the leave for the old call is under way.
    calls.start(&bob, 5);
    calls.reached(&bob, &holder(session, 0, &far), 5, true);
    assert_eq!(calls.end(&bob, session, 90, 3), Ending::NotOurs);
    // We renegotiate a call that the peer leaves meanwhile: the call ends, and our offer begins the next.
    calls.start(&bob, 7);
    assert_eq!(calls.end(&bob, session, 90, 6), Ending::Over);
    assert_eq!(calls.peers(), std::slice::from_ref(&bob));
    assert_eq!(calls.end(&bob, session, 90, 7), Ending::Over);
    assert!(calls.peers().is_empty());
}

#[test]
fn a_leave_that_comes_late_does_not_end_the_call_that_was_offered_after_it() {
    let Fixture {
        mut calls,
        bob,
        session,
        far,
    } = fixture();
    calls.join(&bob, at(session, 0, &far), 1);
    calls.join(&bob, at(session, 0, &far), 11);
    assert_eq!(calls.end(&bob, session, 10, 0), Ending::NotOurs);
    assert_eq!(calls.end(&bob, session, 12, 0), Ending::Over);
    assert_eq!(calls.end(&bob, session, 12, 0), Ending::NotOurs, "once");
}

#[test]
fn the_latest_connection_of_a_peer_is_believed() {
    let Fixture {
        mut calls,
        bob,
        session,
        far,
    } = fixture();
    let (near, other) = (NodeId::known("near"), NodeId::known("other"));
    assert!(!calls.moved(&bob, at(session, 1, &far)), "in no call");
    calls.start(&bob, 1);
    assert!(
        calls.moved(&bob, at(session, 1, &far)),
        "it has our offer, before we know"
    );
    assert!(!calls.reached(&bob, &holder(session, 0, &near), 1, true));
    assert_eq!(calls.on_node(&far), std::slice::from_ref(&bob));
    assert!(calls.moved(&bob, at(session, 3, &near)));
    // From an earlier connection: repeated, or late.
    assert!(calls.moved(&bob, at(session, 2, &far)));
    calls.join(&bob, at(session, 2, &far), 7);
    assert_eq!(calls.on_node(&near), std::slice::from_ref(&bob));
    calls.heard(&bob, at(session, 4, &other), 8);
    assert_eq!(
        calls.node.peers.watched(std::time::Duration::ZERO),
        [other],
        "whatever it says tells where it is"
    );
}

#[test]
fn who_leaves_for_good_leaves_what_is_under_way_to_it() {
    let Fixture {
        mut calls,
        bob,
        session,
        far,
    } = fixture();
    calls.start(&bob, 1);
    calls.reached(&bob, &holder(session, 0, &far), 1, true);
    calls.start(&bob, 2);
    assert_eq!(calls.end(&bob, session, 9, EVERYTHING), Ending::Over);
    assert!(calls.peers().is_empty(), "the second offer begins nothing");
}

#[test]
fn a_session_begins_so_many_calls_and_no_more() {
    let Fixture { mut calls, bob, .. } = fixture();
    for number in 0..CALLS {
        let peer = UserName::parse(&format!("peer {number}")).unwrap();
        assert!(calls.has_room(&peer));
        calls.start(&peer, 1);
    }
    assert!(!calls.has_room(&bob));
    let known = UserName::parse("peer 7").unwrap();
    assert!(calls.has_room(&known), "it goes on");
    calls.remove(&known);
    assert!(calls.has_room(&bob));
}

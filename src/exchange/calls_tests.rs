use super::*;

struct Fixture {
    calls: Calls,
    bob: UserName,
    session: SessionId,
    far: NodeId,
}

fn fixture() -> Fixture {
    let watch = Arc::<NodeWatch>::default();
    let calls = Calls::new(SessionId::random(), NodeId::known("here"), watch);
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
    assert!(calls.watch.watched(std::time::Duration::ZERO).is_empty());
    assert!(!calls.reached(&bob, session, &far, 1, true));
    assert!(
        !calls.join(&bob, session, &far, 1),
        "its answer is of the same call"
    );
    assert_eq!(
        calls.watch.watched(std::time::Duration::ZERO),
        std::slice::from_ref(&far)
    );
    assert_eq!(calls.on_node(&far), std::slice::from_ref(&bob));
    assert_eq!(calls.end(&bob, session, 90, 1), Ending::Over);
    assert!(calls.watch.watched(std::time::Duration::ZERO).is_empty());
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
    calls.reached(&bob, session, &far, 2, true);
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
    calls.join(&bob, session, &far, 1);
    let next = SessionId::random();
    assert!(calls.join(&bob, next, &NodeId::known("here"), 1));
    assert_eq!(
        calls.end(&bob, session, 90, 9),
        Ending::NotOurs,
        "a late leave of the last session"
    );
    assert!(
        calls.reached(&bob, SessionId::random(), &far, 4, false),
        "a candidate reached a third"
    );
    assert!(calls.peers().is_empty());
    assert!(calls.watch.watched(std::time::Duration::ZERO).is_empty());
}

#[test]
fn a_leave_that_did_not_hear_the_new_offer_does_not_end_the_new_call() {
    let Fixture {
        mut calls,
        bob,
        session,
        far,
    } = fixture();
    // We left the call before, and offer anew while the leave for the old call is under way.
    calls.start(&bob, 5);
    calls.reached(&bob, session, &far, 5, true);
    assert_eq!(calls.end(&bob, session, 90, 3), Ending::NotOurs);
    // We renegotiate a call that the peer leaves meanwhile: over, and begun anew by what is under way.
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
    calls.join(&bob, session, &far, 1);
    calls.join(&bob, session, &far, 11);
    assert_eq!(calls.end(&bob, session, 10, 0), Ending::NotOurs);
    assert_eq!(calls.end(&bob, session, 12, 0), Ending::Over);
    assert_eq!(calls.end(&bob, session, 12, 0), Ending::NotOurs, "once");
}

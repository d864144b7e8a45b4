//! What every broker promises about sending.

use std::time::Duration;

use switchboard::broker::{Envelope, Holder, Inbound, Payload, Receipts, SendOptions, Sent};
use switchboard::model::{LeaveReason, Offset, SessionId};

use super::harness::{Backend, envelope_from, lease, outcome};
use super::resumable::claimed;
use testing::eventually;

pub(super) async fn a_send_reports_its_outcome(backend: &Backend) {
    let (here, mut there) = (backend.connect().await, backend.connect().await);
    let (user, sender) = (lease("user"), lease("sender"));
    let message = |n| envelope_from(&sender, &here.id, n);
    assert_eq!(
        here.sends(&user.address, None, message(1)).await,
        Ok(Sent::Absent)
    );
    there.claims(&user).await;
    let holder: Holder = user.held_by(&there.id);
    assert_eq!(
        here.sends(&user.address, None, message(2)).await,
        Ok(Sent::To(holder.clone()))
    );
    assert_eq!(
        here.sends(&user.address, Some(SessionId::random()), message(3))
            .await,
        Ok(Sent::Absent)
    );
    let leave = Envelope {
        payload: Payload::Leave {
            reason: LeaveReason::Hangup,
            heard: 7,
        },
        ..message(4)
    };
    assert_eq!(
        here.sends(&user.address, Some(user.session), leave.clone())
            .await,
        Ok(Sent::To(holder))
    );
    let (session, entry) = there.receives_push().await;
    assert_eq!((session, entry.envelope), (user.session, message(2)));
    assert_eq!(there.receives_push().await.1.envelope, leave);
}

pub(super) async fn an_absence_is_told_to_those_who_may_call(backend: &Backend) {
    let node = backend.connect().await;
    let user = lease("user").address;
    let outcomes = async || {
        let mut outcomes = Vec::new();
        for name in ["friend", "team-7", "stranger"] {
            let message = envelope_from(&lease(name), &node.id, 1);
            outcomes.push(node.sends(&user, None, message).await.unwrap());
        }
        outcomes
    };
    let (absent, forbidden) = (Sent::Absent, Sent::NotCallable);
    let nobody_knows = [absent.clone(), absent.clone(), absent.clone()];
    assert_eq!(outcomes().await, nobody_knows);
    let names = ["friend", "team-*"].into_iter().collect();
    let long = Duration::from_mins(1);
    node.broker.set_callers(&user, Some(&names), long);
    assert_eq!(
        outcomes().await,
        [absent.clone(), absent, forbidden.clone()]
    );
    let nobody = [""; 0].into_iter().collect();
    node.broker.set_callers(&user, Some(&nobody), long);
    assert_eq!(
        outcomes().await,
        [forbidden.clone(), forbidden.clone(), forbidden.clone()]
    );
    // An answer to somebody in a call, and a leave, are no calls.
    let stranger = lease("stranger");
    let message = envelope_from(&stranger, &node.id, 2);
    let only = Some(stranger.session);
    assert_eq!(node.sends(&user, only, message).await, Ok(Sent::Absent));
    node.broker.set_callers(&user, None, long);
    assert_eq!(outcomes().await, nobody_knows);
    node.broker
        .set_callers(&user, Some(&nobody), Duration::from_millis(300));
    assert_eq!(outcomes().await[2], forbidden);
    eventually("it is forgotten", async || {
        (outcomes().await == nobody_knows).then_some(())
    })
    .await;
}

pub(super) async fn only_those_whom_a_lease_names_reach_it(backend: &Backend) {
    let (here, there) = (backend.connect().await, backend.connect().await);
    for resumable in [false, true] {
        let mut user = lease(if resumable { "resumable" } else { "plain" });
        user.flags.resumable = resumable;
        user.callable_by = Some(["friend", "team-*", "a*,b ü*"].into_iter().collect());
        there.claims(&user).await;
        let holder = user.held_by(&there.id);
        let found = here.broker.holders(std::slice::from_ref(&user.address));
        assert_eq!(found.await.unwrap(), [Some(holder.clone())]);
        for (name, reaches) in [
            ("friend", true),
            ("friends", false),
            ("frien", false),
            ("team-7", true),
            ("team", false),
            ("a*,b üb", true),
            ("axb", false),
            ("b ü", false),
        ] {
            let sender = lease(name);
            let message = |n| envelope_from(&sender, &here.id, n);
            let sent = here.sends(&user.address, None, message(1)).await;
            let expected = if reaches {
                Sent::To(holder.clone())
            } else {
                Sent::NotCallable
            };
            assert_eq!(sent, Ok(expected), "{name}");
            for (always, in_call) in [(true, false), (false, true)] {
                let options = SendOptions {
                    always,
                    in_call,
                    ..SendOptions::default()
                };
                let receipts = Receipts::default();
                let receipt = receipts.issue(false, false);
                here.broker
                    .send(&user.address, options, message(2), receipt);
                assert_eq!(
                    outcome(&receipts).await,
                    Ok(Sent::To(holder.clone())),
                    "{name}"
                );
            }
        }
    }
}

pub(super) async fn envelopes_arrive_in_order_before_the_barrier(backend: &Backend) {
    let (here, mut there) = (backend.connect().await, backend.connect().await);
    let (user, sender) = (lease("user"), lease("sender"));
    there.claims(&user).await;
    let receipts = Receipts::default();
    for n in 1..=1000 {
        here.broker.send(
            &user.address,
            SendOptions::default(),
            envelope_from(&sender, &here.id, n),
            receipts.issue(false, false),
        );
    }
    for _ in 1..=1000 {
        assert!(matches!(outcome(&receipts).await, Ok(Sent::To(_))));
    }
    there.broker.barrier(&user).await.unwrap();
    for n in 1..=1000 {
        assert_eq!(there.receives_push().await.1.envelope.n, n);
    }
    assert!(matches!(there.receives().await, Inbound::Barrier(session) if session == user.session));
}

pub(super) async fn missed_pushes_are_announced_and_stay_in_the_inbox(backend: &Backend) {
    let (here, mut there) = (backend.connect().await, backend.connect().await);
    let ((user, _), sender) = (claimed(&there, "user").await, lease("sender"));
    backend.block_pushes(&there.id).await;
    for n in 1..=50 {
        here.sends(&user.address, None, envelope_from(&sender, &here.id, n))
            .await
            .unwrap();
    }
    backend.unblock_pushes(&there.id).await;
    let mut pushed = Vec::new();
    loop {
        match there.receives().await {
            Inbound::Push { entries, .. } => pushed.extend(entries),
            Inbound::Gap(None) => break,
            other => panic!("{other:?}"),
        }
    }
    // Pushes before the gap arrive in order, without a hole.
    assert!(
        pushed
            .iter()
            .zip(1..)
            .all(|(entry, n)| entry.envelope.n == n)
    );
    let last = pushed.last().map(|entry| entry.id).unwrap_or_default();
    let read = there.broker.read(&user, last).await.unwrap();
    assert_eq!(pushed.len() + read.len(), 50);
    here.sends(&user.address, None, envelope_from(&sender, &here.id, 51))
        .await
        .unwrap();
    let (_, entry) = loop {
        let pushed = there.receives_push().await;
        if pushed.1.envelope.n == 51 {
            break pushed;
        }
    };
    assert_eq!(there.broker.read(&user, entry.id).await.unwrap().len(), 0);
}

/// No inbox stores envelopes for a plain session. While its node misses pushes, they wait at the sender or are refused.
pub(super) async fn a_plain_session_receives_envelopes_after_the_gap(backend: &Backend) {
    let (here, mut there) = (backend.connect().await, backend.connect().await);
    let (user, sender) = (lease("user"), lease("sender"));
    there.claims(&user).await;
    backend.block_pushes(&there.id).await;
    let during = here
        .sends(&user.address, None, envelope_from(&sender, &here.id, 1))
        .await;
    backend.unblock_pushes(&there.id).await;
    let after = eventually("the node can be reached again", async || {
        let message = envelope_from(&sender, &here.id, 2);
        here.sends(&user.address, None, message).await.ok()
    })
    .await;
    assert_eq!(after, Sent::To(user.held_by(&there.id)));
    let mut numbers = Vec::new();
    let mut gaps = 0;
    while numbers.last() != Some(&2) {
        match there.receives().await {
            Inbound::Direct { envelopes, .. } => {
                numbers.extend(envelopes.iter().map(|envelope| envelope.n));
            }
            Inbound::Gap(None) => gaps += 1,
            other => panic!("{other:?}"),
        }
    }
    // The broken connection may have received the first.
    assert!(numbers == [1, 2] || (numbers == [2] && gaps > 0));
    assert!(during.is_ok() || numbers == [2], "{during:?} {numbers:?}");
    assert!(
        there
            .broker
            .read(&user, Offset::default())
            .await
            .unwrap()
            .is_empty()
    );
}

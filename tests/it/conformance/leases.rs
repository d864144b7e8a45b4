//! What every broker promises about leases.

use futures_util::future::join_all;
use switchboard::broker::{Claim, Lease, RESERVED_FOR, Renewal, Sent, StoreReport};
use switchboard::model::{Offset, Secret, SessionId};

use super::harness::{Backend, envelope_from, lease};
use super::resumable::claimed;
use testing::eventually;

pub(super) async fn a_name_has_one_holder(backend: &Backend) {
    let (here, there) = (backend.connect().await, backend.connect().await);
    let leases: Vec<Lease> = (0..100).map(|_| lease("wanted")).collect();
    let claims = leases.iter().enumerate().map(|(number, lease)| {
        let node = [&here, &there][number % 2];
        async move { node.broker.claim(lease, None, None, None).await.unwrap() }
    });
    let claims = join_all(claims).await;
    let winner = claims
        .iter()
        .position(|claim| *claim == Claim::Won)
        .unwrap();
    let holder = leases[winner].held_by(&[&here, &there][winner % 2].id);
    for (number, claim) in claims.into_iter().enumerate() {
        assert_eq!(
            claim,
            if number == winner {
                Claim::Won
            } else {
                Claim::Held(holder.clone())
            }
        );
    }
    let found = here
        .broker
        .holders(&[leases[0].address.clone(), lease("nobody").address])
        .await
        .unwrap();
    assert_eq!(found, [Some(holder), None]);
}

pub(super) async fn a_claimed_name_starts_with_an_empty_inbox(backend: &Backend) {
    let mut here = backend.connect().await;
    let (first, _) = claimed(&here, "user").await;
    let second = Lease {
        session: SessionId::random(),
        ..first.clone()
    };
    let hash = Secret::random().hash_for(&second.address);
    here.sends(&first.address, None, envelope_from(&first, &here.id, 1))
        .await
        .unwrap();
    here.receives_push().await;
    let holder = first.held_by(&here.id);
    assert_eq!(
        here.broker
            .claim(&second, Some(&holder), Some(&hash), None)
            .await
            .unwrap(),
        Claim::Won,
        "a claim over a dead holder wins"
    );
    assert!(
        here.broker
            .read(&second, Offset::default())
            .await
            .unwrap()
            .is_empty()
    );
    here.sends(&second.address, None, envelope_from(&first, &here.id, 2))
        .await
        .unwrap();
    here.receives_push().await;
    let read = here.broker.read(&first, Offset::default()).await.unwrap();
    assert!(
        read.is_empty(),
        "a session that lost the name cannot read its inbox"
    );
    assert_eq!(
        here.broker
            .read(&second, Offset::default())
            .await
            .unwrap()
            .len(),
        1
    );
    let third = lease("user");
    let claim = here
        .broker
        .claim(&third, Some(&holder), None, None)
        .await
        .unwrap();
    assert_eq!(
        claim,
        Claim::Held(second.held_by(&here.id)),
        "a claim over a dead holder does not replace another one"
    );
}

pub(super) async fn only_the_holder_renews_and_releases(backend: &Backend) {
    let (here, there) = (backend.connect().await, backend.connect().await);
    let (mine, stranger, lost) = (lease("user"), lease("user"), lease("lost"));
    here.claims(&mine).await;
    assert_eq!(
        there.broker.renew(vec![stranger.clone()]).await.unwrap(),
        [Renewal::Lost]
    );
    there
        .broker
        .release(
            &stranger.address,
            &stranger.held_by(&there.id),
            Offset::default(),
        )
        .await
        .unwrap();
    let renewed = here
        .broker
        .renew(vec![mine.clone(), lost.clone(), stranger.clone()])
        .await
        .unwrap();
    assert_eq!(renewed, [Renewal::Mine, Renewal::Regained, Renewal::Lost]);
    assert_eq!(
        there.broker.holders(&[lost.address]).await.unwrap()[0]
            .as_ref()
            .unwrap()
            .node,
        here.id
    );
    here.broker
        .release(&mine.address, &mine.held_by(&here.id), Offset::default())
        .await
        .unwrap();
    there.claims(&stranger).await;
}

/// A name that is free is reserved for whoever has the proof, until it is claimed with it.
pub(super) async fn a_reserved_name_is_for_its_owner(backend: &Backend) {
    let (here, there) = (backend.connect().await, backend.connect().await);
    let (owner, again, stranger) = (lease("user"), lease("user"), lease("user"));
    let proof = |text| Secret::claimed(text).hash_for(&owner.address);
    here.claims(&owner).await;
    here.broker.reserve(&owner.address, &proof("a"));
    let gives_back = async |lease: &Lease| {
        let holder = lease.held_by(&here.id);
        let given_back = here
            .broker
            .release(&lease.address, &holder, Offset::default());
        given_back.await.unwrap();
    };
    gives_back(&owner).await;
    for from in [None, Some(proof("b"))] {
        let claim = there
            .broker
            .claim(&stranger, None, None, from.as_ref())
            .await;
        match claim.unwrap() {
            Claim::Reserved(left) => assert!(!left.is_zero() && left <= RESERVED_FOR),
            other => panic!("{other:?}"),
        }
    }
    let holders = there
        .broker
        .holders(std::slice::from_ref(&owner.address))
        .await;
    assert_eq!(holders.unwrap(), [None], "nobody has it");
    let claim = here
        .broker
        .claim(&again, None, None, Some(&proof("a")))
        .await;
    assert_eq!(claim.unwrap(), Claim::Won);
    gives_back(&again).await;
    there.claims(&stranger).await;
}

/// A node is cut off. Meanwhile another session claims and releases the name: the node must not take it back.
pub(super) async fn a_name_that_another_session_held_meanwhile_is_lost(backend: &Backend) {
    let (here, there) = (backend.connect().await, backend.connect().await);
    let (user, other) = (lease("user"), lease("user"));
    here.claims(&user).await;
    let dead = user.held_by(&here.id);
    let taken = there
        .broker
        .claim(&other, Some(&dead), None, None)
        .await
        .unwrap();
    assert_eq!(taken, Claim::Won);
    there
        .broker
        .release(&other.address, &other.held_by(&there.id), Offset::default())
        .await
        .unwrap();
    let renewed = here.broker.renew(vec![user.clone()]).await.unwrap();
    assert_eq!(renewed, [Renewal::Lost]);
    // The next claim is an ordinary one.
    there.claims(&other).await;
    assert_eq!(
        there.broker.renew(vec![other]).await.unwrap(),
        [Renewal::Mine]
    );
}

pub(super) async fn a_release_returns_unread_entries(backend: &Backend) {
    let mut here = backend.connect().await;
    let ((user, _), sender) = (claimed(&here, "user").await, lease("sender"));
    for n in 1..=3 {
        here.sends(&user.address, None, envelope_from(&sender, &here.id, n))
            .await
            .unwrap();
    }
    let (_, first) = here.receives_push().await;
    let unread = here
        .broker
        .release(&user.address, &user.held_by(&here.id), first.id)
        .await
        .unwrap();
    assert_eq!(
        unread
            .iter()
            .map(|entry| entry.envelope.n)
            .collect::<Vec<_>>(),
        [2, 3]
    );
    let gone = here
        .sends(&user.address, None, envelope_from(&sender, &here.id, 4))
        .await;
    assert_eq!(gone, Ok(Sent::Absent));
}

pub(super) async fn an_unrenewed_lease_expires(backend: &Backend) {
    let (here, there) = (backend.connect().await, backend.connect().await);
    let (user, kept) = (lease("user"), lease("kept"));
    here.claims(&user).await;
    here.claims(&kept).await;
    eventually("the lease expires", async || {
        assert_eq!(
            here.broker.renew(vec![kept.clone()]).await.unwrap(),
            [Renewal::Mine]
        );
        there
            .broker
            .heartbeat(&[], StoreReport::Known)
            .await
            .unwrap();
        let holders = there
            .broker
            .holders(std::slice::from_ref(&user.address))
            .await
            .unwrap();
        holders[0].is_none().then_some(())
    })
    .await;
    assert_eq!(
        there
            .sends(&user.address, None, envelope_from(&kept, &there.id, 1))
            .await,
        Ok(Sent::Absent)
    );
    there.claims(&lease("user")).await;
    assert_eq!(
        here.broker.renew(vec![user]).await.unwrap(),
        [Renewal::Lost]
    );
}

//! What every fabric promises about what waits for names that nobody holds.

use std::time::Duration;

use switchboard::fabric::{Flags, Lease, Outcome, Postage, Room, Sent};
use switchboard::model::{EntryId, Realm, Secret};

use super::{Claim, Ground, Plug, lease, saying};

const PATIENT: Postage = Postage {
    only: None,
    urgent: false,
    patience: Some(Duration::from_secs(20)),
};

impl Plug {
    async fn waits(&self, to: &Lease, from: &Lease, n: u64) -> Outcome {
        let envelope = saying(from, &self.node, n);
        self.posts(&to.address, PATIENT, envelope).await
    }

    /// What it reads in the inbox of its lease.
    async fn finds(&self, lease: &Lease) -> Vec<u64> {
        let entries = self.fabric.read(lease, EntryId::default()).await.unwrap();
        entries.iter().map(|entry| entry.envelope.n).collect()
    }
}

/// A lease of a resumable session, and the hash of its secret.
fn resumable(name: &str) -> Lease {
    Lease {
        flags: Flags {
            resumable: true,
            detached: false,
        },
        ..lease(name)
    }
}

pub(super) async fn what_waits_is_found_by_whoever_claims_the_name(ground: &Ground) {
    let (here, mut there) = (ground.plug().await, ground.plug().await);
    let sender = lease("sender");
    for awaited in [lease("plain"), resumable("resumable")] {
        for n in 1..=3 {
            assert_eq!(here.waits(&awaited, &sender, n).await, Ok(Sent::Waits));
        }
        let secret = Secret::random().hash_for(&awaited.address);
        let secret = awaited.flags.resumable.then_some(&secret);
        let claim = there.fabric.claim(&awaited, None, secret).await.unwrap();
        assert_eq!(claim, Claim::Awaited);
        assert_eq!(there.finds(&awaited).await, [1, 2, 3]);
        // From now on it is sent as ever, and comes behind.
        let sent = here.waits(&awaited, &sender, 4).await;
        assert!(matches!(sent, Ok(Sent::To(_))), "{sent:?}");
        there.hears_push().await;
        assert_eq!(there.finds(&awaited).await, [1, 2, 3, 4]);
        let left = there
            .fabric
            .release(&awaited, EntryId::default())
            .await
            .unwrap();
        assert_eq!(left.len(), 4);
        let again = Lease {
            address: awaited.address.clone(),
            ..lease("again")
        };
        there.wins(&again).await;
        assert!(there.finds(&again).await.is_empty(), "it is found once");
    }
}

pub(super) async fn what_is_withdrawn_is_not_found(ground: &Ground) {
    let here = ground.plug().await;
    let (sender, other, awaited) = (lease("sender"), lease("other"), lease("awaited"));
    for (from, n) in [(&sender, 1), (&other, 1), (&sender, 2)] {
        assert_eq!(here.waits(&awaited, from, n).await, Ok(Sent::Waits));
    }
    let withdraw = |from: &Lease| {
        let withdrawn = here.fabric.withdraw(&awaited.address, from.session);
        async { withdrawn.await.unwrap() }
    };
    assert_eq!(withdraw(&sender).await, 2);
    assert_eq!(withdraw(&sender).await, 0, "once");
    let claim = here.fabric.claim(&awaited, None, None).await.unwrap();
    assert_eq!(claim, Claim::Awaited);
    assert_eq!(here.finds(&awaited).await, [1]);
    assert_eq!(withdraw(&other).await, 0, "somebody has it");
}

pub(super) async fn there_is_room_for_so_much_to_wait(ground: &Ground) {
    let here = ground.plug().await;
    let awaited = lease("awaited");
    let share = Room::QUEUE.share as u64;
    let senders: Vec<Lease> = (0..3).map(|n| lease(&format!("sender{n}"))).collect();
    let mut waiting = 0;
    for (number, sender) in senders.iter().enumerate() {
        for n in 0..share {
            let sent = here.waits(&awaited, sender, n).await;
            if number < 2 {
                assert_eq!(sent, Ok(Sent::Waits));
                waiting += 1;
            } else {
                assert_eq!(sent, Ok(Sent::Absent), "no room for all");
            }
        }
        let more = here.waits(&awaited, sender, share).await;
        assert_eq!(more, Ok(Sent::Absent), "no room for one sender");
    }
    assert_eq!(waiting, Room::QUEUE.entries);
    let withdrawn = here.fabric.withdraw(&awaited.address, senders[0].session);
    assert_eq!(withdrawn.await.unwrap(), Room::QUEUE.share);
    for from in [&senders[2], &senders[0]] {
        assert_eq!(here.waits(&awaited, from, 0).await, Ok(Sent::Waits));
    }
}

pub(super) async fn who_is_not_patient_is_told_at_once(ground: &Ground) {
    let here = ground.plug().await;
    let (sender, nobody) = (lease("sender"), lease("nobody"));
    let envelope = || saying(&sender, &here.node, 1);
    let sent = here.posts(&nobody.address, Postage::default(), envelope());
    assert_eq!(sent.await, Ok(Sent::Absent));
    let one = Postage {
        only: Some(nobody.session),
        ..PATIENT
    };
    let sent = here.posts(&nobody.address, one, envelope()).await;
    assert_eq!(sent, Ok(Sent::Absent), "one session is meant");
    here.wins(&nobody).await;
}

pub(super) async fn the_names_of_a_realm_are_listed(ground: &Ground) {
    let (here, there) = (ground.plug().await, ground.plug().await);
    let realm = Realm::new("peer*js:{k}");
    let mut holders = Vec::new();
    for (number, plug) in [&here, &there, &here].into_iter().enumerate() {
        let mut lease = lease(&format!("user {number}"));
        lease.address.realm = realm.clone();
        plug.wins(&lease).await;
        holders.push((lease.address.name.clone(), lease.held_by(&plug.node)));
    }
    here.wins(&lease("of another realm")).await;
    let mut found = there.fabric.names(&realm, 100).await.unwrap();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(found, holders);
    assert_eq!(there.fabric.names(&realm, 2).await.unwrap().len(), 2);
    let nobody = there.fabric.names(&Realm::new("empty"), 100).await.unwrap();
    assert!(nobody.is_empty());
}

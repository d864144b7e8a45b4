//! What every broker promises about sessions that outlive their connection.

use switchboard::broker::{
    Claim, Confirmed, Entry, Envelope, Flags, Inbound, InboxLimits, Lease, Payload, RecordUpdate,
    Renewal, Resume, Resumed, SendOptions, Sent,
};
use switchboard::model::{Body, Offset, Secret, SecretHash, Signal, SignalKind};

use super::harness::{Backend, Node, envelope_from, lease};

/// A resumable session that `node` has claimed.
pub(super) async fn claimed(node: &Node, name: &str) -> (Lease, SecretHash) {
    let lease = Lease {
        callable_by: None,
        flags: Flags {
            resumable: true,
            detached: false,
        },
        ..lease(name)
    };
    let hash = Secret::random().hash_for(&lease.address);
    let claim = node
        .broker
        .claim(&lease, None, Some(&hash), None)
        .await
        .unwrap();
    assert_eq!(claim, Claim::Won);
    (lease, hash)
}

impl Node {
    async fn resumes(&self, lease: &Lease, hash: &SecretHash, last: Option<Offset>) -> Resumed {
        match self
            .broker
            .resume(&lease.address, hash, None, last, false)
            .await
        {
            Ok(Resume::Won(resumed)) => *resumed,
            other => panic!("expected a resume, got: {other:?}"),
        }
    }

    async fn reads(&self, lease: &Lease, last: Offset) -> Vec<Entry> {
        self.broker.read(lease, last).await.unwrap()
    }

    async fn confirms(&self, lease: &Lease, entries: &[Entry]) {
        let last = entries.last().unwrap();
        self.confirms_more(lease, last, last).await;
    }

    /// The client was sent `told`, and has confirmed everything up to `all`.
    async fn confirms_more(&self, lease: &Lease, told: &Entry, all: &Entry) {
        let update = RecordUpdate {
            confirmed: Some(Confirmed {
                all: all.id,
                told: told.id,
            }),
            ..RecordUpdate::default()
        };
        assert!(self.broker.save(lease, update).await.unwrap());
    }
}

fn large(from: &Lease, node: &Node, n: u64, bytes: usize) -> Envelope {
    let signal = Signal {
        kind: SignalKind::Message,
        body: Body("1".repeat(bytes).into()),
    };
    Envelope {
        payload: Payload::Signal(signal),
        ..envelope_from(from, &node.id, n)
    }
}

pub(super) async fn a_session_is_resumed_only_with_its_secret(backend: &Backend) {
    let (here, there) = (backend.connect().await, backend.connect().await);
    let (user, hash) = claimed(&here, "user").await;
    let nobody = lease("nobody").address;
    let foreign = Secret::random().hash_for(&user.address);
    let broker = &there.broker;
    for (address, hash, expected, is_valid) in [
        (&user.address, &foreign, Resume::Wrong, false),
        (&nobody, &hash, Resume::Gone, false),
    ] {
        let resume = broker
            .resume(address, hash, None, None, false)
            .await
            .unwrap();
        assert_eq!(resume, expected);
        assert_eq!(broker.verify(address, hash).await.unwrap(), is_valid);
    }
    assert!(broker.verify(&user.address, &hash).await.unwrap());
    let last = there.resumes(&user, &hash, None).await.lease;
    let release = broker.release(&last.address, &last.held_by(&there.id), Offset::default());
    release.await.unwrap();
    let resume = broker.resume(&user.address, &hash, None, None, false).await;
    assert_eq!(resume.unwrap(), Resume::Gone);
    let is_valid = broker.verify(&user.address, &hash).await.unwrap();
    assert!(!is_valid, "the secret of an ended session is not valid");
    // Another session claims the name: the secret of the one before is not valid for it.
    let (_next, other) = claimed(&here, "user").await;
    assert_ne!(other, hash);
    assert!(!broker.verify(&user.address, &hash).await.unwrap());
    assert!(broker.verify(&user.address, &other).await.unwrap());
}

pub(super) async fn a_resume_replaces_earlier_connections(backend: &Backend) {
    let (mut here, there) = (backend.connect().await, backend.connect().await);
    let (user, hash) = claimed(&here, "user").await;
    // Each resume raises the generation, and the last one holds the session.
    let mut generations = vec![user.generation];
    for _ in 0..3 {
        let resumed = there.resumes(&user, &hash, None).await;
        assert_eq!(resumed.lease.session, user.session);
        generations.push(resumed.lease.generation);
        assert!(!resumed.missed);
    }
    let is_rising = generations.is_sorted_by(|one, next| one < next);
    assert!(is_rising, "{generations:?}");
    assert!(matches!(
        here.receives().await,
        Inbound::Replaced { session, generation }
            if session == user.session && generation == generations[1]
    ));
    let renewed = here.broker.renew(vec![user.clone()]).await.unwrap();
    assert_eq!(renewed, [Renewal::Replaced]);
    let early = user.held_by(&here.id);
    let release = here
        .broker
        .release(&user.address, &early, Offset::default());
    release.await.unwrap();
    let last = Lease {
        callable_by: None,
        generation: generations[3],
        ..user.clone()
    };
    assert_eq!(
        there.broker.renew(vec![last]).await.unwrap(),
        [Renewal::Mine],
        "an earlier connection cannot release the name"
    );
    let is_saved = here.broker.save(&user, RecordUpdate::default()).await;
    assert!(!is_saved.unwrap(), "an earlier connection cannot save");
}

pub(super) async fn a_resumed_session_is_as_it_was_left(backend: &Backend) {
    let (mut here, there) = (backend.connect().await, backend.connect().await);
    let (mut user, hash) = claimed(&here, "user").await;
    let sender = lease("sender");
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let update = RecordUpdate {
        set: vec![field("a", "1"), field("b", "2"), field("c", "")],
        ..RecordUpdate::default()
    };
    assert!(here.broker.save(&user, update).await.unwrap());
    let update = RecordUpdate {
        set: vec![field("b", "3")],
        unset: vec!["a".to_owned()],
        ..RecordUpdate::default()
    };
    assert!(here.broker.save(&user, update).await.unwrap());
    here.sends(&user.address, None, envelope_from(&sender, &here.id, 1))
        .await
        .unwrap();
    let (_, seen) = here.receives_push().await;
    user.flags.detached = true;
    assert_eq!(
        here.broker.renew(vec![user.clone()]).await.unwrap(),
        [Renewal::Mine]
    );
    let sent = here
        .sends(&user.address, None, envelope_from(&sender, &here.id, 2))
        .await;
    assert_eq!(
        sent,
        Ok(Sent::To(user.held_by(&here.id))),
        "the lease shows that the session is detached"
    );

    let resumed = there.resumes(&user, &hash, Some(seen.id)).await;
    assert!(!resumed.lease.flags.detached);
    for (name, value) in [field("b", "3"), field("c", "")] {
        assert!(resumed.fields.contains(&(name, value)), "{resumed:?}");
    }
    assert!(!resumed.fields.iter().any(|(name, _)| name == "a"));
    let unread = there.reads(&resumed.lease, seen.id).await;
    assert_eq!(unread.len(), 1);
    assert_eq!(unread[0].envelope.n, 2);
}

pub(super) async fn an_inbox_keeps_unconfirmed_entries(backend: &Backend) {
    let (here, there) = (backend.connect().await, backend.connect().await);
    let (user, hash) = claimed(&here, "user").await;
    let sender = lease("sender");
    for n in 1..=100 {
        here.sends(&user.address, None, envelope_from(&sender, &here.id, n))
            .await
            .unwrap();
    }
    let all = here.reads(&user, Offset::default()).await;
    assert_eq!(all.len(), 100);
    here.confirms_more(&user, &all[57], &all[59]).await;
    assert_eq!(here.reads(&user, Offset::default()).await.len(), 40);

    let too_old = there
        .broker
        .resume(&user.address, &hash, None, Some(all[56].id), false)
        .await
        .unwrap();
    assert_eq!(
        too_old,
        Resume::Gone,
        "entries after this one have left the inbox"
    );
    for last in [None, Some(all[57].id), Some(all[58].id), Some(all[59].id)] {
        let resumed = there.resumes(&user, &hash, last).await;
        let confirmed = Confirmed {
            all: all[59].id,
            told: all[57].id,
        };
        assert_eq!(resumed.confirmed, confirmed);
        assert_eq!(there.reads(&resumed.lease, all[59].id).await, all[60..]);
    }
}

pub(super) async fn a_full_inbox_refuses_envelopes(backend: &Backend) {
    let here = backend.connect().await;
    let (user, _) = claimed(&here, "user").await;
    let sender = lease("sender");
    let message = |from: &Lease, n| envelope_from(from, &here.id, n);
    // The last of them would have more than it leaves free.
    for n in 1..InboxLimits::DEFAULT.entries as u64 {
        let from = lease(&format!("sender{n}"));
        let sent = here.sends(&user.address, None, message(&from, n)).await;
        assert!(matches!(sent, Ok(Sent::To(_))), "{n}: {sent:?}");
    }
    let full = here
        .sends(&user.address, None, message(&lease("another"), 1))
        .await;
    assert!(matches!(full, Ok(Sent::Full(_))), "{full:?}");
    let urgent = SendOptions {
        in_call: false,
        only: Some(user.session),
        always: true,
        direct: None,
    };
    let sent = here
        .sends_with(&user.address, urgent, message(&sender, 1000))
        .await;
    assert!(
        matches!(sent, Ok(Sent::To(_))),
        "`always` is accepted by a full inbox"
    );
    let all = here.reads(&user, Offset::default()).await;
    here.confirms(&user, &all).await;
    for n in 1..=100 {
        let sent = here
            .sends(&user.address, None, message(&sender, 1000 + n))
            .await;
        assert!(matches!(sent, Ok(Sent::To(_))), "{sent:?}");
    }
}

/// A sender has at most as much as is free: whoever comes last finds room, however many have filled what they can.
pub(super) async fn no_sender_fills_more_of_an_inbox_than_is_free(backend: &Backend) {
    let here = backend.connect().await;
    let (user, _) = claimed(&here, "user").await;
    let mut accepted = Vec::new();
    let greedy: Vec<_> = (0..5).map(|n| lease(&format!("greedy{n}"))).collect();
    for from in &greedy {
        let mut own = 0;
        loop {
            let envelope = large(from, &here, own + 1, 60_000);
            match here.sends(&user.address, None, envelope).await {
                Ok(Sent::To(_)) => own += 1,
                Ok(Sent::Full(_)) => break,
                other => panic!("{other:?}"),
            }
        }
        accepted.push(own);
    }
    assert_eq!(accepted, [8, 4, 2, 1, 1], "of 17 that fill 1 MiB");
    let honest = large(&lease("honest"), &here, 1, 12_000);
    let sent = here.sends(&user.address, None, honest).await;
    assert!(matches!(sent, Ok(Sent::To(_))), "{sent:?}");
    // Confirmed entries no longer count for their sender.
    let all = here.reads(&user, Offset::default()).await;
    here.confirms(&user, &all).await;
    let again = large(&greedy[0], &here, 99, 60_000);
    let sent = here.sends(&user.address, None, again).await;
    assert!(matches!(sent, Ok(Sent::To(_))), "{sent:?}");
}

/// Compares each outcome with a model of the limits, for a mix of sizes, senders and confirmations.
pub(super) async fn inbox_limits_are_exact(backend: &Backend) {
    let here = backend.connect().await;
    let (user, _) = claimed(&here, "user").await;
    let senders = ["a", "b", "c"].map(lease);
    let (mut kept, mut accepted, mut refused) = (Vec::new(), 0, 0);
    for n in 1..=2000 {
        let from = &senders[n % 7 % 3];
        let bytes =
            [100, 300, 5_000, 60_000][usize::from(n % 5 == 0) + 2 * usize::from(n % 11 == 0)];
        let envelope = large(from, &here, n as u64, bytes);
        let (sender, size) = (from.session, envelope.encode().len());
        let is_urgent = n % 29 == 0;
        let options = SendOptions {
            in_call: false,
            only: Some(user.session),
            always: is_urgent,
            direct: None,
        };
        let share = |size: usize| size.div_ceil(4096).max(1);
        let all: usize = kept.iter().map(|(_, size)| size).sum();
        let weight: usize = kept.iter().map(|(_, size)| share(*size)).sum();
        let own = kept.iter().filter(|(other, _)| *other == sender);
        let own: usize = own.map(|(_, size)| share(*size)).sum();
        let fits = kept.len() < InboxLimits::DEFAULT.entries
            && all + size <= InboxLimits::DEFAULT.bytes
            && InboxLimits::DEFAULT.is_fair(own + share(size), weight + share(size));
        match here.sends_with(&user.address, options, envelope).await {
            Ok(Sent::To(_)) if fits || is_urgent => {
                kept.push((sender, size));
                accepted += 1;
            }
            Ok(Sent::Full(_)) if !fits && !is_urgent => refused += 1,
            other => panic!("{n}: {other:?} of {} entries, {all} bytes", kept.len()),
        }
        if n % 50 == 0 {
            here.broker.renew(vec![user.clone()]).await.unwrap();
        }
        // Every 250 messages the client confirms a quarter, half, three quarters or all.
        if n % 250 == 0 {
            let entries = here.reads(&user, Offset::default()).await;
            let some = entries.len() * (n / 250 % 4 + 1) / 4;
            here.confirms(&user, &entries[..some]).await;
            kept.drain(..some);
        }
    }
    assert!(accepted > 900 && refused > 200, "{accepted} and {refused}");
}

/// What is left of large entries after a confirmation still counts, and no more than that.
pub(super) async fn inbox_limits_count_only_unconfirmed_entries(backend: &Backend) {
    let here = backend.connect().await;
    let (user, _) = claimed(&here, "user").await;
    let (sender, share) = (lease("sender"), InboxLimits::DEFAULT.sender_weight as u64);
    let mut n = 0;
    let mut send = async |bytes| {
        n += 1;
        let envelope = large(&sender, &here, n, bytes);
        match here.sends(&user.address, None, envelope).await {
            Ok(Sent::To(_)) => true,
            Ok(Sent::Full(_)) => false,
            other => panic!("{other:?}"),
        }
    };
    for _ in 0..share / 4 {
        assert!(send(15_000).await);
    }
    assert!(!send(1).await, "the sender's share is full");
    let entries = here.reads(&user, Offset::default()).await;
    here.confirms(&user, &entries[..1]).await;
    for _ in 0..4 {
        assert!(send(1).await);
    }
    assert!(!send(1).await, "the sender's share is full again");
    // One entry is left: there is room for as many small ones as in an empty inbox, less one.
    let entries = here.reads(&user, Offset::default()).await;
    here.confirms(&user, &entries[..entries.len() - 1]).await;
    for _ in 1..share {
        assert!(send(1).await);
    }
    assert!(!send(1).await, "and no more than that");
}

/// Entries that the store has lost can still be confirmed, and take no room.
pub(super) async fn a_rewritten_session_confirms_lost_entries(backend: &Backend) {
    let here = backend.connect().await;
    let (user, hash) = claimed(&here, "user").await;
    let sender = lease("sender");
    let mut lost = Vec::new();
    for n in 1..=3 {
        here.sends(&user.address, None, envelope_from(&sender, &here.id, n))
            .await
            .unwrap();
        lost = here.reads(&user, Offset::default()).await;
    }
    let anew = RecordUpdate {
        anew: Some((hash, lost[2].id.next())),
        ..RecordUpdate::default()
    };
    assert!(here.broker.save(&user, anew).await.unwrap());
    here.sends(&user.address, None, envelope_from(&sender, &here.id, 4))
        .await
        .unwrap();
    let new = here.reads(&user, lost[2].id).await;
    assert_eq!(new.len(), 1);
    here.confirms(&user, &lost).await;
    here.confirms(&user, &new).await;
    assert!(here.reads(&user, Offset::default()).await.is_empty());
}

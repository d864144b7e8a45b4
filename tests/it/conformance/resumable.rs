//! What every broker promises about sessions that outlive their connection.

use switchboard::broker::{
    Confirmed, Entry, Envelope, Flags, Inbound, Lease, RecordUpdate, Renewal, Resume, Resumed,
    Room, SendOptions, Sent,
};
use switchboard::model::{Body, Offset, Secret, SecretHash, Signal, SignalKind};

use super::{Claim, Ground, Parcel, Plug, lease, saying};

/// A resumable session that `plug` has claimed.
pub(super) async fn claimed(plug: &Plug, name: &str) -> (Lease, SecretHash) {
    let lease = Lease {
        flags: Flags {
            resumable: true,
            detached: false,
        },
        ..lease(name)
    };
    let hash = Secret::random().hash_for(&lease.address);
    let claim = plug.broker.claim(&lease, None, Some(&hash)).await.unwrap();
    assert_eq!(claim, Claim::Won);
    (lease, hash)
}

impl Plug {
    async fn resumes(&self, lease: &Lease, hash: &SecretHash, last: Option<Offset>) -> Resumed {
        match self.broker.resume(&lease.address, hash, last, false).await {
            Ok(Resume::Won(resumed)) => *resumed,
            other => panic!("not resumed: {other:?}"),
        }
    }

    async fn reads(&self, lease: &Lease, last: Offset) -> Vec<Entry> {
        self.broker.read(lease, last).await.unwrap()
    }

    async fn confirms(&self, lease: &Lease, entries: &[Entry]) {
        let last = entries.last().unwrap();
        self.confirms_more(lease, last, last).await;
    }

    /// The client was told the first of these, and has confirmed the other behind it.
    async fn confirms_more(&self, lease: &Lease, told: &Entry, all: &Entry) {
        let notes = RecordUpdate {
            confirmed: Some(Confirmed {
                all: all.id,
                told: told.id,
            }),
            ..RecordUpdate::default()
        };
        assert!(self.broker.note(lease, notes).await.unwrap());
    }
}

fn large(from: &Lease, plug: &Plug, n: u64, bytes: usize) -> Envelope {
    let signal = Signal {
        kind: SignalKind::Message,
        body: Body("1".repeat(bytes).into()),
    };
    Envelope {
        parcel: Parcel::Signal(signal),
        ..saying(from, &plug.node, n)
    }
}

pub(super) async fn a_session_is_resumed_by_its_secret_only(ground: &Ground) {
    let (mut here, there) = (ground.plug().await, ground.plug().await);
    let (user, hash) = claimed(&here, "user").await;
    let foreign = Secret::random().hash_for(&user.address);
    for (address, hash, answer) in [
        (&user.address, &foreign, Resume::Wrong),
        (&lease("nobody").address, &hash, Resume::Gone),
    ] {
        let tried = there
            .broker
            .resume(address, hash, None, false)
            .await
            .unwrap();
        assert_eq!(tried, answer);
    }
    for (address, hash, known) in [
        (&user.address, &hash, true),
        (&user.address, &foreign, false),
        (&lease("nobody").address, &hash, false),
    ] {
        assert_eq!(there.broker.knows(address, hash).await.unwrap(), known);
    }
    // Each resume counts, also of one whose answer was lost, and the last one has it.
    let mut attaches = vec![user.generation];
    for _ in 0..3 {
        let resumed = there.resumes(&user, &hash, None).await;
        assert_eq!(resumed.lease.session, user.session);
        attaches.push(resumed.lease.generation);
        assert!(!resumed.missed);
    }
    assert!(
        attaches.is_sorted_by(|one, next| one < next),
        "{attaches:?}"
    );
    assert!(
        matches!(here.hears().await, Inbound::Replaced { session, generation } if session == user.session && generation == attaches[1])
    );
    assert_eq!(
        here.broker.renew(vec![user.clone()]).await.unwrap(),
        [Renewal::Replaced]
    );
    here.broker
        .release(&user.address, &user.held_by(&here.node), Offset::default())
        .await
        .unwrap();
    let last = Lease {
        generation: attaches[3],
        ..user.clone()
    };
    assert_eq!(
        there.broker.renew(vec![last.clone()]).await.unwrap(),
        [Renewal::Mine],
        "an earlier connection has freed nothing"
    );
    assert!(
        !here
            .broker
            .note(&user, RecordUpdate::default())
            .await
            .unwrap(),
        "nor does it write anything"
    );
    there
        .broker
        .release(&last.address, &last.held_by(&there.node), Offset::default())
        .await
        .unwrap();
    let gone = there
        .broker
        .resume(&user.address, &hash, None, false)
        .await
        .unwrap();
    assert_eq!(gone, Resume::Gone);
    let known = there.broker.knows(&user.address, &hash).await.unwrap();
    assert!(!known, "a session that is over has no secret");
    // The name goes to somebody else: the secret of the one before means nothing.
    let (_next, other) = claimed(&here, "user").await;
    assert_ne!(other, hash);
    assert!(!there.broker.knows(&user.address, &hash).await.unwrap());
    assert!(there.broker.knows(&user.address, &other).await.unwrap());
}

pub(super) async fn a_resumed_session_is_as_it_was_left(ground: &Ground) {
    let (mut here, there) = (ground.plug().await, ground.plug().await);
    let (mut user, hash) = claimed(&here, "user").await;
    let sender = lease("sender");
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let notes = RecordUpdate {
        set: vec![field("a", "1"), field("b", "2"), field("c", "")],
        ..RecordUpdate::default()
    };
    assert!(here.broker.note(&user, notes).await.unwrap());
    let notes = RecordUpdate {
        set: vec![field("b", "3")],
        unset: vec!["a".to_owned()],
        ..RecordUpdate::default()
    };
    assert!(here.broker.note(&user, notes).await.unwrap());
    here.sends(&user.address, None, saying(&sender, &here.node, 1))
        .await
        .unwrap();
    let (_, seen) = here.hears_push().await;
    user.flags.detached = true;
    assert_eq!(
        here.broker.renew(vec![user.clone()]).await.unwrap(),
        [Renewal::Mine]
    );
    let sent = here
        .sends(&user.address, None, saying(&sender, &here.node, 2))
        .await;
    assert_eq!(
        sent,
        Ok(Sent::To(user.held_by(&here.node))),
        "others see that it is detached"
    );

    let resumed = there.resumes(&user, &hash, Some(seen.id)).await;
    assert!(!resumed.lease.flags.detached);
    for (name, value) in [field("b", "3"), field("c", "")] {
        assert!(resumed.notes.contains(&(name, value)), "{resumed:?}");
    }
    assert!(!resumed.notes.iter().any(|(name, _)| name == "a"));
    let unread = there.reads(&resumed.lease, seen.id).await;
    assert_eq!(unread.len(), 1);
    assert_eq!(unread[0].envelope.n, 2);
}

pub(super) async fn an_inbox_keeps_what_is_not_confirmed(ground: &Ground) {
    let (here, there) = (ground.plug().await, ground.plug().await);
    let (user, hash) = claimed(&here, "user").await;
    let sender = lease("sender");
    for n in 1..=100 {
        here.sends(&user.address, None, saying(&sender, &here.node, n))
            .await
            .unwrap();
    }
    let all = here.reads(&user, Offset::default()).await;
    assert_eq!(all.len(), 100);
    here.confirms_more(&user, &all[57], &all[59]).await;
    assert_eq!(here.reads(&user, Offset::default()).await.len(), 40);

    let too_old = there
        .broker
        .resume(&user.address, &hash, Some(all[56].id), false)
        .await
        .unwrap();
    assert_eq!(too_old, Resume::Gone, "it does not reach back so far");
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

pub(super) async fn a_full_inbox_is_told(ground: &Ground) {
    let here = ground.plug().await;
    let (user, _) = claimed(&here, "user").await;
    let (sender, other) = (lease("sender"), lease("other"));
    let say = |from: &Lease, n| saying(from, &here.node, n);
    for n in 1..=Room::INBOX.entries as u64 {
        let from = [&sender, &other][usize::from(n % 2 == 0)];
        let sent = here.sends(&user.address, None, say(from, n)).await;
        assert!(matches!(sent, Ok(Sent::To(_))), "{n}: {sent:?}");
    }
    let full = here
        .sends(&user.address, None, say(&lease("third"), 1))
        .await;
    assert!(matches!(full, Ok(Sent::Full(_))), "{full:?}");
    let urgent = SendOptions {
        only: Some(user.session),
        always: true,
        direct: None,
    };
    let sent = here.posts(&user.address, urgent, say(&sender, 1000)).await;
    assert!(
        matches!(sent, Ok(Sent::To(_))),
        "there is always room for what must arrive"
    );
    let all = here.reads(&user, Offset::default()).await;
    here.confirms(&user, &all).await;
    for n in 1..=100 {
        let sent = here
            .sends(&user.address, None, say(&sender, 1000 + n))
            .await;
        assert!(matches!(sent, Ok(Sent::To(_))), "{sent:?}");
    }
}

pub(super) async fn one_sender_fills_half_of_an_inbox(ground: &Ground) {
    let here = ground.plug().await;
    let (user, _) = claimed(&here, "user").await;
    let (greedy, other) = (lease("greedy"), lease("other"));
    let mut accepted = 0;
    loop {
        let envelope = large(&greedy, &here, accepted + 1, 60_000);
        match here.sends(&user.address, None, envelope).await {
            Ok(Sent::To(_)) => accepted += 1,
            Ok(Sent::Full(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(accepted, 8, "half of 1 MiB");
    let sent = here
        .sends(&user.address, None, large(&other, &here, 1, 60_000))
        .await;
    assert!(matches!(sent, Ok(Sent::To(_))), "others have the rest");
    // Confirmed, its share is its own again.
    let all = here.reads(&user, Offset::default()).await;
    here.confirms(&user, &all).await;
    let sent = here
        .sends(&user.address, None, large(&greedy, &here, 99, 60_000))
        .await;
    assert!(matches!(sent, Ok(Sent::To(_))), "{sent:?}");
}

/// Room is counted exactly, whatever has come, and in which order, before it was counted and since.
pub(super) async fn room_is_counted_to_the_last_byte(ground: &Ground) {
    let here = ground.plug().await;
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
            only: Some(user.session),
            always: is_urgent,
            direct: None,
        };
        let share = |size: usize| size.div_ceil(4096).max(1);
        let all: usize = kept.iter().map(|(_, size)| size).sum();
        let own = kept.iter().filter(|(other, _)| *other == sender);
        let own: usize = own.map(|(_, size)| share(*size)).sum();
        let fits = kept.len() < Room::INBOX.entries
            && all + size <= Room::INBOX.bytes
            && own + share(size) <= Room::INBOX.share;
        match here.posts(&user.address, options, envelope).await {
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
        // Now and then the client confirms some, or all.
        if n % 250 == 0 {
            let entries = here.reads(&user, Offset::default()).await;
            let some = entries.len() * (n / 250 % 4 + 1) / 4;
            here.confirms(&user, &entries[..some]).await;
            kept.drain(..some);
        }
    }
    assert!(accepted > 900 && refused > 200, "{accepted} and {refused}");
}

/// Few may be large: what is left after a confirmation counts, too.
pub(super) async fn room_is_counted_where_few_are_left(ground: &Ground) {
    let here = ground.plug().await;
    let (user, _) = claimed(&here, "user").await;
    let (sender, share) = (lease("sender"), Room::INBOX.share as u64);
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
    assert!(!send(1).await, "its share is full");
    let entries = here.reads(&user, Offset::default()).await;
    here.confirms(&user, &entries[..1]).await;
    for _ in 0..4 {
        assert!(send(1).await);
    }
    assert!(!send(1).await, "its share is full again");
    // Nearly everything is confirmed: small ones have room as in an empty inbox.
    let entries = here.reads(&user, Offset::default()).await;
    here.confirms(&user, &entries[..entries.len() - 1]).await;
    for _ in 1..share {
        assert!(send(1).await);
    }
    assert!(!send(1).await, "and no more than that");
}

/// What a store has lost takes no room in it, and is confirmed all the same.
pub(super) async fn a_session_that_is_written_anew_confirms_what_was_lost(ground: &Ground) {
    let here = ground.plug().await;
    let (user, hash) = claimed(&here, "user").await;
    let sender = lease("sender");
    let mut lost = Vec::new();
    for n in 1..=3 {
        here.sends(&user.address, None, saying(&sender, &here.node, n))
            .await
            .unwrap();
        lost = here.reads(&user, Offset::default()).await;
    }
    let anew = RecordUpdate {
        anew: Some((hash, lost[2].id.next())),
        ..RecordUpdate::default()
    };
    assert!(here.broker.note(&user, anew).await.unwrap());
    here.sends(&user.address, None, saying(&sender, &here.node, 4))
        .await
        .unwrap();
    let new = here.reads(&user, lost[2].id).await;
    assert_eq!(new.len(), 1);
    here.confirms(&user, &lost).await;
    here.confirms(&user, &new).await;
    assert!(here.reads(&user, Offset::default()).await.is_empty());
}

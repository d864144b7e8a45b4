//! What every broker promises (`switchboard::broker::Broker`), held by each of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use switchboard::broker::memory::MemoryBroker;
use switchboard::broker::{
    self, Answer, Broker, Claim, Entry, Envelope, Flags, Holder, Inbound, Inbox, Lease, Opened,
    Outcome, Parcel, Questions, Receipts, Renewal, SendOptions, Sender, Sent, StoreReport, Terms,
    Topic,
};
use switchboard::model::{
    Address, Body, LeaveReason, NodeId, Offset, Realm, Secret, SessionId, Signal, SignalKind,
    UserName,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::process::Redis;
use crate::support::{PATIENCE, eventually};

const TERMS: Terms = Terms {
    user_ttl: Duration::from_millis(1500),
    node_ttl: Duration::from_secs(1),
    challenge: Duration::from_millis(500),
    grace: Duration::from_millis(500),
};

/// Something that nodes plug into.
enum Ground {
    MemoryBroker(MemoryBroker),
    Redis(Redis),
}

/// A node without anything above its broker.
struct Plug {
    node: NodeId,
    broker: Arc<dyn Broker>,
    inbox: Inbox,
    questions: Questions,
    /// What was pushed together with what was heard last.
    pushed: VecDeque<(SessionId, Entry)>,
    _drivers: JoinSet<()>,
}

impl Ground {
    async fn plug(&self) -> Plug {
        let node = NodeId::start("n");
        let Opened {
            broker,
            inbox,
            questions,
            drivers,
        } = match self {
            Self::MemoryBroker(switch) => switch.plug(node.clone()),
            Self::Redis(redis) => {
                let config = broker::redis::Config {
                    url: broker::redis::Url::new(&redis.url()),
                    prefix: "test:".to_owned(),
                    publishers: 2,
                    timeout: Duration::from_secs(2),
                };
                broker::redis::open(&config, TERMS, node.clone(), Arc::default())
                    .await
                    .unwrap()
            }
        };
        let mut running = JoinSet::new();
        for (_, driver) in drivers {
            running.spawn(driver);
        }
        eventually("the broker answers", async || {
            broker.beat(&[], StoreReport::Nothing).await.ok()
        })
        .await;
        let mut plug = Plug {
            node,
            broker,
            inbox,
            questions,
            pushed: VecDeque::new(),
            _drivers: running,
        };
        if let Self::Redis(_) = self {
            assert!(
                matches!(plug.hears().await, Inbound::Gap(None)),
                "a new subscription has missed what was before"
            );
        }
        plug
    }

    /// The node misses pushes from now on…
    async fn cut(&self, node: &NodeId) {
        match self {
            Self::MemoryBroker(switch) => switch.deafen(node),
            Self::Redis(redis) => drop(redis.ask("CLIENT KILL TYPE pubsub").await),
        }
    }

    /// …and no longer.
    async fn mend(&self, node: &NodeId) {
        if let Self::MemoryBroker(switch) = self {
            switch.undeafen(node).await;
        }
    }
}

impl Plug {
    async fn hears(&mut self) -> Inbound {
        assert!(self.pushed.is_empty(), "more was pushed before");
        timeout(PATIENCE, self.inbox.recv())
            .await
            .expect("something comes")
            .unwrap()
    }

    async fn hears_push(&mut self) -> (SessionId, Entry) {
        if self.pushed.is_empty() {
            match self.hears().await {
                Inbound::Push {
                    session, entries, ..
                } => {
                    self.pushed
                        .extend(entries.into_iter().map(|entry| (session, entry)));
                }
                Inbound::Direct { session, envelopes } => {
                    let id = Offset::default();
                    let entries = envelopes.into_iter().map(|envelope| Entry { id, envelope });
                    self.pushed.extend(entries.map(|entry| (session, entry)));
                }
                other => panic!("not a push: {other:?}"),
            }
        }
        self.pushed.pop_front().expect("a push is never empty")
    }

    async fn wins(&self, lease: &Lease) {
        assert_eq!(
            self.broker.claim(lease, None, None).await.unwrap(),
            Claim::Won
        );
    }

    async fn sends(&self, to: &Address, only: Option<SessionId>, envelope: Envelope) -> Outcome {
        let options = SendOptions {
            only,
            always: false,
            direct: None,
        };
        self.posts(to, options, envelope).await
    }

    async fn posts(&self, to: &Address, options: SendOptions, envelope: Envelope) -> Outcome {
        let receipts = Receipts::default();
        self.broker
            .send(to, options, envelope, receipts.issue(false, false));
        outcome(&receipts).await
    }
}

async fn outcome(receipts: &Receipts) -> Outcome {
    loop {
        if let Some(Answer { outcome, .. }) = receipts.take() {
            return outcome;
        }
        timeout(PATIENCE, receipts.ready(true))
            .await
            .expect("an outcome");
    }
}

fn lease(name: &str) -> Lease {
    let address = Address::new(Realm::default(), UserName::parse(name).unwrap());
    Lease {
        address,
        session: SessionId::random(),
        generation: 0,
        flags: Flags::default(),
    }
}

fn saying(from: &Lease, node: &NodeId, n: u64) -> Envelope {
    let signal = Signal {
        kind: SignalKind::Message,
        body: Body(Bytes::from(n.to_string())),
    };
    let from = Sender::new(
        from.address.clone(),
        from.session,
        from.generation,
        node.clone(),
    );
    Envelope {
        from: Arc::new(from),
        n,
        once: None,
        trace: None,
        parcel: Parcel::Signal(signal),
    }
}

async fn a_name_has_one_holder(ground: &Ground) {
    let (here, there) = (ground.plug().await, ground.plug().await);
    let leases: Vec<Lease> = (0..100).map(|_| lease("wanted")).collect();
    let claims = leases.iter().enumerate().map(|(number, lease)| {
        let plug = [&here, &there][number % 2];
        async move { plug.broker.claim(lease, None, None).await.unwrap() }
    });
    let claims = join_all(claims).await;
    let winner = claims
        .iter()
        .position(|claim| *claim == Claim::Won)
        .unwrap();
    let holder = leases[winner].held_by(&[&here, &there][winner % 2].node);
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

async fn a_won_name_starts_with_an_empty_inbox(ground: &Ground) {
    let mut here = ground.plug().await;
    let (first, _) = claimed(&here, "user").await;
    let second = Lease {
        session: SessionId::random(),
        ..first.clone()
    };
    let hash = Secret::random().hash_for(&second.address);
    here.sends(&first.address, None, saying(&first, &here.node, 1))
        .await
        .unwrap();
    here.hears_push().await;
    let holder = first.held_by(&here.node);
    assert_eq!(
        here.broker
            .claim(&second, Some(&holder), Some(&hash))
            .await
            .unwrap(),
        Claim::Won,
        "its holder is known to be dead"
    );
    assert!(
        here.broker
            .read(&second, Offset::default())
            .await
            .unwrap()
            .is_empty()
    );
    here.sends(&second.address, None, saying(&first, &here.node, 2))
        .await
        .unwrap();
    here.hears_push().await;
    let read = here.broker.read(&first, Offset::default()).await.unwrap();
    assert!(
        read.is_empty(),
        "whoever lost the name does not read its inbox"
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
        .claim(&third, Some(&holder), None)
        .await
        .unwrap();
    assert_eq!(
        claim,
        Claim::Held(second.held_by(&here.node)),
        "another holder is not replaced"
    );
}

async fn only_the_owner_renews_and_releases(ground: &Ground) {
    let (here, there) = (ground.plug().await, ground.plug().await);
    let (mine, stranger, lost) = (lease("user"), lease("user"), lease("lost"));
    here.wins(&mine).await;
    assert_eq!(
        there.broker.renew(vec![stranger.clone()]).await.unwrap(),
        [Renewal::Lost]
    );
    there
        .broker
        .release(
            &stranger.address,
            &stranger.held_by(&there.node),
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
        here.node
    );
    here.broker
        .release(&mine.address, &mine.held_by(&here.node), Offset::default())
        .await
        .unwrap();
    there.wins(&stranger).await;
}

/// Its node was cut off; meanwhile somebody had the name, and has gone.
async fn a_name_that_somebody_had_meanwhile_is_lost(ground: &Ground) {
    let (here, there) = (ground.plug().await, ground.plug().await);
    let (user, other) = (lease("user"), lease("user"));
    here.wins(&user).await;
    let dead = user.held_by(&here.node);
    let taken = there.broker.claim(&other, Some(&dead), None).await.unwrap();
    assert_eq!(taken, Claim::Won);
    there
        .broker
        .release(
            &other.address,
            &other.held_by(&there.node),
            Offset::default(),
        )
        .await
        .unwrap();
    let renewed = here.broker.renew(vec![user.clone()]).await.unwrap();
    assert_eq!(renewed, [Renewal::Lost]);
    // The next one is nobody's loss.
    there.wins(&other).await;
    assert_eq!(
        there.broker.renew(vec![other]).await.unwrap(),
        [Renewal::Mine]
    );
}

async fn a_release_hands_back_what_was_not_read(ground: &Ground) {
    let mut here = ground.plug().await;
    let ((user, _), sender) = (claimed(&here, "user").await, lease("sender"));
    for n in 1..=3 {
        here.sends(&user.address, None, saying(&sender, &here.node, n))
            .await
            .unwrap();
    }
    let (_, first) = here.hears_push().await;
    let unread = here
        .broker
        .release(&user.address, &user.held_by(&here.node), first.id)
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
        .sends(&user.address, None, saying(&sender, &here.node, 4))
        .await;
    assert_eq!(gone, Ok(Sent::Absent));
}

async fn a_send_tells_who_got_it(ground: &Ground) {
    let (here, mut there) = (ground.plug().await, ground.plug().await);
    let (user, sender) = (lease("user"), lease("sender"));
    let say = |n| saying(&sender, &here.node, n);
    assert_eq!(
        here.sends(&user.address, None, say(1)).await,
        Ok(Sent::Absent)
    );
    there.wins(&user).await;
    let holder: Holder = user.held_by(&there.node);
    assert_eq!(
        here.sends(&user.address, None, say(2)).await,
        Ok(Sent::To(holder.clone()))
    );
    assert_eq!(
        here.sends(&user.address, Some(SessionId::random()), say(3))
            .await,
        Ok(Sent::Absent)
    );
    let leave = Envelope {
        parcel: Parcel::Leave {
            reason: LeaveReason::Hangup,
            heard: 7,
        },
        ..say(4)
    };
    assert_eq!(
        here.sends(&user.address, Some(user.session), leave.clone())
            .await,
        Ok(Sent::To(holder))
    );
    let (session, entry) = there.hears_push().await;
    assert_eq!((session, entry.envelope), (user.session, say(2)));
    assert_eq!(there.hears_push().await.1.envelope, leave);
}

async fn what_is_sent_arrives_in_order_and_the_barrier_behind_it(ground: &Ground) {
    let (here, mut there) = (ground.plug().await, ground.plug().await);
    let (user, sender) = (lease("user"), lease("sender"));
    there.wins(&user).await;
    let receipts = Receipts::default();
    for n in 1..=1000 {
        here.broker.send(
            &user.address,
            SendOptions::default(),
            saying(&sender, &here.node, n),
            receipts.issue(false, false),
        );
    }
    for _ in 1..=1000 {
        assert!(matches!(outcome(&receipts).await, Ok(Sent::To(_))));
    }
    there.broker.barrier(&user).await.unwrap();
    for n in 1..=1000 {
        assert_eq!(there.hears_push().await.1.envelope.n, n);
    }
    assert!(matches!(there.hears().await, Inbound::Barrier(session) if session == user.session));
}

async fn what_was_missed_is_announced_and_found(ground: &Ground) {
    let (here, mut there) = (ground.plug().await, ground.plug().await);
    let ((user, _), sender) = (claimed(&there, "user").await, lease("sender"));
    ground.cut(&there.node).await;
    for n in 1..=50 {
        here.sends(&user.address, None, saying(&sender, &here.node, n))
            .await
            .unwrap();
    }
    ground.mend(&there.node).await;
    let mut pushed = Vec::new();
    loop {
        match there.hears().await {
            Inbound::Push { entries, .. } => pushed.extend(entries),
            Inbound::Gap(None) => break,
            other => panic!("{other:?}"),
        }
    }
    // Whatever was pushed before the gap came in order, without a hole.
    assert!(
        pushed
            .iter()
            .zip(1..)
            .all(|(entry, n)| entry.envelope.n == n)
    );
    let last = pushed.last().map(|entry| entry.id).unwrap_or_default();
    let read = there.broker.read(&user, last).await.unwrap();
    assert_eq!(pushed.len() + read.len(), 50);
    here.sends(&user.address, None, saying(&sender, &here.node, 51))
        .await
        .unwrap();
    let (_, entry) = loop {
        let pushed = there.hears_push().await;
        if pushed.1.envelope.n == 51 {
            break pushed;
        }
    };
    assert_eq!(there.broker.read(&user, entry.id).await.unwrap().len(), 0);
}

/// What is for a plain session is stored nowhere: while its node cannot hear, it waits at the sender's, or is refused.
async fn a_plain_session_hears_what_was_sent_after_the_gap(ground: &Ground) {
    let (here, mut there) = (ground.plug().await, ground.plug().await);
    let (user, sender) = (lease("user"), lease("sender"));
    there.wins(&user).await;
    ground.cut(&there.node).await;
    let during = here
        .sends(&user.address, None, saying(&sender, &here.node, 1))
        .await;
    ground.mend(&there.node).await;
    let after = eventually("it can be reached", async || {
        let say = saying(&sender, &here.node, 2);
        here.sends(&user.address, None, say).await.ok()
    })
    .await;
    assert_eq!(after, Sent::To(user.held_by(&there.node)));
    let mut numbers = Vec::new();
    let mut gaps = 0;
    while numbers.last() != Some(&2) {
        match there.hears().await {
            Inbound::Direct { envelopes, .. } => {
                numbers.extend(envelopes.iter().map(|envelope| envelope.n));
            }
            Inbound::Gap(None) => gaps += 1,
            other => panic!("{other:?}"),
        }
    }
    // It may have been taken by the connection that broke.
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

async fn a_lease_that_is_not_renewed_is_gone(ground: &Ground) {
    let (here, there) = (ground.plug().await, ground.plug().await);
    let (user, kept) = (lease("user"), lease("kept"));
    here.wins(&user).await;
    here.wins(&kept).await;
    eventually("the lease runs out", async || {
        assert_eq!(
            here.broker.renew(vec![kept.clone()]).await.unwrap(),
            [Renewal::Mine]
        );
        there.broker.beat(&[], StoreReport::Known).await.unwrap();
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
            .sends(&user.address, None, saying(&kept, &there.node, 1))
            .await,
        Ok(Sent::Absent)
    );
    there.wins(&lease("user")).await;
    assert_eq!(
        here.broker.renew(vec![user]).await.unwrap(),
        [Renewal::Lost]
    );
}

async fn a_node_that_does_not_beat_is_dead(ground: &Ground) {
    let (here, there) = (ground.plug().await, ground.plug().await);
    let nodes = [there.node.clone(), NodeId::known("never.was")];
    assert_eq!(
        here.broker.nodes(&nodes).await.unwrap().alive,
        [true, false]
    );
    let beat = eventually("the other node's lease runs out", async || {
        let beat = here.broker.beat(&nodes, StoreReport::Known).await.unwrap();
        (!beat.alive[0]).then_some(beat)
    })
    .await;
    assert!(beat.own && here.broker.nodes(&[]).await.unwrap().intact);
    assert!(
        !there.broker.nodes(&[]).await.unwrap().intact,
        "its own lease is gone"
    );
    assert!(
        !there
            .broker
            .beat(&[], StoreReport::Known)
            .await
            .unwrap()
            .own,
        "and taken anew"
    );
    there.broker.beat(&[], StoreReport::Known).await.unwrap();
    assert!(there.broker.nodes(&[]).await.unwrap().intact);
    here.broker.close().await;
    assert_eq!(
        there
            .broker
            .nodes(std::slice::from_ref(&here.node))
            .await
            .unwrap()
            .alive,
        [false]
    );
}

async fn a_question_is_answered_by_the_node_that_is_asked(ground: &Ground) {
    let (here, mut there) = (ground.plug().await, ground.plug().await);
    let node = there.node.clone();
    let asks = async |topic, body: Bytes| {
        let within = Duration::from_millis(500);
        here.broker.ask(&node, topic, body, within).await.unwrap()
    };
    let large = Bytes::from(vec![b'\n'; 300_000]);
    for body in [Bytes::from_static(b"what\xff"), large] {
        let (answer, ()) = tokio::join!(asks(Topic::Session, body.clone()), async {
            let Inbound::Challenge(question) = there.hears().await else {
                panic!("not a question")
            };
            assert_eq!((&question.asker, &question.body), (&here.node, &body));
            there.broker.answer(&question, body.clone());
        });
        assert_eq!(answer.as_ref(), Some(&body));
        let (answer, ()) = tokio::join!(asks(Topic::Http, body.clone()), async {
            let question = there.questions.recv().await.unwrap();
            assert_eq!((&question.asker, &question.body), (&here.node, &body));
            there.broker.answer(&question, body.clone());
        });
        assert_eq!(answer, Some(body));
    }
    assert_eq!(asks(Topic::Http, Bytes::new()).await, None, "no answer");
    let (nobody, asked) = (NodeId::start("nobody"), Instant::now());
    let within = Duration::from_mins(1);
    let asking = here.broker.ask(&nobody, Topic::Http, Bytes::new(), within);
    assert_eq!(asking.await.unwrap(), None);
    assert!(asked.elapsed() < PATIENCE, "known at once");
}

async fn a_home_is_found_for_its_time(ground: &Ground) {
    let (here, there) = (ground.plug().await, ground.plug().await);
    let (session, note) = (SessionId::random(), Bytes::from_static(b"there \xff"));
    assert_eq!(there.broker.located(session).await.unwrap(), None);
    let minute = Duration::from_mins(1);
    let noting = here.broker.locate(session, note.clone(), minute);
    noting.await.unwrap();
    let located = there.broker.located(session).await.unwrap();
    assert_eq!(located.as_ref(), Some(&note));
    let shortly = Duration::from_millis(50);
    there.broker.locate(session, note, shortly).await.unwrap();
    eventually("it has run out", async || {
        let located = here.broker.located(session).await.unwrap();
        located.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_starts_reads_what_the_others_say_of_redis() {
    let ground = Ground::Redis(Redis::start().await);
    let Ground::Redis(redis) = &ground else {
        unreachable!()
    };
    let (first, second) = (ground.plug().await, ground.plug().await);
    assert_eq!(
        second.broker.nodes(&[]).await.unwrap().said,
        None,
        "both start"
    );
    first.broker.beat(&[], StoreReport::Known).await.unwrap();
    assert_eq!(
        second.broker.nodes(&[]).await.unwrap().said,
        Some(StoreReport::Known)
    );
    redis.ask("FLUSHALL").await;
    assert_eq!(second.broker.nodes(&[]).await.unwrap().said, None);
    // The first finds that its lease is gone, and says so until it believes that everybody is known again.
    for says in [StoreReport::Known, StoreReport::Guarded] {
        first.broker.beat(&[], says).await.unwrap();
        assert_eq!(
            second.broker.nodes(&[]).await.unwrap().said,
            Some(StoreReport::Guarded)
        );
    }
    first.broker.beat(&[], StoreReport::Known).await.unwrap();
    assert_eq!(
        second.broker.nodes(&[]).await.unwrap().said,
        Some(StoreReport::Known)
    );
}

#[tokio::test]
async fn a_node_that_starts_does_not_believe_what_was_said_of_another_redis() {
    let ground = Ground::Redis(Redis::start().await);
    let Ground::Redis(redis) = &ground else {
        unreachable!()
    };
    let node = ground.plug().await;
    redis.ask("SET test:e:{n} known-0123456789").await;
    assert_eq!(
        node.broker.nodes(&[]).await.unwrap().said,
        Some(StoreReport::Guarded)
    );
}

mod names;
mod resumable;

use names::the_names_of_a_realm_are_listed;
use resumable::{
    a_full_inbox_is_told, a_resumed_session_is_as_it_was_left,
    a_session_is_resumed_by_its_secret_only, a_session_that_is_written_anew_confirms_what_was_lost,
    an_inbox_keeps_what_is_not_confirmed, claimed, one_sender_fills_half_of_an_inbox,
    room_is_counted_to_the_last_byte, room_is_counted_where_few_are_left,
};

macro_rules! conforms {
    ($($case:ident),* $(,)?) => {
        mod switch {$(
            #[tokio::test]
            async fn $case() {
                super::$case(&super::Ground::MemoryBroker(super::MemoryBroker::new(super::TERMS))).await;
            }
        )*}
        mod redis {$(
            #[tokio::test]
            async fn $case() {
                super::$case(&super::Ground::Redis(super::Redis::start().await)).await;
            }
        )*}
    };
}

conforms! {
    a_name_has_one_holder,
    a_won_name_starts_with_an_empty_inbox,
    only_the_owner_renews_and_releases,
    a_name_that_somebody_had_meanwhile_is_lost,
    a_release_hands_back_what_was_not_read,
    a_send_tells_who_got_it,
    what_is_sent_arrives_in_order_and_the_barrier_behind_it,
    what_was_missed_is_announced_and_found,
    a_plain_session_hears_what_was_sent_after_the_gap,
    a_lease_that_is_not_renewed_is_gone,
    a_node_that_does_not_beat_is_dead,
    a_question_is_answered_by_the_node_that_is_asked,
    a_home_is_found_for_its_time,
    a_session_is_resumed_by_its_secret_only,
    a_resumed_session_is_as_it_was_left,
    an_inbox_keeps_what_is_not_confirmed,
    a_full_inbox_is_told,
    one_sender_fills_half_of_an_inbox,
    room_is_counted_to_the_last_byte,
    room_is_counted_where_few_are_left,
    a_session_that_is_written_anew_confirms_what_was_lost,
    the_names_of_a_realm_are_listed,
}

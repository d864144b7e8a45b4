//! The two backends, and a node with nothing above its broker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use switchboard::broker::memory::MemoryBroker;
use switchboard::broker::{
    self, Answer, Broker, Claim, Connected, Entry, Envelope, EventLog, Flags, Inbound, Inbox,
    Lease, Outcome, Payload, Questions, Receipts, SendOptions, Sender, StoreReport, Terms,
};
use switchboard::model::{
    Address, Body, NodeId, Offset, Realm, SessionId, Signal, SignalKind, UserName,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

use testing::Redis;
use testing::{PATIENCE, eventually};

const TERMS: Terms = Terms {
    user_ttl: Duration::from_millis(1500),
    node_ttl: Duration::from_secs(1),
    challenge: Duration::from_millis(500),
    grace: Duration::from_millis(500),
};

/// What nodes connect to.
pub(super) enum Backend {
    Memory(MemoryBroker),
    Redis(Redis),
}

/// A node with nothing above its broker.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) broker: Arc<dyn Broker>,
    inbox: Inbox,
    pub(super) questions: Questions,
    pub(super) events: Arc<dyn EventLog>,
    /// Entries of the last push that the test has not taken yet.
    pushed: VecDeque<(SessionId, Entry)>,
    _drivers: JoinSet<()>,
}

impl Backend {
    pub(super) fn memory() -> Self {
        Self::Memory(MemoryBroker::new(TERMS))
    }

    pub(super) async fn redis() -> Self {
        Self::Redis(Redis::start().await)
    }

    pub(super) async fn connect(&self) -> Node {
        let id = NodeId::start("n");
        let Connected {
            broker,
            inbox,
            questions,
            events,
            drivers,
            ..
        } = match self {
            Self::Memory(store) => store.connect(id.clone()),
            Self::Redis(redis) => {
                let config = broker::redis::Config {
                    url: broker::redis::Url::new(&redis.url()),
                    tls: broker::redis::TlsFiles::default(),
                    prefix: "test:".to_owned(),
                    publishers: 2,
                    timeout: Duration::from_secs(2),
                };
                broker::redis::connect(&config, TERMS, id.clone(), Arc::default()).unwrap()
            }
        };
        let mut running = JoinSet::new();
        // The probe's own session would be seen among those of the tests.
        let drivers = drivers
            .into_iter()
            .filter(|(name, _)| *name != "redis probe");
        for (_, driver) in drivers {
            running.spawn(driver);
        }
        eventually("the first heartbeat succeeds", async || {
            broker.heartbeat(&[], StoreReport::Nothing).await.ok()
        })
        .await;
        let mut node = Node {
            id,
            broker,
            inbox,
            questions,
            events,
            pushed: VecDeque::new(),
            _drivers: running,
        };
        if let Self::Redis(_) = self {
            assert!(
                matches!(node.receives().await, Inbound::Gap(None)),
                "a new subscription begins with a gap"
            );
        }
        node
    }

    /// The node misses pushes from now on. With Redis, until it has reconnected.
    pub(super) async fn block_pushes(&self, node: &NodeId) {
        match self {
            Self::Memory(store) => store.block_pushes(node),
            Self::Redis(redis) => drop(redis.ask("CLIENT KILL TYPE pubsub").await),
        }
    }

    /// The node receives pushes again.
    pub(super) async fn unblock_pushes(&self, node: &NodeId) {
        if let Self::Memory(store) = self {
            store.unblock_pushes(node).await;
        }
    }
}

impl Node {
    pub(super) async fn receives(&mut self) -> Inbound {
        assert!(
            self.pushed.is_empty(),
            "the test has not taken the whole push before"
        );
        timeout(PATIENCE, self.inbox.recv())
            .await
            .expect("an event in time")
            .unwrap()
    }

    pub(super) async fn receives_push(&mut self) -> (SessionId, Entry) {
        if self.pushed.is_empty() {
            match self.receives().await {
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
                other => panic!("expected a push, got: {other:?}"),
            }
        }
        self.pushed.pop_front().expect("a push is never empty")
    }

    pub(super) async fn claims(&self, lease: &Lease) {
        assert_eq!(
            self.broker.claim(lease, None, None, None).await.unwrap(),
            Claim::Won
        );
    }

    pub(super) async fn sends(
        &self,
        to: &Address,
        only: Option<SessionId>,
        envelope: Envelope,
    ) -> Outcome {
        let options = SendOptions {
            in_call: false,
            only,
            always: false,
            direct: None,
        };
        self.sends_with(to, options, envelope).await
    }

    pub(super) async fn sends_with(
        &self,
        to: &Address,
        options: SendOptions,
        envelope: Envelope,
    ) -> Outcome {
        let receipts = Receipts::default();
        self.broker
            .send(to, options, envelope, receipts.issue(false, false));
        outcome(&receipts).await
    }
}

pub(super) async fn outcome(receipts: &Receipts) -> Outcome {
    loop {
        if let Some(Answer { outcome, .. }) = receipts.take() {
            return outcome;
        }
        timeout(PATIENCE, receipts.ready(true))
            .await
            .expect("an outcome in time");
    }
}

pub(super) fn lease(name: &str) -> Lease {
    let address = Address::new(Realm::default(), UserName::parse(name).unwrap());
    Lease {
        callable_by: None,
        address,
        session: SessionId::random(),
        generation: 0,
        flags: Flags::default(),
    }
}

/// A message whose body is its number.
pub(super) fn envelope_from(from: &Lease, node: &NodeId, n: u64) -> Envelope {
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
        idempotency_key: None,
        trace: None,
        payload: Payload::Signal(signal),
    }
}

//! The implementation of [`Broker`] over Redis.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redis::Value;
use tokio::time::timeout;

use super::channel;
use super::epoch::StoreEpoch;
use super::keys::{DestinationCache, Keys};
use super::publisher::Publisher;
use super::questions::PendingQuestions;
use super::reply::{self, entries, millis, unexpected};
use super::request::{Publish, publish};
use super::scripts::Scripts;
use super::store::Ttls;
use super::subscriptions::{Subscription, Subscriptions};
use crate::broker::{
    Broker, BrokerError, Claim, Entry, Envelope, Heartbeat, Holder, Lease, Nodes, Question,
    Receipt, RecordUpdate, Renewal, Resume, SendOptions, StoreReport, Terms, Topic,
};
use crate::bugs::{self, Bug};
use crate::model::{Address, Names, NodeId, Offset, Realm, SecretHash, SessionId, UserName};

/// One node's connection to Redis. `commands` builds the commands; `renewals`, `names` and `nodes` have the longer
/// methods.
#[derive(Debug)]
pub(super) struct RedisBroker {
    pub(super) node: NodeId,
    pub(super) keys: Keys,
    pub(super) destinations: DestinationCache,
    pub(super) terms: Terms,
    pub(super) timeout: Duration,
    pub(super) scripts: Arc<Scripts>,
    /// Each carries the requests about a share of the addresses.
    pub(super) publishers: Vec<Publisher>,
    /// Carries the requests about nodes, so that a node's lease does not wait behind signals.
    pub(super) node_publisher: Publisher,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) questions: Arc<PendingQuestions>,
    pub(super) ttls: Ttls,
    pub(super) epoch: Arc<StoreEpoch>,
}

impl RedisBroker {
    /// The publisher of an address: always the same, so that requests about one address stay in order.
    pub(super) fn publisher(&self, address: &Address) -> &Publisher {
        &self.publishers[self.publisher_index(address)]
    }

    pub(super) fn publisher_index(&self, address: &Address) -> usize {
        if self.publishers.len() == 1 {
            return 0;
        }
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(address);
        // Below the number of publishers, so the conversion cannot fail.
        usize::try_from(hash % self.publishers.len() as u64).unwrap_or_default()
    }

    /// The latest time at which a command that is issued now may run, in ms of the server's clock.
    pub(super) fn deadline(&self) -> i64 {
        self.epoch.server_now().saturating_add(millis(self.timeout))
    }
}

#[async_trait]
impl Broker for RedisBroker {
    async fn claim(
        &self,
        lease: &Lease,
        over: Option<&Holder>,
        secret: Option<&SecretHash>,
        from: Option<&SecretHash>,
    ) -> Result<Claim, BrokerError> {
        // Subscribed before the claim: whatever is sent to the new holder must find a subscriber.
        let subscription: Subscription = self
            .subscriptions
            .listen(self.keys.channel(&lease.address), self.timeout)
            .await?;
        let claim = self.claim_command(lease, over, secret, from);
        let publisher = self.publisher(&lease.address);
        match publisher.query(claim).await.and_then(reply::claim) {
            Ok(Claim::Won) => {
                subscription.keep(lease);
                if bugs::has(Bug::ImmortalRecords) {
                    let key = self.keys.presence(&lease.address);
                    drop(publisher.query(redis::cmd("PERSIST").arg(key).clone()));
                }
                Ok(Claim::Won)
            }
            Ok(other) => Ok(other),
            Err(error) => {
                // Redis may have executed the claim although its reply was lost: give the name back. The release cannot
                // overtake the claim, since both go through one publisher.
                drop(publisher.query(self.of_lease(
                    &self.scripts.release,
                    lease,
                    Offset::default(),
                )));
                Err(error)
            }
        }
    }

    async fn resume(
        &self,
        address: &Address,
        secret: &SecretHash,
        callable_by: Option<&Names>,
        last: Option<Offset>,
        guarded: bool,
    ) -> Result<Resume, BrokerError> {
        let channel = self.keys.channel(address);
        let subscription: Subscription = self.subscriptions.listen(channel, self.timeout).await?;
        let resume = self.resume_command(address, secret, callable_by, last, guarded);
        let (resume, before) =
            reply::resume(address, self.publisher(address).query(resume).await?)?;
        if let Resume::Won(resumed) = &resume {
            let Lease {
                session,
                generation,
                ..
            } = resumed.lease;
            subscription.keep(&resumed.lease);
            if let Some(before) = before {
                // Best effort: if the message is lost, the earlier connection learns it from its next renewal.
                let told = publish(
                    self.keys.node_channel(&before.node),
                    channel::replaced(session, generation),
                );
                drop(self.node_publisher.query(told));
            }
        }
        Ok(resume)
    }

    async fn verify(&self, address: &Address, secret: &SecretHash) -> Result<bool, BrokerError> {
        self.check_secret(address, secret).await
    }

    fn save(
        &self,
        lease: &Lease,
        update: RecordUpdate,
    ) -> BoxFuture<'static, Result<bool, BrokerError>> {
        let save = self.save_request(lease, update);
        let reply = self.publisher(&lease.address).save(save);
        async move {
            match reply.await? {
                Value::Int(is_ours) => Ok(is_ours == 1),
                _ => Err(unexpected()),
            }
        }
        .boxed()
    }

    async fn barrier(&self, lease: &Lease) -> Result<(), BrokerError> {
        let barrier = publish(
            self.keys.channel(&lease.address),
            channel::barrier(lease.session),
        );
        self.publisher(&lease.address)
            .query(barrier)
            .await
            .map(drop)
    }

    fn renew(&self, leases: Vec<Lease>) -> BoxFuture<'static, Result<Vec<Renewal>, BrokerError>> {
        self.renew_all(&leases)
    }

    fn release(
        &self,
        address: &Address,
        holder: &Holder,
        last: Offset,
    ) -> BoxFuture<'static, Result<Vec<Entry>, BrokerError>> {
        let release = self.of_holder(&self.scripts.release, address, holder, last);
        let unread = self.publisher(address).query(release);
        async move { unread.await.and_then(entries) }.boxed()
    }

    fn reserve(&self, address: &Address, owner: &SecretHash) {
        let reserve = self.reserve_command(address, owner);
        drop(self.publisher(address).query(reserve));
    }

    fn set_callers(&self, address: &Address, callable_by: Option<&Names>, ttl: Duration) {
        let set = self.callers_command(address, callable_by, ttl);
        drop(self.publisher(address).query(set));
    }

    fn unlisten(&self, lease: &Lease) {
        self.subscriptions
            .end(lease, self.keys.channel(&lease.address));
    }

    fn send(&self, to: &Address, options: SendOptions, envelope: Envelope, receipt: Receipt) {
        let message = Publish {
            to: self.destinations.find(&self.keys, to),
            options,
            bytes: envelope.encode(),
            receipt,
        };
        self.publisher(to).send(message);
    }

    async fn names(
        &self,
        realm: &Realm,
        most: usize,
    ) -> Result<Vec<(UserName, Holder)>, BrokerError> {
        self.scan_names(realm, most).await
    }

    async fn read(&self, lease: &Lease, last: Offset) -> Result<Vec<Entry>, BrokerError> {
        let read = self.of_lease(&self.scripts.read, lease, last);
        self.publisher(&lease.address)
            .query(read)
            .await
            .and_then(entries)
    }

    async fn holders(&self, addresses: &[Address]) -> Result<Vec<Option<Holder>>, BrokerError> {
        self.read_holders(addresses).await
    }

    async fn heartbeat(
        &self,
        watched: &[NodeId],
        report: StoreReport,
    ) -> Result<Heartbeat, BrokerError> {
        self.send_heartbeat(watched, report).await
    }

    async fn nodes(&self, nodes: &[NodeId]) -> Result<Nodes, BrokerError> {
        self.read_nodes(nodes).await
    }

    async fn members(&self) -> Result<Vec<NodeId>, BrokerError> {
        self.read_members().await
    }

    async fn ask(
        &self,
        node: &NodeId,
        topic: Topic,
        body: Bytes,
        within: Duration,
    ) -> Result<Option<Bytes>, BrokerError> {
        let (pending, answer) = self.questions.ask();
        let question = channel::question(topic, &self.node, pending.number(), &body);
        let asked = publish(self.keys.node_channel(node), question);
        // PUBLISH returns the number of subscribers.
        if self.node_publisher.query(asked).await? == Value::Int(0) {
            return Ok(None);
        }
        Ok(timeout(within, answer).await.ok().and_then(Result::ok))
    }

    fn answer(&self, question: &Question, body: Bytes) {
        let channel = self.keys.node_channel(&question.asker);
        let answer = channel::answer(question.number, &body);
        drop(self.node_publisher.query(publish(channel, answer)));
    }

    async fn locate(
        &self,
        session: SessionId,
        locator: Bytes,
        ttl: Duration,
    ) -> Result<(), BrokerError> {
        self.write_home(session, locator, ttl).await
    }

    async fn located(&self, session: SessionId) -> Result<Option<Bytes>, BrokerError> {
        self.read_home(session).await
    }

    fn waiting(&self) -> usize {
        let publishers = self.publishers.iter().chain([&self.node_publisher]);
        publishers.map(Publisher::waiting).sum()
    }

    async fn close(&self) {
        let _ = self
            .node_publisher
            .query(redis::cmd("DEL").arg(self.keys.node(&self.node)).clone())
            .await;
    }
}

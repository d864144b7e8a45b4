//! One node at the shared store: the in-memory implementation of [`Broker`].

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::name::Record;
use super::state::Shared;
use crate::broker::{
    Broker, BrokerError, Claim, Confirmed, Entry, Envelope, Heartbeat, Holder, Inbound, Lease,
    Nodes, Question, Receipt, RecordUpdate, Renewal, Resume, SINCE, SendOptions, StoreReport,
    Topic,
};
use crate::model::{Address, Names, NodeId, Offset, Realm, SecretHash, SessionId, UserName};

/// The seconds since 1970, as the record of a session keeps when it began.
fn since() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed();
    since.unwrap_or_default().as_secs()
}

/// A node's handle of the shared store.
#[derive(Debug)]
pub(super) struct MemoryNode {
    pub(super) shared: Shared,
    pub(super) id: NodeId,
}

#[async_trait]
impl Broker for MemoryNode {
    async fn claim(
        &self,
        lease: &Lease,
        over: Option<&Holder>,
        secret: Option<&SecretHash>,
        from: Option<&SecretHash>,
    ) -> Result<Claim, BrokerError> {
        let mut state = self.shared.reach()?;
        if let Some(name) = state.live(&lease.address)
            && Some(&name.holder) != over
        {
            return Ok(Claim::Held(name.holder.clone()));
        }
        if let Some(left) = state.reserved_from(&lease.address, from) {
            return Ok(Claim::Reserved(left));
        }
        if over.is_some() || state.taken.contains_key(&lease.address) {
            state.remember_taken(lease);
        }
        let record = secret.map(|hash| Record {
            hash: hash.clone(),
            confirmed: Confirmed::default(),
            fields: HashMap::from([(SINCE.to_owned(), since().to_string())]),
        });
        state.put(lease, &self.id, self.shared.terms, record);
        state.callers.set(&lease.address, None, Duration::ZERO);
        Ok(Claim::Won)
    }

    async fn resume(
        &self,
        address: &Address,
        secret: &SecretHash,
        callable_by: Option<&Names>,
        last: Option<Offset>,
        guarded: bool,
    ) -> Result<Resume, BrokerError> {
        let mut state = self.shared.reach()?;
        Ok(
            match state.resume(
                address,
                secret,
                last,
                (&self.id, callable_by),
                self.shared.terms,
            ) {
                Resume::Gone if guarded && !state.has_record(address) => Resume::Later,
                resume => resume,
            },
        )
    }

    async fn verify(&self, address: &Address, secret: &SecretHash) -> Result<bool, BrokerError> {
        let (state, now) = (self.shared.reach()?, Instant::now());
        let live = state.names.get(address).filter(|name| name.until > now);
        let record = live.and_then(|name| name.record.as_ref());
        Ok(record.is_some_and(|record| record.hash == *secret))
    }

    fn save(
        &self,
        lease: &Lease,
        update: RecordUpdate,
    ) -> BoxFuture<'static, Result<bool, BrokerError>> {
        let written = self.shared.reach().map(|mut state| {
            let name = state.names.get_mut(&lease.address);
            let ours = name.filter(|name| name.holder == lease.held_by(&self.id));
            ours.map(|name| name.save(update)).is_some()
        });
        ready(written).boxed()
    }

    async fn barrier(&self, lease: &Lease) -> Result<(), BrokerError> {
        let state = self.shared.reach()?;
        if let Some(node) = state.nodes.get(&self.id) {
            node.inbound.post(Inbound::Barrier(lease.session));
        }
        Ok(())
    }

    fn renew(&self, leases: Vec<Lease>) -> BoxFuture<'static, Result<Vec<Renewal>, BrokerError>> {
        let renewed = self.shared.reach().map(|mut state| {
            leases
                .iter()
                .map(|lease| state.renew(lease, &self.id, self.shared.terms))
                .collect()
        });
        ready(renewed).boxed()
    }

    fn release(
        &self,
        address: &Address,
        holder: &Holder,
        last: Offset,
    ) -> BoxFuture<'static, Result<Vec<Entry>, BrokerError>> {
        let unread = self.shared.reach().map(|mut state| {
            let name = state.names.get(address);
            if name.is_none_or(|name| name.holder != *holder) {
                return Vec::new();
            }
            let name = state.names.remove(address);
            name.map_or_else(Vec::new, |name| name.after(last))
        });
        ready(unread).boxed()
    }

    fn reserve(&self, address: &Address, owner: &SecretHash) {
        if let Ok(mut state) = self.shared.reach() {
            state.reserve(address, owner);
        }
    }

    fn set_callers(&self, address: &Address, callable_by: Option<&Names>, ttl: Duration) {
        if let Ok(mut state) = self.shared.reach() {
            state.callers.set(address, callable_by, ttl);
        }
    }

    fn unlisten(&self, _: &Lease) {}

    fn send(&self, to: &Address, options: SendOptions, envelope: Envelope, receipt: Receipt) {
        let outcome = self
            .shared
            .reach()
            .map(|mut state| state.send(to, &options, envelope));
        receipt.settle(outcome);
    }

    async fn names(
        &self,
        realm: &Realm,
        most: usize,
    ) -> Result<Vec<(UserName, Holder)>, BrokerError> {
        let state = self.shared.reach()?;
        let now = Instant::now();
        let names = state.names.iter();
        let live = names.filter(|(address, name)| address.realm == *realm && name.until > now);
        Ok(live
            .take(most)
            .map(|(address, name)| (address.name.clone(), name.holder.clone()))
            .collect())
    }

    async fn read(&self, lease: &Lease, last: Offset) -> Result<Vec<Entry>, BrokerError> {
        let state = self.shared.reach()?;
        let name = state.names.get(&lease.address);
        let ours = name.filter(|name| name.holder == lease.held_by(&self.id));
        Ok(ours.map_or_else(Vec::new, |name| name.after(last)))
    }

    async fn holders(&self, addresses: &[Address]) -> Result<Vec<Option<Holder>>, BrokerError> {
        let state = self.shared.reach()?;
        Ok(addresses
            .iter()
            .map(|address| state.live(address).map(|name| name.holder.clone()))
            .collect())
    }

    async fn heartbeat(
        &self,
        watched: &[NodeId],
        _: StoreReport,
    ) -> Result<Heartbeat, BrokerError> {
        let mut state = self.shared.reach()?;
        let now = Instant::now();
        let own = state.alive(&self.id, now);
        if let Some(node) = state.nodes.get_mut(&self.id) {
            node.until = now + self.shared.terms.node_ttl;
        }
        Ok(Heartbeat {
            epoch: *state.epoch.borrow(),
            own,
            alive: watched.iter().map(|node| state.alive(node, now)).collect(),
        })
    }

    async fn nodes(&self, nodes: &[NodeId]) -> Result<Nodes, BrokerError> {
        let (state, now) = (self.shared.reach()?, Instant::now());
        Ok(Nodes {
            intact: state.alive(&self.id, now),
            report: Some(StoreReport::Known),
            alive: nodes.iter().map(|node| state.alive(node, now)).collect(),
        })
    }

    async fn members(&self) -> Result<Vec<NodeId>, BrokerError> {
        let (state, now) = (self.shared.reach()?, Instant::now());
        let living = state.nodes.iter().filter(|(_, node)| node.until > now);
        Ok(living.map(|(id, _)| id.clone()).collect())
    }

    async fn ask(
        &self,
        node: &NodeId,
        topic: Topic,
        body: Bytes,
        within: Duration,
    ) -> Result<Option<Bytes>, BrokerError> {
        let (sender, answer) = oneshot::channel();
        let number = {
            let mut state = self.shared.reach()?;
            state.asked += 1;
            let question = Question {
                asker: self.id.clone(),
                number: state.asked,
                body,
            };
            let Some(node) = state.nodes.get(node) else {
                return Ok(None);
            };
            let is_received = match topic {
                Topic::Session => node.inbound.post(Inbound::Challenge(question)),
                Topic::Http => node.http.try_send(question).is_ok(),
                Topic::Admin => node.admin.try_send(question).is_ok(),
            };
            if !is_received {
                return Ok(None);
            }
            let number = state.asked;
            state.questions.insert(number, sender);
            number
        };
        let answer = timeout(within, answer).await;
        self.shared.lock().questions.remove(&number);
        Ok(answer.ok().and_then(Result::ok))
    }

    fn answer(&self, question: &Question, body: Bytes) {
        if let Some(asker) = self.shared.lock().questions.remove(&question.number) {
            let _ = asker.send(body);
        }
    }

    async fn locate(
        &self,
        session: SessionId,
        locator: Bytes,
        ttl: Duration,
    ) -> Result<(), BrokerError> {
        let (mut state, now) = (self.shared.reach()?, Instant::now());
        state.locators.retain(|_, (_, until)| *until > now);
        state.locators.insert(session, (locator, now + ttl));
        Ok(())
    }

    async fn located(&self, session: SessionId) -> Result<Option<Bytes>, BrokerError> {
        let state = self.shared.reach()?;
        let stored = state.locators.get(&session);
        let live = stored.filter(|(_, until)| *until > Instant::now());
        Ok(live.map(|(locator, _)| locator.clone()))
    }

    async fn close(&self) {
        self.shared.lock().nodes.remove(&self.id);
    }
}

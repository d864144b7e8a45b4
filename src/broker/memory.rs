//! The broker without a store: an in-memory switch that several nodes of one process can plug into.
//!
//! Production plugs in one node, tests plug in three. It keeps the same promises as Redis does, expiry included.

mod state;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use self::state::{LINE, Plug, Record, State};
use super::inbound::InboundQueue;
use super::{
    Beat, Broker, BrokerError, Claim, Confirmed, Entry, Envelope, Epoch, Holder, Inbound, Lease,
    Nodes, Opened, QUESTIONS, Question, Receipt, RecordUpdate, Renewal, Resume, Resumed,
    SendOptions, StoreReport, Terms, Topic,
};
use crate::model::{Address, NodeId, Offset, Realm, SecretHash, SessionId, UserName};

/// How many names are remembered that were taken over from a holder who was believed dead.
const TAKEN: usize = 256;

/// The switch. Clones are the same switch.
#[derive(Clone, Debug)]
pub struct MemoryBroker {
    terms: Terms,
    /// Held for a few map operations, never over an await.
    state: Arc<Mutex<State>>,
}

impl MemoryBroker {
    /// A switch that nobody is plugged into.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            state: Arc::default(),
        }
    }

    /// Plugs a node in.
    pub fn plug(&self, node: NodeId) -> Opened {
        let (inbound, inbox) = InboundQueue::new(Some(LINE));
        let inbound = Arc::new(inbound);
        let (http, questions) = mpsc::channel(QUESTIONS);
        let plug = Plug {
            inbound: Arc::clone(&inbound),
            http,
            until: Instant::now() + self.terms.node_ttl,
        };
        self.lock().nodes.insert(node.clone(), plug);
        let announcer = async move { inbound.announce().await }.boxed();
        Opened {
            broker: Arc::new(Socket {
                switch: self.clone(),
                node,
            }),
            inbox,
            questions,
            drivers: vec![("gap announcer", announcer)],
        }
    }

    /// A fault for tests: the node misses every push from here on.
    pub fn deafen(&self, node: &NodeId) {
        if let Some(plug) = self.lock().nodes.get(node) {
            plug.inbound.shut();
        }
    }

    /// The end of that fault: the node hears again, and is told that it missed something.
    pub async fn undeafen(&self, node: &NodeId) {
        let inbound = self
            .lock()
            .nodes
            .get(node)
            .map(|plug| Arc::clone(&plug.inbound));
        if let Some(inbound) = inbound {
            inbound.open(LINE).await;
        }
    }

    /// A fault for tests: while the switch is away, nothing is done and everybody is told so.
    pub fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// A fault for tests: everything that the switch knew is forgotten, as by a FLUSHALL.
    pub fn forget(&self) {
        let mut state = self.lock();
        state.names.clear();
        state.epoch.send_modify(|epoch| *epoch += 1);
        state.homes.clear();
        let now = Instant::now();
        state.nodes.values_mut().for_each(|plug| plug.until = now);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> Result<MutexGuard<'_, State>, BrokerError> {
        let state = self.lock();
        if state.away {
            Err(BrokerError::TimedOut)
        } else {
            Ok(state)
        }
    }
}

/// One node's place at the switch.
#[derive(Debug)]
struct Socket {
    switch: MemoryBroker,
    node: NodeId,
}

#[async_trait]
impl Broker for Socket {
    async fn claim(
        &self,
        lease: &Lease,
        over: Option<&Holder>,
        secret: Option<&SecretHash>,
    ) -> Result<Claim, BrokerError> {
        let mut state = self.switch.reach()?;
        if let Some(name) = state.live(&lease.address)
            && Some(&name.holder) != over
        {
            return Ok(Claim::Held(name.holder.clone()));
        }
        if state.taken.len() > TAKEN {
            state.taken.clear();
        }
        if over.is_some() || state.taken.contains_key(&lease.address) {
            state.taken.insert(lease.address.clone(), lease.session);
        }
        let record = secret.map(|hash| Record {
            hash: hash.clone(),
            confirmed: Confirmed::default(),
            notes: HashMap::new(),
        });
        state.put(lease, &self.node, self.switch.terms, record);
        Ok(Claim::Won)
    }

    async fn resume(
        &self,
        address: &Address,
        secret: &SecretHash,
        last: Option<Offset>,
        guarded: bool,
    ) -> Result<Resume, BrokerError> {
        let mut state = self.switch.reach()?;
        let (now, entries) = (Instant::now(), state.entries);
        let live = state.names.get_mut(address).filter(|name| name.until > now);
        let Some((name, record)) = live.and_then(|name| {
            let record = name.record.take()?;
            Some((name, record))
        }) else {
            return Ok(if guarded { Resume::Later } else { Resume::Gone });
        };
        let is_kept = |last: Offset| last >= record.confirmed.told && last.millis <= entries;
        let refused = if record.hash != *secret {
            Some(Resume::Wrong)
        } else if !last.is_none_or(is_kept) {
            Some(Resume::Gone)
        } else {
            None
        };
        if let Some(refused) = refused {
            name.record = Some(record);
            return Ok(refused);
        }
        let before = name.holder.clone();
        let lease = Lease {
            address: address.clone(),
            session: before.session,
            generation: before.generation + 1,
            flags: super::Flags {
                resumable: true,
                detached: false,
            },
        };
        name.holder = lease.held_by(&self.node);
        name.until = now + self.switch.terms.user_ttl;
        let notes = record.notes.clone().into_iter().collect();
        let confirmed = record.confirmed;
        name.record = Some(record);
        if let Some(plug) = state.nodes.get(&before.node) {
            let (session, generation) = (lease.session, lease.generation);
            plug.inbound.post(Inbound::Replaced {
                session,
                generation,
            });
        }
        Ok(Resume::Won(Box::new(Resumed {
            lease,
            confirmed,
            notes,
            missed: false,
        })))
    }

    async fn knows(&self, address: &Address, secret: &SecretHash) -> Result<bool, BrokerError> {
        let (state, now) = (self.switch.reach()?, Instant::now());
        let live = state.names.get(address).filter(|name| name.until > now);
        let record = live.and_then(|name| name.record.as_ref());
        Ok(record.is_some_and(|record| record.hash == *secret))
    }

    fn note(
        &self,
        lease: &Lease,
        notes: RecordUpdate,
    ) -> BoxFuture<'static, Result<bool, BrokerError>> {
        let written = self.switch.reach().map(|mut state| {
            let name = state.names.get_mut(&lease.address);
            let ours = name.filter(|name| name.holder == lease.held_by(&self.node));
            ours.map(|name| name.note(notes)).is_some()
        });
        ready(written).boxed()
    }

    async fn barrier(&self, lease: &Lease) -> Result<(), BrokerError> {
        let state = self.switch.reach()?;
        if let Some(plug) = state.nodes.get(&self.node) {
            plug.inbound.post(Inbound::Barrier(lease.session));
        }
        Ok(())
    }

    fn renew(&self, leases: Vec<Lease>) -> BoxFuture<'static, Result<Vec<Renewal>, BrokerError>> {
        let renewed = self.switch.reach().map(|mut state| {
            leases
                .iter()
                .map(|lease| state.renew(lease, &self.node, self.switch.terms))
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
        let unread = self.switch.reach().map(|mut state| {
            let name = state.names.get(address);
            if name.is_none_or(|name| name.holder != *holder) {
                return Vec::new();
            }
            let name = state.names.remove(address);
            name.map_or_else(Vec::new, |name| name.after(last))
        });
        ready(unread).boxed()
    }

    fn unlisten(&self, _: &Lease) {}

    fn send(&self, to: &Address, options: SendOptions, envelope: Envelope, receipt: Receipt) {
        let outcome = self
            .switch
            .reach()
            .map(|mut state| state.send(to, &options, envelope));
        receipt.settle(outcome);
    }

    async fn names(
        &self,
        realm: &Realm,
        most: usize,
    ) -> Result<Vec<(UserName, Holder)>, BrokerError> {
        let state = self.switch.reach()?;
        let now = Instant::now();
        let names = state.names.iter();
        let live = names.filter(|(address, name)| address.realm == *realm && name.until > now);
        Ok(live
            .take(most)
            .map(|(address, name)| (address.name.clone(), name.holder.clone()))
            .collect())
    }

    async fn read(&self, lease: &Lease, last: Offset) -> Result<Vec<Entry>, BrokerError> {
        let state = self.switch.reach()?;
        let name = state.names.get(&lease.address);
        let ours = name.filter(|name| name.holder == lease.held_by(&self.node));
        Ok(ours.map_or_else(Vec::new, |name| name.after(last)))
    }

    async fn holders(&self, addresses: &[Address]) -> Result<Vec<Option<Holder>>, BrokerError> {
        let state = self.switch.reach()?;
        Ok(addresses
            .iter()
            .map(|address| state.live(address).map(|name| name.holder.clone()))
            .collect())
    }

    async fn beat(&self, watched: &[NodeId], _: StoreReport) -> Result<Beat, BrokerError> {
        let mut state = self.switch.reach()?;
        let now = Instant::now();
        let own = state.alive(&self.node, now);
        if let Some(plug) = state.nodes.get_mut(&self.node) {
            plug.until = now + self.switch.terms.node_ttl;
        }
        Ok(Beat {
            epoch: *state.epoch.borrow(),
            own,
            alive: watched.iter().map(|node| state.alive(node, now)).collect(),
        })
    }

    async fn nodes(&self, nodes: &[NodeId]) -> Result<Nodes, BrokerError> {
        let (state, now) = (self.switch.reach()?, Instant::now());
        Ok(Nodes {
            intact: state.alive(&self.node, now),
            said: Some(StoreReport::Known),
            alive: nodes.iter().map(|node| state.alive(node, now)).collect(),
        })
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
            let mut state = self.switch.reach()?;
            state.asked += 1;
            let question = Question {
                asker: self.node.clone(),
                number: state.asked,
                body,
            };
            let Some(plug) = state.nodes.get(node) else {
                return Ok(None);
            };
            let is_heard = match topic {
                Topic::Session => plug.inbound.post(Inbound::Challenge(question)),
                Topic::Http => plug.http.try_send(question).is_ok(),
            };
            if !is_heard {
                return Ok(None);
            }
            let number = state.asked;
            state.questions.insert(number, sender);
            number
        };
        let answer = timeout(within, answer).await;
        self.switch.lock().questions.remove(&number);
        Ok(answer.ok().and_then(Result::ok))
    }

    fn epoch(&self) -> Epoch {
        self.switch.lock().epoch.subscribe()
    }

    fn answer(&self, question: &Question, body: Bytes) {
        if let Some(asker) = self.switch.lock().questions.remove(&question.number) {
            let _ = asker.send(body);
        }
    }

    async fn locate(
        &self,
        session: SessionId,
        note: Bytes,
        lives: Duration,
    ) -> Result<(), BrokerError> {
        let (mut state, now) = (self.switch.reach()?, Instant::now());
        state.homes.retain(|_, (_, until)| *until > now);
        state.homes.insert(session, (note, now + lives));
        Ok(())
    }

    async fn located(&self, session: SessionId) -> Result<Option<Bytes>, BrokerError> {
        let state = self.switch.reach()?;
        let home = state.homes.get(&session);
        let home = home.filter(|(_, until)| *until > Instant::now());
        Ok(home.map(|(note, _)| note.clone()))
    }

    async fn close(&self) {
        self.switch.lock().nodes.remove(&self.node);
    }
}

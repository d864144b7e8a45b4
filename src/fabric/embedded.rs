//! The fabric without a store: an in-memory switch that several nodes of one process can plug into.
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
use super::intake::Intake;
use super::{
    Beat, Claim, Confirmed, Entry, Envelope, Epoch, Fabric, FabricError, Holder, Inbound, Lease,
    Nodes, Notes, Opened, Postage, QUESTIONS, Question, Receipt, Renewal, Resume, Resumed, Says,
    Terms, Topic,
};
use crate::model::{Address, EntryId, NodeId, Realm, SecretHash, SessionId, UserName};

/// How many names are remembered that were taken over from a holder who was believed dead.
const TAKEN: usize = 256;

/// The switch. Clones are the same switch.
#[derive(Clone, Debug)]
pub struct Switch {
    terms: Terms,
    /// Held for a few map operations, never over an await.
    state: Arc<Mutex<State>>,
}

impl Switch {
    /// A switch that nobody is plugged into.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            state: Arc::default(),
        }
    }

    /// Plugs a node in.
    pub fn plug(&self, node: NodeId) -> Opened {
        let (intake, inbox) = Intake::new(Some(LINE));
        let intake = Arc::new(intake);
        let (http, questions) = mpsc::channel(QUESTIONS);
        let plug = Plug {
            intake: Arc::clone(&intake),
            http,
            until: Instant::now() + self.terms.node_ttl,
        };
        self.lock().nodes.insert(node.clone(), plug);
        let announcer = async move { intake.announce().await }.boxed();
        Opened {
            fabric: Arc::new(Socket {
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
            plug.intake.shut();
        }
    }

    /// The end of that fault: the node hears again, and is told that it missed something.
    pub async fn undeafen(&self, node: &NodeId) {
        let intake = self
            .lock()
            .nodes
            .get(node)
            .map(|plug| Arc::clone(&plug.intake));
        if let Some(intake) = intake {
            intake.open(LINE).await;
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

    fn reach(&self) -> Result<MutexGuard<'_, State>, FabricError> {
        let state = self.lock();
        if state.away {
            Err(FabricError::TimedOut)
        } else {
            Ok(state)
        }
    }
}

/// One node's place at the switch.
#[derive(Debug)]
struct Socket {
    switch: Switch,
    node: NodeId,
}

#[async_trait]
impl Fabric for Socket {
    async fn claim(
        &self,
        lease: &Lease,
        over: Option<&Holder>,
        secret: Option<&SecretHash>,
    ) -> Result<Claim, FabricError> {
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
        last: Option<EntryId>,
        guarded: bool,
    ) -> Result<Resume, FabricError> {
        let mut state = self.switch.reach()?;
        let (now, entries) = (Instant::now(), state.entries);
        let live = state.names.get_mut(address).filter(|name| name.until > now);
        let Some((name, record)) = live.and_then(|name| {
            let record = name.record.take()?;
            Some((name, record))
        }) else {
            return Ok(if guarded { Resume::Later } else { Resume::Gone });
        };
        let is_kept = |last: EntryId| last >= record.confirmed.told && last.millis <= entries;
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
            attach: before.attach + 1,
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
            let (session, attach) = (lease.session, lease.attach);
            plug.intake.post(Inbound::Replaced { session, attach });
        }
        Ok(Resume::Won(Box::new(Resumed {
            lease,
            confirmed,
            notes,
            missed: false,
        })))
    }

    async fn knows(&self, address: &Address, secret: &SecretHash) -> Result<bool, FabricError> {
        let (state, now) = (self.switch.reach()?, Instant::now());
        let live = state.names.get(address).filter(|name| name.until > now);
        let record = live.and_then(|name| name.record.as_ref());
        Ok(record.is_some_and(|record| record.hash == *secret))
    }

    fn note(&self, lease: &Lease, notes: Notes) -> BoxFuture<'static, Result<bool, FabricError>> {
        let written = self.switch.reach().map(|mut state| {
            let name = state.names.get_mut(&lease.address);
            let ours = name.filter(|name| name.holder == lease.held_by(&self.node));
            ours.map(|name| name.note(notes)).is_some()
        });
        ready(written).boxed()
    }

    async fn barrier(&self, lease: &Lease) -> Result<(), FabricError> {
        let state = self.switch.reach()?;
        if let Some(plug) = state.nodes.get(&self.node) {
            plug.intake.post(Inbound::Barrier(lease.session));
        }
        Ok(())
    }

    fn renew(&self, leases: Vec<Lease>) -> BoxFuture<'static, Result<Vec<Renewal>, FabricError>> {
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
        last: EntryId,
    ) -> BoxFuture<'static, Result<Vec<Entry>, FabricError>> {
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

    fn send(&self, to: &Address, postage: Postage, envelope: Envelope, receipt: Receipt) {
        let outcome = self
            .switch
            .reach()
            .map(|mut state| state.send(to, &postage, envelope));
        receipt.settle(outcome);
    }

    async fn names(
        &self,
        realm: &Realm,
        most: usize,
    ) -> Result<Vec<(UserName, Holder)>, FabricError> {
        let state = self.switch.reach()?;
        let now = Instant::now();
        let names = state.names.iter();
        let live = names.filter(|(address, name)| address.realm == *realm && name.until > now);
        Ok(live
            .take(most)
            .map(|(address, name)| (address.name.clone(), name.holder.clone()))
            .collect())
    }

    async fn read(&self, lease: &Lease, last: EntryId) -> Result<Vec<Entry>, FabricError> {
        let state = self.switch.reach()?;
        let name = state.names.get(&lease.address);
        let ours = name.filter(|name| name.holder == lease.held_by(&self.node));
        Ok(ours.map_or_else(Vec::new, |name| name.after(last)))
    }

    async fn holders(&self, addresses: &[Address]) -> Result<Vec<Option<Holder>>, FabricError> {
        let state = self.switch.reach()?;
        Ok(addresses
            .iter()
            .map(|address| state.live(address).map(|name| name.holder.clone()))
            .collect())
    }

    async fn beat(&self, watched: &[NodeId], _: Says) -> Result<Beat, FabricError> {
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

    async fn nodes(&self, nodes: &[NodeId]) -> Result<Nodes, FabricError> {
        let (state, now) = (self.switch.reach()?, Instant::now());
        Ok(Nodes {
            intact: state.alive(&self.node, now),
            said: Some(Says::Known),
            alive: nodes.iter().map(|node| state.alive(node, now)).collect(),
        })
    }

    async fn ask(
        &self,
        node: &NodeId,
        topic: Topic,
        body: Bytes,
        within: Duration,
    ) -> Result<Option<Bytes>, FabricError> {
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
                Topic::Session => plug.intake.post(Inbound::Doubt(question)),
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
    ) -> Result<(), FabricError> {
        let (mut state, now) = (self.switch.reach()?, Instant::now());
        state.homes.retain(|_, (_, until)| *until > now);
        state.homes.insert(session, (note, now + lives));
        Ok(())
    }

    async fn located(&self, session: SessionId) -> Result<Option<Bytes>, FabricError> {
        let state = self.switch.reach()?;
        let home = state.homes.get(&session);
        let home = home.filter(|(_, until)| *until > Instant::now());
        Ok(home.map(|(note, _)| note.clone()))
    }

    async fn close(&self) {
        self.switch.lock().nodes.remove(&self.node);
    }
}

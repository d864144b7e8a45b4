//! The fabric without a store: an in-memory switch that several nodes of one process can plug into.
//!
//! Production plugs in one node, tests plug in three. It keeps the same promises as Redis does, expiry included.

mod letterboxes;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use self::letterboxes::Boxes;
use super::intake::{Intake, Line};
use super::{
    Beat, Challenge, Claim, Entry, Envelope, Fabric, FabricError, Holder, Inbound, Lease, Notes,
    Opened, Outcome, Postage, Receipt, Renewal, Resume, Resumed, Room, Sent, Terms, Verdict,
    WAITS_LONGER, ring,
};
use crate::model::{Address, Correlation, EntryId, NodeId, Realm, SecretHash, SessionId, UserName};

/// The switch. Clones are the same switch.
#[derive(Clone, Debug)]
pub struct Switch {
    terms: Terms,
    /// Held for a few map operations, never over an await.
    state: Arc<Mutex<State>>,
    boxes: Arc<Boxes>,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<Address, Name>,
    /// What waits for names that nobody holds.
    queues: HashMap<Address, Vec<Waiting>>,
    /// How many there may be before those are looked for whose time is over.
    queues_at_most: usize,
    nodes: HashMap<NodeId, Plug>,
    entries: u64,
    /// Names that were taken over from a holder who was believed dead, by which session.
    taken: HashMap<Address, SessionId>,
    questions: HashMap<u64, oneshot::Sender<Verdict>>,
    asked: u64,
    away: bool,
}

#[derive(Debug)]
struct Name {
    holder: Holder,
    until: Instant,
    inbox: VecDeque<Kept>,
    /// What the next holder of a resumable session must know.
    record: Option<Record>,
    /// What each sender has sent to be delivered once.
    once: HashMap<SessionId, Once>,
}

/// An entry, and how many bytes it takes where it is kept.
#[derive(Debug)]
struct Kept {
    entry: Entry,
    size: usize,
}

#[derive(Debug)]
struct Waiting {
    kept: Kept,
    until: Instant,
}

#[derive(Debug, Default)]
struct Once {
    /// The sender's latest connection.
    attach: u32,
    /// Latest last, and whether the holder was detached then.
    ids: VecDeque<(Correlation, bool)>,
}

#[derive(Debug)]
struct Record {
    hash: SecretHash,
    confirmed: EntryId,
    notes: HashMap<String, String>,
}

/// How many ids of one sender are remembered.
const REMEMBERED: usize = 256;

#[derive(Debug)]
struct Plug {
    intake: Arc<Intake>,
    until: Instant,
}

/// A node hangs on its switch by one line, which never breaks.
const LINE: Line = Line(0);

impl Switch {
    /// A switch that nobody is plugged into.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            state: Arc::default(),
            boxes: Arc::default(),
        }
    }

    /// Plugs a node in.
    pub fn plug(&self, node: NodeId) -> Opened {
        let (intake, inbox) = Intake::new(Some(LINE));
        let intake = Arc::new(intake);
        let plug = Plug {
            intake: Arc::clone(&intake),
            until: Instant::now() + self.terms.node_ttl,
        };
        self.lock().nodes.insert(node.clone(), plug);
        let announcer = async move { intake.announce().await }.boxed();
        let fabric = Arc::new(Socket {
            switch: self.clone(),
            node,
        });
        Opened {
            letterboxes: Arc::clone(&fabric) as _,
            fabric,
            inbox,
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
        state.queues.clear();
        self.boxes.forget();
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
        if state.taken.len() > REMEMBERED {
            state.taken.clear();
        }
        if over.is_some() || state.taken.contains_key(&lease.address) {
            state.taken.insert(lease.address.clone(), lease.session);
        }
        let record = secret.map(|hash| Record {
            hash: hash.clone(),
            confirmed: EntryId::default(),
            notes: HashMap::new(),
        });
        state.put(lease, &self.node, self.switch.terms, record);
        let waited = state.queue(&lease.address);
        if waited.is_empty() {
            return Ok(Claim::Won);
        }
        if let Some(name) = state.names.get_mut(&lease.address) {
            name.inbox
                .extend(waited.into_iter().map(|waiting| waiting.kept));
        }
        Ok(Claim::Awaited)
    }

    async fn resume(
        &self,
        address: &Address,
        secret: &SecretHash,
        last: Option<EntryId>,
        whole: bool,
    ) -> Result<Resume, FabricError> {
        let mut state = self.switch.reach()?;
        let (now, entries) = (Instant::now(), state.entries);
        let live = state.names.get_mut(address).filter(|name| name.until > now);
        let Some((name, record)) = live.and_then(|name| {
            let record = name.record.take()?;
            Some((name, record))
        }) else {
            return Ok(if whole { Resume::Later } else { Resume::Gone });
        };
        let is_kept = |last: EntryId| last >= record.confirmed && last.millis <= entries;
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

    fn free(
        &self,
        address: &Address,
        dead: &Holder,
    ) -> BoxFuture<'static, Result<(), FabricError>> {
        let freed = self.switch.reach().map(|mut state| {
            let name = state.names.get(address);
            if name.is_some_and(|name| name.holder == *dead) {
                state.names.remove(address);
            }
        });
        ready(freed).boxed()
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
        lease: &Lease,
        last: EntryId,
    ) -> BoxFuture<'static, Result<Vec<Entry>, FabricError>> {
        let unread = self.switch.reach().map(|mut state| {
            let ours = state
                .names
                .get(&lease.address)
                .is_some_and(|name| name.holder == lease.held_by(&self.node));
            let name = if ours {
                state.names.remove(&lease.address)
            } else {
                None
            };
            name.map_or_else(Vec::new, |name| name.after(last))
        });
        ready(unread).boxed()
    }

    fn unlisten(&self, _: &Lease) {}

    fn send(&self, to: &Address, postage: Postage, envelope: Envelope, receipt: Receipt) {
        let outcome = self
            .switch
            .reach()
            .and_then(|mut state| state.send(to, postage, envelope));
        receipt.settle(outcome);
    }

    fn withdraw(
        &self,
        to: &Address,
        from: SessionId,
    ) -> BoxFuture<'static, Result<usize, FabricError>> {
        let withdrawn = self.switch.reach().map(|mut state| {
            let mut left = state.queue(to);
            let before = left.len();
            left.retain(|waits| waits.kept.entry.envelope.from.session != from);
            let withdrawn = before - left.len();
            if !left.is_empty() {
                state.queues.insert(to.clone(), left);
            }
            withdrawn
        });
        ready(withdrawn).boxed()
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

    async fn is_whole(&self) -> Result<bool, FabricError> {
        self.switch.reach().map(|_| true)
    }

    async fn beat(&self, watched: &[NodeId], _: bool) -> Result<Beat, FabricError> {
        let mut state = self.switch.reach()?;
        let now = Instant::now();
        let own = state.alive(&self.node, now);
        if let Some(plug) = state.nodes.get_mut(&self.node) {
            plug.until = now + self.switch.terms.node_ttl;
        }
        Ok(Beat {
            own,
            alive: watched.iter().map(|node| state.alive(node, now)).collect(),
        })
    }

    async fn alive(&self, nodes: &[NodeId]) -> Result<Vec<bool>, FabricError> {
        let (state, now) = (self.switch.reach()?, Instant::now());
        Ok(nodes.iter().map(|node| state.alive(node, now)).collect())
    }

    async fn intact(&self) -> Result<bool, FabricError> {
        Ok(self.switch.reach()?.alive(&self.node, Instant::now()))
    }

    async fn challenge(&self, _: &Address, holder: &Holder) -> Result<Verdict, FabricError> {
        let (sender, verdict) = oneshot::channel();
        let token = {
            let mut state = self.switch.reach()?;
            state.asked += 1;
            let token = state.asked;
            let question = Challenge {
                session: holder.session,
                asker: self.node.clone(),
                token,
            };
            let Some(plug) = state.nodes.get(&holder.node) else {
                return Ok(Verdict::Silent);
            };
            if !plug.intake.post(Inbound::Challenge(question)) {
                return Ok(Verdict::Silent);
            }
            state.questions.insert(token, sender);
            token
        };
        let verdict = timeout(self.switch.terms.challenge, verdict).await;
        self.switch.lock().questions.remove(&token);
        Ok(verdict.ok().and_then(Result::ok).unwrap_or(Verdict::Silent))
    }

    fn answer(&self, challenge: Challenge, verdict: Verdict) {
        if let Some(asker) = self.switch.lock().questions.remove(&challenge.token) {
            let _ = asker.send(verdict);
        }
    }

    async fn close(&self) {
        self.switch.lock().nodes.remove(&self.node);
    }
}

impl State {
    fn live(&self, address: &Address) -> Option<&Name> {
        self.names
            .get(address)
            .filter(|name| name.until > Instant::now())
    }

    fn alive(&self, node: &NodeId, now: Instant) -> bool {
        self.nodes.get(node).is_some_and(|plug| plug.until > now)
    }

    fn put(&mut self, lease: &Lease, node: &NodeId, terms: Terms, record: Option<Record>) {
        let until = Instant::now() + terms.user_ttl;
        let name = Name {
            holder: lease.held_by(node),
            until,
            inbox: VecDeque::new(),
            record,
            once: HashMap::new(),
        };
        self.names.insert(lease.address.clone(), name);
    }

    fn renew(&mut self, lease: &Lease, node: &NodeId, terms: Terms) -> Renewal {
        let (now, ours) = (Instant::now(), lease.held_by(node));
        let live = self.names.get_mut(&lease.address);
        let Some(name) = live.filter(|name| name.until > now) else {
            let taken = self.taken.get(&lease.address);
            if taken.is_some_and(|taken| *taken != lease.session) {
                return Renewal::Lost;
            }
            self.put(lease, node, terms, None);
            return Renewal::Regained;
        };
        if name.holder.session != ours.session {
            return Renewal::Lost;
        }
        if name.holder.attach > ours.attach {
            return Renewal::Replaced;
        }
        // The same connection, perhaps with other flags.
        name.holder = ours;
        name.until = now + terms.user_ttl;
        if lease.flags.resumable && name.record.is_none() {
            Renewal::Regained
        } else {
            Renewal::Mine
        }
    }

    /// Takes away what waits for a name.
    fn queue(&mut self, address: &Address) -> Vec<Waiting> {
        let now = Instant::now();
        let mut queue = self.queues.remove(address).unwrap_or_default();
        queue.retain(|waiting| waiting.until > now);
        queue
    }

    /// Nobody has the name: what is sent waits for whoever claims it.
    fn wait(&mut self, to: &Address, envelope: Envelope, patience: Duration) -> Sent {
        let (size, sender) = (envelope.encode().len(), envelope.from.session);
        let mut queue = self.queue(to);
        let kept = queue.iter().map(|waiting| &waiting.kept);
        let mut sent = Sent::Absent;
        if fits(Room::QUEUE, kept, sender, size) {
            self.entries += 1;
            let id = EntryId {
                millis: self.entries,
                sequence: 0,
            };
            sent = Sent::Waits;
            queue.push(Waiting {
                kept: Kept {
                    entry: Entry { id, envelope },
                    size,
                },
                until: Instant::now() + patience + WAITS_LONGER,
            });
        }
        if !queue.is_empty() {
            self.queues.insert(to.clone(), queue);
        }
        // Whoever sent it withdraws it, unless that one is gone.
        if self.queues.len() > self.queues_at_most.max(REMEMBERED) {
            let now = Instant::now();
            self.queues
                .retain(|_, queue| queue.iter().any(|waiting| waiting.until > now));
            self.queues_at_most = 2 * self.queues.len();
        }
        sent
    }

    fn send(&mut self, to: &Address, postage: Postage, envelope: Envelope) -> Outcome {
        let now = Instant::now();
        let Some(name) = self.names.get_mut(to).filter(|name| name.until > now) else {
            return Ok(match postage.patience {
                Some(patience) if postage.only.is_none() => self.wait(to, envelope, patience),
                _ => Sent::Absent,
            });
        };
        let mut holder = name.holder.clone();
        if postage
            .only
            .is_some_and(|session| session != holder.session)
        {
            return Ok(Sent::Absent);
        }
        let (sender, attach) = (envelope.from.session, envelope.from.attach);
        if let (Some(id), Some(sent)) = (&envelope.once, name.once.get(&sender)) {
            if let Some((_, detached)) = sent.ids.iter().rev().find(|(known, _)| known == id) {
                holder.flags.detached = *detached;
                return Ok(Sent::Again(holder));
            }
            if attach < sent.attach {
                return Err(FabricError::Overtaken);
            }
        }
        let size = envelope.encode().len();
        if holder.flags.resumable {
            if !postage.urgent && !fits(Room::INBOX, name.inbox.iter(), sender, size) {
                return Ok(Sent::Full(holder));
            }
        } else {
            while name.inbox.len() >= ring(envelope.body_len()) {
                name.inbox.pop_front();
            }
        }
        if let Some(id) = &envelope.once {
            let sent = name.once.entry(sender).or_default();
            if sent.ids.len() == REMEMBERED {
                sent.ids.pop_front();
            }
            sent.ids.push_back((id.clone(), holder.flags.detached));
            sent.attach = attach;
        }
        self.entries += 1;
        let entry = Entry {
            id: EntryId {
                millis: self.entries,
                sequence: 0,
            },
            envelope,
        };
        name.inbox.push_back(Kept {
            entry: entry.clone(),
            size,
        });
        if let Some(plug) = self.nodes.get(&holder.node) {
            plug.intake
                .push(LINE, holder.session, holder.attach, vec![entry]);
        }
        Ok(Sent::To(holder))
    }
}

impl Name {
    fn note(&mut self, notes: Notes) {
        if let Some((hash, _)) = notes.anew {
            self.record = Some(Record {
                hash,
                confirmed: EntryId::default(),
                notes: HashMap::new(),
            });
        }
        let Some(record) = &mut self.record else {
            return;
        };
        if let Some(last) = notes.confirmed {
            record.confirmed = last;
            self.inbox.retain(|kept| kept.entry.id > last);
        }
        record.notes.extend(notes.set);
        for field in notes.unset {
            record.notes.remove(&field);
        }
    }

    fn after(&self, last: EntryId) -> Vec<Entry> {
        let entries = self.inbox.iter().map(|kept| &kept.entry);
        entries.filter(|entry| entry.id > last).cloned().collect()
    }
}

/// Whether there is room for so many bytes of this sender beside what is kept.
fn fits<'a>(
    room: Room,
    kept: impl Iterator<Item = &'a Kept>,
    sender: SessionId,
    size: usize,
) -> bool {
    let (mut entries, mut bytes, mut share) = (1, size, Room::weight(size));
    for Kept { entry, size } in kept {
        entries += 1;
        bytes += size;
        if entry.envelope.from.session == sender {
            share += Room::weight(*size);
        }
    }
    entries <= room.entries && bytes <= room.bytes && share <= room.share
}

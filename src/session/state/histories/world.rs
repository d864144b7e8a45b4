//! A model of clients, connections, mailboxes and a store around some session states, for random histories.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::client::Client;
use crate::broker::{
    Answer, BrokerError, Confirmed, Entry, Envelope, Flags, Holder, Lease, RecordUpdate, Resumed,
    SendOptions, Sent,
};
use crate::model::{Address, Correlation, Offset, Realm, Secret, SecretHash, SessionId, UserName};
use crate::router::{LocalNode, Mail};
use crate::session::state::{Action, Effect, FoundPeer, Input, Moment, State};

/// What one user's session is doing.
#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) client: Client,
    pub(super) state: Option<State>,
    /// Actions that are written and that the client has not read yet.
    pub(super) wire: VecDeque<Action>,
    mailbox: VecDeque<Mail>,
    outcomes: VecDeque<Answer>,
    read: Option<Offset>,
    saves: VecDeque<(u64, Result<bool, BrokerError>)>,
    find: Option<Vec<FoundPeer>>,
    pings: u64,
    pub(super) is_connected: bool,
}

/// What the store keeps of one name.
#[derive(Debug)]
struct Stored {
    holder: Holder,
    hash: Option<SecretHash>,
    inbox: Vec<Entry>,
    record: BTreeMap<String, String>,
    confirmed: Confirmed,
    epoch: u64,
}

/// Some users, each on a node of their own, and the store.
#[derive(Debug)]
pub(super) struct World {
    pub(super) users: Vec<User>,
    store: HashMap<Address, Stored>,
    nodes: Vec<Arc<LocalNode>>,
    now: Instant,
    last_entry: u64,
    epoch: u64,
    /// Signals that the store refuses, without taking them, or takes without an answer: one each.
    pub(super) fault: Option<Fault>,
}

/// What happens to the next send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is lost, and its outcome is unknown.
    Lost,
    /// It arrives, and its outcome is unknown.
    Unanswered,
}

pub(super) fn address(user: usize) -> Address {
    let name = UserName::parse(&format!("user-{user}"));
    Address::new(Realm::default(), name.unwrap_or_else(|_| unreachable!()))
}

impl World {
    /// A world in which everybody is logged in; `resumable` says who has a resumable session.
    pub(super) fn new(resumable: &[bool]) -> Self {
        let nodes = (0..resumable.len()).map(|user| LocalNode::for_tests(&format!("node-{user}")));
        let mut world = Self {
            users: Vec::new(),
            store: HashMap::new(),
            nodes: nodes.map(Arc::new).collect(),
            now: Instant::now(),
            last_entry: 0,
            epoch: 0,
            fault: None,
        };
        for (user, &resumable) in resumable.iter().enumerate() {
            world.users.push(User::default());
            world.users[user].client.is_resumable = resumable;
            world.login(user);
        }
        world
    }

    fn moment(&self) -> Moment {
        let (now, guard) = (self.now, None);
        Moment { now, guard }
    }

    fn login(&mut self, user: usize) {
        let resumable = self.users[user].client.is_resumable;
        let (address, session) = (address(user), SessionId::random());
        let (secret, flags) = (
            Secret::random(),
            Flags {
                resumable,
                detached: false,
            },
        );
        let lease = Lease {
            address: address.clone(),
            session,
            generation: 0,
            flags,
        };
        let hash = resumable.then(|| secret.hash_for(&address));
        let stored = Stored {
            holder: lease.held_by(&self.nodes[user].id),
            hash: hash.clone(),
            inbox: Vec::new(),
            record: BTreeMap::new(),
            confirmed: Confirmed::default(),
            epoch: self.epoch,
        };
        self.store.insert(address, stored);
        let secret = hash.map(|hash| (Some(secret), hash));
        let node = Arc::clone(&self.nodes[user]);
        self.users[user].state = Some(State::new(node, lease, secret, self.epoch, self.moment()));
        self.users[user].is_connected = true;
    }

    /// Gives one user's state an input, and does what follows.
    pub(super) fn on(&mut self, user: usize, input: Input) {
        let moment = self.moment();
        if let Some(state) = &mut self.users[user].state {
            state.on(input, moment);
            self.run(user);
        }
    }

    fn run(&mut self, user: usize) {
        let Some(state) = &mut self.users[user].state else {
            return;
        };
        let (actions, effects) = (state.take_actions(), state.take_effects());
        if self.users[user].is_connected {
            self.users[user].wire.extend(actions);
        }
        for effect in effects {
            self.execute(user, effect);
        }
    }

    fn execute(&mut self, user: usize, effect: Effect) {
        let Some(lease) = self.users[user]
            .state
            .as_ref()
            .map(|state| state.lease().clone())
        else {
            return;
        };
        match effect {
            Effect::Send {
                to,
                options,
                envelope,
                ..
            } => {
                let fault = self.fault.take();
                let sent = match fault {
                    Some(Fault::Lost) => None,
                    _ => Some(self.send(&to, &options, *envelope)),
                };
                let outcome = match (sent, fault) {
                    (Some(sent), None) => Ok(sent),
                    _ => Err(BrokerError::TimedOut),
                };
                let at = Some(SystemTime::UNIX_EPOCH);
                self.users[user].outcomes.push_back(Answer { outcome, at });
            }
            Effect::Save(number, update) => {
                let ours = self.save(&lease, user, *update);
                let saves = &mut self.users[user].saves;
                saves.extend(number.map(|number| (number, Ok(ours))));
            }
            Effect::Read(last, _) => self.users[user].read = Some(last),
            Effect::StopReading => self.users[user].read = None,
            Effect::FindPeers(peers) => {
                let find = |peer: super::super::LostPeer| {
                    let holder = self
                        .store
                        .get(&peer.address)
                        .map(|stored| stored.holder.clone());
                    (peer, true, holder)
                };
                self.users[user].find = Some(peers.into_iter().map(find).collect());
            }
            Effect::LookUp(_) | Effect::Release(..) | Effect::Answer(..) => {}
        }
    }

    fn send(&mut self, to: &Address, options: &SendOptions, envelope: Envelope) -> Sent {
        let meant = options.meant();
        let held = self.store.get_mut(to);
        let held = held.filter(|held| meant.is_none_or(|meant| meant == held.holder.session));
        let Some(stored) = held else {
            return Sent::Absent;
        };
        let holder = stored.holder.clone();
        let mail = if holder.flags.resumable {
            self.last_entry += 1;
            let id = Offset {
                millis: self.last_entry,
                sequence: 0,
            };
            let entry = Entry { id, envelope };
            stored.inbox.push(entry.clone());
            Mail::Push(vec![entry])
        } else {
            Mail::Direct(envelope)
        };
        let receiver = self.users.iter_mut().find(|user| {
            let lease = user.state.as_ref().map(State::lease);
            lease.is_some_and(|lease| {
                (lease.session, lease.generation) == (holder.session, holder.generation)
            })
        });
        if let Some(receiver) = receiver {
            receiver.mailbox.push_back(mail);
        }
        Sent::To(holder)
    }

    fn save(&mut self, lease: &Lease, user: usize, update: RecordUpdate) -> bool {
        let Some(stored) = self.store.get_mut(&lease.address) else {
            return false;
        };
        let holder = lease.held_by(&self.nodes[user].id);
        if (stored.holder.session, stored.holder.generation) != (holder.session, holder.generation)
        {
            return false;
        }
        if let Some((hash, behind)) = update.anew {
            stored.hash = Some(hash);
            stored.record.clear();
            stored.epoch = self.epoch;
            self.last_entry = self.last_entry.max(behind.millis);
        } else if stored.hash.is_none() {
            return true;
        }
        if let Some(confirmed) = update.confirmed {
            stored.confirmed = confirmed;
            stored.inbox.retain(|entry| entry.id > confirmed.all);
        }
        stored.record.extend(update.set);
        for field in update.unset {
            stored.record.remove(&field);
        }
        true
    }

    /// Does the next thing that waits for this user, of this kind. Whether there was one.
    pub(super) fn deliver(&mut self, user: usize, kind: u8) -> bool {
        let it = &mut self.users[user];
        if it.state.is_none() {
            return false;
        }
        let input = match kind % 5 {
            0 => it.mailbox.pop_front().map(Input::Mail),
            1 => it.outcomes.pop_front().map(Input::Outcome),
            2 => it.read.take().map(|last| {
                let stored = self.store.get(&address(user));
                let inbox = stored
                    .map(|stored| stored.inbox.as_slice())
                    .unwrap_or_default();
                let unread = inbox.iter().filter(|entry| entry.id > last);
                Input::InboxRead(Ok(unread.cloned().collect()))
            }),
            3 => it
                .saves
                .pop_front()
                .map(|(number, result)| Input::Saved(number, result)),
            _ => it.find.take().map(Input::PeersFound),
        };
        let Some(input) = input else { return false };
        self.on(user, input);
        true
    }

    /// Time passes until something is due for this user.
    pub(super) fn wait(&mut self, user: usize) -> bool {
        let due = self.users[user].state.as_ref().and_then(State::next_at);
        let Some(due) = due else { return false };
        self.now = self.now.max(due);
        self.on(user, Input::Due);
        true
    }

    /// The client reads what was written to it.
    pub(super) fn read_wire(&mut self, user: usize) {
        while let Some(action) = self.users[user].wire.pop_front() {
            match action {
                Action::Tell(event) => self.users[user].client.hear(&event),
                Action::End(reason) => panic!("user {user} was ended: {reason:?}"),
                Action::EndSpan(_) | Action::Challenge | Action::Ping => {}
            }
        }
    }

    /// The client has read everything, and answers a ping.
    pub(super) fn confirm(&mut self, user: usize) {
        if !self.users[user].is_connected {
            return;
        }
        self.users[user].pings += 1;
        let ping = self.users[user].pings;
        self.on(user, Input::Pinged(ping));
        self.read_wire(user);
        self.on(user, Input::Ponged(ping));
    }

    /// The connection breaks; what was written is lost. The node notices, or dies as well.
    pub(super) fn disconnect(&mut self, user: usize, dies: bool) {
        let is_known = self.store[&address(user)].hash.is_some();
        let it = &mut self.users[user];
        // A node that dies with what the store has lost takes the session along.
        if !it.is_connected || !it.client.is_resumable || (dies && !is_known) {
            return;
        }
        it.is_connected = false;
        it.wire.clear();
        it.client.disconnected();
        if dies {
            it.state = None;
            it.mailbox.clear();
            it.outcomes.clear();
            (it.read, it.find) = (None, None);
            it.saves.clear();
        } else {
            if let Some(stored) = self.store.get_mut(&address(user)) {
                stored.holder.flags.detached = true;
            }
            self.on(user, Input::Detach);
        }
    }

    /// The client comes back on a fresh connection, and repeats what was not answered.
    pub(super) fn resume(&mut self, user: usize) {
        let stored = self.store.get(&address(user));
        // Until its record is written anew, it is told to try again.
        let is_known = stored.is_some_and(|stored| stored.hash.is_some());
        if self.users[user].is_connected || !is_known {
            return;
        }
        // The earlier connection is told, and says nothing to anybody.
        let it = &mut self.users[user];
        it.state = None;
        it.mailbox.clear();
        it.outcomes.clear();
        (it.read, it.find) = (None, None);
        it.saves.clear();
        let Some(stored) = self.store.get_mut(&address(user)) else {
            return;
        };
        stored.holder.generation += 1;
        stored.holder.flags.detached = false;
        let holder = stored.holder.clone();
        let lease = Lease {
            address: address(user),
            session: holder.session,
            generation: holder.generation,
            flags: holder.flags,
        };
        let last = it.client.last;
        let missed = stored.epoch != self.epoch;
        let notes = stored
            .record
            .iter()
            .map(|(field, value)| (field.clone(), value.clone()));
        let resumed = Resumed {
            lease,
            confirmed: stored.confirmed,
            notes: notes.collect(),
            missed,
        };
        let Some(hash) = stored.hash.clone() else {
            unreachable!("nobody resumes before the record is written anew")
        };
        let (node, moment) = (Arc::clone(&self.nodes[user]), self.moment());
        let state = State::resume(node, &resumed, (None, hash), last, self.epoch, moment);
        let it = &mut self.users[user];
        it.state = Some(state);
        it.is_connected = true;
        self.run(user);
        for input in self.users[user].client.unanswered() {
            self.settle_one_read(user);
            self.on(user, input);
        }
    }

    /// A session hears its client only when its inbox was read once.
    fn settle_one_read(&mut self, user: usize) {
        while self.users[user].state.as_ref().is_some_and(State::is_busy) {
            if !(self.deliver(user, 2) || self.deliver(user, 1)) {
                return;
            }
        }
    }

    /// Whether this user's session takes what its client says now.
    pub(super) fn listens(&self, user: usize) -> bool {
        let it = &self.users[user];
        it.is_connected && it.state.as_ref().is_some_and(|state| !state.is_busy())
    }

    /// Everything that is under way arrives, and everybody reads it.
    pub(super) fn come_to_rest(&mut self) {
        self.fault = None;
        for _ in 0..1000 {
            let mut moves = false;
            for user in 0..self.users.len() {
                self.resume(user);
                while (0..5).any(|kind| self.deliver(user, kind)) {
                    moves = true;
                }
                self.read_wire(user);
                moves |= self.wait(user);
                for input in self.users[user].client.refused() {
                    self.on(user, input);
                    moves = true;
                }
            }
            if !moves {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// The store loses everything but the leases, which their holders renew; each is told of it.
    pub(super) fn lose_data(&mut self) {
        if self.users.iter().any(|user| user.state.is_none()) {
            return;
        }
        self.epoch += 1;
        for stored in self.store.values_mut() {
            stored.inbox.clear();
            stored.record.clear();
            stored.hash = None;
        }
        for user in &mut self.users {
            user.client.data_was_lost = true;
            user.mailbox.push_back(Mail::Regained(self.epoch));
        }
    }
}

/// How clients call what they send.
pub(super) fn correlation(number: u64) -> Correlation {
    Correlation(number.to_string().into())
}

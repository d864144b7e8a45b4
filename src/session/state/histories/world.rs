//! A model of clients, connections, mailboxes and a store around some session states, for random histories.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::client::Client;
use crate::broker::{Answer, BrokerError, Confirmed, Entry, Flags, Holder, Lease};
use crate::model::{Address, Correlation, Offset, Realm, Secret, SecretHash, SessionId, UserName};
use crate::router::{LocalNode, Mail};
use crate::session::state::{Action, Effect, FoundPeer, Input, Moment, State};

/// One user's client and session, with everything under way between them and the store.
#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) client: Client,
    pub(super) state: Option<State>,
    /// Actions that are written and that the client has not read.
    pub(super) wire: VecDeque<Action>,
    pub(super) mailbox: VecDeque<Mail>,
    pub(super) outcomes: VecDeque<Answer>,
    pub(super) read: Option<Offset>,
    pub(super) saves: VecDeque<(u64, Result<bool, BrokerError>)>,
    pub(super) find: Option<Vec<FoundPeer>>,
    pub(super) pings: u64,
    pub(super) is_connected: bool,
    /// Its client's application confirms what it has.
    pub(super) app_confirms: bool,
}

/// What the store keeps of one name.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) holder: Holder,
    pub(super) hash: Option<SecretHash>,
    pub(super) inbox: Vec<Entry>,
    pub(super) record: BTreeMap<String, String>,
    pub(super) confirmed: Confirmed,
    pub(super) epoch: u64,
}

/// Some users, each on a node of their own, and the store.
#[derive(Debug)]
pub(super) struct World {
    pub(super) users: Vec<User>,
    pub(super) store: HashMap<Address, Stored>,
    pub(super) nodes: Vec<Arc<LocalNode>>,
    now: Instant,
    pub(super) last_entry: u64,
    pub(super) epoch: u64,
    /// The fault of the next send, if there is one.
    pub(super) fault: Option<Fault>,
    /// The next update of a record is lost.
    pub(super) loses_update: bool,
}

/// What happens to the next send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The signal is lost, and its outcome is unknown.
    Lost,
    /// The signal arrives, and its outcome is unknown.
    Unanswered,
}

pub(super) fn address(user: usize) -> Address {
    let name = UserName::parse(&format!("user-{user}"));
    Address::new(Realm::default(), name.unwrap_or_else(|_| unreachable!()))
}

impl World {
    /// A world in which all users are logged in; `resumable` says who has a resumable session.
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
            loses_update: false,
        };
        for (user, &resumable) in resumable.iter().enumerate() {
            world.users.push(User::default());
            world.users[user].client.is_resumable = resumable;
            world.login(user);
        }
        world
    }

    pub(super) fn moment(&self) -> Moment {
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
            callable_by: None,
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

    /// Passes an input to one user's state, and executes the effects.
    pub(super) fn on(&mut self, user: usize, input: Input) {
        let moment = self.moment();
        if let Some(state) = &mut self.users[user].state {
            state.on(input, moment);
            self.run(user);
        }
    }

    pub(super) fn run(&mut self, user: usize) {
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
                // Requests queued behind a failed one fail too, until its sender knows.
                let outcomes = &self.users[user].outcomes;
                let is_behind = outcomes.iter().any(|answer| answer.outcome.is_err());
                let behind = is_behind.then_some(Fault::Lost);
                let fault = behind.or(self.fault.take());
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
                let saved = if std::mem::take(&mut self.loses_update) {
                    Err(BrokerError::TimedOut)
                } else {
                    Ok(self.save(&lease, user, *update))
                };
                let results = &mut self.users[user].saves;
                results.extend(number.map(|number| (number, saved)));
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
            Effect::LookUp(_) | Effect::Release(..) | Effect::Answer(..) | Effect::Tell(_) => {}
        }
    }

    /// Handles the next event of this kind that waits for this user. False if there is none.
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

    /// Time passes until something is due for this user. False if nothing is.
    pub(super) fn wait(&mut self, user: usize) -> bool {
        let due = self.users[user].state.as_ref().and_then(State::next_at);
        let Some(due) = due else { return false };
        self.now = self.now.max(due);
        self.on(user, Input::Due);
        true
    }

    /// Delivers everything that is under way, until all clients have read everything.
    pub(super) fn come_to_rest(&mut self) {
        (self.fault, self.loses_update) = (None, false);
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
}

/// The id of the signal with this number.
pub(super) fn correlation(number: u64) -> Correlation {
    Correlation(number.to_string().into())
}

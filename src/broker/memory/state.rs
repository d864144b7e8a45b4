//! The data of the in-memory store: names with their inboxes and records, nodes, and HTTP session locators.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::callers::Callers;
use super::events::Events;
use super::name::{Name, Record};
use crate::broker::inbound::{ConnectionId, InboundQueue};
use crate::broker::{
    BrokerError, Entry, Envelope, Flags, Inbound, Lease, Question, RESERVED_FOR, Renewal, Resume,
    Resumed, SendOptions, Sent, Terms,
};
use crate::model::{Address, Names, NodeId, Offset, Revocation, SecretHash, SessionId, TokenGroup};

/// How many [taken](State::taken) names are remembered before all are forgotten.
const TAKEN: usize = 256;

/// The connection of each node. It never breaks, so one number is enough.
pub(super) const CONNECTION: ConnectionId = ConnectionId(0);

/// The store as its nodes share it.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) terms: Terms,
    /// Held for a few map operations, never over an await.
    state: Arc<Mutex<State>>,
}

impl Shared {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms,
            state: Arc::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state, unless a test has made the store unreachable.
    pub(super) fn reach(&self) -> Result<MutexGuard<'_, State>, BrokerError> {
        let state = self.lock();
        if state.is_unreachable {
            Err(BrokerError::TimedOut)
        } else {
            Ok(state)
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) names: HashMap<Address, Name>,
    pub(super) nodes: HashMap<NodeId, Node>,
    /// Counts how often all data was lost.
    pub(super) epoch: watch::Sender<u64>,
    /// How many entries were appended, which makes their offsets.
    entries: u64,
    /// Names that were claimed over a holder who was believed dead, with the claiming session. If that holder comes
    /// back after the name is free again, it may not take the name back: what was sent to it is gone.
    pub(super) taken: HashMap<Address, SessionId>,
    /// For whom names are reserved, and until when.
    reserved: HashMap<Address, (SecretHash, Instant)>,
    pub(super) questions: HashMap<u64, oneshot::Sender<Bytes>>,
    /// How many questions were asked, which makes their numbers.
    pub(super) asked: u64,
    /// Locators of HTTP sessions, and when each expires.
    pub(super) locators: HashMap<SessionId, (Bytes, Instant)>,
    pub(super) revocations: HashMap<TokenGroup, Revocation>,
    /// Who may call users.
    pub(super) callers: Callers,
    /// For webhooks.
    pub(super) events: Events,
    /// Set by tests.
    pub(super) is_unreachable: bool,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) inbound: Arc<InboundQueue>,
    pub(super) http: mpsc::Sender<Question>,
    pub(super) admin: mpsc::Sender<Question>,
    /// When its lease expires.
    pub(super) until: Instant,
}

impl State {
    pub(super) fn live(&self, address: &Address) -> Option<&Name> {
        self.names
            .get(address)
            .filter(|name| name.until > Instant::now())
    }

    pub(super) fn has_record(&self, address: &Address) -> bool {
        self.live(address).is_some_and(|name| name.record.is_some())
    }

    pub(super) fn alive(&self, node: &NodeId, now: Instant) -> bool {
        self.nodes.get(node).is_some_and(|node| node.until > now)
    }

    pub(super) fn remember_taken(&mut self, lease: &Lease) {
        if self.taken.len() > TAKEN {
            self.taken.clear();
        }
        self.taken.insert(lease.address.clone(), lease.session);
    }

    pub(super) fn reserve(&mut self, address: &Address, owner: &SecretHash) {
        let now = Instant::now();
        self.reserved.retain(|_, (_, until)| *until > now);
        let reservation = (owner.clone(), now + RESERVED_FOR);
        self.reserved.insert(address.clone(), reservation);
    }

    /// For how long the name is reserved for somebody else than `from`. A reservation ends with the claim for which it
    /// was made.
    pub(super) fn reserved_from(
        &mut self,
        address: &Address,
        from: Option<&SecretHash>,
    ) -> Option<Duration> {
        let (owner, until) = self.reserved.get(address)?;
        let left = until.saturating_duration_since(Instant::now());
        if !left.is_zero() && Some(owner) != from {
            return Some(left);
        }
        self.reserved.remove(address);
        None
    }

    /// Moves a session to `node`, and tells the node that had it.
    pub(super) fn resume(
        &mut self,
        address: &Address,
        secret: &SecretHash,
        last: Option<Offset>,
        (node, callable_by): (&NodeId, Option<&Names>),
        terms: Terms,
    ) -> Resume {
        let (now, entries) = (Instant::now(), self.entries);
        let live = self.names.get_mut(address).filter(|name| name.until > now);
        let Some(name) = live else {
            return Resume::Gone;
        };
        let Some(record) = &name.record else {
            return Resume::Gone;
        };
        if record.hash != *secret {
            return Resume::Wrong;
        }
        let is_kept = |last: Offset| last >= record.confirmed.told && last.millis <= entries;
        if !last.is_none_or(is_kept) {
            return Resume::Gone;
        }
        let lease = Lease {
            address: address.clone(),
            session: name.holder.session,
            generation: name.holder.generation + 1,
            callable_by: callable_by.cloned(),
            flags: Flags {
                resumable: true,
                detached: false,
            },
        };
        let resumed = Resumed {
            lease: lease.clone(),
            confirmed: record.confirmed,
            fields: record.fields.clone().into_iter().collect(),
            missed: false,
        };
        let before = std::mem::replace(&mut name.holder, lease.held_by(node));
        name.until = now + terms.user_ttl;
        if let Some(node) = self.nodes.get(&before.node) {
            node.inbound.post(Inbound::Replaced {
                session: lease.session,
                generation: lease.generation,
            });
        }
        Resume::Won(Box::new(resumed))
    }

    pub(super) fn put(
        &mut self,
        lease: &Lease,
        node: &NodeId,
        terms: Terms,
        record: Option<Record>,
    ) {
        let until = Instant::now() + terms.user_ttl;
        let name = Name::new(lease.held_by(node), until, record);
        self.names.insert(lease.address.clone(), name);
    }

    pub(super) fn renew(&mut self, lease: &Lease, node: &NodeId, terms: Terms) -> Renewal {
        let (now, ours) = (Instant::now(), lease.held_by(node));
        let known = self.names.get_mut(&lease.address);
        if let Some(name) = known
            && name.until <= now
            && name.holder == ours
            && name.record.is_some()
        {
            // It ran out while the process was stopped.
            name.until = now + terms.user_ttl;
            return Renewal::Restored;
        }
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
        if name.holder.generation > ours.generation {
            return Renewal::Replaced;
        }
        // The same connection with other flags, or an earlier one before a resume that the store has lost.
        name.holder = ours;
        name.until = now + terms.user_ttl;
        if lease.flags.resumable && name.record.is_none() {
            Renewal::Regained
        } else {
            Renewal::Mine
        }
    }

    pub(super) fn send(
        &mut self,
        to: &Address,
        options: &SendOptions,
        mut envelope: Envelope,
    ) -> Sent {
        let now = Instant::now();
        let Some(name) = self.names.get_mut(to).filter(|name| name.until > now) else {
            return self.callers.absent(to, options, &envelope);
        };
        let holder = name.holder.clone();
        if options
            .meant()
            .is_some_and(|session| session != holder.session)
        {
            return Sent::Absent;
        }
        if !options.let_reach(&holder, &envelope.from.address.name) {
            return Sent::NotCallable;
        }
        let size = envelope.encode().len();
        let is_full =
            holder.flags.resumable && !options.always && !name.fits(envelope.from.session, size);
        if is_full {
            return Sent::Full(holder);
        }
        let node = self.nodes.get(&holder.node);
        if !holder.flags.resumable && node.is_none_or(|node| !node.inbound.listens(CONNECTION)) {
            return Sent::NoSubscriber(holder);
        }
        if !holder.flags.resumable {
            if let Some(node) = node {
                node.inbound
                    .direct(CONNECTION, holder.session, vec![envelope]);
            }
            return Sent::To(holder);
        }
        envelope.unshare();
        // Stored first, then pushed: a push that is missed is found in the inbox.
        self.entries += 1;
        let entry = Entry {
            id: Offset {
                millis: self.entries,
                sequence: 0,
            },
            envelope,
        };
        name.append(entry.clone(), size);
        if let Some(node) = node {
            node.inbound
                .push(CONNECTION, holder.session, holder.generation, vec![entry]);
        }
        Sent::To(holder)
    }
}

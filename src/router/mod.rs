//! Routes signals by name: to the mailbox of a session on this node, or through the broker.

mod admin;
mod challenge;
mod enter;
mod expiry_guard;
mod facts;
mod inbound;
mod leases;
mod local_node;
mod login;
mod mailbox;
mod node_monitor;
mod presence;
mod registry;
mod resume;
mod revocations;

pub use admin::{CallView, Client, UserView};
pub use facts::{Facts, ToldFacts};
pub use local_node::LocalNode;
pub use login::{BARRIER_WITHIN, Claimed};
pub use mailbox::{Bounds, Mail, MailboxReceiver};
pub use node_monitor::{CallSide, NodeMonitor};
pub use resume::{Proof, ResumeError};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use self::challenge::Challenges;
use self::expiry_guard::ExpiryGuard;
use self::mailbox::NotPosted;
use self::presence::Watchers;
use self::registry::{LocalRoute, Registry};
use self::revocations::Revocations;
use crate::broker::{
    self, Broker, BrokerError, Entry, Envelope, Epoch, Holder, Lease, Question, Receipt,
    SendOptions, Sent, Terms, Verdict,
};
use crate::model::{Address, NodeId, Offset, SessionId};
use crate::telemetry::Telemetry;

/// Holds the names of one node's sessions and routes their signals. Shared through an `Arc`. The node must run its
/// services: [`listen`](Self::listen), [`keep_node`](Self::keep_node), [`keep_users`](Self::keep_users),
/// [`keep_revocations`](Self::keep_revocations) and [`watch`](Self::watch).
#[derive(Debug)]
pub struct Router {
    local: Arc<LocalNode>,
    broker: Arc<dyn Broker>,
    /// The epoch of the store.
    epoch: Epoch,
    /// Whether the store can be used.
    health: broker::Health,
    settings: Settings,
    registry: Registry,
    expiry_guard: ExpiryGuard,
    watches: Watchers,
    doubts: Challenges,
    revocations: Revocations,
    /// Notified when every lease must be renewed soon rather than in its turn.
    renew_all: tokio::sync::Notify,
    /// Set when the epoch changes, cleared when the round of renewals that tells every session begins.
    is_new_epoch: AtomicBool,
    /// Set when the node stops while one of its sessions may still be resumed elsewhere.
    left_behind: AtomicBool,
}

/// The router's settings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bounds of each session's mailbox.
    pub mailbox: Bounds,
    /// How often the presence of watched users is read.
    pub watch_every: Duration,
    /// The most sessions of this node.
    pub sessions: usize,
}

/// The router's part of the status page and of the readiness probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Sessions on this node that hold a name.
    pub sessions: usize,
    /// Call sides on this node. A call has two sides, which may be on different nodes.
    pub calls: u64,
    /// Whether the broker has answered a heartbeat lately.
    pub broker_reached: bool,
    /// Requests that are queued for the broker.
    pub broker_queue: u64,
    /// Why the broker cannot be used and what mends it, for the operator.
    pub trouble: Option<Arc<str>>,
    /// What does no harm yet but will, for the operator.
    pub warnings: Vec<Arc<str>>,
    /// Whether load balancers may send new sessions here.
    pub ready: bool,
}

impl Router {
    /// Creates the router of a node.
    pub fn new(
        node: NodeId,
        broker: Arc<dyn Broker>,
        (epoch, health): (Epoch, broker::Health),
        terms: Terms,
        settings: Settings,
        (telemetry, facts): (Telemetry, Facts),
    ) -> Self {
        Self {
            expiry_guard: ExpiryGuard::new(terms, epoch.clone()),
            local: Arc::new(LocalNode {
                id: node,
                terms,
                telemetry,
                peers: NodeMonitor::default(),
                facts,
            }),
            broker,
            epoch,
            health,
            settings,
            registry: Registry::default(),
            watches: Watchers::default(),
            doubts: Challenges::default(),
            revocations: Revocations::default(),
            renew_all: tokio::sync::Notify::new(),
            is_new_epoch: AtomicBool::new(false),
            left_behind: AtomicBool::new(false),
        }
    }

    /// This node's id.
    pub fn node(&self) -> &NodeId {
        &self.local.id
    }

    /// What sessions need of this node.
    pub fn local(&self) -> &Arc<LocalNode> {
        &self.local
    }

    /// The broker that carries signals between nodes.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// How much longer the expiry guard holds, if it does. Meanwhile no lease counts as expired, and nobody wins a name
    /// except by resuming a session.
    pub fn guard(&self, now: Instant) -> Option<Duration> {
        self.expiry_guard.remaining_at(now)
    }

    /// The same for a guard that holds `longer`.
    pub fn guard_and(&self, longer: Duration) -> Option<Duration> {
        self.expiry_guard.remaining_and(longer)
    }

    /// The epoch of the store, as last read.
    pub fn epoch(&self) -> u64 {
        *self.epoch.borrow()
    }

    /// This node's health.
    pub fn health(&self) -> Health {
        let store = self.health.borrow().clone();
        Health {
            sessions: self.registry.logged_in(),
            calls: self.local.peers.sides(),
            broker_reached: self.expiry_guard.reached(),
            broker_queue: self.broker.waiting() as u64,
            ready: self.expiry_guard.ready() && store.is_usable(),
            trouble: store.trouble,
            warnings: store.warnings,
        }
    }

    /// Metrics and traces.
    pub fn telemetry(&self) -> &Telemetry {
        &self.local.telemetry
    }

    /// The other nodes that sessions of this node have to do with, without those known to be dead.
    pub fn nodes_seen(&self) -> Vec<NodeId> {
        self.local.peers.living()
    }

    /// Leaves a session to be resumed elsewhere: if nobody resumes it, other nodes end its calls when this node's lease
    /// expires, which [`close`](Self::close) then keeps.
    pub fn leave_behind(&self) {
        self.left_behind.store(true, Ordering::Relaxed);
    }

    /// Deletes the node's own lease, unless a session was [left behind](Self::leave_behind). Call it last.
    pub async fn close(&self) {
        if !self.left_behind.load(Ordering::Relaxed) {
            self.broker.close().await;
        }
    }

    /// Reads whether the store still holds this node's lease, in the known epoch. False while the expiry guard holds.
    pub async fn is_intact(&self) -> bool {
        self.expiry_guard.remaining().is_none()
            && self.broker.nodes(&[]).await.is_ok_and(|nodes| nodes.intact)
    }

    /// Releases a lease of this node. Returns the inbox entries after `last`.
    pub async fn give_back(&self, lease: &Lease, last: Offset) -> Result<Vec<Entry>, BrokerError> {
        let holder = lease.held_by(&self.local.id);
        self.broker.release(&lease.address, &holder, last).await
    }

    /// Stops local delivery by name and the renewal of the lease. The mailbox still receives what is addressed to the
    /// session.
    pub fn release_name(&self, lease: &Lease) {
        self.watches.forget(lease);
        self.registry.release_name(lease);
    }

    /// Removes this connection of the session from the node.
    pub fn remove(&self, lease: &Lease) {
        self.watches.forget(lease);
        self.registry.remove(lease);
    }

    /// Marks the session as detached, locally and in the store. If the write to the store fails, the next renewal
    /// repeats it.
    pub fn detach(&self, lease: &Lease) {
        self.watches.forget(lease);
        let mut lease = lease.clone();
        let renew = |lease: &Lease| self.broker.renew(vec![lease.clone()]);
        // The broker orders a renewal when it is called, so the future need not be awaited.
        drop(self.registry.detach(&mut lease, renew));
    }

    /// Waits until everything that was published to the name before has arrived, at most [`BARRIER_WITHIN`].
    pub async fn wait_behind(&self, lease: &Lease) {
        let back = self.registry.expect_barrier(lease);
        if self.broker.barrier(lease).await.is_ok() {
            let _ = timeout(BARRIER_WITHIN, back).await;
        }
    }

    /// Queues a lookup of the name's holder. The session gets the answer as [`Mail::Looked`].
    pub fn look_up(&self, session: SessionId, address: Address) {
        self.watches.ask(session, address);
    }

    /// Asks a holder's node whether the session still answers.
    pub async fn ask(&self, holder: Holder) -> Result<Verdict, BrokerError> {
        challenge::ask(Arc::clone(&self.broker), holder, self.local.terms.challenge).await
    }

    /// Answers a question of [`ask`](Self::ask).
    pub fn answer(&self, question: &Question, verdict: Verdict) {
        challenge::answer(&*self.broker, question, verdict);
    }

    /// Sends to a name: directly to a reachable plain session of this node, otherwise through the broker. A resumable
    /// session always receives through the broker, whose inbox stores the envelope: so each receiver has one path.
    pub fn route(&self, to: &Address, options: SendOptions, envelope: Envelope, receipt: Receipt) {
        match self.registry.find(to) {
            LocalRoute::Elsewhere => self.broker.send(to, options, envelope, receipt),
            LocalRoute::Here(session, callable_by, mailbox)
                if options.meant().is_none_or(|meant| meant == session) =>
            {
                let holder = Holder {
                    callable_by,
                    node: self.local.id.clone(),
                    session,
                    generation: 0,
                    flags: <_>::default(),
                };
                if !options.let_reach(&holder, &envelope.from.address.name) {
                    return receipt.settle(Ok(Sent::NotCallable));
                }
                let posted = mailbox.post(Mail::Direct(envelope));
                receipt.settle(Ok(match posted {
                    Ok(()) => Sent::To(holder),
                    Err(NotPosted::Share) => {
                        self.local.telemetry.metrics.mailbox_overflowed();
                        Sent::Full(holder)
                    }
                    // A full mailbox ends its session, so the name is as good as free.
                    Err(NotPosted::Closed) => Sent::Absent,
                }));
            }
            LocalRoute::Here(..) | LocalRoute::Arriving => receipt.settle(Ok(Sent::Absent)),
        }
    }
}

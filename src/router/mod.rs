//! Who is here, and where a signal goes: to a mailbox of this node, or through the broker.

mod challenge;
mod enter;
mod expiry_guard;
mod inbound;
mod leases;
mod login;
mod mailbox;
mod node_monitor;
mod presence;
mod registry;

pub use login::{BARRIER_WITHIN, Claimed, Proof, ResumeError};
pub use mailbox::{Bounds, Mail, MailboxReceiver};
pub use node_monitor::NodeMonitor;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use self::challenge::Challenges;
use self::expiry_guard::ExpiryGuard;
use self::presence::Watchers;
use self::registry::{LocalRoute, Registry};
use crate::broker::{
    Broker, BrokerError, Entry, Envelope, Epoch, Holder, Lease, Question, Receipt, SendOptions,
    Sent, Terms, Verdict,
};
use crate::model::{Address, NodeId, Offset, Realm, SessionId, UserName};
use crate::telemetry::Telemetry;

/// Names and signals of one node. Cheap to clone through its `Arc`; its services are `listen`, `keep_node`, `keep_users` and `watch`.
#[derive(Debug)]
pub struct Router {
    local: Arc<LocalNode>,
    broker: Arc<dyn Broker>,
    /// The epoch of the store.
    epoch: Epoch,
    settings: Settings,
    registry: Registry,
    expiry_guard: ExpiryGuard,
    watches: Watchers,
    doubts: Challenges,
    /// Told when every lease should be renewed soon, not when its turn comes.
    renew_all: tokio::sync::Notify,
    /// Set at a new epoch of the store, until every session was told.
    is_new_epoch: AtomicBool,
    /// Set when a session was left to whoever resumes it.
    left_behind: AtomicBool,
}

/// What every session knows of its node.
#[derive(Debug)]
pub struct LocalNode {
    /// The node.
    pub id: NodeId,
    /// How long leases live.
    pub terms: Terms,
    /// Figures and traces.
    pub telemetry: Telemetry,
    /// Other nodes that matter to sessions of this one.
    pub peers: NodeMonitor,
}

impl LocalNode {
    /// A node with short terms and no telemetry.
    #[cfg(test)]
    pub(crate) fn for_tests(id: &str) -> Self {
        let second = Duration::from_secs(1);
        Self {
            id: NodeId::known(id),
            terms: Terms {
                user_ttl: 30 * second,
                node_ttl: 5 * second,
                challenge: 2 * second,
                grace: 10 * second,
            },
            telemetry: Telemetry::default(),
            peers: NodeMonitor::default(),
        }
    }
}

/// What the operator decides.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How much may wait for one session.
    pub mailbox: Bounds,
    /// How often watched users are looked for.
    pub watch_every: Duration,
}

/// What an operator sees of an router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Sessions with a name.
    pub sessions: usize,
    /// Sides of calls: a call has two, here or elsewhere.
    pub calls: u64,
    /// Whether the broker answers.
    pub broker_reached: bool,
    /// How much waits for the broker.
    pub broker_queue: u64,
    /// Whether new sessions should come here.
    pub ready: bool,
}

impl Router {
    /// An router for this node.
    pub fn new(
        node: NodeId,
        broker: Arc<dyn Broker>,
        epoch: Epoch,
        terms: Terms,
        settings: Settings,
        telemetry: Telemetry,
    ) -> Self {
        Self {
            expiry_guard: ExpiryGuard::new(terms, epoch.clone()),
            local: Arc::new(LocalNode {
                id: node,
                terms,
                telemetry,
                peers: NodeMonitor::default(),
            }),
            broker,
            epoch,
            settings,
            registry: Registry::default(),
            watches: Watchers::default(),
            doubts: Challenges::default(),
            renew_all: tokio::sync::Notify::new(),
            is_new_epoch: AtomicBool::new(false),
            left_behind: AtomicBool::new(false),
        }
    }

    /// The node.
    pub fn node(&self) -> &NodeId {
        &self.local.id
    }

    /// What every session knows of the node.
    pub fn local(&self) -> &Arc<LocalNode> {
        &self.local
    }

    /// What carries signals between nodes.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// While the expiry guard holds, for how much longer: nobody is believed dead, and no stranger wins a name.
    pub fn guard(&self) -> Option<Duration> {
        self.expiry_guard.remaining()
    }

    /// The same, and so much longer.
    pub fn guard_and(&self, longer: Duration) -> Option<Duration> {
        self.expiry_guard.remaining_and(longer)
    }

    /// The epoch of the store.
    pub fn epoch(&self) -> u64 {
        *self.epoch.borrow()
    }

    /// How this node is doing.
    pub fn health(&self) -> Health {
        Health {
            sessions: self.registry.logged_in(),
            calls: self.local.peers.calls(),
            broker_reached: self.expiry_guard.reached(),
            broker_queue: self.broker.waiting() as u64,
            ready: self.expiry_guard.ready(),
        }
    }

    /// What is told to the operator.
    pub fn telemetry(&self) -> &Telemetry {
        &self.local.telemetry
    }

    /// Other nodes that matter to this one now, and live as far as it knows.
    pub fn nodes_seen(&self) -> Vec<NodeId> {
        self.local.peers.living()
    }

    /// Who has a connection in this realm, on any node, in alphabetical order; of more than `most`, some. Looks at every name of the cluster.
    pub async fn names(&self, realm: &Realm, most: usize) -> Result<Vec<UserName>, BrokerError> {
        let mut found = self.broker.names(realm, most).await?;
        found.retain(|(_, holder)| !holder.flags.detached);
        let nodes: HashSet<&NodeId> = found.iter().map(|(_, holder)| &holder.node).collect();
        let nodes: Vec<NodeId> = nodes.into_iter().cloned().collect();
        let alive = self.broker.nodes(&nodes).await?.alive;
        let dead = nodes.into_iter().zip(alive).filter(|(_, alive)| !alive);
        let dead: HashSet<NodeId> = dead.map(|(node, _)| node).collect();
        let lives =
            |(name, holder): (UserName, Holder)| (!dead.contains(&holder.node)).then_some(name);
        let mut names: Vec<UserName> = found.into_iter().filter_map(lives).collect();
        names.sort();
        Ok(names)
    }

    /// A session of this node is left to whoever resumes it; should nobody do so, others must see this node die.
    pub fn leave_behind(&self) {
        self.left_behind.store(true, Ordering::Relaxed);
    }

    /// Gives the node's own lease back, the last thing that is done; or leaves it to run out, for sessions that may yet be resumed.
    pub async fn close(&self) {
        if !self.left_behind.load(Ordering::Relaxed) {
            self.broker.close().await;
        }
    }

    /// Whether the store has what this node knows of it, asked now.
    pub async fn is_intact(&self) -> bool {
        self.expiry_guard.remaining().is_none()
            && self.broker.nodes(&[]).await.is_ok_and(|nodes| nodes.intact)
    }

    /// Gives the name of one of this node's leases back. Returns the entries after `last`.
    pub async fn give_back(&self, lease: &Lease, last: Offset) -> Result<Vec<Entry>, BrokerError> {
        let holder = lease.held_by(&self.local.id);
        self.broker.release(&lease.address, &holder, last).await
    }

    /// Nobody reaches the session by its name any more, and its lease is not renewed; mail still does.
    pub fn release_name(&self, lease: &Lease) {
        self.watches.forget(lease);
        self.registry.release_name(lease);
    }

    /// This connection of the session is no more in this node.
    pub fn remove(&self, lease: &Lease) {
        self.watches.forget(lease);
        self.registry.remove(lease);
    }

    /// The session has no connection any more, which the store is told. Should that fail, the next renewal says the same.
    pub fn detach(&self, lease: &Lease) {
        self.watches.forget(lease);
        let mut lease = lease.clone();
        let renew = |lease: &Lease| self.broker.renew(vec![lease.clone()]);
        // It takes its place in the order of the address now.
        drop(self.registry.detach(&mut lease, renew));
    }

    /// Waits until what was published to this name before has come, or for a while.
    pub async fn wait_behind(&self, lease: &Lease) {
        let back = self.registry.expect_barrier(lease);
        if self.broker.barrier(lease).await.is_ok() {
            let _ = timeout(BARRIER_WITHIN, back).await;
        }
    }

    /// Looks who holds this name; the session finds the answer in its mail.
    pub fn look_up(&self, session: SessionId, address: Address) {
        self.watches.ask(session, address);
    }

    /// Asks a holder's node whether the session still answers.
    pub async fn ask(&self, holder: Holder) -> Result<Verdict, BrokerError> {
        challenge::ask(Arc::clone(&self.broker), holder, self.local.terms.challenge).await
    }

    /// Answers such a question.
    pub fn answer(&self, question: &Question, verdict: Verdict) {
        challenge::answer(&*self.broker, question, verdict);
    }

    /// Sends on the path that this receiver always has: directly if it is in this node, through the broker if not.
    pub fn route(&self, to: &Address, options: SendOptions, envelope: Envelope, receipt: Receipt) {
        match self.registry.find(to) {
            LocalRoute::Elsewhere => self.broker.send(to, options, envelope, receipt),
            LocalRoute::Here(session, mailbox)
                if options.meant().is_none_or(|meant| meant == session) =>
            {
                let posted = mailbox.post(Mail::Direct(envelope));
                let holder = Holder {
                    node: self.local.id.clone(),
                    session,
                    generation: 0,
                    flags: <_>::default(),
                };
                // A full mailbox has ended its session.
                receipt.settle(Ok(posted.map_or(Sent::Absent, |()| Sent::To(holder))));
            }
            LocalRoute::Here(..) | LocalRoute::Arriving => receipt.settle(Ok(Sent::Absent)),
        }
    }
}

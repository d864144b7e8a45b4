//! Who is here, and where a signal goes: to a mailbox of this node, or through the fabric.

mod doubt;
mod enter;
mod hold;
mod keeper;
mod login;
mod mailbox;
mod nodes;
mod registry;
mod watches;

pub use login::{BARRIER_WITHIN, Claimed, Proof, ResumeError};
pub use mailbox::{Bounds, Letterbox, Mail};
pub use nodes::NodeWatch;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use self::enter::Guesses;
use self::hold::Hold;
use self::login::Doubts;
use self::registry::{Registry, Whereabouts};
use self::watches::Watches;
use crate::fabric::{
    Entry, Envelope, Fabric, FabricError, Holder, Inbound, Inbox, Lease, Postage, Question,
    Receipt, Sent, Terms, Verdict,
};
use crate::model::{Address, EntryId, NodeId, Realm, SessionId, UserName};
use crate::telemetry::Telemetry;

/// Names and signals of one node. Cheap to clone through its `Arc`; its services are `listen`, `keep_node`, `keep_users` and `watch`.
#[derive(Debug)]
pub struct Exchange {
    local: Arc<LocalNode>,
    fabric: Arc<dyn Fabric>,
    settings: Settings,
    registry: Registry,
    hold: Hold,
    watches: Watches,
    doubts: Doubts,
    guesses: Guesses,
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
    pub peers: NodeWatch,
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
            peers: NodeWatch::default(),
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

/// What an operator sees of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Sessions with a name.
    pub sessions: usize,
    /// Sides of calls: a call has two, here or elsewhere.
    pub calls: u64,
    /// Whether the fabric answers.
    pub fabric_reached: bool,
    /// How much waits for the fabric.
    pub fabric_queue: u64,
    /// Whether new sessions should come here.
    pub ready: bool,
}

impl Exchange {
    /// An exchange for this node.
    pub fn new(
        node: NodeId,
        fabric: Arc<dyn Fabric>,
        terms: Terms,
        settings: Settings,
        telemetry: Telemetry,
    ) -> Self {
        Self {
            hold: Hold::new(terms, fabric.epoch()),
            local: Arc::new(LocalNode {
                id: node,
                terms,
                telemetry,
                peers: NodeWatch::default(),
            }),
            fabric,
            settings,
            registry: Registry::default(),
            watches: Watches::default(),
            doubts: Doubts::default(),
            guesses: Guesses::default(),
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
    pub fn broker(&self) -> &Arc<dyn Fabric> {
        &self.fabric
    }

    /// While the expiry guard holds, for how much longer: nobody is believed dead, and no stranger wins a name.
    pub fn guard(&self) -> Option<Duration> {
        self.hold.holds()
    }

    /// The same, and so much longer.
    pub fn guard_and(&self, longer: Duration) -> Option<Duration> {
        self.hold.holds_and(longer)
    }

    /// The epoch of the store.
    pub fn epoch(&self) -> u64 {
        *self.fabric.epoch().borrow()
    }

    /// How this node is doing.
    pub fn health(&self) -> Health {
        Health {
            sessions: self.registry.seated(),
            calls: self.local.peers.calls(),
            fabric_reached: self.hold.reached(),
            fabric_queue: self.fabric.waiting() as u64,
            ready: self.hold.ready(),
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
    pub async fn names(&self, realm: &Realm, most: usize) -> Result<Vec<UserName>, FabricError> {
        let mut found = self.fabric.names(realm, most).await?;
        found.retain(|(_, holder)| !holder.flags.detached);
        let nodes: HashSet<&NodeId> = found.iter().map(|(_, holder)| &holder.node).collect();
        let nodes: Vec<NodeId> = nodes.into_iter().cloned().collect();
        let alive = self.fabric.nodes(&nodes).await?.alive;
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
            self.fabric.close().await;
        }
    }

    /// Service: delivers what comes out of the fabric.
    pub async fn listen(self: Arc<Self>, mut inbox: Inbox) {
        while let Some(inbound) = inbox.recv().await {
            self.deliver(inbound);
        }
    }

    /// Nothing waits while delivering.
    fn deliver(&self, inbound: Inbound) {
        match inbound {
            // A session that is gone has read its inbox when it gave its name back.
            Inbound::Push {
                session,
                attach,
                entries,
            } => self.registry.push(session, attach, entries),
            // What is for a session that is no more is dropped: its leave says that the call is over.
            Inbound::Direct { session, envelopes } => {
                if let Some(mailbox) = self.registry.mailbox(session) {
                    for envelope in envelopes {
                        // One that is full ends its session.
                        let _ = mailbox.post(Mail::Direct(envelope));
                    }
                }
            }
            Inbound::Replaced { session, attach } => {
                self.registry.post(session, Mail::Replaced(attach));
            }
            Inbound::Barrier(session) => self.registry.barrier(session),
            Inbound::Gap(Some(session)) => {
                self.local.telemetry.metrics.gap(true);
                self.registry.post(session, Mail::Gap);
            }
            Inbound::Gap(None) => {
                self.local.telemetry.metrics.gap(false);
                for mailbox in self.registry.mailboxes() {
                    // One that is full ends its session.
                    let _ = mailbox.post(Mail::Gap);
                }
            }
            Inbound::Doubt(question) => {
                let session = doubt::session(&question);
                match session.and_then(|session| self.registry.mailbox(session)) {
                    None => doubt::answer(&*self.fabric, &question, Verdict::Gone),
                    // One that is full is about to end; the asker tries again.
                    Some(mailbox) => drop(mailbox.post(Mail::Doubt(question))),
                }
            }
        }
    }

    /// Whether the store has what this node knows of it, asked now.
    pub async fn is_intact(&self) -> bool {
        self.hold.holds().is_none() && self.fabric.nodes(&[]).await.is_ok_and(|nodes| nodes.intact)
    }

    /// Gives the name of one of this node's leases back. Returns the entries after `last`.
    pub async fn give_back(&self, lease: &Lease, last: EntryId) -> Result<Vec<Entry>, FabricError> {
        let holder = lease.held_by(&self.local.id);
        self.fabric.release(&lease.address, &holder, last).await
    }

    /// Nobody reaches the session by its name any more, and its lease is not renewed; mail still does.
    pub fn unseat(&self, lease: &Lease) {
        self.watches.forget(lease);
        self.registry.unseat(lease);
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
        let renew = |lease: &Lease| self.fabric.renew(vec![lease.clone()]);
        // It takes its place in the order of the address now.
        drop(self.registry.detach(&mut lease, renew));
    }

    /// Waits until what was published to this name before has come, or for a while.
    pub async fn wait_behind(&self, lease: &Lease) {
        let back = self.registry.expect_barrier(lease);
        if self.fabric.barrier(lease).await.is_ok() {
            let _ = timeout(BARRIER_WITHIN, back).await;
        }
    }

    /// Looks who holds this name; the session finds the answer in its mail.
    pub fn look_up(&self, session: SessionId, address: Address) {
        self.watches.ask(session, address);
    }

    /// Asks a holder's node whether the session still answers.
    pub async fn ask(&self, holder: Holder) -> Result<Verdict, FabricError> {
        doubt::ask(Arc::clone(&self.fabric), holder, self.local.terms.challenge).await
    }

    /// Answers such a question.
    pub fn answer(&self, question: &Question, verdict: Verdict) {
        doubt::answer(&*self.fabric, question, verdict);
    }

    /// Sends on the path that this receiver always has: directly if it is in this node, through the fabric if not.
    pub fn route(&self, to: &Address, postage: Postage, envelope: Envelope, receipt: Receipt) {
        match self.registry.find(to) {
            Whereabouts::Elsewhere => self.fabric.send(to, postage, envelope, receipt),
            Whereabouts::Here(session, mailbox)
                if postage.meant().is_none_or(|meant| meant == session) =>
            {
                let posted = mailbox.post(Mail::Direct(envelope));
                let holder = Holder {
                    node: self.local.id.clone(),
                    session,
                    attach: 0,
                    flags: <_>::default(),
                };
                // A full mailbox has ended its session.
                receipt.settle(Ok(posted.map_or(Sent::Absent, |()| Sent::To(holder))));
            }
            Whereabouts::Here(..) | Whereabouts::Arriving => receipt.settle(Ok(Sent::Absent)),
        }
    }
}

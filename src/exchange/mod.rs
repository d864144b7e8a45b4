//! Who is here, and where a signal goes: to a mailbox of this node, or through the fabric.

mod calls;
mod catch_up;
mod departure;
mod doubt;
mod enter;
mod gone;
mod heard;
mod hearing;
mod hold;
mod keeper;
mod login;
mod lost;
mod mailbox;
mod memory;
mod nodes;
mod notes;
mod outbox;
mod registry;
mod seat;
mod traced;
mod waits;
mod watches;

pub use login::{Proof, ResumeError};
pub use mailbox::Bounds;
pub use seat::{Manners, Seat, Stirred, Turn};

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::enter::Guesses;
use self::hold::Hold;
use self::login::Doubts;
use self::mailbox::Mail;
use self::nodes::NodeWatch;
use self::registry::{Registry, Whereabouts};
use self::watches::Watches;
use crate::fabric::{
    Entry, Envelope, Fabric, FabricError, Holder, Inbound, Inbox, Lease, Postage, Receipt, Sent,
    Terms, Verdict,
};
use crate::model::{Address, EntryId, NodeId, Realm, UserName};
use crate::telemetry::Telemetry;

/// Names and signals of one node. Cheap to clone through its `Arc`; its services are `listen`, `keep_node`, `keep_users` and `watch`.
#[derive(Debug)]
pub struct Exchange {
    node: NodeId,
    fabric: Arc<dyn Fabric>,
    terms: Terms,
    settings: Settings,
    telemetry: Telemetry,
    registry: Registry,
    hold: Hold,
    call_nodes: Arc<NodeWatch>,
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
            node,
            hold: Hold::new(terms.node_ttl, fabric.epoch()),
            fabric,
            terms,
            settings,
            telemetry,
            registry: Registry::default(),
            call_nodes: Arc::default(),
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
        &self.node
    }

    /// How this node is doing.
    pub fn health(&self) -> Health {
        Health {
            sessions: self.registry.seated(),
            calls: self.call_nodes.calls(),
            fabric_reached: self.hold.reached(),
            fabric_queue: self.fabric.waiting() as u64,
            ready: self.hold.ready(),
        }
    }

    /// What is told to the operator.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Other nodes that matter to this one now, and live as far as it knows.
    pub fn nodes_seen(&self) -> Vec<NodeId> {
        self.call_nodes.living()
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
    fn leave_behind(&self) {
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
                self.telemetry.metrics.gap(true);
                self.registry.post(session, Mail::Gap);
            }
            Inbound::Gap(None) => {
                self.telemetry.metrics.gap(false);
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
    async fn give_back(&self, lease: &Lease, last: EntryId) -> Result<Vec<Entry>, FabricError> {
        let holder = lease.held_by(&self.node);
        self.fabric.release(&lease.address, &holder, last).await
    }

    /// Whether this node may live, and its sessions with it. From here on its lease is read with every beat for a while.
    fn believes_in(&self, node: &NodeId) -> bool {
        *node == self.node || !self.call_nodes.note(node) || self.hold.holds().is_some()
    }

    /// Sends on the path that this receiver always has: directly if it is in this node, through the fabric if not.
    fn route(&self, to: &Address, postage: Postage, envelope: Envelope, receipt: Receipt) {
        match self.registry.find(to) {
            Whereabouts::Elsewhere => self.fabric.send(to, postage, envelope, receipt),
            Whereabouts::Here(session, mailbox)
                if postage.meant().is_none_or(|meant| meant == session) =>
            {
                let posted = mailbox.post(Mail::Direct(envelope));
                let holder = Holder {
                    node: self.node.clone(),
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

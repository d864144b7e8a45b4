//! Presence and delivery between nodes: who holds a name, and how an envelope reaches the holder.
//!
//! [`Broker`] is the trait with its promises. [`memory`] implements it for the nodes of one process, [`redis`] for a
//! cluster.

mod delivery;
mod envelope;
#[cfg(test)]
mod envelope_tests;
mod error;
pub mod events;
mod health;
mod inbound;
mod lease;
pub mod memory;
mod node;
mod receipt;
mod record;
pub mod redis;
mod revocations;
mod sender;

pub use delivery::{Entry, Inbound, Inbox, InboxLimits, SendOptions, Sent};
pub use envelope::{Envelope, Payload};
pub use error::{BrokerError, UnknownEnvelope};
pub use events::{Event, EventLog, Orphan};
pub use health::{Health, StoreHealth};
pub use lease::{Claim, Flags, Holder, InvalidHolder, Lease, RESERVED_FOR, Renewal, Terms};
use node::QUESTIONS;
pub use node::{Epoch, Heartbeat, Nodes, Question, Questions, StoreReport, Topic, Verdict};
pub use receipt::{Answer, Outcome, Receipt, Receipts};
pub use record::{Confirmed, RecordUpdate, Resume, Resumed, SINCE};
pub use revocations::Revocations;
pub use sender::Sender;
use sender::SenderCache;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::model::{Address, Names, NodeId, Offset, Realm, SecretHash, SessionId, UserName};

/// Presence and delivery between nodes. `tests/it/conformance.rs` checks every implementation against these promises:
///
/// 1. A name has one holder. [`claim`](Self::claim) is atomic: it wins a free name or returns the holder, and a name
///    that was won starts with an empty inbox. The node subscribes to the name before it claims it. Once a
///    [`barrier`](Self::barrier) has come back, whatever is sent to the name reaches this node.
/// 2. [`renew`](Self::renew) prolongs only our own leases. It takes back a lease that nobody holds, and one that we
///    held before a resume which the store has forgotten. It reports those that somebody else holds.
/// 3. [`release`](Self::release) frees only our own lease, and returns the inbox entries that we had not read.
/// 4. [`send`](Self::send) reports the outcome by the lease that it found in the same atomic step. An envelope for one
///    session reaches no other session of that name. The inbox of a resumable session keeps every entry until a
///    [`save`](Self::save) confirms it; what exceeds [`InboxLimits`] is refused.
/// 5. Envelopes from one sender to one address arrive in the order in which they were sent, at most once for each
///    `send`. An error means that the outcome is unknown. The broker neither repeats nor deduplicates: the receiving
///    session does, by [`idempotency_key`](Envelope::idempotency_key).
/// 6. A missed push is announced by [`Inbound::Gap`] before anything newer of that session arrives. A resumable session
///    then finds the entry by [`read`](Self::read). Envelopes for a plain session are not stored: if nobody is
///    subscribed, the sender gets [`Sent::NoSubscriber`].
/// 7. A lease that is not renewed within its time to live expires for every reader at once.
/// 8. [`resume`](Self::resume) is atomic: whoever proves the secret holds the session from then on, and nothing is
///    addressed to an earlier connection any more. The session record is as the last holder saved it.
/// 9. No call waits longer than the broker's time-out. A store that cannot be reached is an error, never silence. A
///    claim or a renewal that was given up has no effect later.
///
/// [`send`](Self::send), [`renew`](Self::renew), [`save`](Self::save) and [`release`](Self::release) are ordered for
/// each address when they are called, not when they are awaited. There is one exception: an envelope may overtake a
/// save of its receiver's record, unless the save rewrites the whole record. The two touch different data.
#[async_trait]
pub trait Broker: Revocations + Send + Sync + fmt::Debug + 'static {
    /// Claims a name. `over` is a holder that is known to be dead: its lease may be replaced. `secret` is given for a
    /// resumable session. `from` proves whose a [reserved](Self::reserve) name is.
    async fn claim(
        &self,
        lease: &Lease,
        over: Option<&Holder>,
        secret: Option<&SecretHash>,
        from: Option<&SecretHash>,
    ) -> Result<Claim, BrokerError>;

    /// Takes a session over from its earlier connection, on whichever node that is. From now on only `callable_by` may
    /// call it. `last` is the last entry that the client has seen, if it knows. `guarded` means that the store may have
    /// lost data and holders are still rewriting their records: an unknown session is then [`Resume::Later`], not
    /// [`Resume::Gone`].
    async fn resume(
        &self,
        address: &Address,
        secret: &SecretHash,
        callable_by: Option<&Names>,
        last: Option<Offset>,
        guarded: bool,
    ) -> Result<Resume, BrokerError>;

    /// Whether a resumable session with this secret holds the name now. Changes nothing.
    async fn verify(&self, address: &Address, secret: &SecretHash) -> Result<bool, BrokerError>;

    /// Updates the record of a resumable session, from which its next holder restores it. False if somebody else holds
    /// the session now.
    fn save(
        &self,
        lease: &Lease,
        update: RecordUpdate,
    ) -> BoxFuture<'static, Result<bool, BrokerError>>;

    /// Sends this node an [`Inbound::Barrier`] through the name's channel, behind everything that was sent to the name
    /// before.
    async fn barrier(&self, lease: &Lease) -> Result<(), BrokerError>;

    /// Prolongs leases by their time to live. Returns one result for each lease, in their order.
    fn renew(&self, leases: Vec<Lease>) -> BoxFuture<'static, Result<Vec<Renewal>, BrokerError>>;

    /// Frees a name if this holder still has it. The holder is a session of this node, or one that is known to be dead.
    /// Returns the inbox entries after `last`, which nobody will read now.
    fn release(
        &self,
        address: &Address,
        holder: &Holder,
        last: Offset,
    ) -> BoxFuture<'static, Result<Vec<Entry>, BrokerError>>;

    /// Reserves a name, which is about to be free, for [`RESERVED_FOR`]. Until then only a claim with this proof wins
    /// it. Best effort.
    fn reserve(&self, address: &Address, owner: &SecretHash);

    /// Remembers for `ttl` who may call this user (`None`: everybody), also while nobody holds the name: whoever may
    /// not gets [`Sent::NotCallable`] all the same, and learns nothing. A [`claim`](Self::claim) forgets it. Best
    /// effort.
    fn set_callers(&self, address: &Address, callable_by: Option<&Names>, ttl: Duration);

    /// Drops the subscription that [`claim`](Self::claim) or [`resume`](Self::resume) made for this lease. Not part of
    /// [`release`](Self::release): a plain session keeps it until the barrier behind its release has come back, and a
    /// session that was taken over drops it without releasing anything.
    fn unlisten(&self, lease: &Lease);

    /// Sends an envelope to the holder of the name; `receipt` gets the outcome.
    fn send(&self, to: &Address, options: SendOptions, envelope: Envelope, receipt: Receipt);

    /// At most `most` names of a realm with their holders, in no order. Scans every name in the store: call it rarely.
    async fn names(
        &self,
        realm: &Realm,
        most: usize,
    ) -> Result<Vec<(UserName, Holder)>, BrokerError>;

    /// The inbox entries of a lease after `last`, oldest first. Empty if somebody else holds the name now.
    async fn read(&self, lease: &Lease, last: Offset) -> Result<Vec<Entry>, BrokerError>;

    /// The holder of each name, in their order.
    async fn holders(&self, addresses: &[Address]) -> Result<Vec<Option<Holder>>, BrokerError>;

    /// Renews this node's own lease, reads whether the leases of the `watched` nodes exist, and publishes what this
    /// node knows of the store for nodes that start.
    async fn heartbeat(
        &self,
        watched: &[NodeId],
        report: StoreReport,
    ) -> Result<Heartbeat, BrokerError>;

    /// Reads which of these nodes are alive and what is known of the store, all at one moment.
    async fn nodes(&self, nodes: &[NodeId]) -> Result<Nodes, BrokerError>;

    /// The nodes that live now, this one among them, in no order.
    async fn members(&self) -> Result<Vec<NodeId>, BrokerError>;

    /// Asks a node (another or this one) a question and waits at most `within` for its answer. `None` if no such node
    /// is subscribed, which is known at once, or if no answer comes in time; the question may have been received all
    /// the same.
    async fn ask(
        &self,
        node: &NodeId,
        topic: Topic,
        body: Bytes,
        within: Duration,
    ) -> Result<Option<Bytes>, BrokerError>;

    /// Answers a question. Best effort: if the answer is lost, the asking node times out.
    fn answer(&self, question: &Question, body: Bytes);

    /// Stores the locator of an HTTP session for `ttl`. Replaces an earlier one.
    async fn locate(
        &self,
        session: SessionId,
        locator: Bytes,
        ttl: Duration,
    ) -> Result<(), BrokerError>;

    /// The stored locator of an HTTP session.
    async fn located(&self, session: SessionId) -> Result<Option<Bytes>, BrokerError>;

    /// How many requests are queued for the store.
    fn waiting(&self) -> usize {
        0
    }

    /// Deletes this node's own lease.
    async fn close(&self);
}

/// A node's connection to its broker. The caller spawns the drivers, so that tasks begin in one place.
pub struct Connected {
    /// Sends.
    pub broker: Arc<dyn Broker>,
    /// Receives what is for sessions of this node.
    pub inbox: Inbox,
    /// Receives what other nodes ask about HTTP sessions.
    pub questions: Questions,
    /// Receives what operators ask of this node by other nodes.
    pub admin_questions: Questions,
    /// The log of events, for webhooks.
    pub events: Arc<dyn EventLog>,
    /// Changes when the store may have lost data.
    pub epoch: Epoch,
    /// Changes when the store can be used, or no longer.
    pub health: Health,
    /// Futures that must run for the others to work, each with its name. They end only with the node.
    pub drivers: Vec<(&'static str, BoxFuture<'static, ()>)>,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected")
            .field("broker", &self.broker)
            .finish_non_exhaustive()
    }
}

//! What joins the nodes: who holds which name, and how an envelope reaches the holder.

pub mod embedded;
mod envelope;
mod intake;
mod receipt;
pub mod redis;

use envelope::KnownSenders;
pub use envelope::{Envelope, Parcel, Sender, UnknownEnvelope};
pub use receipt::{Outcome, Receipt, Receipts};

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::model::{Address, EntryId, NodeId, SessionId};

/// Presence and delivery between nodes. `tests/it/conformance.rs` holds every implementation to these promises:
///
/// 1. A name has one holder. [`claim`](Self::claim) is one atomic step: it wins a free name or tells who holds it, and a name that was won
///    starts with an empty inbox. The node listens for the name before it claims it; once a [`barrier`](Self::barrier) came
///    back, whatever is sent to the name reaches this node.
/// 2. [`renew`](Self::renew) prolongs only what is still ours, takes back what is nobody's, and reports what is somebody else's.
/// 3. [`release`](Self::release) frees only what is ours, and hands back what was sent to us but never read.
/// 4. [`send`](Self::send) tells what became of the envelope by the lease it found in the same step; a leave for one session reaches no other.
/// 5. Envelopes from one sender to one address arrive in the order in which they were sent, each at most once for every time it is
///    sent. An error means that the outcome is unknown; nothing is repeated by the fabric.
/// 6. A push that was missed is announced by [`Inbound::Gap`] before anything newer of that session arrives, and is found by [`read`](Self::read).
/// 7. A lease that is not renewed within its time to live is gone for every reader at once.
/// 8. Nothing waits longer than the fabric's time-out; away means an error, not silence. A claim or a renewal that was given up has no effect later.
///
/// [`send`](Self::send), [`renew`](Self::renew) and [`release`](Self::release) take their place in the address's order when they are called, not when they are awaited.
#[async_trait]
pub trait Fabric: Send + Sync + fmt::Debug + 'static {
    /// Claims a name; `over` is a holder that is known to be dead, whose lease may be replaced.
    async fn claim(&self, lease: &Lease, over: Option<&Holder>) -> Result<Claim, FabricError>;

    /// Sends the name's own node an [`Inbound::Barrier`] behind everything that was sent to the name before, the way everything comes.
    async fn barrier(&self, lease: &Lease) -> Result<(), FabricError>;

    /// Prolongs leases by their time to live; one answer each, in their order.
    fn renew(&self, leases: Vec<Lease>) -> BoxFuture<'static, Result<Vec<Renewal>, FabricError>>;

    /// Gives a name back and stops listening for it. Returns the entries after `last`, which nobody will read now.
    fn release(
        &self,
        lease: &Lease,
        last: EntryId,
    ) -> BoxFuture<'static, Result<Vec<Entry>, FabricError>>;

    /// Sends to whoever holds the name, or only to the session `only`; the receipt is told what became of it.
    fn send(&self, to: &Address, only: Option<SessionId>, envelope: Envelope, receipt: Receipt);

    /// What the inbox of a lease holds after `last`, oldest first; nothing if the name is somebody else's by now.
    async fn read(&self, lease: &Lease, last: EntryId) -> Result<Vec<Entry>, FabricError>;

    /// Who holds these names, in their order.
    async fn holders(&self, addresses: &[Address]) -> Result<Vec<Option<Holder>>, FabricError>;

    /// Renews this node's own lease and reads whether those of other nodes are there, in their order.
    async fn beat(&self, watched: &[NodeId]) -> Result<Beat, FabricError>;

    /// Whether these nodes' leases are there, in their order.
    async fn alive(&self, nodes: &[NodeId]) -> Result<Vec<bool>, FabricError>;

    /// Whether this node's own lease is still the one that the last beat renewed, read now. If not, the store has lost data.
    async fn intact(&self) -> Result<bool, FabricError>;

    /// Asks a holder's node whether the session still answers.
    async fn challenge(&self, address: &Address, holder: &Holder) -> Result<Verdict, FabricError>;

    /// Answers a challenge that came by the inbox.
    fn answer(&self, challenge: Challenge, verdict: Verdict);

    /// Gives this node's own lease back.
    async fn close(&self);
}

/// A connected fabric: speak through one, listen to another, keep the rest running. Who spawns stays visible.
pub struct Opened {
    /// Speaks.
    pub fabric: Arc<dyn Fabric>,
    /// Listens.
    pub inbox: Inbox,
    /// Must be driven for the other two to work, each with its name; they end only with the node.
    pub drivers: Vec<(&'static str, BoxFuture<'static, ()>)>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("fabric", &self.fabric)
            .finish_non_exhaustive()
    }
}

/// How many entries an inbox keeps that was sent something of so many bytes. 1,000 candidates are half a second of the fastest sender that
/// was measured, which is longer than a broken subscription takes to be replaced; with offers among them, 200 are enough and do not fill the store.
pub fn ring(bytes: usize) -> usize {
    if bytes > LARGE { 200 } else { 1000 }
}

/// From how many bytes on an envelope is large.
const LARGE: usize = 4096;

/// How long leases live, whatever the fabric.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// A user's lease.
    pub user_ttl: Duration,
    /// A node's own lease.
    pub node_ttl: Duration,
    /// How long a holder may take to answer a challenge.
    pub challenge: Duration,
}

/// One session's hold on one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The name.
    pub address: Address,
    /// The session that holds it.
    pub session: SessionId,
    /// Grows with each resume of the session.
    pub attach: u32,
    /// What kind of session.
    pub flags: Flags,
}

/// What kind of session holds a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// It outlives its connection.
    pub resumable: bool,
    /// It has no connection now.
    pub detached: bool,
}

/// A lease as other nodes see it. Displayed as it is stored: `NODE SESSION ATTACH FLAGS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The node that holds the session.
    pub node: NodeId,
    /// The session.
    pub session: SessionId,
    /// How often it was resumed.
    pub attach: u32,
    /// What kind of session.
    pub flags: Flags,
}

impl Lease {
    /// This lease as held by `node`.
    pub fn held_by(&self, node: &NodeId) -> Holder {
        Holder {
            node: node.clone(),
            session: self.session,
            attach: self.attach,
            flags: self.flags,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = match (self.flags.resumable, self.flags.detached) {
            (false, _) => "-",
            (true, false) => "r",
            (true, true) => "rd",
        };
        write!(f, "{} {} {} {flags}", self.node, self.session, self.attach)
    }
}

/// The stored text is not a holder: another program writes under our prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a lease")]
pub struct InvalidHolder;

impl FromStr for Holder {
    type Err = InvalidHolder;

    fn from_str(text: &str) -> Result<Self, InvalidHolder> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(InvalidHolder);
        Ok(Self {
            node: NodeId::known(word()?),
            session: word()?.parse().map_err(|_| InvalidHolder)?,
            attach: word()?.parse().map_err(|_| InvalidHolder)?,
            flags: word().map(|flags| Flags {
                resumable: flags.contains('r'),
                detached: flags.contains('d'),
            })?,
        })
    }
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The name is ours.
    Won,
    /// The name is this holder's.
    Held(Holder),
}

/// What became of one renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Prolonged.
    Mine,
    /// Was nobody's: the store lost it, and it is ours again.
    Regained,
    /// Somebody else's.
    Lost,
}

/// What became of an envelope whose outcome is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Accepted for this holder.
    To(Holder),
    /// Nobody holds the name, or not the session that was meant.
    Absent,
}

/// One thing that was sent to a user.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place.
    pub id: EntryId,
    /// What it is.
    pub envelope: Envelope,
}

/// What a beat found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Whether this node's own lease was still there.
    pub own: bool,
    /// Whether each watched node's lease is there.
    pub alive: Vec<bool>,
}

/// A holder's answer to somebody who wants its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The session answered: the name is taken.
    Alive,
    /// There is no such session, or it is released: the name is free.
    Gone,
    /// The node did not answer in time.
    Silent,
}

/// Another node asks whether a session still answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The session that is doubted.
    pub session: SessionId,
    /// The node that asks.
    pub asker: NodeId,
    /// Its own number for the question.
    pub token: u64,
}

/// What comes out of the fabric.
#[derive(Debug)]
pub enum Inbound {
    /// Something was sent to a session of this node.
    Push {
        /// The session that held the name then.
        session: SessionId,
        /// What was sent, oldest first; never empty.
        entries: Vec<Entry>,
    },
    /// The barrier of this session came back.
    Barrier(SessionId),
    /// Pushes were missed: by this session, or possibly by all.
    Gap(Option<SessionId>),
    /// A session of this node is doubted.
    Challenge(Challenge),
}

/// Where a node listens. Bounded: what does not fit becomes a [`Inbound::Gap`].
pub type Inbox = mpsc::Receiver<Inbound>;

/// The outcome is unknown, or nothing was tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FabricError {
    /// The store does not answer.
    #[error("{0}")]
    Unreachable(Arc<str>),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// More is waiting for the store than it takes.
    #[error("too much is waiting for the store")]
    Busy,
}

impl FabricError {
    /// Unreachable, for this cause.
    pub fn unreachable(cause: &impl fmt::Display) -> Self {
        Self::Unreachable(cause.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_survives_its_text() {
        for flags in ["-", "r", "rd"] {
            let text = format!("node-1.00c0ffee {:032x} 7 {flags}", 42);
            assert_eq!(text.parse::<Holder>().unwrap().to_string(), text);
        }
        for dirt in ["", "node", "node session 1 -", "a b c d"] {
            assert_eq!(dirt.parse::<Holder>(), Err(InvalidHolder));
        }
    }
}

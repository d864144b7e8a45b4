//! What joins the nodes: who holds which name, and how an envelope reaches the holder.

mod envelope;
mod inbound;
pub mod memory;
mod receipt;
pub mod redis;

use envelope::KnownSenders;
pub use envelope::{Envelope, Parcel, Sender, UnknownEnvelope};
pub use receipt::{Answer, Outcome, Receipt, Receipts};

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use crate::model::{Address, NodeId, Offset, Realm, SecretHash, SessionId, UserName};

/// Presence and delivery between nodes. `tests/it/conformance.rs` holds every implementation to these promises:
///
/// 1. A name has one holder. [`claim`](Self::claim) is one atomic step: it wins a free name or tells who holds it, and a name that was won
///    starts with an empty inbox. The node listens for the name before it claims it; once a [`barrier`](Self::barrier) came
///    back, whatever is sent to the name reaches this node.
/// 2. [`renew`](Self::renew) prolongs only what is still ours, takes back what is nobody's or was ours before a resume that the store has
///    forgotten, and reports what is somebody else's.
/// 3. [`release`](Self::release) frees only what is ours, and hands back what was sent to us but never read.
/// 4. [`send`](Self::send) tells what became of the envelope by the lease it found in the same step; a leave for one session reaches no other.
///    The inbox of a resumable session keeps everything until it is confirmed by a [`note`](Self::note); what does not fit is refused.
/// 5. Envelopes from one sender to one address arrive in the order in which they were sent, each at most once for every time it is
///    sent. An error means that the outcome is unknown. Nothing is repeated by the broker, and no repetition is recognised by it: whoever
///    [hears](Envelope::once) does that.
/// 6. A push that was missed is announced by [`Inbound::Gap`] before anything newer of that session arrives. A resumable session finds it by
///    [`read`](Self::read); what was for a plain one is stored nowhere, and what nobody listened to is told as [`Sent::Unheard`].
/// 7. A lease that is not renewed within its time to live is gone for every reader at once.
/// 8. [`resume`](Self::resume) is one atomic step: whoever proves a session by its secret has it from then on, and no earlier connection of it
///    is addressed any more. Its notes are as its last holder left them.
/// 9. Nothing waits longer than the broker's time-out; away means an error, not silence. A claim or a renewal that was given up has no effect later.
///
/// [`send`](Self::send), [`renew`](Self::renew), [`note`](Self::note) and [`release`](Self::release) take their place in the address's order when
/// they are called, not when they are awaited. Only envelopes may pass a note of the session that they are sent to, unless it writes everything
/// anew: the two do not touch the same things.
#[async_trait]
pub trait Broker: Send + Sync + fmt::Debug + 'static {
    /// Claims a name; `over` is a holder that is known to be dead, whose lease may be replaced. A resumable session brings the hash of its secret.
    async fn claim(
        &self,
        lease: &Lease,
        over: Option<&Holder>,
        secret: Option<&SecretHash>,
    ) -> Result<Claim, BrokerError>;

    /// Takes a session over from its earlier connection, wherever that is; `last` is the last entry that its client has seen, if it knows. While
    /// `guarded`, a store that does not know the session in this epoch may soon be told of it by whoever holds it.
    async fn resume(
        &self,
        address: &Address,
        secret: &SecretHash,
        last: Option<Offset>,
        guarded: bool,
    ) -> Result<Resume, BrokerError>;

    /// Whether this secret is that of the resumable session which has the name now. Changes nothing.
    async fn knows(&self, address: &Address, secret: &SecretHash) -> Result<bool, BrokerError>;

    /// Writes down what the next holder of a resumable session must know. False if the session is somebody else's by now.
    fn note(
        &self,
        lease: &Lease,
        notes: RecordUpdate,
    ) -> BoxFuture<'static, Result<bool, BrokerError>>;

    /// Sends the name's own node an [`Inbound::Barrier`] behind everything that was sent to the name before, the way everything comes.
    async fn barrier(&self, lease: &Lease) -> Result<(), BrokerError>;

    /// Prolongs leases by their time to live; one answer each, in their order.
    fn renew(&self, leases: Vec<Lease>) -> BoxFuture<'static, Result<Vec<Renewal>, BrokerError>>;

    /// Gives a name back, if it is still this holder's: one of this node, or one that is known to be dead. Returns the entries after `last`,
    /// which nobody will read now.
    fn release(
        &self,
        address: &Address,
        holder: &Holder,
        last: Offset,
    ) -> BoxFuture<'static, Result<Vec<Entry>, BrokerError>>;

    /// Stops listening for a lease that is given back, or another's by now.
    fn unlisten(&self, lease: &Lease);

    /// Sends to whoever holds the name; the receipt is told what became of it.
    fn send(&self, to: &Address, options: SendOptions, envelope: Envelope, receipt: Receipt);

    /// The names of a realm and who holds them, at most so many, in no order. Looks at every name that there is: not for every day.
    async fn names(
        &self,
        realm: &Realm,
        most: usize,
    ) -> Result<Vec<(UserName, Holder)>, BrokerError>;

    /// What the inbox of a lease holds after `last`, oldest first; nothing if the name is somebody else's by now.
    async fn read(&self, lease: &Lease, last: Offset) -> Result<Vec<Entry>, BrokerError>;

    /// Who holds these names, in their order.
    async fn holders(&self, addresses: &[Address]) -> Result<Vec<Option<Holder>>, BrokerError>;

    /// Renews this node's own lease and reads whether those of other nodes are there, in their order. What the node says of the store is for
    /// those that start.
    async fn beat(&self, watched: &[NodeId], says: StoreReport) -> Result<Beat, BrokerError>;

    /// Reads whether these nodes live, and what is known of the store, all at one moment.
    async fn nodes(&self, nodes: &[NodeId]) -> Result<Nodes, BrokerError>;

    /// Asks another node, or this one, and waits for its answer for so long. `None`: nobody of that name listens, which is known at once, or
    /// the answer does not come in time; whether the question was heard is unknown then.
    async fn ask(
        &self,
        node: &NodeId,
        topic: Topic,
        body: Bytes,
        within: Duration,
    ) -> Result<Option<Bytes>, BrokerError>;

    /// The epoch of the store.
    fn epoch(&self) -> Epoch;

    /// Answers a question. An answer that is lost is none.
    fn answer(&self, question: &Question, body: Bytes);

    /// Writes down where a session that is bound to no connection is at home, for so long; an earlier note is replaced.
    async fn locate(
        &self,
        session: SessionId,
        note: Bytes,
        lives: Duration,
    ) -> Result<(), BrokerError>;

    /// What was written down of where it is at home.
    async fn located(&self, session: SessionId) -> Result<Option<Bytes>, BrokerError>;

    /// How many envelopes and questions wait to leave.
    fn waiting(&self) -> usize {
        0
    }

    /// Gives this node's own lease back.
    async fn close(&self);
}

/// A connected broker: speak through one, listen to another, keep the rest running. Who spawns stays visible.
pub struct Opened {
    /// Speaks.
    pub broker: Arc<dyn Broker>,
    /// Listens.
    pub inbox: Inbox,
    /// What other nodes ask about HTTP sessions.
    pub questions: Questions,
    /// Must be driven for the others to work, each with its name; they end only with the node.
    pub drivers: Vec<(&'static str, BoxFuture<'static, ()>)>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("broker", &self.broker)
            .finish_non_exhaustive()
    }
}

/// How long leases live, whatever the broker.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// A user's lease.
    pub user_ttl: Duration,
    /// A node's own lease.
    pub node_ttl: Duration,
    /// How long a holder may take to answer a challenge.
    pub challenge: Duration,
    /// How long a resumable session survives without a connection.
    pub grace: Duration,
}

impl Terms {
    /// How far apart two renewals of a node's lease may be before it counts as a stall: 2 s of a lease of 5 s.
    pub fn longest_gap(&self) -> Duration {
        self.node_ttl * 2 / 5
    }
}

/// One session's hold on one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The name.
    pub address: Address,
    /// The session that holds it.
    pub session: SessionId,
    /// Grows with each resume of the session.
    pub generation: u32,
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
    pub generation: u32,
    /// What kind of session.
    pub flags: Flags,
}

impl Lease {
    /// This lease as held by `node`.
    pub fn held_by(&self, node: &NodeId) -> Holder {
        Holder {
            node: node.clone(),
            session: self.session,
            generation: self.generation,
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
        write!(
            f,
            "{} {} {} {flags}",
            self.node, self.session, self.generation
        )
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
            generation: word()?.parse().map_err(|_| InvalidHolder)?,
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

/// What became of a resume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The session is ours.
    Won(Box<Resumed>),
    /// There is no such session any more, or it does not reach back as far as its client needs.
    Gone,
    /// The secret is not that of the session.
    Wrong,
    /// The store may not have been told of it yet.
    Later,
}

/// A session as its last holder left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// How it is held now.
    pub lease: Lease,
    /// How far its client has confirmed: everything after that is still there.
    pub confirmed: Confirmed,
    /// What was written down, by field.
    pub notes: Vec<(String, String)>,
    /// It was written in an earlier epoch of the store: entries may be lost.
    pub missed: bool,
}

/// How far a client has confirmed its inbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// It is known to have everything up to here, which leaves the inbox.
    pub all: Offset,
    /// The last of it that it was told: it knows of no later one, and names none that is earlier.
    pub told: Offset,
}

/// What the next holder of a resumable session must know: fields that nobody but the router understands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordUpdate {
    /// Fields to write.
    pub set: Vec<(String, String)>,
    /// Fields to forget.
    pub unset: Vec<String>,
    /// How far the client has confirmed.
    pub confirmed: Option<Confirmed>,
    /// The store has forgotten the session: everything is written anew, and later entries come behind this place.
    pub anew: Option<(SecretHash, Offset)>,
}

impl RecordUpdate {
    /// Sets a field, or forgets it if there is nothing to say.
    pub fn put(&mut self, field: &str, value: String) {
        if value.is_empty() {
            self.unset.push(field.to_owned());
        } else {
            self.set.push((field.to_owned(), value));
        }
    }
}

/// How much of a resumable session's inbox may wait for its client's confirmation.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Entries.
    pub entries: usize,
    /// Bytes.
    pub bytes: usize,
    /// How many [weights](Self::weight) of it one sender may fill.
    pub share: usize,
}

impl Room {
    /// The room of every inbox (DESIGN §3); one sender may fill the half of it.
    pub const INBOX: Self = Self {
        entries: 256,
        bytes: 1 << 20,
        share: 128,
    };

    /// How much of its sender's share an envelope of so many bytes takes.
    pub fn weight(bytes: usize) -> usize {
        bytes.div_ceil(4096).max(1)
    }
}

/// How an envelope is to be carried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// The session that alone is meant.
    pub only: Option<SessionId>,
    /// It is accepted even where there is no room.
    pub always: bool,
    /// The plain session that is meant, where it is known to be: it is published to without asking who holds the name.
    pub direct: Option<Holder>,
}

impl SendOptions {
    /// The session that alone is meant, if one is.
    pub fn meant(&self) -> Option<SessionId> {
        let direct = self.direct.as_ref().map(|holder| holder.session);
        self.only.or(direct)
    }
}

/// What became of one renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Prolonged.
    Mine,
    /// Was nobody's, or ours before a resume: the store lost it, and it is ours again.
    Regained,
    /// A newer connection of the same session has it.
    Replaced,
    /// Somebody else's.
    Lost,
}

/// What became of an envelope whose outcome is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Accepted for this holder.
    To(Holder),
    /// As much waits for this holder as may, of all senders or of this one.
    Full(Holder),
    /// Nobody listens to the channel of this plain holder: its node is between two subscriptions, or dead. Nothing was delivered.
    Unheard(Holder),
    /// Nobody holds the name, or not the session that was meant.
    Absent,
}

/// One thing that was sent to a user.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place.
    pub id: Offset,
    /// What it is.
    pub envelope: Envelope,
}

/// Counts how often the store was seen to have lost data, or to be another one. A new connection finds out before it sends anything else.
pub type Epoch = watch::Receiver<u64>;

/// What a node says of the store to those that start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreReport {
    /// Nothing: it starts itself.
    Nothing,
    /// The store may have lost data: some live users may not be known to it yet.
    Guarded,
    /// Every live user is known to it.
    Known,
}

/// What a beat found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The [epoch](Epoch) in which it was asked.
    pub epoch: u64,
    /// Whether this node's own lease was still there.
    pub own: bool,
    /// Whether each watched node's lease is there.
    pub alive: Vec<bool>,
}

/// What the store knows of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// Whether this node's own lease is still the one that the last beat renewed. If not, the store has lost data.
    pub intact: bool,
    /// What the nodes say of this epoch of the store; `None` if none has said anything for the life of a node lease.
    pub said: Option<StoreReport>,
    /// Whether the lease of each that was asked about is there, in their order.
    pub alive: Vec<bool>,
}

/// A holder's answer to somebody who wants its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The session answered: the name is taken.
    Alive,
    /// The session has no connection, but may be resumed: the name is taken until its grace is over.
    Detached,
    /// There is no such session, or it is released: the name is free.
    Gone,
    /// The node did not answer in time.
    Silent,
}

/// What a question to a node is about, and so who answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Whether a session still answers: the router knows.
    Session,
    /// An HTTP session that is at home there.
    Http,
}

/// A node asks another. Only who asks and who answers understand what.
#[derive(Clone, PartialEq, Eq)]
pub struct Question {
    /// The node that asks.
    pub asker: NodeId,
    /// Its own number for the question.
    pub number: u64,
    /// What it asks.
    pub body: Bytes,
}

/// Hides what is asked: it may be what users say.
impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Question({} {})", self.asker, self.number)
    }
}

/// Questions of one topic that wait to be answered.
pub type Questions = mpsc::Receiver<Question>;

/// How many may wait; the asker of one that does not fit gets no answer.
const QUESTIONS: usize = 1024;

/// What comes out of the broker.
#[derive(Debug)]
pub enum Inbound {
    /// Something was sent to a session of this node.
    Push {
        /// The session that held the name then.
        session: SessionId,
        /// How often it had been resumed then.
        generation: u32,
        /// What was sent, oldest first; never empty.
        entries: Vec<Entry>,
    },
    /// A newer connection has taken this session over.
    Replaced {
        /// The session.
        session: SessionId,
        /// How often it has been resumed now.
        generation: u32,
    },
    /// Something was sent to a plain session of this node.
    Direct {
        /// The session.
        session: SessionId,
        /// What was sent, oldest first.
        envelopes: Vec<Envelope>,
    },
    /// The barrier of this session came back.
    Barrier(SessionId),
    /// Pushes were missed: by this session, or possibly by all.
    Gap(Option<SessionId>),
    /// A session of this node is doubted.
    Challenge(Question),
}

/// Where a node listens. Bounded: what does not fit becomes a [`Inbound::Gap`].
pub type Inbox = mpsc::Receiver<Inbound>;

/// The outcome is unknown, or nothing was tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The store does not answer.
    #[error("{0}")]
    Unreachable(Arc<str>),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// More is waiting for the store than it takes.
    #[error("too much is waiting for the store")]
    Busy,
    /// The store has no memory left: nothing of this was done.
    #[error("the store has no memory left")]
    NoMemory,
}

impl BrokerError {
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

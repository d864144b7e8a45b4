//! Nodes: whether they are alive, what they know of the store, and what they ask each other.

use std::fmt;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::model::NodeId;

/// Counts how often the store was seen to have lost data, or was replaced by another one. A new connection to the store
/// finds out before it sends anything else.
pub type Epoch = watch::Receiver<u64>;

/// What a node reports of the store, for nodes that start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreReport {
    /// Nothing: the node is starting itself.
    Nothing,
    /// The store may have lost data: it may not know some live users yet.
    Guarded,
    /// The store knows every live user.
    Known,
}

/// The result of a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The [epoch](Epoch) in which the heartbeat was sent.
    pub epoch: u64,
    /// Whether this node's own lease still existed.
    pub own: bool,
    /// Whether the lease of each watched node exists.
    pub alive: Vec<bool>,
}

/// What the store knows of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// Whether this node's own lease is the one that the last heartbeat renewed. If not, the store has lost data.
    pub intact: bool,
    /// What the nodes report of this epoch of the store. `None` if none has reported within the time to live of a
    /// node's lease.
    pub report: Option<StoreReport>,
    /// Whether the lease of each requested node exists, in their order.
    pub alive: Vec<bool>,
}

/// A holder's answer to a challenge, which another session that wants the name has caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The session answered: the name is taken.
    Alive,
    /// The session has no connection but may be resumed: the name is taken until its grace is over.
    Detached,
    /// There is no such session, or it is released: the name is free.
    Gone,
    /// The node did not answer in time.
    Silent,
}

/// The subject of a question, which decides who answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Whether a session is alive: the router answers.
    Session,
    /// An HTTP session whose home is that node: the transport answers.
    Http,
    /// What operators ask of that node: the transport answers.
    Admin,
}

/// A question from one node to another. The broker does not interpret its body.
#[derive(Clone, PartialEq, Eq)]
pub struct Question {
    /// The node that asks.
    pub asker: NodeId,
    /// The asking node's own number for the question.
    pub number: u64,
    /// The question.
    pub body: Bytes,
}

/// Omits the body: it may contain what users wrote.
impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Question({} {})", self.asker, self.number)
    }
}

/// Questions of one topic that wait for an answer.
pub type Questions = mpsc::Receiver<Question>;

/// How many questions may wait. One that does not fit is dropped, and its asker times out.
pub(super) const QUESTIONS: usize = 1024;

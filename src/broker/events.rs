//! The log of events: what happened to sessions and calls, until webhooks have told it.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::BrokerError;
use crate::model::{Address, Fact, LeaveReason, NodeId, SessionId};

/// How many events wait at most over Redis. The oldest of more is lost, and counted.
pub const WAITING: usize = 100_000;
/// How many dead letters are kept.
pub const DEAD_LETTERS: usize = 10_000;

/// Records facts as events, and keeps these in order until they are told. `tests/it/conformance/events.rs` checks both
/// implementations.
///
/// Recording a fact again changes nothing that matters: its events have the same ids. Both sides of a call tell of it,
/// and of each call one `started`, one `answered` and one `ended` becomes an event. A session ends once.
#[async_trait]
pub trait EventLog: Send + Sync + fmt::Debug + 'static {
    /// Records one fact. Calls are ordered when they are called. Returns how many old events found no room.
    fn record(
        &self,
        fact: &Fact,
    ) -> futures_util::future::BoxFuture<'static, Result<usize, BrokerError>>;

    /// Takes or keeps the right to tell events. One node has it at a time.
    async fn lead(&self, within: Duration) -> Result<bool, BrokerError>;

    /// At most `most` events behind this one, oldest first; from the first that is not told, if there is none.
    async fn events(&self, after: Option<&str>, most: usize) -> Result<Vec<Event>, BrokerError>;

    /// How many events wait.
    async fn waiting(&self) -> Result<usize, BrokerError>;

    /// Removes an event that was told, or that nobody wants. Then it becomes a dead letter, with the reason.
    async fn done(&self, event: &Event, dead: Option<&str>) -> Result<(), BrokerError>;

    /// Some sessions of nodes that have ended without saying what became of these, each with its calls.
    async fn orphans(&self) -> Result<Vec<Orphan>, BrokerError>;

    /// Forgets an orphan: it goes on elsewhere, or its end is recorded.
    async fn adopted(&self, orphan: &Orphan) -> Result<(), BrokerError>;
}

/// An event that waits to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the log.
    pub place: String,
    /// Its id: the same, however often it is recorded.
    pub id: String,
    /// Its kind, such as `session.started`.
    pub kind: String,
    /// The users whom it concerns: their events are told in order.
    pub users: Vec<Address>,
    /// The session, or those of both sides.
    pub sessions: Vec<SessionId>,
    /// When it happened.
    pub at: SystemTime,
    /// More about it, in the order of the payload.
    pub more: Vec<(String, String)>,
}

/// A session whose node has ended, with facts that tell the end of each of its calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The node.
    pub node: NodeId,
    /// That the session ended. Its calls ended before.
    pub ended: Fact,
    /// That its calls ended.
    pub calls: Vec<Fact>,
}

/// The reason of whatever ends with its node.
pub const ORPHANED: LeaveReason = LeaveReason::NodeLost;

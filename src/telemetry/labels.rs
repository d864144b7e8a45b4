//! The label values of metrics.

use crate::model::Refusal;

/// The outcome of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalOutcome {
    /// Accepted for a user who is connected.
    Delivered,
    /// Queued for a resumable user without a connection.
    Queued,
    /// Waiting at its sender for a user who is not connected.
    Waiting,
    /// Nobody has the receiver's name.
    Absent,
    /// The receiver's inbox is full.
    Full,
    /// Unknown: the broker did not answer.
    Unavailable,
    /// A token does not allow it.
    Forbidden,
}

/// The transport of a session, in the order of the label values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// HTTP requests, each of which may reach another node.
    Http,
}

impl SignalOutcome {
    /// All outcomes.
    pub const ALL: [Self; 7] = [
        Self::Delivered,
        Self::Queued,
        Self::Waiting,
        Self::Absent,
        Self::Full,
        Self::Unavailable,
        Self::Forbidden,
    ];

    /// The outcome of a refused signal.
    pub fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::UserUnavailable => Self::Absent,
            Refusal::InboxFull { .. } => Self::Full,
            Refusal::Forbidden(_) => Self::Forbidden,
            _ => Self::Unavailable,
        }
    }

    /// The label value; for a refusal, its code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::Absent => "user_unavailable",
            Self::Full => "inbox_full",
            Self::Unavailable => "unavailable",
            Self::Forbidden => "forbidden",
        }
    }
}

/// The outcome of a lease renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The lease is renewed.
    Renewed,
    /// The store had lost the lease; it is taken again.
    Regained,
    /// A newer connection of the session has the lease.
    Replaced,
    /// Another session has the name.
    Lost,
    /// Unknown; it is tried again.
    Failed,
}

/// What became of an event for webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Webhook {
    /// The receiver took it.
    Delivered,
    /// The receiver did not take it; it is tried again.
    Failed,
    /// The receiver did not take it for a day.
    Dead,
    /// It found no room.
    Lost,
}

/// The kind of a Redis error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisTrouble {
    /// A connection failed, or could not be made.
    Connection,
    /// No answer in time.
    Timeout,
    /// Redis answered with an error.
    Refused,
    /// A publisher's queue was full.
    Busy,
}

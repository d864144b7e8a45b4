//! The values that metrics are labelled with.

use crate::model::Refusal;

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalOutcome {
    /// Accepted for a user who is connected.
    Delivered,
    /// Kept for a user who is between connections.
    Queued,
    /// Kept for a user who is not here, for a while.
    Waiting,
    /// Nobody of that name is here.
    Absent,
    /// As much waits for the receiver as may.
    Full,
    /// Unknown.
    Unavailable,
}

/// What a conversation goes by; in the order of the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// HTTP requests, of which each may come to another node.
    Http,
}

impl SignalOutcome {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Delivered,
        Self::Queued,
        Self::Waiting,
        Self::Absent,
        Self::Full,
        Self::Unavailable,
    ];

    /// That of a signal that was refused.
    pub fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::UserUnavailable => Self::Absent,
            Refusal::InboxFull { .. } => Self::Full,
            _ => Self::Unavailable,
        }
    }

    /// The word for it; of a refusal, its code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::Absent => "user_unavailable",
            Self::Full => "inbox_full",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What became of a renewal of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// It is prolonged.
    Renewed,
    /// The store had lost it; it is taken back.
    Regained,
    /// A newer connection of the session has it.
    Replaced,
    /// Somebody else has the name.
    Lost,
    /// It is not known, and tried again.
    Failed,
}

/// What went wrong with Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisTrouble {
    /// A connection could not be made, or broke.
    Connection,
    /// No answer in time.
    Timeout,
    /// It answered with an error.
    Refused,
    /// A publisher was full.
    Busy,
}

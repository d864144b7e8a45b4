//! Events: what the server can send to a client.

use std::time::Duration;

use super::{
    Correlation, IceServers, NodeId, Offset, Refusal, Secret, SessionId, Signal, UserName,
};

/// One event, independent of the protocol.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The login succeeded.
    Welcome(Box<Welcome>),
    /// The login failed; the connection stays open to try again.
    LoginRefused {
        /// Why.
        refusal: Refusal,
        /// The request's `id`.
        id: Option<Correlation>,
    },
    /// A signal from another user.
    Signal {
        /// The sender's name, as the server knows it.
        from: UserName,
        /// The signal.
        signal: Signal,
        /// The offset in the inbox of a resumable session.
        seq: Option<Offset>,
    },
    /// The call with this user is over.
    Left {
        /// The peer.
        from: UserName,
        /// Why it ended.
        reason: LeaveReason,
        /// The offset in the inbox of a resumable session.
        seq: Option<Offset>,
    },
    /// A request with an `id` succeeded.
    Ack {
        /// The request's `id`.
        id: Correlation,
        /// The outcome.
        status: AckStatus,
    },
    /// A request failed; the session continues.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The request's `id`.
        id: Option<Correlation>,
        /// The user that the request names.
        name: Option<UserName>,
    },
    /// Which of the asked or watched users are connected.
    Presence {
        /// Each name, and whether it is connected.
        users: Vec<(UserName, bool)>,
        /// The request's `id`.
        id: Option<Correlation>,
    },
    /// The reply to a ping.
    Pong {
        /// The request's `id`.
        id: Option<Correlation>,
    },
    /// The node is about to close this connection.
    GoAway {
        /// The time until then.
        reconnect_in: Duration,
    },
    /// Fresh ICE servers, before the credentials of the previous ones expire.
    IceServers(IceServers),
    /// The session's token expires; the client sends a new one, or is disconnected then.
    TokenExpires {
        /// The time until then.
        within: Duration,
    },
    /// The session has a new token.
    TokenRenewed {
        /// How long it is valid.
        valid_for: Duration,
        /// The request's `id`.
        id: Option<Correlation>,
    },
    /// The broker became unreachable, or is reachable again.
    Status {
        /// Whether it is reachable.
        reached: bool,
        /// Whether events for this session may have been lost.
        missed: bool,
    },
}

impl Event {
    /// The offset in the inbox, if the event comes from there.
    pub fn seq(&self) -> Option<Offset> {
        match self {
            Self::Signal { seq, .. } | Self::Left { seq, .. } => *seq,
            _ => None,
        }
    }
}

/// The reply to a successful login.
#[derive(Clone, Debug, PartialEq)]
pub struct Welcome {
    /// The user's name.
    pub name: UserName,
    /// The session.
    pub session: SessionId,
    /// The node of the session.
    pub node: NodeId,
    /// How long a resumable session survives without a connection.
    pub grace: Duration,
    /// The ICE servers for this client.
    pub ice: IceServers,
    /// The secret that resumes the session, if it is resumable.
    pub resume: Option<Secret>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// What the client of a resumable session must keep to. The tutorial's clients get the reply that they know.
    pub pace: Option<Pace>,
    /// The request's `id`.
    pub id: Option<Correlation>,
}

/// How soon a client must notice silence, and what it may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// When to ask whether the server is there.
    pub heartbeat: Heartbeat,
    /// Messages per second; 0 for no limit.
    pub signals_per_second: u32,
    /// The longest message.
    pub frame_bytes: usize,
}

/// When a client that hears nothing asks whether the server is there, and when it gives the connection up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// How long it may hear nothing while it is in a call or waits for an answer.
    pub busy: Duration,
    /// How long it may hear nothing otherwise.
    pub idle: Duration,
    /// How long the answer may take.
    pub answer: Duration,
}

/// The outcome of an acknowledged request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckStatus {
    /// Accepted for a user who is connected.
    Delivered,
    /// Kept for a resumable user who is between connections.
    Queued,
}

/// Why a call ended (docs/src/protocol/messages.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaveReason {
    /// The peer asked for it.
    Hangup,
    /// The peer's connection was closed cleanly.
    Closed,
    /// The peer's connection was lost.
    Lost,
    /// The peer's node died.
    NodeLost,
    /// A newer session took the peer's name.
    Replaced,
    /// The peer was disconnected for breaking a limit, or by an operator.
    Kicked,
}

impl LeaveReason {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::Hangup,
        Self::Closed,
        Self::Lost,
        Self::NodeLost,
        Self::Replaced,
        Self::Kicked,
    ];

    /// The value in the protocol and between nodes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hangup => "hangup",
            Self::Closed => "closed",
            Self::Lost => "lost",
            Self::NodeLost => "node_lost",
            Self::Replaced => "replaced",
            Self::Kicked => "kicked",
        }
    }
}

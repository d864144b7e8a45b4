//! What a client may be told.

use std::time::Duration;

use super::{
    Correlation, IceServers, NodeId, Offset, Refusal, Secret, SessionId, Signal, UserName,
};

/// One thing to tell a client, as any language says it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The login succeeded.
    Welcome(Box<Welcome>),
    /// The login failed; the connection stays open to try again.
    LoginRefused {
        /// Why.
        refusal: Refusal,
        /// The request's own words.
        id: Option<Correlation>,
    },
    /// A signal from another user.
    Signal {
        /// The sender, as the server knows it.
        from: UserName,
        /// What was carried.
        signal: Signal,
        /// Its place in the inbox of a resumable session.
        seq: Option<Offset>,
    },
    /// The call with this user is over.
    Left {
        /// The peer.
        from: UserName,
        /// Why it ended.
        reason: LeaveReason,
        /// Its place in the inbox of a resumable session.
        seq: Option<Offset>,
    },
    /// A request with an id was done.
    Ack {
        /// The request's own words.
        id: Correlation,
        /// What became of it.
        status: AckStatus,
    },
    /// A request was not done; the conversation goes on.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The request's own words.
        id: Option<Correlation>,
        /// The user that was meant.
        name: Option<UserName>,
    },
    /// Who is here, of those who were asked or watched.
    Presence {
        /// Each name, and whether it is here.
        users: Vec<(UserName, bool)>,
        /// The request's own words.
        id: Option<Correlation>,
    },
    /// The sign of life that was asked for.
    Pong {
        /// The request's own words.
        id: Option<Correlation>,
    },
    /// The node is about to close this connection.
    GoAway {
        /// How long until it does.
        reconnect_in: Duration,
    },
    /// The ICE servers anew, before what opens them runs out.
    IceServers(IceServers),
    /// What joins the nodes went away, or is back.
    Status {
        /// Whether it answers.
        reached: bool,
        /// Whether something may have been lost that was sent to this session.
        missed: bool,
    },
}

impl Event {
    /// Its place in the inbox, if it has one.
    pub fn seq(&self) -> Option<Offset> {
        match self {
            Self::Signal { seq, .. } | Self::Left { seq, .. } => *seq,
            _ => None,
        }
    }
}

/// What a successful login tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Welcome {
    /// The name that was won.
    pub name: UserName,
    /// The new session.
    pub session: SessionId,
    /// The node that holds it.
    pub node: NodeId,
    /// How long a resumable session survives without a connection.
    pub grace: Duration,
    /// What finds a way to peers.
    pub ice: IceServers,
    /// What resumes a resumable session.
    pub resume: Option<Secret>,
    /// Whether an earlier session goes on.
    pub resumed: bool,
    /// The request's own words.
    pub id: Option<Correlation>,
}

/// What became of an acknowledged request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckStatus {
    /// Accepted for a user who is connected.
    Delivered,
    /// Kept for a resumable user who is between connections.
    Queued,
}

/// Why a call ended (PROTOCOL §1).
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
    /// The peer was thrown out.
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

    /// The word for it, in the protocol and between nodes.
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

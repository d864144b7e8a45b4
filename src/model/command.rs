//! Commands: what a client can request.

use std::fmt;
use std::sync::Arc;

use super::{Offset, Report, Secret, Signal, TraceContext, UserName};

/// The `id` of a request, echoed in its reply exactly as the client wrote it (JSON text).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Correlation(pub Arc<str>);

impl Correlation {
    /// The first character of generated ids. No JSON value starts with it.
    const GENERATED: char = '~';

    /// A generated id for a request without one. A client cannot send such an id.
    pub fn generated(id: impl fmt::Display) -> Self {
        Self(format!("{}{id}", Self::GENERATED).into())
    }

    /// Whether the id was generated.
    pub fn is_generated(&self) -> bool {
        self.0.starts_with(Self::GENERATED)
    }
}

/// One request, independent of the protocol.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Log in.
    Login {
        /// The name, and the proofs for it.
        request: LoginRequest,
        /// Echoed in the reply.
        id: Option<Correlation>,
    },
    /// Send a signal to another user.
    Send {
        /// The receiver.
        to: UserName,
        /// The signal.
        signal: Signal,
        /// The client's trace context for this signal.
        trace: Option<TraceContext>,
        /// Asks for an acknowledgement.
        id: Option<Correlation>,
        /// What to do if nobody has the receiver's name.
        if_absent: IfAbsent,
    },
    /// End a call.
    Leave {
        /// The peers to leave.
        whom: LeaveTarget,
        /// Asks for an acknowledgement.
        id: Option<Correlation>,
    },
    /// Ask which users are connected.
    Presence {
        /// The users to look for.
        names: Vec<UserName>,
        /// `Some(true)`: report later changes too; `Some(false)`: stop reporting; `None`: answer
        /// once.
        watch: Option<bool>,
        /// Echoed in the reply.
        id: Option<Correlation>,
    },
    /// Report the state of the connection to a call peer.
    Report {
        /// The call peer.
        with: UserName,
        /// The report.
        report: Report,
        /// Asks for an acknowledgement.
        id: Option<Correlation>,
    },
    /// Ask for a `Pong`.
    Ping {
        /// Echoed in the reply.
        id: Option<Correlation>,
        /// Confirms like [`Confirm`](Self::Confirm).
        seq: Option<Offset>,
    },
    /// Confirm all inbox entries up to and including this one. Plain sessions ignore it.
    Confirm {
        /// The last received offset.
        seq: Offset,
    },
    /// Replace the token of the session before it expires.
    Renew {
        /// The new token.
        token: Secret,
        /// Echoed in the reply.
        id: Option<Correlation>,
    },
    /// Prove that the client is alive, in protocols that require it (PeerJS).
    Heartbeat,
    /// Log out and close the connection.
    Quit,
}

/// What to do with a signal if nobody has the receiver's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfAbsent {
    /// Refuse it at once.
    #[default]
    Refuse,
    /// Queue it for the session's `offline_ttl`; then tell the sender that it expired.
    Queue,
    /// Drop it without an error.
    Drop,
}

impl Command {
    /// The `id` of this request, if it has one.
    pub fn into_id(self) -> Option<Correlation> {
        match self {
            Self::Login { id, .. }
            | Self::Send { id, .. }
            | Self::Leave { id, .. }
            | Self::Presence { id, .. }
            | Self::Report { id, .. }
            | Self::Renew { id, .. }
            | Self::Ping { id, .. } => id,
            Self::Confirm { .. } | Self::Heartbeat | Self::Quit => None,
        }
    }
}

/// Which calls a leave ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaveTarget {
    /// The call with this user.
    Peer(UserName),
    /// All calls.
    All,
    /// No call: the client sent a string that is no valid name.
    None,
}

/// The fields of a login. `name` is unchecked: the login checks it.
#[derive(Clone, Default, PartialEq)]
pub struct LoginRequest {
    /// The requested name.
    pub name: String,
    /// A token that proves the name.
    pub token: Option<String>,
    /// Whether the session should outlive its connection.
    pub resumable: bool,
    /// The secret of the session to resume.
    pub resume: Option<String>,
    /// The last inbox entry that the client has; `None` for the last confirmed one.
    pub last: Option<Offset>,
    /// A secret that the client chose. It takes the name, or resumes the session that was taken
    /// with the same secret (PeerJS).
    pub own_secret: Option<String>,
}

/// Hides tokens and secrets.
impl fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginRequest")
            .field("name", &self.name)
            .field("token", &self.token.is_some())
            .field("resumable", &self.resumable)
            .field("resume", &self.resume.is_some())
            .field("last", &self.last)
            .field("own_secret", &self.own_secret.is_some())
            .finish()
    }
}

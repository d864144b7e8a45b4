//! What a client may ask.

use std::fmt;
use std::sync::Arc;

use super::{Offset, Report, Signal, TraceContext, UserName};

/// The client's own words for one request, echoed in its answer as they were written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Correlation(pub Arc<str>);

impl Correlation {
    /// How ours begin: no JSON does.
    const GENERATED: char = '~';

    /// Words of ours for a request that has none of its own: no client can say them.
    pub fn generated(id: impl fmt::Display) -> Self {
        Self(format!("{}{id}", Self::GENERATED).into())
    }

    /// Whether the words are ours.
    pub fn is_generated(&self) -> bool {
        self.0.starts_with(Self::GENERATED)
    }
}

/// One request, as any language says it.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Take a name.
    Login {
        /// Which, and with what.
        request: LoginRequest,
        /// Echoed in the reply.
        id: Option<Correlation>,
    },
    /// Carry a signal to another user.
    Send {
        /// The receiver.
        to: UserName,
        /// What to carry.
        signal: Signal,
        /// The client's own span that this belongs to.
        trace: Option<TraceContext>,
        /// Asks for an acknowledgement.
        id: Option<Correlation>,
        /// What becomes of it if nobody of that name is here.
        if_absent: IfAbsent,
    },
    /// End a call.
    Leave {
        /// With whom.
        whom: LeaveTarget,
        /// Asks for an acknowledgement.
        id: Option<Correlation>,
    },
    /// Ask who is here.
    Presence {
        /// The users to look for.
        names: Vec<UserName>,
        /// `Some(true)`: tell every change too; `Some(false)`: no more; `None`: just now.
        watch: Option<bool>,
        /// Echoed in the reply.
        id: Option<Correlation>,
    },
    /// Say how the connection to a call peer is doing.
    Report {
        /// The call peer.
        with: UserName,
        /// How it is doing.
        report: Report,
        /// Asks for an acknowledgement.
        id: Option<Correlation>,
    },
    /// Ask for a sign of life.
    Ping {
        /// Echoed in the reply.
        id: Option<Correlation>,
    },
    /// Confirm what was received, up to and with this; means nothing to a plain session.
    Confirm {
        /// The last place that was received.
        seq: Offset,
    },
    /// Give the sign of life that a language asks of its clients.
    Heartbeat,
    /// Give the name back, and with it the connection.
    Quit,
}

/// What becomes of a signal to somebody who is not here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfAbsent {
    /// Its sender is told at once.
    #[default]
    Refuse,
    /// It waits for as long as its session lets it; then its sender is told.
    Queue,
    /// Nothing.
    Drop,
}

impl Command {
    /// The client's own words for this request, if it expects an answer.
    pub fn into_id(self) -> Option<Correlation> {
        match self {
            Self::Login { id, .. }
            | Self::Send { id, .. }
            | Self::Leave { id, .. }
            | Self::Presence { id, .. }
            | Self::Report { id, .. }
            | Self::Ping { id } => id,
            Self::Confirm { .. } | Self::Heartbeat | Self::Quit => None,
        }
    }
}

/// With whom a call is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaveTarget {
    /// With this user.
    Peer(UserName),
    /// With whoever there is a call with.
    All,
    /// With somebody that cannot be, since the text is no name.
    None,
}

/// What a client brings to a login. The name is as it was written: whether it is one is the login's business.
#[derive(Clone, Default, PartialEq)]
pub struct LoginRequest {
    /// The wished name.
    pub name: String,
    /// A token to prove it.
    pub token: Option<String>,
    /// Whether the session should outlive its connection.
    pub resumable: bool,
    /// The secret of the session to resume.
    pub resume: Option<String>,
    /// The last place of the inbox that the client has seen; `None`: what the server knows to be confirmed.
    pub last: Option<Offset>,
    /// A secret of the client's own choice: the name is taken with it, or the session that was taken with the same one.
    pub own_secret: Option<String>,
}

/// Hides token and secret.
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

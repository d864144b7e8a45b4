//! The two kinds of "no": a [`Refusal`] ends a request, a [`CloseReason`] ends a connection.
//!
//! The tables of codes and texts; every codec and transport maps from them.

use std::borrow::Cow;
use std::time::Duration;

use super::{InvalidName, LeaveReason};

/// Who caused it; picks the level of the log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client.
    Client,
    /// This node or its operator.
    Node,
    /// The broker.
    Broker,
}

/// A refused request; the session continues (docs/src/protocol/errors.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An unknown `type`; holds its value.
    UnknownType(String),
    /// The frame is not JSON.
    BadJson,
    /// JSON, but no valid message; the text says why.
    BadMessage(&'static str),
    /// The request needs a login first.
    NotLoggedIn,
    /// The connection is logged in already.
    AlreadyLoggedIn,
    /// Nobody with that name is connected.
    UserUnavailable,
    /// The client sent faster than `limits.signals_per_second`.
    RateLimited {
        /// When the next message will be accepted.
        retry_after: Duration,
    },
    /// The broker did not answer in time, so the outcome is unknown. The client may repeat the
    /// request with the same `id`.
    Unavailable {
        /// When to try again.
        retry_after: Duration,
    },
    /// The receiver's inbox is full. The client may repeat the request with the same `id`.
    InboxFull {
        /// When to try again.
        retry_after: Duration,
    },
    /// Another session has the name.
    NameTaken {
        /// When the name may become free, if its holder may be gone.
        retry_after: Option<Duration>,
    },
    /// The name is invalid.
    InvalidName(InvalidName),
    /// The proof of the name is missing or wrong; the text says which.
    Unauthorized(&'static str),
    /// The token does not allow it; the text says what.
    Forbidden(&'static str),
    /// The keys that verify tokens cannot be fetched.
    KeysUnavailable {
        /// When to try again.
        retry_after: Duration,
    },
    /// The session cannot be resumed.
    ResumeFailed,
    /// The node is shutting down, or full; another node will accept the login.
    Draining,
    /// A limit per session is exceeded; the text names it.
    TooMany(&'static str),
}

impl Refusal {
    /// Every code.
    pub const CODES: [&'static str; 16] = [
        "unknown_type",
        "bad_json",
        "bad_message",
        "not_logged_in",
        "already_logged_in",
        "user_unavailable",
        "rate_limited",
        "unavailable",
        "inbox_full",
        "name_taken",
        "invalid_name",
        "unauthorized",
        "forbidden",
        "resume_failed",
        "draining",
        "too_many",
    ];

    /// The machine-readable code (docs/src/protocol/errors.md).
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownType(_) => "unknown_type",
            Self::BadJson => "bad_json",
            Self::BadMessage(_) => "bad_message",
            Self::NotLoggedIn => "not_logged_in",
            Self::AlreadyLoggedIn => "already_logged_in",
            Self::UserUnavailable => "user_unavailable",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } | Self::KeysUnavailable { .. } => "unavailable",
            Self::InboxFull { .. } => "inbox_full",
            Self::NameTaken { .. } => "name_taken",
            Self::InvalidName(_) => "invalid_name",
            Self::Unauthorized(_) => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::ResumeFailed => "resume_failed",
            Self::Draining => "draining",
            Self::TooMany(_) => "too_many",
        }
    }

    /// The text for people. Clients must not depend on it.
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::UnknownType(word) => format!("Command not found: {word}").into(),
            Self::BadJson => "Command not found: undefined".into(),
            Self::BadMessage(what)
            | Self::Unauthorized(what)
            | Self::Forbidden(what)
            | Self::TooMany(what) => (*what).into(),
            Self::NotLoggedIn => "Log in first".into(),
            Self::AlreadyLoggedIn => {
                "This connection is logged in already: open another connection for another name"
                    .into()
            }
            Self::UserUnavailable => "Nobody of that name is here".into(),
            Self::RateLimited { .. } => "Too many messages: send fewer per second".into(),
            Self::Unavailable { .. } => {
                "The server's broker did not answer in time: try again, with the same id".into()
            }
            Self::KeysUnavailable { .. } => {
                "The server cannot fetch the keys of its tokens (auth.jwt.jwks_url): try again"
                    .into()
            }
            Self::InboxFull { .. } => {
                "This user's inbox is full: try again later, with the same id".into()
            }
            Self::NameTaken { .. } => "The name is taken".into(),
            Self::InvalidName(why) => why.to_string().into(),
            Self::ResumeFailed => {
                "This session has ended and cannot be resumed: log in without resume".into()
            }
            Self::Draining => {
                "This node takes no new users: reconnect to reach another node".into()
            }
        }
    }

    /// When to repeat the request, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after }
            | Self::Unavailable { retry_after }
            | Self::KeysUnavailable { retry_after }
            | Self::InboxFull { retry_after } => Some(*retry_after),
            Self::NameTaken { retry_after } => *retry_after,
            _ => None,
        }
    }
}

/// Why a connection ends (docs/src/protocol/errors.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client closed cleanly.
    ByClient,
    /// The connection broke.
    Dropped,
    /// A frame exceeded `session.frame_bytes`.
    TooLarge,
    /// The node is shutting down.
    Draining,
    /// The node cannot ensure that messages reach the session.
    Overloaded,
    /// A newer connection of the same session replaced this one.
    Replaced,
    /// Another session took the name while the node was cut off.
    NameLost,
    /// The client reads more slowly than it gets messages.
    TooSlow,
    /// No login within `session.login_within`.
    NoLogin,
    /// Neither a frame nor a pong within `session.silent_after`.
    Silent,
    /// No request from an HTTP client within `http.session_ttl`.
    Expired,
    /// The client kept exceeding the rate limit.
    TooFast,
    /// The login in the connection's URL was refused, and the client was told why.
    NotAdmitted,
    /// The token's time is over, and the client sent no new one.
    TokenExpired,
    /// An operator has revoked the token.
    TokenRevoked,
    /// An operator ended the session.
    Kicked,
}

impl CloseReason {
    /// The WebSocket close code; `None` if there is no connection left, or no close is sent.
    pub fn code(self) -> Option<u16> {
        match self {
            Self::ByClient | Self::Dropped | Self::NotAdmitted => None,
            Self::TooLarge => Some(1009),
            Self::Draining => Some(1012),
            Self::Overloaded => Some(1013),
            Self::Replaced => Some(4000),
            Self::NameLost => Some(4001),
            Self::TokenExpired | Self::TokenRevoked => Some(4003),
            Self::Kicked => Some(4005),
            Self::TooSlow => Some(4008),
            Self::NoLogin => Some(4009),
            Self::Silent | Self::Expired => Some(4010),
            Self::TooFast => Some(4029),
        }
    }

    /// All reasons.
    pub const ALL: [Self; 16] = [
        Self::ByClient,
        Self::Dropped,
        Self::TooLarge,
        Self::Draining,
        Self::Overloaded,
        Self::Replaced,
        Self::NameLost,
        Self::TooSlow,
        Self::NoLogin,
        Self::Silent,
        Self::Expired,
        Self::TooFast,
        Self::NotAdmitted,
        Self::TokenExpired,
        Self::TokenRevoked,
        Self::Kicked,
    ];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::ByClient => "closed",
            Self::Dropped => "lost",
            Self::TooLarge => "too_large",
            Self::Draining => "draining",
            Self::Overloaded => "overloaded",
            Self::Replaced => "replaced",
            Self::NameLost => "name_lost",
            Self::TooSlow => "too_slow",
            Self::NoLogin => "no_login",
            Self::Silent => "silent",
            Self::Expired => "expired",
            Self::TooFast => "too_fast",
            Self::NotAdmitted => "not_admitted",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::Kicked => "kicked",
        }
    }

    /// The text of the close frame and the log line; at most 123 bytes (RFC 6455, section 5.5).
    pub fn text(self) -> &'static str {
        match self {
            Self::ByClient => "closed by the client",
            Self::Dropped => "connection lost",
            Self::TooLarge => "frame is longer than session.frame_bytes",
            Self::Draining => "node is shutting down: reconnect",
            Self::Overloaded => "node is overloaded: wait, then reconnect",
            Self::Replaced => "replaced by a newer connection of this session",
            Self::NameLost => "another session took the name: log in again",
            Self::TooSlow => "client reads too slowly",
            Self::NoLogin => "no login within session.login_within",
            Self::Silent => "no frame and no pong within session.silent_after",
            Self::Expired => "no request within http.session_ttl",
            Self::TooFast => "kept exceeding the rate limit",
            Self::NotAdmitted => "the login was refused",
            Self::TokenExpired => "the token has expired",
            Self::TokenRevoked => "the token was revoked",
            Self::Kicked => "an operator ended this session",
        }
    }

    /// The reason that the session's call peers get.
    pub fn leave_reason(self) -> LeaveReason {
        match self {
            Self::ByClient | Self::Draining | Self::NotAdmitted => LeaveReason::Closed,
            Self::TooLarge
            | Self::TooFast
            | Self::TokenExpired
            | Self::TokenRevoked
            | Self::Kicked => LeaveReason::Kicked,
            Self::Replaced => LeaveReason::Replaced,
            Self::Dropped
            | Self::Overloaded
            | Self::NameLost
            | Self::TooSlow
            | Self::NoLogin
            | Self::Silent
            | Self::Expired => LeaveReason::Lost,
        }
    }

    /// Whether a resumable session survives a connection that ended for this reason.
    pub fn can_resume(self) -> bool {
        match self {
            Self::Dropped
            | Self::Draining
            | Self::Overloaded
            | Self::TooSlow
            | Self::Silent
            | Self::TooFast => true,
            Self::ByClient
            | Self::TooLarge
            | Self::Replaced
            | Self::NameLost
            | Self::NoLogin
            | Self::Expired
            | Self::NotAdmitted
            | Self::TokenExpired
            | Self::TokenRevoked
            | Self::Kicked => false,
        }
    }

    /// Who caused it.
    pub fn blame(self) -> Blame {
        match self {
            Self::Draining | Self::Overloaded | Self::TokenRevoked | Self::Kicked => Blame::Node,
            Self::NameLost => Blame::Broker,
            _ => Blame::Client,
        }
    }
}

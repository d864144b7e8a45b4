//! The two kinds of "no": a [`Refusal`] ends a request, a [`CloseReason`] ends the conversation.
//!
//! Codes, words and advice are here once; every dialect maps from these tables.

use std::borrow::Cow;
use std::time::Duration;

use super::LeaveReason;

/// Whose fault it was; picks the level of the log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client's.
    Client,
    /// This node's, or its operator's.
    Node,
    /// What joins the nodes.
    Broker,
}

/// No to this request; the conversation goes on (PROTOCOL §2 "Errors").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A `type` that the language does not have; holds the client's word.
    UnknownType(String),
    /// Not JSON at all.
    BadJson,
    /// JSON, but not a message: says what is wrong with it.
    BadMessage(&'static str),
    /// Something that only a logged-in user may ask.
    NotLoggedIn,
    /// A second login on one connection.
    AlreadyLoggedIn,
    /// Nobody of that name is here.
    UserUnavailable,
    /// More requests than the limit allows.
    RateLimited {
        /// When the next one will be heard.
        retry_after: Duration,
    },
    /// The outcome is unknown, or cannot be known now; repeat with the same id.
    Unavailable {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// As much waits for the receiver as may; repeat with the same id.
    InboxFull {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// Somebody else has the name.
    NameTaken {
        /// When it may be free, if its holder may be gone.
        retry_after: Option<Duration>,
    },
    /// The name breaks the rule of names.
    InvalidName,
    /// No proof of the name was given, or a wrong one.
    Unauthorized(&'static str),
    /// The session cannot be resumed.
    ResumeFailed,
    /// The node is shutting down; another one will take the login.
    Draining,
    /// More of something than one session may have: says of what.
    TooMany(&'static str),
}

impl Refusal {
    /// Every code.
    pub const CODES: [&'static str; 15] = [
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
        "resume_failed",
        "draining",
        "too_many",
    ];

    /// The machine-readable code, as PROTOCOL lists it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownType(_) => "unknown_type",
            Self::BadJson => "bad_json",
            Self::BadMessage(_) => "bad_message",
            Self::NotLoggedIn => "not_logged_in",
            Self::AlreadyLoggedIn => "already_logged_in",
            Self::UserUnavailable => "user_unavailable",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } => "unavailable",
            Self::InboxFull { .. } => "inbox_full",
            Self::NameTaken { .. } => "name_taken",
            Self::InvalidName => "invalid_name",
            Self::Unauthorized(_) => "unauthorized",
            Self::ResumeFailed => "resume_failed",
            Self::Draining => "draining",
            Self::TooMany(_) => "too_many",
        }
    }

    /// What a person reads.
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::UnknownType(word) => format!("Command not found: {word}").into(),
            Self::BadJson => "Command not found: undefined".into(),
            Self::BadMessage(what) | Self::Unauthorized(what) | Self::TooMany(what) => {
                (*what).into()
            }
            Self::NotLoggedIn => "Log in first".into(),
            Self::AlreadyLoggedIn => {
                "This connection is logged in already: open another for another name".into()
            }
            Self::UserUnavailable => "Nobody of that name is here".into(),
            Self::RateLimited { .. } => "Too many messages: slow down".into(),
            Self::Unavailable { .. } => {
                "No answer in time: try again, a signal with the same id".into()
            }
            Self::InboxFull { .. } => {
                "As much waits for this user as may: try again, with the same id".into()
            }
            Self::NameTaken { .. } => "The name is taken".into(),
            Self::InvalidName => {
                "A name is 1 to 128 bytes of text without control characters".into()
            }
            Self::ResumeFailed => "This session cannot be resumed: log in anew".into(),
            Self::Draining => "This node is shutting down: reconnect".into(),
        }
    }

    /// When the same request may succeed, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after }
            | Self::Unavailable { retry_after }
            | Self::InboxFull { retry_after } => Some(*retry_after),
            Self::NameTaken { retry_after } => *retry_after,
            _ => None,
        }
    }
}

/// Goodbye (PROTOCOL §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client closed cleanly.
    ByClient,
    /// The connection broke.
    Dropped,
    /// A frame over the limit.
    TooLarge,
    /// The node is shutting down.
    Draining,
    /// The node cannot make sure that it is reached.
    Overloaded,
    /// A newer connection of the same session took over.
    Replaced,
    /// The name was lost while the node was cut off.
    NameLost,
    /// The client reads slower than others speak to it.
    TooSlow,
    /// No login within the limit.
    NoLogin,
    /// Neither a frame nor a pong within the limit.
    Silent,
    /// No sign of a client that need not stay connected, for as long as its session lives without one.
    Expired,
    /// Kept breaking the rate limit.
    TooFast,
    /// The login that the connection came with was refused, and told why.
    NotAdmitted,
}

impl CloseReason {
    /// The WebSocket close code; `None` where there is nobody left to tell.
    pub fn code(self) -> Option<u16> {
        match self {
            Self::ByClient | Self::Dropped | Self::NotAdmitted => None,
            Self::TooLarge => Some(1009),
            Self::Draining => Some(1012),
            Self::Overloaded => Some(1013),
            Self::Replaced => Some(4000),
            Self::NameLost => Some(4001),
            Self::TooSlow => Some(4008),
            Self::NoLogin => Some(4009),
            Self::Silent | Self::Expired => Some(4010),
            Self::TooFast => Some(4029),
        }
    }

    /// All reasons.
    pub const ALL: [Self; 13] = [
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
    ];

    /// The one word for it that telemetry uses.
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
        }
    }

    /// The words that go with the code, and into the log.
    pub fn text(self) -> &'static str {
        match self {
            Self::ByClient => "closed by the client",
            Self::Dropped => "connection lost",
            Self::TooLarge => "frame over the limit",
            Self::Draining => "node is draining: reconnect",
            Self::Overloaded => "node is overloaded: back off, reconnect",
            Self::Replaced => "replaced by a newer connection of this session",
            Self::NameLost => "the name was lost: log in again",
            Self::TooSlow => "too slow a reader",
            Self::NoLogin => "no login within the limit",
            Self::Silent => "silent: no frame, no pong",
            Self::Expired => "silent: no request within http.session_ttl",
            Self::TooFast => "kept breaking the rate limit",
            Self::NotAdmitted => "the login was refused",
        }
    }

    /// What the session's call peers hear.
    pub fn leave_reason(self) -> LeaveReason {
        match self {
            Self::ByClient | Self::Draining | Self::NotAdmitted => LeaveReason::Closed,
            Self::TooLarge | Self::TooFast => LeaveReason::Kicked,
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

    /// Whether a resumable session outlives a connection that ended for this reason.
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
            | Self::NotAdmitted => false,
        }
    }

    /// Whose fault it was.
    pub fn blame(self) -> Blame {
        match self {
            Self::Draining | Self::Overloaded => Blame::Node,
            Self::NameLost => Blame::Broker,
            _ => Blame::Client,
        }
    }
}

//! What goes over the connection.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What the server refused, or what became of the session. Programs read `code`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The server's code, or one of ours: `closed`, `too_large`, `overloaded`, `already_in_call`, `failed`.
    pub code: String,
    /// For people.
    pub message: String,
    /// When to try again, if that may help.
    pub retry_after: Option<Duration>,
}

impl Error {
    pub(crate) fn new(code: &str, message: &str) -> Self {
        Self {
            code: code.to_owned(),
            message: message.to_owned(),
            retry_after: None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

/// What a session is given: an `offer`, `answer`, `candidate`, `message`, `leave`, `presence` or `ice_servers` of the
/// server's, or a `missed` of our own.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Which of these it is.
    pub kind: String,
    /// Who sent it.
    pub name: String,
    /// The body of an offer, answer, candidate or message, the reason of a leave, the users of a presence.
    pub body: Value,
    /// Of a `missed`: something may be lost, but the session goes on. Otherwise another session has begun, and the
    /// calls of the old one are over.
    pub resumed: bool,
    pub(crate) receipt: Option<Receipt>,
}

/// What the server is told when the app has taken a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Which session of the driver's it came in.
    pub(crate) generation: u64,
    pub(crate) seq: String,
    pub(crate) bytes: usize,
}

/// What peer connections tell each other. It contains its candidates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// `offer` or `answer`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The session description.
    #[serde(default)]
    pub sdp: String,
    /// Which peer connection it is of; the browser's client library says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leg: Option<String>,
    /// Which offer an answer is to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// When to probe a silent connection (PROTOCOL §2), in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Heartbeat {
    #[serde(rename = "busy_ms")]
    pub(crate) busy: u64,
    #[serde(rename = "idle_ms")]
    pub(crate) idle: u64,
    #[serde(rename = "answer_ms")]
    pub(crate) answer: u64,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            busy: 4000,
            idle: 15_000,
            answer: 4000,
        }
    }
}

/// What the server allows (PROTOCOL §2).
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Limits {
    pub(crate) signals_per_second: Option<f64>,
    pub(crate) frame_bytes: Option<usize>,
}

/// Anything that the server sends.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Frame {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) id: Option<Value>,
    pub(crate) name: Option<String>,
    pub(crate) seq: Option<String>,
    pub(crate) status: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) retry_after_ms: Option<u64>,
    pub(crate) missed: bool,
    pub(crate) success: bool,
    pub(crate) session: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) resume: Option<String>,
    pub(crate) heartbeat: Option<Heartbeat>,
    pub(crate) limits: Option<Limits>,
    /// `offer`, `answer`, `candidate`, `message`, `reason`, `users`, `iceServers`.
    #[serde(flatten)]
    pub(crate) rest: Map<String, Value>,
}

impl Frame {
    /// What belongs to its type.
    pub(crate) fn body(&mut self) -> Value {
        let field = match self.kind.as_str() {
            "leave" => "reason",
            "presence" => "users",
            "ice_servers" => "iceServers",
            kind => kind,
        };
        self.rest.remove(field).unwrap_or_default()
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.retry_after_ms.map(Duration::from_millis)
    }

    pub(crate) fn error(&self) -> Error {
        let message = self.rest.get("message").and_then(Value::as_str);
        Error {
            retry_after: self.retry_after(),
            ..Error::new(
                self.code.as_deref().unwrap_or("unknown"),
                message.unwrap_or_default(),
            )
        }
    }
}

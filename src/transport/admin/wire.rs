//! The JSON of the admin API, and the questions and answers by which one node serves the whole cluster.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};

use crate::broker::Holder;
use crate::model::{Address, Revocation, TokenGroup, UserName};
use crate::router::{CallView, UserView};
use crate::telemetry::Transport;

/// A question to a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// How it is.
    Node,
    /// Its sessions behind an encoded address, and how many at most.
    Users(Option<String>, usize),
    /// This session, with its calls.
    User(String),
    /// Its calls behind that of these two sessions, and how many at most.
    Calls(Option<(String, String)>, usize),
    /// End this session.
    Kick(String),
    /// End the sessions with these tokens.
    Revoke(Revoked),
}

/// The answer of a node.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Node(Node),
    Users(Vec<User>),
    /// `None` if the session is not there.
    User(Option<User>),
    Calls(Vec<Call>),
    /// Whether the session was there.
    Kicked(bool),
    /// How many sessions there were.
    Revoked(usize),
}

/// A node.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Node {
    #[serde(rename = "node")]
    pub(super) id: String,
    /// Whether it answered. If not, only its name is known.
    pub(super) answered: bool,
    pub(super) version: Option<String>,
    pub(super) uptime_seconds: Option<u64>,
    pub(super) ready: Option<bool>,
    pub(super) draining: Option<bool>,
    pub(super) sessions: Option<u64>,
    /// Sides of calls. A call has two, on one node or on two.
    pub(super) calls: Option<u64>,
}

/// A user, with the session that holds the name.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) realm: String,
    pub(super) name: String,
    pub(super) session: String,
    pub(super) node: String,
    /// `connected`, or `parked` while the session waits for its client.
    pub(super) state: String,
    pub(super) resumable: bool,
    /// Only the node knows this and what follows: `None` if it is dead or did not answer.
    pub(super) transport: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) since: Option<String>,
    /// How many calls.
    pub(super) calls: Option<usize>,
    /// The call peers, where one user is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) peers: Option<Vec<Peer>>,
}

/// A call peer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) since: String,
}

/// A call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) realm: String,
    pub(super) users: (String, String),
    pub(super) sessions: (String, String),
    /// The node of the first user.
    pub(super) node: String,
    pub(super) since: String,
}

/// A page of users.
#[derive(Debug, Default, Serialize)]
pub(super) struct Users {
    #[serde(rename = "users")]
    pub(super) page: Vec<User>,
    /// Where the next page begins; `None` at the end.
    pub(super) next: Option<String>,
    /// Nodes that did not answer: their users are missing.
    pub(super) unanswered: Vec<String>,
}

/// A page of calls.
#[derive(Debug, Default, Serialize)]
pub(super) struct Calls {
    #[serde(rename = "calls")]
    pub(super) page: Vec<Call>,
    /// Where the next page begins; `None` at the end.
    pub(super) next: Option<String>,
    /// Nodes that did not answer: their calls are missing.
    pub(super) unanswered: Vec<String>,
}

/// All nodes.
#[derive(Debug, Serialize)]
pub(super) struct Nodes {
    pub(super) nodes: Vec<Node>,
}

/// The body of a revocation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revoke {
    /// Tokens with this `sub`.
    #[serde(default, deserialize_with = "given")]
    pub(super) sub: Option<String>,
    /// The token with this `jti`.
    #[serde(default, deserialize_with = "given")]
    pub(super) jti: Option<String>,
    /// Only tokens of this realm; the empty one has those that name none.
    #[serde(default, deserialize_with = "given")]
    pub(super) realm: Option<String>,
    /// Only tokens that were issued before, in Unix seconds.
    #[serde(default, deserialize_with = "whole")]
    pub(super) issued_before: Option<u64>,
    /// How long the longest of these tokens lasts.
    #[serde(default, deserialize_with = "whole")]
    pub(super) for_seconds: Option<u64>,
}

/// A revocation, as nodes tell it to each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Revoked {
    tokens: String,
    issued_before: u64,
    until: u64,
}

/// What came of a revocation.
#[derive(Debug, Serialize)]
pub(super) struct Revocations {
    pub(super) revoked: bool,
    /// How many sessions it ends.
    pub(super) sessions: usize,
    /// When it is forgotten.
    pub(super) until: String,
    /// Nodes that did not answer: they read it when they can.
    pub(super) unanswered: Vec<String>,
}

/// The body of a message to a user.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Message {
    /// Sent as it is.
    pub(super) message: Box<serde_json::value::RawValue>,
    /// The name that the user sees as the sender.
    pub(super) from: Option<String>,
}

/// A field that may be left out, but not be null.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    String::deserialize(from).map(Some)
}

/// A whole number of seconds up to the year 9999, which JSON may write as `1.0`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is within the range"
)]
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    const LATEST: f64 = 253_402_300_799.0;
    let number = f64::deserialize(from)?;
    if number.fract() != 0.0 || !(0.0..=LATEST).contains(&number) {
        return Err(serde::de::Error::custom("no whole number of seconds"));
    }
    Ok(Some(number as u64))
}

impl Revoked {
    pub(super) fn of(revocation: &Revocation) -> Self {
        Self {
            tokens: revocation.tokens.as_str().to_owned(),
            issued_before: revocation.issued_before,
            until: revocation.until,
        }
    }

    pub(super) fn revocation(&self) -> Revocation {
        Revocation {
            tokens: TokenGroup::known(&self.tokens),
            issued_before: self.issued_before,
            until: self.until,
        }
    }
}

impl User {
    /// What the node of a session knows.
    pub(super) fn of(view: &UserView, node: &str) -> Self {
        Self {
            transport: Some(transport(view.client.transport).to_owned()),
            protocol: Some(view.client.protocol.to_owned()),
            since: Some(time(view.client.since)),
            calls: Some(view.calls),
            ..Self::held(
                &view.lease.address,
                &view.lease.held_by(&crate::model::NodeId::known(node)),
            )
        }
    }

    /// What a lease tells.
    pub(super) fn held(address: &Address, holder: &Holder) -> Self {
        let state = if holder.flags.detached {
            "parked"
        } else {
            "connected"
        };
        Self {
            realm: address.realm.to_string(),
            name: address.name.as_str().to_owned(),
            session: holder.session.to_string(),
            node: holder.node.to_string(),
            state: state.to_owned(),
            resumable: holder.flags.resumable,
            transport: None,
            protocol: None,
            since: None,
            calls: None,
            peers: None,
        }
    }
}

impl Peer {
    pub(super) fn of((name, since): &(UserName, SystemTime)) -> Self {
        Self {
            name: name.as_str().to_owned(),
            since: time(*since),
        }
    }
}

impl Call {
    pub(super) fn of(view: &CallView, node: &str) -> Self {
        let (one, other) = view.sessions;
        Self {
            realm: view.user.realm.to_string(),
            users: (
                view.user.name.as_str().to_owned(),
                view.peer.as_str().to_owned(),
            ),
            sessions: (one.to_string(), other.to_string()),
            node: node.to_owned(),
            since: time(view.since),
        }
    }
}

fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::WebSocket => "websocket",
        Transport::Http => "http",
    }
}

/// A time as RFC 3339 writes it, in whole seconds.
pub(super) fn time(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = Duration::from_secs(since.unwrap_or_default().as_secs());
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + seconds).to_string()
}

pub(super) fn write(value: &impl Serialize) -> Bytes {
    // Our own types can always be written.
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// `None` if the text is none of ours: a node of another version may have written it.
pub(super) fn read<T: for<'a> Deserialize<'a>>(text: &[u8]) -> Option<T> {
    serde_json::from_slice(text).ok()
}

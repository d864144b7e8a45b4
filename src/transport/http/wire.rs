//! The JSON that nodes exchange about HTTP sessions: questions, replies and locators.
//!
//! Ids, names and hashes are strings here: model types are never serialized.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::reject::Rejection;
use super::buffer::{Buffer, EventId, Unread};
use super::wire_claims::StoredClaims;
use crate::broker::BrokerError;
use crate::model::{Correlation, NodeId, Offset, Realm, SecretHash, UserName};
use crate::session::{FirstRefused, Progress};

/// A question of one node to another about a session.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) session: String,
    pub(super) proof: String,
    pub(super) request: Request,
}

/// A request to a home, from its own node or from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// The client posts these messages with this key. `None` ends the session.
    Post(Option<Vec<String>>, String),
    /// Waits for events after an event: the reader's number (0 for a new one), the event, the
    /// longest wait.
    Poll(u64, EventId, Duration),
    /// The asking node takes the session over.
    Take,
}

/// The reply of a home.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The session has processed this many messages.
    Posted(usize),
    /// The unread events for the reader of this number.
    Unread(u64, Unread),
    /// The session's state, for the node that takes it over.
    Handover(Box<Handover>),
    /// The session moved to this node.
    Moved(String),
    Denied(Denied),
}

/// Why a home or its node refuses a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Denied {
    /// The proof does not fit the session.
    Wrong,
    /// The session has ended, or never existed.
    Gone,
    /// Too many posts wait already.
    Full,
    /// A newer reader took over.
    Replaced,
    /// The client's address has too many sessions here. Other nodes never say this.
    #[serde(skip_deserializing)]
    TooMany,
    /// Not ready yet: ask again.
    Later,
    /// The store does not answer this node. Other nodes read this as [`Elsewhere`](Self::Elsewhere)
    /// and try it themselves.
    #[serde(skip_deserializing)]
    Unavailable,
    /// This node drains. Other nodes read this as [`Elsewhere`](Self::Elsewhere).
    #[serde(skip_deserializing)]
    Draining,
    /// The home is not on this node.
    #[serde(other)]
    Elsewhere,
}

/// The entry in the store that names a session's home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Locator {
    pub(super) node: String,
    pub(super) proof: String,
    #[serde(rename = "standing")]
    pub(super) progress: StoredProgress,
}

/// The state of a session, for the node that takes it over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Handover {
    /// The session has ended. Only its last events are left.
    pub(super) is_over: bool,
    /// The number of its latest reader.
    pub(super) reader: u64,
    pub(super) buffer: Buffer,
    #[serde(rename = "standing")]
    pub(super) progress: StoredProgress,
    /// The idempotency keys of its posts, each with the message count.
    pub(super) keys: Vec<(String, usize)>,
}

/// A [`Progress`] as strings, without `confirmed`, which a resume determines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredProgress {
    user: Option<(String, String)>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    realm: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claims: Option<StoredClaims>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    held_back: Vec<StoredFirst>,
}

/// A [`FirstRefused`] as strings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredFirst {
    to: String,
    id: String,
    needs_room: bool,
    until: u64,
}

/// Encodes a question, a reply or a locator.
pub(super) fn write(value: &impl Serialize) -> Bytes {
    // Serialization cannot fail for these types. An empty text decodes as nothing.
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// Decodes what another node encoded; `None` if it is something else. Unknown fields are ignored,
/// for rolling updates.
pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    serde_json::from_slice(text).ok()
}

impl Locator {
    pub(super) fn new(node: &NodeId, proof: &SecretHash, progress: &Progress) -> Self {
        Self {
            node: node.to_string(),
            proof: proof.as_str().to_owned(),
            progress: progress.into(),
        }
    }

    pub(super) fn is_at(&self, node: &NodeId) -> bool {
        self.node == node.as_str()
    }
}

impl From<BrokerError> for Denied {
    fn from(_: BrokerError) -> Self {
        Self::Unavailable
    }
}

impl From<Denied> for Rejection {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Wrong => Self::Unauthorized,
            Denied::Gone => Self::SessionGone,
            Denied::TooMany => Self::TooMany,
            Denied::Full => Self::TooFast,
            Denied::Replaced => Self::Replaced,
            Denied::Draining => Self::Draining,
            Denied::Elsewhere | Denied::Later | Denied::Unavailable => Self::Unavailable,
        }
    }
}

impl From<&Progress> for StoredProgress {
    fn from(progress: &Progress) -> Self {
        let user = progress.user.as_ref();
        Self {
            user: user.map(|(name, proof)| (name.to_string(), proof.as_str().to_owned())),
            realm: progress.realm.as_str().to_owned(),
            claims: progress.claims.as_deref().map(StoredClaims::from),
            held_back: progress.held_back.iter().map(StoredFirst::from).collect(),
        }
    }
}

impl From<&FirstRefused> for StoredFirst {
    fn from(first: &FirstRefused) -> Self {
        Self {
            to: first.to.to_string(),
            id: first.id.0.to_string(),
            needs_room: first.needs_room,
            until: first.until,
        }
    }
}

impl StoredFirst {
    fn read(self) -> Option<FirstRefused> {
        Some(FirstRefused {
            to: UserName::known(&self.to).ok()?,
            id: Correlation(self.id.into()),
            needs_room: self.needs_room,
            until: self.until,
        })
    }
}

impl From<StoredProgress> for Progress {
    fn from(
        StoredProgress {
            user,
            realm,
            claims,
            held_back,
        }: StoredProgress,
    ) -> Self {
        let name = |name: &str| UserName::known(name).ok();
        Self {
            user: user.and_then(|(user, proof)| Some((name(&user)?, SecretHash::known(&proof)))),
            realm: Realm::new(&realm),
            claims: claims.map(|claims| Arc::new(claims.into())),
            confirmed: Offset::default(),
            held_back: held_back
                .into_iter()
                .filter_map(StoredFirst::read)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, Claims, NamePattern, Secret};

    #[test]
    fn locators_round_trip() {
        let name = |text| UserName::parse(text).unwrap();
        let proof = Secret::random().hash_for(&Address::new(Realm::default(), name("a b")));
        let claims = Claims {
            subject: NamePattern::new("a*"),
            realm: None,
            call: Some(["b", "c-*"].into_iter().collect()),
            callable_by: Some(std::iter::empty::<&str>().collect()),
            signals_per_second: Some(7),
            connections: None,
            turn: false,
            expires: 1_900_000_000,
            issued: None,
            id: Some("j".into()),
        };
        let full = Progress {
            user: Some((name("a b/ü"), proof.clone())),
            realm: Realm::new("acme"),
            claims: Some(Arc::new(claims)),
            confirmed: Offset::default(),
            held_back: vec![FirstRefused {
                to: name("c"),
                id: Correlation("\"7\"".into()),
                needs_room: true,
                until: 1_900_000_000,
            }],
        };
        for progress in [full, Progress::default()] {
            let locator = Locator::new(&NodeId::known("n.1"), &proof, &progress);
            let known: Locator = read(&write(&locator)).unwrap();
            assert_eq!(known, locator);
            assert_eq!(Progress::from(known.progress), progress);
        }
        assert_eq!(read::<Locator>(b""), None);
    }

    #[test]
    fn unknown_variants_and_fields_are_tolerated() {
        let request = r#"{"session":"1","proof":"2","request":"Take","later":7}"#;
        let question: Question = read(request.as_bytes()).unwrap();
        assert_eq!(question.request, Request::Take);
        let denied = |text: &str| match read(text.as_bytes()) {
            Some(Reply::Denied(denied)) => Some(denied),
            _ => None,
        };
        assert_eq!(denied(r#"{"Denied":"Gone"}"#), Some(Denied::Gone));
        for elsewhere in [
            r#"{"Denied":"Draining"}"#,
            r#"{"Denied":"Later than that"}"#,
        ] {
            assert_eq!(denied(elsewhere), Some(Denied::Elsewhere));
        }
        assert_eq!(denied(r#"{"Other":1}"#), None);
    }
}

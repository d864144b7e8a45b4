//! What nodes write for each other about HTTP sessions, as JSON: questions, replies and locators.
//!
//! Ids, names and hashes are plain text here: the model itself is never serialized.

use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::buffer::Buffer;
use super::denied::Denied;
use super::event::{EventId, Text, Unread};
use crate::model::{EntryId, NodeId, SecretHash, UserName};
use crate::session::Standing;

/// What one node asks another about a session.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) session: String,
    pub(super) proof: String,
    pub(super) request: Request,
}

/// What a home is asked, by its own node or by another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// The client posts these messages under this key; without messages it ends the session.
    Post(Option<Vec<Text>>, String),
    /// The reader of this number, 0 for a new one, reads behind this event, and waits for so long.
    Poll(u64, EventId, Duration),
    /// The node that asks takes the session over.
    Take,
}

/// What a home replies.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The session has dealt with so many messages.
    Posted(usize),
    /// What the reader of this number has not read yet.
    Unread(u64, Unread),
    /// The session, for the node that takes it over.
    Handover(Box<Handover>),
    /// The session is at this node.
    Moved(String),
    Denied(Denied),
}

/// Where a session is at home; the store keeps it for all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Locator {
    node: String,
    proof: String,
    standing: StoredStanding,
}

/// What a home had of a session, for the node that takes it over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Handover {
    /// The session has ended: only its last events are left.
    pub(super) is_over: bool,
    /// The number of its latest reader.
    pub(super) reader: u64,
    pub(super) buffer: Buffer,
    pub(super) standing: StoredStanding,
    /// The idempotency keys of its posts, each with the number of messages.
    pub(super) keys: Vec<(String, usize)>,
}

/// A [`Standing`] as text, without what is confirmed: a resume tells that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredStanding {
    user: Option<(String, String)>,
    watched: Vec<String>,
}

/// Writes a question, a reply or a locator.
pub(super) fn write(value: &impl Serialize) -> Bytes {
    // Nothing of it has a map with keys that JSON cannot write, and memory does not fail: an empty text is read as none.
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// Reads what a node has written; `None` for what is nothing of that kind. Unknown fields are skipped.
pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    serde_json::from_slice(text).ok()
}

impl Locator {
    pub(super) fn new(node: &NodeId, proof: &SecretHash, standing: &Standing) -> Self {
        Self {
            node: node.to_string(),
            proof: proof.as_str().to_owned(),
            standing: standing.into(),
        }
    }

    pub(super) fn node(&self) -> NodeId {
        NodeId::known(&self.node)
    }

    pub(super) fn is_at(&self, node: &NodeId) -> bool {
        self.node == node.as_str()
    }

    pub(super) fn is_proved_by(&self, proof: &SecretHash) -> bool {
        self.proof == proof.as_str()
    }

    pub(super) fn standing(self) -> Standing {
        self.standing.into()
    }
}

impl From<&Standing> for StoredStanding {
    fn from(standing: &Standing) -> Self {
        let user = standing.user.as_ref();
        Self {
            user: user.map(|(name, proof)| (name.to_string(), proof.as_str().to_owned())),
            watched: standing.watched.iter().map(UserName::to_string).collect(),
        }
    }
}

impl From<StoredStanding> for Standing {
    fn from(StoredStanding { user, watched }: StoredStanding) -> Self {
        let name = |name: &str| UserName::parse(name).ok();
        Self {
            user: user.and_then(|(user, proof)| Some((name(&user)?, SecretHash::known(&proof)))),
            watched: watched.iter().filter_map(|watched| name(watched)).collect(),
            confirmed: EntryId::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, Realm, Secret};

    #[test]
    fn a_locator_survives_its_text() {
        let name = |text| UserName::parse(text).unwrap();
        let proof = Secret::random().hash_for(&Address::new(Realm::default(), name("a b")));
        let full = Standing {
            user: Some((name("a b/ü"), proof.clone())),
            watched: [name("c d"), name("e")].into(),
            confirmed: EntryId::default(),
        };
        for standing in [full, Standing::default()] {
            let locator = Locator::new(&NodeId::known("n.1"), &proof, &standing);
            let known: Locator = read(&write(&locator)).unwrap();
            assert_eq!(known, locator);
            assert!(known.is_proved_by(&proof));
            assert_eq!(known.standing(), standing);
        }
        assert_eq!(read::<Locator>(b""), None);
    }

    #[test]
    fn unknown_words_and_fields_do_no_harm() {
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

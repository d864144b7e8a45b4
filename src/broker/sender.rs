//! The sender of an envelope, with the text that opens each of its envelopes.

use std::sync::Arc;

use hashbrown::HashMap;

use super::error::UnknownEnvelope;
use crate::model::{Address, NodeId, SessionId};

/// The version that this release writes, and the only one that it reads.
const VERSION: &str = "1";

/// The session that sends an envelope.
#[derive(Debug)]
pub struct Sender {
    /// The user.
    pub address: Address,
    /// The session.
    pub session: SessionId,
    /// Grows with each resume of the session.
    pub generation: u32,
    /// The node of the session.
    pub node: NodeId,
    /// The first words of each envelope of this session, formatted once.
    head: String,
}

impl Sender {
    /// A session of this node.
    pub fn new(address: Address, session: SessionId, generation: u32, node: NodeId) -> Self {
        let head = format!("{VERSION} {session} {generation} {node} {address} ");
        Self {
            address,
            session,
            generation,
            node,
            head,
        }
    }

    /// The first words of each envelope of this session.
    pub(super) fn head(&self) -> &str {
        &self.head
    }

    /// Parses the head that [`new`](Self::new) wrote.
    fn parse(head: &str) -> Result<Self, UnknownEnvelope> {
        let mut words = head.split(' ');
        let mut word = || words.next().ok_or(UnknownEnvelope);
        if word()? != VERSION {
            return Err(UnknownEnvelope);
        }
        let session = word()?.parse().map_err(|_| UnknownEnvelope)?;
        let generation = word()?.parse().map_err(|_| UnknownEnvelope)?;
        let node = NodeId::known(word()?);
        let address = word()?.parse().map_err(|_| UnknownEnvelope)?;
        Ok(Self {
            address,
            session,
            generation,
            node,
            head: head.to_owned(),
        })
    }
}

impl PartialEq for Sender {
    fn eq(&self, other: &Self) -> bool {
        self.head == other.head
    }
}

/// Recently parsed senders. A sender of one envelope is likely to send another, and parsing the head costs as much as
/// all the rest.
#[derive(Debug, Default)]
pub(super) struct SenderCache {
    by_head: HashMap<String, Arc<Sender>>,
}

impl SenderCache {
    /// The cache is cleared when it holds so many.
    const CAPACITY: usize = 4096;

    pub(super) fn find(&mut self, head: &str) -> Result<Arc<Sender>, UnknownEnvelope> {
        if let Some(known) = self.by_head.get(head) {
            return Ok(Arc::clone(known));
        }
        let sender = Arc::new(Sender::parse(head)?);
        if self.by_head.len() >= Self::CAPACITY {
            self.by_head.clear();
        }
        self.by_head.insert(head.to_owned(), Arc::clone(&sender));
        Ok(sender)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_head.len()
    }
}

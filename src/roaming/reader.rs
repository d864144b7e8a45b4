//! What a client reads of its conversation, on whichever node it asks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::wire::LOOK_EVERY;
use super::{Denied, Roaming, Token, entered};
use crate::fabric::Ear;
use crate::fabric::letterbox::Read;
use crate::model::EntryId;

/// The one reader of a conversation: a newer one takes its place.
#[derive(Debug)]
pub struct Reader {
    roaming: Roaming,
    token: Token,
    number: u64,
    ear: Ear,
    /// Up to where the client has read; `None`: it has not begun.
    after: Option<EntryId>,
    /// The client was told that something is lost.
    was_reset: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// What the client was told since, each with its place, oldest first.
    pub events: Vec<(EntryId, Bytes)>,
    /// Something before them is lost.
    pub reset: bool,
}

impl Roaming {
    /// The client begins to read after this place, or from the beginning.
    pub async fn read(&self, token: &Token, after: Option<EntryId>) -> Result<Reader, Denied> {
        let letterboxes = Arc::clone(&self.inner.letterboxes);
        // Before the look that follows: no news can come in between.
        let ear = letterboxes.listen(token.session());
        let number = entered(letterboxes.attach(&token.key()).await?)?;
        Ok(Reader {
            roaming: self.clone(),
            token: token.clone(),
            number,
            ear,
            after,
            was_reset: false,
        })
    }
}

impl Reader {
    /// Up to where the client has read.
    pub fn place(&self) -> EntryId {
        self.after.unwrap_or_default()
    }

    /// What there is now. A sign of life of the client; should nobody carry the conversation on, this node does.
    pub async fn look(&mut self) -> Result<Looked, Denied> {
        let letterboxes = &self.roaming.inner.letterboxes;
        let key = self.token.key();
        let read = letterboxes.read(&key, self.number, self.after).await?;
        match entered(read)? {
            Read::Replaced => Err(Denied::Replaced),
            Read::Events {
                events,
                reset,
                carrier,
            } => {
                self.roaming.keep_carried(&self.token, &carrier).await;
                // Behind the loss it goes on.
                let reset = reset && !std::mem::replace(&mut self.was_reset, reset);
                if let Some((last, _)) = events.last() {
                    self.after = Some(*last);
                    self.was_reset = false;
                }
                Ok(Looked { events, reset })
            }
        }
    }

    /// Waits for news, or until it is time to look all the same, for so long at most.
    pub async fn news(&mut self, at_most: Duration) {
        // Nothing heard is no reason not to look.
        let _ = timeout(at_most.min(LOOK_EVERY), self.ear.heard()).await;
    }
}

//! A request that waits for its answer.

use tokio::sync::oneshot;

use crate::wire::{Error, Frame};

/// Where the answer goes.
pub(crate) type Answer = oneshot::Sender<Result<Frame, Error>>;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) name: Option<String>,
    pub(crate) text: String,
    /// On this connection, and not answered.
    pub(crate) is_sent: bool,
    /// On any connection.
    pub(crate) is_tried: bool,
    answer: Answer,
}

impl Entry {
    pub(crate) fn new(id: u64, name: Option<String>, text: String, answer: Answer) -> Self {
        Self {
            id,
            name,
            text,
            is_sent: false,
            is_tried: false,
            answer,
        }
    }

    /// Whether nobody waits for the answer.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.answer.is_closed()
    }

    pub(crate) fn finish(self, outcome: Result<Frame, Error>) {
        // An app that has stopped waiting needs no answer.
        drop(self.answer.send(outcome));
    }
}

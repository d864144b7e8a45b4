//! What passes between an app and the task of its session.

use serde_json::Value;

use crate::entry::Answer;
use crate::wire::{Error, Receipt};

/// What an app asks of the session.
#[derive(Debug)]
pub(crate) enum Request {
    Send {
        name: Option<String>,
        message: Value,
        answer: Answer,
    },
    Busy(bool),
    Close,
}

/// What an app may know of the session.
#[derive(Debug, Default)]
pub(crate) struct Status {
    pub(crate) session: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) ice_servers: Value,
    pub(crate) ended: Option<Error>,
}

/// What the app has taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) generation: u64,
    pub(crate) seq: String,
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Taken {
    pub(crate) fn take(&mut self, receipt: &Receipt) {
        if self.generation != receipt.generation {
            *self = Self::default();
            self.generation = receipt.generation;
        }
        self.seq.clone_from(&receipt.seq);
        self.messages += 1;
        self.bytes += receipt.bytes;
    }
}

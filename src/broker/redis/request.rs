//! What can be queued for a publisher.

use std::sync::Arc;

use redis::{Cmd, Value};
use tokio::sync::oneshot;

use crate::broker::{BrokerError, Receipt, SendOptions};

/// One request.
#[derive(Debug)]
pub(super) enum Request {
    /// Sends an envelope.
    Publish(Publish),
    /// Updates the record of a session.
    Save(Save, ReplySender),
    /// Any other command.
    Command(Cmd, ReplySender),
}

/// The reply to a command.
pub(super) type Reply = Result<Value, BrokerError>;

/// Where the reply to a command goes.
pub(super) type ReplySender = oneshot::Sender<Reply>;

/// An envelope to send.
#[derive(Debug)]
pub(super) struct Publish {
    /// The receiver's keys and channel.
    pub(super) to: Arc<Destination>,
    /// How to deliver it.
    pub(super) options: SendOptions,
    /// The encoded envelope.
    pub(super) bytes: Vec<u8>,
    /// Gets the outcome.
    pub(super) receipt: Receipt,
}

/// An update of a session's record.
#[derive(Debug)]
pub(super) struct Save {
    /// As [`Keys::of`](super::keys::Keys::of) returns them. The script takes all but the last.
    pub(super) keys: [String; 4],
    /// As `save.lua` takes them.
    pub(super) args: Vec<String>,
    /// Until when it may run, in ms of the server's clock.
    pub(super) deadline: i64,
    /// It rewrites the whole record: what is sent to the session later must stay behind it.
    pub(super) is_anew: bool,
}

/// The keys and the channel of one receiver.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) presence: String,
    pub(super) inbox: String,
    pub(super) channel: String,
}

/// Publishes to a channel.
pub(super) fn publish(channel: String, payload: impl redis::ToRedisArgs) -> Cmd {
    redis::cmd("PUBLISH").arg(channel).arg(payload).clone()
}

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        self.presence == other.presence
    }
}

impl Eq for Destination {}

impl std::hash::Hash for Destination {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.presence.hash(state);
    }
}

impl Publish {
    /// The session of the sender, as it is in the envelope.
    pub(super) fn sender(&self) -> &[u8] {
        let mut words = self.bytes.split(|byte| *byte == b' ');
        words.nth(1).unwrap_or_default()
    }
}

impl Request {
    /// The bytes of what clients sent; other commands are small.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Publish(message) => message.bytes.len(),
            Self::Save(save, _) => save.args.iter().map(String::len).sum(),
            Self::Command(..) => 0,
        }
    }

    /// Reports that the request was not executed.
    pub(super) fn fail(self, error: &BrokerError) {
        match self {
            Self::Publish(message) => message.receipt.settle(Err(error.clone())),
            // A caller that has stopped waiting needs no reply.
            Self::Command(_, reply_to) | Self::Save(_, reply_to) => {
                drop(reply_to.send(Err(error.clone())));
            }
        }
    }
}

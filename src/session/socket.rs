//! What a conversation asks of a transport.

use futures_util::{Sink, Stream};

use super::Standing;
use crate::model::{CloseReason, EntryId, Frame};

/// What a transport brings. Its end, without [`Received::Closed`], is a connection that broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message of the client.
    Frame(Frame),
    /// A message that the transport keeps, at this place, until it is told by a [`Sending::Standing`] that it was dealt with. It brings no other
    /// before.
    Kept(Frame, EntryId),
    /// A sign of life without a message.
    Alive,
    /// The answer to the ping of this number.
    Answered(u64),
    /// A message over the limit.
    TooLarge,
    /// Another node goes on with the conversation.
    Taken,
    /// A client that need not stay connected gave no sign of life for too long.
    Expired,
    /// The client closed cleanly.
    Closed {
        /// It is not coming back, as far as its close code tells.
        for_good: bool,
    },
}

/// What a transport is asked to carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sending {
    /// A message for the client.
    Frame(Frame),
    /// A question whether it is there, which its transport answers with [`Received::Answered`], behind everything that was said before.
    Ping(u64),
    /// How far the conversation has come with what was said before: only for transports that keep it.
    Standing(Box<Standing>),
    /// The end, and why.
    Close(CloseReason),
}

/// The connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is gone")]
pub struct Gone;

/// A transport. What is fed is buffered within bounds and leaves with the flush.
pub trait Socket: Stream<Item = Received> + Sink<Sending, Error = Gone> + Unpin + Send {}

impl<T: Stream<Item = Received> + Sink<Sending, Error = Gone> + Unpin + Send> Socket for T {}

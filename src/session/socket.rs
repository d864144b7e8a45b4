//! What a conversation asks of a transport.

use futures_util::{Sink, Stream};

use super::Progress;
use crate::model::{CloseReason, Correlation, Frame, Offset};

/// What a transport brings. Its end, without [`Received::Closed`], is a connection that broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message of the client.
    Frame(Frame),
    /// A message whose sender waits for a [`Sending::Settled`], and repeats it if that does not come: then it has this id again, if it has none of
    /// its own.
    Posted(Frame, Correlation),
    /// A sign of life without a message.
    Alive,
    /// The answer to the ping of this number.
    Answered(u64),
    /// A message over the limit.
    TooLarge,
    /// Another node goes on with the conversation, as from here on.
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
    /// A message for the client, and its place in the inbox if it has one.
    Frame(Frame, Option<Offset>),
    /// A question whether it is there, which its transport answers with [`Received::Answered`], behind everything that was said before.
    Ping(u64),
    /// What whoever goes on must know when its client has heard what follows: only for conversations that others may go on with.
    Progress(Box<Progress>),
    /// It is known what became of everything that was [posted](Received::Posted).
    Settled,
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

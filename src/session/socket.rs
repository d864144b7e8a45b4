//! The interface between a session and its transport.

use futures_util::{Sink, Stream};

use super::Progress;
use crate::model::{CloseReason, Correlation, Frame, Offset};

/// What a transport receives. A stream that ends without [`Received::Closed`] is a broken connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message from the client.
    Frame(Frame),
    /// A message whose sender waits for [`Sending::Settled`] and repeats it if that does not come. A message without an
    /// id of its own is given this one, which is the same for a repetition.
    Posted(Frame, Correlation),
    /// A sign of life without a message.
    Alive,
    /// The pong to the ping of this number.
    Answered(u64),
    /// A message over the size limit.
    TooLarge,
    /// Another node has taken the session over.
    Taken,
    /// A client without a connection of its own was silent for too long.
    Expired,
    /// The client closed cleanly.
    Closed {
        /// Its close code says that it will not resume.
        for_good: bool,
    },
}

/// What a transport sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sending {
    /// A message for the client, with its offset in the inbox if it has one.
    Frame(Frame, Option<Offset>),
    /// A ping, which the client answers with [`Received::Answered`] once it has read everything before it.
    Ping(u64),
    /// The state from which another node can continue, recorded before the messages that follow are sent. For HTTP
    /// sessions only.
    Progress(Box<Progress>),
    /// Every [posted](Received::Posted) message is processed.
    Settled,
    /// The close, with its reason.
    Close(CloseReason),
}

/// The connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is gone")]
pub struct Gone;

/// A transport. Buffers what is fed, within bounds, and sends it at the flush.
pub trait Socket: Stream<Item = Received> + Sink<Sending, Error = Gone> + Unpin + Send {}

impl<T: Stream<Item = Received> + Sink<Sending, Error = Gone> + Unpin + Send> Socket for T {}

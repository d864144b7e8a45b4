//! The codecs: pure functions between frames and the commands and events of `model`, without I/O
//! and clock.

mod native;
mod peerjs;
pub mod posted;

pub use native::Native;
pub use peerjs::PeerJs;

use crate::model::{Command, Correlation, Event, Frame, Refusal, UserName};

/// A codec for one connection. It may keep state, for example the client's own id.
pub trait Codec: Send + 'static {
    /// Its name in metrics and logs.
    const NAME: &'static str;

    /// Decodes a client's frame.
    fn decode(&mut self, frame: &Frame) -> Result<Command, DecodeError>;

    /// Encodes an event; `None` if the protocol has no message for it.
    fn encode(&mut self, event: &Event) -> Option<Frame>;
}

/// A frame that is no valid command, with as much of its context as could be read.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodeError {
    /// The error to send to the client.
    pub refusal: Refusal,
    /// The request's `id`, for the error reply.
    pub id: Option<Correlation>,
    /// The user that the request names.
    pub name: Option<UserName>,
}

impl From<Refusal> for DecodeError {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            id: None,
            name: None,
        }
    }
}

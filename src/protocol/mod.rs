//! The languages: pure translators between frames and the words of `model`, without I/O and without a clock.

mod native;
mod peerjs;
pub mod posted;

pub use native::Native;
pub use peerjs::PeerJs;

use crate::model::{Command, Correlation, Event, Frame, Refusal, UserName};

/// One language, as one conversation speaks it.
pub trait Codec: Send + 'static {
    /// What operators call it.
    const NAME: &'static str;

    /// What the client asks with this frame.
    fn decode(&mut self, frame: &Frame) -> Result<Command, DecodeError>;

    /// How the client is told of this event; `None` if the language has no word for it.
    fn encode(&mut self, event: &Event) -> Option<Frame>;
}

/// A frame that asks nothing that can be done, with as much of its context as could be read.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodeError {
    /// What is wrong with it.
    pub refusal: Refusal,
    /// The request's own words.
    pub id: Option<Correlation>,
    /// The user that was meant.
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

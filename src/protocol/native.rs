//! The tutorial's JSON protocol with its additions (PROTOCOL §1 and §2).
//!
//! Only the top level of a message is looked at. Every field is taken as the text it was written in, so a body leaves as it came, and a
//! refusal can name the request's `id` even when another field of it is wrong.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use self::decode::Wire;
use super::{Codec, DecodeError};
use crate::model::{Command, Event, Frame};

/// The native language; it has nothing to remember.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

impl Codec for Native {
    const NAME: &'static str = "native";

    fn decode(&mut self, frame: &Frame) -> Result<Command, DecodeError> {
        let wire = Wire::read(frame.bytes())?;
        let id = wire.correlation()?;
        wire.command(frame.bytes(), id.clone())
            .map_err(|refusal| DecodeError {
                refusal,
                id,
                name: wire.user().ok(),
            })
    }

    fn encode(&mut self, event: &Event) -> Option<Frame> {
        Some(encode::encode(event))
    }
}

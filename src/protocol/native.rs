//! The native codec: the tutorial's JSON protocol with its additions (docs/src/protocol).
//!
//! Only the top level of a message is parsed. Each field keeps its raw text, so a body is forwarded
//! byte for byte, and an error can name the request's `id` even if another field is wrong.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use self::decode::Wire;
use super::{Codec, DecodeError};
use crate::model::{Command, Event, Frame};

/// The native codec. It has no state.
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

//! Frames of WebSockets (RFC 6455, section 5.2), as a client writes and reads them: whole, and masked with zeros.

use std::ops::Range;

use crate::Outcome;

/// Length codes: the length follows in two bytes, or in eight (RFC 6455, section 5.2).
const IN_TWO: u8 = 0x7E;
const IN_EIGHT: u8 = 0x7F;
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8A;
/// Marks a client's frame as masked.
const MASKED: u8 = 0x80;
/// The mask that changes nothing.
const MASK: [u8; 4] = [0; 4];

/// The first byte and the range of the payload of a frame, once its header is complete.
pub(crate) fn next_frame(bytes: &[u8]) -> Option<(u8, Range<usize>)> {
    let (start, length) = match *bytes.get(1)? {
        IN_TWO => (
            4,
            usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        ),
        // Longer than any inbox, so that `fill` fails.
        IN_EIGHT => (10, usize::from(u16::MAX)),
        length => (2, usize::from(length)),
    };
    Some((bytes[0], start..start + length))
}

/// A text as a client's frame.
pub(crate) fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![TEXT];
    match u8::try_from(text.len()) {
        Ok(length) if length < IN_TWO => frame.push(MASKED | length),
        _ => {
            let length = u16::try_from(text.len())
                .unwrap_or_else(|_| panic!("the benchmark sends no longer texts"));
            frame.push(MASKED | IN_TWO);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Adds the answer to a ping.
pub(crate) fn pong(payload: &[u8], to: &mut Vec<u8>) -> Outcome<()> {
    // Control frames have at most 125 bytes.
    to.extend_from_slice(&[PONG, MASKED | u8::try_from(payload.len())?]);
    to.extend_from_slice(&MASK);
    to.extend_from_slice(payload);
    Ok(())
}

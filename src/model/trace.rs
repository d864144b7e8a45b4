//! Trace contexts (W3C Trace Context).

use std::fmt;
use std::str::FromStr;

/// The id of a span, for its children. Displayed and parsed as a `traceparent`:
/// `00-TRACE-SPAN-FLAGS`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace id.
    pub trace: [u8; 16],
    /// The span id.
    pub span: [u8; 8],
    /// The sampled flag: whether spans of this trace are recorded.
    pub sampled: bool,
}

/// The text is not a valid `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid traceparent")]
pub struct InvalidTraceparent;

impl TraceContext {
    /// The trace id in hexadecimal, as tools show it.
    pub fn trace_id(&self) -> String {
        hex::encode(self.trace)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        // The slices fit: two digits per byte.
        let _ = hex::encode_to_slice(self.trace, &mut text[3..35]);
        let _ = hex::encode_to_slice(self.span, &mut text[36..52]);
        text[54] += u8::from(self.sampled);
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceparent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceparent> {
        let bytes = text.as_bytes();
        // A later version may append fields after a hyphen; version 255 is invalid.
        let is_long_enough = match bytes.get(..3) {
            Some(b"00-") => bytes.len() == 55,
            Some(b"ff-") | None => false,
            Some(_) => bytes.len() == 55 || bytes.get(55) == Some(&b'-'),
        };
        let is_lower = bytes.iter().all(|byte| !byte.is_ascii_uppercase());
        if !is_long_enough || !is_lower || [2, 35, 52].iter().any(|&at| bytes[at] != b'-') {
            return Err(InvalidTraceparent);
        }
        let (mut version, mut flags) = ([0; 1], [0; 1]);
        let (mut trace, mut span) = ([0; 16], [0; 8]);
        let read = |digits: &[u8], into: &mut [u8]| {
            hex::decode_to_slice(digits, into).map_err(|_| InvalidTraceparent)
        };
        read(&bytes[..2], &mut version)?;
        read(&bytes[3..35], &mut trace)?;
        read(&bytes[36..52], &mut span)?;
        read(&bytes[53..55], &mut flags)?;
        if trace == [0; 16] || span == [0; 8] {
            return Err(InvalidTraceparent);
        }
        Ok(Self {
            trace,
            span,
            sampled: flags[0] & 1 == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn traceparents_are_parsed_as_the_standard_says() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context: TraceContext = text.parse().unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_string(), text);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02-more";
        assert!(!later.parse::<TraceContext>().unwrap().sampled);
        for dirt in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(
                dirt.parse::<TraceContext>(),
                Err(InvalidTraceparent),
                "{dirt}"
            );
        }
    }

    proptest! {
        #[test]
        fn parsing_arbitrary_text_never_panics(text in ".{0,80}", hexish in "[0-9a-f-]{50,60}") {
            let _ = text.parse::<TraceContext>();
            let _ = hexish.parse::<TraceContext>();
        }
    }
}

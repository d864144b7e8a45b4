//! What one user wants another to have; the server never opens it.

use std::fmt;

use bytes::Bytes;

/// What a signal is for, which is all that the server knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignalKind {
    /// An SDP offer; starts a call.
    Offer,
    /// An SDP answer; starts a call too, if the offer was forgotten.
    Answer,
    /// An ICE candidate.
    Candidate,
    /// Whatever an app needs; starts no call.
    Message,
}

impl SignalKind {
    /// All kinds, in the order of a call.
    pub const ALL: [Self; 4] = [Self::Offer, Self::Answer, Self::Candidate, Self::Message];

    /// The word for it, in the protocol and between nodes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Answer => "answer",
            Self::Candidate => "candidate",
            Self::Message => "message",
        }
    }

    /// Whether the two users are in a call once this was sent (PROTOCOL §1).
    pub fn starts_call(self) -> bool {
        matches!(self, Self::Offer | Self::Answer)
    }
}

/// The opaque part: carried byte for byte, never parsed, never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(pub Bytes);

/// Shows the size only: an SDP or a candidate must not reach a log.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

/// A kind with its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// What it is for.
    pub kind: SignalKind,
    /// What it says.
    pub body: Body,
}

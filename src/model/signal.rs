//! Signals: what one user sends to another. The server never opens the body.

use std::fmt;

use bytes::Bytes;

/// The kind of a signal, which is all that the server knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignalKind {
    /// An SDP offer; starts a call.
    Offer,
    /// An SDP answer. Starts a call too, because the node may have forgotten the offer.
    Answer,
    /// An ICE candidate.
    Candidate,
    /// Application data; starts no call.
    Message,
}

impl SignalKind {
    /// All kinds, in the order of a call.
    pub const ALL: [Self; 4] = [Self::Offer, Self::Answer, Self::Candidate, Self::Message];

    /// The value in the protocol and between nodes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Answer => "answer",
            Self::Candidate => "candidate",
            Self::Message => "message",
        }
    }

    /// Whether sending this puts the two users in a call (docs/src/protocol/messages.md).
    pub fn starts_call(self) -> bool {
        matches!(self, Self::Offer | Self::Answer)
    }
}

/// The opaque body: forwarded byte for byte, never parsed, never logged.
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
    /// The kind.
    pub kind: SignalKind,
    /// The body.
    pub body: Body,
}

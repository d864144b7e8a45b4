//! Reports of clients about their peer-to-peer connections, which the server cannot see.

use std::time::Duration;

/// The state of a call's peer-to-peer connection, in terms of `RTCPeerConnection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The state.
    pub state: PeerState,
    /// How long it took; for `Connected`, since the offer.
    pub after: Option<Duration>,
    /// The kind of the selected candidate pair.
    pub pair: Option<PairKind>,
}

/// The state of a peer connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// Connected: media can flow.
    Connected,
    /// The connection failed for good.
    Failed,
    /// The connection is interrupted and may recover.
    Disconnected,
}

impl PeerState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Connected, Self::Failed, Self::Disconnected];

    /// The value in the protocol and in telemetry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Failed => "failed",
            Self::Disconnected => "disconnected",
        }
    }
}

/// The kind of a candidate pair: that of its more indirect end (RFC 8445, section 5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PairKind {
    /// Between addresses of the hosts themselves.
    Host,
    /// Via an address that a STUN server saw.
    ServerReflexive,
    /// Via an address that the peer saw.
    PeerReflexive,
    /// Via a TURN server.
    Relay,
}

impl PairKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [
        Self::Host,
        Self::ServerReflexive,
        Self::PeerReflexive,
        Self::Relay,
    ];

    /// The value in the protocol and in telemetry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::ServerReflexive => "srflx",
            Self::PeerReflexive => "prflx",
            Self::Relay => "relay",
        }
    }
}

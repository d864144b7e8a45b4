//! What a client says of a connection that only it can see.

use std::time::Duration;

/// How the connection that a call set up is doing, in the words of `RTCPeerConnection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What has become of it.
    pub state: PeerState,
    /// How long that took; of a set-up, from the offer on.
    pub after: Option<Duration>,
    /// How the chosen pair of candidates runs.
    pub pair: Option<PairKind>,
}

/// What has become of a peer connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// It carries media.
    Connected,
    /// It could not be made, or is lost for good.
    Failed,
    /// It was lost, and may come back by itself.
    Disconnected,
}

impl PeerState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Connected, Self::Failed, Self::Disconnected];

    /// The word for it, in the protocol and in telemetry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Failed => "failed",
            Self::Disconnected => "disconnected",
        }
    }
}

/// How a pair of candidates runs: its more indirect end, as ICE calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PairKind {
    /// Between the hosts' own addresses.
    Host,
    /// By an address that a STUN server has seen.
    ServerReflexive,
    /// By an address that the peer has seen.
    PeerReflexive,
    /// By a TURN server.
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

    /// The word for it, in the protocol and in telemetry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::ServerReflexive => "srflx",
            Self::PeerReflexive => "prflx",
            Self::Relay => "relay",
        }
    }
}

//! What a browser may use to find a way to another: servers that tell it its own address, and relays.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One server of an `RTCPeerConnection`'s configuration (W3C: `RTCIceServer`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServer {
    /// Where it is: `stun:`, `turn:` and `turns:` URLs (RFC 7064, RFC 7065).
    pub urls: Arc<[String]>,
    /// What a relay asks for.
    pub login: Option<IceLogin>,
}

/// What opens a relay.
#[derive(Clone, PartialEq, Eq)]
pub struct IceLogin {
    /// Shows in the relay's logs.
    pub username: String,
    /// For its client alone.
    pub credential: String,
}

/// The servers for one client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IceServers {
    /// Each of them.
    pub servers: Vec<IceServer>,
    /// How long their logins are good, in whole seconds; `None` for ever.
    pub ttl: Option<Duration>,
}

/// Hides the credential.
impl fmt::Debug for IceLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceLogin")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

//! ICE servers: STUN servers tell a browser its public address, TURN servers relay media.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One ICE server (W3C WebRTC, `RTCIceServer`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServer {
    /// Its URLs: `stun:`, `turn:` and `turns:` (RFC 7064, RFC 7065).
    pub urls: Arc<[String]>,
    /// The credentials of a TURN server.
    pub login: Option<IceLogin>,
}

/// Credentials of a TURN server.
#[derive(Clone, PartialEq, Eq)]
pub struct IceLogin {
    /// The user name; the relay logs it.
    pub username: String,
    /// The password. Send it to its client only.
    pub credential: String,
}

/// The ICE servers for one client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IceServers {
    /// The servers.
    pub servers: Vec<IceServer>,
    /// How long the credentials are valid, in whole seconds; `None` for ever.
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

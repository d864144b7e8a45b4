//! The context that a transport prepares for a session when it accepts the connection.

use std::sync::Arc;
use std::time::Duration;

use super::heartbeat::Clocks;
use super::progress::HttpSession;
use super::state::SessionPolicy;
use crate::auth::Auth;
use crate::drain::Phase;
use crate::ice::Ice;
use crate::limits::{AddressLimits, RateLimit};
use crate::model::{Claims, LoginRequest, Pace, Realm, Refusal};
use crate::router::Router;

/// The context of one session.
#[derive(Debug)]
pub struct SessionContext {
    /// The router of this node.
    pub router: Arc<Router>,
    /// The realm of the door; a token may choose another.
    pub realm: Realm,
    /// Ping intervals and time-outs.
    pub clocks: Clocks,
    /// How long one write may take before the client counts as too slow.
    pub write_timeout: Duration,
    /// The client's rate limit.
    pub rate: RateLimit,
    /// What a client of a resumable session is told to keep to.
    pub pace: Pace,
    /// What it shares with other sessions of its address.
    pub address: AddressLimits,
    /// Tells whether the node drains.
    pub phase: Phase,
    /// How long a resumable session keeps one connection; zero means forever.
    pub max_age: Duration,
    /// Set for a session over HTTP.
    pub http: Option<Box<HttpSession>>,
    /// The ICE servers to announce.
    pub ice: Arc<Ice>,
    /// Checks tokens.
    pub auth: Arc<Auth>,
    /// What the token says that came with the request.
    pub admitted: Option<Arc<Claims>>,
    /// How the session begins.
    pub initial_login: InitialLogin,
    /// How sessions of this protocol behave.
    pub policy: SessionPolicy,
}

/// How a session begins.
#[derive(Clone, Debug)]
pub enum InitialLogin {
    /// With a login message.
    ByMessage,
    /// With a login that came with the connection.
    Given(Box<LoginRequest>),
    /// With a login that came with the connection and was refused.
    Refused(Refusal),
}

//! What a session is given when its connection is accepted.

use std::sync::Arc;
use std::time::Duration;

use super::heartbeat::Clocks;
use super::http::HttpSession;
use super::state::SessionPolicy;
use crate::drain::Phase;
use crate::ice::Ice;
use crate::limits::{AddressLimits, RateLimit};
use crate::model::{LoginRequest, Realm, Refusal};
use crate::router::Router;

/// What a conversation needs to know; prepared at the door.
#[derive(Debug)]
pub struct SessionContext {
    /// Where it logs in.
    pub router: Arc<Router>,
    /// The tenant.
    pub realm: Realm,
    /// How patient it is.
    pub clocks: Clocks,
    /// How long one write may take before the reader counts as too slow.
    pub write_timeout: Duration,
    /// How fast the client may speak.
    pub rate: RateLimit,
    /// What it shares with other sessions of its address.
    pub address: AddressLimits,
    /// Whether the node drains.
    pub phase: Phase,
    /// How long a resumable session keeps its connection; zero for ever.
    pub max_age: Duration,
    /// Of a conversation over HTTP.
    pub http: Option<Box<HttpSession>>,
    /// The ICE servers that it tells of.
    pub ice: Arc<Ice>,
    /// How it begins.
    pub initial_login: InitialLogin,
    /// How sessions of its language are.
    pub policy: SessionPolicy,
}

/// How a conversation begins.
#[derive(Clone, Debug)]
pub enum InitialLogin {
    /// With the first frame.
    ByMessage,
    /// With a login that came with the connection.
    Given(Box<LoginRequest>),
    /// With this answer to it.
    Refused(Refusal),
}

//! Errors of the broker and of its envelopes.

use std::fmt;
use std::sync::Arc;

/// The call failed. Whether it took effect is unknown, unless the variant says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The store cannot be reached, or it refused the command; the text is its own.
    #[error("{0}")]
    Unreachable(Arc<str>),
    /// No answer within `redis.timeout`.
    #[error("the store did not answer in time; see redis.timeout")]
    TimedOut,
    /// This node's queue for the store is full: nothing was sent.
    #[error("this node's queue for the store is full")]
    Busy,
    /// The store is out of memory: nothing was changed.
    #[error("the store is out of memory; raise its maxmemory")]
    NoMemory,
}

impl BrokerError {
    /// Unreachable, for this cause.
    pub fn unreachable(cause: &impl fmt::Display) -> Self {
        Self::Unreachable(cause.to_string().into())
    }
}

/// Not an envelope of a version that this release reads. Probably a newer release sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown version of an envelope: a newer release sent it")]
pub struct UnknownEnvelope;

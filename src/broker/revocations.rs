//! The store of revocations, which all nodes share.

use async_trait::async_trait;

use super::BrokerError;
use crate::model::Revocation;

/// How many there are at most. Each node keeps them all.
pub(super) const REVOCATIONS: usize = 10_000;

/// Keeps revocations until the tokens have ended by themselves. `tests/it/conformance/revocations.rs` checks both
/// implementations.
#[async_trait]
pub trait Revocations {
    /// Adds revocations: those of the same tokens are [extended](Revocation::extend). False if there is no room for
    /// all of them, and then none is added.
    async fn revoke(&self, revocations: &[Revocation]) -> Result<bool, BrokerError>;

    /// All that have not ended, in no order.
    async fn revocations(&self) -> Result<Vec<Revocation>, BrokerError>;
}

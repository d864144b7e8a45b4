//! Revocations in memory: they end with the process.

use std::time::SystemTime;

use async_trait::async_trait;

use super::node::MemoryNode;
use crate::broker::BrokerError;
use crate::broker::revocations::{REVOCATIONS, Revocations};
use crate::model::Revocation;

#[async_trait]
impl Revocations for MemoryNode {
    async fn revoke(&self, revocations: &[Revocation]) -> Result<bool, BrokerError> {
        let mut state = self.shared.reach()?;
        let known = &mut state.revocations;
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        known.retain(|_, revocation| revocation.until > now.as_secs());
        if known.len() + revocations.len() > REVOCATIONS {
            return Ok(false);
        }
        for revocation in revocations {
            let tokens = revocation.tokens.clone();
            let known = known.entry(tokens).or_insert_with(|| revocation.clone());
            known.extend(revocation);
        }
        Ok(true)
    }

    async fn revocations(&self) -> Result<Vec<Revocation>, BrokerError> {
        Ok(self.shared.reach()?.revocations.values().cloned().collect())
    }
}

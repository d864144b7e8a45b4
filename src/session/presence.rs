//! What a client asks about the presence of others.

use super::runner::Runner;
use super::state::RETRY_SEND;
use crate::model::{Refusal, UserName};

impl Runner {
    /// Answers who of these users is here, and changes whom the session watches. A session that `remembers` watches
    /// them on whichever node continues it.
    pub(super) async fn presence(
        &mut self,
        names: Vec<UserName>,
        watch: Option<bool>,
        remembers: bool,
    ) -> Result<Vec<(UserName, bool)>, Refusal> {
        let lease = self.state.lease().clone();
        let users = self.router.presence(&lease, names, watch).await?;
        if let Some(watch) = watch.filter(|_| remembers) {
            let names = users.iter().map(|(name, _)| name);
            let update = self.state.watch(names, watch);
            let written = self.router.broker().save(&lease, update).await;
            written.map_err(|_| Refusal::Unavailable {
                retry_after: RETRY_SEND,
            })?;
        }
        Ok(users)
    }
}

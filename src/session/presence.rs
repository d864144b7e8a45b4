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
        // Of those whom it may not call, a client learns nothing: they are never here.
        let (names, hidden): (Vec<_>, Vec<_>) = names
            .into_iter()
            .partition(|name| self.state.may_reach(name));
        let mut users = self.router.presence(&lease, names, watch).await?;
        if let Some(watch) = watch.filter(|_| remembers) {
            let names = users.iter().map(|(name, _)| name);
            let update = self.state.watch(names, watch);
            let written = self.router.broker().save(&lease, update).await;
            written.map_err(|_| Refusal::Unavailable {
                retry_after: RETRY_SEND,
            })?;
        }
        users.extend(hidden.into_iter().map(|name| (name, false)));
        Ok(users)
    }
}

//! Who is to be woken when something has happened to a letterbox.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::model::SessionId;

/// The sleepers of one node.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    /// Held for a map operation. As many entries as there are letterboxes that somebody listens to.
    by_session: Mutex<HashMap<SessionId, watch::Sender<()>>>,
}

/// Hears that something has happened to a letterbox.
#[derive(Debug)]
pub struct Ear {
    wakes: Arc<Wakes>,
    session: SessionId,
    news: watch::Receiver<()>,
}

impl Wakes {
    pub(super) fn listen(self: &Arc<Self>, session: SessionId) -> Ear {
        let mut by_session = self.lock();
        let sender = by_session
            .entry(session)
            .or_insert_with(|| watch::channel(()).0);
        Ear {
            wakes: Arc::clone(self),
            session,
            news: sender.subscribe(),
        }
    }

    pub(super) fn wake(&self, session: SessionId) {
        if let Some(sleepers) = self.lock().get(&session) {
            sleepers.send_replace(());
        }
    }

    /// Something may have happened to any of them.
    pub(super) fn wake_all(&self) {
        for sleepers in self.lock().values() {
            sleepers.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, watch::Sender<()>>> {
        self.by_session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ear {
    /// Waits for news that came after the last time.
    pub async fn heard(&mut self) {
        // The sender is there for as long as anybody listens.
        if self.news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut by_session = self.wakes.lock();
        let sleepers = by_session.get(&self.session);
        if sleepers.is_some_and(|sleepers| sleepers.receiver_count() == 1) {
            by_session.remove(&self.session);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_wake_that_comes_early_is_heard_once_and_nobody_is_remembered() {
        let wakes = Arc::new(Wakes::default());
        let (one, other) = (SessionId::random(), SessionId::random());
        let (mut ear, mut second) = (wakes.listen(one), wakes.listen(one));
        wakes.wake(other);
        assert!(ear.heard().now_or_never().is_none());
        wakes.wake(one);
        assert!(ear.heard().now_or_never().is_some());
        assert!(ear.heard().now_or_never().is_none());
        assert!(second.heard().now_or_never().is_some());
        drop(ear);
        wakes.wake_all();
        assert!(second.heard().now_or_never().is_some());
        drop(second);
        assert!(wakes.lock().is_empty());
    }
}
